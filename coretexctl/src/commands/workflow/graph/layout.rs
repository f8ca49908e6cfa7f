//! Where the steps of a definition stand in a drawing: a tree with notes, made from a graph.
//!
//! Definitions that nobody checked are drawn as well: a step on a cycle stands at the root.

use std::collections::{BTreeMap, BTreeSet};

use coretex_core::workflow::Workflow;

/// Why a step stands below another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// It waits for it.
    After,
    /// It is on a way of this `switch`.
    Way(String),
    /// It handles its failure.
    OnError,
}

/// The links of a definition, and the tree that is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// From, to, why; without those to steps that do not exist.
    pub(crate) links: BTreeSet<(String, String, Link)>,
    /// What stands below what: the steps below each, in order; below the empty id, the roots.
    pub(crate) below: BTreeMap<String, Vec<String>>,
    /// The steps that run at the end.
    pub(crate) finally: Vec<String>,
    /// What each step stands below, and why.
    pub(crate) above: BTreeMap<String, (String, Link)>,
}

impl Layout {
    pub(crate) fn of(workflow: &Workflow) -> Self {
        let links = links(workflow);
        let depths = depths(workflow, &links);
        let mut layout = Self {
            links,
            ..Self::default()
        };
        for (id, step) in &workflow.steps {
            // The way that leads to it says most, then the failure that it handles, then the last that it waits for.
            let above = layout
                .links
                .iter()
                .filter(|(from, to, _)| {
                    to == id && depths.contains_key(from.as_str()) && depths.contains_key(id.as_str())
                })
                .max_by_key(|(from, _, link)| {
                    let rank = match link {
                        Link::After => 0,
                        Link::OnError => 1,
                        Link::Way(_) => 2,
                    };
                    (rank, depths.get(from.as_str()), std::cmp::Reverse(from))
                })
                .map(|(from, _, link)| (from.clone(), link.clone()));
            match above {
                _ if step.finally => layout.finally.push(id.clone()),
                // What waits for a step of the end is one itself, or never runs.
                Some((from, link)) => {
                    layout.below.entry(from.clone()).or_default().push(id.clone());
                    layout.above.insert(id.clone(), (from, link));
                }
                None => layout.below.entry(String::new()).or_default().push(id.clone()),
            }
        }
        layout
    }

    /// What a step waits for besides what it stands below.
    pub(crate) fn also_after(&self, id: &str) -> Vec<&str> {
        let above = self.above.get(id).map(|(from, _)| from.as_str());
        self.links
            .iter()
            .filter(|(from, to, link)| to == id && *link == Link::After && above != Some(from.as_str()))
            .map(|(from, _, _)| from.as_str())
            .collect()
    }

    /// Every step, those above first, with how deep it stands.
    pub(crate) fn walk(&self) -> Vec<(&str, usize)> {
        let mut order = Vec::new();
        self.descend("", 0, &mut order);
        for id in &self.finally {
            order.push((id.as_str(), 0));
            self.descend(id, 1, &mut order);
        }
        order
    }

    fn descend<'a>(&'a self, id: &str, depth: usize, order: &mut Vec<(&'a str, usize)>) {
        for child in self.below.get(id).into_iter().flatten() {
            order.push((child.as_str(), depth));
            self.descend(child, depth + 1, order);
        }
    }
}

fn links(workflow: &Workflow) -> BTreeSet<(String, String, Link)> {
    let mut links = BTreeSet::new();
    for (id, step) in &workflow.steps {
        let mut add = |from: &str, to: &str, link: Link| {
            if from != to && workflow.steps.contains_key(from) && workflow.steps.contains_key(to) {
                links.insert((from.to_owned(), to.to_owned(), link));
            }
        };
        for before in &step.depends_on {
            add(before, id, Link::After);
        }
        for case in &step.cases {
            for then in &case.then {
                add(id, then, Link::Way(case.when.clone()));
            }
        }
        for then in &step.default {
            add(id, then, Link::Way("else".to_owned()));
        }
        if !step.on_error.is_empty() {
            add(id, &step.on_error, Link::OnError);
        }
    }
    links
}

/// How far each step is from a root at most. Steps on cycles, and behind them, are not in it.
fn depths<'a>(workflow: &'a Workflow, links: &BTreeSet<(String, String, Link)>) -> BTreeMap<&'a str, usize> {
    let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to, _) in links {
        before.entry(to).or_default().insert(from);
    }
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    loop {
        let ready: Vec<(&str, usize)> = workflow
            .steps
            .keys()
            .filter(|id| !depths.contains_key(id.as_str()))
            .filter_map(|id| {
                let Some(before) = before.get(id.as_str()) else {
                    return Some((id.as_str(), 0));
                };
                let deepest = before.iter().map(|from| depths.get(from)).collect::<Option<Vec<_>>>()?;
                Some((id.as_str(), deepest.into_iter().max().map_or(0, |depth| depth + 1)))
            })
            .collect();
        if ready.is_empty() {
            return depths;
        }
        depths.extend(ready);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// One of everything that is drawn in its own way.
    pub(in super::super) fn sample() -> Workflow {
        serde_json::from_value(json!({"id": "triage", "name": "Triage", "steps": {
            "fetch": {"type": "worker", "topic": "job.fetch", "retry": {"max_retries": 3}, "on_error": "report"},
            "report": {"type": "notify"},
            "route": {"type": "switch", "depends_on": ["fetch"],
                      "cases": [{"when": "steps.fetch.output.size > 10", "then": ["big"]}], "default": ["small"]},
            "big": {"type": "worker", "topic": "job.big", "for_each": "steps.fetch.output.parts", "max_parallel": 4},
            "small": {"type": "transform", "expression": "1"},
            "ask": {"type": "approval", "depends_on": ["big", "small"], "dependency_policy": "any_success",
                    "approval": {"quorum": 2, "roles": ["secops"]}, "timeout_sec": 60},
            "book": {"type": "worker", "topic": "job.book", "depends_on": ["ask", "fetch"],
                     "compensate": {"type": "worker", "topic": "job.unbook"}},
            "both": {"type": "parallel", "depends_on": ["book"], "wait_for": "any",
                     "branches": [{"type": "worker", "topic": "job.a"}, {"type": "subworkflow", "workflow": "child"}]},
            "clean": {"type": "worker", "topic": "job.clean", "finally": true},
        }}))
        .expect("a definition")
    }

    #[test]
    fn every_step_stands_once_below_the_last_it_waits_for() {
        let layout = Layout::of(&sample());
        assert_eq!(
            layout.walk(),
            [
                ("fetch", 0),
                ("report", 1),
                ("route", 1),
                ("big", 2),
                ("ask", 3),
                ("book", 4),
                ("both", 5),
                ("small", 2),
                ("clean", 0),
            ]
        );
        assert_eq!(layout.also_after("ask"), ["small"]);
        assert_eq!(layout.also_after("book"), ["fetch"]);
        assert_eq!(layout.above["report"], ("fetch".to_owned(), Link::OnError));
    }

    #[test]
    fn what_is_wrong_is_drawn_too() {
        let workflow: Workflow = serde_json::from_value(json!({"steps": {
            "a": {"depends_on": ["b", "a", "nowhere"]}, "b": {"depends_on": ["a"]}, "c": {"depends_on": ["b"]}, "d": {}
        }}))
        .expect("a definition");
        let layout = Layout::of(&workflow);
        assert_eq!(layout.walk(), [("a", 0), ("b", 0), ("c", 0), ("d", 0)]);
        assert_eq!(layout.also_after("a"), ["b"]);
        assert_eq!(Layout::of(&Workflow::default()).walk(), []);
    }
}
