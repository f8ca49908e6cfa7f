//! What a handler, and what a worker, can fail with.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use coretex_core::bus;
use coretex_core::error::{BoxError, chain};

/// The error codes that the SDK itself reports in a job's result.
pub mod codes {
    /// The pointer names a payload that is not there (any more).
    pub const INPUT_MISSING: &str = "input_missing";
    /// The payload is not what the handler takes.
    pub const INPUT_INVALID: &str = "input_invalid";
    /// The pointer is none that a worker follows.
    pub const INVALID_POINTER: &str = "invalid_pointer";
    /// The payload store did not answer, for as long as the worker was willing to try.
    pub const PAYLOAD_UNAVAILABLE: &str = "payload_unavailable";
    /// The output cannot be written as JSON.
    pub const RESULT_INVALID: &str = "result_invalid";
    /// The output or an artifact is larger than the limit.
    pub const RESULT_TOO_LARGE: &str = "result_too_large";
    /// The handler returned an error that names no code of its own.
    pub const HANDLER_FAILED: &str = "handler_failed";
    /// The handler panicked.
    pub const HANDLER_PANICKED: &str = "handler_panicked";
    /// The worker has no handler for the job's topic.
    pub const NO_HANDLER: &str = "no_handler";
    /// Somebody cancelled the job.
    pub const CANCELLED: &str = "cancelled";
    /// The job's deadline passed.
    pub const DEADLINE_EXCEEDED: &str = "deadline_exceeded";
    /// The worker stopped and the job did not finish within the grace period.
    pub const WORKER_STOPPED: &str = "worker_stopped";
}

/// Why a job failed: a code for programs, a message for people, and whether another attempt could help.
///
/// Every error converts into one with `?`, under the code `handler_failed`; [`JobError::new`] sets a code of your own.
/// Like `anyhow::Error` it is no [`std::error::Error`] itself; [`From`] makes a boxed one of it.
///
/// ```
/// use coretex_sdk::JobError;
///
/// fn parse(text: &str) -> Result<u32, JobError> {
///     if text.is_empty() {
///         return Err(JobError::new("empty_number", "there is no number"));
///     }
///     Ok(text.parse::<u32>()?)
/// }
///
/// assert_eq!(parse("").unwrap_err().code(), "empty_number");
/// assert_eq!(parse("x").unwrap_err().code(), "handler_failed");
/// ```
pub struct JobError(Box<Failure>);

#[derive(Debug)]
struct Failure {
    code: Cow<'static, str>,
    message: String,
    retryable: bool,
    source: Option<BoxError>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl JobError {
    /// An error with a code of your own, which goes into the result's `error_code`.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self(Box::new(Failure {
            code: code.into(),
            message: message.into(),
            retryable: false,
            source: None,
        }))
    }

    /// Any error, or any text, under the code `handler_failed`; for what `?` does not convert, such as `anyhow::Error`.
    pub fn from_source(source: impl Into<BoxError>) -> Self {
        match source.into().downcast::<Failure>() {
            Ok(failure) => Self(failure),
            Err(source) => {
                let mut error = Self::new(codes::HANDLER_FAILED, source.to_string());
                error.0.source = source.source().is_some().then_some(source);
                error
            }
        }
    }

    /// Says that another attempt could help. The worker makes one if it may: see
    /// [`retries`](crate::Builder::retries).
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// For programs.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Whether another attempt could help.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// For people: the message and its causes, on one line.
    pub fn message(&self) -> String {
        match &self.0.source {
            Some(source) => chain(source.as_ref()),
            None => self.0.message.clone(),
        }
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobError")
            .field("code", &self.0.code)
            .field("message", &self.message())
            .field("retryable", &self.0.retryable)
            .finish()
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::from_source(error)
    }
}

impl From<JobError> for BoxError {
    fn from(error: JobError) -> Self {
        error.0
    }
}

/// Why a worker cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing or makes no sense.
    #[error("{setting}: {reason}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What is wrong, and with which value.
        reason: String,
    },
    /// There is no way to reach NATS or Redis.
    #[error("could not connect to {what}")]
    Connect {
        /// What the worker tried to reach.
        what: &'static str,
        /// What the driver said.
        #[source]
        source: BoxError,
    },
    /// A subscription was refused.
    #[error("could not subscribe to `{subject}`")]
    Subscribe {
        /// To what.
        subject: String,
        /// What the bus said.
        #[source]
        source: bus::Error,
    },
    /// The signals of the process cannot be watched.
    #[error("could not watch for signals")]
    Signals(#[source] std::io::Error),
    /// The bus was closed under the worker.
    #[error("the bus was closed")]
    BusClosed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not read the model")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn any_error_converts_and_keeps_its_causes() {
        let error = JobError::from(Outer(std::io::Error::other("disk on fire")));
        assert_eq!(error.code(), codes::HANDLER_FAILED);
        assert_eq!(error.message(), "could not read the model: disk on fire");
        assert!(!error.is_retryable());
    }

    #[test]
    fn survives_boxing() {
        let boxed = BoxError::from(JobError::new("busy", "the model is busy").retryable());
        let error = JobError::from_source(boxed);
        assert_eq!((error.code(), error.is_retryable()), ("busy", true));
        assert_eq!(error.to_string(), "the model is busy");
    }

    #[test]
    fn takes_what_is_no_error_type() {
        assert_eq!(
            JobError::from_source(anyhow::anyhow!("inner").context("outer")).message(),
            "outer: inner"
        );
        assert_eq!(JobError::from_source("just text").message(), "just text");
    }
}
