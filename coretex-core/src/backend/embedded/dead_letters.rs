//! Dead letters, by job and by second. See `docs/spec/embedded.md` §5.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::jobs::change::Writes;
use super::keys;
use super::kv::{Get, Kv, Order, Txn, View, corrupt};
use crate::dlq::{DeadLetter, DlqStore};
use crate::error::StoreError;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// So many are kept, the newest.
const MAX_LETTERS: usize = 10_000;

#[derive(Debug)]
pub(super) struct DeadLetters {
    pub(super) kv: Arc<Kv>,
}

/// A letter as it is stored, with the second it is listed at.
#[derive(Serialize, Deserialize)]
struct Filed {
    listed_at: Timestamp,
    letter: DeadLetter,
}

fn load<G: Get + ?Sized>(source: &G, id: &str) -> Result<Option<Filed>, StoreError> {
    source
        .get(&keys::letter(id))?
        .map(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| corrupt(format!("the dead letter of job `{id}`"), error))
        })
        .transpose()
}

/// Files a letter, in place of the job's earlier one.
pub(super) fn write(txn: &dyn Txn, writes: &mut Writes, letter: &DeadLetter, at: Timestamp) -> Result<(), StoreError> {
    let listed_at = Timestamp::from_secs(at.secs());
    if let Some(earlier) = load(txn, &letter.job_id)? {
        writes.delete(keys::letter_at(earlier.listed_at, &letter.job_id));
    }
    let filed = Filed {
        listed_at,
        letter: letter.clone(),
    };
    let value = serde_json::to_vec(&filed).map_err(|error| corrupt("a dead letter", error))?;
    writes.put(keys::letter(&letter.job_id), value);
    writes.put(keys::letter_at(listed_at, &letter.job_id), Bytes::new());
    Ok(())
}

fn remove(txn: &mut dyn Txn, id: &str) -> Result<(), StoreError> {
    if let Some(filed) = load(txn, id)? {
        txn.delete(keys::letter_at(filed.listed_at, id));
        txn.delete(keys::letter(id));
    }
    Ok(())
}

/// Letters older than `until`, and those beyond the newest [`MAX_LETTERS`].
pub(super) fn outlived(
    view: &dyn View,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, String)>, StoreError> {
    let range = keys::letters_until(None);
    let mut found = Vec::new();
    let mut seen = 0;
    view.scan(&range.start..&range.end, Order::Descending, &mut |key, _| {
        seen += 1;
        if let Some((at, id)) = keys::parse_letter_at(key)
            && (seen > MAX_LETTERS || at < until)
        {
            found.push((at, id.to_owned()));
        }
        if found.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}

/// Removes one of them, unless it was replaced since.
pub(super) fn drop_outlived(txn: &mut dyn Txn, at: Timestamp, id: &str) -> Result<u64, StoreError> {
    match load(txn, id)? {
        Some(filed) if filed.listed_at == at => remove(txn, id)?,
        _ => txn.delete(keys::letter_at(at, id)),
    }
    Ok(1)
}

#[async_trait]
impl DlqStore for DeadLetters {
    async fn put(&self, letter: &DeadLetter, at: Timestamp) -> Result<(), StoreError> {
        let letter = letter.clone();
        self.kv
            .write("put", move |txn| {
                let mut writes = Writes::default();
                write(txn, &mut writes, &letter, at)?;
                writes.apply(txn);
                Ok(())
            })
            .await
    }

    async fn get(&self, job: &JobId) -> Result<Option<DeadLetter>, StoreError> {
        let job = job.clone();
        self.kv
            .read("get", move |view| {
                Ok(load(view, job.as_str())?.map(|filed| filed.letter))
            })
            .await
    }

    async fn list(&self, before: Option<Timestamp>, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.kv
            .read("list", move |view| {
                let range = keys::letters_until(before);
                let mut ids = Vec::new();
                if limit > 0 {
                    view.scan(&range.start..&range.end, Order::Descending, &mut |key, _| {
                        ids.extend(keys::parse_letter_at(key).map(|(_, id)| id.to_owned()));
                        if ids.len() == limit {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    })?;
                }
                let mut letters = Vec::with_capacity(ids.len());
                for id in &ids {
                    letters.extend(load(view, id)?.map(|filed| filed.letter));
                }
                Ok(letters)
            })
            .await
    }

    async fn delete(&self, job: &JobId) -> Result<(), StoreError> {
        let job = job.clone();
        self.kv.write("delete", move |txn| remove(txn, job.as_str())).await
    }
}
