//! Payloads in Redis. See `docs/spec/protocol.md` §7.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Value};

use super::connection::{Redis, no_answer};
use crate::error::StoreError;
use crate::pointers::{Pointer, PointerStore, Stored};

/// The payloads.
#[derive(Debug)]
pub(super) struct Payloads {
    redis: Redis,
    ttl: Duration,
}

impl Payloads {
    pub(super) fn new(redis: Redis, ttl: Duration) -> Self {
        Self { redis, ttl }
    }
}

fn command(name: &str, key: &str) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(key);
    cmd
}

fn typed<T: FromRedisValue>(op: &'static str, value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|_| no_answer(op))
}

/// Adds a time to live as the reference does: whole seconds where they are, else milliseconds. None at all if zero.
pub(super) fn expire(cmd: &mut Cmd, ttl: Duration) {
    if ttl.is_zero() {
        return;
    }
    if ttl.subsec_nanos() == 0 {
        cmd.arg("EX").arg(ttl.as_secs());
    } else {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        cmd.arg("PX").arg(millis.max(1));
    }
}

#[async_trait]
impl PointerStore for Payloads {
    async fn put(&self, pointer: &Pointer, payload: Bytes, ttl: Option<Duration>) -> Result<(), StoreError> {
        let mut cmd = command("SET", pointer.key());
        cmd.arg(payload.as_ref());
        expire(&mut cmd, ttl.unwrap_or(self.ttl));
        self.redis.send("put payload", cmd).await?;
        Ok(())
    }

    async fn get(&self, pointer: &Pointer) -> Result<Option<Bytes>, StoreError> {
        const OP: &str = "get payload";
        let answer = self.redis.send(OP, command("GET", pointer.key())).await?;
        Ok(typed::<Option<Vec<u8>>>(OP, answer)?.map(Bytes::from))
    }

    async fn get_many(&self, pointers: &[Pointer]) -> Vec<Result<Option<Bytes>, StoreError>> {
        const OP: &str = "get payloads";
        let cmds = pointers.iter().map(|pointer| command("GET", pointer.key())).collect();
        match self.redis.send_all(OP, cmds).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| Ok(typed::<Option<Vec<u8>>>(OP, answer?)?.map(Bytes::from)))
                .collect(),
            Err(_) => pointers.iter().map(|_| Err(no_answer(OP))).collect(),
        }
    }

    async fn inspect(&self, pointer: &Pointer, limit: usize) -> Result<Option<Stored>, StoreError> {
        const OP: &str = "inspect payload";
        let key = pointer.key();
        let mut kind = self.redis.fetch(OP, vec![command("TYPE", key)]).await?;
        let kind: String = typed(OP, kind.pop().ok_or_else(|| no_answer(OP))?)?;
        let last = i64::try_from(limit).unwrap_or(i64::MAX) - 1;
        let cmd = match kind.as_str() {
            "none" => return Ok(None),
            "string" => command("GET", key),
            "list" if limit == 0 => return Ok(Some(Stored::List(Vec::new()))),
            "list" => {
                let mut cmd = command("LRANGE", key);
                cmd.arg(0).arg(last);
                cmd
            }
            "set" => {
                let mut cmd = command("SRANDMEMBER", key);
                cmd.arg(limit);
                cmd
            }
            "hash" => {
                let mut cmd = command("HRANDFIELD", key);
                cmd.arg(limit).arg("WITHVALUES");
                cmd
            }
            _ => return Ok(Some(Stored::Other(kind))),
        };
        let mut answer = self.redis.fetch(OP, vec![cmd]).await?;
        let answer = answer.pop().ok_or_else(|| no_answer(OP))?;
        // It may have expired in between: an empty answer is then no value.
        Ok(match kind.as_str() {
            "string" => typed::<Option<Vec<u8>>>(OP, answer)?.map(|bytes| Stored::Bytes(bytes.into())),
            "list" => Some(Stored::List(bytes(OP, answer)?)),
            "set" => {
                let mut members = bytes(OP, answer)?;
                members.sort();
                Some(Stored::Set(members))
            }
            _ => {
                let pairs: Vec<(Vec<u8>, Vec<u8>)> = typed(OP, answer)?;
                let pairs: BTreeMap<String, Bytes> = pairs
                    .into_iter()
                    .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value.into()))
                    .collect();
                Some(Stored::Hash(pairs))
            }
        })
    }
}

fn bytes(op: &'static str, value: Value) -> Result<Vec<Bytes>, StoreError> {
    Ok(typed::<Vec<Vec<u8>>>(op, value)?.into_iter().map(Bytes::from).collect())
}
