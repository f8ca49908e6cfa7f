//! The decision. See `docs/spec/policy.md` §4.

use std::borrow::Cow;

use super::compile::{CompiledPolicy, DerivedRule, Guard};
use super::fold;
use super::input::PolicyInput;
use super::mcp::{McpUse, Refusal};
use crate::jobs::{ApprovalTerms, Decision, DecisionRecord};
use crate::protocol::agent::{PolicyCheckRequest, PolicyConstraints, PolicyRemediation};
use crate::time::Timestamp;

/// What every topic of a job starts with.
pub(super) const TOPIC_PREFIX: &str = "job.";

/// The tenant of jobs that name none, under a policy that names none.
const DEFAULT_TENANT: &str = "default";

/// What a policy says about one job.
#[derive(Debug, Clone)]
pub struct Evaluation<'p> {
    /// The verdict.
    pub decision: Decision,
    /// Why, for people; empty if the job is allowed.
    pub reason: Cow<'p, str>,
    /// The rule that matched; empty if none did, or if it has no id.
    pub rule_id: &'p str,
    /// Which policy.
    pub snapshot: &'p str,
    /// The limits that come with the rule, whatever the verdict.
    pub constraints: Option<&'p PolicyConstraints>,
    /// Whether people must say yes. May be set beside a denial.
    pub approval_required: bool,
    /// On which terms they say so.
    pub terms: Option<&'p ApprovalTerms>,
    /// Safer ways to ask for the same thing.
    pub remediations: &'p [PolicyRemediation],
    pub(super) basis: Basis<'p>,
    /// The first rule that matches, whether or not it decided.
    pub(super) matched: Option<usize>,
    /// What overrode the rule, for people.
    pub(super) overridden: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Basis<'p> {
    /// The request is not even a job's.
    Malformed,
    Rule(usize),
    Derived(&'p DerivedRule),
    Default,
}

/// Judges one job. Pure: the same policy and input always give the same answer.
pub fn evaluate<'p>(policy: &'p CompiledPolicy, input: &PolicyInput<'_>) -> Evaluation<'p> {
    if input.topic.is_empty() {
        return malformed(policy, "missing topic");
    }
    if !input.topic.starts_with(TOPIC_PREFIX) {
        return malformed(policy, "unsupported topic");
    }
    let tenant = tenant(policy, input);
    let mut answer = rule_outcome(policy, input, tenant);

    if let Some(guard) = policy.guard(tenant)
        && let Some(refusal) = guard.refuse(&input.mcp)
    {
        let source = format!("tenants.{tenant}.mcp.{} refuses {}", refusal.list(), input.mcp);
        answer.deny(refusal.reason(), source);
    }
    if let Some(ban) = input.effective.and_then(|effective| effective.ban(input)) {
        answer.deny(ban.reason, ban.source);
    }
    if matches!(answer.decision, Decision::Allow | Decision::AllowWithConstraints) {
        answer.reason = Cow::Borrowed("");
        answer.remediations = &[];
        if answer.constraints.is_some() {
            answer.decision = Decision::AllowWithConstraints;
        }
    }
    answer
}

/// The first rule that matches, then the tenant's forbidden topics, then what happens without a rule.
fn rule_outcome<'p>(policy: &'p CompiledPolicy, input: &PolicyInput<'_>, tenant: &str) -> Evaluation<'p> {
    let matched = policy
        .index
        .first(input, tenant, |rule| policy.rules[rule].conditions.hold(input, tenant));
    let guard = policy.guard(tenant);

    let matched_denies = matched.is_some_and(|rule| policy.rules[rule].written == Decision::Deny);
    if !matched_denies
        && let Some(rule) = guard.and_then(|guard| guard.deny.iter().find(|rule| rule.topic.matches(input.topic)))
    {
        let mut answer = Evaluation::new(policy, Decision::Deny, &rule.reason, Basis::Derived(rule));
        answer.rule_id = &rule.id;
        answer.matched = matched;
        return answer;
    }
    if let Some(number) = matched {
        let rule = &policy.rules[number];
        let mut answer = Evaluation::new(policy, rule.decision, &rule.reason, Basis::Rule(number));
        answer.rule_id = &rule.id;
        answer.constraints = rule.constraints.as_ref();
        answer.terms = rule.terms.as_ref();
        answer.remediations = &rule.remediations;
        answer.matched = matched;
        return answer;
    }
    if policy.rules.is_empty()
        && let Some(guard) = guard
        && guard.refuse(&input.mcp).is_none()
        && let Some(rule) = guard
            .allow
            .iter()
            .find(|rule| (rule.trusted || !policy.guards_the_default()) && rule.topic.matches(input.topic))
    {
        let mut answer = Evaluation::new(policy, Decision::Allow, "", Basis::Derived(rule));
        answer.rule_id = &rule.id;
        return answer;
    }
    let (decision, reason) = match policy.default_decision {
        Some(Decision::Deny) => (Decision::Deny, "no rule matches, and the default decision is deny"),
        Some(Decision::RequireApproval) => (
            Decision::RequireApproval,
            "no rule matches, and the default decision is require_approval",
        ),
        _ => (Decision::Allow, ""),
    };
    Evaluation::new(policy, decision, reason, Basis::Default)
}

fn malformed<'p>(policy: &'p CompiledPolicy, reason: &'static str) -> Evaluation<'p> {
    Evaluation::new(policy, Decision::Deny, reason, Basis::Malformed)
}

pub(super) fn tenant<'a>(policy: &'a CompiledPolicy, input: &PolicyInput<'a>) -> &'a str {
    [input.tenant, &policy.default_tenant]
        .into_iter()
        .find(|tenant| !tenant.is_empty())
        .unwrap_or(DEFAULT_TENANT)
}

impl CompiledPolicy {
    fn guard(&self, tenant: &str) -> Option<&Guard> {
        if self.guards.is_empty() {
            None
        } else {
            self.guards.get(&*fold::fold(tenant))
        }
    }

    /// Whether the default decision is one that packs must not loosen.
    fn guards_the_default(&self) -> bool {
        !matches!(self.default_decision, None | Some(Decision::Allow))
    }
}

impl Guard {
    fn refuse<'u>(&self, used: &'u McpUse<'_>) -> Option<Refusal<'u>> {
        self.mcp.refuse(used).or_else(|| self.pack_mcp.refuse(used))
    }
}

impl<'p> Evaluation<'p> {
    fn new(policy: &'p CompiledPolicy, decision: Decision, reason: &'p str, basis: Basis<'p>) -> Self {
        Self {
            decision,
            reason: Cow::Borrowed(reason),
            rule_id: "",
            snapshot: &policy.snapshot,
            constraints: None,
            approval_required: decision == Decision::RequireApproval,
            terms: (decision == Decision::RequireApproval).then_some(&policy.default_terms),
            remediations: &[],
            basis,
            matched: None,
            overridden: Vec::new(),
        }
    }

    /// Denies, whatever the rule said. Rule, limits and the approval flag stay.
    fn deny(&mut self, reason: String, source: String) {
        self.decision = Decision::Deny;
        self.reason = Cow::Owned(reason);
        self.overridden.push(source);
    }

    /// As it is kept with the job `request` asks about; `policy` and `input` must be those that were judged. The hash of
    /// what was judged and the input itself are for whoever stores it.
    pub fn into_record(
        self,
        policy: &CompiledPolicy,
        input: &PolicyInput<'_>,
        request: &PolicyCheckRequest,
        now: Timestamp,
    ) -> DecisionRecord {
        let mut record = DecisionRecord::new(self.decision, now);
        record.matched = self.explain(policy, input);
        record.reason = self.reason.into_owned();
        record.rule_id = self.rule_id.to_owned();
        record.policy_snapshot = self.snapshot.to_owned();
        record.constraints = self.constraints.cloned();
        record.remediations = self.remediations.to_vec();
        record.approval_required = self.approval_required;
        if self.approval_required {
            record.approval_ref = request.job_id.clone();
            record.terms = Some(self.terms.cloned().unwrap_or_default());
        }
        record
    }

    /// What led to this, one line each, for people (docs/spec/policy.md §6). `policy` and `input` must be those that
    /// were judged.
    pub fn explain(&self, policy: &CompiledPolicy, input: &PolicyInput<'_>) -> Vec<String> {
        let mut lines = match self.basis {
            Basis::Rule(number) => policy
                .rules
                .get(number)
                .map(|rule| rule.conditions.explain(input, tenant(policy, input)))
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        lines.extend(self.overrides(policy, input));
        lines
    }

    /// What decided in place of a rule, or over it, one line each.
    pub(super) fn overrides(&self, policy: &CompiledPolicy, input: &PolicyInput<'_>) -> Vec<String> {
        let default = match policy.default_decision {
            Some(Decision::Deny) => "deny",
            Some(Decision::RequireApproval) => "require_approval",
            Some(_) => "allow",
            None => "allow (not set)",
        };
        let mut lines = match self.basis {
            Basis::Malformed => vec![format!("topic: {}", self.reason)],
            Basis::Derived(rule) => vec![format!("{}: {} matches {}", rule.source, rule.topic, input.topic)],
            Basis::Default => vec![format!("default_decision: {default}, no rule matches")],
            Basis::Rule(number) => policy
                .rules
                .get(number)
                .filter(|rule| rule.decision != rule.written)
                .map(|_| format!("default_decision: {default}, and the rule of a pack cannot loosen it"))
                .into_iter()
                .collect(),
        };
        lines.extend_from_slice(&self.overridden);
        lines
    }
}
