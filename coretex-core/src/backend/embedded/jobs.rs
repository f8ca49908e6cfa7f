//! The job store. See `docs/spec/embedded.md` §4–5.

pub(super) mod change;
mod query;

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message;

use super::kv::{Kv, corrupt};
use super::{Settings, dead_letters, keys, payloads, workflows};
use crate::error::StoreError;
use crate::jobs::{
    Admission, Change, Cursor, DecisionPage, DecisionQuery, DecisionRecord, JobRecord, JobState, JobStore, ListQuery,
    NewJob, Note, Outcome, Page, ScanItem,
};
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// So many of each kind go in one sweep.
const SWEEP_LIMIT: usize = 1_000;

#[derive(Debug)]
pub(super) struct Jobs {
    pub(super) kv: Arc<Kv>,
    pub(super) settings: Arc<Settings>,
}

#[async_trait]
impl JobStore for Jobs {
    async fn create(&self, job: NewJob) -> Result<Admission, StoreError> {
        let settings = Arc::clone(&self.settings);
        self.kv
            .write("create", move |txn| change::create(txn, &settings, &job))
            .await
    }

    async fn apply_many(&self, changes: &[Change]) -> Vec<Result<Outcome, StoreError>> {
        let failed = match &*self.kv {
            // Each on its own, so that readers need not wait for all of them.
            Kv::Memory(memory) => {
                return changes
                    .iter()
                    .map(|change| memory.write(|txn| change::apply(txn, &self.settings, change)))
                    .collect();
            }
            Kv::Disk(disk) => {
                let settings = Arc::clone(&self.settings);
                let owned = changes.to_vec();
                let applied = disk.write("apply", move |txn| {
                    Ok(owned
                        .iter()
                        .map(|change| change::apply(txn, &settings, change))
                        .collect::<Vec<_>>())
                });
                match applied.await {
                    Ok(outcomes) => return outcomes,
                    Err(error) => Arc::new(error),
                }
            }
        };
        changes
            .iter()
            .map(|_| Err(super::kv::disk::repeat("apply", &failed)))
            .collect()
    }

    async fn note_many(&self, notes: &[Note]) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        let notes = notes.to_vec();
        self.kv
            .write("note", move |txn| {
                notes.iter().try_for_each(|note| change::note(txn, note))
            })
            .await
    }

    async fn get_many(&self, ids: &[JobId]) -> Result<Vec<Option<JobRecord>>, StoreError> {
        let ids = ids.to_vec();
        self.kv.read("get", move |view| query::records(view, &ids)).await
    }

    async fn requests(&self, ids: &[JobId]) -> Result<Vec<Option<JobRequest>>, StoreError> {
        let ids = ids.to_vec();
        self.kv
            .read("requests", move |view| {
                ids.iter()
                    .map(|id| {
                        view.get(&keys::request(id.as_str()))?
                            .map(|bytes| {
                                JobRequest::decode(bytes)
                                    .map_err(|error| corrupt(format!("the request of job `{id}`"), error))
                            })
                            .transpose()
                    })
                    .collect()
            })
            .await
    }

    async fn decisions(&self, id: &JobId, limit: usize) -> Result<Vec<DecisionRecord>, StoreError> {
        let id = id.clone();
        self.kv
            .read("decisions", move |view| query::decisions(view, &id, limit))
            .await
    }

    async fn decision_log(&self, query: &DecisionQuery) -> Result<DecisionPage, StoreError> {
        let query = query.clone();
        self.kv
            .read("decision log", move |view| query::decision_log(view, &query))
            .await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<(Timestamp, JobState)>, StoreError> {
        let id = id.clone();
        self.kv
            .read("events", move |view| {
                Ok(change::load(view, id.as_str())?.map_or_else(Vec::new, |row| row.events()))
            })
            .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let query = query.clone();
        self.kv.read("list", move |view| query::list(view, &query)).await
    }

    async fn trace(&self, trace: &TraceId, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
        let trace = trace.clone();
        self.kv
            .read("trace", move |view| query::trace(view, &trace, limit))
            .await
    }

    async fn scan(
        &self,
        state: JobState,
        until: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<ScanItem>, StoreError> {
        let after = after.cloned();
        self.kv
            .read("scan", move |view| {
                query::scan(view, state, until, after.as_ref(), limit)
            })
            .await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.kv.read("due", move |view| query::due(view, now, limit)).await
    }

    async fn approvals_due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.kv
            .read("approvals due", move |view| query::approvals_due(view, now, limit))
            .await
    }

    async fn counts(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        self.kv
            .read("counts", |view| {
                JobState::ALL
                    .into_iter()
                    .map(|state| Ok((state, change::counter(view, &keys::count(state))?)))
                    .collect()
            })
            .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let until = now.minus(self.settings.meta_ttl);
        let found = self
            .kv
            .read("sweep", move |view| {
                let mut ids = Vec::new();
                for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
                    let mut range = keys::all_in_state(state);
                    range.end = keys::in_state(state, keys::after(until), "");
                    let left = SWEEP_LIMIT - ids.len();
                    ids.extend(query::ids(view, &range, left, |key| {
                        keys::parse_in_state(key).map(|(_, id)| id)
                    })?);
                }
                let payloads = payloads::expired(view, now, SWEEP_LIMIT)?;
                let letters = dead_letters::outlived(view, until, SWEEP_LIMIT)?;
                let decisions = query::outlived_decisions(view, until, SWEEP_LIMIT)?;
                let run_keys = workflows::outlived(view, now, SWEEP_LIMIT)?;
                Ok((ids, payloads, letters, decisions, run_keys))
            })
            .await?;
        let (ids, payloads, letters, decisions, run_keys) = found;
        if ids.is_empty() && payloads.is_empty() && letters.is_empty() && decisions.is_empty() && run_keys.is_empty() {
            return Ok(0);
        }
        self.kv
            .write("sweep", move |txn| {
                let mut gone = decisions.len() as u64;
                for key in decisions {
                    txn.delete(key);
                }
                for place in run_keys {
                    gone += workflows::drop_outlived(txn, place)?;
                }
                for id in &ids {
                    gone += change::forget(txn, id, until)?;
                }
                for (at, pointer) in &payloads {
                    gone += payloads::expire(txn, *at, pointer)?;
                }
                for (at, id) in &letters {
                    gone += dead_letters::drop_outlived(txn, *at, id)?;
                }
                Ok(gone)
            })
            .await
    }
}
