//! Tells why a decision is what it is. See `docs/spec/policy.md` §9.

use serde_json::{Value, json};

use super::compile::CompiledPolicy;
use super::evaluate::{Basis, Evaluation, tenant};
use super::explanation::{ConstraintOrigin, Explanation, NearMiss, RuleRef};
use super::input::PolicyInput;
use crate::jobs::Decision;
use crate::protocol::agent::PolicyConstraints;

/// As many near misses are told.
const MAX_NEAR_MISSES: usize = 10;

/// As many rules are looked at for them.
const MAX_LOOKED_AT: usize = 10_000;

/// Tells why `evaluation` is what it is; `policy` and `input` must be those that were judged.
pub fn explain(policy: &CompiledPolicy, input: &PolicyInput<'_>, evaluation: &Evaluation<'_>) -> Explanation {
    let tenant = tenant(policy, input);
    let mut explanation = Explanation {
        tenant: tenant.to_owned(),
        overrides: evaluation.overrides(policy, input),
        ..Explanation::default()
    };
    if matches!(evaluation.basis, Basis::Malformed) {
        return explanation;
    }
    if let Basis::Rule(number) = evaluation.basis
        && let Some(rule) = policy.rules.get(number)
    {
        explanation.conditions = rule.conditions.checks(input, tenant);
        if let Some(limits) = evaluation.constraints {
            let rule = policy.rule_ref(number);
            explanation.constraints = origins(limits, &rule);
        }
        explanation.rule = Some(policy.rule_ref(number));
    }
    let before = evaluation.matched.unwrap_or(policy.rules.len());
    explanation.near_misses = policy
        .rules
        .iter()
        .enumerate()
        .take(before.min(MAX_LOOKED_AT))
        .filter_map(|(number, rule)| {
            let failed = rule.conditions.only_failure(input, tenant)?;
            Some(NearMiss {
                rule: policy.rule_ref(number),
                decision: word(rule.written).to_owned(),
                failed,
            })
        })
        .take(MAX_NEAR_MISSES)
        .collect();
    explanation
}

impl CompiledPolicy {
    /// The rule with this number, from 0.
    pub(super) fn rule_ref(&self, number: usize) -> RuleRef {
        let rule = self.rules.get(number);
        RuleRef {
            id: rule.map(|rule| rule.id.clone()).unwrap_or_default(),
            origin: rule
                .and_then(|rule| self.origins.get(rule.part))
                .cloned()
                .unwrap_or_default(),
            number: number + 1,
        }
    }
}

/// In the words of documents.
pub(super) fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
        Decision::RequireApproval => "require_approval",
        Decision::AllowWithConstraints => "allow_with_constraints",
        Decision::Throttle => "throttle",
    }
}

/// All limits that limit something.
fn origins(limits: &PolicyConstraints, rule: &RuleRef) -> Vec<ConstraintOrigin> {
    let mut found = Vec::new();
    let mut add = |field: &str, value: Value| {
        let nothing = match &value {
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Bool(flag) => !flag,
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.trim().is_empty(),
            _ => true,
        };
        if !nothing {
            found.push(ConstraintOrigin {
                field: field.to_owned(),
                value,
                rule: rule.clone(),
            });
        }
    };
    if let Some(budgets) = &limits.budgets {
        add("budgets.max_runtime_ms", json!(budgets.max_runtime_ms));
        add("budgets.max_retries", json!(budgets.max_retries));
        add("budgets.max_artifact_bytes", json!(budgets.max_artifact_bytes));
        add("budgets.max_concurrent_jobs", json!(budgets.max_concurrent_jobs));
    }
    if let Some(sandbox) = &limits.sandbox {
        add("sandbox.isolated", json!(sandbox.isolated));
        add("sandbox.network_allowlist", json!(sandbox.network_allowlist));
        add("sandbox.fs_read_only", json!(sandbox.fs_read_only));
        add("sandbox.fs_read_write", json!(sandbox.fs_read_write));
    }
    if let Some(toolchain) = &limits.toolchain {
        add("toolchain.allowed_tools", json!(toolchain.allowed_tools));
        add("toolchain.allowed_commands", json!(toolchain.allowed_commands));
    }
    if let Some(diff) = &limits.diff {
        add("diff.max_files", json!(diff.max_files));
        add("diff.max_lines", json!(diff.max_lines));
        add("diff.deny_path_globs", json!(diff.deny_path_globs));
    }
    add("redaction_level", json!(limits.redaction_level));
    found
}
