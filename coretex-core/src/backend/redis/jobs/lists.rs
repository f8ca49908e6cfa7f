//! Lists of jobs, from the sorted sets. See `docs/spec/storage.md` §4.
//!
//! An entry whose job is gone is dropped where it is found.

use std::sync::atomic::{AtomicUsize, Ordering};

use redis::Value;

use super::decode::{self, typed};
use super::{BATCH, Jobs, command};
use crate::backend::redis::keys;
use crate::error::StoreError;
use crate::jobs::{Cursor, JobRecord, JobState, ListQuery, Page, Revision, ScanItem, Source};
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// Entries looked at by one `sweep`, per sorted set.
const SWEEP_PAGE: usize = 1_000;
/// Dead letters kept. Older ones go in the sweep.
const MAX_LETTERS: i64 = 100_000;

pub(super) fn index_key(state: JobState) -> String {
    keys::of(keys::INDEX, state.lower())
}

/// How far the sweep has come in the sets whose old entries may be in use; one for `job:recent`, one per open state.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    offsets: [AtomicUsize; 1 + JobState::ALL.len()],
}

/// A member of a sorted set with its score, in microseconds.
pub(super) struct Entry {
    pub(super) member: String,
    pub(super) at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// A walk through a sorted set, from a cursor on.
pub(super) struct Walk {
    key: String,
    order: Order,
    pub(super) after: Option<Cursor>,
    /// Only from here on.
    pub(super) from: Option<Timestamp>,
    /// Only up to here, inclusive.
    pub(super) until: Option<Timestamp>,
    /// Entries of the cursor's own time that were seen already.
    offset: usize,
    pub(super) ended: bool,
}

impl Walk {
    pub(super) fn new(key: String, order: Order, after: Option<Cursor>) -> Self {
        Self {
            key,
            order,
            after,
            from: None,
            until: None,
            offset: 0,
            ended: false,
        }
    }

    /// The next entries, at most `count`; none at the end. Entries of one time are in the order of their bytes, upwards
    /// or downwards as the walk goes, so a cursor's place among them is known even when it is not there any more.
    pub(super) async fn next(&mut self, op: &'static str, jobs: &Jobs, count: usize) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        while found.is_empty() && !self.ended {
            let cursor = self.after.as_ref().map(|cursor| cursor.at);
            let (from, until) = match self.order {
                Order::OldestFirst => (cursor.max(self.from), self.until),
                Order::NewestFirst => (self.from, cursor.into_iter().chain(self.until).min()),
            };
            let from = from.map_or_else(|| "-inf".to_owned(), |from| from.micros().to_string());
            let until = until.map_or_else(|| "+inf".to_owned(), |until| until.micros().to_string());
            let mut cmd = match self.order {
                Order::OldestFirst => {
                    let mut cmd = command("ZRANGEBYSCORE", &self.key);
                    cmd.arg(from).arg(until);
                    cmd
                }
                Order::NewestFirst => {
                    let mut cmd = command("ZREVRANGEBYSCORE", &self.key);
                    cmd.arg(until).arg(from);
                    cmd
                }
            };
            cmd.arg("WITHSCORES").arg("LIMIT").arg(self.offset).arg(count);
            let entries = entries(op, jobs.one(op, cmd).await?)?;
            self.ended = entries.len() < count;
            let seen = entries.iter().filter(|entry| !self.is_past(entry)).count();
            self.offset += seen;
            found.extend(entries.into_iter().skip(seen));
        }
        if let Some(last) = found.last() {
            self.after = Some(Cursor {
                at: last.at,
                id: last.member.clone(),
            });
            self.offset = 0;
        }
        Ok(found)
    }

    fn is_past(&self, entry: &Entry) -> bool {
        match &self.after {
            Some(cursor) if cursor.at == entry.at && !cursor.id.is_empty() => match self.order {
                Order::OldestFirst => entry.member.as_bytes() > cursor.id.as_bytes(),
                Order::NewestFirst => entry.member.as_bytes() < cursor.id.as_bytes(),
            },
            _ => true,
        }
    }
}

/// Scores are whole microseconds below 2^53, which a double holds exactly.
#[expect(clippy::cast_possible_truncation, reason = "a fraction is no microsecond")]
fn entries(op: &'static str, value: Value) -> Result<Vec<Entry>, StoreError> {
    let pairs: Vec<(Vec<u8>, f64)> = typed(op, value)?;
    Ok(pairs
        .into_iter()
        .map(|(member, score)| Entry {
            member: String::from_utf8_lossy(&member).into_owned(),
            at: Timestamp::from_micros(score as i64),
        })
        .collect())
}

impl Jobs {
    pub(super) async fn page(&self, query: &ListQuery) -> Result<Page, StoreError> {
        const OP: &str = "list";
        let (key, order, wanted) = match query.source {
            Source::Recent => (keys::RECENT.to_owned(), Order::NewestFirst, None),
            Source::State(state) => (index_key(state), Order::NewestFirst, Some(state)),
            Source::StateOldestFirst(state) => (index_key(state), Order::OldestFirst, Some(state)),
        };
        if query.limit == 0 {
            return Ok(Page::default());
        }
        let mut walk = Walk::new(key, order, query.after.clone());
        let mut found: Vec<(Cursor, JobRecord)> = Vec::new();
        // One more than asked for, to know whether there is one.
        while found.len() <= query.limit {
            let count = query.limit + 1 - found.len();
            let entries = walk.next(OP, self, count.min(BATCH)).await?;
            if entries.is_empty() {
                break;
            }
            let records = self.existing(OP, &walk.key, entries).await?;
            let fits = |record: &JobRecord| wanted.is_none_or(|wanted| record.state == wanted);
            found.extend(records.into_iter().filter(|(_, record)| fits(record)));
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        Ok(Page {
            next: found.last().filter(|_| more).map(|(cursor, _)| cursor.clone()),
            jobs: found.into_iter().map(|(_, record)| record).collect(),
        })
    }

    /// The jobs of these entries that are there. The others are dropped from the set.
    async fn existing(
        &self,
        op: &'static str,
        key: &str,
        entries: Vec<Entry>,
    ) -> Result<Vec<(Cursor, JobRecord)>, StoreError> {
        let mut ids = Vec::with_capacity(entries.len());
        let mut cursors = Vec::with_capacity(entries.len());
        let mut gone = Vec::new();
        for Entry { member, at } in entries {
            match decode::job_id(&member) {
                Some(id) => {
                    ids.push(id);
                    cursors.push(Cursor { at, id: member });
                }
                None => gone.push(member),
            }
        }
        let mut found = Vec::with_capacity(ids.len());
        for (cursor, record) in cursors.into_iter().zip(self.records(op, &ids).await?) {
            match record {
                Some(record) => found.push((cursor, record)),
                None => gone.push(cursor.id),
            }
        }
        self.drop_members(op, key, &borrowed(&gone)).await?;
        Ok(found)
    }

    async fn drop_members(&self, op: &'static str, key: &str, members: &[&str]) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for members in members.chunks(BATCH) {
            let mut cmd = command("ZREM", key);
            cmd.arg(members);
            dropped += typed::<u64>(op, self.redis.send(op, cmd).await?)?;
        }
        Ok(dropped)
    }

    pub(super) async fn scan_index(
        &self,
        state: JobState,
        until: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<ScanItem>, StoreError> {
        const OP: &str = "scan";
        let mut walk = Walk {
            until: Some(until),
            ..Walk::new(index_key(state), Order::OldestFirst, after.cloned())
        };
        let mut items = Vec::new();
        while items.len() < limit {
            let entries = walk.next(OP, self, (limit - items.len()).min(BATCH)).await?;
            if entries.is_empty() {
                break;
            }
            let mut cmds = Vec::with_capacity(entries.len());
            for entry in &entries {
                let mut cmd = command("HMGET", &keys::of(keys::META, &entry.member));
                cmd.arg(&["state", "updated_at", "cx_owner", "cx_worker_id", "cx_accepted_at"]);
                cmds.push(cmd);
            }
            let mut gone = Vec::new();
            for (entry, answer) in entries.iter().zip(self.redis.fetch(OP, cmds).await?) {
                type Row = (
                    Option<String>,
                    Option<String>,
                    Option<String>,
                    Option<String>,
                    Option<String>,
                );
                let (its_state, updated_at, owner, worker, accepted): Row = typed(OP, answer)?;
                let (Some(id), Some(revision)) = (
                    decode::job_id(&entry.member),
                    updated_at.and_then(|text| text.parse().ok()),
                ) else {
                    gone.push(entry.member.as_str());
                    continue;
                };
                // The hash of old data may lack the state; then the index says it.
                if its_state.is_none_or(|text| text.is_empty() || text == state.as_str()) {
                    items.push(ScanItem {
                        id,
                        revision: Revision(Timestamp::from_micros(revision)),
                        owner: owner.and_then(|text| text.parse().ok()),
                        worker_id: worker.and_then(|text| text.parse().ok()),
                        accepted: accepted.is_some_and(|text| !text.is_empty()),
                    });
                }
            }
            self.drop_members(OP, &walk.key, &gone).await?;
        }
        Ok(items)
    }

    pub(super) async fn past_deadline(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.past("due", keys::DEADLINE, now.secs(), limit, |state| !state.is_terminal())
            .await
    }

    pub(super) async fn past_approval(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.past("approvals due", keys::APPROVALS_DUE, now.micros(), limit, |state| {
            state == JobState::ApprovalRequired
        })
        .await
    }

    /// The members of a sorted set of times up to `until` whose jobs are in a fitting state. The others are dropped.
    async fn past(
        &self,
        op: &'static str,
        key: &str,
        until: i64,
        limit: usize,
        fits: impl Fn(JobState) -> bool + Send,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut due = Vec::new();
        let mut offset = 0;
        while due.len() < limit {
            let count = (limit - due.len()).min(BATCH);
            let mut cmd = command("ZRANGEBYSCORE", key);
            cmd.arg("-inf").arg(until).arg("LIMIT").arg(offset).arg(count);
            let members: Vec<Vec<u8>> = typed(op, self.redis.send(op, cmd).await?)?;
            let members: Vec<String> = members
                .iter()
                .map(|member| String::from_utf8_lossy(member).into_owned())
                .collect();
            let mut gone = Vec::new();
            for (member, state) in members.iter().zip(self.states(op, &members).await?) {
                match decode::job_id(member) {
                    Some(id) if state.is_some_and(&fits) => due.push(id),
                    _ => gone.push(member.as_str()),
                }
            }
            self.drop_members(op, key, &gone).await?;
            offset += members.len() - gone.len();
            if members.len() < count {
                break;
            }
        }
        Ok(due)
    }

    /// The states of jobs, `None` for those that are gone.
    async fn states(&self, op: &'static str, ids: &[String]) -> Result<Vec<Option<JobState>>, StoreError> {
        let mut states = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH) {
            let cmds = ids
                .iter()
                .flat_map(|id| {
                    let mut cmd = command("HGET", &keys::of(keys::META, id));
                    cmd.arg("state");
                    [cmd, command("GET", &keys::of(keys::STATE, id))]
                })
                .collect();
            let answers = self.redis.send_all(op, cmds).await?;
            let mut answers = answers.into_iter();
            while let (Some(hash), Some(beside)) = (answers.next(), answers.next()) {
                let text = typed::<Option<String>>(op, hash?)?
                    .filter(|text| !text.is_empty())
                    .or(typed::<Option<String>>(op, beside?)?);
                states.push(text.and_then(|text| text.parse().ok()));
            }
        }
        Ok(states)
    }

    pub(super) async fn members_of(&self, trace: &TraceId, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
        const OP: &str = "trace";
        let members = self
            .one(OP, command("SMEMBERS", &keys::of(keys::TRACE, trace.as_str())))
            .await?;
        let members: Vec<Vec<u8>> = typed(OP, members)?;
        let ids: Vec<JobId> = members
            .iter()
            .filter_map(|member| decode::job_id(&String::from_utf8_lossy(member)))
            .collect();
        let mut timed = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH) {
            let cmds = ids
                .iter()
                .map(|id| {
                    let mut cmd = command("HGET", &keys::of(keys::META, id.as_str()));
                    cmd.arg("updated_at");
                    cmd
                })
                .collect();
            for (id, answer) in ids.iter().zip(self.redis.fetch(OP, cmds).await?) {
                let at: Option<String> = typed(OP, answer)?;
                if let Some(at) = at.and_then(|text| text.parse::<i64>().ok()) {
                    timed.push((at, id.clone()));
                }
            }
        }
        timed.sort();
        timed.truncate(limit);
        let ids: Vec<JobId> = timed.into_iter().map(|(_, id)| id).collect();
        Ok(self.records(OP, &ids).await?.into_iter().flatten().collect())
    }

    /// Drops what is older than `cutoff`: from the sets of ended jobs whatever it is, from the others what is gone or
    /// has ended.
    pub(super) async fn sweep_indices(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        const OP: &str = "sweep";
        let mut swept = 0;
        for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
            let key = index_key(state);
            let old = self.old_members(&key, cutoff, 0).await?;
            swept += self.drop_members(OP, &key, &borrowed(&old)).await?;
        }
        let open = JobState::ALL
            .into_iter()
            .filter(|state| !state.is_terminal())
            .map(index_key);
        for (key, offset) in std::iter::once(keys::RECENT.to_owned())
            .chain(open)
            .zip(&self.sweeper.offsets)
        {
            let from = offset.load(Ordering::Relaxed);
            let old = self.old_members(&key, cutoff, from).await?;
            let states = self.states(OP, &old).await?;
            let gone: Vec<&str> = old
                .iter()
                .zip(states)
                .filter(|(_, state)| state.is_none_or(JobState::is_terminal))
                .map(|(member, _)| member.as_str())
                .collect();
            swept += self.drop_members(OP, &key, &gone).await?;
            // What is in use stays at the front: the next sweep goes on behind it, and in the end begins again.
            let next = if old.len() < SWEEP_PAGE {
                0
            } else {
                from + old.len() - gone.len()
            };
            offset.store(next, Ordering::Relaxed);
        }
        let old = self.old_members(keys::DECISION_LOG, cutoff, 0).await?;
        swept += self.drop_members(OP, keys::DECISION_LOG, &borrowed(&old)).await?;
        Ok(swept + self.sweep_letters().await?)
    }

    async fn old_members(&self, key: &str, cutoff: Timestamp, offset: usize) -> Result<Vec<String>, StoreError> {
        const OP: &str = "sweep";
        let mut cmd = command("ZRANGEBYSCORE", key);
        cmd.arg("-inf")
            .arg(format!("({}", cutoff.micros()))
            .arg("LIMIT")
            .arg(offset)
            .arg(SWEEP_PAGE);
        let members: Vec<Vec<u8>> = typed(OP, self.one(OP, cmd).await?)?;
        Ok(members
            .iter()
            .map(|member| String::from_utf8_lossy(member).into_owned())
            .collect())
    }

    pub(super) async fn sweep_letters(&self) -> Result<u64, StoreError> {
        const OP: &str = "sweep";
        let mut cmd = command("ZRANGE", keys::LETTERS);
        cmd.arg(0).arg(-MAX_LETTERS - 1);
        let surplus: Vec<Vec<u8>> = typed(OP, self.one(OP, cmd).await?)?;
        let surplus: Vec<String> = surplus
            .iter()
            .take(SWEEP_PAGE)
            .map(|member| String::from_utf8_lossy(member).into_owned())
            .collect();
        if surplus.is_empty() {
            return Ok(0);
        }
        let mut cmd = redis::cmd("DEL");
        for id in &surplus {
            cmd.arg(keys::of(keys::LETTER, id));
        }
        self.redis.send(OP, cmd).await?;
        self.drop_members(OP, keys::LETTERS, &borrowed(&surplus)).await
    }
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
