//! Bundles as they are shown. See `docs/spec/policy.md` §12.2.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::stored::{SECOPS, is_enabled, text};
use crate::protocol::hash::hex;

/// A bundle without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id.
    pub id: String,
    /// Whether it is meant to be in force.
    pub enabled: bool,
    /// `secops`, `pack` or `core`.
    pub source: &'static str,
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What the author said about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it came to be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// When it was last changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated_at: String,
    /// The version of its pack.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// When its pack was installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub installed_at: String,
    /// The hash of its text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

impl Summary {
    pub(super) fn new(id: &str, bundle: &Value) -> Self {
        let mut sha256 = member(bundle, "sha256");
        let content = text(bundle).unwrap_or_default().trim();
        if sha256.is_empty() && !content.is_empty() {
            sha256 = hex(&Sha256::digest(content));
        }
        Self {
            id: id.to_owned(),
            enabled: is_enabled(bundle),
            source: source(id),
            author: member(bundle, "author"),
            message: member(bundle, "message"),
            created_at: member(bundle, "created_at"),
            updated_at: member(bundle, "updated_at"),
            version: member(bundle, "version"),
            installed_at: member(bundle, "installed_at"),
            sha256,
        }
    }
}

/// One bundle with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// Its id.
    pub id: String,
    /// Its text, trimmed.
    pub content: String,
    /// Whether it is meant to be in force.
    pub enabled: bool,
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What the author said about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it came to be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// When it was last changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated_at: String,
    /// The revision of all bundles together, to send back with a change.
    pub revision: u64,
}

impl Bundle {
    /// `None` if the value is neither an object nor a text.
    pub(super) fn new(id: &str, bundle: &Value, revision: u64) -> Option<Self> {
        if !bundle.is_object() && !bundle.is_string() {
            return None;
        }
        Some(Self {
            id: id.to_owned(),
            content: text(bundle).unwrap_or_default().trim().to_owned(),
            enabled: is_enabled(bundle),
            author: member(bundle, "author"),
            message: member(bundle, "message"),
            created_at: member(bundle, "created_at"),
            updated_at: member(bundle, "updated_at"),
            revision,
        })
    }
}

/// Who a bundle belongs to, by its id.
fn source(id: &str) -> &'static str {
    if id.starts_with(SECOPS) {
        "secops"
    } else if id.contains('/') {
        "pack"
    } else {
        "core"
    }
}

/// A member as text; empty if it is not there.
pub(super) fn member(bundle: &Value, name: &str) -> String {
    match bundle.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// docs/spec/policy.md §12.2.
    #[test]
    fn summaries_say_what_is_known() {
        const HASH: &str = "4c78a43ba8e45d62342a15ba97c10e4ac9acb1ba69a5043ddcb30e2e8ed74b52";
        let sha = hex(&Sha256::digest("rules: []"));
        for (id, bundle, expected) in [
            (
                "secops/a",
                json!(" rules: []\n"),
                json!({"id": "secops/a", "enabled": true, "source": "secops", "sha256": sha}),
            ),
            (
                "sre/b/c",
                json!({"content": "x", "sha256": HASH, "version": "1.2", "installed_at": "t", "enabled": 0}),
                json!({"id": "sre/b/c", "enabled": false, "source": "pack", "sha256": HASH, "version": "1.2", "installed_at": "t"}),
            ),
            (
                "plain",
                json!({"content": " ", "author": "ann", "message": "m", "created_at": "c", "updated_at": "u"}),
                json!({"id": "plain", "enabled": true, "source": "core", "author": "ann", "message": "m", "created_at": "c", "updated_at": "u"}),
            ),
            (
                "secops",
                json!(null),
                json!({"id": "secops", "enabled": true, "source": "core"}),
            ),
        ] {
            assert_eq!(serde_json::to_value(Summary::new(id, &bundle)).unwrap(), expected);
        }
        assert!(Bundle::new("a", &json!([]), 1).is_none());
        assert_eq!(Bundle::new("a", &json!(" x "), 1).unwrap().content, "x");
    }
}
