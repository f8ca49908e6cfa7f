//! What a client is told when something is wrong. See `docs/spec/http.md` §2.

use std::borrow::Cow;

use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use coretex_core::error::{StoreError, chain};
use coretex_core::jobs::service::{Invalid, RemediateError, SubmitError};
use coretex_core::workflow::check::Problem;
use serde::Serialize;
use tracing::error;

/// The media type of problem details (RFC 9457).
const PROBLEM_JSON: &str = "application/problem+json";

/// An answer that is not what the client hoped for.
///
/// It becomes a line of text, or problem details if the client asked for those ([`into_problem`]).
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    text: Cow<'static, str>,
    detail: Option<String>,
    field: Option<Cow<'static, str>>,
    limit: Option<usize>,
    retry_after: Option<u64>,
    problems: Vec<Problem>,
}

impl ApiError {
    /// An error with a stable code for programs and a text for people.
    pub fn new(status: StatusCode, code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            text: text.into(),
            detail: None,
            field: None,
            limit: None,
            retry_after: None,
            problems: Vec::new(),
        }))
    }

    /// 400: the body is not JSON of the right shape. The text is fixed; `detail` says where and why.
    pub fn invalid_json(text: &'static str, field: Option<String>, detail: String) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_json", text);
        error.0.detail = Some(detail);
        error.0.field = field.map(Cow::Owned);
        error
    }

    /// 400: one field is not as it must be.
    pub fn invalid(field: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_field", text);
        error.0.field = Some(field.into());
        error
    }

    /// 413: more than is read.
    pub fn body_too_large(limit: usize) -> Self {
        let text = format!("request body too large: the limit is {limit} bytes");
        let mut error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text);
        error.0.field = Some("body".into());
        error.0.limit = Some(limit);
        error
    }

    /// 404.
    pub fn not_found(text: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", text)
    }

    /// 500, and nothing that a client could use.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
    }

    /// Names the field that it is about.
    #[must_use]
    pub fn field(mut self, field: &'static str) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Names the limit that was exceeded.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.0.limit = Some(limit);
        self
    }

    /// Says more to clients that read problem details: where, why, what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Lists everything that is wrong, for clients that read problem details.
    #[must_use]
    pub fn problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = problems;
        self
    }

    /// Asks the client to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// As problem details.
    fn problem(&self, request_id: &str) -> Response {
        #[derive(Serialize)]
        struct Details<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<usize>,
            #[serde(skip_serializing_if = "<[Problem]>::is_empty")]
            problems: &'a [Problem],
            request_id: &'a str,
        }
        let problem = Details {
            kind: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("error"),
            status: self.0.status.as_u16(),
            detail: self.0.detail.as_deref().unwrap_or(&self.0.text),
            code: self.0.code,
            field: self.0.field.as_deref(),
            limit: self.0.limit,
            problems: &self.0.problems,
            request_id,
        };
        let mut response = super::json::ok(&problem);
        *response.status_mut() = self.0.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (
            self.0.status,
            [
                (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ],
            format!("{}\n", self.0.text),
        )
            .into_response();
        if let Some(seconds) = self.0.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer of a handler that panicked. The panic hook has logged it.
pub(super) fn panicked(_panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    ApiError::internal().into_response()
}

/// Whether the client asked for problem details.
pub(super) fn wants_problem(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(PROBLEM_JSON))
}

/// Replaces a text error by problem details; every other response stays as it is.
pub(super) fn into_problem(mut response: Response, request_id: &str) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let mut problem = error.problem(request_id);
    for (name, value) in response.headers() {
        if !problem.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            problem.headers_mut().append(name, value.clone());
        }
    }
    problem
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let mut error = Self::invalid(invalid.field, invalid.text);
        error.0.limit = invalid.limit;
        error
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(invalid) => invalid.into(),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    /// Drivers say addresses and key names; those go to the log, never to a client.
    fn from(error: StoreError) -> Self {
        error!(error = %chain(&error), "a store failed a request");
        match error {
            StoreError::Unavailable { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "job store unavailable",
            )
            .retry_after(1),
            StoreError::Corrupt { .. } | StoreError::Refused { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "job store failed")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "job store failed"),
        }
    }
}

impl From<coretex_core::approvals::Error> for ApiError {
    fn from(error: coretex_core::approvals::Error) -> Self {
        use coretex_core::approvals::Error;
        let text = error.to_string();
        let (status, code) = match error {
            Error::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Error::RequestMissing => (StatusCode::NOT_FOUND, "request_not_found"),
            Error::NoApproval => (StatusCode::NOT_FOUND, "approval_not_found"),
            Error::NotAwaiting => (StatusCode::CONFLICT, "not_awaiting_approval"),
            Error::NoHash => (StatusCode::CONFLICT, "no_job_hash"),
            Error::NoSnapshot => (StatusCode::CONFLICT, "no_policy_snapshot"),
            Error::SnapshotChanged => (StatusCode::CONFLICT, "policy_changed"),
            Error::RequestChanged => (StatusCode::CONFLICT, "request_changed"),
            Error::AlreadyVoted => (StatusCode::CONFLICT, "already_voted"),
            Error::Expired => (StatusCode::CONFLICT, "approval_expired"),
            Error::Contended => (StatusCode::CONFLICT, "contended"),
            Error::Anonymous => (StatusCode::BAD_REQUEST, "principal_required"),
            Error::Reserved => (StatusCode::BAD_REQUEST, "principal_reserved"),
            Error::OwnJob => (StatusCode::FORBIDDEN, "self_approval"),
            Error::DecisionMissing => (StatusCode::SERVICE_UNAVAILABLE, "decision_unavailable"),
            Error::Kernel(source) => {
                error!(error = %chain(&source), "policy cannot be asked");
                (StatusCode::SERVICE_UNAVAILABLE, "policy_unavailable")
            }
            Error::Store(source) => return source.into(),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, text)
    }
}

impl From<RemediateError> for ApiError {
    fn from(error: RemediateError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            RemediateError::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            RemediateError::RequestMissing => (StatusCode::NOT_FOUND, "request_not_found"),
            RemediateError::Unknown { .. } => (StatusCode::NOT_FOUND, "remediation_not_found"),
            RemediateError::NotRefused(_) => (StatusCode::CONFLICT, "not_refused"),
            RemediateError::NoneOffered => (StatusCode::CONFLICT, "no_remediation"),
            RemediateError::BadTopic { .. } => (StatusCode::CONFLICT, "invalid_remediation"),
            RemediateError::Ambiguous { .. } => return Self::invalid("remediation_id", text),
            RemediateError::Store(source) => return source.into(),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, text)
    }
}
