//! Is the process alive, and should it get traffic? See `docs/spec/http.md` §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use coretex_core::bus::Health;
use coretex_core::policy::KernelStatus;
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

    /// How policy is doing.
    pub(super) async fn policy_status(&self) -> Result<KernelStatus, String> {
        tokio::time::timeout(PROBE_TIMEOUT, self.services.kernel.status())
            .await
            .map_err(|_| "no answer within 1s".to_owned())
    }

    /// Which policy is in force, what of it is out of force, and which sources are missing. Only a source that was never read
    /// is a no: whatever else is wrong, there are decisions.
    async fn check_policy(&self) -> Check {
        match self.policy_status().await {
            Ok(status) => Check {
                ok: status.is_ready(),
                detail: describe(&status),
            },
            Err(detail) => Check { ok: false, detail },
        }
    }
}

/// The snapshot id; then what is wrong, if anything.
fn describe(status: &KernelStatus) -> String {
    let snapshot = status.snapshot.iter().cloned();
    let missing = status
        .sources
        .iter()
        .filter(|source| !source.ok)
        .map(|source| format!("missing {}: {}", source.name, source.detail));
    let refused = status.quarantined.iter().map(|fragment| {
        let instead = if fragment.last_good {
            "its last good text is in force"
        } else {
            "not in force"
        };
        format!("fragment {} refused, {instead}", fragment.fragment)
    });
    let failing = status.last_error.iter().filter(|_| status.is_ready());
    let failing = failing.map(|error| format!("not reloaded: {error}"));
    let parts: Vec<String> = snapshot.chain(missing).chain(refused).chain(failing).collect();
    parts.join("; ")
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
