//! The conditions of one rule. See `docs/spec/policy.md` §3.

use std::fmt::Write as _;

use super::explanation::ConditionCheck;
use super::fold;
use super::glob::Glob;
use super::input::PolicyInput;
use super::mcp::McpRules;
use super::model::Match;
use super::words::Words;

/// As many entries of a list are named in an explanation.
const MAX_NAMED: usize = 5;

/// The `match` of a rule, compiled.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    pub(super) tenants: Words,
    pub(super) topics: Vec<Glob>,
    pub(super) capabilities: Words,
    pub(super) risk_tags: Words,
    pub(super) requires: Words,
    pub(super) pack_ids: Words,
    pub(super) actor_ids: Words,
    actor_types: Words,
    pub(super) labels: Vec<(String, String)>,
    secrets_present: Option<bool>,
    mcp: Option<McpRules>,
}

/// One of them, by its key in documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Tenants,
    Topics,
    Capabilities,
    RiskTags,
    Requires,
    PackIds,
    ActorIds,
    ActorTypes,
    Labels,
    SecretsPresent,
    Mcp,
}

impl Condition {
    /// In the order of the language.
    const ALL: [Self; 11] = [
        Self::Tenants,
        Self::Topics,
        Self::Capabilities,
        Self::RiskTags,
        Self::Requires,
        Self::PackIds,
        Self::ActorIds,
        Self::ActorTypes,
        Self::Labels,
        Self::SecretsPresent,
        Self::Mcp,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Topics => "topics",
            Self::Capabilities => "capabilities",
            Self::RiskTags => "risk_tags",
            Self::Requires => "requires",
            Self::PackIds => "pack_ids",
            Self::ActorIds => "actor_ids",
            Self::ActorTypes => "actor_types",
            Self::Labels => "labels",
            Self::SecretsPresent => "secrets_present",
            Self::Mcp => "mcp",
        }
    }
}

impl Conditions {
    pub(super) fn new(conditions: &Match) -> Self {
        Self {
            tenants: Words::new(&conditions.tenants),
            topics: conditions.topics.iter().map(|pattern| pattern.0.clone()).collect(),
            capabilities: Words::new(&conditions.capabilities),
            risk_tags: Words::new(&conditions.risk_tags),
            requires: Words::new(&conditions.requires),
            pack_ids: Words::new(&conditions.pack_ids),
            actor_ids: Words::new(&conditions.actor_ids),
            actor_types: Words::new(&conditions.actor_types),
            labels: conditions.labels.clone().into_iter().collect(),
            secrets_present: conditions.secrets_present,
            mcp: Some(McpRules::new(&conditions.mcp)).filter(|rules| !rules.is_empty()),
        }
    }

    /// Whether all hold. The cheap and telling ones come first.
    pub(super) fn hold(&self, input: &PolicyInput<'_>, tenant: &str) -> bool {
        let holds = |condition| self.holds(condition, input, tenant);
        holds(Condition::Topics)
            && holds(Condition::Tenants)
            && holds(Condition::Capabilities)
            && holds(Condition::PackIds)
            && holds(Condition::ActorIds)
            && holds(Condition::ActorTypes)
            && holds(Condition::SecretsPresent)
            && holds(Condition::RiskTags)
            && holds(Condition::Requires)
            && holds(Condition::Labels)
            && holds(Condition::Mcp)
    }

    /// Whether one holds. One that is not there holds.
    #[inline]
    fn holds(&self, condition: Condition, input: &PolicyInput<'_>, tenant: &str) -> bool {
        match condition {
            Condition::Topics => self.topics.is_empty() || self.topics.iter().any(|glob| glob.matches(input.topic)),
            Condition::RiskTags => {
                self.risk_tags.is_empty() || input.risk_tags.iter().any(|tag| self.risk_tags.find(tag).is_some())
            }
            Condition::Requires => self
                .requires
                .iter()
                .all(|word| input.requires.iter().any(|item| fold::is(&word.key, item))),
            Condition::Labels => {
                self.labels.is_empty()
                    || (!input.labels.is_empty()
                        && self
                            .labels
                            .iter()
                            .all(|(name, value)| input.labels.get(name).map_or("", String::as_str) == value))
            }
            Condition::SecretsPresent => self
                .secrets_present
                .is_none_or(|expected| expected == input.secrets_present),
            Condition::Mcp => self
                .mcp
                .as_ref()
                .is_none_or(|rules| input.mcp.any() && rules.refuse(&input.mcp).is_none()),
            Condition::Tenants
            | Condition::Capabilities
            | Condition::PackIds
            | Condition::ActorIds
            | Condition::ActorTypes => {
                let (words, value) = self.words(condition, input, tenant);
                words.is_empty() || words.find(value).is_some()
            }
        }
    }

    /// The list of a condition on a single value, and that value.
    #[inline]
    fn words<'a>(&'a self, condition: Condition, input: &PolicyInput<'a>, tenant: &'a str) -> (&'a Words, &'a str) {
        match condition {
            Condition::Capabilities => (&self.capabilities, input.capability),
            Condition::PackIds => (&self.pack_ids, input.pack_id),
            Condition::ActorIds => (&self.actor_ids, input.actor_id),
            Condition::ActorTypes => (&self.actor_types, input.actor_type),
            _ => (&self.tenants, tenant),
        }
    }

    /// Whether the rule has this condition at all.
    fn has(&self, condition: Condition) -> bool {
        match condition {
            Condition::Tenants => !self.tenants.is_empty(),
            Condition::Topics => !self.topics.is_empty(),
            Condition::Capabilities => !self.capabilities.is_empty(),
            Condition::RiskTags => !self.risk_tags.is_empty(),
            Condition::Requires => !self.requires.is_empty(),
            Condition::PackIds => !self.pack_ids.is_empty(),
            Condition::ActorIds => !self.actor_ids.is_empty(),
            Condition::ActorTypes => !self.actor_types.is_empty(),
            Condition::Labels => !self.labels.is_empty(),
            Condition::SecretsPresent => self.secrets_present.is_some(),
            Condition::Mcp => self.mcp.is_some(),
        }
    }

    /// Whether these certainly hold for every job that `narrow` holds for. False if that is not plain to see.
    pub(super) fn cover(&self, narrow: &Self) -> bool {
        // One of the entries is enough: fewer are narrower. All are needed: more are narrower.
        let any = |wide: &Words, narrow: &Words| wide.is_empty() || (!narrow.is_empty() && wide.include(narrow));
        any(&self.tenants, &narrow.tenants)
            && any(&self.capabilities, &narrow.capabilities)
            && any(&self.risk_tags, &narrow.risk_tags)
            && any(&self.pack_ids, &narrow.pack_ids)
            && any(&self.actor_ids, &narrow.actor_ids)
            && any(&self.actor_types, &narrow.actor_types)
            && narrow.requires.include(&self.requires)
            && self.labels.iter().all(|label| narrow.labels.contains(label))
            && (self.topics.is_empty()
                || (!narrow.topics.is_empty()
                    && narrow
                        .topics
                        .iter()
                        .filter(|glob| !glob.as_str().is_empty())
                        .all(|glob| self.topics.iter().any(|wide| wide.covers(glob)))))
            && (self.secrets_present.is_none() || self.secrets_present == narrow.secrets_present)
            && match (&self.mcp, &narrow.mcp) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(wide), Some(narrow)) => wide.same(narrow),
            }
    }

    /// Every condition of the rule, tried, in the order of the language.
    pub(super) fn checks(&self, input: &PolicyInput<'_>, tenant: &str) -> Vec<ConditionCheck> {
        Condition::ALL
            .into_iter()
            .filter(|condition| self.has(*condition))
            .map(|condition| self.check(condition, input, tenant))
            .collect()
    }

    /// The only condition that fails; `None` if none or more than one does.
    pub(super) fn only_failure(&self, input: &PolicyInput<'_>, tenant: &str) -> Option<ConditionCheck> {
        let mut failing = Condition::ALL
            .into_iter()
            .filter(|condition| !self.holds(*condition, input, tenant));
        let first = failing.next()?;
        failing.next().is_none().then(|| self.check(first, input, tenant))
    }

    /// Why they hold, one line each: `topics: job.sre.* matches job.sre.x`. Only for an input on which they do.
    pub(super) fn explain(&self, input: &PolicyInput<'_>, tenant: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .checks(input, tenant)
            .into_iter()
            .map(|check| check.detail)
            .collect();
        if lines.is_empty() {
            lines.push("match: empty, holds for every job".to_owned());
        }
        lines
    }

    fn check(&self, condition: Condition, input: &PolicyInput<'_>, tenant: &str) -> ConditionCheck {
        let holds = self.holds(condition, input, tenant);
        let what = if holds {
            self.why(condition, input, tenant)
        } else {
            self.why_not(condition, input, tenant)
        };
        let name = condition.name();
        ConditionCheck {
            condition: name.to_owned(),
            holds,
            detail: format!("{name}: {what}"),
        }
    }

    /// On what a condition holds.
    fn why(&self, condition: Condition, input: &PolicyInput<'_>, tenant: &str) -> String {
        match condition {
            Condition::Topics => match self.topics.iter().find(|glob| glob.matches(input.topic)) {
                Some(glob) => format!("{glob} matches {}", input.topic),
                None => String::new(),
            },
            Condition::RiskTags => input
                .risk_tags
                .iter()
                .find(|tag| self.risk_tags.find(tag).is_some())
                .cloned()
                .unwrap_or_default(),
            Condition::Requires => list(self.requires.iter().map(|word| &*word.text)),
            Condition::Labels => {
                let pairs: Vec<String> = self
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                pairs.join(", ")
            }
            Condition::SecretsPresent => input.secrets_present.to_string(),
            Condition::Mcp => format!("{} is within the lists", input.mcp),
            Condition::Tenants
            | Condition::Capabilities
            | Condition::PackIds
            | Condition::ActorIds
            | Condition::ActorTypes => {
                let (words, value) = self.words(condition, input, tenant);
                match words.find(value) {
                    Some(word) => format!("{} is {value}", word.text),
                    None => String::new(),
                }
            }
        }
    }

    /// What a condition lacks.
    fn why_not(&self, condition: Condition, input: &PolicyInput<'_>, tenant: &str) -> String {
        match condition {
            Condition::Topics => match &*self.topics {
                [glob] => format!("{glob} does not match {}", input.topic),
                globs => format!(
                    "none of {} matches {}",
                    list(globs.iter().map(Glob::as_str)),
                    input.topic
                ),
            },
            Condition::RiskTags => {
                let wanted = list(self.risk_tags.iter().map(|word| &*word.text));
                match input.risk_tags {
                    [] => format!("the job has no tags; wanted one of {wanted}"),
                    tags => format!("{} is none of {wanted}", list(tags.iter().map(String::as_str))),
                }
            }
            Condition::Requires => {
                let missing = self
                    .requires
                    .iter()
                    .filter(|word| !input.requires.iter().any(|item| fold::is(&word.key, item)));
                format!("the job does not require {}", list(missing.map(|word| &*word.text)))
            }
            Condition::Labels if input.labels.is_empty() => "the job has no labels".to_owned(),
            Condition::Labels => {
                let wrong: Vec<String> = self
                    .labels
                    .iter()
                    .filter_map(|(name, wanted)| match input.labels.get(name) {
                        Some(value) if value == wanted => None,
                        None if wanted.is_empty() => None,
                        Some(value) => Some(format!("{name} is {value}, not {wanted}")),
                        None => Some(format!("{name} is missing, not {wanted}")),
                    })
                    .collect();
                wrong.join("; ")
            }
            Condition::SecretsPresent => {
                format!("{}, not {}", input.secrets_present, !input.secrets_present)
            }
            Condition::Mcp => match self.mcp.as_ref().and_then(|rules| rules.refuse(&input.mcp)) {
                Some(refusal) => format!("{} refuses {}", refusal.list(), input.mcp),
                None => "the job uses no MCP".to_owned(),
            },
            Condition::Tenants
            | Condition::Capabilities
            | Condition::PackIds
            | Condition::ActorIds
            | Condition::ActorTypes => {
                let (words, value) = self.words(condition, input, tenant);
                let wanted = list(words.iter().map(|word| &*word.text));
                if value.is_empty() {
                    format!("the job has none; wanted one of {wanted}")
                } else {
                    format!("{value} is none of {wanted}")
                }
            }
        }
    }
}

/// `a, b, c`, cut short.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let mut more = 0_usize;
    for (number, item) in items.enumerate() {
        if number >= MAX_NAMED {
            more += 1;
            continue;
        }
        if number > 0 {
            text.push_str(", ");
        }
        text.push_str(item);
    }
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}
