//! Routes of approvals: jobs and steps that wait for people. See `docs/spec/approvals.md` §9 and `docs/spec/http.md` §8.

mod page;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use coretex_core::approvals::{Tally, Verdict};
use coretex_core::jobs::service::{JobFilter, JobPage, NextCursor};
use coretex_core::jobs::{ApprovalRecord, Cursor, JobRecord, JobState};
use coretex_core::protocol::TraceId;
use coretex_core::protocol::agent::{JobRequest, PolicyRemediation};
use coretex_core::protocol::constraints::constraints_snake_json;
use coretex_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use self::page::{JobsAt, Next, Place};
use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::jobs::{filter, job_id};
use super::query::Query;
use super::record::Job;
use super::{App, json};

json::request! {
    struct VerdictBody {
        reason: String,
        note: String,
    }
}

/// A job that waits, or waited, for people.
#[derive(Serialize)]
struct Item<'a> {
    approval_ref: &'a str,
    approval_required: bool,
    approvals: u32,
    constraints: Option<Value>,
    decision: &'static str,
    expires_at: Option<i64>,
    job: Job<'a>,
    job_hash: &'a str,
    kind: &'static str,
    on_expiry: &'static str,
    policy_reason: &'a str,
    policy_rule_id: &'a str,
    policy_snapshot: &'a str,
    quorum: u32,
    votes: Vec<Vote<'a>>,
}

/// What somebody said.
#[derive(Serialize)]
struct Vote<'a> {
    at: i64,
    by: &'a str,
    note: &'a str,
    reason: &'a str,
    role: &'a str,
}

impl<'a> From<&'a ApprovalRecord> for Vote<'a> {
    fn from(vote: &'a ApprovalRecord) -> Self {
        Self {
            at: vote.at.micros(),
            by: &vote.by,
            note: &vote.note,
            reason: &vote.reason,
            role: &vote.role,
        }
    }
}

impl<'a> From<&'a JobRecord> for Item<'a> {
    fn from(job: &'a JobRecord) -> Self {
        let decision = job.decision.as_ref();
        let tally = Tally::of(job);
        Self {
            approval_ref: decision.map_or("", |d| &d.approval_ref),
            approval_required: decision.is_some_and(|d| d.approval_required),
            approvals: tally.approvals(),
            constraints: decision
                .and_then(|d| d.constraints.as_ref())
                .map(constraints_snake_json),
            decision: decision.map_or("", |d| d.decision.as_str()),
            expires_at: tally.expires_at.map(Timestamp::micros),
            job: job.into(),
            job_hash: decision.map_or("", |d| &d.job_hash),
            kind: "job",
            on_expiry: tally.on_expiry.as_str(),
            policy_reason: decision.map_or("", |d| &d.reason),
            policy_rule_id: decision.map_or("", |d| &d.rule_id),
            policy_snapshot: decision.map_or("", |d| &d.policy_snapshot),
            quorum: tally.quorum,
            votes: job.votes.iter().map(Vote::from).collect(),
        }
    }
}

/// How many items a page has unless the client says otherwise.
const LIST: usize = 100;
/// How many at most.
const LIST_MAX: usize = 1_000;

/// `GET /api/v1/approvals`: steps of runs, the oldest first, then jobs, the newest first, so that the cursor of the jobs
/// means what it means in every list. Of a page that cannot hold all, neither gets more than half.
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Any<'a> {
        Step(Box<steps::Item>),
        Job(Box<Item<'a>>),
    }
    #[derive(Serialize)]
    struct List<'a> {
        items: Vec<Any<'a>>,
        next_cursor: Option<Next>,
    }

    let limit = query.limit(LIST).min(LIST_MAX);
    let place = Place::of(query.text("cursor"), query.text("kind"));
    // One step more than can be shown tells whether there are more.
    let steps = if place.steps {
        steps::waiting(&app, place.step.as_ref(), limit + 1).await?
    } else {
        Vec::new()
    };
    let jobs = if place.jobs == JobsAt::End {
        JobPage::default()
    } else {
        let filter = JobFilter {
            cursor: place.jobs_cursor(),
            limit,
            ..filter(&query, limit)
        };
        app.services.approvals.list(filter).await?
    };
    let (of_steps, of_jobs) = page::shares(limit, steps.len(), jobs.jobs.len());
    let jobs_at = match jobs.jobs[..of_jobs].last() {
        _ if of_jobs == jobs.jobs.len() => jobs.next.map_or(JobsAt::End, JobsAt::At),
        Some(last) => JobsAt::At(NextCursor::After(Cursor {
            at: last.revision.0,
            id: last.id.to_string(),
        })),
        None => place.jobs,
    };
    let last = of_steps.checked_sub(1).and_then(|last| steps.get(last));
    let next_cursor = Next::after(
        last.map(|(waiting, _)| waiting.clone()).or(place.step),
        of_steps < steps.len(),
        jobs_at,
    );
    let items = steps
        .iter()
        .take(of_steps)
        .map(|(_, case)| Any::Step(Box::new(case.item())))
        .chain(jobs.jobs.iter().take(of_jobs).map(|job| Any::Job(Box::new(job.into()))))
        .collect();
    Ok(json::ok(&List { items, next_cursor }))
}

/// What was asked for, as far as people need it to decide.
#[derive(Serialize)]
struct Request<'a> {
    adapter_id: &'a str,
    capability: &'a str,
    context_ptr: &'a str,
    labels: &'a BTreeMap<String, String>,
    memory_id: &'a str,
    principal: &'a str,
    priority: &'static str,
    requires: &'a [String],
    risk_tags: &'a [String],
    tenant: &'a str,
    topic: &'a str,
    workflow_id: &'a str,
}

impl<'a> From<&'a JobRequest> for Request<'a> {
    fn from(request: &'a JobRequest) -> Self {
        let meta = request.meta.as_ref();
        Self {
            adapter_id: &request.adapter_id,
            capability: meta.map_or("", |meta| &meta.capability),
            context_ptr: &request.context_ptr,
            labels: &request.labels,
            memory_id: &request.memory_id,
            principal: &request.principal_id,
            priority: request.priority().as_str_name(),
            requires: meta.map_or(&[], |meta| &meta.requires),
            risk_tags: meta.map_or(&[], |meta| &meta.risk_tags),
            tenant: &request.tenant_id,
            topic: &request.topic,
            workflow_id: &request.workflow_id,
        }
    }
}

/// A safer way that policy offers.
#[derive(Serialize)]
struct Remediation<'a> {
    add_labels: &'a BTreeMap<String, String>,
    id: &'a str,
    remove_labels: &'a [String],
    replacement_capability: &'a str,
    replacement_topic: &'a str,
    summary: &'a str,
    title: &'a str,
}

impl<'a> From<&'a PolicyRemediation> for Remediation<'a> {
    fn from(way: &'a PolicyRemediation) -> Self {
        Self {
            add_labels: &way.add_labels,
            id: &way.id,
            remove_labels: &way.remove_labels,
            replacement_capability: &way.replacement_capability,
            replacement_topic: &way.replacement_topic,
            summary: &way.summary,
            title: &way.title,
        }
    }
}

/// `GET /api/v1/approvals/{job_id}`.
pub(super) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Case<'a> {
        #[serde(flatten)]
        item: Item<'a>,
        approval: Option<Vote<'a>>,
        matched: &'a [String],
        remediations: Vec<Remediation<'a>>,
        request: Option<Request<'a>>,
        stale: Option<bool>,
    }

    if let Some(case) = steps::find(&app, &id).await? {
        return Ok(json::ok(&case.item()));
    }
    let case = app.services.approvals.case(&job_id(&id)?).await?;
    let decision = case.record.decision.as_ref();
    Ok(json::ok(&Case {
        item: (&case.record).into(),
        approval: case.record.approval.as_ref().map(Vote::from),
        matched: decision.map_or(&[], |d| &d.matched),
        remediations: decision.map_or(Vec::new(), |d| d.remediations.iter().map(Remediation::from).collect()),
        request: case.request.as_ref().map(Request::from),
        stale: case.stale,
    }))
}

fn verdict(caller: Caller, body: &VerdictBody) -> Verdict {
    Verdict {
        by: caller.id,
        role: caller.role,
        verified: caller.verified,
        reason: body.reason.trim().to_owned(),
        note: body.note.trim().to_owned(),
    }
}

/// `POST /api/v1/approvals/{job_id}/approve`: 202 if more people have to say yes.
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        job_id: &'a str,
        trace_id: &'a str,
        approvals: u32,
        quorum: u32,
        state: &'static str,
    }

    let body: VerdictBody = json::read_optional(&body, "invalid body")?;
    if let Some(case) = steps::find(&app, &id).await? {
        return steps::decide(&app, case, caller, true, (&body.reason, &body.note)).await;
    }
    let verdict = verdict(caller, &body);
    let id = job_id(&id)?;
    let approvals = app.services.approvals.clone();
    let approved = app
        .write(async move { approvals.approve(&id, &verdict).await.map_err(ApiError::from) })
        .await?;
    let mut response = json::ok(&Answer {
        job_id: approved.job_id.as_str(),
        trace_id: approved.trace_id.as_ref().map_or("", TraceId::as_str),
        approvals: approved.approvals,
        quorum: approved.quorum,
        state: approved.state.as_str(),
    });
    if approved.state == JobState::ApprovalRequired {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(response)
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

    let body: VerdictBody = json::read_optional(&body, "invalid body")?;
    if let Some(case) = steps::find(&app, &id).await? {
        return steps::decide(&app, case, caller, false, (&body.reason, &body.note)).await;
    }
    let verdict = verdict(caller, &body);
    let id = job_id(&id)?;
    let approvals = app.services.approvals.clone();
    let job = id.clone();
    app.write(async move { approvals.reject(&job, &verdict).await.map_err(ApiError::from) })
        .await?;
    Ok(json::ok(&Rejected { job_id: id.as_str() }))
}
