//! What policy allows a job to do.

use serde::{Deserialize, Deserializer};

/// The limits that the policy's decision puts on a job, from `CORETEX_POLICY_CONSTRAINTS`.
///
/// Zero and empty mean that nothing was said. The worker itself enforces `max_runtime_ms` (through the deadline),
/// `max_retries` and `max_artifact_bytes`; the rest is for the handler to respect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct PolicyConstraints {
    /// Time, attempts and sizes.
    pub budgets: Budgets,
    /// Where the work may happen.
    pub sandbox: Sandbox,
    /// With which tools.
    pub toolchain: Toolchain,
    /// How large a change may be.
    pub diff: DiffLimits,
    /// How thoroughly secrets must be removed from the output.
    pub redaction_level: String,
}

/// Time, attempts and sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Budgets {
    /// Milliseconds from receipt to the end.
    #[serde(deserialize_with = "integer")]
    pub max_runtime_ms: i64,
    /// Attempts after the first.
    #[serde(deserialize_with = "integer")]
    pub max_retries: i64,
    /// Bytes of one artifact.
    #[serde(deserialize_with = "integer")]
    pub max_artifact_bytes: i64,
    /// Jobs of the tenant at once.
    #[serde(deserialize_with = "integer")]
    pub max_concurrent_jobs: i64,
}

/// Where the work may happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Sandbox {
    /// Whether it must be isolated.
    pub isolated: bool,
    /// Hosts that may be reached.
    pub network_allowlist: Vec<String>,
    /// Paths that may be read.
    pub fs_read_only: Vec<String>,
    /// Paths that may be written.
    pub fs_read_write: Vec<String>,
}

/// Which tools may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Toolchain {
    /// By name.
    pub allowed_tools: Vec<String>,
    /// By command line.
    pub allowed_commands: Vec<String>,
}

/// How large a change may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct DiffLimits {
    /// Files touched.
    #[serde(deserialize_with = "integer")]
    pub max_files: i64,
    /// Lines changed.
    #[serde(deserialize_with = "integer")]
    pub max_lines: i64,
    /// Paths that may not be touched.
    pub deny_path_globs: Vec<String>,
}

/// Protobuf JSON writes 64-bit integers as text, and readers have to take both.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_protobuf_json() {
        let text = r#"{"budgets":{"maxRuntimeMs":"60000","maxRetries":2,"maxArtifactBytes":"1024"},
            "sandbox":{"isolated":true,"fsReadOnly":["/src"]},"toolchain":{"allowedTools":["git"]},
            "diff":{"maxFiles":3},"redactionLevel":"strict","somethingNew":1}"#;
        let read: PolicyConstraints = serde_json::from_str(text).unwrap();
        assert_eq!(read.budgets.max_runtime_ms, 60_000);
        assert_eq!(read.budgets.max_retries, 2);
        assert_eq!(read.budgets.max_artifact_bytes, 1_024);
        assert!(read.sandbox.isolated);
        assert_eq!(read.sandbox.fs_read_only, ["/src"]);
        assert_eq!(read.toolchain.allowed_tools, ["git"]);
        assert_eq!(read.diff.max_files, 3);
        assert_eq!(read.redaction_level, "strict");
    }

    #[test]
    fn refuses_what_is_no_number() {
        assert!(serde_json::from_str::<PolicyConstraints>(r#"{"budgets":{"maxRuntimeMs":"soon"}}"#).is_err());
    }
}
