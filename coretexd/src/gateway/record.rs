//! How jobs and decisions look in JSON. See `docs/spec/http.md` §5; the order of the fields is part of it.

use coretex_core::jobs::{DecisionRecord, JobRecord};
use coretex_core::protocol::constraints::constraints_snake_json;
use coretex_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// A job in a list.
#[derive(Serialize)]
pub(super) struct Job<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'a str,
    updated_at: i64,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    team: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    principal: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    idempotency_key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    capability: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    risk_tags: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    requires: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    pack_id: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    safety_decision: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    safety_reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    safety_rule_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    safety_snapshot: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_unix: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pending_reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    worker_id: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl<'a> From<&'a JobRecord> for Job<'a> {
    fn from(job: &'a JobRecord) -> Self {
        let decision = job.decision.as_ref();
        Self {
            id: job.id.as_str(),
            trace_id: job.trace_id.as_ref().map_or("", |trace| trace.as_str()),
            updated_at: job.revision.0.micros(),
            state: job.state.as_str(),
            topic: &job.topic,
            tenant: &job.tenant,
            team: &job.team,
            principal: &job.principal,
            actor_id: &job.actor_id,
            actor_type: &job.actor_type,
            idempotency_key: &job.idempotency_key,
            capability: &job.capability,
            risk_tags: &job.risk_tags,
            requires: &job.requires,
            pack_id: &job.pack_id,
            attempts: job.attempts,
            safety_decision: decision.map_or("", |decision| decision.decision.as_str()),
            safety_reason: decision.map_or("", |decision| &decision.reason),
            safety_rule_id: decision.map_or("", |decision| &decision.rule_id),
            safety_snapshot: decision.map_or("", |decision| &decision.policy_snapshot),
            deadline_unix: job.deadline.map(Timestamp::secs),
            pending_reason: job.pending.as_ref().map_or("", |note| note.reason.as_str()),
            worker_id: job.worker_id.as_ref().map_or("", |worker| worker.as_str()),
        }
    }
}

/// A decision in the history of a job.
#[derive(Serialize)]
pub(super) struct DecisionEntry<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rule_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy_snapshot: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approval_required: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    approval_ref: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    job_hash: &'a str,
    checked_at: i64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    matched: &'a [String],
}

impl<'a> From<&'a DecisionRecord> for DecisionEntry<'a> {
    fn from(decision: &'a DecisionRecord) -> Self {
        Self {
            decision: decision.decision.as_str(),
            reason: &decision.reason,
            rule_id: &decision.rule_id,
            policy_snapshot: &decision.policy_snapshot,
            constraints: decision.constraints.as_ref().map(constraints_snake_json),
            approval_required: decision.approval_required,
            approval_ref: &decision.approval_ref,
            job_hash: &decision.job_hash,
            checked_at: decision.checked_at.micros(),
            matched: &decision.matched,
        }
    }
}
