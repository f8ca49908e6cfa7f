//! Dead letters in Redis. See `docs/spec/storage.md` §5.

use async_trait::async_trait;
use redis::Cmd;

use super::connection::{Redis, refused};
use super::jobs::typed;
use super::keys;
use crate::dlq::{DeadLetter, DlqStore};
use crate::error::StoreError;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// The dead letters.
#[derive(Debug)]
pub(super) struct Letters {
    redis: Redis,
}

impl Letters {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Both commands as one transaction.
    async fn both(&self, op: &'static str, entry: Cmd, index: Cmd) -> Result<(), StoreError> {
        let cmds = vec![redis::cmd("MULTI"), entry, index, redis::cmd("EXEC")];
        for answer in self.redis.send_all(op, cmds).await? {
            answer?;
        }
        Ok(())
    }
}

#[async_trait]
impl DlqStore for Letters {
    async fn put(&self, letter: &DeadLetter, at: Timestamp) -> Result<(), StoreError> {
        const OP: &str = "put dead letter";
        let text = serde_json::to_string(letter).map_err(|error| refused(OP, error.into()))?;
        let mut entry = redis::cmd("SET");
        entry.arg(keys::of(keys::LETTER, &letter.job_id)).arg(text);
        let mut index = redis::cmd("ZADD");
        index.arg(keys::LETTERS).arg(at.secs()).arg(&letter.job_id);
        self.both(OP, entry, index).await
    }

    async fn get(&self, job: &JobId) -> Result<Option<DeadLetter>, StoreError> {
        const OP: &str = "get dead letter";
        let mut cmd = redis::cmd("GET");
        cmd.arg(keys::of(keys::LETTER, job.as_str()));
        let text: Option<Vec<u8>> = typed(OP, self.redis.send(OP, cmd).await?)?;
        text.map(|text| serde_json::from_slice(&text))
            .transpose()
            .map_err(|error| StoreError::Corrupt {
                what: format!("the dead letter of job `{job}`"),
                source: error.into(),
            })
    }

    async fn list(&self, before: Option<Timestamp>, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        const OP: &str = "list dead letters";
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("ZREVRANGEBYSCORE");
        cmd.arg(keys::LETTERS);
        match before {
            Some(before) => cmd.arg(before.secs()),
            None => cmd.arg("+inf"),
        };
        cmd.arg("-inf").arg("LIMIT").arg(0).arg(limit);
        let mut ids = self.redis.fetch(OP, vec![cmd]).await?;
        let ids: Vec<String> = ids.pop().map_or(Ok(Vec::new()), |ids| typed(OP, ids))?;
        let mut letters = Vec::with_capacity(ids.len());
        for ids in ids.chunks(512) {
            let mut cmd = redis::cmd("MGET");
            for id in ids {
                cmd.arg(keys::of(keys::LETTER, id));
            }
            let texts = self.redis.fetch(OP, vec![cmd]).await?;
            for text in texts {
                let texts: Vec<Option<Vec<u8>>> = typed(OP, text)?;
                // Missing or unreadable ones are left out, as ever.
                letters.extend(
                    texts
                        .into_iter()
                        .flatten()
                        .filter_map(|text| serde_json::from_slice::<DeadLetter>(&text).ok()),
                );
            }
        }
        Ok(letters)
    }

    async fn delete(&self, job: &JobId) -> Result<(), StoreError> {
        let mut entry = redis::cmd("DEL");
        entry.arg(keys::of(keys::LETTER, job.as_str()));
        let mut index = redis::cmd("ZREM");
        index.arg(keys::LETTERS).arg(job.as_str());
        self.both("delete dead letter", entry, index).await
    }
}
