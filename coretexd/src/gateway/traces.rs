//! `GET /api/v1/traces/{id}`. See `docs/spec/http.md` §5.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use coretex_core::protocol::TraceId;

use super::error::ApiError;
use super::record::Job;
use super::{App, json};

/// The jobs of one trace, oldest change first; none for a trace that nobody knows.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let trace = TraceId::try_new(&id).map_err(|error| ApiError::invalid("trace_id", error.to_string()))?;
    let jobs = app.services.jobs.trace(&trace).await?;
    Ok(json::ok(&jobs.iter().map(Job::from).collect::<Vec<_>>()))
}
