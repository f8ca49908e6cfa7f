//! Payloads and the pointers to them. See `docs/spec/protocol.md` §7.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::protocol::JobId;

/// What a payload is for. Nothing else is ever read or written through a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `ctx:` — the input of a job.
    Context,
    /// `res:` — the result of a job.
    Result,
    /// `art:` — an artifact.
    Artifact,
    /// `mem:` — memory that several jobs share.
    Memory,
}

impl Family {
    /// The key prefix, with its colon.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Context => "ctx:",
            Self::Result => "res:",
            Self::Artifact => "art:",
            Self::Memory => "mem:",
        }
    }
}

/// Why a text is not a pointer that we follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointerError {
    /// Nothing there.
    #[error("empty pointer")]
    Empty,
    /// Does not begin with `redis://`.
    #[error("invalid pointer prefix: {0}")]
    Prefix(String),
    /// Nothing after `redis://`.
    #[error("missing key in pointer")]
    MissingKey,
    /// A key outside the allowed families.
    #[error("unsupported pointer key `{0}` (only ctx:*, res:*, art:* or mem:*)")]
    Family(String),
}

/// Names one payload: `redis://` and a key of an allowed family, as `redis://ctx:<job_id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    family: Family,
    key: String,
}

impl Pointer {
    /// What every pointer begins with, on every backend.
    pub const SCHEME: &'static str = "redis://";

    /// The input of a job.
    pub fn context(job: &JobId) -> Self {
        Self {
            family: Family::Context,
            key: format!("ctx:{job}"),
        }
    }

    /// The result of a job.
    pub fn result(job: &JobId) -> Self {
        Self {
            family: Family::Result,
            key: format!("res:{job}"),
        }
    }

    /// Reads a bare key such as `ctx:42`.
    ///
    /// # Errors
    /// [`PointerError`] says what is wrong.
    pub fn from_key(key: &str) -> Result<Self, PointerError> {
        if key.is_empty() {
            return Err(PointerError::MissingKey);
        }
        let family = [Family::Context, Family::Result, Family::Artifact, Family::Memory]
            .into_iter()
            .find(|family| key.len() > family.prefix().len() && key.starts_with(family.prefix()))
            .ok_or_else(|| PointerError::Family(key.to_owned()))?;
        Ok(Self {
            family,
            key: key.to_owned(),
        })
    }

    /// Which family it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The key, with its family's prefix.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Err(PointerError::Empty);
        }
        let key = text
            .strip_prefix(Self::SCHEME)
            .ok_or_else(|| PointerError::Prefix(text.to_owned()))?;
        Self::from_key(key)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.key)
    }
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        text.parse()
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.to_string()
    }
}

/// What stands behind a pointer, whatever its storage type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// One payload.
    Bytes(Bytes),
    /// Several, in order.
    List(Vec<Bytes>),
    /// Several, in no order.
    Set(Vec<Bytes>),
    /// Several, by name.
    Hash(BTreeMap<String, Bytes>),
    /// A type that is not read, by its name.
    Other(String),
}

/// Where payloads live; the bus carries only pointers to them.
///
/// # Contract
/// - `put` is atomic: a reader sees the whole payload or none.
/// - After `put` returns, the payload is durable where the backend is, and every process on it can `get` it.
/// - A dropped `put` may still have happened.
/// - A payload is gone when its time to live is over.
#[async_trait]
pub trait PointerStore: Send + Sync + fmt::Debug + 'static {
    /// Stores a payload, replacing what was there. `None` keeps it for the store's own default (`REDIS_DATA_TTL`).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put(&self, pointer: &Pointer, payload: Bytes, ttl: Option<Duration>) -> Result<(), StoreError>;

    /// Reads a payload; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer, [`StoreError::Refused`] if what is there is no plain
    /// payload.
    async fn get(&self, pointer: &Pointer) -> Result<Option<Bytes>, StoreError>;

    /// Reads several payloads at the price of one wait; one result for each, in order.
    async fn get_many(&self, pointers: &[Pointer]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let mut payloads = Vec::with_capacity(pointers.len());
        for pointer in pointers {
            payloads.push(self.get(pointer).await);
        }
        payloads
    }

    /// Reads whatever is there, with its type; at most `limit` members of a collection.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn inspect(&self, pointer: &Pointer, limit: usize) -> Result<Option<Stored>, StoreError>;
}

#[cfg(test)]
mod tests;
