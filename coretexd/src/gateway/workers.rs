//! `GET /api/v1/workers`. See `docs/spec/http.md` §6.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::{App, json};

#[expect(clippy::struct_field_names, reason = "the fields are the names on the wire")]
#[derive(Serialize)]
struct Worker<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    worker_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    region: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "zero", serialize_with = "float")]
    cpu_load: f32,
    #[serde(skip_serializing_if = "zero", serialize_with = "float")]
    gpu_utilization: f32,
    #[serde(skip_serializing_if = "is_zero")]
    active_jobs: i32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    pool: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    max_parallel_jobs: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    updated_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn zero(value: &f32) -> bool {
    *value == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn float<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    json::float(*value, serializer)
}

/// The workers that are alive, by id, each as its last heartbeat says.
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let live = app.services.workers.live(app.services.clock.now());
    let workers: Vec<_> = live
        .iter()
        .map(|seen| Worker {
            worker_id: &seen.heartbeat.worker_id,
            region: &seen.heartbeat.region,
            kind: &seen.heartbeat.r#type,
            cpu_load: seen.heartbeat.cpu_load,
            gpu_utilization: seen.heartbeat.gpu_utilization,
            active_jobs: seen.heartbeat.active_jobs,
            capabilities: &seen.heartbeat.capabilities,
            pool: &seen.heartbeat.pool,
            max_parallel_jobs: seen.heartbeat.max_parallel_jobs,
            labels: &seen.heartbeat.labels,
            updated_at: seen.at.rfc3339(),
        })
        .collect();
    json::ok(&workers)
}
