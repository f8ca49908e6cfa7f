//! What replicas know of each other. See `docs/spec/storage.md` §8.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::protocol::InstanceId;

/// Which replicas are alive, and what they publish for readers outside.
#[async_trait]
pub trait Cluster: Send + Sync + fmt::Debug + 'static {
    /// Says that `me` is alive for another `ttl`, and returns all that are, `me` included.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn beat(&self, me: &InstanceId, ttl: Duration) -> Result<Vec<InstanceId>, StoreError>;

    /// Says that `me` is leaving.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn leave(&self, me: &InstanceId) -> Result<(), StoreError>;

    /// Writes the worker snapshot, a JSON document that outside tools read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put_worker_snapshot(&self, json: &str) -> Result<(), StoreError>;

    /// Reads the worker snapshot.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn worker_snapshot(&self) -> Result<Option<String>, StoreError>;

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it does not.
    async fn ping(&self) -> Result<(), StoreError>;
}
