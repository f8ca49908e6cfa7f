//! Why a decision is what it is, in full. See `docs/spec/policy.md` §9.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Policy texts to judge by in place of those in force, by fragment id. A blank text takes the fragment away.
pub type Drafts = BTreeMap<String, String>;

/// The name of the base policy among drafts and origins.
pub const BASE: &str = "base";

/// A rule, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// Its id; may be empty.
    pub id: String,
    /// The fragment it is in; [`BASE`] for the base policy.
    pub origin: String,
    /// Its place among all rules, from 1.
    pub number: usize,
}

/// One condition of a rule, tried on the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCheck {
    /// Which one: `topics`, `labels`, ….
    pub condition: String,
    /// Whether it held.
    pub holds: bool,
    /// On what, or why not, for people: `topics: job.sre.* does not match job.ops`.
    pub detail: String,
}

/// A rule that failed on exactly one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// What it would have decided, in the words of documents.
    pub decision: String,
    /// The condition that failed.
    pub failed: ConditionCheck,
}

/// Where one limit comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstraintOrigin {
    /// The limit: `budgets.max_runtime_ms`.
    pub field: String,
    /// Its value.
    pub value: serde_json::Value,
    /// The rule that sets it.
    pub rule: RuleRef,
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The tenant it was judged for.
    pub tenant: String,
    /// The rule that decided; `None` if it was a default, a tenant's list, or a malformed request.
    pub rule: Option<RuleRef>,
    /// Every condition of that rule, in the order of the language.
    pub conditions: Vec<ConditionCheck>,
    /// What decided in place of a rule, or over it, one line each.
    pub overrides: Vec<String>,
    /// Rules before the one that decided that failed on exactly one condition, in order; the first few.
    pub near_misses: Vec<NearMiss>,
    /// Where each limit comes from.
    pub constraints: Vec<ConstraintOrigin>,
}
