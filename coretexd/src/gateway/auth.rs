//! Who is calling. See `docs/spec/http.md` §4.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::settings::{Secret, normalize};

/// Checks keys in constant time: digests are compared, so that not even the length shows.
#[derive(Debug, Clone)]
pub(super) struct Keys(Option<[u8; 32]>);

impl Keys {
    /// The configured key; without one, everybody may call.
    pub(super) fn new(key: Option<&Secret>) -> Self {
        Self(key.map(|key| digest(key.expose())))
    }

    /// Whether a key is demanded at all.
    pub(super) fn demanded(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the request carries the key, if one is demanded.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.0 else {
            return true;
        };
        headers
            .get("x-api-key")
            .and_then(|key| key.to_str().ok())
            .is_some_and(|key| digest(normalize(key)).ct_eq(expected).into())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The identity that a client with the key asserts.
#[derive(Debug, Clone, Default)]
pub(super) struct Principal {
    /// Who.
    pub(super) id: String,
    /// In which role.
    pub(super) role: String,
}

impl Principal {
    /// Reads the identity headers.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            id: text("x-principal-id"),
            role: text("x-principal-role"),
        }
    }
}
