//! How one job looks in full. See `docs/spec/http.md` §5; keys are sorted.

use std::collections::BTreeMap;

use coretex_core::jobs::service::JobDetail;
use coretex_core::jobs::{DecisionRecord, JobRecord};
use coretex_core::pointers::Pointer;
use coretex_core::protocol::agent::{JobPriority, JobRequest};
use coretex_core::protocol::constraints::constraints_snake_json;
use coretex_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json;

#[derive(Serialize)]
struct Event {
    at: i64,
    state: &'static str,
}

#[expect(clippy::struct_field_names, reason = "the fields are the names on the wire")]
/// All keys of a job; those that may be absent are options.
#[derive(Serialize)]
pub(super) struct Detail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<i64>,
    actor_id: &'a str,
    actor_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_at: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_job_hash: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_note: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_policy_snapshot: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_reason: &'a str,
    approval_ref: &'a str,
    approval_required: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_role: &'a str,
    artifact_ptrs: &'a [String],
    attempts: u32,
    capability: &'a str,
    context: Option<Box<RawValue>>,
    context_ptr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_unix: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatched_at: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_status: &'a str,
    events: Vec<Event>,
    execution_ms: i64,
    id: &'a str,
    idempotency_key: &'a str,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_state: &'a str,
    memory_id: &'a str,
    pack_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pending_detail: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pending_reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    placement: &'a str,
    principal: &'a str,
    priority: &'static str,
    requires: Option<&'a [String]>,
    result: Option<Box<RawValue>>,
    result_ptr: &'a str,
    risk_tags: Option<&'a [String]>,
    run_id: &'a str,
    safety_constraints: Option<Value>,
    safety_decision: &'static str,
    safety_job_hash: &'a str,
    safety_matched: &'a [String],
    safety_reason: &'a str,
    safety_rule_id: &'a str,
    safety_snapshot: &'a str,
    state: &'static str,
    step_id: &'a str,
    team: &'a str,
    tenant: &'a str,
    topic: &'a str,
    trace_id: &'a str,
    updated_at: i64,
    worker_id: &'a str,
    workflow_id: &'a str,
}

impl<'a> From<&'a JobDetail> for Detail<'a> {
    fn from(detail: &'a JobDetail) -> Self {
        let job: &JobRecord = &detail.record;
        let decision: Option<&DecisionRecord> = job.decision.as_ref();
        let approval = job.approval.as_ref();
        let letter = detail.letter.as_ref();
        let labels = detail.request.as_ref().map_or(&job.labels, |request| &request.labels);
        let label = |name: &str| labels.get(name).map_or("", String::as_str);
        let request_workflow = detail.request.as_ref().map_or("", |request| &request.workflow_id);
        let priority = detail
            .request
            .as_ref()
            .map_or(JobPriority::Unspecified, JobRequest::priority);
        Self {
            accepted_at: job.accepted_at.map(Timestamp::micros),
            actor_id: &job.actor_id,
            actor_type: &job.actor_type,
            approval_at: approval.map(|a| a.at.micros()).filter(|at| *at != 0),
            approval_by: approval.map_or("", |a| &a.by),
            approval_job_hash: approval.map_or("", |a| &a.job_hash),
            approval_note: approval.map_or("", |a| &a.note),
            approval_policy_snapshot: approval.map_or("", |a| &a.policy_snapshot),
            approval_reason: approval.map_or("", |a| &a.reason),
            approval_ref: decision.map_or("", |d| &d.approval_ref),
            approval_required: decision.is_some_and(|d| d.approval_required),
            approval_role: approval.map_or("", |a| &a.role),
            artifact_ptrs: &job.outcome.artifact_ptrs,
            attempts: letter.map(|l| l.attempts).filter(|n| *n > 0).unwrap_or(job.attempts),
            capability: &job.capability,
            context: detail.context.as_deref().and_then(json::raw),
            context_ptr: Pointer::context(&job.id).to_string(),
            deadline_unix: job.deadline.map(Timestamp::secs),
            dispatched_at: job.dispatched_at.map(Timestamp::micros),
            error_code: either(letter.map_or("", |l| l.reason_code.trim()), &job.outcome.error_code),
            error_message: either(letter.map_or("", |l| &l.reason), &job.outcome.error_message),
            error_status: letter.map_or("", |l| &l.status),
            events: detail
                .events
                .iter()
                .map(|(at, state)| Event {
                    at: at.micros(),
                    state: state.as_str(),
                })
                .collect(),
            execution_ms: job.outcome.execution_ms,
            id: job.id.as_str(),
            idempotency_key: &job.idempotency_key,
            labels,
            last_state: letter.map_or("", |l| l.last_state.trim()),
            memory_id: &job.memory_id,
            pack_id: &job.pack_id,
            pending_detail: job.pending.as_ref().map_or("", |note| &note.detail),
            pending_reason: job.pending.as_ref().map_or("", |note| note.reason.as_str()),
            placement: &job.placement,
            principal: &job.principal,
            priority: match priority {
                JobPriority::Unspecified => "",
                JobPriority::Interactive => "interactive",
                JobPriority::Batch => "batch",
                JobPriority::Critical => "critical",
            },
            requires: some(&job.requires),
            result: detail.result.as_deref().and_then(json::raw),
            result_ptr: &job.outcome.result_ptr,
            risk_tags: some(&job.risk_tags),
            run_id: label("run_id"),
            safety_constraints: decision
                .and_then(|d| d.constraints.as_ref())
                .map(constraints_snake_json),
            safety_decision: decision.map_or("", |d| d.decision.as_str()),
            safety_job_hash: decision.map_or("", |d| &d.job_hash),
            safety_matched: decision.map_or(&[], |d| &d.matched),
            safety_reason: decision.map_or("", |d| &d.reason),
            safety_rule_id: decision.map_or("", |d| &d.rule_id),
            safety_snapshot: decision.map_or("", |d| &d.policy_snapshot),
            state: job.state.as_str(),
            step_id: label("step_id"),
            team: &job.team,
            tenant: &job.tenant,
            topic: &job.topic,
            trace_id: job.trace_id.as_ref().map_or("", |trace| trace.as_str()),
            updated_at: job.revision.0.micros(),
            worker_id: job.worker_id.as_ref().map_or(&job.outcome.worker_id, |w| w.as_str()),
            workflow_id: either(request_workflow, label("workflow_id")),
        }
    }
}

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

/// Older clients know an empty list as null.
fn some(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}
