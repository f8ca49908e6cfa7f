//! Leases in Redis. See `docs/spec/storage.md` §6.

use std::time::Duration;

use async_trait::async_trait;

use super::connection::Redis;
use super::jobs::typed;
use super::scripts::Lua;
use crate::error::StoreError;
use crate::locks::LeaseStore;

/// The leases. Their names are keys, so that the reference's own locks are honoured under their names.
#[derive(Debug)]
pub(super) struct Leases {
    redis: Redis,
}

impl Leases {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl LeaseStore for Leases {
    async fn acquire(&self, name: &str, token: &str, ttl: Duration) -> Result<bool, StoreError> {
        const OP: &str = "acquire lease";
        let mut cmd = Lua::Lease.call(name);
        cmd.arg(token).arg(millis(ttl));
        typed(OP, self.redis.send(OP, cmd).await?)
    }

    async fn release(&self, name: &str, token: &str) -> Result<(), StoreError> {
        let mut cmd = Lua::Release.call(name);
        cmd.arg(token);
        self.redis.send("release lease", cmd).await?;
        Ok(())
    }
}
