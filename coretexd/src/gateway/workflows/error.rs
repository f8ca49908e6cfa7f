//! What the service of workflows answers, as HTTP. One `match`, without a way around it for what this crate knows.

use axum::http::StatusCode;
use coretex_core::error::{StoreError, chain};
use coretex_core::workflow::check::Problem;
use coretex_core::workflow::event::Refusal;
use coretex_core::workflow::service::Error;
use tracing::error;

use crate::gateway::error::ApiError;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            Error::UnknownWorkflow => (StatusCode::NOT_FOUND, "workflow_not_found"),
            Error::UnknownRevision => (StatusCode::NOT_FOUND, "revision_not_found"),
            Error::UnknownRun => (StatusCode::NOT_FOUND, "run_not_found"),
            Error::UnknownSchedule => (StatusCode::NOT_FOUND, "schedule_not_found"),
            Error::Refused(refusal) => return refusal.into(),
            Error::Invalid(problems) => return invalid("invalid_definition", &problems),
            Error::Input(_) => (StatusCode::BAD_REQUEST, "input_invalid"),
            Error::Limit(_) => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_runs", text).retry_after(1);
            }
            Error::IdempotencyMismatch(run) => {
                return Self::new(StatusCode::CONFLICT, "idempotency_mismatch", text)
                    .detail(format!("the key belongs to run {run}, which had another input"));
            }
            Error::DependencyNotSucceeded(_) => (StatusCode::BAD_REQUEST, "dependency_not_succeeded"),
            Error::StepNotFound => (StatusCode::BAD_REQUEST, "step_not_found"),
            Error::Conflict => {
                return Self::new(StatusCode::CONFLICT, "contended", text).retry_after(1);
            }
            Error::InUse(_) => (StatusCode::CONFLICT, "workflow_in_use"),
            Error::RunOpen(_) => (StatusCode::CONFLICT, "run_open"),
            Error::WorkflowPaused => (StatusCode::CONFLICT, "workflow_paused"),
            Error::Busy => {
                return Self::new(StatusCode::CONFLICT, "run_busy", "workflow run is busy, retry").retry_after(1);
            }
            Error::Stopping => {
                return Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "stopping",
                    "workflow engine unavailable",
                )
                .retry_after(1);
            }
            Error::Config(source) => {
                error!(error = %chain(&*source), "the configuration failed a workflow");
                return Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "config_unavailable",
                    "config service unavailable",
                )
                .retry_after(1);
            }
            Error::Store(source) => return store(&source),
            error => {
                error!(error = %chain(&error), "an error of workflows without a status");
                return Self::internal();
            }
        };
        Self::new(status, code, text)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        let (status, code) = match refusal {
            Refusal::StepNotFound => (StatusCode::NOT_FOUND, "step_not_found"),
            Refusal::StepNotWaiting => (StatusCode::CONFLICT, "step_not_waiting"),
            Refusal::RunEnded(_) => (StatusCode::CONFLICT, "run_ended"),
            Refusal::Form(reasons) => {
                let problems = reasons
                    .into_iter()
                    .map(|message| Problem::error("", "form", message))
                    .collect();
                return Self::new(StatusCode::UNPROCESSABLE_ENTITY, "form_invalid", text).problems(problems);
            }
            Refusal::AlreadyVoted(_) => (StatusCode::CONFLICT, "already_voted"),
            Refusal::Role { .. } => (StatusCode::FORBIDDEN, "role_required"),
            Refusal::Anonymous(_) => (StatusCode::BAD_REQUEST, "principal_required"),
            Refusal::TooManySignals(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_signals"),
            _ => (StatusCode::CONFLICT, "refused"),
        };
        Self::new(status, code, text)
    }
}

/// 400 with all problems, one per line.
pub(super) fn invalid(code: &'static str, problems: &[Problem]) -> ApiError {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    ApiError::new(StatusCode::BAD_REQUEST, code, lines.join("\n")).problems(problems.to_vec())
}

/// Drivers say addresses and key names; those go to the log, never to a client.
fn store(source: &StoreError) -> ApiError {
    error!(error = %chain(source), "the workflow store failed a request");
    if matches!(source, StoreError::Unavailable { .. }) {
        return ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "workflow store unavailable",
        )
        .retry_after(1);
    }
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "store_failed",
        "workflow store failed",
    )
}
