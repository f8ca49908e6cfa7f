//! What members there are, and of which type. The tables are what the structures of [`model`](super::super::model) say;
//! a test holds them together.

use std::collections::BTreeSet;

use serde_json::Value;

use super::node::Node;
use super::warning;
use crate::workflow::check::{Problem, nearest, pointer_segment};
use crate::workflow::model::{Object, WaitFor};

/// More problems than this are not collected.
const MAX_PROBLEMS: usize = 100;

/// What a member may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    /// Any JSON.
    Free,
    /// Any JSON object.
    Object,
    Objects,
    Texts,
    /// An object of texts.
    Labels,
    Word(&'static [&'static str]),
    WaitFor,
    Time,
    Structure(Shape),
    Structures(Shape),
    /// An object of structures.
    Map(Shape),
}

/// Which structure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Step,
    Meta,
    Retry,
    Case,
    Approval,
}

impl Shape {
    pub(super) fn members(self) -> &'static Members {
        match self {
            Self::Step => STEP,
            Self::Meta => META,
            Self::Retry => RETRY,
            Self::Case => CASE,
            Self::Approval => APPROVAL,
        }
    }
}

/// The members of a structure.
pub(super) type Members = [(&'static str, Kind)];

pub(super) static WORKFLOW: &Members = &[
    ("id", Kind::Text),
    ("org_id", Kind::Text),
    ("team_id", Kind::Text),
    ("name", Kind::Text),
    ("description", Kind::Text),
    ("version", Kind::Text),
    ("timeout_sec", Kind::Integer),
    ("steps", Kind::Map(Shape::Step)),
    ("config", Kind::Object),
    ("input_schema", Kind::Object),
    ("parameters", Kind::Objects),
    ("created_by", Kind::Text),
    ("created_at", Kind::Time),
    ("updated_at", Kind::Time),
    ("timeout_ms", Kind::Integer),
    ("on_failure", Kind::Word(&["cancel", "wait"])),
    ("output", Kind::Free),
    ("max_concurrent_runs", Kind::Integer),
];

pub(super) static STEP: &Members = &[
    ("id", Kind::Text),
    ("name", Kind::Text),
    ("type", Kind::Text),
    ("worker_id", Kind::Text),
    ("topic", Kind::Text),
    ("depends_on", Kind::Texts),
    ("condition", Kind::Text),
    ("for_each", Kind::Text),
    ("max_parallel", Kind::Integer),
    ("input", Kind::Object),
    ("input_schema", Kind::Object),
    ("input_schema_id", Kind::Text),
    ("output_path", Kind::Text),
    ("output_schema", Kind::Object),
    ("output_schema_id", Kind::Text),
    ("meta", Kind::Structure(Shape::Meta)),
    ("on_error", Kind::Text),
    ("retry", Kind::Structure(Shape::Retry)),
    ("timeout_sec", Kind::Integer),
    ("delay_sec", Kind::Integer),
    ("delay_until", Kind::Text),
    ("route_labels", Kind::Labels),
    ("timeout_ms", Kind::Integer),
    ("delay_ms", Kind::Integer),
    ("continue_on_error", Kind::Boolean),
    (
        "dependency_policy",
        Kind::Word(&["all_success", "all_done", "any_success", "on_failure"]),
    ),
    ("finally", Kind::Boolean),
    ("compensate", Kind::Structure(Shape::Step)),
    ("priority", Kind::Text),
    ("memory_id", Kind::Text),
    ("max_items", Kind::Integer),
    ("tolerated_failures", Kind::Integer),
    ("cases", Kind::Structures(Shape::Case)),
    ("default", Kind::Texts),
    ("branches", Kind::Structures(Shape::Step)),
    ("wait_for", Kind::WaitFor),
    ("while", Kind::Text),
    ("until", Kind::Text),
    ("max_iterations", Kind::Integer),
    ("body", Kind::Structure(Shape::Step)),
    ("workflow", Kind::Text),
    ("expression", Kind::Text),
    ("signal", Kind::Text),
    ("prompt", Kind::Text),
    ("approval", Kind::Structure(Shape::Approval)),
];

pub(super) static META: &Members = &[
    ("actor_id", Kind::Text),
    ("actor_type", Kind::Text),
    ("idempotency_key", Kind::Text),
    ("pack_id", Kind::Text),
    ("capability", Kind::Text),
    ("risk_tags", Kind::Texts),
    ("requires", Kind::Texts),
    ("labels", Kind::Labels),
];

pub(super) static RETRY: &Members = &[
    ("max_retries", Kind::Integer),
    ("initial_backoff_sec", Kind::Integer),
    ("max_backoff_sec", Kind::Integer),
    ("multiplier", Kind::Number),
    ("initial_backoff_ms", Kind::Integer),
    ("max_backoff_ms", Kind::Integer),
    ("backoff", Kind::Word(&["exponential", "constant"])),
    ("jitter", Kind::Number),
    ("on", Kind::Texts),
    ("non_retryable", Kind::Texts),
];

pub(super) static CASE: &Members = &[("when", Kind::Text), ("then", Kind::Texts)];

pub(super) static APPROVAL: &Members = &[
    ("quorum", Kind::Integer),
    ("roles", Kind::Texts),
    ("on_expiry", Kind::Word(&["fail", "reject", "approve"])),
];

/// Turns a document into one that only has known members, spelled as they should be, of the types they should have.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pointer: String,
}

impl Reader {
    /// The document, and the members it has that are not null.
    pub(super) fn workflow(&mut self, node: Node) -> (Value, BTreeSet<String>) {
        if node.is_null() {
            return (Value::Object(Object::new()), BTreeSet::new());
        }
        let members = match self.structure(node, WORKFLOW) {
            Value::Object(members) => members,
            _ => Object::new(),
        };
        let given = members.keys().cloned().collect();
        (Value::Object(members), given)
    }

    fn structure(&mut self, node: Node, known: &'static Members) -> Value {
        let Node::Object(members) = node else {
            return self.wrong(&node, "an object");
        };
        let mut read = Object::new();
        for (name, node) in members {
            // An exact name is looked for first: it is what nearly all of them are.
            let found = known
                .iter()
                .find(|(known, _)| *known == name)
                .or_else(|| known.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)));
            let Some((name, kind)) = found else {
                self.unknown(&name, known);
                continue;
            };
            if node.is_null() {
                continue;
            }
            let value = self.within(name, |reader| reader.member(node, *kind));
            read.insert((*name).to_owned(), value);
        }
        Value::Object(read)
    }

    fn member(&mut self, node: Node, kind: Kind) -> Value {
        match kind {
            Kind::Text => self.scalar(node, "a string", Value::is_string),
            Kind::Integer => self.scalar(node, "a whole number of 64 bits", Value::is_i64),
            Kind::Number => self.scalar(node, "a number", Value::is_number),
            Kind::Boolean => self.scalar(node, "true or false", Value::is_boolean),
            Kind::Free => node.into_value(),
            Kind::Object => match node {
                Node::Object(_) => node.into_value(),
                other => self.wrong(&other, "an object"),
            },
            Kind::Objects => self.items(node, |reader, node| match node {
                Node::Object(_) => node.into_value(),
                Node::Scalar(Value::Null) => Value::Object(Object::new()),
                other => reader.wrong(&other, "an object"),
            }),
            Kind::Texts => self.items(node, Self::text_or_null),
            Kind::Labels => self.entries(node, Self::text_or_null),
            Kind::Word(words) => match &node {
                Node::Scalar(Value::String(word)) if words.contains(&word.as_str()) => node.into_value(),
                Node::Scalar(Value::String(word)) if word.is_empty() => words[0].into(),
                Node::Scalar(Value::String(word)) => {
                    let word = word.escape_debug();
                    self.refuse(format!("`{word}` is none of {}", words.join(", ")))
                }
                other => self.wrong(other, "a string"),
            },
            Kind::WaitFor => {
                let value = node.into_value();
                match WaitFor::try_from(value.clone()) {
                    Ok(_) => value,
                    Err(why) => self.refuse(why.to_owned()),
                }
            }
            Kind::Time => match &node {
                Node::Scalar(Value::String(text)) if text.is_empty() || text.parse::<jiff::Timestamp>().is_ok() => {
                    node.into_value()
                }
                Node::Scalar(Value::String(_)) => self.refuse("it is no time as of RFC 3339".to_owned()),
                other => self.wrong(other, "a string"),
            },
            Kind::Structure(shape) => self.structure(node, shape.members()),
            Kind::Structures(shape) => self.items(node, |reader, node| match node {
                Node::Scalar(Value::Null) => Value::Object(Object::new()),
                node => reader.structure(node, shape.members()),
            }),
            Kind::Map(shape) => self.entries(node, |reader, node| match node {
                Node::Scalar(Value::Null) => Value::Object(Object::new()),
                node => reader.structure(node, shape.members()),
            }),
        }
    }

    fn scalar(&mut self, node: Node, wanted: &str, is: fn(&Value) -> bool) -> Value {
        match node {
            Node::Scalar(value) if is(&value) => value,
            other => self.wrong(&other, wanted),
        }
    }

    /// In lists and maps of texts null is the empty one.
    fn text_or_null(&mut self, node: Node) -> Value {
        match node {
            Node::Scalar(Value::Null) => "".into(),
            other => self.scalar(other, "a string", Value::is_string),
        }
    }

    fn items(&mut self, node: Node, mut read: impl FnMut(&mut Self, Node) -> Value) -> Value {
        let Node::Array(items) = node else {
            return self.wrong(&node, "an array");
        };
        let items = items.into_iter().enumerate();
        items
            .map(|(index, item)| self.within(&index.to_string(), |reader| read(reader, item)))
            .collect()
    }

    fn entries(&mut self, node: Node, mut read: impl FnMut(&mut Self, Node) -> Value) -> Value {
        let Node::Object(entries) = node else {
            return self.wrong(&node, "an object");
        };
        let mut done = Object::new();
        for (name, node) in entries {
            let value = self.within(&name, |reader| read(reader, node));
            done.insert(name, value);
        }
        Value::Object(done)
    }

    fn within<T>(&mut self, segment: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&pointer_segment(segment));
        let read = read(self);
        self.pointer.truncate(length);
        read
    }

    fn unknown(&mut self, name: &str, known: &'static Members) {
        if self.warnings.len() >= MAX_PROBLEMS {
            return;
        }
        let pointer = format!("{}/{}", self.pointer, pointer_segment(name));
        let message = match nearest(name, known.iter().map(|(known, _)| *known)) {
            Some(near) => format!("this member is unknown and ignored; did you mean `{near}`?"),
            None => "this member is unknown and ignored".to_owned(),
        };
        self.warnings.push(warning(&pointer, "unknown_member", message));
    }

    fn wrong(&mut self, node: &Node, wanted: &str) -> Value {
        let found = match node {
            Node::Scalar(number @ Value::Number(_)) => number.to_string(),
            other => other.kind().to_owned(),
        };
        self.refuse(format!("expected {wanted}, found {found}"))
    }

    fn refuse(&mut self, message: String) -> Value {
        if self.errors.len() < MAX_PROBLEMS {
            self.errors.push(Problem::error(&self.pointer, "type", message));
        }
        Value::Null
    }
}
