//! The file of API keys: who holds which key, in which roles. See `docs/configuration.md` §5.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::normalize;

/// The largest file of keys that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Everything.
    Admin,
    /// Write policy, approve, and everything an operator may.
    Secops,
    /// Submit, cancel, approve, configure; not policy.
    Operator,
    /// Read.
    Viewer,
    /// Read what workers need.
    Worker,
}

impl KeyRole {
    /// The name in files and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Secops => "secops",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Worker => "worker",
        }
    }
}

/// The SHA-256 of a key. The key itself is nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a key as clients send it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(normalize(key).as_bytes()).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = text.trim();
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex).as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:…")
    }
}

impl Serialize for KeyHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("sha256:…")
    }
}

/// One key, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyEntry {
    /// The hash of the key.
    pub hash: KeyHash,
    /// Who holds it.
    pub principal: String,
    /// In which roles.
    pub roles: Vec<KeyRole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    principal: String,
    roles: Vec<KeyRole>,
}

/// Reads the file. Every mistake refuses it: a key that is left out by mistake locks somebody out, one that is read wrongly
/// lets somebody in.
pub(super) fn load(path: &Path) -> Result<Vec<KeyEntry>, String> {
    let at = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{at}: {error}"))?.len();
    if size > MAX_BYTES {
        return Err(format!("{at}: {size} bytes; a file of keys has at most {MAX_BYTES}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{at}: {error}"))?;
    parse(&text).map_err(|problem| format!("{at}: {problem}"))
}

fn parse(text: &str) -> Result<Vec<KeyEntry>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut keys: Vec<KeyEntry> = Vec::with_capacity(file.keys.len());
    for (number, entry) in (1..).zip(file.keys) {
        let problem = |what: &str| Err(format!("keys[{number}]: {what}"));
        let Some(hash) = KeyHash::parse(&entry.hash) else {
            return problem("hash: expected `sha256:` and 64 hexadecimal digits, as `coretexctl key new` prints them");
        };
        let principal = entry.principal.trim();
        if principal.is_empty() {
            return problem("principal: empty; name who holds the key");
        }
        if entry.roles.is_empty() {
            return problem("roles: empty; expected some of admin, secops, operator, viewer, worker");
        }
        if let Some(other) = keys.iter().position(|key| key.hash == hash) {
            return Err(format!("keys[{number}]: hash: the same key as keys[{}]", other + 1));
        }
        keys.push(KeyEntry {
            hash,
            principal: principal.to_owned(),
            roles: entry.roles,
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hash: &str) -> String {
        format!("keys:\n- {{hash: \"{hash}\", principal: alice, roles: [secops, viewer]}}\n")
    }

    #[test]
    fn keys_are_read() {
        let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        for text in [hash.to_owned(), format!("sha256:{hash}"), hash.to_uppercase()] {
            let keys = parse(&entry(&text)).expect("a good file");
            assert_eq!(keys[0].hash, KeyHash::of("foo"));
            assert_eq!(keys[0].roles, [KeyRole::Secops, KeyRole::Viewer]);
        }
        assert_eq!(parse("keys: []").expect("no keys"), []);
    }

    #[test]
    fn mistakes_are_named() {
        let hash = "0".repeat(64);
        for (text, what) in [
            (entry("12"), "keys[1]: hash:"),
            (entry(&"z".repeat(64)), "keys[1]: hash:"),
            (entry(&hash).replace("alice", "' '"), "principal: empty"),
            (entry(&hash).replace("secops, viewer", ""), "roles: empty"),
            (entry(&hash).replace("viewer", "root"), "root"),
            (entry(&hash).replace("roles", "rolls"), "rolls"),
            (
                entry(&hash).replace("principal: alice", "principal: alice, tenant: a"),
                "tenant",
            ),
            (
                format!("{}{}", entry(&hash), entry(&hash).replace("keys:\n", "")),
                "the same key as keys[1]",
            ),
        ] {
            let problem = parse(&text).expect_err(&text);
            assert!(problem.contains(what), "{text}: {problem}");
        }
    }
}
