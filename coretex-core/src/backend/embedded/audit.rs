//! The audit log and its outbox. See `docs/spec/embedded.md` §8.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::jobs::change::{Writes, counter};
use super::keys;
use super::kv::{Get, Kv, Order, Txn, View, corrupt};
use crate::audit::{AuditEntry, AuditRecord, AuditStore, Head};
use crate::error::StoreError;

#[derive(Debug)]
pub(super) struct Audit {
    pub(super) kv: Arc<Kv>,
}

fn encoded<T: Serialize>(value: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(value)
        .map(Into::into)
        .map_err(|error| corrupt("an audit record", error))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| corrupt("an audit record", error))
}

/// Puts a record in the outbox, unless it was there before.
pub(super) fn enqueue(txn: &dyn Txn, writes: &mut Writes, record: &AuditRecord) -> Result<(), StoreError> {
    enqueue_all(txn, writes, std::slice::from_ref(record))
}

/// The same for several records of one change.
pub(super) fn enqueue_all(txn: &dyn Txn, writes: &mut Writes, records: &[AuditRecord]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut place = counter(txn, keys::AUDIT_ENQUEUED)?;
    for (i, record) in records.iter().enumerate() {
        let again = records.iter().take(i).any(|other| other.id == record.id);
        if again || txn.get(&keys::audit_record(&record.id))?.is_some() {
            continue;
        }
        place = place.saturating_add(1);
        writes.put(keys::audit_waiting(place), encoded(record)?);
        writes.put(keys::audit_record(&record.id), place.to_be_bytes().to_vec());
    }
    writes.put(keys::AUDIT_ENQUEUED.to_vec(), place.to_be_bytes().to_vec());
    Ok(())
}

fn head<G: Get + ?Sized>(source: &G) -> Result<Head, StoreError> {
    let Some(bytes) = source.get(keys::AUDIT_HEAD)? else {
        return Ok(Head::empty());
    };
    let (seq, hash) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| corrupt("the end of the audit log", "it is too short"))?;
    Ok(Head {
        seq: u64::from_be_bytes(*seq),
        hash: String::from_utf8_lossy(hash).into_owned(),
    })
}

fn append(txn: &mut dyn Txn, after: &Head, entries: &[AuditEntry]) -> Result<bool, StoreError> {
    if head(txn)? != *after {
        return Ok(false);
    }
    let mut writes = Writes::default();
    for entry in entries {
        let id = keys::audit_record(&entry.record.id);
        if let Some(place) = txn.get(&id)?
            && let Ok(place) = <[u8; 8]>::try_from(place.as_ref())
        {
            writes.delete(keys::audit_waiting(u64::from_be_bytes(place)));
        }
        writes.put(id, Bytes::new());
        writes.put(keys::audit_entry(entry.seq), encoded(entry)?);
    }
    if let Some(last) = entries.last() {
        writes.put(
            keys::AUDIT_HEAD.to_vec(),
            [&last.seq.to_be_bytes(), last.hash.as_bytes()].concat(),
        );
    }
    writes.apply(txn);
    Ok(true)
}

/// The values of a range, at most `limit`.
fn values<T: DeserializeOwned>(view: &dyn View, range: &Range<Vec<u8>>, limit: usize) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    let mut wrong = None;
    if limit > 0 {
        view.scan(&range.start..&range.end, Order::Ascending, &mut |_, value| {
            match decoded(value) {
                Ok(value) => found.push(value),
                Err(error) => wrong = Some(error),
            }
            if wrong.is_some() || found.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    wrong.map_or(Ok(found), Err)
}

#[async_trait]
impl AuditStore for Audit {
    async fn enqueue(&self, record: &AuditRecord) -> Result<(), StoreError> {
        let record = record.clone();
        self.kv
            .write("enqueue", move |txn| {
                let mut writes = Writes::default();
                enqueue(txn, &mut writes, &record)?;
                writes.apply(txn);
                Ok(())
            })
            .await
    }

    async fn pending(&self, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.kv
            .read("pending", move |view| values(view, &keys::audit_outbox(), limit))
            .await
    }

    async fn head(&self) -> Result<Head, StoreError> {
        self.kv.read("head", |view| head(view)).await
    }

    async fn append(&self, after: &Head, entries: &[AuditEntry]) -> Result<bool, StoreError> {
        let (after, entries) = (after.clone(), entries.to_vec());
        self.kv.write("append", move |txn| append(txn, &after, &entries)).await
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.kv
            .read("read", move |view| values(view, &keys::audit_log(from), limit))
            .await
    }
}
