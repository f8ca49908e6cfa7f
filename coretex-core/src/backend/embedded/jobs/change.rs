//! How a job comes in and moves: everything is read and decided first, then written.

use bytes::Bytes;
use prost::Message;

use super::super::kv::{Get, Txn, corrupt};
use super::super::payloads;
use super::super::row::{DecisionRow, DescriptionRow, Row};
use super::super::{Settings, dead_letters};
use super::super::{audit, keys};
use crate::dlq::DeadLetter;
use crate::error::StoreError;
use crate::jobs::{
    Admission, Applied, ApprovalDue, Change, DecisionRecord, Description, JobEvent, JobState, NewJob, Note, Outcome,
    RequestWrite, Revision, StateSet, error_document,
};
use crate::pointers::Pointer;
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TenantId};
use crate::time::Timestamp;

/// So many decisions of a job are kept, the last one not counted.
pub(super) const MAX_EARLIER_DECISIONS: u32 = 50;

/// What a change will write, once it is known that it can.
#[derive(Default)]
pub(in super::super) struct Writes(Vec<(Vec<u8>, Option<Bytes>)>);

impl Writes {
    pub(in super::super) fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.0.push((key, Some(value.into())));
    }

    pub(in super::super) fn delete(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }

    pub(in super::super) fn apply(self, txn: &mut dyn Txn) {
        for (key, value) in self.0 {
            match value {
                Some(value) => txn.put(key, value),
                None => txn.delete(key),
            }
        }
    }
}

pub(super) fn load<G: Get + ?Sized>(source: &G, id: &str) -> Result<Option<Row>, StoreError> {
    source
        .get(&keys::job(id))?
        .map(|bytes| Row::decode_for(id, &bytes))
        .transpose()
}

/// A counter; a missing one is zero.
pub(in super::super) fn counter<G: Get + ?Sized>(source: &G, key: &[u8]) -> Result<u64, StoreError> {
    let Some(bytes) = source.get(key)? else {
        return Ok(0);
    };
    let bytes: [u8; 8] = bytes
        .as_ref()
        .try_into()
        .map_err(|error: std::array::TryFromSliceError| corrupt("a counter", error))?;
    Ok(u64::from_be_bytes(bytes))
}

pub(in super::super) fn add(txn: &dyn Txn, writes: &mut Writes, key: Vec<u8>, delta: i64) -> Result<(), StoreError> {
    let count = counter(txn, &key)?.saturating_add_signed(delta);
    if count == 0 {
        writes.delete(key);
    } else {
        writes.put(key, count.to_be_bytes().to_vec());
    }
    Ok(())
}

/// The job that holds an idempotency key.
fn key_holder(txn: &dyn Txn, tenant: &str, name: &str) -> Result<Option<JobId>, StoreError> {
    let Some(holder) = txn.get(&keys::idempotency(tenant, name))? else {
        return Ok(None);
    };
    let holder = std::str::from_utf8(&holder).map_err(|error| corrupt("an idempotency key", error))?;
    JobId::try_new(holder)
        .map(Some)
        .map_err(|error| corrupt("an idempotency key", error))
}

fn describe(row: &mut Row, writes: &mut Writes, id: &JobId, request: &JobRequest) {
    row.description = DescriptionRow::from(Description::of(request));
    row.has_request = true;
    writes.put(keys::request(id.as_str()), request.encode_to_vec());
}

fn claim(row: &mut Row, writes: &mut Writes, id: &JobId, tenant: &str, name: &str) {
    tenant.clone_into(&mut row.claimed_tenant);
    name.clone_into(&mut row.claimed_key);
    writes.put(keys::idempotency(tenant, name), id.as_str().as_bytes().to_vec());
}

fn set_deadline(row: &mut Row, writes: &mut Writes, id: &JobId, deadline: Option<Timestamp>) {
    let old = row.deadline;
    let new = deadline.map(Timestamp::micros);
    if old == new {
        return;
    }
    if let Some(old) = old {
        writes.delete(keys::deadline(Timestamp::from_micros(old), id.as_str()));
    }
    if let Some(new) = deadline {
        writes.put(keys::deadline(new, id.as_str()), Bytes::new());
    }
    row.deadline = new;
}

fn set_approval_due(row: &mut Row, writes: &mut Writes, id: &JobId, due: Option<Timestamp>) {
    if let Some(old) = row.approval_due.take() {
        writes.delete(keys::approval_due(Timestamp::from_micros(old), id.as_str()));
    }
    if let Some(due) = due {
        writes.put(keys::approval_due(due, id.as_str()), Bytes::new());
        row.approval_due = Some(due.micros());
    }
}

/// Makes `decision` the last one: in the row, among the job's decisions and in the log.
fn decide(
    txn: &dyn Txn,
    writes: &mut Writes,
    row: &mut Row,
    id: &JobId,
    decision: &DecisionRecord,
) -> Result<(), StoreError> {
    let earlier = row.decisions;
    // Earlier versions kept the last decision only in the row.
    if let Some(last) = &row.decision
        && txn.get(&keys::decision(id.as_str(), earlier))?.is_none()
    {
        writes.put(keys::decision(id.as_str(), earlier), last.encode_to_vec());
    }
    let number = earlier.saturating_add(1);
    if let Some(oldest) = earlier.checked_sub(MAX_EARLIER_DECISIONS) {
        forget_decision(txn, writes, id.as_str(), oldest)?;
    }
    let whole = DecisionRow::from(decision);
    writes.put(keys::decision(id.as_str(), number), whole.encode_to_vec());
    writes.put(keys::logged(decision.checked_at, id.as_str(), number), Bytes::new());
    row.decision = Some(whole.without_input());
    row.decisions = number;
    Ok(())
}

/// Removes a decision, and its place in the log.
fn forget_decision(txn: &dyn Txn, writes: &mut Writes, id: &str, number: u32) -> Result<(), StoreError> {
    let key = keys::decision(id, number);
    if let Some(bytes) = txn.get(&key)? {
        let at = DecisionRow::decode_for(id, &bytes)?.checked_at;
        writes.delete(keys::logged(at, id, number));
        writes.delete(key);
    }
    Ok(())
}

/// [`JobStore::create`](crate::jobs::JobStore::create).
pub(super) fn create(txn: &mut dyn Txn, settings: &Settings, job: &NewJob) -> Result<Admission, StoreError> {
    let id = &job.id;
    if let Some(row) = load(txn, id.as_str())? {
        return Ok(Admission::Exists(row.state(id.as_str())?));
    }
    if let Some((tenant, name)) = &job.idempotency
        && let Some(holder) = key_holder(txn, tenant.as_str(), name)?
    {
        let trace = load(txn, holder.as_str())?.and_then(|row| row.trace());
        return Ok(Admission::Duplicate { job: holder, trace });
    }
    let mut writes = Writes::default();
    let mut row = Row::default();
    row.enter(JobState::Pending, job.at);
    describe(&mut row, &mut writes, id, &job.request);
    if let Some((tenant, name)) = &job.idempotency {
        claim(&mut row, &mut writes, id, tenant.as_str(), name);
    }
    if let Some(trace) = &job.trace_id {
        trace.as_str().clone_into(&mut row.trace_id);
        writes.put(keys::traced(trace.as_str(), id.as_str()), Bytes::new());
    }
    set_deadline(&mut row, &mut writes, id, job.deadline);
    if let Some(payload) = &job.payload {
        payloads::write(&mut writes, settings, &Pointer::context(id), payload, None);
    }
    reindex(txn, &mut writes, id, None, &row)?;
    writes.put(keys::job(id.as_str()), row.encoded());
    writes.apply(txn);
    Ok(Admission::Accepted(Revision(job.at)))
}

/// Moves the job's entry in the index of states, if it moved.
fn reindex(
    txn: &dyn Txn,
    writes: &mut Writes,
    id: &JobId,
    before: Option<(JobState, Timestamp)>,
    row: &Row,
) -> Result<(), StoreError> {
    let after = (row.state(id.as_str())?, row.revision());
    if before == Some(after) {
        return Ok(());
    }
    if let Some((state, at)) = before {
        writes.delete(keys::in_state(state, at, id.as_str()));
    }
    writes.put(keys::in_state(after.0, after.1, id.as_str()), Bytes::new());
    let from = before.map(|(state, _)| state);
    if from != Some(after.0) {
        if let Some(from) = from {
            add(txn, writes, keys::count(from), -1)?;
        }
        add(txn, writes, keys::count(after.0), 1)?;
    }
    Ok(())
}

fn applied(row: &Row, previous: Option<JobState>) -> Outcome {
    Outcome::Applied(Applied {
        revision: Revision(row.revision()),
        previous,
        attempts: row.attempts,
        topic: row.description.topic.clone(),
        tenant: row.description.tenant.clone(),
        trace_id: row.trace(),
        worker_id: row.worker(),
    })
}

/// One change of [`JobStore::apply_many`](crate::jobs::JobStore::apply_many).
pub(super) fn apply(txn: &mut dyn Txn, settings: &Settings, change: &Change) -> Result<Outcome, StoreError> {
    let id = &change.id;
    let stored = load(txn, id.as_str())?;
    if let Some(row) = &stored
        && row.token == Some(change.token)
    {
        return Ok(applied(row, row.previous()));
    }
    let before = stored
        .as_ref()
        .map(|row| Ok::<_, StoreError>((row.state(id.as_str())?, row.revision())))
        .transpose()?;
    let state = before.map(|(state, _)| state);
    let revision = before.map(|(_, at)| Revision(at));
    let mut row = stored.unwrap_or_default();
    if !change.guard(state, row.attempts) || change.expected.is_some_and(|expected| revision != Some(expected)) {
        return Ok(Outcome::Conflict { state, revision });
    }
    if change.event == JobEvent::Dispatch {
        if change.attempt_limit.is_some_and(|limit| row.attempts >= limit) {
            let attempts = row.attempts;
            return Ok(Outcome::AttemptsExhausted { attempts });
        }
        if let Some(slot) = &change.slot
            && slot.limit > 0
            && row.slot != slot.tenant.as_str()
            && counter(txn, &keys::placed(slot.tenant.as_str()))? >= u64::from(slot.limit)
        {
            return Ok(Outcome::LimitReached);
        }
    }

    let mut writes = Writes::default();
    match &change.request {
        RequestWrite::IfAbsent(request) if !row.has_request => describe(&mut row, &mut writes, id, request),
        RequestWrite::Replace(request) => describe(&mut row, &mut writes, id, request),
        RequestWrite::Keep | RequestWrite::IfAbsent(_) => {}
    }
    if state.is_none() && !row.description.idempotency_key.is_empty() {
        let name = row.description.idempotency_key.clone();
        let tenant = TenantId::try_new(&row.description.tenant).unwrap_or_else(|_| TenantId::fallback());
        match key_holder(txn, tenant.as_str(), &name)? {
            Some(job) if job != *id => return Ok(Outcome::DuplicateKey { job }),
            _ => claim(&mut row, &mut writes, id, tenant.as_str(), &name),
        }
    }
    if row.trace_id.is_empty()
        && let Some(trace) = &change.trace_id
    {
        trace.as_str().clone_into(&mut row.trace_id);
        writes.put(keys::traced(trace.as_str(), id.as_str()), Bytes::new());
    }

    pass(&mut row, state, change);
    let target = change.event.target();
    row.token = Some(change.token);
    row.token_previous = state.map_or(0, |state| keys::state_code(state).into());

    if let Some(decision) = &change.decision {
        decide(txn, &mut writes, &mut row, id, decision)?;
    }
    if change.forgets_votes() {
        row.votes.clear();
    }
    row.votes.extend(change.vote.as_ref().map(Into::into));
    match change.approval_due() {
        ApprovalDue::Keep => {}
        ApprovalDue::Clear => set_approval_due(&mut row, &mut writes, id, None),
        ApprovalDue::Set(due) => set_approval_due(&mut row, &mut writes, id, Some(due)),
    }
    if let Some(record) = &change.audit {
        audit::enqueue(txn, &mut writes, record)?;
    }
    if let Some(approval) = &change.approval {
        row.approval = Some(approval.into());
    }
    row.pending = change.pending.as_ref().map(Into::into);
    if let Some(owner) = &change.owner {
        owner.as_str().clone_into(&mut row.owner);
    }

    let slot = match &change.slot {
        Some(slot) if change.event == JobEvent::Dispatch => slot.tenant.as_str().to_owned(),
        _ if StateSet::PLACED.contains(Some(target)) => row.slot.clone(),
        _ => String::new(),
    };
    if slot != row.slot {
        if !row.slot.is_empty() {
            add(txn, &mut writes, keys::placed(&row.slot), -1)?;
        }
        if !slot.is_empty() {
            add(txn, &mut writes, keys::placed(&slot), 1)?;
        }
        row.slot = slot;
    }
    if change.event == JobEvent::Dispatch {
        row.attempts = row.attempts.saturating_add(1);
        if let Some(worker) = &change.worker_id {
            worker.as_str().clone_into(&mut row.worker_id);
        }
        change.placement.clone_into(&mut row.placement);
        row.dispatched_at = Some(change.at.micros());
        row.accepted_at = None;
    }
    if let Some(outcome) = &change.outcome {
        row.outcome = Some(outcome.into());
    }
    if target.is_terminal() {
        row.owner.clear();
        set_deadline(&mut row, &mut writes, id, None);
    } else if let Some(deadline) = change.deadline
        && row.deadline.is_none_or(|set| deadline.micros() < set)
    {
        set_deadline(&mut row, &mut writes, id, Some(deadline));
    }
    if change.dead_letter {
        bury(txn, settings, &mut writes, &mut row, change)?;
    }
    reindex(txn, &mut writes, id, before, &row)?;
    writes.put(keys::job(id.as_str()), row.encoded());
    let outcome = applied(&row, state);
    writes.apply(txn);
    Ok(outcome)
}

/// Takes the job through the states of the change's path, each at its own time.
fn pass(row: &mut Row, state: Option<JobState>, change: &Change) {
    if state == Some(change.event.target()) {
        if change.event == JobEvent::Vote {
            row.revision = change.at.max(keys::after(row.revision())).micros();
        }
        return;
    }
    let first =
        (state.is_none() && change.event.path().first() != Some(&JobState::Pending)).then_some(JobState::Pending);
    let mut last = state.map(|_| row.revision());
    for step in first.into_iter().chain(change.event.path().iter().copied()) {
        if state == Some(step) {
            continue;
        }
        let at = last.map_or(change.at, |last| change.at.max(keys::after(last)));
        row.enter(step, at);
        last = Some(at);
    }
}

/// Writes the dead letter, and the error document of a job without a result.
fn bury(
    txn: &dyn Txn,
    settings: &Settings,
    writes: &mut Writes,
    row: &mut Row,
    change: &Change,
) -> Result<(), StoreError> {
    let id = &change.id;
    let target = change.event.target();
    let outcome = row.outcome.get_or_insert_default();
    let letter = DeadLetter {
        job_id: id.as_str().to_owned(),
        topic: row.description.topic.clone(),
        status: target.status().as_str_name().to_owned(),
        reason: outcome.error_message.clone(),
        reason_code: outcome.error_code.clone(),
        last_state: target.as_str().to_owned(),
        attempts: row.attempts,
        created_at: change.at.rfc3339(),
    };
    dead_letters::write(txn, writes, &letter, change.at)?;
    if outcome.result_ptr.trim().is_empty() {
        let pointer = Pointer::result(id);
        let document = error_document(id, target, &outcome.error_message, change.at);
        payloads::write(writes, settings, &pointer, &document, None);
        outcome.result_ptr = pointer.to_string();
    }
    Ok(())
}

/// One note of [`JobStore::note_many`](crate::jobs::JobStore::note_many).
pub(super) fn note(txn: &mut dyn Txn, note: &Note) -> Result<(), StoreError> {
    let id = match note {
        Note::Accepted { id, .. } | Note::Waiting { id, .. } | Note::Owned { id, .. } => id,
    };
    let Some(mut row) = load(txn, id.as_str())? else {
        return Ok(());
    };
    let state = Some(row.state(id.as_str())?);
    match note {
        Note::Accepted { worker_id, at, .. } => {
            if !StateSet::PLACED.contains(state) || row.worker_id != worker_id.as_str() {
                return Ok(());
            }
            row.accepted_at = Some(at.micros());
        }
        Note::Waiting { pending, owner, .. } => {
            if state != Some(JobState::Pending) {
                return Ok(());
            }
            row.pending = Some(pending.into());
            owner.as_str().clone_into(&mut row.owner);
        }
        Note::Owned { owner, .. } => {
            if !StateSet::OPEN.contains(state) {
                return Ok(());
            }
            owner.as_str().clone_into(&mut row.owner);
        }
    }
    txn.put(keys::job(id.as_str()), row.encoded());
    Ok(())
}

/// Forgets an ended job whose last change is not after `until`; returns how many entries went.
pub(super) fn forget(txn: &mut dyn Txn, id: &str, until: Timestamp) -> Result<u64, StoreError> {
    let Some(row) = load(txn, id)? else {
        return Ok(0);
    };
    let state = row.state(id)?;
    if !state.is_terminal() || row.revision() > until {
        return Ok(0);
    }
    let mut writes = Writes::default();
    if !row.claimed_key.is_empty() {
        writes.delete(keys::idempotency(&row.claimed_tenant, &row.claimed_key));
    }
    if !row.trace_id.is_empty() {
        writes.delete(keys::traced(&row.trace_id, id));
    }
    for number in row.decisions.saturating_sub(MAX_EARLIER_DECISIONS + 1)..=row.decisions {
        forget_decision(txn, &mut writes, id, number)?;
    }
    writes.delete(keys::in_state(state, row.revision(), id));
    writes.delete(keys::request(id));
    writes.delete(keys::job(id));
    add(txn, &mut writes, keys::count(state), -1)?;
    writes.apply(txn);
    Ok(1)
}
