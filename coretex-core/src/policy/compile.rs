//! From a document to a policy that answers quickly. See `docs/spec/policy.md` §7.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::conditions::Conditions;
use super::fold;
use super::glob::Glob;
use super::index::Index;
use super::mcp::McpRules;
use super::model::{self, Document};
use super::problem::{DocumentError, Problem};
use crate::jobs::Decision;
use crate::protocol::agent::{
    BudgetConstraints, DiffConstraints, PolicyConstraints, SandboxProfile, ToolchainConstraints,
};

/// A policy, ready to [`evaluate`](super::evaluate). Immutable; changes come as a new one.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    pub(super) snapshot: String,
    pub(super) default_tenant: String,
    pub(super) default_decision: Option<Decision>,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) index: Index,
    /// By folded name.
    pub(super) guards: HashMap<Box<str>, Guard>,
}

#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub(super) id: String,
    pub(super) decision: Decision,
    pub(super) reason: String,
    pub(super) constraints: Option<PolicyConstraints>,
    pub(super) conditions: Conditions,
}

/// What is enforced for one tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    pub(super) deny: Vec<DerivedRule>,
    pub(super) allow: Vec<DerivedRule>,
    pub(super) mcp: McpRules,
}

/// A rule that stands for one entry of a tenant's topic lists.
#[derive(Debug, Clone)]
pub(super) struct DerivedRule {
    pub(super) id: String,
    pub(super) topic: Glob,
    pub(super) reason: String,
    /// Where it is written.
    pub(super) source: String,
}

impl CompiledPolicy {
    /// Reads and compiles a document; `name` is what errors call it.
    ///
    /// # Errors
    /// [`DocumentError`] if it is refused.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<(Self, Vec<Problem>), DocumentError> {
        let parsed = Document::parse(bytes, name)?;
        let snapshot = snapshot_id(&parsed.document.version, bytes);
        Ok((Self::new(&parsed.document, snapshot), parsed.warnings))
    }

    /// Compiles a document that is known as `snapshot`.
    pub fn new(document: &Document, snapshot: String) -> Self {
        let rules: Vec<CompiledRule> = document.rules.iter().map(CompiledRule::new).collect();
        let index = Index::new(rules.iter().map(|rule| &rule.conditions));
        let mut guards: HashMap<Box<str>, Guard> = HashMap::new();
        for (tenant, policy) in &document.tenants {
            guards.entry(fold::fold(tenant).into()).or_default().add(tenant, policy);
        }
        Self {
            snapshot,
            default_tenant: document.default_tenant.trim().to_owned(),
            default_decision: document.default_decision.0,
            rules,
            index,
            guards,
        }
    }

    /// The policy without rules.
    pub fn empty() -> Self {
        Self::new(&Document::default(), snapshot_id("", b""))
    }

    /// Whether it was made from these bytes.
    pub(super) fn is_made_from(&self, bytes: &[u8]) -> bool {
        let hash = hex(&Sha256::digest(bytes));
        self.snapshot.rsplit(':').next() == Some(&hash)
    }

    /// Whether it says nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.guards.is_empty() && matches!(self.default_decision, None | Some(Decision::Allow))
    }

    /// Its snapshot id.
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// The place of the rule with this id, from 1.
    pub(super) fn rule_number(&self, id: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.id == id).map(|index| index + 1)
    }

    /// How many rules it has.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

impl CompiledRule {
    fn new(rule: &model::Rule) -> Self {
        Self {
            id: rule.id.clone(),
            // A document without it is refused; fail closed all the same.
            decision: rule.decision.0.unwrap_or(Decision::Deny),
            reason: rule.reason.clone(),
            constraints: constraints(&rule.constraints),
            conditions: Conditions::new(&rule.conditions),
        }
    }
}

impl Guard {
    fn add(&mut self, tenant: &str, policy: &model::TenantPolicy) {
        let derive = |list: &str, word: &str, patterns: &[model::Pattern]| -> Vec<DerivedRule> {
            (1..)
                .zip(patterns)
                .map(|(number, pattern)| DerivedRule {
                    id: format!("legacy:{tenant}:{word}:{number}"),
                    topic: pattern.0.clone(),
                    reason: format!("topic '{}' denied by tenant policy", pattern.0),
                    source: format!("tenants.{tenant}.{list}"),
                })
                .filter(|rule| !rule.topic.as_str().is_empty())
                .collect()
        };
        self.deny.extend(derive("deny_topics", "deny", &policy.deny_topics));
        self.allow.extend(derive("allow_topics", "allow", &policy.allow_topics));
        self.mcp.merge(McpRules::new(&policy.mcp));
    }
}

/// `sha256`, or `version:sha256` (docs/spec/policy.md §8).
fn snapshot_id(version: &str, bytes: &[u8]) -> String {
    let hash = hex(&Sha256::digest(bytes));
    if version.is_empty() {
        hash
    } else {
        format!("{version}:{hash}")
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .collect()
}

/// `None` if they limit nothing.
fn constraints(written: &model::Constraints) -> Option<PolicyConstraints> {
    let model::Constraints {
        budgets,
        sandbox,
        toolchain,
        diff,
        redaction_level,
    } = written;
    let budgets = BudgetConstraints {
        max_runtime_ms: budgets.max_runtime_ms,
        max_retries: budgets.max_retries,
        max_artifact_bytes: budgets.max_artifact_bytes,
        max_concurrent_jobs: budgets.max_concurrent_jobs,
    };
    let sandbox = SandboxProfile {
        isolated: sandbox.isolated,
        network_allowlist: sandbox.network_allowlist.clone(),
        fs_read_only: sandbox.fs_read_only.clone(),
        fs_read_write: sandbox.fs_read_write.clone(),
    };
    let toolchain = ToolchainConstraints {
        allowed_tools: toolchain.allowed_tools.clone(),
        allowed_commands: toolchain.allowed_commands.clone(),
    };
    let diff = DiffConstraints {
        max_files: diff.max_files,
        max_lines: diff.max_lines,
        deny_path_globs: diff.deny_path_globs.clone(),
    };
    let nothing = budgets == BudgetConstraints::default()
        && sandbox == SandboxProfile::default()
        && toolchain == ToolchainConstraints::default()
        && diff == DiffConstraints::default()
        && redaction_level.trim().is_empty();
    (!nothing).then(|| PolicyConstraints {
        budgets: Some(budgets),
        sandbox: Some(sandbox),
        toolchain: Some(toolchain),
        diff: Some(diff),
        redaction_level: redaction_level.clone(),
    })
}
