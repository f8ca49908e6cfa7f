//! What is wrong with a definition, all of it at once. See `docs/spec/workflows.md` §1.1.
//!
//! An error keeps a definition from being saved: it would hang, fail or not do what it seems to say. A warning tells about
//! what is allowed and rarely meant.

mod links;
mod members;
mod numbers;
mod step;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use self::links::Reads;
use super::model::{Object, Step, Workflow};
use super::schema::SchemaSet;
use crate::expr::{Expr, Segment, Template};
use crate::routing::yaml::distance;

/// How many steps a definition may have, those within steps included.
pub const MAX_STEPS: usize = 1_000;
/// How long the id of a step may be.
pub const MAX_STEP_ID: usize = 64;
/// More problems than this are not collected.
const MAX_PROBLEMS: usize = 500;

/// What is wrong with a part of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: a JSON pointer.
    pub pointer: String,
    /// Which rule, for programs.
    pub code: &'static str,
    /// What, and what to do about it.
    pub message: String,
    /// Whether it matters.
    pub severity: Severity,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The definition cannot be saved.
    Error,
    /// It can, and does something that is rarely meant.
    Warning,
}

impl Problem {
    /// What keeps a definition from being saved.
    pub fn error(pointer: &str, code: &'static str, message: String) -> Self {
        Self {
            pointer: pointer.to_owned(),
            code,
            message,
            severity: Severity::Error,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        f.write_str(&self.message)
    }
}

/// Problems on one line.
pub(super) fn joined(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// What exists besides the definition.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The registered schemas that the definition names ([`schema::names`](super::schema::names)), and what was compiled
    /// before.
    pub schemas: SchemaSet,
    /// The ids of all workflows. `None`: they are not looked at.
    pub workflows: Option<BTreeSet<String>>,
    /// Whether to say that a schema is not registered. Off, it may be registered later.
    pub registry: bool,
}

/// Everything that is wrong with a definition, errors first.
pub fn check(workflow: &Workflow, known: &Known) -> Vec<Problem> {
    let mut checker = Checker {
        workflow,
        known,
        problems: Vec::new(),
        pointer: String::new(),
        read: BTreeSet::new(),
        graph: links::Graph::of(workflow),
    };
    checker.whole();
    checker.links();
    for (id, step) in &workflow.steps {
        checker.within(&["steps", id], |checker| checker.step(id, step));
    }
    checker.unread();
    let mut problems = checker.problems;
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// Whether anything keeps the definition from being saved.
pub fn refused(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

/// What is known while looking.
struct Checker<'a> {
    workflow: &'a Workflow,
    known: &'a Known,
    problems: Vec<Problem>,
    /// Where it looks.
    pointer: String,
    /// The steps whose results somebody reads.
    read: BTreeSet<String>,
    graph: links::Graph<'a>,
}

impl<'a> Checker<'a> {
    fn whole(&mut self) {
        let workflow = self.workflow;
        let id = workflow.id.as_str();
        if id == "all" || id.chars().any(|c| c == ':' || c.is_control() || c.is_whitespace()) {
            let id = id.escape_debug();
            self.error_at(
                "id",
                "workflow_id",
                format!("`{id}` is reserved or has colons, blanks or control characters"),
            );
        }
        if id.len() > 256 {
            self.error_at("id", "workflow_id", "it is longer than 256 bytes".to_owned());
        }
        self.seconds("timeout_sec", workflow.timeout_sec);
        self.millis("timeout_ms", workflow.timeout_ms);
        self.both("timeout_ms", workflow.timeout_ms, "timeout_sec", workflow.timeout_sec);
        self.count("max_concurrent_runs", workflow.max_concurrent_runs, 1_000_000);
        self.schema("input_schema", &workflow.input_schema);
        if !workflow.output.is_null() {
            self.template("output", &workflow.output, &Reads::at_the_end());
        }
        let steps: usize = workflow.steps.values().map(count_steps).sum();
        if steps > MAX_STEPS {
            let message =
                format!("{steps} steps; there may be {MAX_STEPS}: move some to another workflow (`subworkflow`)");
            self.error_at("steps", "too_many_steps", message);
        }
        if steps == 0 {
            self.warn_at(
                "steps",
                "no_steps",
                "there are no steps: runs succeed at once".to_owned(),
            );
        }
        let size = serde_json::to_vec(workflow).map_or(usize::MAX, |bytes| bytes.len());
        let limit = super::decode::MAX_DOCUMENT_BYTES;
        if size > limit {
            self.error(
                "too_large",
                format!("the definition has {size} bytes; there may be {limit}"),
            );
        }
    }

    // === What is found ===

    fn push(&mut self, pointer: String, code: &'static str, message: String, severity: Severity) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                pointer,
                code,
                message,
                severity,
            });
        }
    }

    fn error(&mut self, code: &'static str, message: String) {
        self.push(self.pointer.clone(), code, message, Severity::Error);
    }

    fn error_at(&mut self, member: &str, code: &'static str, message: String) {
        self.push(self.at(member), code, message, Severity::Error);
    }

    fn warn_at(&mut self, member: &str, code: &'static str, message: String) {
        self.push(self.at(member), code, message, Severity::Warning);
    }

    /// A pointer to a member of where it looks; `member` may be several segments with `/` between them.
    fn at(&self, member: &str) -> String {
        format!("{}/{member}", self.pointer)
    }

    fn within(&mut self, segments: &[&str], look: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        for segment in segments {
            self.pointer.push('/');
            self.pointer.push_str(&pointer_segment(segment));
        }
        look(self);
        self.pointer.truncate(length);
    }

    // === Parts that are compiled ===

    /// An expression, if there is one.
    fn expression(&mut self, member: &str, source: &str, reads: &Reads<'a>) {
        if source.is_empty() {
            return;
        }
        match Expr::parse_lenient(source) {
            Ok(expr) => self.paths(member, &expr.paths(), reads),
            Err(error) => self.error_at(member, "expression", error.to_string()),
        }
    }

    /// Text with expressions in it. Its value, if it has none.
    fn text<'t>(&mut self, member: &str, source: &'t str, reads: &Reads<'a>) -> Option<&'t str> {
        if !source.contains("${") {
            return Some(source);
        }
        self.template(member, &Value::String(source.to_owned()), reads);
        None
    }

    fn template(&mut self, member: &str, value: &Value, reads: &Reads<'a>) {
        match Template::compile(value) {
            Ok(template) => self.paths(member, &template.paths(), reads),
            Err(errors) => {
                for error in errors {
                    let place = format!("{member}{}", error.pointer);
                    let message = crate::expr::SyntaxError {
                        at: error.at,
                        message: error.message,
                    };
                    self.error_at(&place, "expression", message.to_string());
                }
            }
        }
    }

    fn schema(&mut self, member: &str, schema: &Object) {
        if !schema.is_empty()
            && let Err(error) = self.known.schemas.cache.inline(schema)
        {
            self.error_at(member, "schema", error.to_string());
        }
    }

    fn registered_schema(&mut self, member: &str, id: &str) {
        let registered = &self.known.schemas.registered;
        match registered.get(id.trim()) {
            None if self.known.registry => {
                let message = format!(
                    "schema `{}` is not registered: the step will fail",
                    id.trim().escape_debug()
                );
                self.warn_at(member, "unknown_schema", message);
            }
            None => {}
            Some(_) => {
                if let Some(Err(error)) = self.known.schemas.find(&Object::new(), id) {
                    self.error_at(member, "schema", error);
                }
            }
        }
    }

    /// What expressions read.
    fn paths(&mut self, member: &str, paths: &[Vec<Segment>], reads: &Reads<'a>) {
        let mut told = BTreeSet::new();
        for path in paths {
            let Some(Segment::Key(root)) = path.first() else {
                continue;
            };
            if &**root == "steps" {
                if let Some(Segment::Key(id)) = path.get(1)
                    && told.insert(id.to_string())
                {
                    self.step_is_read(member, id, reads);
                }
            } else if told.insert(format!("/{root}")) {
                self.root_is_read(member, root, reads);
            }
        }
    }
}

fn count_steps(step: &Step) -> usize {
    let within = step
        .branches
        .iter()
        .chain(step.body.as_deref())
        .chain(step.compensate.as_deref());
    1 + within.map(count_steps).sum::<usize>()
}

/// A segment of a JSON pointer.
pub(super) fn pointer_segment(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

/// The one that somebody who wrote `word` may have meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    known
        .map(|known| (distance(word, known), known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(4).min(3))
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
