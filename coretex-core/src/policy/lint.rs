//! What is odd about policies, before it hurts. See `docs/spec/policy.md` §10.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::explain::word;
use super::index::Index;
use super::model::{self, Rule};
use super::parts::{Part, PartKind, strictest};
use super::problem::Problem;
use crate::jobs::Decision;

/// As many pairs of rules are compared at most.
const MAX_COMPARISONS: usize = 20_000_000;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Most likely a mistake.
    Warning,
}

impl Severity {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

/// Something odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What kind it is, for machines: `unknown_key`.
    pub code: String,
    /// The part it is in; empty if it is about all of them.
    pub origin: String,
    /// The id of the rule, if it is about one that has an id.
    pub rule: String,
    /// The line, from 1; 0 if it is not known.
    pub line: u64,
    /// The column, from 1; 0 if it is not known.
    pub column: u64,
    /// What is odd, for people.
    pub message: String,
}

/// Everything odd about documents that are no error, in the order of the parts and lines. Pure.
pub fn lint(parts: &[Part]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in parts {
        findings.extend(of_document(part));
    }
    findings.extend(defaults(parts));
    findings.extend(duplicates(parts));
    let (covered, complete) = covered(parts);
    findings.extend(covered.iter().map(Covered::finding));
    if !complete {
        let message = "too many rules of the same kind: not all were compared with each other".to_owned();
        findings.push(finding(Severity::Note, "incomplete", "", message));
    }
    let order: HashMap<&str, usize> = parts.iter().enumerate().map(|(n, part)| (&*part.origin, n)).collect();
    findings.sort_by_key(|found| (order.get(&*found.origin).copied(), found.line, found.column));
    findings
}

fn finding(severity: Severity, code: &str, origin: &str, message: String) -> Finding {
    Finding {
        severity,
        code: code.to_owned(),
        origin: origin.to_owned(),
        rule: String::new(),
        line: 0,
        column: 0,
        message,
    }
}

/// About a rule.
fn of_rule(severity: Severity, code: &str, part: &Part, rule: &Rule, message: String) -> Finding {
    let place = rule.place();
    Finding {
        rule: rule.id.clone(),
        line: place.line,
        column: place.column,
        ..finding(severity, code, &part.origin, message)
    }
}

fn from_problem(code: &str, part: &Part, problem: &Problem) -> Finding {
    let message = if problem.key.is_empty() {
        problem.what.clone()
    } else {
        format!("{}: {}", problem.key, problem.what)
    };
    Finding {
        rule: problem.rule.clone().unwrap_or_default(),
        line: problem.line,
        column: problem.column,
        ..finding(Severity::Warning, code, &part.origin, message)
    }
}

/// What one document shows on its own.
fn of_document(part: &Part) -> Vec<Finding> {
    let document = &part.document;
    let mut found: Vec<Finding> = document
        .unknown
        .iter()
        .map(|problem| from_problem("unknown_key", part, problem))
        .collect();
    found.extend(
        model::unused_terms(document)
            .iter()
            .map(|problem| from_problem("unused_approval", part, problem)),
    );
    for rule in &document.rules {
        if rule.id.is_empty() {
            let message = "has no id: decisions cannot name it".to_owned();
            found.push(of_rule(Severity::Note, "no_id", part, rule, message));
        }
        if rule.decision.0 == Some(Decision::RequireApproval) && rule.reason.trim().is_empty() {
            let message = "asks for approval without a reason: people have to guess what to look at".to_owned();
            found.push(of_rule(Severity::Warning, "no_reason", part, rule, message));
        }
    }
    found
}

fn defaults(parts: &[Part]) -> Vec<Finding> {
    let mut found = Vec::new();
    let trusted = || parts.iter().filter(|part| !part.kind.only_tightens());
    let default = trusted()
        .filter_map(|part| part.document.default_decision.0)
        .reduce(strictest);
    if default.is_none() {
        let message = "default_decision is not set: jobs that no rule matches are allowed".to_owned();
        let origin = trusted().next().map_or("", |part| &part.origin);
        found.push(finding(Severity::Warning, "no_default_decision", origin, message));
    }
    for part in parts.iter().filter(|part| part.kind.only_tightens()) {
        let document = &part.document;
        for (key, given) in [
            ("default_decision", document.default_decision.0.is_some()),
            ("default_tenant", !document.default_tenant.trim().is_empty()),
        ] {
            if given {
                let message = format!("{key} is ignored: only the base policy and `secops/` fragments set it");
                found.push(finding(Severity::Warning, "ignored_default", &part.origin, message));
            }
        }
        for rule in &document.rules {
            if let (Some(written), Some(floor)) = (rule.decision.0, default)
                && strictest(written, floor) != written
            {
                let message = format!(
                    "decides {}, but the default decision is {}, and a pack cannot loosen it",
                    word(written),
                    word(floor)
                );
                found.push(of_rule(Severity::Note, "tightened", part, rule, message));
            }
        }
    }
    if parts.iter().any(|part| !part.document.rules.is_empty()) {
        for part in parts {
            for (tenant, policy) in &part.document.tenants {
                if !policy.allow_topics.is_empty() {
                    let message = format!("tenants.{tenant}.allow_topics do nothing, because there are rules");
                    found.push(finding(Severity::Warning, "unused_allow_topics", &part.origin, message));
                }
            }
        }
    }
    found
}

fn duplicates(parts: &[Part]) -> Vec<Finding> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        for rule in part.document.rules.iter().filter(|rule| !rule.id.is_empty()) {
            let first = *seen.entry(&rule.id).or_insert(number);
            if first != number {
                let other = parts.get(first).map_or("", |part| &part.origin);
                let message = format!("the id `{}` is also used in `{other}`", rule.id);
                found.push(of_rule(Severity::Warning, "duplicate_id", part, rule, message));
            }
        }
    }
    found
}

/// A rule that never decides, because one before it matches whatever it matches.
#[derive(Debug)]
pub(super) struct Covered<'a> {
    pub(super) part: &'a Part,
    pub(super) rule: &'a Rule,
    by_part: &'a Part,
    by: &'a Rule,
}

impl Covered<'_> {
    pub(super) fn finding(&self) -> Finding {
        let place = self.by.place();
        let mut by = if self.by.id.is_empty() {
            "a rule without id".to_owned()
        } else {
            format!("rule `{}`", self.by.id)
        };
        if self.by_part.origin != self.part.origin {
            by = format!("{by} of `{}`", self.by_part.origin);
        }
        if place.line > 0 {
            by = format!("{by}, on line {},", place.line);
        }
        let message = format!("never decides: {by} matches all that it matches and comes first");
        let shadowed = self.part.kind == PartKind::Pack && self.by_part.kind != PartKind::Pack;
        if shadowed {
            of_rule(Severity::Note, "shadowed", self.part, self.rule, message)
        } else {
            of_rule(Severity::Warning, "unreachable", self.part, self.rule, message)
        }
    }
}

/// All such rules, and whether all were looked at.
pub(super) fn covered(parts: &[Part]) -> (Vec<Covered<'_>>, bool) {
    let rules: Vec<(&Part, &Rule)> = parts
        .iter()
        .flat_map(|part| part.document.rules.iter().map(move |rule| (part, rule)))
        .collect();
    let conditions: Vec<Conditions> = rules
        .iter()
        .map(|(_, rule)| Conditions::new(&rule.conditions))
        .collect();
    let index = Index::new(conditions.iter());
    let mut left = MAX_COMPARISONS;
    let mut found = Vec::new();
    for (number, narrow) in conditions.iter().enumerate() {
        let by = index.first_covering(narrow, number, |wide| {
            left = left.saturating_sub(1);
            left > 0 && conditions.get(wide).is_some_and(|wide| wide.cover(narrow))
        });
        if let Some(by) = by
            && let (Some(&(part, rule)), Some(&(by_part, by))) = (rules.get(number), rules.get(by))
        {
            found.push(Covered {
                part,
                rule,
                by_part,
                by,
            });
        }
    }
    (found, left > 0)
}
