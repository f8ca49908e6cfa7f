//! The configuration that goes with a job: documents of its scopes, merged. See `docs/spec/scheduler.md` §2.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::{ConfigStore, Scopes, read_effective};
use crate::error::StoreError;
use crate::protocol::agent::JobRequest;
use crate::protocol::canonical::{self, Numbers};

/// How old a merged configuration may be, if nobody says that it changed.
const FRESH: Duration = Duration::from_secs(2);
/// How many are kept.
const CAPACITY: usize = 10_000;

/// When it was read, and what it was.
type Cached = (Instant, Option<Arc<str>>);

/// Resolves and caches merged configurations.
#[derive(Debug)]
pub(super) struct EffectiveConfig {
    store: Arc<dyn ConfigStore>,
    cache: Mutex<HashMap<Scopes, Cached>>,
    /// Counts the changes heard of, so that what was read before one is not kept after it.
    changes: AtomicU64,
}

impl EffectiveConfig {
    pub(super) fn new(store: Arc<dyn ConfigStore>) -> Self {
        Self {
            store,
            cache: Mutex::new(HashMap::new()),
            changes: AtomicU64::new(0),
        }
    }

    /// Some document has changed: everything is read again.
    pub(super) fn forget(&self) {
        let mut cache = self.cache.lock();
        self.changes.fetch_add(1, Ordering::Relaxed);
        cache.clear();
    }

    /// The merged configuration as JSON text with sorted keys; `None` if it is empty.
    ///
    /// # Errors
    /// The store's own. A configuration that cannot be read is not the same as none.
    pub(super) async fn of(&self, request: &JobRequest, tenant: &str) -> Result<Option<Arc<str>>, StoreError> {
        let env = |name: &str| request.env.get(name).cloned().unwrap_or_default();
        let scopes = Scopes {
            org: tenant.to_owned(),
            team: env("team_id"),
            workflow: request.workflow_id.clone(),
            step: env("step_id"),
        };
        let changes = {
            let cache = self.cache.lock();
            if let Some((at, merged)) = cache.get(&scopes)
                && at.elapsed() < FRESH
            {
                return Ok(merged.clone());
            }
            self.changes.load(Ordering::Relaxed)
        };
        let data = read_effective(&*self.store, &scopes).await?.data;
        let merged: Option<Arc<str>> =
            (!data.is_empty()).then(|| canonical::text_of_object(&data, Numbers::Exact).into());
        let mut cache = self.cache.lock();
        if self.changes.load(Ordering::Relaxed) != changes {
            return Ok(merged);
        }
        if cache.len() >= CAPACITY {
            cache.retain(|_, (at, _)| at.elapsed() < FRESH);
            if cache.len() >= CAPACITY {
                cache.clear();
            }
        }
        cache.insert(scopes, (Instant::now(), merged.clone()));
        Ok(merged)
    }
}
