//! May this job run, and within which limits? See `docs/spec/policy.md`.

pub mod bundles;
pub mod cases;
mod checks;
mod compile;
mod conditions;
mod diff;
mod effective;
mod evaluate;
mod explain;
mod explanation;
mod fold;
mod glob;
mod index;
mod input;
mod kernel;
mod lint;
mod mcp;
mod merge;
pub mod model;
mod parts;
mod problem;
mod read;
#[cfg(feature = "grpc")]
pub mod remote;
mod sources;
mod status;
mod terms;
pub mod wire;
mod words;

use std::fmt;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::jobs::DecisionRecord;
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

pub use checks::{CheckError, Checks, Question};
pub use compile::CompiledPolicy;
pub use diff::{PolicyDiff, RuleChange, diff};
pub use effective::EffectiveSafety;
pub use evaluate::{Evaluation, evaluate};
pub use explain::explain;
pub use explanation::{BASE, ConditionCheck, ConstraintOrigin, Drafts, Explanation, NearMiss, RuleRef};
pub use glob::{Glob, GlobError};
pub use input::PolicyInput;
pub use kernel::{DEFAULT_RELOAD_INTERVAL, LoadError, LocalKernel};
pub use lint::{Finding, Severity, lint};
pub use model::{Document, MAX_DOCUMENT_BYTES, Parsed};
pub use parts::{Part, PartKind};
pub use problem::{DocumentError, Problem};
pub use sources::{
    Base, EncodingError, FETCH_TIMEOUT, Fetch, FetchError, Fetched, Fragments, PublicKey, Signature, SignatureError,
    Signed,
};
pub use status::{KernelStatus, Quarantined, SourceStatus, Warning};

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

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no policy to explain by.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A draft is refused.
    #[error(transparent)]
    Draft(#[from] DocumentError),
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

    /// Judges one job and says why, by the active policy or by one with `drafts` in the place of what is in force. Nothing
    /// is recorded, and no job moves.
    ///
    /// # Errors
    /// [`ExplainError::Draft`] if a draft is refused, [`ExplainError::Unavailable`] if there is nothing to judge by.
    async fn explain(
        &self,
        request: &PolicyCheckRequest,
        drafts: &Drafts,
        now: Timestamp,
    ) -> Result<(DecisionRecord, Explanation), ExplainError>;

    /// How it is doing.
    async fn status(&self) -> KernelStatus;
}

#[cfg(test)]
mod tests;
