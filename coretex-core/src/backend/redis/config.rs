//! Configuration documents in Redis. See `docs/spec/storage.md` §7.

use async_trait::async_trait;

use super::audit;
use super::connection::{Redis, refused};
use super::jobs::typed;
use super::keys;
use super::scripts::Lua;
use crate::audit::AuditRecord;
use crate::config::{ConfigStore, Document};
use crate::error::StoreError;

/// The documents.
#[derive(Debug)]
pub(super) struct Documents {
    redis: Redis,
}

impl Documents {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

#[async_trait]
impl ConfigStore for Documents {
    async fn get_many(&self, names: &[(String, String)]) -> Result<Vec<Option<Document>>, StoreError> {
        const OP: &str = "get config";
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("MGET");
        for (scope, id) in names {
            cmd.arg(keys::config(scope, id));
        }
        let texts: Vec<Option<Vec<u8>>> = typed(OP, self.redis.send(OP, cmd).await?)?;
        texts
            .into_iter()
            .zip(names)
            .map(|(text, (scope, id))| {
                text.map(|text| serde_json::from_slice(&text))
                    .transpose()
                    .map_err(|error| StoreError::Corrupt {
                        what: format!("config document `{scope}:{id}`"),
                        source: error.into(),
                    })
            })
            .collect()
    }

    async fn put(&self, document: &Document, expected: u64, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        const OP: &str = "put config";
        let text = serde_json::to_string(document).map_err(|error| refused(OP, error.into()))?;
        let mut cmd = Lua::Config.call(&keys::config(&document.scope, &document.scope_id));
        cmd.arg(text).arg(expected);
        audit::args(&mut cmd, audit);
        typed(OP, self.redis.send(OP, cmd).await?)
    }
}
