//! Workflows in Redis: definitions, runs and schedules. See `docs/spec/storage.md` §10.

mod adopt;
mod definitions;
mod encode;
mod legacy;
mod lists;
mod load;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Value};

use self::encode::Terms;
use super::connection::{BACKEND, Redis, no_answer};
use super::jobs::typed;
use super::{RedisOptions, keys};
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::event::TimelineEvent;
use crate::workflow::store::{
    Committed, Created, Due, NewRun, Revision, RunCommit, RunPage, RunQuery, Schedule, StoredWorkflow, TimelineOrder,
    Waiting, WorkflowWrite,
};
use crate::workflow::{Run, RunId, Workflow, WorkflowStore};

/// Workflows.
#[derive(Debug)]
pub(super) struct Workflows {
    redis: Redis,
    terms: Terms,
}

/// The same error for another caller.
fn repeat(op: &'static str, error: &Arc<StoreError>) -> StoreError {
    match &**error {
        StoreError::Unavailable { sent, .. } => StoreError::Unavailable {
            backend: BACKEND,
            op,
            sent: *sent,
            source: error.to_string().into(),
        },
        other => super::connection::refused(op, other.to_string().into()),
    }
}

/// What a script said of a commit.
enum Said {
    Committed(Committed),
    /// The reference left the run as this document.
    Document(Vec<u8>),
}

fn said(op: &'static str, answer: Value) -> Result<Said, StoreError> {
    let (code, rest): (String, Vec<u8>) = match typed::<Vec<Value>>(op, answer)?.as_slice() {
        [code] => (typed(op, code.clone())?, Vec::new()),
        [code, rest] => (typed(op, code.clone())?, typed(op, rest.clone())?),
        _ => return Err(no_answer(op)),
    };
    let revision = || {
        let text = std::str::from_utf8(&rest).ok();
        text.and_then(|text| text.parse().ok()).ok_or_else(|| no_answer(op))
    };
    Ok(match code.as_str() {
        "A" => Said::Committed(Committed::Applied(revision()?)),
        "C" => Said::Committed(Committed::Conflict(revision()?)),
        "G" => Said::Committed(Committed::Gone),
        "L" => Said::Document(rest),
        _ => return Err(no_answer(op)),
    })
}

fn created(op: &'static str, answer: Value) -> Result<Created, StoreError> {
    let answer: Vec<Value> = typed(op, answer)?;
    let (code, rest) = answer.split_first().ok_or_else(|| no_answer(op))?;
    let rest = rest.first().cloned().unwrap_or(Value::Nil);
    let run = |rest| typed::<String>(op, rest).map(|run| RunId::new(&run));
    Ok(match typed::<String>(op, code.clone())?.as_str() {
        "N" => Created::Created,
        "E" => Created::Exists,
        "R" => Created::Replayed(run(rest)?),
        "M" => Created::Mismatch(run(rest)?),
        "X" => Created::Limit(typed(op, rest)?),
        _ => return Err(no_answer(op)),
    })
}

impl Workflows {
    pub(super) fn new(redis: Redis, options: &RedisOptions) -> Self {
        let data_ttl = options.data_ttl;
        Self {
            redis,
            terms: Terms {
                data_secs: if data_ttl.is_zero() {
                    0
                } else {
                    data_ttl.as_secs().max(1)
                },
                timeline_limit: options.timeline_limit,
            },
        }
    }

    /// Sends what could be encoded; answers in the order of the commands.
    async fn send_all(&self, op: &'static str, cmds: Vec<Result<Cmd, StoreError>>) -> Vec<Result<Value, StoreError>> {
        let mut answers = Vec::with_capacity(cmds.len());
        let mut sent = Vec::with_capacity(cmds.len());
        let mut places = Vec::with_capacity(cmds.len());
        for (place, cmd) in cmds.into_iter().enumerate() {
            match cmd {
                Ok(cmd) => {
                    sent.push(cmd);
                    places.push(place);
                    answers.push(Err(no_answer(op)));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        match self.redis.send_all(op, sent).await {
            Ok(found) => {
                for (place, answer) in places.into_iter().zip(found) {
                    answers[place] = answer;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for place in places {
                    answers[place] = Err(repeat(op, &error));
                }
            }
        }
        answers
    }

    /// The first commit on a run that the reference left.
    async fn commit_first(&self, commit: &RunCommit, document: &[u8]) -> Result<Committed, StoreError> {
        const OP: &str = "commit runs";
        let base = legacy::run(&commit.run, document)?;
        let cmd = encode::commit(commit, Some(&base), self.terms)?;
        match said(OP, self.redis.send(OP, cmd).await?)? {
            Said::Committed(committed) => Ok(committed),
            Said::Document(_) => Err(no_answer(OP)),
        }
    }
}

#[async_trait]
impl WorkflowStore for Workflows {
    async fn put_workflow(&self, write: &WorkflowWrite<'_>) -> Result<bool, StoreError> {
        definitions::put(&self.redis, write).await
    }

    async fn ensure_revision(&self, stored: &StoredWorkflow) -> Result<(), StoreError> {
        definitions::ensure_revision(&self.redis, stored).await
    }

    async fn workflow(&self, id: &str) -> Result<Option<StoredWorkflow>, StoreError> {
        definitions::get(&self.redis, id).await
    }

    async fn workflow_revision(&self, hash: &str) -> Result<Option<Workflow>, StoreError> {
        definitions::revision(&self.redis, hash).await
    }

    async fn workflow_revisions(&self, id: &str, limit: usize) -> Result<Vec<Revision>, StoreError> {
        definitions::revisions(&self.redis, id, limit).await
    }

    async fn workflows(&self, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, StoreError> {
        definitions::list(&self.redis, org, limit).await
    }

    async fn delete_workflow(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        definitions::delete(&self.redis, id, audit).await
    }

    async fn open_runs(&self, workflow: &str) -> Result<u64, StoreError> {
        const OP: &str = "open runs";
        let mut cmd = redis::cmd("SCARD");
        cmd.arg(keys::of(keys::WF_OPEN, workflow));
        typed(OP, self.redis.send(OP, cmd).await?)
    }

    async fn create_runs(&self, runs: &[NewRun]) -> Vec<Result<Created, StoreError>> {
        const OP: &str = "create runs";
        let cmds = runs.iter().map(|run| encode::create(run, self.terms)).collect();
        let answers = self.send_all(OP, cmds).await;
        answers.into_iter().map(|answer| created(OP, answer?)).collect()
    }

    async fn load_runs(&self, ids: &[RunId]) -> Vec<Result<Option<Run>, StoreError>> {
        const OP: &str = "load runs";
        load::runs(&self.redis, OP, ids).await.unwrap_or_else(|error| {
            let error = Arc::new(error);
            ids.iter().map(|_| Err(repeat(OP, &error))).collect()
        })
    }

    async fn commit_runs(&self, commits: &[RunCommit]) -> Vec<Result<Committed, StoreError>> {
        const OP: &str = "commit runs";
        let cmds = commits
            .iter()
            .map(|commit| encode::commit(commit, None, self.terms))
            .collect();
        let answers = self.send_all(OP, cmds).await;
        let mut committed = Vec::with_capacity(answers.len());
        for (commit, answer) in commits.iter().zip(answers) {
            committed.push(match answer.and_then(|answer| said(OP, answer)) {
                Ok(Said::Committed(committed)) => Ok(committed),
                Ok(Said::Document(document)) => self.commit_first(commit, &document).await,
                Err(error) => Err(error),
            });
        }
        committed
    }

    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError> {
        lists::runs(&self.redis, query).await
    }

    async fn timeline(
        &self,
        run: &RunId,
        order: TimelineOrder,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, StoreError> {
        const OP: &str = "timeline";
        if limit == 0 {
            return Ok(Vec::new());
        }
        let place = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (skip, limit) = (place(skip), place(limit));
        let (first, last) = match order {
            TimelineOrder::Oldest => (skip, skip.saturating_add(limit - 1)),
            TimelineOrder::Newest => (-skip.saturating_add(limit), -1 - skip),
        };
        let mut cmd = redis::cmd("LRANGE");
        cmd.arg(keys::of(keys::WF_TIMELINE, run.as_str())).arg(first).arg(last);
        let answer = self.redis.fetch(OP, vec![cmd]).await?.pop().unwrap_or(Value::Nil);
        let texts: Vec<Vec<u8>> = typed(OP, answer)?;
        // What others wrote there and nobody can read is passed over.
        let mut events: Vec<TimelineEvent> = texts
            .iter()
            .filter_map(|text| serde_json::from_slice(text).ok())
            .collect();
        if order == TimelineOrder::Newest {
            events.reverse();
        }
        Ok(events)
    }

    async fn delete_run(
        &self,
        run: &RunId,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<Committed, StoreError> {
        const OP: &str = "delete run";
        match said(OP, self.redis.send(OP, encode::delete(run, expected, audit)).await?)? {
            Said::Committed(committed) => Ok(committed),
            Said::Document(_) => Err(no_answer(OP)),
        }
    }

    async fn claim_due(&self, now: Timestamp, again: Timestamp, limit: usize) -> Result<Due<RunId>, StoreError> {
        let (ids, next) = definitions::claim(&self.redis, "due runs", keys::WF_DUE, (now, again), limit).await?;
        Ok(Due {
            ids: ids.iter().map(|id| RunId::new(id)).collect(),
            next,
        })
    }

    async fn adopt_legacy(&self, limit: usize) -> Result<u64, StoreError> {
        let count = adopt::open(&self.redis, limit).await?;
        adopt::by_org(&self.redis).await?;
        Ok(count)
    }

    async fn expire_runs(&self, older_than: Timestamp, limit: usize) -> Result<u64, StoreError> {
        const OP: &str = "expire runs";
        let mut gone = 0;
        let ids = lists::ended_before(&self.redis, older_than, limit).await?;
        let revisions = load::ended_revisions(&self.redis, OP, &ids).await?;
        let missing: Vec<&RunId> = ids
            .iter()
            .zip(&revisions)
            .filter_map(|(id, revision)| revision.is_none().then_some(id))
            .collect();
        lists::forget(&self.redis, OP, &missing).await?;
        let cmds = ids
            .iter()
            .zip(&revisions)
            .filter_map(|(id, revision)| Some(encode::delete(id, (*revision)?, None)));
        for answer in self.redis.send_all(OP, cmds.collect()).await? {
            if matches!(said(OP, answer?), Ok(Said::Committed(Committed::Applied(_)))) {
                gone += 1;
            }
        }
        Ok(gone)
    }

    async fn waiting_steps(&self, after: Option<&Waiting>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        lists::waiting(&self.redis, after, limit).await
    }

    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<bool, StoreError> {
        definitions::put_schedule(&self.redis, schedule, expected, audit).await
    }

    async fn schedule(&self, id: &str) -> Result<Option<Schedule>, StoreError> {
        definitions::schedule(&self.redis, id).await
    }

    async fn schemas(&self, ids: &[String]) -> Result<Vec<Option<serde_json::Value>>, StoreError> {
        definitions::schemas(&self.redis, ids).await
    }

    async fn schedules(&self, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        definitions::schedules(&self.redis, limit).await
    }

    async fn delete_schedule(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        definitions::delete_schedule(&self.redis, id, audit).await
    }

    async fn claim_due_schedules(
        &self,
        now: Timestamp,
        again: Timestamp,
        limit: usize,
    ) -> Result<Due<String>, StoreError> {
        let times = (now, again);
        let (ids, next) =
            definitions::claim(&self.redis, "due schedules", keys::WF_SCHEDULES_DUE, times, limit).await?;
        Ok(Due { ids, next })
    }
}
