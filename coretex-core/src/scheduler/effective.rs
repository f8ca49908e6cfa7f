//! The configuration that goes with a job: documents of its scopes, merged. See `docs/spec/scheduler.md` §2.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::config_store::ConfigStore;
use crate::error::StoreError;
use crate::protocol::agent::JobRequest;

/// How old a merged configuration may be.
const FRESH: Duration = Duration::from_secs(2);
/// How many are kept.
const CAPACITY: usize = 10_000;

/// The scopes of a job, narrowest last: tenant, team, workflow, step.
type Scopes = [String; 4];

/// When it was read, and what it was.
type Cached = (Instant, Option<Arc<str>>);

/// Resolves and caches merged configurations.
#[derive(Debug)]
pub(super) struct EffectiveConfig {
    store: Arc<dyn ConfigStore>,
    cache: Mutex<HashMap<Scopes, Cached>>,
}

impl EffectiveConfig {
    pub(super) fn new(store: Arc<dyn ConfigStore>) -> Self {
        Self {
            store,
            cache: Mutex::new(HashMap::new()),
        }
    }

    /// The merged configuration as JSON text with sorted keys; `None` if it is empty.
    ///
    /// # Errors
    /// The store's own. A configuration that cannot be read is not the same as none.
    pub(super) async fn of(&self, request: &JobRequest, tenant: &str) -> Result<Option<Arc<str>>, StoreError> {
        let env = |name: &str| request.env.get(name).cloned().unwrap_or_default();
        let scopes = [
            tenant.to_owned(),
            env("team_id"),
            request.workflow_id.clone(),
            env("step_id"),
        ];
        if let Some((at, merged)) = self.cache.lock().get(&scopes)
            && at.elapsed() < FRESH
        {
            return Ok(merged.clone());
        }
        let mut names = vec![("system".to_owned(), "default".to_owned())];
        for (scope, id) in ["org", "team", "workflow", "step"].into_iter().zip(&scopes) {
            if !id.is_empty() {
                names.push((scope.to_owned(), id.clone()));
            }
        }
        let mut merged = Map::new();
        for document in self.store.get_many(&names).await?.into_iter().flatten() {
            merged.extend(document.data);
        }
        let merged: Option<Arc<str>> = if merged.is_empty() {
            None
        } else {
            Some(html_safe(&Value::Object(merged)))
        };
        let mut cache = self.cache.lock();
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

/// JSON text in which `<`, `>` and `&` are escaped, as every reader of this variable has always seen it.
fn html_safe(value: &Value) -> Arc<str> {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .into()
}
