//! Starting runs. See `docs/spec/http.md` §18. The body is the input and nothing else, so everything else is in the query.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use coretex_core::time::{Clock, Timestamp};
use coretex_core::workflow::model::Object;
use coretex_core::workflow::service::{Start, Started};
use serde::Serialize;

use super::actor;
use crate::gateway::auth::Caller;
use crate::gateway::body::Limited;
use crate::gateway::error::ApiError;
use crate::gateway::query::Query;
use crate::gateway::{App, json};

/// Says that the answer is that of an earlier request with the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// How many labels a run may be started with.
const LABELS_MAX: usize = 50;
/// The longest key or label, in bytes.
const TEXT_MAX: usize = 256;

/// `POST /api/v1/workflows/{id}/runs`.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    let start = Start {
        workflow_id: id,
        input: input(&body)?,
        org_id: query
            .text("org_id")
            .unwrap_or(app.services.default_tenant.as_str())
            .to_owned(),
        team_id: query.owned("team_id").unwrap_or_default(),
        dry_run: query.flag("dry_run"),
        idempotency_key: idempotency_key(&headers, &query)?,
        labels: labels(&query)?,
        start_at: start_at(&query, &app.services.clock)?,
        by: actor(&caller),
        ..Start::default()
    };
    let service = app.workflows().clone();
    let started = app
        .write(async move { service.start(start).await.map_err(ApiError::from) })
        .await?;
    Ok(answer(&started))
}

/// The answer to whatever starts a run.
pub(in crate::gateway) fn answer(started: &Started) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        run_id: &'a str,
    }

    let mut response = json::ok(&Answer {
        run_id: started.run.as_str(),
    });
    if started.replayed {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// No body and `null` are an empty input.
fn input(body: &[u8]) -> Result<Object, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Object::new());
    }
    json::read::<Option<Object>>(body, "invalid json").map(Option::unwrap_or_default)
}

/// The key that makes repeating the request harmless: of a header, else of the query.
pub(in crate::gateway) fn idempotency_key(headers: &HeaderMap, query: &Query) -> Result<String, ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = [
        header("idempotency-key"),
        header("x-idempotency-key"),
        query.text("idempotency_key"),
        query.text("idempotency-key"),
    ]
    .into_iter()
    .flatten()
    .map(str::trim)
    .find(|key| !key.is_empty())
    .unwrap_or_default();
    if key.len() > TEXT_MAX || key.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "idempotency_key",
            format!("idempotency key must have at most {TEXT_MAX} bytes and no control characters"),
        ));
    }
    Ok(key.to_owned())
}

/// `label=name:value`, again and again.
fn labels(query: &Query) -> Result<BTreeMap<String, String>, ApiError> {
    let mut labels = BTreeMap::new();
    for text in query.all("label") {
        let pair = text.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        let Some((name, value)) = pair.filter(|(name, value)| {
            !name.is_empty() && name.len() <= TEXT_MAX && value.len() <= TEXT_MAX && !text.chars().any(char::is_control)
        }) else {
            return Err(ApiError::invalid(
                "label",
                format!("label must be name:value, each at most {TEXT_MAX} bytes"),
            ));
        };
        labels.insert(name.to_owned(), value.to_owned());
        if labels.len() > LABELS_MAX {
            return Err(ApiError::invalid("label", format!("too many labels (max {LABELS_MAX})")).limit(LABELS_MAX));
        }
    }
    Ok(labels)
}

/// `start_at` as a time, or `start_delay_ms` from now.
fn start_at(query: &Query, clock: &Clock) -> Result<Option<Timestamp>, ApiError> {
    match (query.text("start_at"), query.text("start_delay_ms")) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "start_at",
            "start_at and start_delay_ms cannot be used together",
        )),
        (Some(text), None) => super::schedules::time(text)
            .map(Some)
            .ok_or_else(|| ApiError::invalid("start_at", "start_at must be a time, as 2026-01-31T10:00:00Z")),
        (None, Some(text)) => text
            .parse()
            .map(|millis| Some(clock.now().plus(Duration::from_millis(millis))))
            .map_err(|_| ApiError::invalid("start_delay_ms", "start_delay_ms must be a number of milliseconds")),
        (None, None) => Ok(None),
    }
}
