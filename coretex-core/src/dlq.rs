//! Dead letters: jobs that ended without success, kept until somebody looks. See `docs/spec/storage.md` §5.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// One dead letter. There is at most one per job; a later one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The job.
    pub job_id: String,
    /// Its topic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// The protocol's name of its final status, as `JOB_STATUS_DENIED`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for programs, as `no_pool_mapping`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason_code: String,
    /// The state it ended in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_state: String,
    /// How often it was dispatched.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// When it was written down, RFC 3339.
    pub created_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Where dead letters are kept.
///
/// A job's own dead letter is written by [`JobStore::apply_many`](crate::jobs::JobStore::apply_many) in the commit that
/// ends the job; `put` serves letters that come from elsewhere.
#[async_trait]
pub trait DlqStore: Send + Sync + fmt::Debug + 'static {
    /// Writes one down.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put(&self, letter: &DeadLetter, at: Timestamp) -> Result<(), StoreError>;

    /// Reads one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn get(&self, job: &JobId) -> Result<Option<DeadLetter>, StoreError>;

    /// Newest first, from `before` on (inclusive, whole seconds), at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn list(&self, before: Option<Timestamp>, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// Forgets one; fine if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn delete(&self, job: &JobId) -> Result<(), StoreError>;
}
