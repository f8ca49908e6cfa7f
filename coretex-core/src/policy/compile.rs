//! From a document to a policy that answers quickly. See `docs/spec/policy.md` §7.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::conditions::Conditions;
use super::explanation::BASE;
use super::fold;
use super::glob::Glob;
use super::index::Index;
use super::mcp::McpRules;
use super::model::{self, Approval, Document};
use super::parts::{Part, PartKind, strictest};
use super::problem::{DocumentError, Problem};
use super::status::Warning;
use super::terms::strictest_terms;
use crate::jobs::{ApprovalTerms, Decision};
use crate::protocol::agent::{
    BudgetConstraints, DiffConstraints, PolicyConstraints, PolicyRemediation, SandboxProfile, ToolchainConstraints,
};

/// A policy, ready to [`evaluate`](super::evaluate). Immutable; changes come as a new one.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    pub(super) snapshot: String,
    pub(super) default_tenant: String,
    /// The strictest that a trusted part names.
    pub(super) default_decision: Option<Decision>,
    /// On which terms people say yes where nothing else is said.
    pub(super) default_terms: ApprovalTerms,
    /// The origins of rules.
    pub(super) origins: Vec<String>,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) index: Index,
    /// By folded name.
    pub(super) guards: HashMap<Box<str>, Guard>,
}

#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub(super) id: String,
    /// Which of the parts it is in.
    pub(super) part: usize,
    /// What it decides: what is written, unless that would loosen the default decision and it may not.
    pub(super) decision: Decision,
    /// What is written.
    pub(super) written: Decision,
    pub(super) reason: String,
    pub(super) constraints: Option<PolicyConstraints>,
    /// Set if it asks for approval.
    pub(super) terms: Option<ApprovalTerms>,
    pub(super) remediations: Vec<PolicyRemediation>,
    pub(super) conditions: Conditions,
}

/// What is enforced for one tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    pub(super) deny: Vec<DerivedRule>,
    pub(super) allow: Vec<DerivedRule>,
    pub(super) mcp: McpRules,
    /// Those of packs, which have to be passed as well: an allow list of theirs must not widen another.
    pub(super) pack_mcp: McpRules,
}

/// A rule that stands for one entry of a tenant's topic lists.
#[derive(Debug, Clone)]
pub(super) struct DerivedRule {
    pub(super) id: String,
    pub(super) topic: Glob,
    pub(super) reason: String,
    /// Whether it may loosen the default decision.
    pub(super) trusted: bool,
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
        let (policy, more) = Self::from_parts(vec![Part::base(parsed.document)], snapshot);
        let mut warnings = parsed.warnings;
        warnings.extend(more.into_iter().map(|warning| warning.problem));
        Ok((policy, warnings))
    }

    /// Compiles documents, in decisive order, that are known together as `snapshot`. With what is odd about them
    /// together.
    pub fn from_parts(parts: Vec<Part>, snapshot: String) -> (Self, Vec<Warning>) {
        let warnings = oddities(&parts);
        let trusted = || parts.iter().filter(|part| !part.kind.only_tightens());
        let default_decision = trusted()
            .filter_map(|part| part.document.default_decision.0)
            .reduce(strictest);
        let default_tenant = trusted()
            .map(|part| part.document.default_tenant.trim())
            .find(|tenant| !tenant.is_empty())
            .unwrap_or_default()
            .to_owned();

        let approval = trusted().fold(Approval::default(), |so_far, part| so_far.or(&part.document.approval));
        let default_terms = approval.terms();

        let mut origins = Vec::with_capacity(parts.len());
        let mut rules = Vec::with_capacity(parts.iter().map(|part| part.document.rules.len()).sum());
        let mut guards = Guards::default();
        for (number, part) in parts.into_iter().enumerate() {
            for (tenant, policy) in &part.document.tenants {
                guards.add(tenant, policy, &part);
            }
            let context = Context {
                part: number,
                floor: default_decision.filter(|_| part.kind.only_tightens()),
                floor_terms: &default_terms,
                approval: part.document.approval.or(&approval),
            };
            rules.extend(
                part.document
                    .rules
                    .into_iter()
                    .map(|rule| CompiledRule::new(rule, &context)),
            );
            origins.push(part.origin);
        }
        let index = Index::new(rules.iter().map(|rule| &rule.conditions));
        let policy = Self {
            snapshot,
            default_tenant,
            default_decision,
            default_terms,
            origins,
            rules,
            index,
            guards: guards.by_tenant,
        };
        (policy, warnings)
    }

    /// The policy without rules.
    pub fn empty() -> Self {
        Self::from_parts(Vec::new(), snapshot_id("", b"")).0
    }

    /// Its snapshot id.
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// How many rules it has.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// What is odd about documents that are fine on their own (docs/spec/policy.md §4.7).
fn oddities(parts: &[Part]) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |document: &str, problem: Problem| {
        found.push(Warning {
            document: document.to_owned(),
            problem,
        });
    };
    let about = |key: &str, what: String| Problem {
        key: key.to_owned(),
        what,
        ..Problem::default()
    };
    if !parts
        .iter()
        .any(|part| !part.kind.only_tightens() && part.document.default_decision.0.is_some())
    {
        let what = "not set: jobs that no rule matches are allowed";
        warn(BASE, about("default_decision", what.to_owned()));
    }
    for part in parts.iter().filter(|part| part.kind.only_tightens()) {
        if part.document.default_decision.0.is_some() {
            let what = "ignored: only the base policy and `secops/` fragments set it";
            warn(&part.origin, about("default_decision", what.to_owned()));
        }
        if !part.document.default_tenant.trim().is_empty() {
            let what = "ignored: only the base policy and `secops/` fragments set it";
            warn(&part.origin, about("default_tenant", what.to_owned()));
        }
    }
    let mut seen: HashMap<&str, &Part> = HashMap::new();
    for part in parts {
        for (index, rule) in part.document.rules.iter().enumerate() {
            if rule.id.is_empty() {
                continue;
            }
            match seen.get(rule.id.as_str()) {
                Some(first) if first.origin != part.origin => {
                    let what = format!(
                        "also the id of a rule of `{}`: decisions do not tell them apart",
                        first.origin
                    );
                    let place = rule.place();
                    let problem = Problem {
                        line: place.line,
                        column: place.column,
                        rule: Some(rule.id.clone()),
                        ..about(&format!("rules[{index}].id"), what)
                    };
                    warn(&part.origin, problem);
                }
                Some(_) => {}
                None => {
                    seen.insert(&rule.id, part);
                }
            }
        }
    }
    found
}

/// What the rules of one part have in common.
struct Context<'a> {
    part: usize,
    /// What they must not loosen, if they can only tighten.
    floor: Option<Decision>,
    /// On which terms that lets people say yes.
    floor_terms: &'a ApprovalTerms,
    /// The terms where a rule says nothing.
    approval: Approval,
}

impl CompiledRule {
    fn new(rule: model::Rule, context: &Context<'_>) -> Self {
        // A document without it is refused; fail closed all the same.
        let written = rule.decision.0.unwrap_or(Decision::Deny);
        let decision = context.floor.map_or(written, |floor| strictest(written, floor));
        let terms = (decision == Decision::RequireApproval).then(|| {
            let written = rule.approval.unwrap_or_default().or(&context.approval).terms();
            match context.floor {
                Some(Decision::RequireApproval) => strictest_terms(&written, context.floor_terms),
                _ => written,
            }
        });
        Self {
            part: context.part,
            decision,
            written,
            reason: match decision {
                _ if decision == written => rule.reason,
                Decision::Deny => "the default decision is deny, and a pack cannot loosen it".to_owned(),
                _ => "the default decision is require_approval, and a pack cannot loosen it".to_owned(),
            },
            constraints: constraints(rule.constraints),
            terms,
            remediations: rule.remediations.iter().map(model::Remediation::to_wire).collect(),
            conditions: Conditions::new(&rule.conditions),
            id: rule.id,
        }
    }
}

#[derive(Debug, Default)]
struct Guards {
    by_tenant: HashMap<Box<str>, Guard>,
    /// Entries so far per list, by the name as it is written: they are numbered across parts.
    numbers: HashMap<(String, &'static str), usize>,
}

impl Guards {
    fn add(&mut self, tenant: &str, policy: &model::TenantPolicy, part: &Part) {
        let trusted = !part.kind.only_tightens();
        let source = match part.kind {
            PartKind::Base => format!("tenants.{tenant}"),
            _ => format!("{}: tenants.{tenant}", part.origin),
        };
        let numbers = &mut self.numbers;
        let mut derive = |word: &'static str, patterns: &[model::Pattern]| -> Vec<DerivedRule> {
            let before = numbers.entry((tenant.to_owned(), word)).or_default();
            let first = *before + 1;
            *before += patterns.len();
            (first..)
                .zip(patterns)
                .map(|(number, pattern)| DerivedRule {
                    id: format!("legacy:{tenant}:{word}:{number}"),
                    topic: pattern.0.clone(),
                    reason: format!("topic '{}' denied by tenant policy", pattern.0),
                    trusted,
                    source: format!("{source}.{word}_topics"),
                })
                .filter(|rule| !rule.topic.as_str().is_empty())
                .collect()
        };
        let deny = derive("deny", &policy.deny_topics);
        let allow = derive("allow", &policy.allow_topics);
        let guard = self.by_tenant.entry(fold::fold(tenant).into()).or_default();
        guard.deny.extend(deny);
        guard.allow.extend(allow);
        let mcp = if trusted { &mut guard.mcp } else { &mut guard.pack_mcp };
        mcp.merge(McpRules::new(&policy.mcp));
    }
}

/// `sha256`, or `version:sha256` (docs/spec/policy.md §8.1).
pub(super) fn snapshot_id(version: &str, bytes: &[u8]) -> String {
    let hash = hex(&Sha256::digest(bytes));
    if version.is_empty() {
        hash
    } else {
        format!("{version}:{hash}")
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .collect()
}

/// `None` if they limit nothing.
fn constraints(written: model::Constraints) -> Option<PolicyConstraints> {
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
        network_allowlist: sandbox.network_allowlist,
        fs_read_only: sandbox.fs_read_only,
        fs_read_write: sandbox.fs_read_write,
    };
    let toolchain = ToolchainConstraints {
        allowed_tools: toolchain.allowed_tools,
        allowed_commands: toolchain.allowed_commands,
    };
    let diff = DiffConstraints {
        max_files: diff.max_files,
        max_lines: diff.max_lines,
        deny_path_globs: diff.deny_path_globs,
    };
    let nothing = budgets == BudgetConstraints::default()
        && sandbox == SandboxProfile::default()
        && toolchain == ToolchainConstraints::default()
        && diff == DiffConstraints::default()
        && redaction_level.trim().is_empty();
    (!nothing).then_some(PolicyConstraints {
        budgets: Some(budgets),
        sandbox: Some(sandbox),
        toolchain: Some(toolchain),
        diff: Some(diff),
        redaction_level,
    })
}
