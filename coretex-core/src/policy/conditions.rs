//! The conditions of one rule. See `docs/spec/policy.md` §3.

use super::fold;
use super::glob::Glob;
use super::input::PolicyInput;
use super::mcp::McpRules;
use super::model::Match;
use super::words::Words;

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
        let any_of = |words: &Words, value: &str| words.is_empty() || words.find(value).is_some();
        (self.topics.is_empty() || self.topics.iter().any(|glob| glob.matches(input.topic)))
            && any_of(&self.tenants, tenant)
            && any_of(&self.capabilities, input.capability)
            && any_of(&self.pack_ids, input.pack_id)
            && any_of(&self.actor_ids, input.actor_id)
            && any_of(&self.actor_types, input.actor_type)
            && self
                .secrets_present
                .is_none_or(|expected| expected == input.secrets_present)
            && (self.risk_tags.is_empty() || input.risk_tags.iter().any(|tag| self.risk_tags.find(tag).is_some()))
            && self
                .requires
                .iter()
                .all(|word| input.requires.iter().any(|item| fold::is(&word.key, item)))
            && self.labels_hold(input)
            && self
                .mcp
                .as_ref()
                .is_none_or(|rules| input.mcp.any() && rules.refuse(&input.mcp).is_none())
    }

    fn labels_hold(&self, input: &PolicyInput<'_>) -> bool {
        self.labels.is_empty()
            || (!input.labels.is_empty()
                && self
                    .labels
                    .iter()
                    .all(|(name, value)| input.labels.get(name).map_or("", String::as_str) == value))
    }

    /// Why they hold, one line each: `topics: job.sre.* matches job.sre.x`. Only for an input on which they do.
    pub(super) fn explain(&self, input: &PolicyInput<'_>, tenant: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(glob) = self.topics.iter().find(|glob| glob.matches(input.topic)) {
            lines.push(format!("topics: {glob} matches {}", input.topic));
        }
        for (name, words, value) in [
            ("tenants", &self.tenants, tenant),
            ("capabilities", &self.capabilities, input.capability),
            ("pack_ids", &self.pack_ids, input.pack_id),
            ("actor_ids", &self.actor_ids, input.actor_id),
            ("actor_types", &self.actor_types, input.actor_type),
        ] {
            if let Some(word) = words.find(value) {
                lines.push(format!("{name}: {} is {value}", word.text));
            }
        }
        if let Some(tag) = input.risk_tags.iter().find(|tag| self.risk_tags.find(tag).is_some()) {
            lines.push(format!("risk_tags: {tag}"));
        }
        if !self.requires.is_empty() {
            let words: Vec<&str> = self.requires.iter().map(|word| &*word.text).collect();
            lines.push(format!("requires: {}", words.join(", ")));
        }
        lines.extend(
            self.labels
                .iter()
                .map(|(name, value)| format!("labels: {name}={value}")),
        );
        if let Some(expected) = self.secrets_present {
            lines.push(format!("secrets_present: {expected}"));
        }
        if self.mcp.is_some() {
            lines.push(format!("mcp: {} is within the lists", input.mcp));
        }
        if lines.is_empty() {
            lines.push("match: empty, holds for every job".to_owned());
        }
        lines
    }
}
