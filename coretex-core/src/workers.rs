//! Who is alive and could work. See `docs/spec/protocol.md` §5.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::protocol::agent::Heartbeat;
use crate::time::Timestamp;

/// How long a worker counts as alive after its last heartbeat.
pub const LIVENESS: Duration = Duration::from_secs(30);

/// The last heartbeat of each worker. Cheap to clone; all clones are one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<BTreeMap<String, Seen>>>);

/// One worker as last seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it said.
    pub heartbeat: Arc<Heartbeat>,
    /// When that arrived.
    pub at: Timestamp,
}

/// How many workers are remembered. More are dropped, oldest heartbeat first.
pub const MAX_WORKERS: usize = 100_000;

impl Registry {
    /// Takes a heartbeat, which replaces the worker's last one whole, and returns it to share.
    pub fn observe(&self, heartbeat: Heartbeat, now: Timestamp) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(heartbeat);
        let mut workers = self.0.write();
        if workers.len() >= MAX_WORKERS
            && !workers.contains_key(&heartbeat.worker_id)
            && let Some(oldest) = workers.iter().min_by_key(|(_, seen)| seen.at).map(|(id, _)| id.clone())
        {
            workers.remove(&oldest);
        }
        workers.insert(
            heartbeat.worker_id.clone(),
            Seen {
                heartbeat: Arc::clone(&heartbeat),
                at: now,
            },
        );
        heartbeat
    }

    /// The workers that are alive, by id.
    pub fn live(&self, now: Timestamp) -> Vec<Seen> {
        self.0
            .read()
            .values()
            .filter(|seen| now.since(seen.at) < LIVENESS)
            .cloned()
            .collect()
    }

    /// Forgets workers that are not alive any more, and returns them.
    pub fn purge(&self, now: Timestamp) -> Vec<Seen> {
        let mut gone = Vec::new();
        self.0.write().retain(|_, seen| {
            let keep = now.since(seen.at) < LIVENESS;
            if !keep {
                gone.push(seen.clone());
            }
            keep
        });
        gone
    }
}
