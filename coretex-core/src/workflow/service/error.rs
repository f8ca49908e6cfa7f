//! Why something is not done.

use std::fmt;
use std::sync::Arc;

use crate::config;
use crate::error::StoreError;
use crate::workflow::check::Problem;
use crate::workflow::event::Refusal;
use crate::workflow::run::{RunId, RunStatus};

/// Several problems on one line.
pub(super) struct Joined<'a>(pub &'a [Problem]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Why something is not done. Unless it is [`Error::Store`] or [`Error::Busy`], nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such definition.
    #[error("workflow not found")]
    UnknownWorkflow,
    /// There is no such revision of a definition.
    #[error("workflow revision not found")]
    UnknownRevision,
    /// There is no such run, or not of that workflow.
    #[error("run not found")]
    UnknownRun,
    /// There is no such schedule.
    #[error("schedule not found")]
    UnknownSchedule,
    /// The run does not take this event: see [`Refusal`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The definition or schedule cannot be used, for all these reasons.
    #[error("{}", Joined(.0))]
    Invalid(Vec<Problem>),
    /// The input does not fit the schema of the workflow.
    #[error("input schema validation failed: {0}")]
    Input(String),
    /// As many runs are open as may be.
    #[error("max concurrent runs reached")]
    Limit(u64),
    /// The key was used with another input.
    #[error("idempotency key already used")]
    IdempotencyMismatch(RunId),
    /// A rerun from a step needs what that step depends on.
    #[error("dependency {0} not succeeded")]
    DependencyNotSucceeded(String),
    /// There is no such step to run again from.
    #[error("step not found")]
    StepNotFound,
    /// It is not as the caller believes it to be: `If-Match` failed, or others change it all the time.
    #[error("it was changed by somebody else")]
    Conflict,
    /// The definition has open runs.
    #[error("workflow has {0} open runs")]
    InUse(u64),
    /// The run is not over.
    #[error("run is {}; cancel it first", .0.as_str())]
    RunOpen(RunStatus),
    /// The workflow is paused: its runs go on when it goes on.
    #[error("workflow is paused")]
    WorkflowPaused,
    /// The run is not worked on for now: it could not be read or committed before.
    #[error("run is busy, retry")]
    Busy,
    /// This process is stopping.
    #[error("the workflow engine is stopping")]
    Stopping,
    /// A document of the configuration could not be read or written.
    #[error("configuration failed")]
    Config(#[source] Arc<config::Error>),
    /// The store failed. What was asked for may have happened.
    #[error("workflow store failed")]
    Store(#[source] Arc<StoreError>),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(Arc::new(error))
    }
}
