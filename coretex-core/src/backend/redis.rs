//! Every store on Redis. See `docs/spec/storage.md`.

#[cfg(feature = "server")]
mod audit;
#[cfg(feature = "server")]
mod cluster;
#[cfg(feature = "server")]
mod config;
mod connection;
#[cfg(feature = "server")]
mod dlq;
#[cfg(feature = "server")]
mod jobs;
#[cfg(feature = "server")]
mod keys;
#[cfg(feature = "server")]
mod leases;
mod payloads;
#[cfg(feature = "server")]
mod scripts;
#[cfg(feature = "server")]
mod workflows;

use std::sync::Arc;
use std::time::Duration;

use self::connection::{Limits, Redis};
use self::payloads::Payloads;
#[cfg(feature = "server")]
use super::Stores;
use crate::error::StoreError;
use crate::pointers::PointerStore;

pub use self::connection::redacted;

/// How the stores use their server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// How long jobs are kept after their last change (`JOB_META_TTL`). Zero: for ever.
    pub meta_ttl: Duration,
    /// How long payloads are kept (`REDIS_DATA_TTL`). Zero: for ever.
    pub data_ttl: Duration,
    /// How many entries of a run's timeline are kept, the newest (`WORKFLOW_TIMELINE_LIMIT`). 10 000.
    pub timeline_limit: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Connections that short commands share.
    pub connections: usize,
    /// Connections for long answers, at most.
    pub pool_size: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            meta_ttl: Duration::from_secs(168 * 3600),
            data_ttl: Duration::from_secs(24 * 3600),
            timeline_limit: 10_000,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(3),
            connections: 2,
            pool_size: 4,
        }
    }
}

impl RedisOptions {
    fn limits(&self, scripts: Vec<&'static str>) -> Limits {
        Limits {
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            links: self.connections,
            pool: self.pool_size,
            scripts,
        }
    }
}

/// Every store on one Redis server, at a `redis://`, `rediss://` or `unix://` URL.
#[cfg(feature = "server")]
#[derive(Debug)]
pub struct RedisStores;

#[cfg(feature = "server")]
impl RedisStores {
    /// Connects, and checks that the server answers. Connections that are lost later are made again when they are needed,
    /// for ever; in between, calls fail with [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is none, [`StoreError::Unavailable`] if the server does not answer.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Stores, StoreError> {
        let stores = Self::open(url, &options)?;
        stores.cluster.ping().await?;
        Ok(stores)
    }

    /// Like [`connect`](Self::connect), but connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is none.
    pub fn open(url: &str, options: &RedisOptions) -> Result<Stores, StoreError> {
        let redis = Redis::open(url, &options.limits(scripts::Lua::sources()))?;
        Ok(Stores {
            jobs: Arc::new(jobs::Jobs::new(redis.clone(), options.meta_ttl, options.data_ttl)),
            payloads: Arc::new(Payloads::new(redis.clone(), options.data_ttl)),
            dlq: Arc::new(dlq::Letters::new(redis.clone())),
            leases: Arc::new(leases::Leases::new(redis.clone())),
            cluster: Arc::new(cluster::Replicas::new(redis.clone(), options.data_ttl)),
            config: Arc::new(config::Documents::new(redis.clone())),
            audit: Arc::new(audit::Audit::new(redis.clone())),
            workflows: Arc::new(workflows::Workflows::new(redis, options)),
        })
    }
}

/// The payloads alone: what a worker needs.
#[derive(Debug)]
pub struct RedisPayloads;

impl RedisPayloads {
    /// Opens the payloads at a `redis://`, `rediss://` or `unix://` URL; connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is none.
    pub fn open(url: &str, options: &RedisOptions) -> Result<Arc<dyn PointerStore>, StoreError> {
        let redis = Redis::open(url, &options.limits(Vec::new()))?;
        Ok(Arc::new(Payloads::new(redis, options.data_ttl)))
    }

    /// Connects, and checks that the server answers.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`StoreError::Unavailable`] if the server does not answer.
    pub async fn connect(url: &str, options: &RedisOptions) -> Result<Arc<dyn PointerStore>, StoreError> {
        let redis = Redis::open(url, &options.limits(Vec::new()))?;
        redis.send("ping", ::redis::cmd("PING")).await?;
        Ok(Arc::new(Payloads::new(redis, options.data_ttl)))
    }
}
