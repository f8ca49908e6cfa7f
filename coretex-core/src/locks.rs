//! Leases on names, to save replicas from doing the same work twice. See `docs/spec/storage.md` §6.
//!
//! Nothing is correct only because a lease is held: every change of a job is a compare-and-set.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;

/// Grants leases.
///
/// # Contract
/// - A lease has one holder until it is released or its time to live is over.
/// - Only its holder, by token, can renew or release it.
#[async_trait]
pub trait LeaseStore: Send + Sync + fmt::Debug + 'static {
    /// Takes the lease on `name`, or renews it if `token` holds it already. False if somebody else holds it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn acquire(&self, name: &str, token: &str, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives it back; nothing happens if `token` does not hold it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn release(&self, name: &str, token: &str) -> Result<(), StoreError>;
}
