//! The expression language of workflow definitions, and templates made of it (docs/spec/expressions.md).
//!
//! An expression is parsed once, when a definition is saved, and evaluated against a [`Scope`] any number of times. Neither
//! can be made to use more stack, time or memory than the limits below allow, whatever the text.

mod arith;
mod ast;
mod compare;
mod display;
mod eval;
mod functions;
mod lexer;
mod number;
mod parser;
mod path;
mod template;
mod value;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub use self::display::display;
pub use self::template::{Template, TemplateError};
use self::value::{Sink, Val};

/// How long the text of an expression may be, in bytes.
pub const MAX_SOURCE: usize = 64 * 1024;
/// How deep parentheses, brackets, braces and alternatives may be nested.
pub const MAX_DEPTH: usize = 64;
/// How much one evaluation may do: a step is a node evaluated, an element visited, or 32 bytes of text made or compared.
pub const MAX_STEPS: usize = 250_000;
/// How large a result may become, in bytes: its texts, and 8 for each value in it. One template is one result.
pub const MAX_RESULT: usize = 16 * 1024 * 1024;
/// How deep a result may be nested.
pub const MAX_VALUE_DEPTH: usize = 120;
/// How many literal patterns one expression may have.
pub const MAX_PATTERNS: usize = 16;

/// The message for an expression of nothing.
const EMPTY: &str = "empty expression";

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// The member of that name.
    Key(Arc<str>),
    /// The element at that place. Negative ones are never there.
    Index(i64),
}

impl Segment {
    fn key(key: &str) -> Self {
        Self::Key(key.into())
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// What the names in an expression mean.
pub trait Scope {
    /// The value at the start of `path`, and how many segments (at least one) lead to it; the rest is looked up inside it.
    /// `None` if the path begins with nothing that is known, which evaluates to null.
    ///
    /// `path` is not empty. A key followed by an index may also be one literal key, as in `fan[0]`.
    fn resolve<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)>;
}

/// The roots are the members.
impl Scope for serde_json::Map<String, Value> {
    fn resolve<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        let (value, used) = path::member(self, path)?;
        Some((Cow::Borrowed(value), used))
    }
}

impl<S: Scope + ?Sized> Scope for &S {
    fn resolve<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        (**self).resolve(path)
    }
}

/// A text that is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where, in bytes from the start of the text.
    pub at: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// An expression that has no value in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// Which part, in bytes from the start of the text.
    pub at: usize,
    /// Why.
    pub message: String,
}

impl SyntaxError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

impl ExprError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        positioned(f, &self.message, self.at)
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        positioned(f, &self.message, self.at)
    }
}

/// An empty expression is nowhere in particular.
fn positioned(f: &mut fmt::Formatter<'_>, message: &str, at: usize) -> fmt::Result {
    if message == EMPTY {
        return f.write_str(message);
    }
    write!(f, "{message} (at byte {at})")
}

impl std::error::Error for SyntaxError {}

impl std::error::Error for ExprError {}

/// A parsed expression. Clones share it.
///
/// # Examples
/// ```
/// use coretex_core::expr::Expr;
/// use serde_json::json;
///
/// let expr = Expr::parse("input.files.filter(f, f.size > 100).map(f, f.name)")?;
/// let scope = json!({"input": {"files": [{"name": "a", "size": 1}, {"name": "b", "size": 1000}]}});
/// assert_eq!(expr.eval(scope.as_object().expect("an object"))?, json!(["b"]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Expr(Arc<ast::Program>);

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expr").field(&self.source()).finish()
    }
}

/// By text.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Expr {}

impl Expr {
    /// Parses a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Self::parse_at(text, 0)
    }

    /// As [`parse`](Self::parse), but the text may stand in one `${…}`, as in a template.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse_lenient(text: &str) -> Result<Self, SyntaxError> {
        match template::whole(text) {
            Some((inner, at)) => Self::parse_at(inner, at),
            None => Self::parse(text),
        }
    }

    fn parse_at(text: &str, base: usize) -> Result<Self, SyntaxError> {
        parser::parse(text, base).map(|program| Self(Arc::new(program)))
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Its value.
    ///
    /// # Errors
    /// A type that an operator or function has no use for, an overflow, or a limit of this module.
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        self.eval_into(scope, &mut Sink::default())
    }

    /// Whether its value counts as true.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub fn test(&self, scope: &dyn Scope) -> Result<bool, ExprError> {
        eval::run(&self.0, scope).map(|value| value.truthy())
    }

    fn eval_into(&self, scope: &dyn Scope, sink: &mut Sink) -> Result<Value, ExprError> {
        let value = match eval::plain(&self.0, scope) {
            Some(Cow::Borrowed(value)) => sink.copy(value, 0),
            Some(Cow::Owned(value)) => Ok(value),
            None => sink.value(eval::run(&self.0, scope)?),
        };
        value.map_err(|why| ExprError::new(self.0.at(self.0.root), why))
    }

    /// Its value as [`display`] writes it.
    fn display_into(&self, scope: &dyn Scope, sink: &mut Sink) -> Result<String, ExprError> {
        let value = eval::run(&self.0, scope)?;
        let text = display::limited(&value, MAX_RESULT).and_then(|text| sink.take(text.len()).map(|()| text));
        text.map_err(|why| ExprError::new(self.0.at(self.0.root), why))
    }

    /// The paths into the scope that it reads, in the order of the text; of a path with a computed step, what comes before.
    pub fn paths(&self) -> Vec<Vec<Segment>> {
        let paths = self.0.nodes.iter().filter_map(|node| match node {
            ast::Node::Path(path) if matches!(path.root, ast::Root::Scope) => Some(path.fixed.clone()),
            _ => None,
        });
        paths.collect()
    }
}

/// Whether a value counts as true: everything but null, false, zero and the empty string does.
pub fn truthy(value: &Value) -> bool {
    Val::of(value).truthy()
}
