//! `GET /api/v1/status`. See `docs/spec/http.md` §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use coretex_core::bus::Health;
use coretex_core::policy::{KernelStatus, Quarantined, SourceStatus};
use serde::Serialize;

use super::{App, json};

#[derive(Serialize)]
struct Status {
    jobs: Option<BTreeMap<&'static str, u64>>,
    mode: &'static str,
    nats: Nats,
    policy: Policy,
    redis: Redis,
    time: String,
    uptime_seconds: u64,
    version: &'static str,
    workers: Workers,
}

#[derive(Serialize)]
struct Nats {
    connected: bool,
    status: &'static str,
    url: String,
}

#[derive(Serialize)]
struct Policy {
    error: String,
    ok: bool,
    quarantined: Vec<Quarantined>,
    rules: usize,
    snapshot: String,
    sources: Vec<SourceStatus>,
}

#[derive(Serialize)]
struct Redis {
    error: String,
    ok: bool,
}

#[derive(Serialize)]
struct Workers {
    count: usize,
}

/// Always 200: what is wrong is in the answer. `nats` and `redis` stand for bus and store in every mode.
pub(super) async fn get(State(app): State<Arc<App>>) -> Response {
    let counts = async {
        let counts = tokio::time::timeout(Duration::from_secs(1), app.services.jobs.counts()).await;
        counts.ok()?.ok()
    };
    let (store, policy, counts) = tokio::join!(app.check_store(), app.policy_status(), counts);
    let bus = match &*app.services.bus.health().borrow() {
        Health::Connected { server } => Nats {
            connected: true,
            status: "CONNECTED",
            url: crate::settings::redact(server),
        },
        Health::Reconnecting => Nats {
            connected: false,
            status: "RECONNECTING",
            url: String::new(),
        },
        Health::Closed => Nats {
            connected: false,
            status: "CLOSED",
            url: String::new(),
        },
    };
    let now = app.services.clock.now();
    json::ok(&Status {
        jobs: counts.map(|counts| counts.into_iter().map(|(state, n)| (state.as_str(), n)).collect()),
        mode: app.services.mode,
        nats: bus,
        policy: policy_status(policy),
        redis: Redis {
            error: store.detail,
            ok: store.ok,
        },
        time: now.rfc3339_secs(),
        uptime_seconds: app.started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION"),
        workers: Workers {
            count: app.services.workers.live(now).len(),
        },
    })
}

fn policy_status(status: Result<KernelStatus, String>) -> Policy {
    let (status, error) = match status {
        Ok(status) => (status, None),
        Err(error) => (KernelStatus::default(), Some(error)),
    };
    Policy {
        ok: error.is_none() && status.is_ready(),
        error: error.or(status.last_error).unwrap_or_default(),
        quarantined: status.quarantined,
        rules: status.rules,
        snapshot: status.snapshot.unwrap_or_default(),
        sources: status.sources,
    }
}
