//! What all domain errors have in common.

/// Any error as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Whether trying the same call again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Transient, and the call had no effect: try again after a pause.
    Safe,
    /// Transient, but it may have taken effect: retry only what is idempotent.
    MaybeApplied,
    /// The same call will fail the same way.
    Never,
}

/// The error of every store trait.
///
/// Outcomes that a caller acts on (a lost race, a limit reached) are values, not errors; an error means that the store
/// could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not answer, or lost the connection while answering.
    #[error("{backend} did not answer `{op}`")]
    Unavailable {
        /// Which store, for people.
        backend: &'static str,
        /// What was attempted.
        op: &'static str,
        /// Whether the request had left this process, so that it may have been carried out.
        sent: bool,
        /// What the driver said.
        #[source]
        source: BoxError,
    },
    /// What is stored cannot be read.
    #[error("{what} is corrupt")]
    Corrupt {
        /// Names the record.
        what: String,
        /// What the decoder said.
        #[source]
        source: BoxError,
    },
    /// The store refused the call, and would again.
    #[error("{backend} refused `{op}`")]
    Refused {
        /// Which store, for people.
        backend: &'static str,
        /// What was attempted.
        op: &'static str,
        /// What the driver said.
        #[source]
        source: BoxError,
    },
}

impl StoreError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { sent: false, .. } => Retry::Safe,
            Self::Unavailable { sent: true, .. } => Retry::MaybeApplied,
            Self::Corrupt { .. } | Self::Refused { .. } => Retry::Never,
        }
    }

    /// Whether trying again can help, with or without an effect already.
    pub fn is_retryable(&self) -> bool {
        self.retry() != Retry::Never
    }
}

/// Renders an error with all its sources on one line, for logs.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
