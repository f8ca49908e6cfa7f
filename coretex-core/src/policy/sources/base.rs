//! The base policy: one document from a file or an address. See `docs/spec/policy.md` §8.2.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fetch::{Fetch, Fetched};
use super::signature::Signed;
use crate::policy::kernel::LoadError;
use crate::policy::model::MAX_DOCUMENT_BYTES;

/// Where the base policy is.
#[derive(Debug, Clone)]
pub struct Base {
    place: Place,
    signed: Option<Signed>,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Address { url: String, fetch: Arc<dyn Fetch> },
    Text { name: String, text: Arc<str> },
}

/// What a base policy consists of, verified.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Bytes {
    pub(in crate::policy) bytes: Vec<u8>,
    /// To ask for changes with.
    pub(in crate::policy) etag: Option<String>,
}

impl Base {
    /// In a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::File(path.into()))
    }

    /// At an address, which `fetch` understands.
    pub fn address(url: impl Into<String>, fetch: Arc<dyn Fetch>) -> Self {
        Self::at(Place::Address { url: url.into(), fetch })
    }

    /// This text; `name` is what errors call it.
    pub fn text(name: &str, text: &str) -> Self {
        Self::at(Place::Text {
            name: name.to_owned(),
            text: text.into(),
        })
    }

    fn at(place: Place) -> Self {
        Self { place, signed: None }
    }

    /// Only if it is signed.
    #[must_use]
    pub fn signed(mut self, signed: Signed) -> Self {
        self.signed = Some(signed);
        self
    }

    /// What it is called, without credentials.
    pub fn name(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Address { url, .. } => without_secrets(url),
            Place::Text { name, .. } => name.clone(),
        }
    }

    /// Reads and verifies it; `None` if it is still what `etag` stands for.
    pub(in crate::policy) async fn read(&self, etag: Option<&str>) -> Result<Option<Bytes>, LoadError> {
        let bytes = match &self.place {
            Place::File(path) => {
                let (path, signed) = (path.clone(), self.signed.clone());
                let read = tokio::task::spawn_blocking(move || {
                    let bytes = read_file(&path)?;
                    verify(signed.as_ref(), &bytes, Some(&path)).map(|()| bytes)
                });
                let bytes = read.await.unwrap_or_else(|error| Err(LoadError::Interrupted(error)))?;
                return Ok(Some(Bytes { bytes, etag: None }));
            }
            Place::Address { url, fetch } => {
                let fetched = fetch
                    .fetch(url, etag, MAX_DOCUMENT_BYTES)
                    .await
                    .map_err(|source| LoadError::Fetch {
                        address: self.name(),
                        source,
                    })?;
                match fetched {
                    Fetched::Unchanged => return Ok(None),
                    Fetched::Body { bytes, etag } => Bytes { bytes, etag },
                }
            }
            Place::Text { text, .. } => Bytes {
                bytes: text.as_bytes().to_vec(),
                etag: None,
            },
        };
        let Some(signed) = self.signed.clone() else {
            return Ok(Some(bytes));
        };
        tokio::task::spawn_blocking(move || verify(Some(&signed), &bytes.bytes, None).map(|()| Some(bytes)))
            .await
            .unwrap_or_else(|error| Err(LoadError::Interrupted(error)))
    }
}

fn verify(signed: Option<&Signed>, bytes: &[u8], file: Option<&Path>) -> Result<(), LoadError> {
    signed.map_or(Ok(()), |signed| {
        signed.verify(bytes, file).map_err(LoadError::Signature)
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            // One byte more than allowed, so that the reader of the document sees that there is more.
            .take(MAX_DOCUMENT_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

/// An address without user, password and query, any of which may be a secret.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
