//! What only this process knows: leases and replicas. The file belongs to one process, so nobody else has to be told,
//! and nothing of it outlives the process. See `docs/spec/embedded.md` §7.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::kv::Kv;
use crate::cluster::Cluster;
use crate::error::StoreError;
use crate::locks::LeaseStore;
use crate::protocol::InstanceId;

/// Leases, by name.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<String, Lease>>);

#[derive(Debug)]
struct Lease {
    token: String,
    until: Instant,
}

#[async_trait]
impl LeaseStore for Leases {
    async fn acquire(&self, name: &str, token: &str, ttl: Duration) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut leases = self.0.lock();
        if leases
            .get(name)
            .is_some_and(|lease| lease.token != token && lease.until > now)
        {
            return Ok(false);
        }
        leases.retain(|_, lease| lease.until > now);
        let lease = Lease {
            token: token.to_owned(),
            until: now + ttl,
        };
        leases.insert(name.to_owned(), lease);
        Ok(true)
    }

    async fn release(&self, name: &str, token: &str) -> Result<(), StoreError> {
        let mut leases = self.0.lock();
        if leases.get(name).is_some_and(|lease| lease.token == token) {
            leases.remove(name);
        }
        Ok(())
    }
}

/// The replicas in this process, and the worker snapshot.
#[derive(Debug)]
pub(super) struct Local {
    kv: Arc<Kv>,
    alive: Mutex<HashMap<InstanceId, Instant>>,
    snapshot: Mutex<Option<String>>,
}

impl Local {
    pub(super) fn new(kv: Arc<Kv>) -> Self {
        Self {
            kv,
            alive: Mutex::default(),
            snapshot: Mutex::default(),
        }
    }
}

#[async_trait]
impl Cluster for Local {
    async fn beat(&self, me: &InstanceId, ttl: Duration) -> Result<Vec<InstanceId>, StoreError> {
        let now = Instant::now();
        let mut alive = self.alive.lock();
        alive.insert(me.clone(), now + ttl);
        alive.retain(|id, until| id == me || *until > now);
        Ok(alive.keys().cloned().collect())
    }

    async fn leave(&self, me: &InstanceId) -> Result<(), StoreError> {
        self.alive.lock().remove(me);
        Ok(())
    }

    async fn put_worker_snapshot(&self, json: &str) -> Result<(), StoreError> {
        *self.snapshot.lock() = Some(json.to_owned());
        Ok(())
    }

    async fn worker_snapshot(&self) -> Result<Option<String>, StoreError> {
        Ok(self.snapshot.lock().clone())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.kv
            .read("ping", |view| view.get(super::keys::FORMAT_KEY).map(drop))
            .await
    }
}
