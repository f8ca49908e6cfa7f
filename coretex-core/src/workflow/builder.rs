//! Definitions in Rust. See `docs/workflows.md`.
//!
//! What is built is exactly what the same definition as JSON or YAML would be, and is checked in the same way.
//!
//! ```
//! use std::time::Duration;
//!
//! use coretex_core::workflow::Workflow;
//! use coretex_core::workflow::builder::{approval, worker};
//! use serde_json::json;
//!
//! let triage = Workflow::builder("triage")
//!     .step(worker("collect").topic("job.collect").input(json!({"ticket": "${input.ticket}"})))
//!     .step(approval("ok").after("collect").timeout(Duration::from_secs(3_600)))
//!     .step(worker("close").topic("job.close").after("ok").retries(3))
//!     .build()?;
//! assert_eq!(triage.steps["close"].depends_on, ["ok"]);
//! # Ok::<(), coretex_core::workflow::builder::Problems>(())
//! ```

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::check::{self, Known, Problem, Severity, pointer_segment};
use super::model::{
    ApprovalRule, Backoff, Case, DependencyPolicy, Object, OnExpiry, OnFailure, Retry, Step, StepMeta, WaitFor,
    Workflow,
};

/// Why a definition cannot be used: at least one error, and what else was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&check::joined(&self.0))
    }
}

impl std::error::Error for Problems {}

impl Workflow {
    /// Begins a definition.
    pub fn builder(id: &str) -> WorkflowBuilder {
        WorkflowBuilder {
            workflow: Self {
                id: id.to_owned(),
                ..Self::default()
            },
            problems: Vec::new(),
        }
    }
}

/// A definition that is being made.
#[derive(Debug, Clone)]
#[must_use = "it ends with `build`"]
pub struct WorkflowBuilder {
    workflow: Workflow,
    problems: Vec<Problem>,
}

impl WorkflowBuilder {
    /// For people.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.workflow.name);
        self
    }

    /// For people.
    pub fn description(mut self, text: &str) -> Self {
        text.clone_into(&mut self.workflow.description);
        self
    }

    /// A label of the author's.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.workflow.version);
        self
    }

    /// Whose it is, for lists.
    pub fn org(mut self, org: &str) -> Self {
        org.clone_into(&mut self.workflow.org_id);
        self
    }

    /// Whose it is, for people.
    pub fn team(mut self, team: &str) -> Self {
        team.clone_into(&mut self.workflow.team_id);
        self
    }

    /// How long a run may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.workflow.timeout_sec, self.workflow.timeout_ms) = seconds_or_millis(timeout);
        self
    }

    /// What a run's input has to be: a JSON Schema.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.workflow.input_schema = self.object("/input_schema", schema);
        self
    }

    /// Kept for clients.
    pub fn config(mut self, config: Value) -> Self {
        self.workflow.config = self.object("/config", config);
        self
    }

    /// The run's output: a template tree.
    pub fn output(mut self, output: Value) -> Self {
        self.workflow.output = output;
        self
    }

    /// What happens to steps in flight when the run fails.
    pub fn on_failure(mut self, what: OnFailure) -> Self {
        self.workflow.on_failure = what;
        self
    }

    /// How many runs may be open at once.
    pub fn max_concurrent_runs(mut self, count: u32) -> Self {
        self.workflow.max_concurrent_runs = count.into();
        self
    }

    /// Adds a step.
    pub fn step(mut self, step: StepBuilder) -> Self {
        let place = format!("/steps/{}", pointer_segment(&step.step.id));
        self.problems.extend(
            step.problems
                .iter()
                .map(|(member, message)| Problem::error(&format!("{place}/{member}"), "type", message.clone())),
        );
        let id = step.step.id.clone();
        if self.workflow.steps.insert(id.clone(), step.step).is_some() {
            let message = format!("there are two steps `{}`", id.escape_debug());
            self.problems.push(Problem::error(&place, "duplicate", message));
        }
        self
    }

    /// The definition, checked as it would be when it is saved.
    ///
    /// # Errors
    /// All problems, if any of them is an error.
    pub fn build(self) -> Result<Workflow, Problems> {
        let mut problems = self.problems;
        problems.extend(check::check(&self.workflow, &Known::default()));
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Problems(problems));
        }
        Ok(self.workflow)
    }

    fn object(&mut self, pointer: &str, value: Value) -> Object {
        match value {
            Value::Object(members) => members,
            other => {
                let message = format!("expected an object, found {other}");
                self.problems.push(Problem::error(pointer, "type", message));
                Object::new()
            }
        }
    }
}

/// A step that is being made.
#[derive(Debug, Clone)]
#[must_use = "a step is part of a workflow or of another step"]
pub struct StepBuilder {
    step: Step,
    /// Members, and what is wrong with them.
    problems: Vec<(&'static str, String)>,
}

fn step(id: &str, step_type: &str) -> StepBuilder {
    StepBuilder {
        step: Step {
            id: id.to_owned(),
            step_type: step_type.to_owned(),
            ..Step::default()
        },
        problems: Vec::new(),
    }
}

/// A job for a worker. Without a topic it goes to `job.workflow.<workflow>`.
pub fn worker(id: &str) -> StepBuilder {
    step(id, "worker")
}

/// Waits for votes.
pub fn approval(id: &str) -> StepBuilder {
    step(id, "approval")
}

/// Waits for a time to pass.
pub fn delay(id: &str, how_long: Duration) -> StepBuilder {
    let mut built = step(id, "delay");
    (built.step.delay_sec, built.step.delay_ms) = seconds_or_millis(how_long);
    built
}

/// Waits until a time as of RFC 3339, a template.
pub fn delay_until(id: &str, when: &str) -> StepBuilder {
    let mut built = step(id, "delay");
    when.clone_into(&mut built.step.delay_until);
    built
}

/// Tells the bus.
pub fn notify(id: &str, message: &str) -> StepBuilder {
    let mut built = step(id, "notify");
    built.step.input.insert("message".to_owned(), message.into());
    built
}

/// Records whether an expression holds.
pub fn condition(id: &str, expression: &str) -> StepBuilder {
    step(id, "condition").when(expression)
}

/// Chooses which steps run: see [`case`](StepBuilder::case) and [`otherwise`](StepBuilder::otherwise).
pub fn switch(id: &str) -> StepBuilder {
    step(id, "switch")
}

/// Runs steps side by side. They need no ids of their own: these become their names.
pub fn parallel(id: &str, branches: impl IntoIterator<Item = StepBuilder>) -> StepBuilder {
    let mut built = step(id, "parallel");
    for branch in branches {
        let branch = built.nest("branches", branch);
        built.step.branches.push(branch);
    }
    built
}

/// Runs a step again and again: see [`until`](StepBuilder::until) and [`while_`](StepBuilder::while_).
pub fn repeat(id: &str, body: StepBuilder) -> StepBuilder {
    let mut built = step(id, "loop");
    let body = built.nest("body", body);
    built.step.body = Some(Box::new(body));
    built
}

/// Runs another workflow.
pub fn subworkflow(id: &str, workflow: &str) -> StepBuilder {
    let mut built = step(id, "subworkflow");
    workflow.clone_into(&mut built.step.workflow);
    built
}

/// Computes a value.
pub fn transform(id: &str, expression: &str) -> StepBuilder {
    let mut built = step(id, "transform");
    expression.clone_into(&mut built.step.expression);
    built
}

/// Waits for a person to fill in a form of this JSON Schema.
pub fn form(id: &str, schema: Value) -> StepBuilder {
    step(id, "input").output_schema(schema)
}

/// Waits for a signal of this name.
pub fn signal(id: &str, name: &str) -> StepBuilder {
    let mut built = step(id, "signal");
    name.clone_into(&mut built.step.signal);
    built
}

impl StepBuilder {
    /// For people.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.step.name);
        self
    }

    /// Another type: any word is a type of job.
    pub fn kind(mut self, step_type: &str) -> Self {
        step_type.clone_into(&mut self.step.step_type);
        self
    }

    /// Waits for another step. May be called again.
    pub fn after(mut self, step: &str) -> Self {
        self.step.depends_on.push(step.to_owned());
        self
    }

    /// Which ends of the steps it waits for let it run.
    pub fn policy(mut self, policy: DependencyPolicy) -> Self {
        self.step.dependency_policy = policy;
        self
    }

    /// Runs only if this expression holds.
    pub fn when(mut self, condition: &str) -> Self {
        condition.clone_into(&mut self.step.condition);
        self
    }

    /// The job's topic, a template.
    pub fn topic(mut self, topic: &str) -> Self {
        topic.clone_into(&mut self.step.topic);
        self
    }

    /// The worker that is to do it.
    pub fn worker_id(mut self, worker: &str) -> Self {
        worker.clone_into(&mut self.step.worker_id);
        self
    }

    /// The input: an object, a template tree.
    pub fn input(mut self, input: Value) -> Self {
        self.step.input = self.object("input", input);
        self
    }

    /// What the input has to be: a JSON Schema.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.step.input_schema = self.object("input_schema", schema);
        self
    }

    /// What the output has to be: a JSON Schema.
    pub fn output_schema(mut self, schema: Value) -> Self {
        self.step.output_schema = self.object("output_schema", schema);
        self
    }

    /// Where in the run's context the output is written.
    pub fn output_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.step.output_path);
        self
    }

    /// How long one attempt, or the wait for people, may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.step.timeout_sec, self.step.timeout_ms) = seconds_or_millis(timeout);
        self
    }

    /// How often it is tried again.
    pub fn retries(mut self, count: u32) -> Self {
        self.step.retry.get_or_insert_default().max_retries = count.into();
        self
    }

    /// When and how often it is tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.step.retry = Some(retry);
        self
    }

    /// The pauses between attempts: the first, and how they grow.
    pub fn backoff(mut self, first: Duration, growth: Backoff) -> Self {
        let retry = self.step.retry.get_or_insert_default();
        (retry.initial_backoff_sec, retry.initial_backoff_ms) = seconds_or_millis(first);
        retry.backoff = growth;
        self
    }

    /// The step that runs if this one fails.
    pub fn on_error(mut self, handler: &str) -> Self {
        handler.clone_into(&mut self.step.on_error);
        self
    }

    /// Its failure counts as success.
    pub fn continue_on_error(mut self) -> Self {
        self.step.continue_on_error = true;
        self
    }

    /// It runs at the end, however the run ended.
    pub fn finally(mut self) -> Self {
        self.step.finally = true;
        self
    }

    /// What undoes it, if the run does not succeed after it did.
    pub fn compensate(mut self, undo: Self) -> Self {
        let undo = self.nest("compensate", undo);
        self.step.compensate = Some(Box::new(undo));
        self
    }

    /// One child for each item of this array.
    pub fn for_each(mut self, items: &str) -> Self {
        items.clone_into(&mut self.step.for_each);
        self
    }

    /// How many children or branches run at once.
    pub fn max_parallel(mut self, count: u32) -> Self {
        self.step.max_parallel = count.into();
        self
    }

    /// How many children may fail without the step failing.
    pub fn tolerated_failures(mut self, count: u32) -> Self {
        self.step.tolerated_failures = count.into();
        self
    }

    /// How many items there may be.
    pub fn max_items(mut self, count: u32) -> Self {
        self.step.max_items = count.into();
        self
    }

    /// Goes with the job, for policy.
    pub fn meta(mut self, meta: StepMeta) -> Self {
        self.step.meta = Some(meta);
        self
    }

    /// A label of the job, its value a template.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.step.route_labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The job's priority: `critical`, `interactive` or `batch`, a template.
    pub fn priority(mut self, priority: &str) -> Self {
        priority.clone_into(&mut self.step.priority);
        self
    }

    /// The job's memory, a template.
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.step.memory_id);
        self
    }

    /// `switch`: where to go if this holds and no case before does.
    pub fn case<'a>(mut self, when: &str, then: impl IntoIterator<Item = &'a str>) -> Self {
        self.step.cases.push(Case {
            when: when.to_owned(),
            then: then.into_iter().map(str::to_owned).collect(),
        });
        self
    }

    /// `switch`: where to go if no case holds.
    pub fn otherwise<'a>(mut self, then: impl IntoIterator<Item = &'a str>) -> Self {
        self.step.default = then.into_iter().map(str::to_owned).collect();
        self
    }

    /// `parallel`: how many branches have to succeed.
    pub fn wait_for(mut self, branches: WaitFor) -> Self {
        self.step.wait_for = branches;
        self
    }

    /// `loop`: ends once this holds.
    pub fn until(mut self, expression: &str) -> Self {
        expression.clone_into(&mut self.step.until);
        self
    }

    /// `loop`: goes on while this holds.
    pub fn while_(mut self, expression: &str) -> Self {
        expression.clone_into(&mut self.step.while_);
        self
    }

    /// `loop`: how many rounds at most.
    pub fn max_iterations(mut self, count: u32) -> Self {
        self.step.max_iterations = count.into();
        self
    }

    /// `approval`, `form`: what people are asked, a template.
    pub fn prompt(mut self, prompt: &str) -> Self {
        prompt.clone_into(&mut self.step.prompt);
        self
    }

    /// `approval`: how many different people have to agree.
    pub fn quorum(mut self, count: u32) -> Self {
        self.approval_rule().quorum = count.into();
        self
    }

    /// `approval`: who may vote. May be called again.
    pub fn role(mut self, role: &str) -> Self {
        self.approval_rule().roles.push(role.to_owned());
        self
    }

    /// `approval`: what happens when its timeout is over.
    pub fn on_expiry(mut self, what: OnExpiry) -> Self {
        self.approval_rule().on_expiry = what;
        self
    }

    fn approval_rule(&mut self) -> &mut ApprovalRule {
        self.step.approval.get_or_insert_default()
    }

    fn nest(&mut self, member: &'static str, nested: Self) -> Step {
        self.problems.extend(
            nested
                .problems
                .into_iter()
                .map(|(inner, message)| (member, format!("{inner}: {message}"))),
        );
        let mut step = nested.step;
        let id = std::mem::take(&mut step.id);
        if step.name.is_empty() {
            step.name = id;
        }
        step
    }

    fn object(&mut self, member: &'static str, value: Value) -> Object {
        match value {
            Value::Object(members) => members,
            other => {
                self.problems
                    .push((member, format!("expected an object, found {other}")));
                Object::new()
            }
        }
    }
}

/// Whole seconds as such, which the reference understands as well.
fn seconds_or_millis(time: Duration) -> (i64, i64) {
    if time.subsec_nanos() == 0 {
        (i64::try_from(time.as_secs()).unwrap_or(i64::MAX), 0)
    } else {
        (0, i64::try_from(time.as_millis().max(1)).unwrap_or(i64::MAX))
    }
}

/// Compiles the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/workflows.md")]
struct Guide;

#[cfg(test)]
mod tests;
