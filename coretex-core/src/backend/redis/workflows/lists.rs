//! Lists of runs and of steps that wait. See `docs/spec/storage.md` §10.3.

use redis::{Cmd, Value};

use super::super::connection::Redis;
use super::super::jobs::typed;
use super::super::keys;
use super::encode::score;
use super::{legacy, load};
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::store::{RunPage, RunQuery, Waiting};
use crate::workflow::{RunId, RunStatus, StepKey};

/// So many entries at once.
const BATCH: usize = 200;
/// So many entries are looked at for one page, so that a filter nothing fits ends.
const EXAMINED: usize = 20_000;
/// Stands between a run and a step.
const SEPARATOR: char = '\u{1f}';

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Oldest,
    Newest,
}

/// A walk along a sorted set, by score and then by the bytes of the members.
struct Walk {
    key: String,
    order: Order,
    /// How many units of the score are a microsecond's million: seconds or microseconds.
    seconds: bool,
    min: String,
    max: String,
    after: Option<(Timestamp, String)>,
    ended: bool,
}

impl Walk {
    fn micros(&self, score: f64) -> Timestamp {
        let micros = if self.seconds { score * 1e6 } else { score };
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Timestamp::from_micros(micros.round() as i64)
    }

    fn score(&self, at: Timestamp) -> String {
        if self.seconds {
            score(at)
        } else {
            at.micros().to_string()
        }
    }

    fn is_past(&self, at: Timestamp, member: &str) -> bool {
        self.after.as_ref().is_none_or(|(last, last_member)| {
            let order = (at, member.as_bytes()).cmp(&(*last, last_member.as_bytes()));
            match self.order {
                Order::Oldest => order.is_gt(),
                Order::Newest => order.is_lt(),
            }
        })
    }

    /// The next entries, at least one until the end.
    async fn next(&mut self, redis: &Redis, op: &'static str) -> Result<Vec<(Timestamp, String)>, StoreError> {
        let mut count = BATCH;
        while !self.ended {
            let from = self.after.as_ref().map(|(at, _)| self.score(*at));
            let (name, first, last) = match self.order {
                Order::Oldest => ("ZRANGEBYSCORE", from.as_ref().unwrap_or(&self.min), &self.max),
                Order::Newest => ("ZREVRANGEBYSCORE", from.as_ref().unwrap_or(&self.max), &self.min),
            };
            let mut cmd = redis::cmd(name);
            cmd.arg(&self.key).arg(first).arg(last).arg("WITHSCORES");
            cmd.arg("LIMIT").arg(0).arg(count);
            let entries: Vec<(Vec<u8>, f64)> = one(redis, op, cmd).await?;
            self.ended = entries.len() < count;
            let found: Vec<(Timestamp, String)> = entries
                .into_iter()
                .map(|(member, score)| (self.micros(score), String::from_utf8_lossy(&member).into_owned()))
                .filter(|(at, member)| self.is_past(*at, member))
                .collect();
            if let Some(last) = found.last() {
                self.after = Some(last.clone());
                return Ok(found);
            }
            // All of the same score, and seen: there are more of them than fit.
            count = count.saturating_mul(2);
        }
        Ok(Vec::new())
    }
}

async fn one<T: redis::FromRedisValue + Default>(redis: &Redis, op: &'static str, cmd: Cmd) -> Result<T, StoreError> {
    let answer: Option<Value> = redis.fetch(op, vec![cmd]).await?.pop();
    answer.map_or_else(|| Ok(T::default()), |answer| typed(op, answer))
}

/// What a list says of a run without reading all of it.
struct Listed {
    workflow: String,
    org: String,
    team: String,
    status: RunStatus,
}

impl Listed {
    fn fits(&self, query: &RunQuery) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&query.workflow_id, &self.workflow)
            && is(&query.org_id, &self.org)
            && is(&query.team_id, &self.team)
            && query.status.is_none_or(|status| status == self.status)
    }
}

async fn listed(redis: &Redis, op: &'static str, ids: &[RunId]) -> Result<Vec<Option<Listed>>, StoreError> {
    type Fields = (Option<String>, Option<String>, Option<String>, Option<String>);
    let cmds = ids.iter().map(|id| {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(keys::of(keys::WF_RUN, id.as_str()))
            .arg(&["status", "workflow", "org", "team"]);
        cmd
    });
    let mut found = Vec::with_capacity(ids.len());
    let mut others = Vec::new();
    for (i, answer) in redis.fetch(op, cmds.collect()).await?.into_iter().enumerate() {
        let (status, workflow, org, team): Fields = typed(op, answer)?;
        let status = status.and_then(|text| RunStatus::ALL.into_iter().find(|status| status.as_str() == text));
        if status.is_none() {
            others.push((i, &ids[i]));
        }
        found.push(status.map(|status| Listed {
            workflow: workflow.unwrap_or_default(),
            org: org.unwrap_or_default(),
            team: team.unwrap_or_default(),
            status,
        }));
    }
    let names: Vec<&RunId> = others.iter().map(|(_, id)| *id).collect();
    let documents = load::documents(redis, op, &names).await?;
    for ((i, id), text) in others.into_iter().zip(documents) {
        let head = text.and_then(|text| legacy::run(id, &text).ok()).map(|run| run.head);
        found[i] = head.map(|head| Listed {
            workflow: head.workflow_id,
            org: head.org_id,
            team: head.team_id,
            status: head.status,
        });
    }
    Ok(found)
}

/// The set that holds everything a query may find; the smallest that is known.
async fn source(redis: &Redis, op: &'static str, query: &RunQuery) -> Result<String, StoreError> {
    if let Some(workflow) = &query.workflow_id {
        return Ok(keys::of(keys::WF_RUNS, workflow));
    }
    if let Some(status) = query.status {
        return Ok(keys::of(keys::WF_STATUS, status.as_str()));
    }
    if let Some(org) = &query.org_id {
        // The reference has no such set: it holds all runs once all were looked at.
        let mut cmd = redis::cmd("GET");
        cmd.arg(keys::WF_ADOPTED);
        let adopted: Option<String> = one(redis, op, cmd).await?;
        if adopted.as_deref() == Some(super::adopt::COMPLETE) {
            return Ok(keys::of(keys::WF_OF_ORG, org));
        }
    }
    Ok(keys::WF_ALL.to_owned())
}

pub(super) async fn runs(redis: &Redis, query: &RunQuery) -> Result<RunPage, StoreError> {
    const OP: &str = "runs";
    let mut page = RunPage::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let bound = |at: Option<Timestamp>, open: &str| at.map_or_else(|| open.to_owned(), score);
    let mut walk = Walk {
        key: source(redis, OP, query).await?,
        order: Order::Newest,
        seconds: true,
        min: bound(query.updated_after, "-inf"),
        max: bound(query.updated_before, "+inf"),
        after: query.after.clone().map(|(at, id)| (at, id.as_str().to_owned())),
        ended: false,
    };
    if let (Some((at, _)), Some(before)) = (&walk.after, query.updated_before)
        && before < *at
    {
        walk.after = None;
    }
    let mut last = query.after.clone();
    let mut examined = 0;
    loop {
        let entries = walk.next(redis, OP).await?;
        if entries.is_empty() {
            return Ok(page);
        }
        examined += entries.len();
        let entries: Vec<(Timestamp, RunId)> = entries.into_iter().map(|(at, id)| (at, RunId::new(&id))).collect();
        let ids: Vec<RunId> = entries.iter().map(|(_, id)| id.clone()).collect();
        let fitting: Vec<bool> = listed(redis, OP, &ids)
            .await?
            .iter()
            .map(|found| found.as_ref().is_some_and(|found| found.fits(query)))
            .collect();
        // Only as many as fit on the page are read whole, and one more.
        let mut entries = entries.into_iter().zip(fitting).peekable();
        while entries.peek().is_some() {
            let mut wanted = Vec::new();
            let mut passed = Vec::new();
            for (entry, fits) in entries.by_ref() {
                if fits {
                    wanted.push(entry.1.clone());
                }
                passed.push((entry, fits));
                if wanted.len() > query.limit - page.runs.len() {
                    break;
                }
            }
            let mut loaded = load::runs(redis, OP, &wanted).await?.into_iter();
            for (entry, fits) in passed {
                if fits && let Some(Ok(Some(run))) = loaded.next() {
                    if page.runs.len() == query.limit {
                        page.next = last;
                        return Ok(page);
                    }
                    page.runs.push(run);
                }
                last = Some(entry);
            }
        }
        if examined >= EXAMINED {
            page.next = last;
            return Ok(page);
        }
    }
}

pub(super) async fn waiting(redis: &Redis, after: Option<&Waiting>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut walk = Walk {
        key: keys::WF_WAITING.to_owned(),
        order: Order::Oldest,
        seconds: false,
        min: "-inf".to_owned(),
        max: "+inf".to_owned(),
        after: after.map(|after| (after.since, format!("{}{SEPARATOR}{}", after.run, after.step))),
        ended: false,
    };
    let mut found = Vec::new();
    while found.len() < limit {
        let entries = walk.next(redis, "waiting steps").await?;
        if entries.is_empty() {
            break;
        }
        found.extend(entries.iter().filter_map(|(since, member)| {
            let (run, step) = member.rsplit_once(SEPARATOR)?;
            Some(Waiting {
                since: *since,
                run: RunId::new(run),
                step: StepKey::new(step),
            })
        }));
    }
    found.truncate(limit);
    Ok(found)
}

/// Runs in lists of those that ended before `until`, the oldest first.
pub(super) async fn ended_before(redis: &Redis, until: Timestamp, limit: usize) -> Result<Vec<RunId>, StoreError> {
    const OP: &str = "expire runs";
    let cmds = RunStatus::ALL
        .into_iter()
        .filter(|status| status.is_terminal())
        .map(|status| {
            let mut cmd = redis::cmd("ZRANGEBYSCORE");
            cmd.arg(keys::of(keys::WF_STATUS, status.as_str()))
                .arg("-inf")
                .arg(format!("({}", score(until)))
                .arg("WITHSCORES")
                .arg("LIMIT")
                .arg(0)
                .arg(limit);
            cmd
        });
    let mut found = Vec::new();
    for answer in redis.fetch(OP, cmds.collect()).await? {
        let entries: Vec<(Vec<u8>, f64)> = typed(OP, answer)?;
        found.extend(
            entries
                .into_iter()
                .map(|(member, score)| (score, String::from_utf8_lossy(&member).into_owned())),
        );
    }
    found.sort_by(|one, other| one.0.total_cmp(&other.0).then_with(|| one.1.cmp(&other.1)));
    found.truncate(limit);
    Ok(found.iter().map(|(_, id)| RunId::new(id)).collect())
}

/// Takes runs that are gone out of the lists of those that ended.
pub(super) async fn forget(redis: &Redis, op: &'static str, ids: &[&RunId]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let cmds = RunStatus::ALL
        .into_iter()
        .filter(|status| status.is_terminal())
        .map(|status| {
            let mut cmd = redis::cmd("ZREM");
            cmd.arg(keys::of(keys::WF_STATUS, status.as_str())).arg(&ids);
            cmd
        });
    redis.fetch(op, cmds.collect()).await.map(drop)
}
