//! What is stored, read: by us or by the reference. See `docs/spec/storage.md` §2.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use redis::{FromRedisValue, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::connection::no_answer;
use crate::error::StoreError;
use crate::jobs::{
    Admission, Applied, ApprovalRecord, ApprovalTerms, DecisionRecord, JobRecord, JobState, Outcome, PendingNote,
    Revision, TerminalDetail,
};
use crate::protocol::agent::{PolicyCheckRequest, PolicyConstraints, PolicyRemediation};
use crate::protocol::json::from_json_lenient;
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// An answer of the expected type.
pub(in crate::backend::redis) fn typed<T: FromRedisValue>(op: &'static str, value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|_| no_answer(op))
}

/// A job id as it is stored: only if it is one, exactly.
pub(super) fn job_id(text: &str) -> Option<JobId> {
    JobId::try_new(text).ok().filter(|id| id.as_str() == text)
}

fn state(text: &str) -> Result<Option<JobState>, StoreError> {
    if text.is_empty() || text == "-" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| StoreError::Corrupt {
        what: "the state of a job".to_owned(),
        source: Box::new(error),
    })
}

fn revision(text: &str) -> Option<Revision> {
    text.parse().ok().map(|micros| Revision(Timestamp::from_micros(micros)))
}

pub(super) fn admission(value: Value) -> Result<Admission, StoreError> {
    const OP: &str = "create";
    let answer: Vec<String> = typed(OP, value)?;
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["A", at] => Ok(Admission::Accepted(revision(at).ok_or_else(|| no_answer(OP))?)),
        ["E", text] => Ok(Admission::Exists(state(text)?.ok_or_else(|| no_answer(OP))?)),
        ["D", job, trace] => Ok(Admission::Duplicate {
            job: job_id(job).ok_or_else(|| no_answer(OP))?,
            trace: TraceId::try_new(trace).ok(),
        }),
        _ => Err(no_answer(OP)),
    }
}

pub(super) fn outcome(value: Value) -> Result<Outcome, StoreError> {
    const OP: &str = "apply";
    let answer: Vec<String> = typed(OP, value)?;
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["A", at, previous, attempts, topic, tenant, trace, worker] => Ok(Outcome::Applied(Applied {
            revision: revision(at).ok_or_else(|| no_answer(OP))?,
            previous: state(previous)?,
            attempts: attempts.parse().unwrap_or(0),
            topic: (*topic).to_owned(),
            tenant: (*tenant).to_owned(),
            trace_id: TraceId::try_new(trace).ok(),
            worker_id: worker.parse().ok(),
        })),
        ["C", text, at] => Ok(Outcome::Conflict {
            state: state(text)?,
            revision: revision(at),
        }),
        ["L"] => Ok(Outcome::LimitReached),
        ["X", attempts] => Ok(Outcome::AttemptsExhausted {
            attempts: attempts.parse().unwrap_or(0),
        }),
        ["K", job] => Ok(Outcome::DuplicateKey {
            job: job_id(job).ok_or_else(|| no_answer(OP))?,
        }),
        _ => Err(no_answer(OP)),
    }
}

/// The fields of one hash.
#[derive(Debug, Default)]
struct Fields(HashMap<String, Vec<u8>>);

impl Fields {
    fn text(&mut self, name: &str) -> String {
        self.0
            .remove(name)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn id<T: FromStr>(&mut self, name: &str) -> Option<T> {
        self.text(name).parse().ok()
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        self.text(name).trim().parse().ok()
    }

    fn micros(&mut self, name: &str) -> Option<Timestamp> {
        self.number(name).map(Timestamp::from_micros)
    }

    /// The reference writes `1`; others have written `true`.
    fn truth(&mut self, name: &str) -> bool {
        matches!(self.text(name).trim(), "1" | "true")
    }

    /// Empty if it is not there or no JSON.
    fn json<T: for<'de> Deserialize<'de> + Default>(&mut self, name: &str) -> T {
        serde_json::from_str(&self.text(name)).unwrap_or_default()
    }
}

/// What the hash says, and if it does not say the state, `state_beside`. `None` if neither does: there is no such job.
pub(super) fn record(
    id: &JobId,
    hash: HashMap<String, Vec<u8>>,
    state_beside: Option<&str>,
) -> Result<Option<JobRecord>, StoreError> {
    let mut f = Fields(hash);
    let in_hash = f.text("state");
    let text = if in_hash.is_empty() {
        state_beside.unwrap_or_default()
    } else {
        in_hash.as_str()
    };
    let Some(state) = state(text)? else {
        return Ok(None);
    };
    let terms = match f.text("cx_terms") {
        none if none.is_empty() => None,
        // Terms that cannot be read may ask for more people than nothing would.
        text => Some(serde_json::from_str(&text).map_err(|error| StoreError::Corrupt {
            what: format!("terms of approval of job `{id}`"),
            source: error.into(),
        })?),
    };
    let pending = f.text("cx_pending_reason").parse().ok().map(|reason| PendingNote {
        reason,
        detail: f.text("cx_pending_detail"),
    });
    Ok(Some(JobRecord {
        id: id.clone(),
        state,
        revision: Revision(f.micros("updated_at").unwrap_or_default()),
        trace_id: f.id("trace_id"),
        topic: f.text("topic"),
        tenant: f.text("tenant"),
        team: f.text("team"),
        principal: f.text("principal"),
        actor_id: f.text("actor_id"),
        actor_type: f.text("actor_type"),
        idempotency_key: f.text("idempotency_key"),
        capability: f.text("capability"),
        risk_tags: f.json("risk_tags"),
        requires: f.json("requires"),
        pack_id: f.text("pack_id"),
        memory_id: f.text("memory_id"),
        labels: f.json("labels"),
        attempts: f.number("attempts").unwrap_or(0),
        deadline: f
            .number("deadline_unix")
            .filter(|secs| *secs > 0)
            .map(Timestamp::from_secs),
        decision: decision(&mut f, terms),
        approval: approval(&mut f),
        votes: f.json("cx_votes"),
        pending,
        owner: f.id("cx_owner"),
        worker_id: f.id("cx_worker_id"),
        placement: f.text("cx_placement"),
        dispatched_at: f.micros("cx_dispatched_at"),
        accepted_at: f.micros("cx_accepted_at"),
        outcome: TerminalDetail {
            result_ptr: f.text("result_ptr"),
            worker_id: f.text("cx_result_worker"),
            execution_ms: f.number("cx_execution_ms").unwrap_or(0),
            error_code: f.text("cx_error_code"),
            error_message: f.text("cx_error_message"),
            artifact_ptrs: f.json("cx_artifact_ptrs"),
        },
    }))
}

fn decision(f: &mut Fields, terms: Option<ApprovalTerms>) -> Option<DecisionRecord> {
    let decision = f.text("safety_decision").parse().ok()?;
    let constraints = f.text("safety_constraints");
    Some(DecisionRecord {
        decision,
        reason: f.text("safety_reason"),
        rule_id: f.text("safety_rule_id"),
        policy_snapshot: f.text("safety_snapshot"),
        constraints: from_json_lenient::<PolicyConstraints>(constraints).ok(),
        approval_required: f.truth("safety_approval_required"),
        approval_ref: f.text("safety_approval_ref"),
        job_hash: f.text("safety_job_hash"),
        checked_at: f.micros("safety_checked_at").unwrap_or_default(),
        matched: f.json("cx_matched"),
        terms,
        remediations: remediations(&f.text("cx_remediations")),
        ..DecisionRecord::new(decision, Timestamp::ZERO)
    })
}

/// Those that can be read.
fn remediations(text: &str) -> Vec<PolicyRemediation> {
    let list: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    list.into_iter()
        .filter_map(|raw| from_json_lenient(raw.get()).ok())
        .collect()
}

fn approval(f: &mut Fields) -> Option<ApprovalRecord> {
    let at = f.micros("approval_at")?;
    Some(ApprovalRecord {
        by: f.text("approval_by"),
        role: f.text("approval_role"),
        at,
        reason: f.text("approval_reason"),
        note: f.text("approval_note"),
        policy_snapshot: f.text("approval_policy_snapshot"),
        job_hash: f.text("approval_job_hash"),
    })
}

/// An entry of the list of decisions, tolerantly.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Entry<'a> {
    approval_ref: String,
    approval_required: bool,
    checked_at: i64,
    #[serde(borrow)]
    constraints: Option<&'a RawValue>,
    decision: String,
    input: Option<String>,
    job_hash: String,
    matched: Vec<String>,
    policy_snapshot: String,
    reason: String,
    #[serde(borrow)]
    remediations: Option<&'a RawValue>,
    rule_id: String,
    terms: Option<ApprovalTerms>,
}

/// `None` for the blank entries that the reference writes when there are no constraints, and for what is no entry.
pub(super) fn decision_entry(text: &str) -> Option<DecisionRecord> {
    let entry: Entry<'_> = serde_json::from_str(text).ok()?;
    let decision = entry.decision.parse().ok()?;
    Some(DecisionRecord {
        reason: entry.reason,
        rule_id: entry.rule_id,
        policy_snapshot: entry.policy_snapshot,
        constraints: entry
            .constraints
            .and_then(|raw| from_json_lenient::<PolicyConstraints>(raw.get()).ok()),
        approval_required: entry.approval_required,
        approval_ref: entry.approval_ref,
        job_hash: entry.job_hash,
        checked_at: Timestamp::from_micros(entry.checked_at),
        matched: entry.matched,
        terms: entry.terms,
        remediations: entry.remediations.map_or_else(Vec::new, |raw| remediations(raw.get())),
        input: entry.input.and_then(|text| input(&text)).map(Arc::new),
        ..DecisionRecord::new(decision, Timestamp::ZERO)
    })
}

fn input(text: &str) -> Option<PolicyCheckRequest> {
    PolicyCheckRequest::decode(STANDARD.decode(text).ok()?.as_slice()).ok()
}

/// An entry of the list of events.
pub(super) fn event_entry(text: &str) -> Option<(Timestamp, JobState)> {
    let (micros, state) = text.split_once('|')?;
    Some((Timestamp::from_micros(micros.parse().ok()?), state.parse().ok()?))
}
