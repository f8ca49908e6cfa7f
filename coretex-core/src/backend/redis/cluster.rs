//! Replicas in Redis. See `docs/spec/storage.md` §8.

use std::time::Duration;

use async_trait::async_trait;

use super::connection::Redis;
use super::jobs::typed;
use super::keys;
use super::leases::millis;
use super::payloads::expire;
use super::scripts::Lua;
use crate::cluster::Cluster;
use crate::error::StoreError;
use crate::protocol::InstanceId;

/// The replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    redis: Redis,
    snapshot_ttl: Duration,
}

impl Replicas {
    pub(super) fn new(redis: Redis, snapshot_ttl: Duration) -> Self {
        Self { redis, snapshot_ttl }
    }
}

#[async_trait]
impl Cluster for Replicas {
    async fn beat(&self, me: &InstanceId, ttl: Duration) -> Result<Vec<InstanceId>, StoreError> {
        const OP: &str = "beat";
        let mut cmd = Lua::Beat.call(keys::INSTANCES);
        cmd.arg(me.as_str()).arg(millis(ttl));
        let alive: Vec<String> = typed(OP, self.redis.send(OP, cmd).await?)?;
        Ok(alive.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn leave(&self, me: &InstanceId) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("ZREM");
        cmd.arg(keys::INSTANCES).arg(me.as_str());
        self.redis.send("leave", cmd).await?;
        Ok(())
    }

    async fn put_worker_snapshot(&self, json: &str) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(keys::WORKER_SNAPSHOT).arg(json);
        expire(&mut cmd, self.snapshot_ttl);
        self.redis.send("put worker snapshot", cmd).await?;
        Ok(())
    }

    async fn worker_snapshot(&self) -> Result<Option<String>, StoreError> {
        const OP: &str = "get worker snapshot";
        let mut cmd = redis::cmd("GET");
        cmd.arg(keys::WORKER_SNAPSHOT);
        typed(OP, self.redis.send(OP, cmd).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.redis.send("ping", redis::cmd("PING")).await?;
        Ok(())
    }
}
