//! Configuration documents that live beside the data, by scope. See `docs/spec/storage.md` §7.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::audit::AuditRecord;
use crate::error::StoreError;

/// One document, as `cfg:system:default`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// `system`, `org`, `team`, `workflow` or `step`.
    pub scope: String,
    /// Which one of them.
    pub scope_id: String,
    /// The configuration itself.
    #[serde(default)]
    pub data: serde_json::Map<String, serde_json::Value>,
    /// Counts the writes.
    #[serde(default)]
    pub revision: u64,
    /// When it was last written, RFC 3339.
    #[serde(default)]
    pub updated_at: String,
    /// Free remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, String>>,
}

/// Where configuration documents are kept.
#[async_trait]
pub trait ConfigStore: Send + Sync + fmt::Debug + 'static {
    /// Reads several documents, by (scope, scope id), in one round trip; results in the same order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer, [`StoreError::Corrupt`] if a document cannot be read.
    async fn get_many(&self, names: &[(String, String)]) -> Result<Vec<Option<Document>>, StoreError>;

    /// Writes a document if its stored revision is still `expected` (0: there is none). False if it is not. The document
    /// is stored as given: the caller sets `revision` to `expected + 1`. With it, in the same commit, `audit` goes to the
    /// outbox of the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put(&self, document: &Document, expected: u64, audit: Option<&AuditRecord>) -> Result<bool, StoreError>;
}
