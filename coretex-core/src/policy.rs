//! May this job run, and within which limits? See `docs/spec/policy.md`.

use std::fmt;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::jobs::DecisionRecord;
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
#[error("policy could not be asked: {what}")]
pub struct Unavailable {
    /// What is missing, for people.
    pub what: String,
    /// What lies beneath.
    #[source]
    pub source: Option<BoxError>,
}

/// Whoever decides. In process or remote; never the caller.
#[async_trait]
pub trait Kernel: Send + Sync + fmt::Debug + 'static {
    /// Judges one job.
    ///
    /// # Errors
    /// [`Unavailable`] if there is no decision. That is never a yes, and no final no: ask again later.
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable>;

    /// The ids of the policies that were active, the present one first.
    ///
    /// # Errors
    /// [`Unavailable`] if they are not known.
    async fn snapshots(&self) -> Result<Vec<String>, Unavailable>;
}
