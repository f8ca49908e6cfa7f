//! Ids as types, so that two of them cannot be swapped.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest id, in bytes (docs/spec/protocol.md §4).
pub(crate) const MAX_ID_BYTES: usize = 256;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Nothing is left after trimming.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of id.
        what: &'static str,
    },
    /// Longer than 256 bytes.
    #[error("{what} is {bytes} bytes long; the limit is {MAX_ID_BYTES}")]
    TooLong {
        /// Which kind of id.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// Holds a control character.
    #[error("{what} holds the control character {character:?} at byte {at}")]
    Control {
        /// Which kind of id.
        what: &'static str,
        /// The character.
        character: char,
        /// Its byte offset.
        at: usize,
    },
}

fn check<'a>(what: &'static str, text: &'a str) -> Result<&'a str, IdError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong {
            what,
            bytes: text.len(),
        });
    }
    if let Some((at, character)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(IdError::Control { what, character, at });
    }
    Ok(text)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and trims: not empty, at most 256 bytes, no control characters.
            ///
            /// # Errors
            /// [`IdError`] names what is wrong.
            pub fn try_new(text: &str) -> Result<Self, IdError> {
                check($what, text).map(|text| Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::try_new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// Names one job, for ever. Cheap to clone.
    JobId, "job_id"
}
id! {
    /// Groups the jobs of one request tree.
    TraceId, "trace_id"
}
id! {
    /// Names one worker process.
    WorkerId, "worker_id"
}
id! {
    /// Names one tenant.
    TenantId, "tenant_id"
}
id! {
    /// What kind of work a job is, and the subject its workers share.
    Topic, "topic"
}
id! {
    /// Names one running control-plane process.
    InstanceId, "instance_id"
}

impl JobId {
    /// A new id: a UUID of version 7, so that ids made together are kept together in ordered stores.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl TraceId {
    /// A new id: a UUID of version 7, so that ids made together are kept together in ordered stores.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl InstanceId {
    /// A new id: a UUID of version 7, so that ids made together are kept together in ordered stores.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl TenantId {
    /// The tenant of requests that name none (docs/spec/protocol.md §4).
    pub fn fallback() -> Self {
        Self("default".into())
    }
}

impl WorkerId {
    /// Whether the id is one NATS token, so that `worker.<id>.jobs` is a subject of its own.
    pub fn is_token(&self) -> bool {
        !self
            .0
            .contains(|c: char| c == '.' || c == '*' || c == '>' || c.is_whitespace())
    }
}

#[cfg(test)]
mod tests;
