//! Routes of jobs. See `docs/spec/http.md` §5.

mod detail;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use coretex_core::jobs::JobState;
use coretex_core::jobs::service::{
    Cancelled, JobFilter, JobPage, NextCursor, Remediator, SubmitRequest, parse_cursor, parse_lower_bound,
    parse_upper_bound,
};
use coretex_core::protocol::{JobId, TraceId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::auth::Caller;
use super::body::Limited;
use super::error::ApiError;
use super::query::Query;
use super::record::{DecisionEntry, Job};
use super::{App, json};

json::request! {
    struct SubmitBody {
        prompt: String,
        topic: Option<String>,
        adapter_id: String,
        priority: String,
        context: Option<Box<RawValue>>,
        memory_id: String,
        context_mode: String,
        tenant_id: String,
        org_id: String,
        principal_id: String,
        team_id: String,
        project_id: String,
        actor_id: String,
        actor_type: String,
        idempotency_key: String,
        pack_id: String,
        capability: String,
        risk_tags: Vec<String>,
        requires: Vec<String>,
        tags: Vec<String>,
        labels: BTreeMap<String, String>,
        max_input_tokens: i32,
        max_output_tokens: i64,
        max_total_tokens: i64,
        deadline_ms: i64,
        allow_summarization: bool,
        allow_retrieval: bool,
    }
}

impl From<SubmitBody> for SubmitRequest {
    fn from(body: SubmitBody) -> Self {
        Self {
            prompt: body.prompt,
            topic: body.topic,
            adapter_id: body.adapter_id,
            priority: body.priority,
            context: body.context,
            memory_id: body.memory_id,
            context_mode: body.context_mode,
            tenant_id: body.tenant_id,
            org_id: body.org_id,
            principal_id: body.principal_id,
            team_id: body.team_id,
            project_id: body.project_id,
            actor_id: body.actor_id,
            actor_type: body.actor_type,
            idempotency_key: body.idempotency_key,
            pack_id: body.pack_id,
            capability: body.capability,
            risk_tags: body.risk_tags,
            requires: body.requires,
            tags: body.tags,
            labels: body.labels,
            max_input_tokens: body.max_input_tokens,
            max_output_tokens: body.max_output_tokens,
            max_total_tokens: body.max_total_tokens,
            deadline_ms: body.deadline_ms,
            allow_summarization: body.allow_summarization,
            allow_retrieval: body.allow_retrieval,
        }
    }
}

/// The answer to a submit.
#[derive(Serialize)]
struct Accepted<'a> {
    job_id: &'a str,
    trace_id: &'a str,
}

/// `POST /api/v1/jobs`.
pub(super) async fn submit(State(app): State<Arc<App>>, Limited(body): Limited) -> Result<Response, ApiError> {
    let request: SubmitRequest = json::read::<SubmitBody>(&body, "invalid json")?.into();
    let jobs = app.services.jobs.clone();
    let submitted = app
        .write(async move { jobs.submit(request).await.map_err(ApiError::from) })
        .await?;
    Ok(json::ok(&Accepted {
        job_id: submitted.job_id.as_str(),
        trace_id: submitted.trace_id.as_ref().map_or("", TraceId::as_str),
    }))
}

#[derive(Serialize)]
struct List<'a> {
    items: Vec<Job<'a>>,
    next_cursor: &'a Option<NextCursor>,
}

/// Reads the filters that all lists of jobs share.
pub(super) fn filter(query: &Query, default_limit: usize) -> JobFilter {
    JobFilter {
        topic: query.owned("topic"),
        tenant: query.owned("tenant"),
        team: query.owned("team"),
        updated_after: query.text("updated_after").and_then(parse_lower_bound),
        updated_before: query.text("updated_before").and_then(parse_upper_bound),
        cursor: query.text("cursor").and_then(parse_cursor),
        limit: query.limit(default_limit),
        ..JobFilter::default()
    }
}

/// `GET /api/v1/jobs`.
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    let state = query
        .text("state")
        .map(|state| state.to_ascii_uppercase().parse::<JobState>());
    let trace = query.text("trace_id").map(TraceId::try_new);
    // No job is in an unknown state, or of a trace whose id no trace can have.
    let page = if matches!(state, Some(Err(_))) || matches!(trace, Some(Err(_))) {
        JobPage::default()
    } else {
        let filter = JobFilter {
            state: state.and_then(Result::ok),
            trace: trace.and_then(Result::ok),
            ..filter(&query, 50)
        };
        app.services.jobs.list(&filter).await?
    };
    Ok(json::ok(&List {
        items: page.jobs.iter().map(Job::from).collect(),
        next_cursor: &page.next,
    }))
}

/// An id from a path. What cannot be an id is no job's id.
pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::not_found("job not found"));
    }
    JobId::try_new(text).map_err(|error| ApiError::invalid("job_id", error.to_string()))
}

/// `GET /api/v1/jobs/{id}`.
pub(super) async fn detail(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let detail = app.services.jobs.detail(&job_id(&id)?).await?;
    let detail = detail.ok_or_else(|| ApiError::not_found("job not found"))?;
    Ok(json::ok(&detail::Detail::from(&detail)))
}

/// `GET /api/v1/jobs/{id}/decisions`.
pub(super) async fn decisions(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let decisions = app.services.jobs.decisions(&job_id(&id)?, query.limit(50)).await?;
    Ok(json::ok(&decisions.iter().map(DecisionEntry::from).collect::<Vec<_>>()))
}

json::request! {
    struct RemediateBody {
        remediation_id: String,
    }
}

/// `POST /api/v1/jobs/{id}/remediate`.
pub(super) async fn remediate(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    Limited(body): Limited,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        job_id: &'a str,
        trace_id: &'a str,
        remediation_id: &'a str,
        remediation_of: &'a str,
    }

    let body: RemediateBody = json::read_optional(&body, "invalid body")?;
    let id = job_id(&id)?;
    let who = Remediator {
        by: caller.id,
        role: caller.role,
    };
    let (jobs, from) = (app.services.jobs.clone(), id.clone());
    let remediated = app
        .write(async move {
            jobs.remediate(&from, &body.remediation_id, &who)
                .await
                .map_err(ApiError::from)
        })
        .await?;
    Ok(json::ok(&Answer {
        job_id: remediated.job_id.as_str(),
        trace_id: remediated.trace_id.as_ref().map_or("", TraceId::as_str),
        remediation_id: &remediated.remediation_id,
        remediation_of: id.as_str(),
    }))
}

/// `POST /api/v1/jobs/{id}/cancel`.
pub(super) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        state: &'static str,
    }

    let id = job_id(&id)?;
    let jobs = app.services.jobs.clone();
    let job = id.clone();
    let cancelled = app
        .write(async move { jobs.cancel(&job).await.map_err(ApiError::from) })
        .await?;
    Ok(match cancelled {
        Cancelled::Done => json::ok(&Answer {
            id: id.as_str(),
            reason: None,
            state: JobState::Cancelled.as_str(),
        }),
        Cancelled::AlreadyTerminal(state) => json::ok(&Answer {
            id: id.as_str(),
            reason: Some("job already terminal"),
            state: state.as_str(),
        }),
        Cancelled::NotFound => ApiError::not_found("job not found").into_response(),
    })
}
