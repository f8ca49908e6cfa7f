//! Publishing bundles, and the way back. See `docs/spec/http.md` §14.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use coretex_core::policy::bundles::{Error, Publish, Rollback};
use serde::Serialize;

use super::{actor, expected, tagged};
use crate::gateway::auth::Caller;
use crate::gateway::body::Limited;
use crate::gateway::error::ApiError;
use crate::gateway::{App, json};

#[derive(Serialize)]
struct Items<T> {
    items: Vec<T>,
}

json::request! {
    struct CaptureBody {
        note: String,
    }
}

json::request! {
    struct PublishBody {
        bundle_ids: Vec<String>,
        author: String,
        message: String,
        note: String,
        revision: Option<i64>,
    }
}

json::request! {
    struct RollbackBody {
        snapshot_id: String,
        all: bool,
        message: String,
        note: String,
        revision: Option<i64>,
    }
}

/// `GET /api/v1/policy/bundles/snapshots`.
pub(super) async fn snapshots(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let items = app.services.bundles.snapshots().await?;
    Ok(json::ok(&Items { items }))
}

/// `GET /api/v1/policy/bundles/snapshots/{id}`.
pub(super) async fn snapshot(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(json::ok(&app.services.bundles.snapshot(&id).await?))
}

/// `POST /api/v1/policy/bundles/snapshots`.
pub(super) async fn capture(
    State(app): State<Arc<App>>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    // Whoever holds the shared key always could; keys with roles have to have this one.
    if caller.verified {
        caller.require_secops()?;
    }
    // What is no note is none.
    let note = json::read_optional::<CaptureBody>(&body, "invalid json")
        .unwrap_or_default()
        .note;
    let (bundles, by) = (app.services.bundles.clone(), actor(&caller));
    let snapshot = app
        .write(async move { bundles.capture(&note, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(json::ok(&snapshot))
}

/// `POST /api/v1/policy/publish`.
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    caller.require_secops()?;
    let body: PublishBody = json::read(&body, "invalid json")?;
    let publish = Publish {
        bundle_ids: body.bundle_ids,
        author: body.author,
        message: body.message,
        note: body.note,
        expected: expected(&headers, body.revision)?,
    };
    let (bundles, by) = (app.services.bundles.clone(), actor(&caller));
    let done = app
        .write(async move { bundles.publish(&publish, &by).await.map_err(ApiError::from) })
        .await?;
    Ok(tagged(json::ok(&done), done.revision))
}

/// `POST /api/v1/policy/rollback`.
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    caller.require_secops()?;
    let body: RollbackBody = json::read(&body, "invalid json")?;
    let rollback = Rollback {
        snapshot_id: body.snapshot_id,
        all: body.all,
        message: body.message,
        note: body.note,
        expected: expected(&headers, body.revision)?,
    };
    let (bundles, by) = (app.services.bundles.clone(), actor(&caller));
    let done = app
        .write(async move {
            bundles.rollback(&rollback, &by).await.map_err(|error| match error {
                // The name of the field, as clients know the text.
                Error::SnapshotIdRequired => ApiError::invalid("snapshot_id", "snapshot_id required"),
                error => error.into(),
            })
        })
        .await?;
    Ok(tagged(json::ok(&done), done.revision))
}

/// `GET /api/v1/policy/audit`.
pub(super) async fn audit(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let items = app.services.bundles.audit().await?;
    Ok(json::ok(&Items { items }))
}
