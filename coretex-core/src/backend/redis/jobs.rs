//! Jobs in Redis. See `docs/spec/storage.md` §2–4.

mod decode;
mod encode;
mod lists;
mod log;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

pub(super) use self::decode::typed;
use self::encode::Lifetimes;
use self::lists::Sweeper;
use super::connection::Redis;
use super::keys;
use crate::error::StoreError;
use crate::jobs::{
    Admission, Change, Cursor, DecisionPage, DecisionQuery, DecisionRecord, JobRecord, JobState, JobStore, ListQuery,
    NewJob, Note, Outcome, Page, ScanItem,
};
use crate::protocol::agent::JobRequest;
use crate::protocol::json::from_json_lenient;
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// So many commands are sent at once, so that neither side has to buffer without bound.
const BATCH: usize = 512;

/// The jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    redis: Redis,
    lifetimes: Lifetimes,
    meta_ttl: Duration,
    sweeper: Sweeper,
}

impl Jobs {
    pub(super) fn new(redis: Redis, meta_ttl: Duration, data_ttl: Duration) -> Self {
        Self {
            redis,
            lifetimes: Lifetimes::new(meta_ttl, data_ttl),
            meta_ttl,
            sweeper: Sweeper::default(),
        }
    }

    async fn apply_batch(&self, changes: &[Change]) -> Vec<Result<Outcome, StoreError>> {
        let cmds = changes
            .iter()
            .map(|change| encode::apply(change, self.lifetimes))
            .collect();
        match self.redis.send_all("apply", cmds).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.and_then(decode::outcome))
                .collect(),
            Err(error) => changes.iter().map(|_| Err(repeated(&error))).collect(),
        }
    }

    /// The hashes of jobs, and for those that have no state in it, what is beside it.
    async fn hashes(
        &self,
        op: &'static str,
        ids: &[JobId],
    ) -> Result<Vec<(HashMap<String, Vec<u8>>, Option<String>)>, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH) {
            let cmds = ids
                .iter()
                .map(|id| command("HGETALL", &keys::of(keys::META, id.as_str())))
                .collect();
            for answer in self.redis.send_all(op, cmds).await? {
                all.push((typed::<HashMap<String, Vec<u8>>>(op, answer?)?, None));
            }
        }
        let stateless: Vec<usize> = (0..all.len())
            .filter(|&i| all[i].0.get("state").is_none_or(Vec::is_empty))
            .collect();
        for stateless in stateless.chunks(BATCH) {
            // The copy first, the hash again after it: a job that is created just now is seen whole, not as a bare state.
            let cmds = stateless
                .iter()
                .flat_map(|&i| {
                    [(keys::STATE, "GET"), (keys::META, "HGETALL")]
                        .map(|(family, name)| command(name, &keys::of(family, ids[i].as_str())))
                })
                .collect();
            let mut answers = self.redis.send_all(op, cmds).await?.into_iter();
            for &i in stateless {
                let (Some(beside), Some(hash)) = (answers.next(), answers.next()) else {
                    break;
                };
                all[i] = (typed(op, hash?)?, typed(op, beside?)?);
            }
        }
        Ok(all)
    }

    async fn records(&self, op: &'static str, ids: &[JobId]) -> Result<Vec<Option<JobRecord>>, StoreError> {
        self.hashes(op, ids)
            .await?
            .into_iter()
            .zip(ids)
            .map(|((hash, beside), id)| decode::record(id, hash, beside.as_deref()))
            .collect()
    }
}

/// The same error for another change of the same batch.
fn repeated(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable {
            backend,
            op,
            sent,
            source,
        } => StoreError::Unavailable {
            backend,
            op,
            sent: *sent,
            source: source.to_string().into(),
        },
        other => super::connection::refused("apply", crate::error::chain(other).into()),
    }
}

fn command(name: &str, key: &str) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(key);
    cmd
}

#[async_trait]
impl JobStore for Jobs {
    async fn create(&self, job: NewJob) -> Result<Admission, StoreError> {
        let answer = self.redis.send("create", encode::create(&job, self.lifetimes)).await?;
        decode::admission(answer)
    }

    async fn apply_many(&self, changes: &[Change]) -> Vec<Result<Outcome, StoreError>> {
        let mut results = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            results.extend(self.apply_batch(batch).await);
        }
        results
    }

    async fn note_many(&self, notes: &[Note]) -> Result<(), StoreError> {
        for notes in notes.chunks(BATCH) {
            let cmds = notes.iter().map(encode::note).collect();
            for answer in self.redis.send_all("note", cmds).await? {
                answer?;
            }
        }
        Ok(())
    }

    async fn get_many(&self, ids: &[JobId]) -> Result<Vec<Option<JobRecord>>, StoreError> {
        self.records("get", ids).await
    }

    async fn requests(&self, ids: &[JobId]) -> Result<Vec<Option<JobRequest>>, StoreError> {
        const OP: &str = "requests";
        let mut requests = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH) {
            let cmds = ids
                .iter()
                .map(|id| command("GET", &keys::of(keys::REQUEST, id.as_str())))
                .collect();
            for (id, answer) in ids.iter().zip(self.redis.send_all(OP, cmds).await?) {
                let text: Option<Vec<u8>> = typed(OP, answer?)?;
                let request =
                    text.map(from_json_lenient::<JobRequest>)
                        .transpose()
                        .map_err(|error| StoreError::Corrupt {
                            what: format!("the request of job `{id}`"),
                            source: error.into(),
                        })?;
                requests.push(request);
            }
        }
        Ok(requests)
    }

    async fn decisions(&self, id: &JobId, limit: usize) -> Result<Vec<DecisionRecord>, StoreError> {
        const OP: &str = "decisions";
        if limit == 0 {
            return Ok(Vec::new());
        }
        // All of them: how many of the last ones are blank is not known, and there are few.
        let mut cmd = command("LRANGE", &keys::of(keys::DECISIONS, id.as_str()));
        cmd.arg(0).arg(-1);
        let entries: Vec<Vec<u8>> = typed(OP, self.one(OP, cmd).await?)?;
        Ok(entries
            .iter()
            .rev()
            .filter_map(|entry| decode::decision_entry(&String::from_utf8_lossy(entry)))
            .take(limit)
            .collect())
    }

    async fn decision_log(&self, query: &DecisionQuery) -> Result<DecisionPage, StoreError> {
        self.logged_decisions(query).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<(Timestamp, JobState)>, StoreError> {
        const OP: &str = "events";
        let mut cmd = command("LRANGE", &keys::of(keys::EVENTS, id.as_str()));
        cmd.arg(0).arg(-1);
        let entries: Vec<Vec<u8>> = typed(OP, self.one(OP, cmd).await?)?;
        Ok(entries
            .iter()
            .filter_map(|entry| decode::event_entry(&String::from_utf8_lossy(entry)))
            .collect())
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.page(query).await
    }

    async fn trace(&self, trace: &TraceId, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
        self.members_of(trace, limit).await
    }

    async fn scan(
        &self,
        state: JobState,
        until: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<ScanItem>, StoreError> {
        self.scan_index(state, until, after, limit).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.past_deadline(now, limit).await
    }

    async fn approvals_due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.past_approval(now, limit).await
    }

    async fn counts(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        const OP: &str = "counts";
        let cmds = JobState::ALL
            .iter()
            .map(|state| command("ZCARD", &lists::index_key(*state)))
            .collect();
        let answers = self.redis.send_all(OP, cmds).await?;
        JobState::ALL
            .into_iter()
            .zip(answers)
            .map(|(state, answer)| Ok((state, typed(OP, answer?)?)))
            .collect()
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        // Jobs that are kept for ever keep their entries.
        if self.meta_ttl.is_zero() {
            return self.sweep_letters().await;
        }
        self.sweep_indices(now.minus(self.meta_ttl)).await
    }
}

impl Jobs {
    /// One command with an answer that may be long.
    async fn one(&self, op: &'static str, cmd: Cmd) -> Result<Value, StoreError> {
        self.redis
            .fetch(op, vec![cmd])
            .await?
            .pop()
            .ok_or_else(|| super::connection::no_answer(op))
    }
}
