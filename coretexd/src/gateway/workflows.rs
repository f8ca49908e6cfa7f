//! Routes of workflow definitions. See `docs/spec/http.md` §15.

mod error;
mod schedules;
mod start;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coretex_core::audit::Actor;
use coretex_core::workflow::Workflow;
use coretex_core::workflow::check::{self, Problem};
use coretex_core::workflow::decode;
use coretex_core::workflow::service::{Definition, Error, Workflows};
use serde::Serialize;

pub(super) use self::start::{answer as started, idempotency_key};
use super::auth::Caller;
use super::body::Document;
use super::error::ApiError;
use super::query::Query;
use super::{App, json};

/// How many definitions or revisions a list has unless the client says otherwise, as clients have always had it.
const LIST: usize = 100;
/// How many it has at most.
const LIST_MAX: usize = 1_000;

/// The routes of definitions and schedules, and the start of runs.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/workflows", get(list).post(save))
        // A definition may have this name as well.
        .route(
            "/api/v1/workflows/validate",
            post(validate).get(get_validate).delete(delete_validate),
        )
        .route("/api/v1/workflows/{id}", get(show).delete(remove))
        .route("/api/v1/workflows/{id}/versions", get(versions))
        .route(
            "/api/v1/workflows/{id}/runs",
            get(super::runs::of_workflow).post(start::start),
        )
        .merge(schedules::routes())
}

impl App {
    /// The service that all of these routes call.
    pub(super) fn workflows(&self) -> &Workflows {
        &self.services.workflows
    }
}

/// Who is to be written down.
pub(super) fn actor(caller: &Caller) -> Actor {
    Actor::new(caller.id.as_str(), caller.role.as_str())
}

/// `GET /api/v1/workflows`: most recently saved first.
async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    let limit = query.limit(LIST).min(LIST_MAX);
    let stored = app.workflows().workflows(query.text("org_id"), limit).await?;
    let workflows: Vec<&Workflow> = stored.iter().map(|stored| &stored.workflow).collect();
    Ok(json::ok(&workflows))
}

/// `POST /api/v1/workflows`.
async fn save(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        id: &'a str,
        hash: &'a str,
        created: bool,
    }

    let definition = definition(&body)?;
    let if_match = if_match(&headers)?;
    let (service, by) = (app.workflows().clone(), actor(&caller));
    let saved = app
        .write(async move {
            let conditional = if_match.is_some();
            service
                .save(definition, if_match.as_deref(), &by)
                .await
                .map_err(|error| match error {
                    Error::Conflict if conditional => ApiError::new(
                        StatusCode::PRECONDITION_FAILED,
                        "revision_conflict",
                        "workflow has another revision than If-Match says",
                    ),
                    error => error.into(),
                })
        })
        .await?;
    let mut response = json::ok(&Answer {
        id: &saved.id,
        hash: &saved.hash,
        created: saved.created,
    });
    // 201 also for a new revision: clients have always had it.
    *response.status_mut() = StatusCode::CREATED;
    tag(&mut response, &saved.hash);
    Ok(response)
}

/// A definition out of a body.
fn definition(body: &[u8]) -> Result<Definition, ApiError> {
    decode::definition(body).map_err(|error| {
        let detail = format!("invalid json: {error}");
        ApiError::invalid_json("invalid json", None, detail).problems(error.problems())
    })
}

/// `POST /api/v1/workflows/validate`: says what a save would say, and saves nothing.
async fn validate(State(app): State<Arc<App>>, Document(body): Document) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        valid: bool,
        hash: String,
        problems: &'a [Problem],
    }

    let mut definition = definition(&body)?;
    if definition.workflow.id.is_empty() {
        // A save would make one.
        "new".clone_into(&mut definition.workflow.id);
    }
    let mut problems = app.workflows().validate(&definition.workflow);
    problems.append(&mut definition.warnings);
    Ok(json::ok(&Answer {
        valid: !check::refused(&problems),
        hash: definition.workflow.content_hash(),
        problems: &problems,
    }))
}

/// `GET /api/v1/workflows/{id}`, with `revision` as it was then.
async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Result<Response, ApiError> {
    one(&app, &id, &query).await
}

async fn get_validate(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    one(&app, "validate", &query).await
}

async fn one(app: &App, id: &str, query: &Query) -> Result<Response, ApiError> {
    let (workflow, hash) = match query.text("revision") {
        Some(hash) => {
            let workflow = app.workflows().revision(hash).await?;
            if workflow.id != id {
                return Err(Error::UnknownRevision.into());
            }
            (workflow, hash.to_owned())
        }
        None => {
            let stored = app.workflows().workflow(id).await.map_err(not_found)?;
            (stored.workflow, stored.hash)
        }
    };
    let mut response = json::ok(&workflow);
    tag(&mut response, &hash);
    Ok(response)
}

/// Two routes have shorter words for it.
pub(super) fn not_found(error: Error) -> ApiError {
    match error {
        Error::UnknownWorkflow | Error::UnknownRun => ApiError::not_found("not found"),
        error => error.into(),
    }
}

/// `GET /api/v1/workflows/{id}/versions`: newest first.
async fn versions(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Version {
        hash: String,
        saved_at: String,
        current: bool,
    }
    #[derive(Serialize)]
    struct List {
        items: Vec<Version>,
    }

    let limit = query.limit(LIST).min(LIST_MAX);
    let revisions = app.workflows().revisions(&id, limit).await?;
    // Deleted definitions have revisions, and none that is current.
    let current = match app.workflows().workflow(&id).await {
        Ok(stored) => stored.hash,
        Err(Error::UnknownWorkflow) => String::new(),
        Err(error) => return Err(error.into()),
    };
    let items = revisions
        .into_iter()
        .map(|revision| Version {
            current: revision.hash == current,
            saved_at: revision.saved_at.rfc3339(),
            hash: revision.hash,
        })
        .collect();
    Ok(json::ok(&List { items }))
}

/// `DELETE /api/v1/workflows/{id}`.
async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
    caller: Caller,
) -> Result<Response, ApiError> {
    delete(&app, id, query.flag("force"), &caller).await
}

async fn delete_validate(State(app): State<Arc<App>>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    delete(&app, "validate".to_owned(), query.flag("force"), &caller).await
}

async fn delete(app: &App, id: String, force: bool, caller: &Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(caller));
    app.write(async move { service.delete(&id, force, &by).await.map_err(not_found) })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Says which revision the answer is about.
fn tag(response: &mut Response, hash: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// The revision that the client has seen; `*` is any, but there has to be one.
fn if_match(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    if text.is_empty() {
        return Err(ApiError::invalid("If-Match", "If-Match must be the hash of a revision"));
    }
    Ok(Some(text.to_owned()))
}
