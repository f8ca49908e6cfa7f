//! Where documents are kept. See `docs/spec/storage.md` §7.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize};

use crate::audit::AuditRecord;
use crate::error::StoreError;

/// One document, as `cfg:system:default`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Document {
    /// `system`, `org`, `team`, `workflow` or `step`.
    pub scope: String,
    /// Which one of them.
    pub scope_id: String,
    /// The configuration itself.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub data: serde_json::Map<String, serde_json::Value>,
    /// Counts the writes; 0 if it was never written.
    #[serde(default)]
    pub revision: u64,
    /// When it was last written, RFC 3339.
    #[serde(default)]
    pub updated_at: String,
    /// Free remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, String>>,
}

type Members = serde_json::Map<String, serde_json::Value>;

/// Other programs write `null` where there are no members.
fn null_is_empty<'de, D: Deserializer<'de>>(input: D) -> Result<Members, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/spec/storage.md §7.
    #[test]
    fn documents_of_other_programs_are_read() {
        for text in [
            r#"{"scope":"org","scope_id":"a","data":null,"revision":3,"updated_at":"2026-01-02T03:04:05.123456789Z"}"#,
            r#"{"scope":"org","scope_id":"a","revision":3,"meta":null,"unknown":1}"#,
            r#"{"scope":"org","scope_id":"a","data":{},"revision":3,"meta":{}}"#,
        ] {
            let document: Document = serde_json::from_str(text).expect("a document");
            assert_eq!((document.revision, document.data.len()), (3, 0), "{text}");
        }
        for text in [
            r#"{"scope":"org","scope_id":"a","data":[]}"#,
            r#"{"scope":"org"}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Document>(text).is_err(), "{text}");
        }
    }
}
