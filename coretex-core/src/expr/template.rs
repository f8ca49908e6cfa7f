//! Texts with `${…}` in them, and trees of JSON with such texts (docs/spec/expressions.md §8).

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::value::Sink;
use super::{Expr, ExprError, MAX_VALUE_DEPTH, Scope, Segment, SyntaxError, lexer};

const OPEN: &str = "${";
const UNTERMINATED: &str = "unterminated template expression";

/// An expression in a template that is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// In which text: a JSON pointer into the template.
    pub pointer: String,
    /// Where in it, in bytes.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        super::positioned(f, &self.message, self.at)
    }
}

impl std::error::Error for TemplateError {}

/// A compiled template. Clones share it.
#[derive(Debug, Clone)]
pub struct Template(Arc<Node>);

#[derive(Debug)]
enum Node {
    /// Without any expression.
    Constant(Value),
    /// One expression is all there is: its value keeps its type.
    Whole(Expr),
    Mixed(Vec<Part>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

#[derive(Debug)]
enum Part {
    Text(String),
    Expr(Expr),
}

impl Template {
    /// Compiles every text in `value`. Keys are left alone.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn compile(value: &Value) -> Result<Self, Vec<TemplateError>> {
        let mut compiler = Compiler {
            pointer: String::new(),
            errors: Vec::new(),
        };
        let node = compiler.node(value, 0);
        if compiler.errors.is_empty() {
            Ok(Self(Arc::new(node)))
        } else {
            Err(compiler.errors)
        }
    }

    /// Compiles one text.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn text(text: &str) -> Result<Self, Vec<TemplateError>> {
        Self::compile(&Value::String(text.to_owned()))
    }

    /// Whether it has the same value in every scope: there is no expression in it.
    pub fn is_constant(&self) -> bool {
        matches!(*self.0, Node::Constant(_))
    }

    /// What it makes.
    ///
    /// # Errors
    /// The first expression that has no value, or a result that is too large.
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        self.0.eval(scope, &mut Sink::default())
    }

    /// What it makes, as text (as [`display`](super::display) writes it).
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    pub fn eval_text(&self, scope: &dyn Scope) -> Result<String, ExprError> {
        match &*self.0 {
            Node::Constant(value) => Ok(super::display(value)),
            Node::Whole(expr) => expr.display_into(scope, &mut Sink::default()),
            node => match node.eval(scope, &mut Sink::default())? {
                Value::String(text) => Ok(text),
                value => Ok(super::display(&value)),
            },
        }
    }

    /// The expressions in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        let mut found = Vec::new();
        self.0.expressions(&mut found);
        found
    }

    /// The paths its expressions read ([`Expr::paths`]).
    pub fn paths(&self) -> Vec<Vec<Segment>> {
        self.expressions().into_iter().flat_map(Expr::paths).collect()
    }
}

impl Node {
    fn eval(&self, scope: &dyn Scope, sink: &mut Sink) -> Result<Value, ExprError> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Whole(expr) => expr.eval_into(scope, sink)?,
            Self::Mixed(parts) => {
                let mut out = String::new();
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Expr(expr) => out.push_str(&expr.display_into(scope, sink)?),
                    }
                }
                Value::String(out)
            }
            Self::List(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.eval(scope, sink))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(members) => {
                let mut out = serde_json::Map::new();
                for (key, node) in members {
                    out.insert(key.clone(), node.eval(scope, sink)?);
                }
                Value::Object(out)
            }
        })
    }

    fn expressions<'n>(&'n self, found: &mut Vec<&'n Expr>) {
        match self {
            Self::Constant(_) => {}
            Self::Whole(expr) => found.push(expr),
            Self::Mixed(parts) => found.extend(parts.iter().filter_map(|part| match part {
                Part::Expr(expr) => Some(expr),
                Part::Text(_) => None,
            })),
            Self::List(items) => items.iter().for_each(|item| item.expressions(found)),
            Self::Map(members) => members.iter().for_each(|(_, node)| node.expressions(found)),
        }
    }
}

struct Compiler {
    pointer: String,
    errors: Vec<TemplateError>,
}

impl Compiler {
    fn node(&mut self, value: &Value, depth: usize) -> Node {
        if depth > MAX_VALUE_DEPTH {
            self.fail(0, format!("template is nested deeper than {MAX_VALUE_DEPTH} levels"));
            return Node::Constant(Value::Null);
        }
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                let nodes: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.inside(&index.to_string(), item, depth))
                    .collect();
                if nodes.iter().all(|node| matches!(node, Node::Constant(_))) {
                    return Node::Constant(value.clone());
                }
                Node::List(nodes)
            }
            Value::Object(members) => {
                let nodes: Vec<_> = members
                    .iter()
                    .map(|(key, member)| (key.clone(), self.inside(key, member, depth)))
                    .collect();
                if nodes.iter().all(|(_, node)| matches!(node, Node::Constant(_))) {
                    return Node::Constant(value.clone());
                }
                Node::Map(nodes)
            }
            scalar => Node::Constant(scalar.clone()),
        }
    }

    fn inside(&mut self, key: &str, value: &Value, depth: usize) -> Node {
        let before = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let node = self.node(value, depth + 1);
        self.pointer.truncate(before);
        node
    }

    fn string(&mut self, text: &str) -> Node {
        if !text.contains(OPEN) {
            return Node::Constant(Value::String(text.to_owned()));
        }
        if let Some((inner, at)) = whole(text) {
            return match self.expression(inner, at) {
                Some(expr) => Node::Whole(expr),
                None => Node::Constant(Value::Null),
            };
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find(OPEN) {
            if found > 0 {
                parts.push(Part::Text(text[at..at + found].to_owned()));
            }
            let open = at + found;
            let start = open + OPEN.len();
            let Some(length) = lexer::closing_brace(&text[start..]) else {
                self.fail(open, UNTERMINATED.to_owned());
                return Node::Mixed(parts);
            };
            parts.extend(self.expression(&text[start..start + length], start).map(Part::Expr));
            at = start + length + 1;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Node::Mixed(parts)
    }

    fn expression(&mut self, inner: &str, at: usize) -> Option<Expr> {
        match Expr::parse_at(inner, at) {
            Ok(expr) => Some(expr),
            Err(SyntaxError { at, message }) => {
                self.fail(at, message);
                None
            }
        }
    }

    fn fail(&mut self, at: usize, message: String) {
        self.errors.push(TemplateError {
            pointer: self.pointer.clone(),
            at,
            message,
        });
    }
}

/// What is in the one `${…}` that a text is, apart from space around it, and where that begins.
pub(super) fn whole(text: &str) -> Option<(&str, usize)> {
    let start = text.len() - text.trim_start().len() + OPEN.len();
    let inner = text.trim().strip_prefix(OPEN)?;
    let end = lexer::closing_brace(inner)?;
    (end + 1 == inner.len()).then(|| (&inner[..end], start))
}
