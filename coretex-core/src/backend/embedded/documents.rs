//! Configuration documents, as JSON. See `docs/spec/embedded.md` §3.

use std::sync::Arc;

use async_trait::async_trait;

use super::jobs::change::Writes;
use super::keys;
use super::kv::{Get, Kv, corrupt};
use crate::audit::AuditRecord;
use crate::config::{ConfigStore, Document};
use crate::error::StoreError;

#[derive(Debug)]
pub(super) struct Documents {
    pub(super) kv: Arc<Kv>,
}

fn load<G: Get + ?Sized>(source: &G, scope: &str, scope_id: &str) -> Result<Option<Document>, StoreError> {
    source
        .get(&keys::document(scope, scope_id))?
        .map(|bytes| serde_json::from_slice(&bytes).map_err(|error| corrupt(format!("cfg:{scope}:{scope_id}"), error)))
        .transpose()
}

#[async_trait]
impl ConfigStore for Documents {
    async fn get_many(&self, names: &[(String, String)]) -> Result<Vec<Option<Document>>, StoreError> {
        let names = names.to_vec();
        self.kv
            .read("get", move |view| {
                names
                    .iter()
                    .map(|(scope, scope_id)| load(view, scope, scope_id))
                    .collect()
            })
            .await
    }

    async fn put(&self, document: &Document, expected: u64, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        let audit = audit.cloned();
        let value = serde_json::to_vec(document).map_err(|error| corrupt("a configuration document", error))?;
        let (scope, scope_id) = (document.scope.clone(), document.scope_id.clone());
        self.kv
            .write("put", move |txn| {
                let stored = load(txn, &scope, &scope_id)?;
                if stored.map_or(0, |stored| stored.revision) != expected {
                    return Ok(false);
                }
                let mut writes = Writes::default();
                if let Some(record) = &audit {
                    super::audit::enqueue(txn, &mut writes, record)?;
                }
                writes.put(keys::document(&scope, &scope_id), value);
                writes.apply(txn);
                Ok(true)
            })
            .await
    }
}
