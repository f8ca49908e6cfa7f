//! The audit log and its outbox in Redis. See `docs/spec/storage.md` §9.

use async_trait::async_trait;
use redis::Cmd;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::Redis;
use super::jobs::typed;
use super::keys;
use super::scripts::Lua;
use crate::audit::{AuditEntry, AuditRecord, AuditStore, Head};
use crate::error::StoreError;

/// The audit log.
#[derive(Debug)]
pub(super) struct Audit {
    redis: Redis,
}

impl Audit {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// The answer to one command that may be long.
    async fn texts<T: redis::FromRedisValue>(&self, op: &'static str, cmd: Cmd) -> Result<Vec<T>, StoreError> {
        let answer = self.redis.fetch(op, vec![cmd]).await?.pop();
        answer.map_or(Ok(Vec::new()), |answer| typed(op, answer))
    }
}

/// Records and entries always have a JSON form.
fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parsed<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(text).map_err(|error| StoreError::Corrupt {
        what: what.to_owned(),
        source: error.into(),
    })
}

/// A record's id and text as arguments; both empty if there is none.
pub(super) fn args(cmd: &mut Cmd, record: Option<&AuditRecord>) {
    match record {
        Some(record) => cmd.arg(&record.id).arg(text(record)),
        None => cmd.arg("").arg(""),
    };
}

fn range(key: &str, from: u64, limit: usize) -> Cmd {
    let mut cmd = redis::cmd("LRANGE");
    let last = from.saturating_add(limit as u64).saturating_sub(1);
    cmd.arg(key).arg(from).arg(last);
    cmd
}

#[async_trait]
impl AuditStore for Audit {
    async fn enqueue(&self, record: &AuditRecord) -> Result<(), StoreError> {
        const OP: &str = "enqueue audit record";
        let mut cmd = Lua::Enqueue.call(keys::AUDIT_OUTBOX);
        args(&mut cmd, Some(record));
        self.redis.send(OP, cmd).await?;
        Ok(())
    }

    async fn pending(&self, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        const OP: &str = "pending audit records";
        if limit == 0 {
            return Ok(Vec::new());
        }
        let ids: Vec<Vec<u8>> = self.texts(OP, range(keys::AUDIT_OUTBOX, 0, limit)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(keys::AUDIT_RECORDS).arg(ids);
        let texts: Vec<Option<Vec<u8>>> = self.texts(OP, cmd).await?;
        texts
            .into_iter()
            .flatten()
            // Appended by somebody else between the two commands.
            .filter(|text| !text.is_empty())
            .map(|text| parsed("an audit record", &text))
            .collect()
    }

    async fn head(&self) -> Result<Head, StoreError> {
        const OP: &str = "head of the audit log";
        let mut cmd = redis::cmd("LINDEX");
        cmd.arg(keys::AUDIT_LOG).arg(-1);
        let last: Option<Vec<u8>> = typed(OP, self.redis.send(OP, cmd).await?)?;
        let Some(last) = last else {
            return Ok(Head::empty());
        };
        let AuditEntry { seq, hash, .. } = parsed("the end of the audit log", &last)?;
        Ok(Head { seq, hash })
    }

    async fn append(&self, after: &Head, entries: &[AuditEntry]) -> Result<bool, StoreError> {
        const OP: &str = "append to the audit log";
        let mut cmd = Lua::Append.call(keys::AUDIT_LOG);
        cmd.arg(after.seq).arg(&after.hash);
        for entry in entries {
            cmd.arg(&entry.record.id).arg(text(entry));
        }
        typed(OP, self.redis.send(OP, cmd).await?)
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        const OP: &str = "read the audit log";
        if limit == 0 {
            return Ok(Vec::new());
        }
        let texts: Vec<Vec<u8>> = self
            .texts(OP, range(keys::AUDIT_LOG, from.saturating_sub(1), limit))
            .await?;
        texts
            .iter()
            .map(|text| parsed("an entry of the audit log", text))
            .collect()
    }
}
