//! Definitions, their revisions, and schedules, as JSON.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::audit;
use super::super::jobs::change::Writes;
use super::super::kv::{Get, Order, Txn, View, corrupt};
use super::due::{SCHEDULES, schedule_at};
use super::keys::{self, ByTime, Kind, part};
use super::query::each;
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::Workflow;
use crate::workflow::store::{Revision, Schedule, StoredWorkflow};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Definition {
    hash: String,
    revision: u64,
    workflow: Workflow,
}

impl Definition {
    pub(super) fn new(stored: &StoredWorkflow) -> Self {
        Self {
            hash: stored.hash.clone(),
            revision: stored.revision,
            workflow: stored.workflow.clone(),
        }
    }

    fn into_stored(self) -> StoredWorkflow {
        StoredWorkflow {
            workflow: self.workflow,
            hash: self.hash,
            revision: self.revision,
        }
    }

    /// Its keys in the lists.
    fn places(&self) -> [Vec<u8>; 2] {
        let (at, id) = (self.workflow.updated_at, self.workflow.id.as_bytes());
        [
            ByTime::new(Kind::DefinitionAt).at(at, id),
            ByTime::within(Kind::DefinitionOf, &self.workflow.org_id).at(at, id),
        ]
    }
}

fn read<T: DeserializeOwned, G: Get + ?Sized>(source: &G, key: &[u8], what: &str) -> Result<Option<T>, StoreError> {
    source
        .get(key)?
        .map(|bytes| serde_json::from_slice(&bytes).map_err(|error| corrupt(what, error)))
        .transpose()
}

fn json<T: Serialize>(what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| corrupt(what, error))
}

fn load<G: Get + ?Sized>(source: &G, id: &str) -> Result<Option<Definition>, StoreError> {
    let key = keys::of(Kind::Definition, &[id.as_bytes()]);
    read(source, &key, &format!("workflow `{id}`"))
}

pub(super) fn get(view: &dyn View, id: &str) -> Result<Option<StoredWorkflow>, StoreError> {
    Ok(load(view, id)?.map(Definition::into_stored))
}

pub(super) fn put(
    txn: &mut dyn Txn,
    new: &Definition,
    expected: Option<&str>,
    audit: &[AuditRecord],
) -> Result<bool, StoreError> {
    let id = &new.workflow.id;
    let stored = load(txn, id)?;
    if stored.as_ref().map(|stored| stored.hash.as_str()) != expected {
        return Ok(false);
    }
    let mut writes = Writes::default();
    for key in stored.iter().flat_map(Definition::places) {
        writes.delete(key);
    }
    for key in new.places() {
        writes.put(key, Bytes::new());
    }
    writes.put(keys::of(Kind::Definition, &[id.as_bytes()]), json("a workflow", new)?);
    revise(txn, &mut writes, new)?;
    audit::enqueue_all(txn, &mut writes, audit)?;
    writes.apply(txn);
    Ok(true)
}

/// Stores a revision that is not known yet.
fn revise(txn: &dyn Txn, writes: &mut Writes, new: &Definition) -> Result<(), StoreError> {
    let (id, hash, at) = (&new.workflow.id, &new.hash, new.workflow.updated_at);
    let saved = keys::of(Kind::RevisionSaved, &[&part(id), hash.as_bytes()]);
    if txn.get(&saved)?.is_none() {
        writes.put(saved, Bytes::new());
        writes.put(
            ByTime::within(Kind::RevisionAt, id).at(at, hash.as_bytes()),
            Bytes::new(),
        );
        writes.put(
            keys::of(Kind::Revision, &[hash.as_bytes()]),
            json("a workflow", &new.workflow)?,
        );
    }
    Ok(())
}

pub(super) fn ensure_revision(txn: &mut dyn Txn, new: &Definition) -> Result<(), StoreError> {
    let mut writes = Writes::default();
    revise(txn, &mut writes, new)?;
    writes.apply(txn);
    Ok(())
}

pub(super) fn revision(view: &dyn View, hash: &str) -> Result<Option<Workflow>, StoreError> {
    let key = keys::of(Kind::Revision, &[hash.as_bytes()]);
    read(view, &key, &format!("revision `{hash}` of a workflow"))
}

/// Times and texts of a list, the latest first.
fn latest(view: &dyn View, list: &ByTime, limit: usize) -> Result<Vec<(Timestamp, String)>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    each(view, &list.range(), Order::Descending, |key, _| {
        found.extend(
            list.parse(key)
                .and_then(|(at, id)| Some((at, std::str::from_utf8(id).ok()?.to_owned()))),
        );
        Ok(if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}

pub(super) fn revisions(view: &dyn View, id: &str, limit: usize) -> Result<Vec<Revision>, StoreError> {
    let found = latest(view, &ByTime::within(Kind::RevisionAt, id), limit)?;
    Ok(found
        .into_iter()
        .map(|(saved_at, hash)| Revision { hash, saved_at })
        .collect())
}

pub(super) fn list(view: &dyn View, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, StoreError> {
    let list = org.map_or_else(
        || ByTime::new(Kind::DefinitionAt),
        |org| ByTime::within(Kind::DefinitionOf, org),
    );
    let found = latest(view, &list, limit)?;
    Ok(found
        .iter()
        .filter_map(|(_, id)| get(view, id).ok().flatten())
        .collect())
}

pub(super) fn delete(txn: &mut dyn Txn, id: &str, audit: &[AuditRecord]) -> Result<bool, StoreError> {
    let Some(stored) = load(txn, id)? else {
        return Ok(false);
    };
    let mut writes = Writes::default();
    writes.delete(keys::of(Kind::Definition, &[id.as_bytes()]));
    for key in stored.places() {
        writes.delete(key);
    }
    audit::enqueue_all(txn, &mut writes, audit)?;
    writes.apply(txn);
    Ok(true)
}

pub(super) fn schedule<G: Get + ?Sized>(source: &G, id: &str) -> Result<Option<Schedule>, StoreError> {
    let key = keys::of(Kind::Schedule, &[id.as_bytes()]);
    read(source, &key, &format!("schedule `{id}`"))
}

pub(super) fn put_schedule(
    txn: &mut dyn Txn,
    schedule: &Schedule,
    expected: u64,
    audit: &[AuditRecord],
) -> Result<bool, StoreError> {
    let id = &schedule.id;
    if self::schedule(txn, id)?.map_or(0, |stored| stored.revision) != expected {
        return Ok(false);
    }
    let mut writes = Writes::default();
    writes.put(
        keys::of(Kind::Schedule, &[id.as_bytes()]),
        json("a schedule", schedule)?,
    );
    schedule_at(txn, &mut writes, SCHEDULES, id, schedule.due())?;
    audit::enqueue_all(txn, &mut writes, audit)?;
    writes.apply(txn);
    Ok(true)
}

pub(super) fn schedules(view: &dyn View, limit: usize) -> Result<Vec<Schedule>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    each(view, &keys::all(Kind::Schedule, &[]), Order::Ascending, |_, value| {
        found.push(serde_json::from_slice(value).map_err(|error| corrupt("a schedule", error))?);
        Ok(if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}

pub(super) fn delete_schedule(txn: &mut dyn Txn, id: &str, audit: &[AuditRecord]) -> Result<bool, StoreError> {
    let key = keys::of(Kind::Schedule, &[id.as_bytes()]);
    if txn.get(&key)?.is_none() {
        return Ok(false);
    }
    let mut writes = Writes::default();
    writes.delete(key);
    schedule_at(txn, &mut writes, SCHEDULES, id, None)?;
    audit::enqueue_all(txn, &mut writes, audit)?;
    writes.apply(txn);
    Ok(true)
}
