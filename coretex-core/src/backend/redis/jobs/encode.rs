//! Jobs and changes as the arguments of the scripts. See `docs/spec/storage.md` §3.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use redis::{Cmd, ToRedisArgs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::scripts::Lua;
use super::super::{audit, keys};
use crate::jobs::{
    ApprovalDue, ApprovalTerms, Change, DecisionRecord, Description, JobEvent, JobState, NewJob, Note, RequestWrite,
    TerminalDetail, error_document,
};
use crate::protocol::agent::{JobRequest, PolicyRemediation};
use crate::protocol::json::{Mode, append_json, to_json};
use crate::time::Timestamp;

/// How long what lives, in whole seconds; 0 is for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetimes {
    pub(super) meta_secs: u64,
    pub(super) data_secs: u64,
}

impl Lifetimes {
    pub(super) fn new(meta: Duration, data: Duration) -> Self {
        Self {
            meta_secs: whole_seconds(meta),
            data_secs: whole_seconds(data),
        }
    }
}

/// Rounded down, but never to nothing.
fn whole_seconds(duration: Duration) -> u64 {
    if duration.is_zero() {
        0
    } else {
        duration.as_secs().max(1)
    }
}

/// A decision as the reference writes it, with what held, the terms of approval, and the input as base64 of protobuf. Keys
/// in byte order.
#[derive(Serialize)]
struct DecisionEntry<'a> {
    approval_ref: &'a str,
    approval_required: bool,
    checked_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Box<RawValue>>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    job_hash: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    matched: &'a [String],
    policy_snapshot: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remediations: Option<Box<RawValue>>,
    rule_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<&'a ApprovalTerms>,
}

/// Names and values of fields to set, and names to clear.
#[derive(Default)]
struct Fields {
    set: Vec<(&'static str, String)>,
    clear: Vec<&'static str>,
}

impl Fields {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.set.push((name, value.into()));
    }

    /// Sets what there is, clears what there is not.
    fn set_or_clear(&mut self, name: &'static str, value: &str) {
        if value.is_empty() {
            self.clear.push(name);
        } else {
            self.set(name, value);
        }
    }

    fn set_or_clear_json<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T, is_empty: bool) {
        if is_empty {
            self.clear.push(name);
        } else {
            self.set(name, json(value));
        }
    }
}

/// Only for what always has a JSON form.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn describe(request: &JobRequest) -> (Description, Fields) {
    let it = Description::of(request);
    let mut fields = Fields::default();
    fields.set("topic", it.topic.as_str());
    fields.set("tenant", it.tenant.as_str());
    fields.set("team", it.team.as_str());
    fields.set("principal", it.principal.as_str());
    fields.set("memory_id", it.memory_id.as_str());
    fields.set_or_clear("actor_id", &it.actor_id);
    fields.set_or_clear("actor_type", &it.actor_type);
    fields.set_or_clear("idempotency_key", &it.idempotency_key);
    fields.set_or_clear("capability", &it.capability);
    fields.set_or_clear("pack_id", &it.pack_id);
    fields.set_or_clear_json("risk_tags", &it.risk_tags, it.risk_tags.is_empty());
    fields.set_or_clear_json("requires", &it.requires, it.requires.is_empty());
    fields.set_or_clear_json("labels", &it.labels, it.labels.is_empty());
    (it, fields)
}

/// Whole seconds, rounded up: a job never times out early.
fn deadline_secs(deadline: Timestamp) -> i64 {
    deadline.plus(Duration::from_micros(999_999)).secs()
}

fn args<T: ToRedisArgs>(cmd: &mut Cmd, values: impl IntoIterator<Item = T>) {
    for value in values {
        cmd.arg(value);
    }
}

/// A list of arguments, behind their number.
fn part<T: ToRedisArgs>(cmd: &mut Cmd, values: &[T]) {
    cmd.arg(values.len());
    args(cmd, values);
}

fn flag(cmd: &mut Cmd, value: bool) {
    cmd.arg(if value { "1" } else { "0" });
}

pub(super) fn create(job: &NewJob, lifetimes: Lifetimes) -> Cmd {
    let id = job.id.as_str();
    let (description, mut fields) = describe(&job.request);
    let mut cmd = Lua::Create.call(&keys::of(keys::META, id));
    cmd.arg(id)
        .arg(job.at.micros())
        .arg(lifetimes.meta_secs)
        .arg(lifetimes.data_secs)
        .arg(to_json(&*job.request, Mode::Full));
    flag(&mut cmd, job.payload.is_some());
    cmd.arg(job.payload.as_deref().unwrap_or_default());
    match &job.idempotency {
        Some((tenant, key)) => {
            fields.set("cx_key_tenant", tenant.as_str());
            cmd.arg(keys::idempotency(tenant.as_str(), key))
                .arg(keys::idempotency_legacy(key))
                .arg(tenant.as_str())
        }
        None => cmd.arg("").arg("").arg(""),
    };
    match job.deadline.map(deadline_secs) {
        Some(secs) => {
            fields.set("deadline_unix", secs.to_string());
            cmd.arg(secs)
        }
        None => cmd.arg(""),
    };
    if let Some(trace) = &job.trace_id {
        fields.set("trace_id", trace.as_str());
    }
    cmd.arg(job.trace_id.as_ref().map_or("", |trace| trace.as_str()))
        .arg(&description.tenant);
    for (name, value) in &fields.set {
        cmd.arg(name).arg(value);
    }
    cmd
}

/// The states in which the event may happen, between commas; `-` for no job.
fn from_states(event: JobEvent) -> String {
    let mut text = String::from(",");
    if event.from().contains(None) {
        text.push_str("-,");
    }
    for state in event.from().states() {
        text.push_str(state.as_str());
        text.push(',');
    }
    text
}

pub(super) fn apply(change: &Change, lifetimes: Lifetimes) -> Cmd {
    let id = change.id.as_str();
    let target = change.event.target();
    let dispatches = matches!(change.event, JobEvent::Dispatch);
    let fields = fields_of(change);
    let outcome_ptr = change
        .outcome
        .as_ref()
        .map_or("", |outcome| outcome.result_ptr.as_str());

    let mut cmd = Lua::Apply.call(&keys::of(keys::META, id));
    cmd.arg(id).arg(change.token).arg(change.at.micros());
    match change.expected {
        Some(revision) => cmd.arg(revision.0.micros()),
        None => cmd.arg(""),
    };
    cmd.arg(from_states(change.event));
    flag(&mut cmd, matches!(change.event, JobEvent::Finish(_)));
    flag(&mut cmd, dispatches);
    flag(&mut cmd, target.is_terminal());
    cmd.arg(lifetimes.meta_secs).arg(lifetimes.data_secs);
    cmd.arg(change.trace_id.as_ref().map_or("", |trace| trace.as_str()));
    match change.deadline {
        Some(deadline) => cmd.arg(deadline_secs(deadline)),
        None => cmd.arg(""),
    };
    cmd.arg(change.worker_id.as_ref().map_or("", |worker| worker.as_str()));
    match change.attempt_limit {
        Some(limit) => cmd.arg(limit),
        None => cmd.arg(""),
    };
    match &change.slot {
        Some(slot) => cmd.arg(slot.tenant.as_str()).arg(slot.limit),
        None => cmd.arg("").arg(0),
    };
    match &change.decision {
        Some(decision) => cmd.arg(decision_entry(decision)),
        None => cmd.arg(""),
    };
    cmd.arg(outcome_ptr);
    match &change.decision {
        Some(decision) => cmd.arg(decision.checked_at.micros()),
        None => cmd.arg(""),
    };
    approval_args(&mut cmd, change);
    audit::args(&mut cmd, change.audit.as_ref());

    let path: Vec<&str> = change.event.path().iter().map(|state| state.as_str()).collect();
    part(&mut cmd, &path);
    pairs(&mut cmd, &fields.set);
    part(&mut cmd, &fields.clear);
    request_parts(&mut cmd, change);
    letter_part(&mut cmd, change, target);
    cmd
}

/// Whether it is a vote, the vote, and until when people may approve.
fn approval_args(cmd: &mut Cmd, change: &Change) {
    flag(cmd, matches!(change.event, JobEvent::Vote));
    match &change.vote {
        Some(vote) => cmd.arg(json(vote)),
        None => cmd.arg(""),
    };
    match change.approval_due() {
        ApprovalDue::Keep => cmd.arg(""),
        ApprovalDue::Clear => cmd.arg("-"),
        ApprovalDue::Set(due) => cmd.arg(due.micros()),
    };
}

fn pairs(cmd: &mut Cmd, pairs: &[(&'static str, String)]) {
    cmd.arg(pairs.len() * 2);
    for (name, value) in pairs {
        cmd.arg(name).arg(value);
    }
}

/// The fields that the change sets and clears, whatever was there.
fn fields_of(change: &Change) -> Fields {
    let mut fields = Fields::default();
    if let Some(decision) = &change.decision {
        fields.set("safety_decision", decision.decision.as_str());
        fields.set("safety_reason", decision.reason.as_str());
        fields.set("safety_rule_id", decision.rule_id.as_str());
        fields.set("safety_snapshot", decision.policy_snapshot.as_str());
        fields.set("safety_approval_ref", decision.approval_ref.as_str());
        fields.set("safety_checked_at", decision.checked_at.micros().to_string());
        // The reference's readers know `1`.
        fields.set(
            "safety_approval_required",
            if decision.approval_required { "1" } else { "0" },
        );
        fields.set_or_clear("safety_job_hash", &decision.job_hash);
        match &decision.constraints {
            Some(constraints) => fields.set("safety_constraints", to_json(constraints, Mode::Compact)),
            None => fields.clear.push("safety_constraints"),
        }
        fields.set("cx_matched", json(&decision.matched));
        match &decision.terms {
            Some(terms) => fields.set("cx_terms", json(terms)),
            None => fields.clear.push("cx_terms"),
        }
        match remediations(&decision.remediations) {
            Some(remediations) => fields.set("cx_remediations", remediations.get()),
            None => fields.clear.push("cx_remediations"),
        }
    }
    if let Some(approval) = &change.approval {
        fields.set("approval_by", approval.by.as_str());
        fields.set("approval_role", approval.role.as_str());
        fields.set("approval_at", approval.at.micros().to_string());
        fields.set("approval_reason", approval.reason.as_str());
        fields.set("approval_note", approval.note.as_str());
        fields.set("approval_policy_snapshot", approval.policy_snapshot.as_str());
        fields.set("approval_job_hash", approval.job_hash.as_str());
    }
    if let Some(pending) = &change.pending {
        fields.set("cx_pending_reason", pending.reason.as_str());
        fields.set("cx_pending_detail", pending.detail.as_str());
    } else {
        fields.clear.extend(["cx_pending_reason", "cx_pending_detail"]);
    }
    if change.event.target().is_terminal() {
        fields.set("cx_owner", "");
    } else if let Some(owner) = &change.owner {
        fields.set("cx_owner", owner.as_str());
    }
    match change.event {
        JobEvent::Dispatch => fields.set("cx_placement", change.placement.as_str()),
        JobEvent::Requeue => fields.set("cx_accepted_at", ""),
        _ => {}
    }
    if let Some(outcome) = &change.outcome {
        outcome_fields(&mut fields, outcome);
    }
    fields
}

/// Only what there is: a job ends once.
fn outcome_fields(fields: &mut Fields, outcome: &TerminalDetail) {
    for (name, value) in [
        ("cx_result_worker", &outcome.worker_id),
        ("cx_error_code", &outcome.error_code),
        ("cx_error_message", &outcome.error_message),
    ] {
        if !value.is_empty() {
            fields.set(name, value.as_str());
        }
    }
    if outcome.execution_ms != 0 {
        fields.set("cx_execution_ms", outcome.execution_ms.to_string());
    }
    if !outcome.artifact_ptrs.is_empty() {
        fields.set("cx_artifact_ptrs", json(&outcome.artifact_ptrs));
    }
}

/// As a list of protobuf JSON; `None` if there are none.
fn remediations(remediations: &[PolicyRemediation]) -> Option<Box<RawValue>> {
    let mut text = String::new();
    for remediation in remediations {
        text.push(if text.is_empty() { '[' } else { ',' });
        append_json(&mut text, remediation, Mode::Compact);
    }
    if text.is_empty() {
        return None;
    }
    text.push(']');
    RawValue::from_string(text).ok()
}

fn decision_entry(decision: &DecisionRecord) -> String {
    json(&DecisionEntry {
        approval_ref: &decision.approval_ref,
        approval_required: decision.approval_required,
        checked_at: decision.checked_at.micros(),
        constraints: decision
            .constraints
            .as_ref()
            .and_then(|constraints| RawValue::from_string(to_json(constraints, Mode::Compact)).ok()),
        decision: decision.decision.as_str(),
        input: decision
            .input
            .as_ref()
            .map(|input| STANDARD.encode(input.encode_to_vec())),
        job_hash: &decision.job_hash,
        matched: &decision.matched,
        policy_snapshot: &decision.policy_snapshot,
        reason: &decision.reason,
        remediations: remediations(&decision.remediations),
        rule_id: &decision.rule_id,
        terms: decision.terms.as_ref(),
    })
}

/// The request with its descriptive fields, the fields that it lacks, and its idempotency key.
fn request_parts(cmd: &mut Cmd, change: &Change) {
    let (mode, request) = match &change.request {
        RequestWrite::Keep => {
            cmd.arg(0).arg(0).arg(0);
            return;
        }
        RequestWrite::IfAbsent(request) => ("absent", request),
        RequestWrite::Replace(request) => ("replace", request),
    };
    let (description, fields) = describe(request);
    cmd.arg(2 + fields.set.len() * 2)
        .arg(mode)
        .arg(to_json(&**request, Mode::Full));
    for (name, value) in &fields.set {
        cmd.arg(name).arg(value);
    }
    part(cmd, &fields.clear);
    // A job that is accepted by the bus is held to its key as one that is created (docs/spec/storage.md §3).
    let key = description.idempotency_key.trim();
    if key.is_empty() || !change.event.from().contains(None) {
        cmd.arg(0);
    } else {
        let tenant = if description.tenant.is_empty() {
            "default"
        } else {
            description.tenant.as_str()
        };
        cmd.arg(3)
            .arg(keys::idempotency(tenant, key))
            .arg(keys::idempotency_legacy(key))
            .arg(tenant);
    }
}

/// The dead letter in three pieces, between which the script puts what is stored, and the document that stands in for
/// the result.
fn letter_part(cmd: &mut Cmd, change: &Change, target: JobState) {
    if !change.dead_letter {
        cmd.arg(0);
        return;
    }
    let none = TerminalDetail::default();
    let outcome = change.outcome.as_ref().unwrap_or(&none);
    let member = |name: &str, value: &str| {
        if value.is_empty() {
            String::new()
        } else {
            format!(r#","{name}":{}"#, json(value))
        }
    };
    let middle = [
        member("status", target.status().as_str_name()),
        member("reason", &outcome.error_message),
        member("reason_code", outcome.error_code.trim()),
        member("last_state", target.as_str()),
    ]
    .concat();
    let result = keys::result(&change.id);
    cmd.arg(7)
        .arg(format!(r#"{{"job_id":{}"#, json(change.id.as_str())))
        .arg(middle)
        .arg(format!(r#","created_at":{}}}"#, json(&change.at.rfc3339())))
        .arg(change.at.secs())
        .arg(result.key())
        .arg(error_document(&change.id, target, &outcome.error_message, change.at))
        .arg(result.to_string());
}

pub(super) fn note(note: &Note) -> Cmd {
    let (Note::Accepted { id, .. } | Note::Waiting { id, .. } | Note::Owned { id, .. }) = note;
    let mut cmd = Lua::Note.call(&keys::of(keys::META, id.as_str()));
    cmd.arg(id.as_str());
    match note {
        Note::Accepted { worker_id, at, .. } => {
            cmd.arg("accepted").arg(worker_id.as_str()).arg(at.micros());
        }
        Note::Waiting { pending, owner, .. } => {
            cmd.arg("waiting")
                .arg(pending.reason.as_str())
                .arg(&pending.detail)
                .arg(owner.as_str());
        }
        Note::Owned { owner, .. } => {
            cmd.arg("owned").arg(owner.as_str());
        }
    }
    cmd
}
