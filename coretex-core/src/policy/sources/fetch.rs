//! Policy from elsewhere. The domain speaks no HTTP: whoever starts a kernel brings somebody who does.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::BoxError;

/// As long may a fetch take, redirects and body included.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Still what the given tag stands for.
    Unchanged,
    /// All of it.
    Body {
        /// As it was sent.
        bytes: Vec<u8>,
        /// The tag to ask with next time.
        etag: Option<String>,
    },
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server answered, and not with success.
    #[error("policy fetch status {0}")]
    Status(u16),
    /// There is more than anybody should send.
    #[error("policy fetch: more than {max} bytes")]
    TooLarge {
        /// What is allowed.
        max: usize,
    },
    /// The server was not reached, or did not finish within [`FETCH_TIMEOUT`].
    #[error("policy fetch failed")]
    Failed(#[source] BoxError),
}

/// Fetches what an address names.
#[async_trait]
pub trait Fetch: Send + Sync + fmt::Debug + 'static {
    /// Gets `url`, following redirects, within [`FETCH_TIMEOUT`]. With `etag`, only if it changed; never more than `max`
    /// bytes.
    ///
    /// # Errors
    /// [`FetchError`] says why not.
    async fn fetch(&self, url: &str, etag: Option<&str>, max: usize) -> Result<Fetched, FetchError>;
}
