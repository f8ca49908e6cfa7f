//! Routes of policy. See `docs/spec/http.md` §13 and §14.

mod bundles;
mod checks;
mod releases;

use std::sync::Arc;

use axum::Router;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use coretex_core::audit::Actor;
use coretex_core::error::{StoreError, chain};
use coretex_core::policy::{CheckError, Unavailable};
use tracing::error;

use super::App;
use super::auth::Caller;
use super::error::ApiError;

/// The routes of policy.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/policy/audit", get(releases::audit))
        .route("/api/v1/policy/bundles", get(bundles::list))
        .route("/api/v1/policy/bundles/{id}", get(bundles::get).put(bundles::put))
        .route("/api/v1/policy/bundles/{id}/simulate", post(bundles::simulate))
        .route(
            "/api/v1/policy/bundles/snapshots",
            get(releases::snapshots)
                .post(releases::capture)
                .put(bundles::put_snapshots),
        )
        .route("/api/v1/policy/bundles/snapshots/{id}", get(releases::snapshot))
        .route("/api/v1/policy/evaluate", post(checks::evaluate))
        .route("/api/v1/policy/explain", post(checks::explain))
        .route("/api/v1/policy/publish", post(releases::publish))
        .route("/api/v1/policy/rollback", post(releases::rollback))
        .route("/api/v1/policy/rules", get(bundles::rules))
        .route("/api/v1/policy/simulate", post(checks::simulate))
        .route("/api/v1/policy/snapshots", get(checks::snapshots))
}

/// Who is to be written down.
fn actor(caller: &Caller) -> Actor {
    Actor::new(caller.id.as_str(), caller.role.as_str())
}

/// The revision that the client knows: of `If-Match`, else of the body.
fn expected(headers: &HeaderMap, body: Option<i64>) -> Result<Option<u64>, ApiError> {
    let Some(sent) = headers.get(IF_MATCH) else {
        return body
            .map(|revision| {
                u64::try_from(revision).map_err(|_| ApiError::invalid("revision", "revision must not be negative"))
            })
            .transpose();
    };
    let text = sent.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    digits
        .parse()
        .map(Some)
        .map_err(|_| ApiError::invalid("If-Match", "If-Match must be the revision of the bundles"))
}

/// Adds the revision as an entity tag, for `If-Match`.
fn tagged(mut response: Response, revision: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

impl From<coretex_core::policy::bundles::Error> for ApiError {
    fn from(error: coretex_core::policy::bundles::Error) -> Self {
        use coretex_core::policy::bundles::Error;
        let text = error.to_string();
        let refused = |field: &'static str, remedy: &str| {
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_policy", text.clone())
                .field(field)
                .detail(format!("{text}\n{remedy}"))
        };
        match error {
            Error::IdRequired | Error::InvalidId(_) => Self::invalid("id", text),
            Error::NotSecops => Self::invalid("id", text)
                .detail("bundle id must start with secops/: bundles of packs are changed by installing the pack"),
            Error::ContentRequired => Self::invalid("content", text)
                .detail("content required: to take a bundle out of force, send `enabled: false` with its content"),
            Error::SnapshotIdRequired => Self::invalid("snapshot_id", text),
            Error::ContentTooLarge { limit, .. } | Error::TooLarge { limit, .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "policy_too_large", text)
                    .field("content")
                    .limit(limit)
            }
            Error::Content(_) => refused("content", "nothing was written; correct the content and send it again"),
            Error::Bundle { .. } => refused(
                "bundles",
                "nothing was written; correct or disable that bundle and try again",
            ),
            Error::NotFound => Self::not_found("bundle not found"),
            Error::NotABundle => Self::not_found("bundle invalid"),
            Error::SnapshotNotFound => Self::not_found("snapshot not found"),
            Error::NoBundles => ApiError::new(StatusCode::BAD_REQUEST, "no_bundles", text).field("bundle_ids"),
            Error::NothingToPublish => ApiError::new(StatusCode::BAD_REQUEST, "nothing_to_publish", text)
                .field("bundle_ids")
                .detail("no secops bundles to publish: only bundles whose id starts with secops/ are published"),
            Error::Conflict { .. } => {
                let remedy = format!("{text}; read the bundles again, and send the change with the new revision");
                ApiError::new(StatusCode::CONFLICT, "revision_conflict", text)
                    .field("revision")
                    .detail(remedy)
            }
            Error::Contended => ApiError::new(StatusCode::CONFLICT, "contended", text).retry_after(1),
            Error::Interrupted(error) => {
                error!(%error, "policy was not read");
                Self::internal()
            }
            Error::Store(source) => config_failed(&source),
            _ => Self::internal(),
        }
    }
}

impl From<CheckError> for ApiError {
    fn from(error: CheckError) -> Self {
        let text = error.to_string();
        match error {
            CheckError::TopicRequired => Self::invalid("topic", text),
            CheckError::Draft(_) => ApiError::new(StatusCode::BAD_REQUEST, "invalid_policy", text).field("drafts"),
            CheckError::Unavailable(source) => kernel_unavailable(&source),
            CheckError::Store(source) => config_failed(&source),
            _ => Self::internal(),
        }
    }
}

/// 503: there is no decision to tell.
fn kernel_unavailable(source: &Unavailable) -> ApiError {
    error!(error = %chain(source), "policy cannot be asked");
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "policy_unavailable",
        "safety kernel unavailable",
    )
    .retry_after(1)
}

/// Drivers say addresses and key names; those go to the log, never to a client.
fn config_failed(source: &StoreError) -> ApiError {
    error!(error = %chain(source), "the config store failed a request");
    if source.is_retryable() {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "config service unavailable",
        )
        .retry_after(1)
    } else {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "config store failed")
    }
}
