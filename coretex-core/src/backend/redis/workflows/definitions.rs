//! Definitions and schedules. See `docs/spec/storage.md` §10.1, §10.5.

use redis::{Cmd, Value};

use super::super::audit;
use super::super::connection::{Redis, refused};
use super::super::jobs::typed;
use super::super::keys;
use super::super::scripts::Lua;
use super::encode::{millis, score};
use super::legacy::sha1_hex;
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::Workflow;
use crate::workflow::store::{Revision, Schedule, StoredWorkflow, WorkflowWrite};

/// So many at once.
const BATCH: usize = 100;
/// How often a write is tried again that others got in the way of.
const TRIES: usize = 16;

fn parsed<T: serde::de::DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(text).map_err(|error| StoreError::Corrupt {
        what: what.to_owned(),
        source: error.into(),
    })
}

fn command(name: &str, key: &str) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(key);
    cmd
}

/// A definition, and the digest of its document.
struct Found {
    stored: Result<StoredWorkflow, StoreError>,
    digest: String,
    /// As far as it can be read.
    org: String,
}

type Meta = (Option<String>, Option<u64>, Option<String>);

fn found(id: &str, text: Option<Vec<u8>>, meta: Meta) -> Option<Found> {
    let text = text?;
    let digest = sha1_hex(&text);
    let workflow = parsed::<Workflow>(&format!("workflow `{id}`"), &text);
    let org = workflow
        .as_ref()
        .map_or_else(|_| String::new(), |workflow| workflow.org_id.clone());
    let stored = workflow.map(|workflow| match meta {
        (Some(hash), Some(revision), Some(known)) if known == digest => StoredWorkflow {
            workflow,
            hash,
            revision,
        },
        // Another program has written it.
        _ => StoredWorkflow {
            hash: workflow.content_hash(),
            workflow,
            revision: 0,
        },
    });
    Some(Found { stored, digest, org })
}

async fn load(redis: &Redis, op: &'static str, ids: &[&str]) -> Result<Vec<Option<Found>>, StoreError> {
    let cmds = ids.iter().flat_map(|id| {
        let mut meta = command("HMGET", &keys::of(keys::WF_DEF_META, id));
        meta.arg(&["hash", "revision", "digest"]);
        [command("GET", &keys::of(keys::WF_DEF, id)), meta]
    });
    let mut answers = redis.fetch(op, cmds.collect()).await?.into_iter();
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        let mut answer = || answers.next().unwrap_or(Value::Nil);
        let (text, meta) = (typed(op, answer())?, typed(op, answer())?);
        all.push(found(id, text, meta));
    }
    Ok(all)
}

pub(super) async fn get(redis: &Redis, id: &str) -> Result<Option<StoredWorkflow>, StoreError> {
    let found = load(redis, "workflow", &[id]).await?.pop().flatten();
    found.map(|found| found.stored).transpose()
}

fn json<T: serde::Serialize>(op: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| refused(op, error.into()))
}

fn contended(op: &'static str) -> StoreError {
    StoreError::Unavailable {
        backend: super::super::connection::BACKEND,
        op,
        sent: false,
        source: "others keep writing the same definition".into(),
    }
}

pub(super) async fn put(redis: &Redis, write: &WorkflowWrite<'_>) -> Result<bool, StoreError> {
    const OP: &str = "put workflow";
    let StoredWorkflow {
        workflow,
        hash,
        revision,
    } = write.stored;
    let text = json(OP, workflow)?;
    for _ in 0..TRIES {
        let found = load(redis, OP, &[&workflow.id]).await?.pop().flatten();
        // One that cannot be read has no hash that anybody could expect: it can be overwritten by a new one.
        let current = found.as_ref().and_then(|found| found.stored.as_ref().ok());
        if current.map(|current| current.hash.as_str()) != write.expected {
            return Ok(false);
        }
        let (seen, org) = found
            .as_ref()
            .map_or(("", ""), |found| (found.digest.as_str(), found.org.as_str()));
        let mut cmd = Lua::WfSave.call(&keys::of(keys::WF_DEF, &workflow.id));
        cmd.arg(&workflow.id)
            .arg(seen)
            .arg(org)
            .arg(&text)
            .arg(hash)
            .arg(*revision)
            .arg(score(workflow.updated_at))
            .arg(workflow.updated_at.micros())
            .arg(&workflow.org_id);
        audit::args(&mut cmd, write.audit);
        if typed(OP, redis.send(OP, cmd).await?)? {
            return Ok(true);
        }
    }
    Err(contended(OP))
}

pub(super) async fn ensure_revision(redis: &Redis, stored: &StoredWorkflow) -> Result<(), StoreError> {
    const OP: &str = "put revision";
    let workflow = &stored.workflow;
    let mut cmd = Lua::WfRevise.call(&keys::of(keys::WF_REV, &stored.hash));
    cmd.arg(&workflow.id)
        .arg(&stored.hash)
        .arg(workflow.updated_at.micros())
        .arg(json(OP, workflow)?);
    redis.send(OP, cmd).await.map(drop)
}

pub(super) async fn revision(redis: &Redis, hash: &str) -> Result<Option<Workflow>, StoreError> {
    const OP: &str = "revision";
    let answer = redis
        .fetch(OP, vec![command("GET", &keys::of(keys::WF_REV, hash))])
        .await?;
    let text: Option<Vec<u8>> = typed(OP, answer.into_iter().next().unwrap_or(Value::Nil))?;
    text.map(|text| parsed(&format!("revision `{hash}` of a workflow"), &text))
        .transpose()
}

/// The latest members of a sorted set from the `skip`-th on.
async fn latest(
    redis: &Redis,
    op: &'static str,
    key: &str,
    skip: usize,
    limit: usize,
) -> Result<Vec<(String, f64)>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut cmd = command("ZREVRANGE", key);
    cmd.arg(skip).arg(skip.saturating_add(limit) - 1).arg("WITHSCORES");
    let answer = redis.fetch(op, vec![cmd]).await?.pop().unwrap_or(Value::Nil);
    let found: Vec<(Vec<u8>, f64)> = typed(op, answer)?;
    Ok(found
        .into_iter()
        .map(|(member, score)| (String::from_utf8_lossy(&member).into_owned(), score))
        .collect())
}

pub(super) async fn revisions(redis: &Redis, id: &str, limit: usize) -> Result<Vec<Revision>, StoreError> {
    let found = latest(redis, "revisions", &keys::of(keys::WF_REVS, id), 0, limit).await?;
    Ok(found
        .into_iter()
        .map(|(hash, micros)| Revision {
            hash,
            #[expect(clippy::cast_possible_truncation, reason = "microseconds below 2^53")]
            saved_at: Timestamp::from_micros(micros as i64),
        })
        .collect())
}

pub(super) async fn list(redis: &Redis, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, StoreError> {
    const OP: &str = "workflows";
    // The reference has no set of those without organisation.
    let key = org.filter(|org| !org.is_empty()).map_or_else(
        || keys::WF_INDEX_ALL.to_owned(),
        |org| keys::of(keys::WF_INDEX_ORG, org),
    );
    let mut all = Vec::new();
    let mut skip = 0;
    while all.len() < limit {
        let members = latest(redis, OP, &key, skip, BATCH).await?;
        let ids: Vec<&str> = members.iter().map(|(id, _)| id.as_str()).collect();
        let found = load(redis, OP, &ids).await?;
        all.extend(
            found
                .into_iter()
                .flatten()
                .filter_map(|found| found.stored.ok())
                .filter(|stored| org.is_none_or(|org| stored.workflow.org_id == org)),
        );
        if members.len() < BATCH {
            break;
        }
        skip += BATCH;
    }
    all.truncate(limit);
    Ok(all)
}

pub(super) async fn delete(redis: &Redis, id: &str, record: Option<&AuditRecord>) -> Result<bool, StoreError> {
    const OP: &str = "delete workflow";
    for _ in 0..TRIES {
        let Some(found) = load(redis, OP, &[id]).await?.pop().flatten() else {
            return Ok(false);
        };
        let mut cmd = Lua::WfForget.call(&keys::of(keys::WF_DEF, id));
        cmd.arg(id).arg(&found.digest).arg(&found.org);
        audit::args(&mut cmd, record);
        if typed(OP, redis.send(OP, cmd).await?)? {
            return Ok(true);
        }
    }
    Err(contended(OP))
}

fn schedule_key(id: &str) -> String {
    keys::of(keys::WF_SCHEDULE, id)
}

async fn change_schedule(
    redis: &Redis,
    op: &'static str,
    id: &str,
    write: Option<(&Schedule, u64)>,
    record: Option<&AuditRecord>,
) -> Result<bool, StoreError> {
    let mut cmd = Lua::WfSchedule.call(&schedule_key(id));
    cmd.arg(id);
    match write {
        Some((schedule, expected)) => cmd.arg(json(op, schedule)?).arg(expected),
        None => cmd.arg("").arg(0),
    };
    match write.and_then(|(schedule, _)| schedule.due()) {
        Some(due) => cmd.arg(millis(due)),
        None => cmd.arg(""),
    };
    audit::args(&mut cmd, record);
    typed(op, redis.send(op, cmd).await?)
}

pub(super) async fn put_schedule(
    redis: &Redis,
    schedule: &Schedule,
    expected: u64,
    record: Option<&AuditRecord>,
) -> Result<bool, StoreError> {
    change_schedule(redis, "put schedule", &schedule.id, Some((schedule, expected)), record).await
}

pub(super) async fn delete_schedule(redis: &Redis, id: &str, record: Option<&AuditRecord>) -> Result<bool, StoreError> {
    change_schedule(redis, "delete schedule", id, None, record).await
}

/// Schemas as the reference registers them.
pub(super) async fn schemas(redis: &Redis, ids: &[String]) -> Result<Vec<Option<serde_json::Value>>, StoreError> {
    const OP: &str = "schemas";
    let cmds = ids.iter().map(|id| command("GET", &keys::of(keys::SCHEMA, id)));
    let answers = redis.fetch(OP, cmds.collect()).await?;
    ids.iter()
        .zip(answers)
        .map(|(id, answer)| {
            let text: Option<Vec<u8>> = typed(OP, answer)?;
            text.map(|text| parsed(&format!("schema `{id}`"), &text)).transpose()
        })
        .collect()
}

async fn schedules_of(redis: &Redis, ids: &[String]) -> Result<Vec<Option<Schedule>>, StoreError> {
    const OP: &str = "schedules";
    let cmds = ids.iter().map(|id| command("GET", &schedule_key(id)));
    let answers = redis.fetch(OP, cmds.collect()).await?;
    ids.iter()
        .zip(answers)
        .map(|(id, answer)| {
            let text: Option<Vec<u8>> = typed(OP, answer)?;
            text.map(|text| parsed(&format!("schedule `{id}`"), &text)).transpose()
        })
        .collect()
}

pub(super) async fn schedule(redis: &Redis, id: &str) -> Result<Option<Schedule>, StoreError> {
    Ok(schedules_of(redis, &[id.to_owned()]).await?.pop().flatten())
}

pub(super) async fn schedules(redis: &Redis, limit: usize) -> Result<Vec<Schedule>, StoreError> {
    const OP: &str = "schedules";
    if limit == 0 {
        return Ok(Vec::new());
    }
    // All have the same score, so they are in the order of their ids.
    let mut cmd = command("ZRANGE", keys::WF_SCHEDULES);
    cmd.arg(0).arg(limit - 1);
    let answer = redis.fetch(OP, vec![cmd]).await?.pop().unwrap_or(Value::Nil);
    let ids: Vec<String> = typed(OP, answer)?;
    Ok(schedules_of(redis, &ids).await?.into_iter().flatten().collect())
}

/// Takes what is due in a sorted set.
pub(super) async fn claim(
    redis: &Redis,
    op: &'static str,
    key: &str,
    (now, again): (Timestamp, Timestamp),
    limit: usize,
) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
    let mut cmd = Lua::WfClaim.call(key);
    cmd.arg(now.micros().div_euclid(1_000)).arg(millis(again)).arg(limit);
    let (ids, next): (Vec<Vec<u8>>, String) = typed(op, redis.send(op, cmd).await?)?;
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds below 2^53")]
    let next = next
        .parse::<f64>()
        .ok()
        .map(|millis| Timestamp::from_micros((millis as i64).saturating_mul(1_000)));
    let ids = ids.into_iter().map(|id| String::from_utf8_lossy(&id).into_owned());
    Ok((ids.collect(), next))
}
