//! Bundles and their rules. See `docs/spec/http.md` §14.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use coretex_core::policy::bundles::{Error, Put};

use super::checks::{Check, simulated};
use super::{actor, expected, tagged};
use crate::gateway::auth::Caller;
use crate::gateway::body::Large;
use crate::gateway::error::ApiError;
use crate::gateway::query::Query;
use crate::gateway::{App, json};

/// The bundle that a request is about: `bundle_id` of the query, else the id of the path; `~` stands for a slash.
fn bundle_id(path: &str, query: &Query) -> String {
    query.text("bundle_id").unwrap_or(path).replace('~', "/")
}

/// `GET /api/v1/policy/rules`.
pub(super) async fn rules(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    let include_disabled = query.flag("include_disabled");
    Ok(json::ok(&app.services.bundles.rules(include_disabled).await?))
}

/// `GET /api/v1/policy/bundles`.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let listing = app.services.bundles.list().await?;
    Ok(tagged(json::ok(&listing), listing.revision))
}

/// `GET /api/v1/policy/bundles/{id}`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let bundle = app.services.bundles.get(&bundle_id(&id, &query)).await?;
    Ok(tagged(json::ok(&bundle), bundle.revision))
}

json::request! {
    struct PutBody {
        content: String,
        enabled: Option<bool>,
        author: String,
        message: String,
        revision: Option<i64>,
    }
}

/// `PUT /api/v1/policy/bundles/{id}`.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
    caller: Caller,
    headers: HeaderMap,
    Large(body): Large,
) -> Result<Response, ApiError> {
    caller.require_secops()?;
    let id = bundle_id(&id, &query);
    // Before the body, as it always was.
    coretex_core::policy::bundles::check_editable(&id)?;
    let body: PutBody = json::read(&body, "invalid json")?;
    let put = Put {
        id,
        content: body.content,
        enabled: body.enabled,
        author: body.author,
        message: body.message,
        expected: expected(&headers, body.revision)?,
    };
    let (bundles, by) = (app.services.bundles.clone(), actor(&caller));
    let done = app
        .write(async move { bundles.put(put, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(tagged(json::ok(&done), done.revision))
}

/// `PUT /api/v1/policy/bundles/snapshots`: this path is a list for all other methods.
pub(super) async fn put_snapshots(
    app: State<Arc<App>>,
    query: Query,
    caller: Caller,
    headers: HeaderMap,
    body: Large,
) -> Result<Response, ApiError> {
    put(app, Path("snapshots".to_owned()), query, caller, headers, body).await
}

json::request! {
    struct SimulateBody {
        request: Check,
        content: String,
    }
}

/// `POST /api/v1/policy/bundles/{id}/simulate`: by all that is in force, with another text for one bundle.
pub(super) async fn simulate(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
    Large(body): Large,
) -> Result<Response, ApiError> {
    let id = bundle_id(&id, &query);
    let id = id.trim();
    if id.is_empty() {
        return Err(Error::IdRequired.into());
    }
    let body: SimulateBody = json::read(&body, "invalid json")?;
    let mut check = body.request;
    check.drafts.clear();
    if !body.content.trim().is_empty() {
        check.drafts.insert(id.to_owned(), body.content);
    }
    simulated(&app, check).await
}
