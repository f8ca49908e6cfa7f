//! What people and programs tell a run. See `docs/spec/http.md` §18.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use coretex_core::workflow::event::Event;
use coretex_core::workflow::run::StepVote;
use coretex_core::workflow::{RunId, StepKey};
use serde_json::Value;

use crate::gateway::auth::Caller;
use crate::gateway::body::{Limited, Small};
use crate::gateway::error::ApiError;
use crate::gateway::query::Query;
use crate::gateway::workflows::idempotency_key;
use crate::gateway::{App, json};

/// The longest name of a signal, in bytes.
const SIGNAL_NAME_MAX: usize = 128;

json::request! {
    struct ApproveBody {
        approved: Option<bool>,
        reason: String,
        note: String,
    }
}

json::request! {
    struct CancelBody {
        reason: String,
    }
}

/// Tells a run something, and answers once it has happened.
async fn tell(app: &App, run: &str, workflow: Option<String>, event: Event) -> Result<Response, ApiError> {
    let (service, run) = (app.workflows().clone(), RunId::new(run));
    app.write(async move {
        service
            .apply(&run, workflow.as_deref(), event)
            .await
            .map_err(ApiError::from)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What somebody says to a step.
pub(in crate::gateway) fn vote(app: &App, caller: Caller, approved: bool, reason: &str, note: &str) -> StepVote {
    StepVote {
        by: caller.id,
        role: caller.role,
        approved,
        reason: reason.trim().to_owned(),
        note: note.trim().to_owned(),
        at: app.services.clock.now(),
    }
}

/// `POST /api/v1/workflows/{id}/runs/{run_id}/steps/{step_id}/approve`.
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Path((workflow, run, step)): Path<(String, String, String)>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    let body: ApproveBody = json::read(&body, "invalid body")?;
    // Nobody rejects by forgetting to say what they mean.
    let approved = body
        .approved
        .ok_or_else(|| ApiError::invalid("approved", "invalid body").detail("`approved` must be true or false"))?;
    let event = Event::Vote {
        step: StepKey::new(&step),
        vote: vote(&app, caller, approved, &body.reason, &body.note),
    };
    tell(&app, &run, Some(workflow), event).await
}

/// A cancel. The body was never looked at; a reason in it is kept if there is one.
fn cancel_event(caller: Caller, body: &[u8]) -> Event {
    let body: CancelBody = json::read_optional(body, "invalid body").unwrap_or_default();
    Event::Cancel {
        by: caller.id,
        reason: body.reason.trim().to_owned(),
    }
}

/// `POST /api/v1/workflows/{id}/runs/{run_id}/cancel`.
pub(super) async fn cancel_of_workflow(
    State(app): State<Arc<App>>,
    Path((workflow, run)): Path<(String, String)>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    tell(&app, &run, Some(workflow), cancel_event(caller, &body)).await
}

/// `POST /api/v1/workflow-runs/{id}/cancel`.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(run): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    tell(&app, &run, None, cancel_event(caller, &body)).await
}

/// `POST /api/v1/workflow-runs/{id}/pause`.
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(run): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    tell(&app, &run, None, Event::Pause { by: caller.id }).await
}

/// `POST /api/v1/workflow-runs/{id}/resume`.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(run): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    tell(&app, &run, None, Event::Resume { by: caller.id }).await
}

/// The JSON value of a body; null if there is none.
fn value(body: &[u8]) -> Result<Value, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    json::read(body, "invalid json")
}

/// `POST /api/v1/workflow-runs/{id}/signals/{name}`.
pub(super) async fn signal(
    State(app): State<Arc<App>>,
    Path((run, name)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
    caller: Caller,
    Small(body): Small,
) -> Result<Response, ApiError> {
    if name.trim().is_empty() || name.len() > SIGNAL_NAME_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "name",
            format!("signal name must have 1 to {SIGNAL_NAME_MAX} bytes and no control characters"),
        ));
    }
    let event = Event::Signal {
        name,
        payload: Arc::new(value(&body)?),
        id: idempotency_key(&headers, &query)?,
        by: caller.id,
    };
    tell(&app, &run, None, event).await
}

/// `POST /api/v1/workflow-runs/{id}/steps/{step_id}/input`.
pub(super) async fn form(
    State(app): State<Arc<App>>,
    Path((run, step)): Path<(String, String)>,
    caller: Caller,
    Small(body): Small,
) -> Result<Response, ApiError> {
    let event = Event::Form {
        step: StepKey::new(&step),
        value: Arc::new(value(&body)?),
        by: caller.id,
        role: caller.role,
    };
    tell(&app, &run, None, event).await
}
