//! How steps refer to each other: by name, and in expressions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, nearest};
use crate::workflow::graph;
use crate::workflow::model::{DependencyPolicy, Step, StepKind, Workflow};
use crate::workflow::plan::{Links, choices};

/// The names an expression may begin with.
const ROOTS: [&str; 11] = [
    "input",
    "ctx",
    "steps",
    "run",
    "now",
    "item",
    "index",
    "items_total",
    "last",
    "error",
    "true",
];

/// What the expressions of a place can read.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads<'a> {
    /// The step they belong to. `None`: they are evaluated at the end, when everything is there.
    pub(super) step: Option<&'a str>,
    /// Where in it.
    pub(super) place: Place,
}

/// Where in a step an expression is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// The step itself.
    #[default]
    Step,
    /// A child of a `for_each`: there are `item`, `items_total` and `index`.
    Item,
    /// A branch: there is `index`.
    Branch,
    /// A round: there are `index` and `last`.
    Round,
    /// What undoes it, when it has succeeded.
    Undo,
}

impl Reads<'_> {
    pub(super) fn at_the_end() -> Self {
        Self::default()
    }
}

/// The steps and what they wait for.
pub(super) struct Graph<'a> {
    ids: Vec<&'a str>,
    links: Links,
    order: Vec<usize>,
    cyclic: BTreeSet<usize>,
    /// Of the steps that were asked about: what has ended when they begin.
    before: BTreeMap<usize, Vec<bool>>,
}

impl<'a> Graph<'a> {
    pub(super) fn of(workflow: &'a Workflow) -> Self {
        let links = Links::of(workflow);
        let (order, cyclic) = graph::order(&links.edges);
        Self {
            ids: workflow.steps.keys().map(String::as_str).collect(),
            links,
            order,
            cyclic,
            before: BTreeMap::new(),
        }
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    /// Whether `step` waits for `other`, directly or not.
    fn waits_for(&mut self, step: usize, other: usize) -> bool {
        let edges = &self.links.edges;
        self.before.entry(step).or_insert_with(|| graph::before(edges, step))[other]
    }
}

impl<'a> Checker<'a> {
    /// Dependencies, ways and handlers.
    pub(super) fn links(&mut self) {
        let workflow = self.workflow;
        for (id, step) in &workflow.steps {
            self.within(&["steps", id], |checker| {
                checker.dependencies(id, step);
                checker.handler(id, step);
                checker.choices(id, step);
            });
        }
        let mut left = self.graph.cyclic.clone();
        while let Some(start) = self.graph.order.iter().copied().find(|index| left.contains(index)) {
            let cycle = graph::cycle(&self.graph.links.edges, &self.graph.cyclic, start);
            left.remove(&start);
            if !cycle.iter().all(|index| left.contains(index) || *index == start) || cycle.is_empty() {
                continue;
            }
            for index in &cycle {
                left.remove(index);
            }
            let names: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|index| self.graph.ids[*index])
                .collect();
            let message = format!("steps wait for each other: {}", names.join(" → "));
            let first = names.first().copied().unwrap_or_default().to_owned();
            self.within(&["steps", &first], |checker| {
                checker.error_at("depends_on", "cycle", message);
            });
        }
    }

    fn dependencies(&mut self, id: &str, step: &'a Step) {
        let mut seen = BTreeSet::new();
        for (index, before) in step.depends_on.iter().enumerate() {
            let place = format!("depends_on/{index}");
            if !seen.insert(before) {
                self.warn_at(
                    &place,
                    "duplicate",
                    format!("`{}` is named twice", before.escape_debug()),
                );
                continue;
            }
            let Some(found) = self.workflow.steps.get(before) else {
                self.unknown_step(&place, before);
                continue;
            };
            if found.finally && !step.finally {
                let message = format!("`{before}` is a `finally` step: it runs when everything else is over");
                self.error_at(&place, "finally", message);
            }
            if step.finally && !found.finally {
                let message = format!(
                    "a `finally` step depends on other `finally` steps only; ask for `steps.{before}.status` in its `condition`"
                );
                self.error_at(&place, "finally", message);
            }
            let after_failure = matches!(
                step.dependency_policy,
                DependencyPolicy::AllDone | DependencyPolicy::OnFailure
            );
            if found.on_error == id && !after_failure {
                let message = format!("it handles the failure of `{before}`, and cannot wait for its success");
                self.error_at(&place, "handler", message);
            }
        }
        let chosen = self
            .graph
            .find(id)
            .is_some_and(|index| !self.graph.links.chosen_by[index].is_empty());
        if step.depends_on.is_empty() && !chosen && step.dependency_policy != DependencyPolicy::AllSuccess {
            let message = "there is no `depends_on` that it is about".to_owned();
            match step.dependency_policy {
                DependencyPolicy::AllDone => self.warn_at("dependency_policy", "no_effect", message),
                _ => self.error_at(
                    "dependency_policy",
                    "dependency_policy",
                    format!("{message}: it would never run"),
                ),
            }
        }
    }

    fn handler(&mut self, id: &str, step: &'a Step) {
        if step.on_error.is_empty() {
            return;
        }
        let Some(handler) = self.workflow.steps.get(&step.on_error) else {
            self.unknown_step("on_error", &step.on_error);
            return;
        };
        let linked = self
            .graph
            .find(id)
            .is_some_and(|index| self.graph.links.on_error[index].is_some());
        let name = &step.on_error;
        if name == id {
            self.error_at(
                "on_error",
                "handler",
                "a step cannot handle its own failure: use `retry`".to_owned(),
            );
        } else if !linked {
            let message = format!("`{name}` comes before this step, and cannot handle its failure");
            self.error_at("on_error", "handler", message);
        }
        if handler.finally {
            let message = format!("`{name}` is a `finally` step: it runs when everything else is over");
            self.error_at("on_error", "finally", message);
        }
        if step.finally {
            let message = "a `finally` step has no handler: use `continue_on_error`".to_owned();
            self.error_at("on_error", "finally", message);
        }
        if step.continue_on_error {
            let message = "`on_error` is set as well: choose one of them".to_owned();
            self.warn_at("continue_on_error", "handler", message);
        }
    }

    fn choices(&mut self, id: &str, step: &'a Step) {
        if step.kind() != StepKind::Switch {
            return;
        }
        let lists = step
            .cases
            .iter()
            .enumerate()
            .map(|(index, case)| (format!("cases/{index}/then"), &case.then));
        for (place, then) in lists.chain([("default".to_owned(), &step.default)]) {
            for (index, chosen) in then.iter().enumerate() {
                let place = format!("{place}/{index}");
                match self.workflow.steps.get(chosen) {
                    None => self.unknown_step(&place, chosen),
                    Some(_) if chosen == id => {
                        self.error_at(&place, "cycle", "a switch cannot choose itself".to_owned());
                    }
                    Some(found) if found.finally || step.finally => {
                        let message = "`finally` steps neither choose nor are chosen".to_owned();
                        self.error_at(&place, "finally", message);
                    }
                    Some(_) => {}
                }
            }
        }
        if choices(step).next().is_none() {
            self.error_at(
                "cases",
                "switch",
                "it chooses no step: name some in `then` or `default`".to_owned(),
            );
        }
    }

    fn unknown_step(&mut self, place: &str, id: &str) {
        let parent = id.split_once('[').map(|(parent, _)| parent);
        let told = id.escape_debug();
        let message = if let Some(parent) = parent.filter(|parent| self.workflow.steps.contains_key(*parent)) {
            format!("`{told}` is a child: name the step `{parent}`, which ends when all its children have")
        } else {
            match nearest(id, self.workflow.steps.keys().map(String::as_str)) {
                Some(near) => format!("there is no step `{told}`; did you mean `{near}`?"),
                None => format!("there is no step `{told}`"),
            }
        };
        self.error_at(place, "unknown_step", message);
    }

    // === Expressions ===

    pub(super) fn step_is_read(&mut self, member: &str, id: &str, reads: &Reads<'a>) {
        // `steps.fan[0]` is a path with an index; a key with brackets in it was written as text.
        let id = id.split_once('[').map_or(id, |(parent, _)| parent);
        let Some(other) = self.graph.find(id) else {
            self.unknown_step(member, id);
            return;
        };
        self.read.insert(id.to_owned());
        let Some(index) = reads.step.and_then(|step| self.graph.find(step)) else {
            return;
        };
        if index == other {
            if reads.place != Place::Undo {
                let message = format!("`steps.{id}` is this step itself: it has no result yet");
                self.warn_at(member, "not_yet", message);
            }
            return;
        }
        let finally = reads
            .step
            .and_then(|step| self.workflow.steps.get(step))
            .is_some_and(|step| step.finally);
        if reads.place != Place::Undo && !finally && !self.graph.waits_for(index, other) {
            let message = format!("`{id}` may not have ended when this is evaluated: add it to `depends_on`");
            self.warn_at(member, "not_yet", message);
        }
    }

    pub(super) fn root_is_read(&mut self, member: &str, root: &str, reads: &Reads<'a>) {
        let handles = || {
            let step = reads.step.and_then(|step| self.graph.find(step))?;
            Some(self.graph.links.on_error.contains(&Some(step)))
        };
        let (there, where_to) = match root {
            "item" | "items_total" => (reads.place == Place::Item, "the children of a `for_each`"),
            "index" => (
                matches!(reads.place, Place::Item | Place::Branch | Place::Round),
                "children",
            ),
            "last" => (reads.place == Place::Round, "a `loop`"),
            "error" => (handles().unwrap_or(false), "a step that another names in `on_error`"),
            root if ROOTS.contains(&root) => return,
            root => {
                let told = root.escape_debug();
                let message = match nearest(root, ROOTS.into_iter()) {
                    Some(near) => format!("`{told}` is not known and always null; did you mean `{near}`?"),
                    None => format!("`{told}` is not known and always null; texts need quotes"),
                };
                self.warn_at(member, "unknown_name", message);
                return;
            }
        };
        if !there {
            self.warn_at(
                member,
                "unknown_name",
                format!("`{root}` exists in {where_to} only, and is null here"),
            );
        }
    }

    /// Steps that do nothing but compute what nobody reads.
    pub(super) fn unread(&mut self) {
        for (id, step) in &self.workflow.steps {
            let computes = matches!(step.kind(), StepKind::Transform | StepKind::Condition);
            let leaf = !self
                .graph
                .links
                .edges
                .iter()
                .any(|edges| self.graph.find(id).is_some_and(|at| edges.contains(&at)));
            if computes && !leaf && step.output_path.is_empty() && !self.read.contains(id) {
                let message = format!("nobody reads what it computes: `steps.{id}.output` is in no expression");
                self.within(&["steps", id], |checker| checker.warn_at("type", "unread", message));
            }
        }
    }
}
