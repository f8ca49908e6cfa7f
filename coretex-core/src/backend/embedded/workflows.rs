//! Workflows: definitions, runs and schedules. See `docs/spec/embedded.md` §9.

mod change;
mod definitions;
mod due;
mod keys;
mod query;

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;

use self::definitions::Definition;
use self::keys::{ByTime, Kind};
use super::Settings;
use super::jobs::change::counter;
use super::kv::disk::repeat;
use super::kv::{Kv, Order, Txn, View};
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::event::TimelineEvent;
use crate::workflow::store::{
    Committed, Created, Due, NewRun, Revision, RunCommit, RunPage, RunQuery, Schedule, StoredWorkflow, TimelineOrder,
    Waiting, WorkflowWrite,
};
use crate::workflow::{Run, RunId, Workflow, WorkflowStore};

#[derive(Debug)]
pub(super) struct Workflows {
    pub(super) kv: Arc<Kv>,
    pub(super) settings: Arc<Settings>,
}

fn records(audit: Option<&AuditRecord>) -> Vec<AuditRecord> {
    audit.into_iter().cloned().collect()
}

/// Idempotency keys that are over, with their places in the list of those.
pub(super) fn outlived(view: &dyn View, now: Timestamp, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let list = ByTime::new(Kind::IdempotencyUntil);
    let mut found = Vec::new();
    query::each(
        view,
        &(list.range().start..list.after(now)),
        Order::Ascending,
        |key, _| {
            found.push(key.to_vec());
            Ok(if found.len() >= limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        },
    )?;
    Ok(found)
}

/// Drops an idempotency key that is over, unless it was claimed anew since.
pub(super) fn drop_outlived(txn: &mut dyn Txn, place: Vec<u8>) -> Result<u64, StoreError> {
    if let Some((at, key)) = ByTime::new(Kind::IdempotencyUntil).parse(&place)
        && change::is_held_until(txn, key, at)?
    {
        txn.delete(key.to_vec());
    }
    txn.delete(place);
    Ok(1)
}

impl Workflows {
    /// Writes what was prepared, all in one transaction; on their own in memory, so that readers need not wait for all.
    async fn write_all<P, T>(
        &self,
        op: &'static str,
        prepared: Vec<Result<P, StoreError>>,
        write: fn(&mut dyn Txn, P, &Settings) -> Result<T, StoreError>,
    ) -> Vec<Result<T, StoreError>>
    where
        P: Send + 'static,
        T: Send + 'static,
    {
        match &*self.kv {
            Kv::Memory(memory) => prepared
                .into_iter()
                .map(|prepared| memory.write(|txn| write(txn, prepared?, &self.settings)))
                .collect(),
            Kv::Disk(disk) => {
                let count = prepared.len();
                let settings = Arc::clone(&self.settings);
                let written = disk.write(op, move |txn| {
                    Ok(prepared
                        .into_iter()
                        .map(|prepared| write(txn, prepared?, &settings))
                        .collect::<Vec<_>>())
                });
                written.await.unwrap_or_else(|error| {
                    let error = Arc::new(error);
                    (0..count).map(|_| Err(repeat(op, &error))).collect()
                })
            }
        }
    }
}

#[async_trait]
impl WorkflowStore for Workflows {
    async fn put_workflow(&self, write: &WorkflowWrite<'_>) -> Result<bool, StoreError> {
        let new = Definition::new(write.stored);
        let expected = write.expected.map(str::to_owned);
        let audit = records(write.audit);
        self.kv
            .write("put workflow", move |txn| {
                definitions::put(txn, &new, expected.as_deref(), &audit)
            })
            .await
    }

    async fn ensure_revision(&self, stored: &StoredWorkflow) -> Result<(), StoreError> {
        let new = Definition::new(stored);
        self.kv
            .write("put revision", move |txn| definitions::ensure_revision(txn, &new))
            .await
    }

    async fn workflow(&self, id: &str) -> Result<Option<StoredWorkflow>, StoreError> {
        let id = id.to_owned();
        self.kv.read("workflow", move |view| definitions::get(view, &id)).await
    }

    async fn workflow_revision(&self, hash: &str) -> Result<Option<Workflow>, StoreError> {
        let hash = hash.to_owned();
        self.kv
            .read("revision", move |view| definitions::revision(view, &hash))
            .await
    }

    async fn workflow_revisions(&self, id: &str, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let id = id.to_owned();
        self.kv
            .read("revisions", move |view| definitions::revisions(view, &id, limit))
            .await
    }

    async fn workflows(&self, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, StoreError> {
        let org = org.map(str::to_owned);
        self.kv
            .read("workflows", move |view| definitions::list(view, org.as_deref(), limit))
            .await
    }

    async fn delete_workflow(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        let (id, audit) = (id.to_owned(), records(audit));
        self.kv
            .write("delete workflow", move |txn| definitions::delete(txn, &id, &audit))
            .await
    }

    async fn open_runs(&self, workflow: &str) -> Result<u64, StoreError> {
        let key = change::open_of_workflow(workflow);
        self.kv.read("open runs", move |view| counter(view, &key)).await
    }

    async fn create_runs(&self, runs: &[NewRun]) -> Vec<Result<Created, StoreError>> {
        let prepared = runs
            .iter()
            .map(|run| change::prepare_new(run, &self.settings))
            .collect();
        self.write_all("create runs", prepared, change::create).await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Vec<Result<Option<Run>, StoreError>> {
        let (count, ids) = (ids.len(), ids.to_vec());
        let read = self.kv.read("load runs", move |view| {
            Ok(ids.iter().map(|id| query::load(view, id)).collect::<Vec<_>>())
        });
        read.await.unwrap_or_else(|error| {
            let error = Arc::new(error);
            (0..count).map(|_| Err(repeat("load runs", &error))).collect()
        })
    }

    async fn commit_runs(&self, commits: &[RunCommit]) -> Vec<Result<Committed, StoreError>> {
        let prepared = commits
            .iter()
            .map(|commit| change::prepare(commit, &self.settings))
            .collect();
        self.write_all("commit runs", prepared, change::commit).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let query = query.clone();
        self.kv.read("runs", move |view| query::list(view, &query)).await
    }

    async fn timeline(
        &self,
        run: &RunId,
        order: TimelineOrder,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, StoreError> {
        let run = run.clone();
        self.kv
            .read("timeline", move |view| query::timeline(view, &run, order, skip, limit))
            .await
    }

    async fn delete_run(
        &self,
        run: &RunId,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<Committed, StoreError> {
        let (run, audit) = (run.clone(), records(audit));
        let read = run.clone();
        // What is read here is all there is if the run is still at this revision when it is deleted.
        let (parts, waiting) = self
            .kv
            .read("delete run", move |view| query::parts_of(view, &read))
            .await?;
        let parts = parts.into();
        self.kv
            .write("delete run", move |txn| {
                change::delete(txn, &run, expected, &parts, &waiting, &audit)
            })
            .await
    }

    async fn claim_due(&self, now: Timestamp, again: Timestamp, limit: usize) -> Result<Due<RunId>, StoreError> {
        let (ids, next) = due::claim(&self.kv, "due runs", due::RUNS, now, again, limit).await?;
        Ok(Due {
            ids: ids.iter().map(|id| RunId::new(id)).collect(),
            next,
        })
    }

    async fn adopt_legacy(&self, _limit: usize) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn expire_runs(&self, older_than: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let found = self
            .kv
            .read("expire runs", move |view| query::ended_before(view, older_than, limit))
            .await?;
        let mut gone = 0;
        for (run, revision) in found {
            if let Committed::Applied(_) = self.delete_run(&run, revision, None).await? {
                gone += 1;
            }
        }
        Ok(gone)
    }

    async fn waiting_steps(&self, after: Option<&Waiting>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let after = after.cloned();
        self.kv
            .read("waiting steps", move |view| query::waiting(view, after.as_ref(), limit))
            .await
    }

    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<bool, StoreError> {
        let (schedule, audit) = (schedule.clone(), records(audit));
        self.kv
            .write("put schedule", move |txn| {
                definitions::put_schedule(txn, &schedule, expected, &audit)
            })
            .await
    }

    async fn schedule(&self, id: &str) -> Result<Option<Schedule>, StoreError> {
        let id = id.to_owned();
        self.kv
            .read("schedule", move |view| definitions::schedule(view, &id))
            .await
    }

    async fn schemas(&self, ids: &[String]) -> Result<Vec<Option<serde_json::Value>>, StoreError> {
        // Nothing registers schemas here yet; in Redis the reference does.
        Ok(vec![None; ids.len()])
    }

    async fn schedules(&self, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        self.kv
            .read("schedules", move |view| definitions::schedules(view, limit))
            .await
    }

    async fn delete_schedule(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        let (id, audit) = (id.to_owned(), records(audit));
        self.kv
            .write("delete schedule", move |txn| {
                definitions::delete_schedule(txn, &id, &audit)
            })
            .await
    }

    async fn claim_due_schedules(
        &self,
        now: Timestamp,
        again: Timestamp,
        limit: usize,
    ) -> Result<Due<String>, StoreError> {
        let (ids, next) = due::claim(&self.kv, "due schedules", due::SCHEDULES, now, again, limit).await?;
        Ok(Due { ids, next })
    }
}
