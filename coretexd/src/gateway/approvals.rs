//! Routes of approvals. See `docs/spec/http.md` §8.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use coretex_core::approvals::Verdict;
use coretex_core::jobs::JobRecord;
use coretex_core::jobs::service::NextCursor;
use coretex_core::protocol::TraceId;
use coretex_core::protocol::constraints::constraints_snake_json;
use serde::Serialize;
use serde_json::Value;

use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::jobs::{Accepted, filter, job_id};
use super::query::Query;
use super::record::Job;
use super::{App, json};

json::request! {
    struct VerdictBody {
        reason: String,
        note: String,
    }
}

#[derive(Serialize)]
struct Item<'a> {
    approval_ref: &'a str,
    approval_required: bool,
    constraints: Option<Value>,
    decision: &'static str,
    job: Job<'a>,
    job_hash: &'a str,
    policy_reason: &'a str,
    policy_rule_id: &'a str,
    policy_snapshot: &'a str,
}

impl<'a> From<&'a JobRecord> for Item<'a> {
    fn from(job: &'a JobRecord) -> Self {
        let decision = job.decision.as_ref();
        Self {
            approval_ref: decision.map_or("", |d| &d.approval_ref),
            approval_required: decision.is_some_and(|d| d.approval_required),
            constraints: decision
                .and_then(|d| d.constraints.as_ref())
                .map(constraints_snake_json),
            decision: decision.map_or("", |d| d.decision.as_str()),
            job: job.into(),
            job_hash: decision.map_or("", |d| &d.job_hash),
            policy_reason: decision.map_or("", |d| &d.reason),
            policy_rule_id: decision.map_or("", |d| &d.rule_id),
            policy_snapshot: decision.map_or("", |d| &d.policy_snapshot),
        }
    }
}

/// `GET /api/v1/approvals`: newest first, so that the cursor means what it means in every list.
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        items: Vec<Item<'a>>,
        next_cursor: &'a Option<NextCursor>,
    }

    let page = app.services.approvals.list(filter(&query, 100)).await?;
    Ok(json::ok(&List {
        items: page.jobs.iter().map(Item::from).collect(),
        next_cursor: &page.next,
    }))
}

fn verdict(caller: Caller, body: &[u8]) -> Result<Verdict, ApiError> {
    let body: VerdictBody = json::read_optional(body, "invalid body")?;
    Ok(Verdict {
        by: caller.id,
        role: caller.role,
        reason: body.reason.trim().to_owned(),
        note: body.note.trim().to_owned(),
    })
}

/// `POST /api/v1/approvals/{job_id}/approve`.
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    let verdict = verdict(caller, &body)?;
    let id = job_id(&id)?;
    let approvals = app.services.approvals.clone();
    let approved = app
        .write(async move { approvals.approve(&id, &verdict).await.map_err(ApiError::from) })
        .await?;
    Ok(json::ok(&Accepted {
        job_id: approved.job_id.as_str(),
        trace_id: approved.trace_id.as_ref().map_or("", TraceId::as_str),
    }))
}

/// `POST /api/v1/approvals/{job_id}/reject`.
pub(super) async fn reject(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Rejected<'a> {
        job_id: &'a str,
    }

    let verdict = verdict(caller, &body)?;
    let id = job_id(&id)?;
    let approvals = app.services.approvals.clone();
    let job = id.clone();
    app.write(async move { approvals.reject(&job, &verdict).await.map_err(ApiError::from) })
        .await?;
    Ok(json::ok(&Rejected { job_id: id.as_str() }))
}
