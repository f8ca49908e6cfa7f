//! Who changed what: an append-only log whose entries each carry the hash of the one before. See `docs/spec/audit.md`.
//!
//! Whoever changes something writes an [`AuditRecord`] to the outbox, in the commit of the change itself. Any replica moves
//! records from the outbox to the end of the chain by compare-and-set, so that there is one order, and nothing that
//! happened is missing from it.

mod chain;
mod log;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use chain::{Broken, Checker, entry_hash, link};
pub use log::{AuditLog, Error, Page, Report};

use crate::error::StoreError;
use crate::time::Timestamp;

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// Who; empty if nobody is known.
    pub id: String,
    /// In which role; may be empty.
    pub role: String,
}

impl Actor {
    /// Somebody in a role; either may be empty.
    pub fn new(id: impl Into<String>, role: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            role: role.into(),
        }
    }
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its name; a record that is enqueued twice is in the chain once.
    pub id: String,
    /// When, in microseconds since 1970.
    pub at: Timestamp,
    /// Who; empty if nobody is known.
    pub actor: String,
    /// In which role; may be empty.
    pub role: String,
    /// What: `policy.publish`, `policy.rollback`, `bundle.put`, `approval.approve`, `config.set`, …
    pub action: String,
    /// To what: a job id, a bundle id, `cfg:<scope>:<id>`.
    pub target: String,
    /// The rest, for people and programs.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

impl Head {
    /// The end of an empty chain.
    pub fn empty() -> Self {
        Self {
            seq: 0,
            hash: "0".repeat(64),
        }
    }
}

impl AuditRecord {
    /// A record with a new id, without detail.
    pub fn new(at: Timestamp, actor: &str, role: &str, action: &str, target: &str) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            at,
            actor: actor.to_owned(),
            role: role.to_owned(),
            action: action.to_owned(),
            target: target.to_owned(),
            detail: serde_json::Map::new(),
        }
    }

    /// What `actor` did to `target`; without detail.
    pub fn by(at: Timestamp, actor: &Actor, action: &str, target: &str) -> Self {
        Self::new(at, &actor.id, &actor.role, action, target)
    }

    /// Adds one member to the detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// A record in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its place, from 1, without gaps.
    pub seq: u64,
    /// The hash of the entry before; 64 zeros for the first.
    pub prev: String,
    /// SHA-256 in lower-case hex of the canonical JSON of this entry without `hash`.
    pub hash: String,
    /// What happened.
    #[serde(flatten)]
    pub record: AuditRecord,
}

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The place of the last entry; 0 if there is none.
    pub seq: u64,
    /// Its hash; 64 zeros if there is none.
    pub hash: String,
}

/// Where the audit log and its outbox are kept.
///
/// # Contract
/// - The chain only grows: nothing changes or removes an entry.
/// - A record whose id was in the outbox before, or is in the chain, is not put in the outbox again.
/// - Records stay in the outbox until they are appended.
/// - Of concurrent appends after the same head exactly one is applied.
#[async_trait]
pub trait AuditStore: Send + Sync + fmt::Debug + 'static {
    /// Puts a record in the outbox, for what happened outside a store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn enqueue(&self, record: &AuditRecord) -> Result<(), StoreError>;

    /// The records in the outbox, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn pending(&self, limit: usize) -> Result<Vec<AuditRecord>, StoreError>;

    /// The end of the chain.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn head(&self) -> Result<Head, StoreError>;

    /// Appends entries, and takes their records out of the outbox in the same commit. False, and nothing is written, if the
    /// chain does not end at `after` any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn append(&self, after: &Head, entries: &[AuditEntry]) -> Result<bool, StoreError>;

    /// The entries from place `from` on, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer, [`StoreError::Corrupt`] if an entry cannot be read.
    async fn read(&self, from: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;
}
