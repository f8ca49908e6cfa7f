//! Routes of schedules: workflows that are started by the clock. See `docs/spec/http.md` §19.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coretex_core::jobs::service::parse_lower_bound;
use coretex_core::time::Timestamp;
use coretex_core::workflow::RunId;
use coretex_core::workflow::check::Problem;
use coretex_core::workflow::model::Object;
use coretex_core::workflow::service::Error;
use coretex_core::workflow::store::{Overlap, Schedule};
use serde::Serialize;

use super::{actor, error, start};
use crate::gateway::auth::Caller;
use crate::gateway::body::Document;
use crate::gateway::error::ApiError;
use crate::gateway::query::Query;
use crate::gateway::{App, json};

/// How many schedules a list has at most.
const LIST_MAX: usize = 1_000;

json::request! {
    struct ScheduleBody {
        id: String,
        workflow_id: String,
        org_id: String,
        team_id: String,
        cron: String,
        timezone: String,
        input: Object,
        overlap: String,
        catch_up_sec: i64,
        paused: bool,
        start_at: String,
        end_at: String,
    }
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/workflow-schedules", get(list).post(create))
        .route("/api/v1/workflow-schedules/{id}", get(show).put(put).delete(remove))
        .route("/api/v1/workflow-schedules/{id}/pause", post(pause))
        .route("/api/v1/workflow-schedules/{id}/resume", post(resume))
        .route("/api/v1/workflow-schedules/{id}/trigger", post(trigger))
}

/// A schedule, with times as people read them.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    workflow_id: &'a str,
    org_id: &'a str,
    team_id: &'a str,
    cron: &'a str,
    timezone: &'a str,
    input: &'a Object,
    overlap: Overlap,
    catch_up_sec: i64,
    paused: bool,
    start_at: Option<String>,
    end_at: Option<String>,
    next_at: Option<String>,
    buffered_at: Option<String>,
    last_run: Option<&'a str>,
    last_at: Option<String>,
    last_result: &'a str,
    revision: u64,
}

impl<'a> From<&'a Schedule> for Shown<'a> {
    fn from(schedule: &'a Schedule) -> Self {
        let text = |time: Option<Timestamp>| time.map(Timestamp::rfc3339);
        Self {
            id: &schedule.id,
            workflow_id: &schedule.workflow_id,
            org_id: &schedule.org_id,
            team_id: &schedule.team_id,
            cron: &schedule.cron,
            timezone: &schedule.timezone,
            input: &schedule.input,
            overlap: schedule.overlap,
            catch_up_sec: schedule.catch_up_sec,
            paused: schedule.paused,
            start_at: text(schedule.start_at),
            end_at: text(schedule.end_at),
            next_at: text(schedule.next_at),
            buffered_at: text(schedule.buffered_at),
            last_run: schedule.last_run.as_ref().map(RunId::as_str),
            last_at: text(schedule.last_at),
            last_result: &schedule.last_result,
            revision: schedule.revision,
        }
    }
}

/// A time in a request: RFC 3339, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed
        .ok()
        .map(|time| Timestamp::from_micros(time.as_microsecond()))
        .or_else(|| parse_lower_bound(text))
}

fn schedule(body: ScheduleBody, app: &App) -> Result<Schedule, ApiError> {
    let mut problems = Vec::new();
    let mut moment = |pointer: &str, text: &str| {
        let time = time(text);
        if time.is_none() && !text.trim().is_empty() {
            let message = format!("`{text}` is no time, as 2026-01-31T10:00:00Z is one");
            problems.push(Problem::error(pointer, "schedule", message));
        }
        time
    };
    let (start_at, end_at) = (moment("/start_at", &body.start_at), moment("/end_at", &body.end_at));
    let overlap = match body.overlap.as_str() {
        "" | "skip" => Overlap::Skip,
        "buffer_one" => Overlap::BufferOne,
        "allow" => Overlap::Allow,
        "cancel_other" => Overlap::CancelOther,
        other => {
            let message = format!("`{other}` is none of skip, buffer_one, allow, cancel_other");
            problems.push(Problem::error("/overlap", "schedule", message));
            Overlap::Skip
        }
    };
    if !problems.is_empty() {
        return Err(error::invalid("invalid_schedule", &problems));
    }
    Ok(Schedule {
        id: body.id,
        workflow_id: body.workflow_id,
        org_id: if body.org_id.is_empty() {
            app.services.default_tenant.to_string()
        } else {
            body.org_id
        },
        team_id: body.team_id,
        cron: body.cron,
        timezone: body.timezone,
        input: body.input,
        overlap,
        catch_up_sec: body.catch_up_sec,
        paused: body.paused,
        start_at,
        end_at,
        ..Schedule::default()
    })
}

/// `GET /api/v1/workflow-schedules`, by id.
async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        items: Vec<Shown<'a>>,
    }

    let schedules = app.workflows().schedules(query.limit(LIST_MAX).min(LIST_MAX)).await?;
    let wanted = |schedule: &&Schedule| query.text("workflow_id").is_none_or(|id| id == schedule.workflow_id);
    Ok(json::ok(&List {
        items: schedules.iter().filter(wanted).map(Shown::from).collect(),
    }))
}

/// `POST /api/v1/workflow-schedules`: a new one, whose id may be left to the server.
async fn create(State(app): State<Arc<App>>, caller: Caller, Document(body): Document) -> Result<Response, ApiError> {
    let body: ScheduleBody = json::read(&body, "invalid json")?;
    let mut response = store(&app, schedule(body, &app)?, Some(0), &caller).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// `PUT /api/v1/workflow-schedules/{id}`: replaces all that clients write.
async fn put(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    caller: Caller,
    Document(body): Document,
) -> Result<Response, ApiError> {
    let body: ScheduleBody = json::read(&body, "invalid json")?;
    let schedule = Schedule {
        id,
        ..schedule(body, &app)?
    };
    store(&app, schedule, expected(&headers)?, &caller).await
}

async fn store(app: &App, schedule: Schedule, expected: Option<u64>, caller: &Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(caller));
    let stored = app
        .write(async move {
            service
                .save_schedule(schedule, expected, &by)
                .await
                .map_err(|error| match (error, expected) {
                    (Error::Conflict, Some(0)) => ApiError::new(
                        StatusCode::CONFLICT,
                        "schedule_exists",
                        "there is a schedule of this id already",
                    ),
                    (Error::Conflict, Some(_)) => ApiError::new(
                        StatusCode::PRECONDITION_FAILED,
                        "revision_conflict",
                        "schedule has another revision than If-Match says",
                    ),
                    (error, _) => error.into(),
                })
        })
        .await?;
    Ok(answer(&stored))
}

fn answer(schedule: &Schedule) -> Response {
    let mut response = json::ok(&Shown::from(schedule));
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", schedule.revision)) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// The revision that the client has seen; 0 for none.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    if let Some(value) = headers.get(IF_MATCH) {
        let text = value.to_str().unwrap_or_default().trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        return text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::invalid("If-Match", "If-Match must be one revision, as \"3\""));
    }
    match headers.get(IF_NONE_MATCH) {
        None => Ok(None),
        Some(value) if value == "*" => Ok(Some(0)),
        Some(_) => Err(ApiError::invalid("If-None-Match", "If-None-Match must be *")),
    }
}

/// `GET /api/v1/workflow-schedules/{id}`.
async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(answer(&app.workflows().schedule(&id).await?))
}

/// `DELETE /api/v1/workflow-schedules/{id}`.
async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(&caller));
    app.write(async move { service.delete_schedule(&id, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/workflow-schedules/{id}/pause`.
async fn pause(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Result<Response, ApiError> {
    set_paused(&app, id, true, &caller).await
}

/// `POST /api/v1/workflow-schedules/{id}/resume`.
async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Result<Response, ApiError> {
    set_paused(&app, id, false, &caller).await
}

async fn set_paused(app: &App, id: String, paused: bool, caller: &Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(caller));
    let schedule = app
        .write(async move { service.pause_schedule(&id, paused, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(answer(&schedule))
}

/// `POST /api/v1/workflow-schedules/{id}/trigger`: starts a run now.
async fn trigger(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(&caller));
    let started = app
        .write(async move { service.trigger_schedule(&id, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(start::answer(&started))
}
