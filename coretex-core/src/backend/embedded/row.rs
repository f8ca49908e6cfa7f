//! How a job is stored. See `docs/spec/embedded.md` §4.
//!
//! Protobuf, so that fields can be added: what an older version does not know it ignores, and what it did not write is
//! empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::keys::{state_code, state_of};
use super::kv::corrupt;
use crate::error::StoreError;
use crate::jobs::{
    ApprovalRecord, ApprovalTerms, Decision, DecisionRecord, Description, JobRecord, JobState, OnExpiry, PendingNote,
    PendingReason, Revision, TerminalDetail,
};
use crate::protocol::agent::{PolicyCheckRequest, PolicyConstraints, PolicyRemediation};
use crate::protocol::{InstanceId, JobId, TraceId, WorkerId};
use crate::time::Timestamp;

/// So many of a job's events are kept, the newest.
const MAX_EVENTS: usize = 64;
const EVENT_BYTES: usize = 9;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Row {
    #[prost(uint32, tag = "1")]
    pub(super) state: u32,
    #[prost(int64, tag = "2")]
    pub(super) revision: i64,
    #[prost(string, tag = "3")]
    pub(super) trace_id: String,
    #[prost(message, required, tag = "4")]
    pub(super) description: DescriptionRow,
    #[prost(uint32, tag = "5")]
    pub(super) attempts: u32,
    #[prost(int64, optional, tag = "6")]
    pub(super) deadline: Option<i64>,
    #[prost(message, optional, tag = "7")]
    pub(super) decision: Option<DecisionRow>,
    /// How many decisions there were, the one in `decision` included.
    #[prost(uint32, tag = "8")]
    pub(super) decisions: u32,
    #[prost(message, optional, tag = "9")]
    pub(super) approval: Option<ApprovalRow>,
    #[prost(message, optional, tag = "10")]
    pub(super) pending: Option<PendingRow>,
    #[prost(string, tag = "11")]
    pub(super) owner: String,
    #[prost(string, tag = "12")]
    pub(super) worker_id: String,
    #[prost(string, tag = "13")]
    pub(super) placement: String,
    #[prost(int64, optional, tag = "14")]
    pub(super) dispatched_at: Option<i64>,
    #[prost(int64, optional, tag = "15")]
    pub(super) accepted_at: Option<i64>,
    #[prost(message, optional, tag = "16")]
    pub(super) outcome: Option<OutcomeRow>,
    /// Nine bytes each: the time, then the state.
    #[prost(bytes = "vec", tag = "17")]
    pub(super) events: Vec<u8>,
    #[prost(bool, tag = "18")]
    pub(super) has_request: bool,
    /// Whose slot it holds; empty if none.
    #[prost(string, tag = "19")]
    pub(super) slot: String,
    /// The last change's token.
    #[prost(fixed64, optional, tag = "20")]
    pub(super) token: Option<u64>,
    /// The state before the last change; zero if there was none.
    #[prost(uint32, tag = "21")]
    pub(super) token_previous: u32,
    /// The idempotency key that it holds, and in which tenant.
    #[prost(string, tag = "22")]
    pub(super) claimed_tenant: String,
    #[prost(string, tag = "23")]
    pub(super) claimed_key: String,
    #[prost(message, repeated, tag = "24")]
    pub(super) votes: Vec<ApprovalRow>,
    /// When the time for approval ends, while it waits for people.
    #[prost(int64, optional, tag = "25")]
    pub(super) approval_due: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DescriptionRow {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(string, tag = "2")]
    pub(super) tenant: String,
    #[prost(string, tag = "3")]
    team: String,
    #[prost(string, tag = "4")]
    principal: String,
    #[prost(string, tag = "5")]
    actor_id: String,
    #[prost(string, tag = "6")]
    actor_type: String,
    #[prost(string, tag = "7")]
    pub(super) idempotency_key: String,
    #[prost(string, tag = "8")]
    capability: String,
    #[prost(string, repeated, tag = "9")]
    risk_tags: Vec<String>,
    #[prost(string, repeated, tag = "10")]
    requires: Vec<String>,
    #[prost(string, tag = "11")]
    pack_id: String,
    #[prost(string, tag = "12")]
    memory_id: String,
    #[prost(btree_map = "string, string", tag = "13")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecisionRow {
    #[prost(string, tag = "1")]
    decision: String,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(string, tag = "3")]
    rule_id: String,
    #[prost(string, tag = "4")]
    policy_snapshot: String,
    #[prost(message, optional, tag = "5")]
    constraints: Option<PolicyConstraints>,
    #[prost(bool, tag = "6")]
    approval_required: bool,
    #[prost(string, tag = "7")]
    approval_ref: String,
    #[prost(string, tag = "8")]
    job_hash: String,
    #[prost(int64, tag = "9")]
    checked_at: i64,
    #[prost(string, repeated, tag = "10")]
    matched: Vec<String>,
    #[prost(message, optional, tag = "11")]
    terms: Option<TermsRow>,
    #[prost(message, repeated, tag = "12")]
    remediations: Vec<PolicyRemediation>,
    #[prost(message, optional, tag = "13")]
    input: Option<PolicyCheckRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TermsRow {
    #[prost(uint32, tag = "1")]
    quorum: u32,
    #[prost(uint64, optional, tag = "2")]
    expires_after_ms: Option<u64>,
    #[prost(bool, tag = "3")]
    allow_on_expiry: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ApprovalRow {
    #[prost(string, tag = "1")]
    by: String,
    #[prost(string, tag = "2")]
    role: String,
    #[prost(int64, tag = "3")]
    at: i64,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(string, tag = "5")]
    note: String,
    #[prost(string, tag = "6")]
    policy_snapshot: String,
    #[prost(string, tag = "7")]
    job_hash: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PendingRow {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    detail: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OutcomeRow {
    #[prost(string, tag = "1")]
    pub(super) result_ptr: String,
    #[prost(string, tag = "2")]
    worker_id: String,
    #[prost(int64, tag = "3")]
    execution_ms: i64,
    #[prost(string, tag = "4")]
    pub(super) error_code: String,
    #[prost(string, tag = "5")]
    pub(super) error_message: String,
    #[prost(string, repeated, tag = "6")]
    artifact_ptrs: Vec<String>,
}

impl Row {
    pub(super) fn decode_for(id: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        let row = Self::decode(bytes).map_err(|error| corrupt(format!("job `{id}`"), error))?;
        row.state(id)?;
        Ok(row)
    }

    pub(super) fn encoded(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub(super) fn state(&self, id: &str) -> Result<JobState, StoreError> {
        u8::try_from(self.state)
            .ok()
            .and_then(state_of)
            .ok_or_else(|| corrupt(format!("job `{id}`"), format!("there is no state {}", self.state)))
    }

    pub(super) fn previous(&self) -> Option<JobState> {
        u8::try_from(self.token_previous).ok().and_then(state_of)
    }

    pub(super) fn revision(&self) -> Timestamp {
        Timestamp::from_micros(self.revision)
    }

    pub(super) fn trace(&self) -> Option<TraceId> {
        TraceId::try_new(&self.trace_id).ok()
    }

    pub(super) fn worker(&self) -> Option<WorkerId> {
        WorkerId::try_new(&self.worker_id).ok()
    }

    pub(super) fn owner(&self) -> Option<InstanceId> {
        InstanceId::try_new(&self.owner).ok()
    }

    /// Moves to `state` at `at`, with its event.
    pub(super) fn enter(&mut self, state: JobState, at: Timestamp) {
        self.state = state_code(state).into();
        self.revision = at.micros();
        if self.events.len() >= MAX_EVENTS * EVENT_BYTES {
            self.events.drain(..EVENT_BYTES);
        }
        self.events.extend_from_slice(&at.micros().to_be_bytes());
        self.events.push(state_code(state));
    }

    pub(super) fn events(&self) -> Vec<(Timestamp, JobState)> {
        self.events
            .chunks_exact(EVENT_BYTES)
            .filter_map(|event| {
                let (time, state) = event.split_first_chunk::<8>()?;
                let at = Timestamp::from_micros(i64::from_be_bytes(*time));
                Some((at, state_of(*state.first()?)?))
            })
            .collect()
    }

    pub(super) fn into_record(self, id: JobId) -> Result<JobRecord, StoreError> {
        let state = self.state(id.as_str())?;
        Ok(JobRecord {
            state,
            revision: Revision(self.revision()),
            trace_id: self.trace(),
            owner: self.owner(),
            worker_id: self.worker(),
            topic: self.description.topic,
            tenant: self.description.tenant,
            team: self.description.team,
            principal: self.description.principal,
            actor_id: self.description.actor_id,
            actor_type: self.description.actor_type,
            idempotency_key: self.description.idempotency_key,
            capability: self.description.capability,
            risk_tags: self.description.risk_tags,
            requires: self.description.requires,
            pack_id: self.description.pack_id,
            memory_id: self.description.memory_id,
            labels: self.description.labels,
            attempts: self.attempts,
            deadline: self.deadline.map(Timestamp::from_micros),
            decision: self
                .decision
                .map(|decision| decision.into_record(id.as_str()))
                .transpose()?,
            approval: self.approval.map(Into::into),
            votes: self.votes.into_iter().map(Into::into).collect(),
            pending: self.pending.map(|pending| pending.into_note(id.as_str())).transpose()?,
            placement: self.placement,
            dispatched_at: self.dispatched_at.map(Timestamp::from_micros),
            accepted_at: self.accepted_at.map(Timestamp::from_micros),
            outcome: self.outcome.map(Into::into).unwrap_or_default(),
            id,
        })
    }
}

impl From<Description> for DescriptionRow {
    fn from(of: Description) -> Self {
        Self {
            topic: of.topic,
            tenant: of.tenant,
            team: of.team,
            principal: of.principal,
            actor_id: of.actor_id,
            actor_type: of.actor_type,
            idempotency_key: of.idempotency_key,
            capability: of.capability,
            risk_tags: of.risk_tags,
            requires: of.requires,
            pack_id: of.pack_id,
            memory_id: of.memory_id,
            labels: of.labels,
        }
    }
}

impl DecisionRow {
    pub(super) fn decode_for(id: &str, bytes: &[u8]) -> Result<DecisionRecord, StoreError> {
        Self::decode(bytes)
            .map_err(|error| corrupt(format!("a decision of job `{id}`"), error))?
            .into_record(id)
    }

    /// As it is kept with the job.
    pub(super) fn without_input(self) -> Self {
        Self { input: None, ..self }
    }

    pub(super) fn into_record(self, id: &str) -> Result<DecisionRecord, StoreError> {
        let decision: Decision = self.decision.parse().map_err(|()| {
            corrupt(
                format!("a decision of job `{id}`"),
                format!("unknown decision `{}`", self.decision),
            )
        })?;
        Ok(DecisionRecord {
            decision,
            reason: self.reason,
            rule_id: self.rule_id,
            policy_snapshot: self.policy_snapshot,
            constraints: self.constraints,
            approval_required: self.approval_required,
            approval_ref: self.approval_ref,
            job_hash: self.job_hash,
            checked_at: Timestamp::from_micros(self.checked_at),
            matched: self.matched,
            terms: self.terms.map(Into::into),
            remediations: self.remediations,
            input: self.input.map(Arc::new),
        })
    }
}

impl From<&DecisionRecord> for DecisionRow {
    fn from(record: &DecisionRecord) -> Self {
        Self {
            decision: record.decision.as_str().to_owned(),
            reason: record.reason.clone(),
            rule_id: record.rule_id.clone(),
            policy_snapshot: record.policy_snapshot.clone(),
            constraints: record.constraints.clone(),
            approval_required: record.approval_required,
            approval_ref: record.approval_ref.clone(),
            job_hash: record.job_hash.clone(),
            checked_at: record.checked_at.micros(),
            matched: record.matched.clone(),
            terms: record.terms.as_ref().map(Into::into),
            remediations: record.remediations.clone(),
            input: record.input.as_deref().cloned(),
        }
    }
}

impl From<&ApprovalTerms> for TermsRow {
    fn from(terms: &ApprovalTerms) -> Self {
        Self {
            quorum: terms.quorum,
            expires_after_ms: terms
                .expires_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            allow_on_expiry: terms.on_expiry == OnExpiry::Allow,
        }
    }
}

impl From<TermsRow> for ApprovalTerms {
    fn from(row: TermsRow) -> Self {
        Self {
            quorum: row.quorum,
            expires_after: row.expires_after_ms.map(Duration::from_millis),
            on_expiry: if row.allow_on_expiry {
                OnExpiry::Allow
            } else {
                OnExpiry::Deny
            },
        }
    }
}

impl From<&ApprovalRecord> for ApprovalRow {
    fn from(record: &ApprovalRecord) -> Self {
        Self {
            by: record.by.clone(),
            role: record.role.clone(),
            at: record.at.micros(),
            reason: record.reason.clone(),
            note: record.note.clone(),
            policy_snapshot: record.policy_snapshot.clone(),
            job_hash: record.job_hash.clone(),
        }
    }
}

impl From<ApprovalRow> for ApprovalRecord {
    fn from(row: ApprovalRow) -> Self {
        Self {
            by: row.by,
            role: row.role,
            at: Timestamp::from_micros(row.at),
            reason: row.reason,
            note: row.note,
            policy_snapshot: row.policy_snapshot,
            job_hash: row.job_hash,
        }
    }
}

impl PendingRow {
    fn into_note(self, id: &str) -> Result<PendingNote, StoreError> {
        let reason: PendingReason = self
            .reason
            .parse()
            .map_err(|()| corrupt(format!("job `{id}`"), format!("unknown reason `{}`", self.reason)))?;
        Ok(PendingNote {
            reason,
            detail: self.detail,
        })
    }
}

impl From<&PendingNote> for PendingRow {
    fn from(note: &PendingNote) -> Self {
        Self {
            reason: note.reason.as_str().to_owned(),
            detail: note.detail.clone(),
        }
    }
}

impl From<&TerminalDetail> for OutcomeRow {
    fn from(detail: &TerminalDetail) -> Self {
        Self {
            result_ptr: detail.result_ptr.clone(),
            worker_id: detail.worker_id.clone(),
            execution_ms: detail.execution_ms,
            error_code: detail.error_code.clone(),
            error_message: detail.error_message.clone(),
            artifact_ptrs: detail.artifact_ptrs.clone(),
        }
    }
}

impl From<OutcomeRow> for TerminalDetail {
    fn from(row: OutcomeRow) -> Self {
        Self {
            result_ptr: row.result_ptr,
            worker_id: row.worker_id,
            execution_ms: row.execution_ms,
            error_code: row.error_code,
            error_message: row.error_message,
            artifact_ptrs: row.artifact_ptrs,
        }
    }
}
