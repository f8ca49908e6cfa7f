//! Finds the rules worth a look without looking at all of them. See `docs/spec/policy.md` §7.

use std::collections::HashMap;

use super::conditions::Conditions;
use super::fold;
use super::input::PolicyInput;

type Rules = Vec<u32>;
type Table = HashMap<Box<str>, Rules>;

/// Each rule is filed once: under the values of the one condition of it that fewest other rules share.
/// A request looks up its own values; rules without a condition to file by are looked at always.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    tables: [Table; DIMENSIONS],
    labels: HashMap<Box<str>, Table>,
    rest: Rules,
    /// No longer topic prefix is filed.
    longest_prefix: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Dimension {
    /// A topic without wildcard.
    Topic,
    Tenant,
    Capability,
    Pack,
    Actor,
    RiskTag,
    Requirement,
    /// What a pattern starts with, up to and including the last dot.
    TopicPrefix,
}

const DIMENSIONS: usize = 8;

/// What a rule may be filed under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key<'a> {
    In(Dimension, &'a str),
    Label(&'a str, &'a str),
}

impl Index {
    pub(super) fn new<'a>(rules: impl Iterator<Item = &'a Conditions> + Clone) -> Self {
        let mut shared: HashMap<Key<'a>, usize> = HashMap::new();
        for rule in rules.clone() {
            for key in ways_to_file(rule).into_iter().flatten() {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (number, rule) in (0u32..).zip(rules) {
            let ways = ways_to_file(rule);
            // Where ways are equal the first is taken, so that the same rules always make the same index.
            let best = ways.into_iter().min_by_key(|keys| {
                keys.iter()
                    .map(|key| shared.get(key).copied().unwrap_or(0))
                    .sum::<usize>()
            });
            match best {
                None => index.rest.push(number),
                Some(keys) => keys.into_iter().for_each(|key| index.file(&key, number)),
            }
        }
        index
    }

    fn file(&mut self, key: &Key<'_>, rule: u32) {
        let rules = match *key {
            Key::In(dimension, value) => {
                if dimension == Dimension::TopicPrefix {
                    self.longest_prefix = self.longest_prefix.max(value.len());
                }
                self.tables[dimension as usize].entry(value.into()).or_default()
            }
            Key::Label(name, value) => self
                .labels
                .entry(name.into())
                .or_default()
                .entry(value.into())
                .or_default(),
        };
        // Two entries of one rule may have the same key.
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }

    /// The first rule, in the order of the policy, that `holds`; it is only asked about rules that may.
    pub(super) fn first(
        &self,
        input: &PolicyInput<'_>,
        tenant: &str,
        mut holds: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut best: Option<u32> = None;
        let mut look = |rules: &Rules| {
            for &rule in rules {
                if best.is_some_and(|best| rule >= best) {
                    break;
                }
                if holds(rule as usize) {
                    best = Some(rule);
                    break;
                }
            }
        };
        let table = |dimension: Dimension| Some(&self.tables[dimension as usize]).filter(|table| !table.is_empty());

        if let Some(rules) = table(Dimension::Topic).and_then(|table| table.get(input.topic)) {
            look(rules);
        }
        if let Some(table) = table(Dimension::TopicPrefix) {
            for prefix in prefixes(input.topic, self.longest_prefix) {
                if let Some(rules) = table.get(prefix) {
                    look(rules);
                }
            }
        }
        for (dimension, value) in [
            (Dimension::Tenant, tenant),
            (Dimension::Capability, input.capability),
            (Dimension::Pack, input.pack_id),
            (Dimension::Actor, input.actor_id),
        ] {
            if let Some(table) = table(dimension).filter(|_| !value.is_empty())
                && let Some(rules) = table.get(&*fold::fold(value))
            {
                look(rules);
            }
        }
        for (dimension, values) in [
            (Dimension::RiskTag, input.risk_tags),
            (Dimension::Requirement, input.requires),
        ] {
            if let Some(table) = table(dimension) {
                for value in values.iter().filter(|value| !value.is_empty()) {
                    if let Some(rules) = table.get(&*fold::fold(value)) {
                        look(rules);
                    }
                }
            }
        }
        if !self.labels.is_empty() {
            for (name, value) in input.labels {
                if let Some(rules) = self.labels.get(&**name).and_then(|table| table.get(&**value)) {
                    look(rules);
                }
            }
        }
        look(&self.rest);
        best.map(|rule| rule as usize)
    }
}

impl Index {
    /// The first rule before `before` that `covers` the rule with these conditions; it is only asked about rules that may.
    ///
    /// A rule that covers another is filed under words of which the other has at least one, under a topic that the
    /// other names, or under a prefix of its first pattern.
    pub(super) fn first_covering(
        &self,
        narrow: &Conditions,
        before: usize,
        mut covers: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut look = |rules: Option<&Rules>| {
            for &rule in rules.into_iter().flatten() {
                let rule = rule as usize;
                if rule >= best.unwrap_or(before) {
                    break;
                }
                if covers(rule) {
                    best = Some(rule);
                    break;
                }
            }
        };
        let table = |dimension: Dimension| &self.tables[dimension as usize];
        if let Some(glob) = narrow.topics.iter().find(|glob| !glob.as_str().is_empty()) {
            look(table(Dimension::Topic).get(glob.prefix()));
            for prefix in prefixes(glob.prefix(), self.longest_prefix) {
                look(table(Dimension::TopicPrefix).get(prefix));
            }
        }
        for (dimension, words) in [
            (Dimension::Tenant, &narrow.tenants),
            (Dimension::Capability, &narrow.capabilities),
            (Dimension::Pack, &narrow.pack_ids),
            (Dimension::Actor, &narrow.actor_ids),
            (Dimension::RiskTag, &narrow.risk_tags),
        ] {
            // Any of the words will do, since the other rule has them all.
            if let Some(word) = words.iter().next() {
                look(table(dimension).get(&*word.key));
            }
        }
        for word in narrow.requires.iter() {
            look(table(Dimension::Requirement).get(&*word.key));
        }
        for (name, value) in &narrow.labels {
            look(self.labels.get(&**name).and_then(|table| table.get(&**value)));
        }
        look(Some(&self.rest));
        best
    }
}

/// The alternatives for one rule, best first: all the keys of any one of them find it. Empty keys: it never matches.
fn ways_to_file(rule: &Conditions) -> Vec<Vec<Key<'_>>> {
    let mut ways = Vec::new();
    let mut prefixes = None;
    if !rule.topics.is_empty() {
        let globs = || rule.topics.iter().filter(|glob| !glob.as_str().is_empty());
        if globs().all(|glob| glob.literal().is_some()) {
            ways.push(globs().map(|glob| Key::In(Dimension::Topic, glob.prefix())).collect());
        } else {
            prefixes = Some(
                globs()
                    .map(|glob| match glob.literal() {
                        Some(literal) => Key::In(Dimension::Topic, literal),
                        None => Key::In(Dimension::TopicPrefix, up_to_dot(glob.prefix())),
                    })
                    .collect(),
            );
        }
    }
    for (dimension, words) in [
        (Dimension::Tenant, &rule.tenants),
        (Dimension::Capability, &rule.capabilities),
        (Dimension::Pack, &rule.pack_ids),
        (Dimension::Actor, &rule.actor_ids),
        (Dimension::RiskTag, &rule.risk_tags),
    ] {
        if !words.is_empty() {
            ways.push(words.iter().map(|word| Key::In(dimension, &word.key)).collect());
        }
    }
    // All requirements and all labels must be there: any one of them is a way.
    ways.extend(
        rule.requires
            .iter()
            .map(|word| vec![Key::In(Dimension::Requirement, &word.key)]),
    );
    // A label that must be empty may also be absent, and would not be looked up.
    ways.extend(
        rule.labels
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| vec![Key::Label(name, value)]),
    );
    ways.extend(prefixes);
    ways
}

fn up_to_dot(prefix: &str) -> &str {
    prefix.rfind('.').map_or("", |dot| &prefix[..=dot])
}

/// The prefixes of `topic` that a pattern can be filed under, none longer than `longest`.
fn prefixes(topic: &str, longest: usize) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(
        topic
            .match_indices('.')
            .map(|(dot, _)| dot + 1)
            .take_while(move |end| *end <= longest)
            .map(|end| &topic[..end]),
    )
}
