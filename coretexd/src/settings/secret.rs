//! Texts that must not show up in logs, errors or printed settings.

use std::fmt;

use serde::{Serialize, Serializer};

/// What is printed instead.
const MASK: &str = "********";

/// A key. Prints and serializes as a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key, stripped as clients and deployments quote it (docs/spec/http.md §4). `None` if nothing is left.
    pub fn normalized(text: &str) -> Option<Self> {
        let text = normalize(text);
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Trims white space, then quotes, then white space (docs/spec/http.md §4).
pub fn normalize(text: &str) -> &str {
    text.trim().trim_matches(['"', '\'']).trim()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// The address of a server, which may hold credentials. Prints and serializes without them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Wraps an address.
    pub fn new(url: &str) -> Self {
        Self(url.trim().to_owned())
    }

    /// The address with its credentials.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address without credentials.
    pub fn redacted(&self) -> String {
        redact(&self.0)
    }
}

/// Masks the credentials in each of a comma-separated list of URLs.
pub fn redact(urls: &str) -> String {
    let one = |url: &str| {
        let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let shown = match authority.rsplit_once('@') {
            Some((_, host)) => format!("***@{host}"),
            None => authority.to_owned(),
        };
        let separator = if scheme.is_empty() { "" } else { "://" };
        format!("{scheme}{separator}{shown}{tail}")
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_credentials_and_nothing_else() {
        for (url, shown) in [
            ("nats://localhost:4222", "nats://localhost:4222"),
            (
                "nats://me:secret@a:4222,nats://b:4222",
                "nats://***@a:4222,nats://b:4222",
            ),
            ("rediss://:p@ss@host:6379/0?x=@y", "rediss://***@host:6379/0?x=@y"),
            ("me:secret@host", "***@host"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ] {
            assert_eq!(redact(url), shown);
            assert_eq!(format!("{:?}", ServerUrl::new(url)), shown);
        }
    }

    #[test]
    fn keys_are_stripped_of_quotes() {
        for text in ["key", " key ", "'key'", "\"key\"", " \"' key'\" "] {
            assert_eq!(Secret::normalized(text).unwrap().expose(), "key", "{text:?}");
        }
        assert_eq!(Secret::normalized(" '' "), None);
    }
}
