//! JSON Schema for inputs, outputs and forms. See `docs/spec/workflows.md` §1.2.
//!
//! A schema cannot reach outside itself, cannot make the validator run for ever, and patterns take linear time.

mod reason;
mod shape;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use parking_lot::Mutex;
use serde_json::Value;

use super::model::Object;
use crate::error::BoxError;
use crate::protocol::canonical::{Numbers, hash_object};

/// How large a schema may be, as JSON, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// How deep a schema may be nested.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// How large the compiled form of a pattern may be, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// What inline schemas are called in messages.
const INLINE: &str = "inmemory://inline";
/// How many problems of one value are listed.
const MAX_PROBLEMS: usize = 50;

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    /// What it is called in messages.
    base: String,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.base).finish()
    }
}

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compile schema: {0}")]
pub struct CompileError(pub String);

/// A value that is not what its schema asks for: the first problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema validation failed: jsonschema: '{pointer}' does not validate with {location}: {reason}")]
pub struct Invalid {
    /// Where in the value.
    pub pointer: String,
    /// Which keyword of which schema.
    pub location: String,
    /// Why.
    pub reason: String,
}

/// Nothing outside a schema is read: neither files nor the network.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, BoxError> {
        Err(format!("no Loader found for {uri}").into())
    }
}

impl Schema {
    /// Compiles a schema that is part of a definition.
    ///
    /// # Errors
    /// [`CompileError`] if it is no schema, refers to anything outside itself, or is too large.
    pub fn compile(schema: &Object) -> Result<Self, CompileError> {
        Self::compile_as(schema, INLINE.to_owned())
    }

    /// Compiles a schema of the registry.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_registered(id: &str, schema: &Object) -> Result<Self, CompileError> {
        Self::compile_as(schema, format!("inmemory://inmemory://{id}"))
    }

    fn compile_as(schema: &Object, base: String) -> Result<Self, CompileError> {
        let refuse = |why: &dyn fmt::Display| CompileError(format!("jsonschema {base} compilation failed: {why}"));
        shape::check(schema).map_err(|why| refuse(&why))?;
        let schema = Value::Object(schema.clone());
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
            .with_retriever(Nowhere)
            .build(&schema)
            .map_err(|error| refuse(&reason::of_compilation(&error)))?;
        Ok(Self { validator, base })
    }

    /// Whether a value is what the schema asks for.
    ///
    /// # Errors
    /// The first problem: the one nearest to the root.
    pub fn validate(&self, value: &Value) -> Result<(), Invalid> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        self.invalid(value).into_iter().next().map_or(Ok(()), Err)
    }

    /// All that is wrong with a value, for people who fill in a form; empty if nothing is.
    pub fn problems(&self, value: &Value) -> Vec<String> {
        let told = self
            .invalid(value)
            .into_iter()
            .map(|invalid| match invalid.pointer.as_str() {
                "" => invalid.reason,
                pointer => format!("{pointer}: {}", invalid.reason),
            });
        told.collect()
    }

    fn invalid(&self, value: &Value) -> Vec<Invalid> {
        let mut errors: Vec<_> = self.validator.iter_errors(value).take(MAX_PROBLEMS).collect();
        // Stable: where they are equally near to the root, the order of the validator stays.
        errors.sort_by_key(|error| error.instance_path().segments().count());
        reason::explain(&errors, &self.base)
    }
}

/// Compiled schemas by their content, so that revisions of a definition share them. Bounded.
#[derive(Debug, Default)]
pub struct Cache {
    inner: Mutex<Cached>,
}

type Outcome = Result<Arc<Schema>, CompileError>;

#[derive(Debug, Default)]
struct Cached {
    schemas: HashMap<String, Outcome>,
    /// Oldest first.
    order: VecDeque<String>,
}

/// How many compiled schemas are kept.
const MAX_CACHED: usize = 1_024;

impl Cache {
    fn get(&self, key: String, compile: impl FnOnce() -> Result<Schema, CompileError>) -> Outcome {
        if let Some(known) = self.inner.lock().schemas.get(&key) {
            return known.clone();
        }
        // Not under the lock: it may take milliseconds. Two may do it at once; one result is kept.
        let outcome = compile().map(Arc::new);
        let mut inner = self.inner.lock();
        if inner.schemas.insert(key.clone(), outcome.clone()).is_none() {
            inner.order.push_back(key);
            if inner.order.len() > MAX_CACHED
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.schemas.remove(&oldest);
            }
        }
        outcome
    }

    /// [`Schema::compile`], or what came of it before.
    ///
    /// # Errors
    /// As [`Schema::compile`].
    pub fn inline(&self, schema: &Object) -> Outcome {
        self.get(hash_object(schema, Numbers::Exact), || Schema::compile(schema))
    }

    /// [`Schema::compile_registered`], or what came of it before.
    ///
    /// # Errors
    /// As [`Schema::compile`].
    pub fn registered(&self, id: &str, schema: &Object) -> Outcome {
        let key = format!("{} {id}", hash_object(schema, Numbers::Exact));
        self.get(key, || Schema::compile_registered(id, schema))
    }
}

/// The schemas that a definition may use: those of the registry by their id, and what was compiled before.
#[derive(Debug, Clone, Default)]
pub struct SchemaSet {
    /// The documents of the registry that the definition names ([`names`]).
    pub registered: BTreeMap<String, Value>,
    /// What was compiled before, shared by all definitions.
    pub cache: Arc<Cache>,
}

impl SchemaSet {
    /// Nothing registered.
    pub fn new() -> Self {
        Self::default()
    }

    /// The schema a step means: the one in the definition, else the one it names. `None` if it has neither.
    pub(crate) fn find(&self, inline: &Object, id: &str) -> Option<Result<Arc<Schema>, String>> {
        if !inline.is_empty() {
            return Some(self.cache.inline(inline).map_err(|error| error.to_string()));
        }
        let id = id.trim();
        if id.is_empty() {
            return None;
        }
        Some(match self.registered.get(id) {
            None => Err(format!("schema `{id}` is not registered")),
            Some(Value::Object(schema)) => self.cache.registered(id, schema).map_err(|error| error.to_string()),
            Some(_) => Err(format!("schema `{id}` is no JSON object")),
        })
    }
}

/// The ids of the registered schemas that a definition names, to be put into a [`SchemaSet`].
pub fn names(workflow: &super::Workflow) -> std::collections::BTreeSet<&str> {
    fn of_step<'a>(step: &'a super::Step, into: &mut std::collections::BTreeSet<&'a str>) {
        let ids = [
            (&step.input_schema, &step.input_schema_id),
            (&step.output_schema, &step.output_schema_id),
        ];
        for (inline, id) in ids {
            if inline.is_empty() && !id.trim().is_empty() {
                into.insert(id.trim());
            }
        }
        let nested = step
            .branches
            .iter()
            .chain(step.body.as_deref())
            .chain(step.compensate.as_deref());
        for step in nested {
            of_step(step, into);
        }
    }
    let mut names = std::collections::BTreeSet::new();
    for step in workflow.steps.values() {
        of_step(step, &mut names);
    }
    names
}

#[cfg(test)]
mod tests;
