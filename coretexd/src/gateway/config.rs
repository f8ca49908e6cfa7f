//! Routes of configuration documents. See `docs/spec/http.md` §10.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use coretex_core::audit::Actor;
use coretex_core::config::{DEFAULT, Document, Error, SYSTEM, Scopes, Write};
use coretex_core::error::{StoreError, chain};
use coretex_core::protocol::canonical::{self, Numbers};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::error;

use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::query::Query;
use super::{App, json};

json::request! {
    struct SetBody {
        scope: String,
        scope_id: String,
        data: Map<String, Value>,
        meta: BTreeMap<String, String>,
    }
}

/// Members as every reader has always seen them: sorted, whole floats without `.0`, integers with every digit.
fn members(data: &Map<String, Value>) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(canonical::text_of_object(data, Numbers::Exact)).map_err(|_| ApiError::internal())
}

/// `GET /api/v1/config`.
pub(super) async fn get(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shown<'a> {
        scope: &'a str,
        scope_id: &'a str,
        data: Box<RawValue>,
        revision: u64,
        updated_at: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        meta: Option<&'a BTreeMap<String, String>>,
    }

    let text = |name: &str| query.text(name).unwrap_or_default().trim();
    let scope = Some(text("scope")).filter(|scope| !scope.is_empty()).unwrap_or(SYSTEM);
    let id = match text("scope_id") {
        "" if scope == SYSTEM => DEFAULT,
        id => id,
    };
    let missing = || ApiError::not_found("config not found");
    let document: Document = match app.services.config.get(scope, id).await {
        Ok(document) => document.ok_or_else(missing)?,
        // No document has no name.
        Err(Error::ScopeIdRequired) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let mut response = json::ok(&Shown {
        scope: &document.scope,
        scope_id: &document.scope_id,
        data: members(&document.data)?,
        revision: document.revision,
        updated_at: &document.updated_at,
        meta: document.meta.as_ref().filter(|meta| !meta.is_empty()),
    });
    tag(&mut response, document.revision);
    Ok(response)
}

/// `POST /api/v1/config`.
pub(super) async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    let body: SetBody = json::read(&body, "invalid json")?;
    // Policy has its own routes with their own role; this is no way around it.
    if caller.verified && body.scope == SYSTEM && body.scope_id.starts_with("policy") {
        caller.require_secops()?;
    }
    let write = Write {
        scope: body.scope,
        scope_id: body.scope_id,
        data: body.data,
        meta: Some(body.meta),
        expected: expected(&headers)?,
    };
    let by = Actor::new(caller.id, caller.role);
    let config = app.services.config.clone();
    let stored = app
        .write(async move { config.set(write, &by).await.map_err(ApiError::from) })
        .await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    tag(&mut response, stored.revision);
    Ok(response)
}

/// `GET /api/v1/config/effective`.
pub(super) async fn effective(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Effective<'a> {
        version: &'a str,
        hash: &'a str,
        data: Box<RawValue>,
    }

    let id = |name: &str| query.owned(name).unwrap_or_default();
    let scopes = Scopes {
        org: id("org_id"),
        team: id("team_id"),
        workflow: id("workflow_id"),
        step: id("step_id"),
    };
    let snapshot = app.services.config.effective(&scopes).await.map_err(Error::from)?;
    Ok(json::ok(&Effective {
        version: &snapshot.version,
        hash: &snapshot.hash,
        data: members(&snapshot.data)?,
    }))
}

/// Says which revision the answer is about.
fn tag(response: &mut Response, revision: u64) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// The revision that the client has seen: `If-Match: "3"`, or `If-None-Match: *` for "there is none".
fn expected(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    if let Some(value) = headers.get(IF_MATCH) {
        let revision = value.to_str().ok().and_then(|text| {
            let text = text.trim();
            let text = text.strip_prefix("W/").unwrap_or(text);
            text.trim_matches('"').parse().ok()
        });
        return match revision {
            Some(revision) => Ok(Some(revision)),
            None => Err(ApiError::invalid("If-Match", "If-Match must be one revision, as \"3\"")),
        };
    }
    match headers.get(IF_NONE_MATCH) {
        None => Ok(None),
        Some(value) if value == "*" => Ok(Some(0)),
        Some(_) => Err(ApiError::invalid("If-None-Match", "If-None-Match must be *")),
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::ScopeRequired => Self::invalid("scope", text),
            Error::ScopeIdRequired => Self::invalid("scope_id", text),
            Error::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "document_too_large", text),
            Error::Conflict { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "revision_conflict", text),
            Error::Contended => Self::new(StatusCode::CONFLICT, "contended", text).retry_after(1),
            Error::Store(StoreError::Unavailable { .. }) => {
                error!(error = %chain(&error), "the config store did not answer");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "config_unavailable",
                    "config service unavailable",
                )
                .retry_after(1)
            }
            error => {
                error!(error = %chain(&error), "the config store failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "config_failed",
                    "config service failed",
                )
            }
        }
    }
}
