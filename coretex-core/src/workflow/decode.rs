//! Definitions from documents, JSON or YAML. See `docs/spec/workflows.md` §1.3.
//!
//! Reading is tolerant where the reference is: member names in any case, null as absent, unknown members noted and dropped.
//! A value of the wrong type is refused, and every one of them is named.

mod members;
mod node;

use std::collections::BTreeSet;

use serde_json::Value;

use self::members::Reader;
use self::node::Node;
use super::check::{Problem, Severity};
use super::model::Workflow;
use crate::time::Timestamp;

/// How large a document may be, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// A definition as somebody wants it to be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// What the document says. Without an id it gets one when it is saved.
    pub workflow: Workflow,
    /// The members that the document has and that are not null, by their names in lower case. What it does not have keeps its
    /// stored value.
    pub given: BTreeSet<String>,
    /// What was ignored: unknown members.
    pub warnings: Vec<Problem>,
}

/// A document that is no definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is larger than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {0} bytes; a definition may have {MAX_DOCUMENT_BYTES}")]
    TooLarge(usize),
    /// It is neither JSON nor YAML.
    #[error("{0}")]
    Syntax(String),
    /// Values have the wrong type: at least one.
    #[error("{}", super::check::joined(.0))]
    Types(Vec<Problem>),
}

impl DecodeError {
    /// What is wrong, place by place.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Types(problems) => problems.clone(),
            Self::TooLarge(_) => vec![Problem::error("", "too_large", self.to_string())],
            Self::Syntax(_) => vec![Problem::error("", "syntax", self.to_string())],
        }
    }
}

/// Reads JSON: the first value of `bytes`, as the reference does. Null is a definition without anything in it.
///
/// # Errors
/// [`DecodeError`] if it is none.
pub fn definition(bytes: &[u8]) -> Result<Definition, DecodeError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    Node::from_json(bytes).map_err(DecodeError::Syntax).and_then(of_node)
}

/// Reads YAML. JSON is YAML, too.
///
/// # Errors
/// [`DecodeError`] if it is none.
pub fn yaml(text: &str) -> Result<Definition, DecodeError> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(DecodeError::TooLarge(text.len()));
    }
    Node::from_yaml(text).map_err(DecodeError::Syntax).and_then(of_node)
}

/// Reads a document that is JSON already.
///
/// # Errors
/// [`DecodeError`] if it is no definition.
pub fn value(value: Value) -> Result<Definition, DecodeError> {
    of_node(Node::from(value))
}

fn of_node(node: Node) -> Result<Definition, DecodeError> {
    let mut reader = Reader::default();
    let (value, given) = reader.workflow(node);
    if !reader.errors.is_empty() {
        return Err(DecodeError::Types(reader.errors));
    }
    // The reader has looked at every member: what is refused here has a form of its own, such as a time.
    let mut workflow: Workflow = serde_json::from_value(value)
        .map_err(|error| DecodeError::Types(vec![Problem::error("", "type", error.to_string())]))?;
    for (id, step) in &mut workflow.steps {
        id.clone_into(&mut step.id);
    }
    Ok(Definition {
        workflow,
        given,
        warnings: reader.warnings,
    })
}

impl Definition {
    /// The definition with what it does not say taken from the stored one, by the rules of docs/spec/workflows.md §1.3.
    pub fn merge_into(self, stored: Option<&Workflow>, now: Timestamp) -> Workflow {
        let Self {
            mut workflow, given, ..
        } = self;
        workflow.created_at = stored
            .map(|stored| stored.created_at)
            .filter(|at| *at != Timestamp::ZERO)
            .unwrap_or(now);
        workflow.updated_at = now;
        let Some(stored) = stored else { return workflow };
        for (text, old) in [
            (&mut workflow.org_id, &stored.org_id),
            (&mut workflow.team_id, &stored.team_id),
            (&mut workflow.name, &stored.name),
            (&mut workflow.description, &stored.description),
            (&mut workflow.version, &stored.version),
            (&mut workflow.created_by, &stored.created_by),
        ] {
            if text.is_empty() {
                text.clone_from(old);
            }
        }
        let given = |name: &str| given.contains(name);
        if workflow.timeout_sec == 0 {
            workflow.timeout_sec = stored.timeout_sec;
            if !given("timeout_ms") {
                workflow.timeout_ms = stored.timeout_ms;
            }
        }
        if !given("input_schema") {
            workflow.input_schema.clone_from(&stored.input_schema);
        }
        if !given("parameters") {
            workflow.parameters.clone_from(&stored.parameters);
        }
        if !given("config") {
            workflow.config.clone_from(&stored.config);
        }
        if !given("steps") {
            workflow.steps.clone_from(&stored.steps);
        }
        if !given("on_failure") {
            workflow.on_failure = stored.on_failure;
        }
        if !given("output") {
            workflow.output.clone_from(&stored.output);
        }
        if !given("max_concurrent_runs") {
            workflow.max_concurrent_runs = stored.max_concurrent_runs;
        }
        workflow
    }
}

/// A problem that does not keep a document from being used.
fn warning(pointer: &str, code: &'static str, message: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        ..Problem::error(pointer, code, message)
    }
}

/// The names of all members there are.
#[cfg(test)]
pub(super) fn member_names() -> impl Iterator<Item = &'static str> {
    use members::{Shape, WORKFLOW};
    let shapes = [Shape::Step, Shape::Meta, Shape::Retry, Shape::Case, Shape::Approval];
    WORKFLOW
        .iter()
        .chain(shapes.into_iter().flat_map(Shape::members))
        .map(|(name, _)| *name)
}

#[cfg(test)]
mod tests;
