//! What changed between two policies. See `docs/spec/policy.md` §11.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::explain::word;
use super::explanation::RuleRef;
use super::lint::{Covered, Finding, covered};
use super::model::Rule;
use super::parts::{Part, strictest};

/// A rule that says something else than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// The rule, as it is now.
    pub rule: RuleRef,
    /// Which of its keys differ.
    pub keys: Vec<String>,
}

/// What changed between two policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// Rules that are new.
    pub added: Vec<RuleRef>,
    /// Rules that are gone.
    pub removed: Vec<RuleRef>,
    /// Rules that say something else.
    pub changed: Vec<RuleChange>,
    /// Rules that come earlier or later among those that stayed.
    pub moved: Vec<RuleRef>,
    /// Rules that decided before and never do now.
    pub covered: Vec<Finding>,
    /// The default decision before and after, if it changed.
    pub default_decision: Option<(String, String)>,
    /// Tenants whose lists changed.
    pub tenants: Vec<String>,
}

impl PolicyDiff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A rule in its place.
struct Placed<'a> {
    part: &'a Part,
    rule: &'a Rule,
    number: usize,
}

impl Placed<'_> {
    fn reference(&self) -> RuleRef {
        RuleRef {
            id: self.rule.id.clone(),
            origin: self.part.origin.clone(),
            number: self.number,
        }
    }
}

/// Tells what changed. Rules are the same if they have the same id in the same part, else the same id, else, without an id,
/// the same text.
pub fn diff(old: &[Part], new: &[Part]) -> PolicyDiff {
    let (before, after) = (placed(old), placed(new));
    let pairs = pair(&before, &after);
    let mut found = PolicyDiff::default();
    let mut gone: HashSet<usize> = (0..before.len()).collect();
    let mut kept = Vec::new();
    for (at, rule) in after.iter().enumerate() {
        let Some((was_at, was)) = pairs.get(&at).and_then(|was| Some((*was, before.get(*was)?))) else {
            found.added.push(rule.reference());
            continue;
        };
        gone.remove(&was_at);
        kept.push((was_at, at));
        let keys = differing(was, rule);
        if !keys.is_empty() {
            found.changed.push(RuleChange {
                rule: rule.reference(),
                keys,
            });
        }
    }
    let mut gone: Vec<usize> = gone.into_iter().collect();
    gone.sort_unstable();
    found.removed = gone
        .iter()
        .filter_map(|at| before.get(*at))
        .map(Placed::reference)
        .collect();
    found.moved = out_of_order(&kept)
        .into_iter()
        .filter_map(|at| after.get(at))
        .map(Placed::reference)
        .collect();

    let were: HashSet<(&str, &str)> = covered(old)
        .0
        .iter()
        .map(|covered| (&*covered.part.origin, &*covered.rule.id))
        .collect();
    found.covered = covered(new)
        .0
        .iter()
        .filter(|covered| covered.rule.id.is_empty() || !were.contains(&(&*covered.part.origin, &*covered.rule.id)))
        .map(Covered::finding)
        .collect();

    let (was, is) = (default(old), default(new));
    found.default_decision = (was != is).then_some((was, is));
    found.tenants = tenants(old, new);
    found
}

fn placed(parts: &[Part]) -> Vec<Placed<'_>> {
    parts
        .iter()
        .flat_map(|part| part.document.rules.iter().map(move |rule| (part, rule)))
        .zip(1..)
        .map(|((part, rule), number)| Placed { part, rule, number })
        .collect()
}

/// For each rule of `after` which one of `before` it was.
fn pair(before: &[Placed<'_>], after: &[Placed<'_>]) -> HashMap<usize, usize> {
    let mut pairs = HashMap::new();
    let mut taken = HashSet::new();
    let mut exact: HashMap<(&str, &str), usize> = HashMap::new();
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, was) in before.iter().enumerate() {
        if !was.rule.id.is_empty() {
            exact.insert((&was.part.origin, &was.rule.id), at);
        }
        by_id.entry(&was.rule.id).or_default().push(at);
    }
    for (at, rule) in after.iter().enumerate() {
        if let Some(was) = exact.get(&(&*rule.part.origin, &*rule.rule.id)) {
            pairs.insert(at, *was);
            taken.insert(*was);
        }
    }
    for (at, rule) in after.iter().enumerate() {
        if pairs.contains_key(&at) {
            continue;
        }
        let candidates = by_id.get(&*rule.rule.id).map_or(&[][..], Vec::as_slice);
        let same = candidates.iter().find(|was| {
            !taken.contains(*was)
                && before.get(**was).is_some_and(|was| {
                    !rule.rule.id.is_empty() || differing(was, rule).iter().all(|key| key == "origin")
                })
        });
        if let Some(was) = same {
            pairs.insert(at, *was);
            taken.insert(*was);
        }
    }
    pairs
}

fn differing(was: &Placed<'_>, is: &Placed<'_>) -> Vec<String> {
    let (a, b) = (was.rule, is.rule);
    [
        ("origin", was.part.origin != is.part.origin),
        ("match", a.conditions != b.conditions),
        ("decision", a.decision != b.decision),
        ("reason", a.reason != b.reason),
        ("constraints", a.constraints != b.constraints),
        ("approval", a.approval != b.approval),
        ("remediations", a.remediations != b.remediations),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key.to_owned())
    .collect()
}

/// The fewest whose move explains the new order: those outside the longest run that kept its order. `kept` is
/// (place before, place after), by the latter.
fn out_of_order(kept: &[(usize, usize)]) -> Vec<usize> {
    // The end of the best run of each length, and what came before each end.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous = vec![None; kept.len()];
    for (at, (was, _)) in kept.iter().enumerate() {
        let length = ends.partition_point(|end| kept[*end].0 < *was);
        previous[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut stayed = HashSet::new();
    let mut at = ends.last().copied();
    while let Some(here) = at {
        stayed.insert(here);
        at = previous[here];
    }
    kept.iter()
        .enumerate()
        .filter(|(at, _)| !stayed.contains(at))
        .map(|(_, (_, is))| *is)
        .collect()
}

fn default(parts: &[Part]) -> String {
    parts
        .iter()
        .filter(|part| !part.kind.only_tightens())
        .filter_map(|part| part.document.default_decision.0)
        .reduce(strictest)
        .map_or("allow (not set)", word)
        .to_owned()
}

fn tenants(old: &[Part], new: &[Part]) -> Vec<String> {
    let all = |parts: &[Part]| -> HashSet<String> {
        parts
            .iter()
            .flat_map(|part| part.document.tenants.keys().cloned())
            .collect()
    };
    let of = |parts: &[Part], name: &str| -> Vec<_> {
        parts
            .iter()
            .filter_map(|part| Some((part.kind, part.document.tenants.get(name)?.clone())))
            .collect()
    };
    let mut names: Vec<String> = all(old).union(&all(new)).cloned().collect();
    names.sort_unstable();
    names.retain(|name| of(old, name) != of(new, name));
    names
}
