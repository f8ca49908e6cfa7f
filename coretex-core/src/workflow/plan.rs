//! A definition made ready to run: parsed, ordered, linked. One plan serves every run of its revision.
//!
//! Compiling never fails. What is wrong with a stored definition is kept where it was found, as the text the step will fail
//! with when it is reached; new definitions are checked when they are saved ([`check`](super::check)).

use std::collections::BTreeSet;
use std::ops::Index;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::graph::{self, Edges};
use super::model::{DependencyPolicy, Step, StepKind, StepMeta, Workflow};
use super::run::StepKey;
use super::schema::{Schema, SchemaSet};
use crate::expr::{Expr, Template};
use crate::protocol::JobId;
use crate::protocol::labels::is_approval_label;

/// A part of a definition, or why it cannot be used.
pub type Part<T> = Result<T, String>;

/// A step of a plan: its place in the order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIndex(usize);

impl StepIndex {
    /// The place, from 0.
    pub fn get(self) -> usize {
        self.0
    }
}

/// A compiled definition.
#[derive(Debug)]
pub struct Plan {
    /// What it was made from.
    pub workflow: Arc<Workflow>,
    /// The revision's name.
    pub hash: String,
    /// Every step, what it depends on before it, by id among equals.
    pub order: Vec<StepIndex>,
    /// The steps nothing depends on, by id, without `finally` steps and error handlers: their outputs are the run's.
    pub leaves: Vec<StepIndex>,
    /// Whether any step can be undone.
    pub compensates: bool,
    /// What a run's input has to be.
    pub input_schema: Option<Part<Arc<Schema>>>,
    /// The run's output.
    pub output: Option<Part<Template>>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// By id.
    steps: Vec<PlannedStep>,
    /// The place of each in `order`.
    ranks: Vec<usize>,
    /// The steps that may be reached because others never will be.
    watchful: Vec<StepIndex>,
}

/// A compiled step.
#[derive(Debug)]
pub struct PlannedStep {
    /// Its key in a run; for a step within a step, that of the step it is in.
    pub key: StepKey,
    /// Its place in the plan; for a step within a step, that of the step it is in.
    pub index: StepIndex,
    /// What it was made from.
    pub step: Step,
    /// How it behaves.
    pub kind: StepKind,
    /// Whether it has a child for each item of an array.
    pub fans_out: bool,
    /// What it fails with as soon as the run begins: dependencies that are not there or go in a circle, an id no job
    /// can have.
    pub problem: Option<String>,
    /// The steps it names in `depends_on`, once each.
    pub depends_on: Vec<StepIndex>,
    /// The switches that choose it, which it depends on as well.
    pub chosen_by: Vec<StepIndex>,
    /// The steps whose failures it handles.
    pub handles: Vec<StepIndex>,
    /// The step that handles its failure.
    pub on_error: Option<StepIndex>,
    /// The steps that depend on it, by name or because it chooses them.
    pub dependents: Vec<StepIndex>,
    /// Whether it runs at all; for a `condition` step, its value.
    pub condition: Option<Part<Expr>>,
    /// The items; only if it fans out.
    pub for_each: Option<Part<Expr>>,
    /// The input. `None`: the run's.
    pub input: Option<Part<Template>>,
    /// What the input has to be.
    pub input_schema: Option<Part<Arc<Schema>>>,
    /// What the output has to be.
    pub output_schema: Option<Part<Arc<Schema>>>,
    /// The job's topic.
    pub topic: Part<Template>,
    /// The job's labels, without those that are not the author's to set.
    pub labels: Vec<(String, Part<Template>)>,
    /// The job's metadata.
    pub meta: Option<PlannedMeta>,
    /// The job's priority.
    pub priority: Option<Part<Template>>,
    /// The job's memory.
    pub memory_id: Option<Part<Template>>,
    /// `delay`: until when.
    pub delay_until: Option<Part<Template>>,
    /// `approval`, `input`: what people are asked.
    pub prompt: Option<Part<Template>>,
    /// `subworkflow`: which.
    pub workflow: Option<Part<Template>>,
    /// `signal`: its name.
    pub signal: String,
    /// `transform`: the value.
    pub expression: Option<Part<Expr>>,
    /// `switch`: the ways to go.
    pub cases: Vec<PlannedCase>,
    /// `switch`: where to go if no case holds.
    pub default: Vec<StepIndex>,
    /// `switch`: every step it chooses from, once each.
    pub choices: Vec<StepIndex>,
    /// `loop`: asked before each round.
    pub while_: Option<Part<Expr>>,
    /// `loop`: asked after each round.
    pub until: Option<Part<Expr>>,
    /// `loop`: what is done in each round.
    pub body: Option<Box<PlannedStep>>,
    /// `parallel`: what runs side by side.
    pub branches: Vec<PlannedStep>,
    /// What undoes it.
    pub compensate: Option<Box<PlannedStep>>,
    /// How long one attempt or wait may take.
    pub timeout: Option<Duration>,
}

/// One way of a `switch`.
#[derive(Debug)]
pub struct PlannedCase {
    /// Whether to go it.
    pub when: Part<Expr>,
    /// The steps that run then.
    pub then: Vec<StepIndex>,
}

/// [`StepMeta`], compiled.
#[derive(Debug)]
pub struct PlannedMeta {
    /// Who acts.
    pub actor_id: Part<Template>,
    /// `human` or `service`.
    pub actor_type: Part<Template>,
    /// Claimed by the first job that carries it.
    pub idempotency_key: Part<Template>,
    /// The pack it belongs to.
    pub pack_id: Part<Template>,
    /// What the job is able to do.
    pub capability: Part<Template>,
    /// What is risky about it.
    pub risk_tags: Vec<Part<Template>>,
    /// What its worker has to have.
    pub requires: Vec<Part<Template>>,
    /// Labels of the metadata.
    pub labels: Vec<(String, Part<Template>)>,
}

impl Plan {
    /// Compiles a definition.
    pub fn compile(workflow: Arc<Workflow>, hash: String, schemas: &SchemaSet) -> Self {
        let links = Links::of(&workflow);
        let (order, cyclic) = graph::order(&links.edges);
        let default_topic = format!("job.workflow.{}", workflow.id);
        let mut steps: Vec<PlannedStep> = workflow
            .steps
            .iter()
            .enumerate()
            .map(|(index, (id, step))| {
                let compiler = Compiler {
                    key: StepKey::new(id),
                    index: StepIndex(index),
                    default_topic: &default_topic,
                    schemas,
                };
                compiler.step(step)
            })
            .collect();
        let ids: Vec<&str> = workflow.steps.keys().map(String::as_str).collect();
        links.apply(&mut steps);
        for index in 0..steps.len() {
            steps[index].problem = links.unknown[index]
                .first()
                .map(|id| format!("it depends on step `{id}`, which does not exist"))
                .or_else(|| {
                    let cycle = cyclic
                        .contains(&index)
                        .then(|| graph::cycle(&links.edges, &cyclic, index))?;
                    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|index| ids[*index]).collect();
                    Some(format!("steps wait for each other: {}", names.join(" → ")))
                })
                .or_else(|| unusable_id(ids[index], steps[index].kind));
        }
        let leaves = steps
            .iter()
            .filter(|step| step.dependents.is_empty() && step.handles.is_empty() && !step.step.finally)
            .map(|step| step.index)
            .collect();
        let mut ranks = vec![0; steps.len()];
        for (rank, index) in order.iter().enumerate() {
            ranks[*index] = rank;
        }
        let watchful = steps
            .iter()
            .filter(|step| {
                use DependencyPolicy::{AllDone, OnFailure};
                matches!(step.step.dependency_policy, AllDone | OnFailure) || !step.handles.is_empty()
            })
            .map(|step| step.index)
            .collect();
        Self {
            ranks,
            watchful,
            order: order.into_iter().map(StepIndex).collect(),
            leaves,
            compensates: steps.iter().any(|step| step.compensate.is_some()),
            input_schema: schemas.find(&workflow.input_schema, ""),
            output: (!workflow.output.is_null()).then(|| template(&workflow.output)),
            timeout: workflow.timeout(),
            steps,
            hash,
            workflow,
        }
    }

    /// The steps, by id.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// A step's place in [`order`](Self::order).
    pub fn rank(&self, index: StepIndex) -> usize {
        self.ranks[index.0]
    }

    /// The steps that may be reached, or skipped, because others never will be: those of the policies `all_done` and
    /// `on_failure`, and error handlers.
    pub fn watchful(&self) -> &[StepIndex] {
        &self.watchful
    }

    /// The place of a step of the definition.
    pub fn index(&self, id: &str) -> Option<StepIndex> {
        let found = self.steps.binary_search_by(|step| step.id().cmp(id));
        found.ok().map(StepIndex)
    }

    /// What a key of a run stands for: a step, the branch, round or item of one (`fan[3]` is the step `fan`, `par[1]` the
    /// second branch of `par`), or what undoes one.
    pub fn step(&self, key: &StepKey) -> Option<&PlannedStep> {
        if let Some(index) = self.index(key.as_str()) {
            return Some(&self[index]);
        }
        if let Some(id) = key.undoes() {
            return self[self.index(id)?].compensate.as_deref();
        }
        let (id, child) = key.parent()?;
        let step = &self[self.index(id)?];
        match step.kind {
            StepKind::Parallel => step.branches.get(child),
            StepKind::Loop => step.body.as_deref(),
            _ => step.fans_out.then_some(step),
        }
    }
}

impl Index<StepIndex> for Plan {
    type Output = PlannedStep;

    fn index(&self, index: StepIndex) -> &PlannedStep {
        &self.steps[index.0]
    }
}

impl PlannedStep {
    /// The id of the step; for a step within a step, that of the step it is in.
    pub fn id(&self) -> &str {
        self.key.as_str()
    }

    /// Everything it waits for: what it names, and the switches that choose it.
    pub fn waits_for(&self) -> impl Iterator<Item = StepIndex> + '_ {
        self.depends_on.iter().chain(&self.chosen_by).copied()
    }

    /// The texts of all parts that cannot be used, the steps within it included. Empty for what passed the checks.
    pub fn errors(&self) -> Vec<&str> {
        let mut errors: Vec<&str> = self.problem.as_deref().into_iter().collect();
        let exprs = [
            &self.condition,
            &self.for_each,
            &self.expression,
            &self.while_,
            &self.until,
        ];
        errors.extend(exprs.into_iter().flatten().filter_map(error));
        errors.extend(self.cases.iter().filter_map(|case| error(&case.when)));
        errors.extend(
            [&self.input_schema, &self.output_schema]
                .into_iter()
                .flatten()
                .filter_map(error),
        );
        let templates = [
            &self.input,
            &self.priority,
            &self.memory_id,
            &self.delay_until,
            &self.prompt,
            &self.workflow,
        ];
        errors.extend(templates.into_iter().flatten().filter_map(error));
        errors.extend(error(&self.topic));
        errors.extend(self.labels.iter().filter_map(|(_, value)| error(value)));
        if let Some(meta) = &self.meta {
            let one = [
                &meta.actor_id,
                &meta.actor_type,
                &meta.idempotency_key,
                &meta.pack_id,
                &meta.capability,
            ];
            let several = meta.risk_tags.iter().chain(&meta.requires);
            let labels = meta.labels.iter().map(|(_, value)| value);
            errors.extend(one.into_iter().chain(several).chain(labels).filter_map(error));
        }
        let within = self
            .branches
            .iter()
            .chain(self.body.as_deref())
            .chain(self.compensate.as_deref());
        errors.extend(within.flat_map(Self::errors));
        errors
    }
}

fn error<T>(part: &Part<T>) -> Option<&str> {
    part.as_ref().err().map(String::as_str)
}

/// How the steps hang together, before there are planned steps.
pub(super) struct Links {
    depends_on: Vec<BTreeSet<usize>>,
    unknown: Vec<Vec<String>>,
    pub(super) chosen_by: Vec<BTreeSet<usize>>,
    pub(super) on_error: Vec<Option<usize>>,
    /// Dependencies of both kinds, and from handlers to what they handle.
    pub(super) edges: Edges,
}

impl Links {
    pub(super) fn of(workflow: &Workflow) -> Self {
        let ids: Vec<&str> = workflow.steps.keys().map(String::as_str).collect();
        let find = |id: &str| ids.binary_search(&id).ok();
        let count = ids.len();
        let mut links = Self {
            depends_on: vec![BTreeSet::new(); count],
            unknown: vec![Vec::new(); count],
            chosen_by: vec![BTreeSet::new(); count],
            on_error: vec![None; count],
            edges: vec![BTreeSet::new(); count],
        };
        for (index, step) in workflow.steps.values().enumerate() {
            for id in &step.depends_on {
                match find(id) {
                    Some(before) => {
                        links.depends_on[index].insert(before);
                        links.edges[index].insert(before);
                    }
                    None => links.unknown[index].push(id.clone()),
                }
            }
            for chosen in choices(step).filter_map(find) {
                links.chosen_by[chosen].insert(index);
                links.edges[chosen].insert(index);
            }
        }
        // The reference ignored `on_error`: a stored one that cannot work is ignored still.
        for (index, step) in workflow.steps.values().enumerate() {
            if let Some(handler) = find(&step.on_error)
                && !graph::waits_for(&links.edges, index, handler)
            {
                links.on_error[index] = Some(handler);
                links.edges[handler].insert(index);
            }
        }
        links
    }

    fn apply(&self, steps: &mut [PlannedStep]) {
        for index in 0..steps.len() {
            let before: BTreeSet<usize> = self.depends_on[index].union(&self.chosen_by[index]).copied().collect();
            for before in before {
                steps[before].dependents.push(StepIndex(index));
            }
            steps[index].depends_on = self.depends_on[index].iter().copied().map(StepIndex).collect();
            steps[index].chosen_by = self.chosen_by[index].iter().copied().map(StepIndex).collect();
            steps[index].on_error = self.on_error[index].map(StepIndex);
            if let Some(handler) = self.on_error[index] {
                steps[handler].handles.push(StepIndex(index));
            }
        }
        let ids: Vec<StepKey> = steps.iter().map(|step| step.key.clone()).collect();
        let find = |id: &String| ids.binary_search_by(|key| key.as_str().cmp(id)).ok().map(StepIndex);
        for step in steps {
            if step.kind == StepKind::Switch {
                for (case, planned) in step.step.cases.iter().zip(&mut step.cases) {
                    planned.then = case.then.iter().filter_map(find).collect();
                }
                step.default = step.step.default.iter().filter_map(find).collect();
                let choices: BTreeSet<StepIndex> = step
                    .cases
                    .iter()
                    .flat_map(|case| &case.then)
                    .chain(&step.default)
                    .copied()
                    .collect();
                step.choices = choices.into_iter().collect();
            }
        }
    }
}

/// The steps a switch chooses from.
pub(super) fn choices(step: &Step) -> impl Iterator<Item = &str> {
    let ids = step.cases.iter().flat_map(|case| &case.then).chain(&step.default);
    ids.map(String::as_str).filter(|_| step.kind() == StepKind::Switch)
}

/// An id that the reference accepted, but whose jobs it could never match with their results.
fn unusable_id(id: &str, kind: StepKind) -> Option<String> {
    let makes_jobs = matches!(kind, StepKind::Job | StepKind::Parallel | StepKind::Loop);
    // A run's id, the attempt and the index of a child come to it.
    let possible = !id.contains(':') && JobId::try_new(&format!("0:{id}@1")).is_ok();
    let child = StepKey::new(id).parent().is_some();
    ((makes_jobs && !possible) || child || id.is_empty())
        .then(|| format!("step id `{}` cannot be part of a job id", id.escape_debug()))
}

/// Labels that say where a job comes from and what it may do are not the author's to set (docs/spec/workflows.md §4.2).
pub(super) fn is_reserved_label(name: &str) -> bool {
    matches!(
        name,
        "workflow_id" | "run_id" | "step_id" | "dry_run" | "secrets_present"
    ) || is_approval_label(name)
        || name.starts_with("coretex.")
}

/// Compiles one step, and those within it.
struct Compiler<'a> {
    key: StepKey,
    index: StepIndex,
    default_topic: &'a str,
    schemas: &'a SchemaSet,
}

impl Compiler<'_> {
    fn step(&self, step: &Step) -> PlannedStep {
        let kind = step.kind();
        let topic = if step.topic.is_empty() {
            self.default_topic
        } else {
            &step.topic
        };
        let within = |step: &Step| Box::new(self.step(step));
        PlannedStep {
            key: self.key.clone(),
            index: self.index,
            kind,
            fans_out: step.fans_out(),
            problem: None,
            depends_on: Vec::new(),
            chosen_by: Vec::new(),
            handles: Vec::new(),
            on_error: None,
            dependents: Vec::new(),
            condition: expr(&step.condition),
            for_each: step.fans_out().then(|| expr(&step.for_each)).flatten(),
            input: (!step.input.is_empty()).then(|| template(&Value::Object(step.input.clone()))),
            input_schema: self.schemas.find(&step.input_schema, &step.input_schema_id),
            output_schema: self.schemas.find(&step.output_schema, &step.output_schema_id),
            topic: text(topic),
            labels: step
                .route_labels
                .iter()
                .filter(|(name, _)| !is_reserved_label(name))
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            meta: step.meta.as_ref().map(PlannedMeta::compile),
            priority: some_text(&step.priority),
            memory_id: some_text(&step.memory_id),
            delay_until: some_text(step.delay_until.trim()).filter(|_| kind == StepKind::Delay),
            prompt: some_text(&step.prompt),
            workflow: some_text(&step.workflow),
            signal: if step.signal.is_empty() {
                self.key.as_str().to_owned()
            } else {
                step.signal.clone()
            },
            expression: expr(&step.expression),
            cases: step
                .cases
                .iter()
                .map(|case| PlannedCase {
                    when: required(&case.when),
                    then: Vec::new(),
                })
                .collect(),
            default: Vec::new(),
            choices: Vec::new(),
            while_: expr(&step.while_),
            until: expr(&step.until),
            body: step.body.as_deref().map(within),
            branches: step.branches.iter().map(|branch| self.step(branch)).collect(),
            compensate: step.compensate.as_deref().map(within),
            timeout: step.timeout(),
            step: step.clone(),
        }
    }
}

impl PlannedMeta {
    fn compile(meta: &StepMeta) -> Self {
        Self {
            actor_id: text(&meta.actor_id),
            actor_type: text(&meta.actor_type),
            idempotency_key: text(&meta.idempotency_key),
            pack_id: text(&meta.pack_id),
            capability: text(&meta.capability),
            risk_tags: meta.risk_tags.iter().map(|tag| text(tag)).collect(),
            requires: meta.requires.iter().map(|one| text(one)).collect(),
            labels: meta
                .labels
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
        }
    }
}

fn expr(source: &str) -> Option<Part<Expr>> {
    (!source.is_empty()).then(|| required(source))
}

fn required(source: &str) -> Part<Expr> {
    Expr::parse_lenient(source).map_err(|error| error.to_string())
}

fn some_text(source: &str) -> Option<Part<Template>> {
    (!source.is_empty()).then(|| text(source))
}

fn text(source: &str) -> Part<Template> {
    Template::text(source).map_err(|errors| joined(&errors))
}

fn template(value: &Value) -> Part<Template> {
    Template::compile(value).map_err(|errors| joined(&errors))
}

/// The first is what the reference would have said; the others are for whoever repairs it.
fn joined(errors: &[crate::expr::TemplateError]) -> String {
    let texts: Vec<String> = errors.iter().take(5).map(ToString::to_string).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests;
