//! Routes that pause topics, pools and workflows. See `docs/spec/http.md` §16.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coretex_core::audit::Actor;
use coretex_core::config::{Pausable, PauseService};

use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::{App, json};

json::request! {
    struct PauseBody {
        reason: String,
    }
}

pub(super) fn routes() -> Router<Arc<App>> {
    let both = |kind: Pausable, path: &str| {
        Router::new()
            .route(
                &format!("/api/v1/{path}/{{name}}/pause"),
                post(
                    move |State(app): State<Arc<App>>,
                          caller: Caller,
                          Path(name): Path<String>,
                          Limited(body): Limited| pause(app, caller, kind, name, body),
                ),
            )
            .route(
                &format!("/api/v1/{path}/{{name}}/resume"),
                post(
                    move |State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>| {
                        resume(app, caller, kind, name)
                    },
                ),
            )
    };
    Router::new()
        .route("/api/v1/pauses", get(list))
        .merge(both(Pausable::Topic, "topics"))
        .merge(both(Pausable::Pool, "pools"))
        .merge(both(Pausable::Workflow, "workflows"))
}

fn service(app: &App) -> PauseService {
    PauseService::new(app.services.config.clone(), app.services.clock.clone())
}

/// `GET /api/v1/pauses`.
async fn list(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    Ok(json::ok(&service(&app).all().await?))
}

async fn pause(
    app: Arc<App>,
    caller: Caller,
    kind: Pausable,
    name: String,
    body: bytes::Bytes,
) -> Result<Response, ApiError> {
    let body: PauseBody = if body.iter().all(u8::is_ascii_whitespace) {
        PauseBody::default()
    } else {
        json::read(&body, "invalid json")?
    };
    let pauses = service(&app);
    app.write(async move {
        let by = Actor::new(caller.id, caller.role);
        pauses.pause(kind, &name, body.reason.trim(), &by).await?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn resume(app: Arc<App>, caller: Caller, kind: Pausable, name: String) -> Result<Response, ApiError> {
    let pauses = service(&app);
    app.write(async move {
        let by = Actor::new(caller.id, caller.role);
        pauses.resume(kind, &name, &by).await?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
