//! Fetches policy over HTTP. See `docs/spec/policy.md` §8.2.

use async_trait::async_trait;
use coretex_core::policy::{FETCH_TIMEOUT, Fetch, FetchError, Fetched};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, StatusCode};

/// A client that follows redirects and sends no credentials of its own.
#[derive(Debug)]
pub(crate) struct HttpFetch {
    client: Client,
}

impl HttpFetch {
    /// # Errors
    /// What TLS lacks on this machine.
    pub(crate) fn new() -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .user_agent(concat!("coretexd/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client })
    }
}

/// Its text has no address: that may hold credentials.
fn failed(error: reqwest::Error) -> FetchError {
    FetchError::Failed(error.without_url().into())
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str, etag: Option<&str>, max: usize) -> Result<Fetched, FetchError> {
        let mut request = self.client.get(url);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(Fetched::Unchanged);
        }
        if !status.is_success() {
            return Err(FetchError::Status(status.as_u16()));
        }
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > max {
                return Err(FetchError::TooLarge { max });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Fetched::Body { bytes, etag })
    }
}

#[cfg(test)]
mod tests;
