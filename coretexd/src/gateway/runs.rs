//! Routes of runs. See `docs/spec/http.md` §18.

mod actions;
mod list;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coretex_core::workflow::RunId;
use coretex_core::workflow::service::Rerun;
use coretex_core::workflow::store::TimelineOrder;

pub(super) use self::actions::vote;
use self::list::Shape;
pub(super) use self::list::of_workflow;
use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::query::Query;
use super::workflows::{actor, not_found, started};
use super::{App, json};

/// How many entries of a timeline are shown unless the client says otherwise.
const TIMELINE: usize = 200;
/// How many at most.
const TIMELINE_MAX: usize = 10_000;
/// Where a timeline goes on: the `cursor` of the next request.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

json::request! {
    struct RerunBody {
        from_step: String,
        dry_run: bool,
        latest: bool,
    }
}

/// The routes of runs, but for the start.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/workflow-runs", get(list::all))
        .route("/api/v1/workflow-runs/{id}", get(show).delete(remove))
        .route("/api/v1/workflow-runs/{id}/timeline", get(timeline))
        .route("/api/v1/workflow-runs/{id}/rerun", post(rerun))
        .route("/api/v1/workflow-runs/{id}/cancel", post(actions::cancel))
        .route("/api/v1/workflow-runs/{id}/pause", post(actions::pause))
        .route("/api/v1/workflow-runs/{id}/resume", post(actions::resume))
        .route("/api/v1/workflow-runs/{id}/signals/{name}", post(actions::signal))
        .route("/api/v1/workflow-runs/{id}/steps/{step_id}/input", post(actions::form))
        .route(
            "/api/v1/workflows/{id}/runs/{run_id}/cancel",
            post(actions::cancel_of_workflow),
        )
        .route(
            "/api/v1/workflows/{id}/runs/{run_id}/steps/{step_id}/approve",
            post(actions::approve),
        )
}

/// `GET /api/v1/workflow-runs/{id}`.
async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Result<Response, ApiError> {
    let run = app.workflows().run(&RunId::new(&id)).await.map_err(not_found)?;
    Ok(json::ok(&Shape::of(&query).show(&run)))
}

/// `DELETE /api/v1/workflow-runs/{id}`.
async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Result<Response, ApiError> {
    let (service, by) = (app.workflows().clone(), actor(&caller));
    app.write(async move { service.delete_run(&RunId::new(&id), &by).await.map_err(not_found) })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /api/v1/workflow-runs/{id}/timeline`: the oldest entries, or with `order=desc` the newest.
async fn timeline(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Result<Response, ApiError> {
    let order = match query.text("order") {
        Some(order) if order.eq_ignore_ascii_case("desc") => TimelineOrder::Newest,
        _ => TimelineOrder::Oldest,
    };
    let number = |name: &str| query.text(name).and_then(|text| text.parse::<usize>().ok());
    let skip = number("cursor").or_else(|| number("skip")).unwrap_or(0);
    let limit = query.limit(TIMELINE).min(TIMELINE_MAX);
    let entries = app.workflows().timeline(&RunId::new(&id), order, skip, limit).await?;
    let mut response = json::ok(&entries);
    if entries.len() == limit {
        response
            .headers_mut()
            .insert(NEXT_CURSOR, HeaderValue::from(skip.saturating_add(limit)));
    }
    Ok(response)
}

/// `POST /api/v1/workflow-runs/{id}/rerun`.
async fn rerun(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    let run = RunId::new(&id);
    let body: RerunBody = json::read_optional(&body, "invalid json")?;
    let rerun = Rerun {
        from_step: body.from_step.trim().to_owned(),
        dry_run: body.dry_run,
        latest: body.latest,
        by: actor(&caller),
    };
    let service = app.workflows().clone();
    let new = app
        .write(async move { service.rerun(&run, rerun).await.map_err(ApiError::from) })
        .await?;
    Ok(started(&new))
}
