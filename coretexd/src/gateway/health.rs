//! Is the process alive, and should it get traffic? See `docs/spec/http.md` §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use coretex_core::bus::Health;
use serde::Serialize;

use super::{App, json};

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /health`: the process answers. Nothing else is looked at.
pub(super) async fn live() -> Response {
    ([(axum::http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok").into_response()
}

#[derive(Serialize)]
struct Ready {
    checks: BTreeMap<&'static str, Check>,
    ready: bool,
}

#[derive(Serialize)]
pub(super) struct Check {
    pub(super) ok: bool,
    pub(super) detail: String,
}

impl App {
    /// Whether the bus has a connection.
    pub(super) fn check_bus(&self) -> Check {
        match &*self.services.bus.health().borrow() {
            Health::Connected { server } => Check {
                ok: true,
                detail: crate::settings::redact(server),
            },
            Health::Reconnecting => Check {
                ok: false,
                detail: "reconnecting".to_owned(),
            },
            Health::Closed => Check {
                ok: false,
                detail: "closed".to_owned(),
            },
        }
    }

    /// Whether the store answers within a second.
    pub(super) async fn check_store(&self) -> Check {
        match tokio::time::timeout(PROBE_TIMEOUT, self.services.stores.cluster.ping()).await {
            Ok(Ok(())) => Check {
                ok: true,
                detail: String::new(),
            },
            Ok(Err(error)) => {
                tracing::warn!(error = %coretex_core::error::chain(&error), "the store does not answer");
                Check {
                    ok: false,
                    detail: error.to_string(),
                }
            }
            Err(_) => Check {
                ok: false,
                detail: "no answer within 1s".to_owned(),
            },
        }
    }

    /// Which policy is in force.
    pub(super) async fn check_policy(&self) -> Check {
        match tokio::time::timeout(PROBE_TIMEOUT, self.services.kernel.snapshots()).await {
            Ok(Ok(snapshots)) => Check {
                ok: true,
                detail: snapshots.into_iter().next().unwrap_or_default(),
            },
            Ok(Err(error)) => Check {
                ok: false,
                detail: error.to_string(),
            },
            Err(_) => Check {
                ok: false,
                detail: "no answer within 1s".to_owned(),
            },
        }
    }
}

/// `GET /ready`: 200 if bus, store and policy are there and the process is not stopping, else 503; both say which.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let (store, policy) = tokio::join!(app.check_store(), app.check_policy());
    let mut checks = BTreeMap::from([("bus", app.check_bus()), ("policy", policy), ("store", store)]);
    if app.draining.is_cancelled() {
        checks.insert(
            "process",
            Check {
                ok: false,
                detail: "stopping".to_owned(),
            },
        );
    }
    let ready = checks.values().all(|check| check.ok);
    let mut response = json::ok(&Ready { checks, ready });
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
