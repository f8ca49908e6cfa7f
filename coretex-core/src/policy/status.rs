//! How a kernel is doing. See `docs/spec/policy.md` §8.9.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// How a kernel is doing, for status pages and health checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// The active policy; `None` while there are no decisions.
    pub snapshot: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
    /// Where it comes from.
    pub sources: Vec<SourceStatus>,
    /// Fragments whose present text is refused.
    pub quarantined: Vec<Quarantined>,
    /// Why the last load failed, if it did. What was good before stays active.
    pub last_error: Option<String>,
}

impl KernelStatus {
    /// Whether every configured source has been read at least once, so that there are decisions.
    pub fn is_ready(&self) -> bool {
        self.snapshot.is_some() && self.sources.iter().all(|source| source.ok)
    }
}

/// Something odd in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Which document: a path, an address, or the id of a fragment; empty if it is about all of them.
    pub document: String,
    /// What is odd.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.document.is_empty() {
            let space = if self.problem.line > 0 { "" } else { " " };
            write!(f, "{}:{space}", self.document)?;
        }
        self.problem.fmt(f)
    }
}

/// One place that policy is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Which: the path or address of the base policy, or the document of the fragments.
    pub name: String,
    /// Whether it has been read at least once. Until then there are no decisions.
    pub ok: bool,
    /// What is in force from it, and what is wrong with it now, if anything.
    pub detail: String,
}

/// A fragment whose present text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its id.
    pub fragment: String,
    /// Why.
    pub error: String,
    /// Whether an earlier text of it is in force meanwhile.
    pub last_good: bool,
}
