//! What can go wrong with bundles.

use crate::config;
use crate::error::StoreError;
use crate::policy::DocumentError;

/// Why bundles were not read or changed. Except for [`Error::Store`], nothing has happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No id was given.
    #[error("bundle id required")]
    IdRequired,
    /// The id cannot be one.
    #[error("bundle id is {0}")]
    InvalidId(&'static str),
    /// Bundles of packs and of the core are not edited here.
    #[error("bundle id must start with secops/")]
    NotSecops,
    /// No text was given.
    #[error("content required")]
    ContentRequired,
    /// The text is longer than a policy may be.
    #[error("policy content too large: {size} bytes, the limit is {limit}")]
    ContentTooLarge {
        /// How long it is.
        size: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The text is no policy.
    #[error("invalid policy content: {0}")]
    Content(#[source] DocumentError),
    /// A bundle that would be in force is no policy.
    #[error("invalid policy bundle {id:?}: {error}")]
    Bundle {
        /// Which one.
        id: String,
        /// Why not.
        #[source]
        error: DocumentError,
    },
    /// There is no such bundle.
    #[error("bundle not found")]
    NotFound,
    /// What is stored under the id is no bundle.
    #[error("bundle invalid")]
    NotABundle,
    /// There is nothing to publish at all.
    #[error("no bundles configured")]
    NoBundles,
    /// None of them may be published here.
    #[error("no secops bundles to publish")]
    NothingToPublish,
    /// No snapshot was named.
    #[error("snapshot id required")]
    SnapshotIdRequired,
    /// There is no such snapshot.
    #[error("snapshot not found")]
    SnapshotNotFound,
    /// The writer has not seen the last change.
    #[error("policy bundles have revision {found}, not {expected}")]
    Conflict {
        /// The revision that the writer knows.
        expected: u64,
        /// The present one.
        found: u64,
    },
    /// Others changed the bundles all the time.
    #[error("policy bundles are being changed by others, try again")]
    Contended,
    /// All bundles together are more than is kept.
    #[error("policy bundles too large together: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// How large they would be.
        size: usize,
        /// How large they may be.
        limit: usize,
    },
    /// A thread that read policy is gone.
    #[error("reading policy was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The store failed.
    #[error("config store failed")]
    Store(#[from] StoreError),
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        match error {
            config::Error::Store(error) => Self::Store(error),
            config::Error::TooLarge { size, limit } => Self::TooLarge { size, limit },
            config::Error::Conflict { expected, found } => Self::Conflict { expected, found },
            // The names of the documents are fixed here, so that nothing else is left.
            _ => Self::Contended,
        }
    }
}

impl From<config::UpdateError<Error>> for Error {
    fn from(error: config::UpdateError<Error>) -> Self {
        match error {
            config::UpdateError::Refused(error) => error,
            config::UpdateError::Config(error) => error.into(),
        }
    }
}
