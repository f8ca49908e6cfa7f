//! How a run comes in and moves: encoded outside the transaction, decided first, then written.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::jobs::change::{Writes, add, counter};
use super::super::kv::{Get, Txn, corrupt};
use super::super::{Settings, audit, payloads};
use super::due::{RUNS, schedule_at};
use super::keys::{self, ByTime, Kind, part};
use crate::audit::AuditRecord;
use crate::backend::run_parts::{encoded, encoded_head};
use crate::error::StoreError;
use crate::pointers::Pointer;
use crate::time::Timestamp;
use crate::workflow::store::{Committed, Created, NewRun, RunCommit};
use crate::workflow::{RunId, RunStatus, StepKey};

/// More entries than were added leave a timeline at once only up to this many.
const TRIM: u64 = 1_000;

/// What a commit has to know of the run before it: small, unlike the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) revision: u64,
    /// Of the last commit.
    pub(super) token: u64,
    /// Of the first.
    pub(super) created: u64,
    pub(super) status: RunStatus,
    pub(super) updated_at: Timestamp,
    pub(super) workflow_id: String,
    pub(super) org_id: String,
    pub(super) team_id: String,
    /// The place of the first entry of the timeline, and of the next one.
    pub(super) first: u64,
    pub(super) next: u64,
}

impl Meta {
    fn open(&self) -> bool {
        !self.status.is_terminal()
    }

    /// Its keys in the lists by time.
    pub(super) fn places(&self, run: &RunId) -> [Vec<u8>; 3] {
        let id = run.as_str().as_bytes();
        [
            ByTime::in_status(self.status).at(self.updated_at, id),
            ByTime::within(Kind::OfWorkflow, &self.workflow_id).at(self.updated_at, id),
            ByTime::within(Kind::OfOrg, &self.org_id).at(self.updated_at, id),
        ]
    }
}

pub(super) fn open_of_org(org: &str) -> Vec<u8> {
    keys::of(Kind::OpenOfOrg, &[org.as_bytes()])
}

pub(super) fn open_of_workflow(workflow: &str) -> Vec<u8> {
    keys::of(Kind::OpenOfWorkflow, &[workflow.as_bytes()])
}

pub(super) fn of_run(kind: Kind, run: &RunId) -> Vec<u8> {
    keys::of(kind, &[&part(run.as_str())])
}

pub(super) fn meta<G: Get + ?Sized>(source: &G, run: &RunId) -> Result<Option<Meta>, StoreError> {
    source
        .get(&of_run(Kind::Meta, run))?
        .map(|bytes| crate::backend::run_parts::decoded(run, "the state", &bytes))
        .transpose()
}

/// A commit, ready to be written.
pub(super) struct Prepared {
    run: RunId,
    expected: u64,
    token: u64,
    status: RunStatus,
    updated_at: Timestamp,
    workflow_id: String,
    org_id: String,
    team_id: String,
    /// What does not depend on what is stored.
    writes: Writes,
    timeline: Vec<Vec<u8>>,
    due: Option<Timestamp>,
    inbox_add: Vec<StepKey>,
    inbox_remove: Vec<StepKey>,
    audit: Vec<AuditRecord>,
}

pub(super) fn prepare(commit: &RunCommit, settings: &Settings) -> Result<Prepared, StoreError> {
    let run = &commit.run;
    let own = part(run.as_str());
    let mut writes = Writes::default();
    writes.put(of_run(Kind::Head, run), encoded_head(run, &commit.head)?);
    if let Some(context) = &commit.context {
        writes.put(of_run(Kind::Context, run), encoded(run, "the context", context)?);
    }
    for (step, record) in &commit.steps {
        let key = keys::of(Kind::Step, &[&own, step.as_str().as_bytes()]);
        writes.put(key, encoded(run, "a step", record)?);
    }
    for (step, items) in &commit.items {
        let key = keys::of(Kind::Items, &[&own, step.as_str().as_bytes()]);
        writes.put(key, encoded(run, "the items", items.as_ref())?);
    }
    for (id, effect) in &commit.effects {
        writes.put(keys::effect(run.as_str(), *id), encoded(run, "an effect", effect)?);
    }
    for id in &commit.done {
        writes.delete(keys::effect(run.as_str(), *id));
    }
    for (job, payload) in &commit.payloads {
        payloads::write(&mut writes, settings, &Pointer::context(job), payload, None);
    }
    Ok(Prepared {
        run: run.clone(),
        expected: commit.expected,
        token: commit.token,
        status: commit.head.status,
        updated_at: commit.head.updated_at,
        workflow_id: commit.head.workflow_id.clone(),
        org_id: commit.head.org_id.clone(),
        team_id: commit.head.team_id.clone(),
        writes,
        timeline: commit
            .timeline
            .iter()
            .map(|event| encoded(run, "the timeline", event))
            .collect::<Result<_, _>>()?,
        due: commit.due,
        inbox_add: commit.inbox_add.clone(),
        inbox_remove: commit.inbox_remove.clone(),
        audit: commit.audit.clone(),
    })
}

/// A run to be created, ready to be written.
pub(super) struct PreparedRun {
    prepared: Prepared,
    idempotency: Option<Claim>,
    org_limit: Option<u64>,
    workflow_limit: Option<u64>,
    now: Timestamp,
}

struct Claim {
    key: Vec<u8>,
    fingerprint: String,
    until: Timestamp,
}

/// Who holds an idempotency key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    run: RunId,
    fingerprint: String,
    until: Timestamp,
}

pub(super) fn prepare_new(new: &NewRun, settings: &Settings) -> Result<PreparedRun, StoreError> {
    let mut prepared = prepare(&new.commit, settings)?;
    let run = &new.commit.run;
    prepared
        .writes
        .put(of_run(Kind::Input, run), encoded(run, "the input", new.input.as_ref())?);
    let now = settings.clock.now();
    let head = &new.commit.head;
    Ok(PreparedRun {
        idempotency: new.idempotency.as_ref().map(|claim| Claim {
            key: keys::idempotency(&head.org_id, &head.workflow_id, &claim.key),
            fingerprint: claim.fingerprint.clone(),
            until: now.plus(claim.ttl),
        }),
        prepared,
        org_limit: new.org_limit,
        workflow_limit: new.workflow_limit,
        now,
    })
}

fn holder(txn: &dyn Txn, claim: &Claim, now: Timestamp) -> Result<Option<Holder>, StoreError> {
    let Some(bytes) = txn.get(&claim.key)? else {
        return Ok(None);
    };
    let holder: Holder =
        serde_json::from_slice(&bytes).map_err(|error| corrupt("an idempotency key of a run", error))?;
    Ok(Some(holder).filter(|holder| holder.until > now))
}

pub(super) fn create(txn: &mut dyn Txn, new: PreparedRun, settings: &Settings) -> Result<Created, StoreError> {
    let PreparedRun {
        mut prepared,
        idempotency,
        org_limit,
        workflow_limit,
        now,
    } = new;
    let stored = meta(txn, &prepared.run)?;
    if stored.as_ref().is_some_and(|stored| stored.created == prepared.token) {
        return Ok(Created::Created);
    }
    if let Some(claim) = idempotency {
        if let Some(holder) = holder(txn, &claim, now)? {
            return Ok(if holder.fingerprint == claim.fingerprint {
                Created::Replayed(holder.run)
            } else {
                Created::Mismatch(holder.run)
            });
        }
        let holder = Holder {
            run: prepared.run.clone(),
            fingerprint: claim.fingerprint,
            until: claim.until,
        };
        let value = encoded(&prepared.run, "the idempotency key", &holder)?;
        let expiry = ByTime::new(Kind::IdempotencyUntil).at(claim.until, &claim.key);
        prepared.writes.put(expiry, Bytes::new());
        prepared.writes.put(claim.key, value);
    }
    if stored.is_some() {
        return Ok(Created::Exists);
    }
    for (limit, key) in [
        (org_limit, open_of_org(&prepared.org_id)),
        (workflow_limit, open_of_workflow(&prepared.workflow_id)),
    ] {
        let open = counter(txn, &key)?;
        if limit.is_some_and(|limit| open >= limit) {
            return Ok(Created::Limit(open));
        }
    }
    write(txn, prepared, None, settings)?;
    Ok(Created::Created)
}

pub(super) fn commit(txn: &mut dyn Txn, prepared: Prepared, settings: &Settings) -> Result<Committed, StoreError> {
    let Some(stored) = meta(txn, &prepared.run)? else {
        return Ok(Committed::Gone);
    };
    if stored.token == prepared.token && stored.revision == prepared.expected.saturating_add(1) {
        return Ok(Committed::Applied(stored.revision));
    }
    if stored.revision != prepared.expected {
        return Ok(Committed::Conflict(stored.revision));
    }
    write(txn, prepared, Some(&stored), settings).map(Committed::Applied)
}

/// Writes what was found to fit; returns the revision.
fn write(txn: &mut dyn Txn, prepared: Prepared, stored: Option<&Meta>, settings: &Settings) -> Result<u64, StoreError> {
    let Prepared { run, mut writes, .. } = prepared;
    let (mut first, mut next) = stored.map_or((0, 0), |stored| (stored.first, stored.next));
    let added = prepared.timeline.len() as u64;
    for event in prepared.timeline {
        writes.put(keys::timeline(run.as_str(), next), event);
        next += 1;
    }
    let keep = settings.timeline_limit as u64;
    let drop = (next - first).saturating_sub(keep).min(added + TRIM);
    for place in first..first + drop {
        writes.delete(keys::timeline(run.as_str(), place));
    }
    first += drop;

    let meta = Meta {
        revision: stored.map_or(0, |stored| stored.revision) + 1,
        token: prepared.token,
        created: stored.map_or(prepared.token, |stored| stored.created),
        status: prepared.status,
        updated_at: prepared.updated_at,
        workflow_id: prepared.workflow_id,
        org_id: prepared.org_id,
        team_id: prepared.team_id,
        first,
        next,
    };
    writes.put(of_run(Kind::Meta, &run), encoded(&run, "the state", &meta)?);
    list(txn, &mut writes, &run, stored, Some(&meta))?;
    schedule_at(txn, &mut writes, RUNS, run.as_str(), prepared.due)?;
    for step in &prepared.inbox_remove {
        leave_inbox(txn, &mut writes, &run, step.as_str())?;
    }
    for step in &prepared.inbox_add {
        let key = keys::of(Kind::Waiting, &[&keys::waiting(run.as_str(), step.as_str())]);
        if txn.get(&key)?.is_none() || prepared.inbox_remove.contains(step) {
            let rest = keys::waiting(run.as_str(), step.as_str());
            writes.put(ByTime::new(Kind::WaitingAt).at(meta.updated_at, &rest), Bytes::new());
            writes.put(key, meta.updated_at.micros().to_be_bytes().to_vec());
        }
    }
    audit::enqueue_all(txn, &mut writes, &prepared.audit)?;
    writes.apply(txn);
    Ok(meta.revision)
}

/// Moves a run in the lists and counters: from where it was to where it is.
pub(super) fn list(
    txn: &dyn Txn,
    writes: &mut Writes,
    run: &RunId,
    from: Option<&Meta>,
    to: Option<&Meta>,
) -> Result<(), StoreError> {
    let left = from.map(|from| from.places(run)).into_iter().flatten();
    for key in left {
        writes.delete(key);
    }
    for key in to.map(|to| to.places(run)).into_iter().flatten() {
        writes.put(key, Bytes::new());
    }
    let counted = |meta: Option<&Meta>, key: fn(&Meta) -> Vec<u8>| meta.filter(|meta| meta.open()).map(key);
    for key in [
        (|meta: &Meta| open_of_org(&meta.org_id)) as fn(&Meta) -> Vec<u8>,
        |meta| open_of_workflow(&meta.workflow_id),
    ] {
        let (from, to) = (counted(from, key), counted(to, key));
        if from == to {
            continue;
        }
        if let Some(key) = from {
            add(txn, writes, key, -1)?;
        }
        if let Some(key) = to {
            add(txn, writes, key, 1)?;
        }
    }
    Ok(())
}

/// A time that is stored as the value of a key.
pub(super) fn stored_time<G: Get + ?Sized>(source: &G, key: &[u8]) -> Result<Option<Timestamp>, StoreError> {
    let Some(bytes) = source.get(key)? else {
        return Ok(None);
    };
    let bytes: [u8; 8] = bytes
        .as_ref()
        .try_into()
        .map_err(|error: std::array::TryFromSliceError| corrupt("a time", error))?;
    Ok(Some(Timestamp::from_micros(i64::from_be_bytes(bytes))))
}

fn leave_inbox(txn: &dyn Txn, writes: &mut Writes, run: &RunId, step: &str) -> Result<(), StoreError> {
    let rest = keys::waiting(run.as_str(), step);
    let key = keys::of(Kind::Waiting, &[&rest]);
    if let Some(since) = stored_time(txn, &key)? {
        writes.delete(ByTime::new(Kind::WaitingAt).at(since, &rest));
        writes.delete(key);
    }
    Ok(())
}

/// Deletes a run whose parts are at `parts`, if it is still at this revision.
pub(super) fn delete(
    txn: &mut dyn Txn,
    run: &RunId,
    expected: u64,
    parts: &Arc<[Vec<u8>]>,
    waiting: &[String],
    audit: &[AuditRecord],
) -> Result<Committed, StoreError> {
    let Some(stored) = meta(txn, run)? else {
        return Ok(Committed::Gone);
    };
    if stored.revision != expected {
        return Ok(Committed::Conflict(stored.revision));
    }
    let mut writes = Writes::default();
    for key in parts.iter() {
        writes.delete(key.clone());
    }
    for step in waiting {
        leave_inbox(txn, &mut writes, run, step)?;
    }
    list(txn, &mut writes, run, Some(&stored), None)?;
    schedule_at(txn, &mut writes, RUNS, run.as_str(), None)?;
    audit::enqueue_all(txn, &mut writes, audit)?;
    writes.apply(txn);
    Ok(Committed::Applied(expected))
}

/// Whether an idempotency key is held until just then.
pub(super) fn is_held_until(txn: &dyn Txn, key: &[u8], at: Timestamp) -> Result<bool, StoreError> {
    Ok(txn
        .get(key)?
        .and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok())
        .is_some_and(|holder| holder.until == at))
}
