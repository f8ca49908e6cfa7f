//! The evaluator. It recurses as deep as the text is nested, which the parser bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::ast::{Call, Id, Link, Macro, MacroKind, Node, Path, Program, Root, Step};
use super::number::Num;
use super::value::{Fault, Text, Val};
use super::{ExprError, MAX_STEPS, Scope, Segment, arith, compare, functions, path};

type Eval<'a> = Result<Val<'a>, ExprError>;

/// What is left of [`MAX_STEPS`].
#[derive(Debug)]
pub(super) struct Meter {
    left: usize,
}

/// How much text counts as one step.
const STEP_BYTES: usize = 32;

impl Meter {
    pub(super) fn charge(&mut self, steps: usize) -> Result<(), Fault> {
        self.left = self
            .left
            .checked_sub(steps)
            .ok_or_else(|| Fault::from(format!("expression takes more than {MAX_STEPS} steps")))?;
        Ok(())
    }

    /// Charges for text that is made or read.
    pub(super) fn bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.charge(bytes / STEP_BYTES)
    }

    /// How much text there are steps for.
    pub(super) fn bytes_left(&self) -> usize {
        self.left.saturating_add(1).saturating_mul(STEP_BYTES)
    }
}

/// Evaluates an expression.
pub(super) fn run<'a>(program: &'a Program, scope: &'a dyn Scope) -> Eval<'a> {
    let mut machine = Machine {
        program,
        scope,
        locals: Vec::new(),
        meter: Meter { left: MAX_STEPS },
    };
    machine.eval(program.root)
}

/// The value of an expression that is nothing but a path: it can be handed on as it is.
pub(super) fn plain<'a>(program: &'a Program, scope: &'a dyn Scope) -> Option<Cow<'a, Value>> {
    let Node::Path(path) = program.node(program.root) else {
        return None;
    };
    (path.computed.is_empty() && matches!(path.root, Root::Scope))
        .then(|| lookup(scope, &path.fixed).unwrap_or(Cow::Owned(Value::Null)))
}

/// Asks the scope, and goes the rest of the way.
fn lookup<'a>(scope: &'a dyn Scope, path: &[Segment]) -> Option<Cow<'a, Value>> {
    let (value, used) = scope.resolve(path)?;
    match path.get(used..) {
        None | Some([]) => Some(value),
        Some(rest) => match value {
            Cow::Borrowed(value) => path::walk(value, rest).map(Cow::Borrowed),
            Cow::Owned(value) => path::walk(&value, rest).cloned().map(Cow::Owned),
        },
    }
}

struct Machine<'a> {
    program: &'a Program,
    scope: &'a dyn Scope,
    /// The variables of the macros around, innermost last.
    locals: Vec<Val<'a>>,
    meter: Meter,
}

impl<'a> Machine<'a> {
    /// Small, as it is on the stack once per level.
    fn eval(&mut self, id: Id) -> Eval<'a> {
        self.charge(1, id)?;
        let program = self.program;
        match program.node(id) {
            Node::Null => Ok(Val::Null),
            Node::Bool(value) => Ok(Val::Bool(*value)),
            Node::Num(number) => Ok(Val::Num(*number)),
            Node::Text(text) => Ok(Val::Text(Text::Ref(text))),
            Node::Path(path) => self.path(id, path).map(|value| value.unwrap_or(Val::Null)),
            Node::Not(inner, odd) => self.eval(*inner).map(|value| Val::Bool(value.truthy() != *odd)),
            Node::Neg(inner, odd) => {
                let value = self.eval(*inner)?;
                arith::negate(&value, *odd).map_err(|why| self.fail(id, why))
            }
            Node::Or(terms) => self.any(terms, true),
            Node::And(terms) => self.any(terms, false),
            Node::Compare(how, left, right) => {
                let (left, right) = (self.eval(*left)?, self.eval(*right)?);
                let holds = compare::compare(&mut self.meter, *how, &left, &right);
                holds.map(Val::Bool).map_err(|why| self.fail(id, why))
            }
            Node::In(left, right) => {
                let (left, right) = (self.eval(*left)?, self.eval(*right)?);
                let found = compare::contains(&mut self.meter, &left, &right);
                found.map(Val::Bool).map_err(|why| self.fail(id, why))
            }
            Node::Chain(first, rest) => self.chain(*first, rest),
            Node::Cond(arms, last) => self.cond(arms, *last),
            Node::List(items) => self.all(items, None).map(Val::list),
            Node::Map(pairs) => self.map(pairs),
            Node::Call(call) => self.call(call, None, program.at(id)),
            Node::Has(inner) => match program.node(*inner) {
                Node::Path(path) => self.path(*inner, path).map(|value| Val::Bool(value.is_some())),
                _ => self.eval(*inner).map(|_| Val::Bool(true)),
            },
            Node::Post(base, links) => self.post(*base, links),
        }
    }

    fn charge(&mut self, steps: usize, id: Id) -> Result<(), ExprError> {
        self.meter.charge(steps).map_err(|why| self.fail(id, why))
    }

    fn fail(&self, id: Id, why: Fault) -> ExprError {
        ExprError::new(self.program.at(id), why)
    }

    /// `||` if `wanted`, else `&&`: stops at the first term that decides.
    fn any(&mut self, terms: &'a [Id], wanted: bool) -> Eval<'a> {
        for term in terms {
            if self.eval(*term)?.truthy() == wanted {
                return Ok(Val::Bool(wanted));
            }
        }
        Ok(Val::Bool(!wanted))
    }

    fn chain(&mut self, first: Id, rest: &'a [(super::ast::Arith, Id)]) -> Eval<'a> {
        let mut value = self.eval(first)?;
        for (how, right) in rest {
            let operand = self.eval(*right)?;
            value = arith::apply(&mut self.meter, *how, value, operand).map_err(|why| self.fail(*right, why))?;
        }
        Ok(value)
    }

    fn cond(&mut self, arms: &'a [(Id, Id)], last: Id) -> Eval<'a> {
        for (condition, then) in arms {
            if self.eval(*condition)?.truthy() {
                return self.eval(*then);
            }
        }
        self.eval(last)
    }

    fn all(&mut self, items: &'a [Id], first: Option<Val<'a>>) -> Result<Vec<Val<'a>>, ExprError> {
        let mut values = Vec::with_capacity(items.len() + 1);
        values.extend(first);
        for item in items {
            values.push(self.eval(*item)?);
        }
        Ok(values)
    }

    fn map(&mut self, pairs: &'a [(Id, Id)]) -> Eval<'a> {
        let mut members = BTreeMap::new();
        for (key, value) in pairs {
            let name = match self.eval(*key)? {
                Val::Text(text) => text,
                other => {
                    let why = format!("a map's key must be a string, got {}", other.type_name());
                    return Err(self.fail(*key, why.into()));
                }
            };
            let value = self.eval(*value)?;
            members.insert(name, value);
        }
        Ok(Val::map(members))
    }

    /// `None` if there is nothing there.
    fn path(&mut self, id: Id, path: &'a Path) -> Result<Option<Val<'a>>, ExprError> {
        if path.computed.is_empty() {
            return self.resolve(id, path.root, &path.fixed);
        }
        let Some(rest) = self.segments(&path.computed)? else {
            return Ok(None);
        };
        let segments: Vec<_> = path.fixed.iter().cloned().chain(rest).collect();
        self.resolve(id, path.root, &segments)
    }

    fn resolve(&mut self, id: Id, root: Root, segments: &[Segment]) -> Result<Option<Val<'a>>, ExprError> {
        match root {
            Root::Local(level) => {
                let local = self.locals.get(level).cloned();
                Ok(local.and_then(|local| path::walk_made(local, segments)))
            }
            Root::Scope => match lookup(self.scope, segments) {
                Some(Cow::Borrowed(value)) => Ok(Some(Val::of(value))),
                Some(Cow::Owned(value)) => {
                    let mut count = 0;
                    let value = Val::owned(value, &mut count);
                    self.charge(count, id)?;
                    Ok(Some(value))
                }
                None => Ok(None),
            },
        }
    }

    /// Steps that have to be computed; `None` if one is null.
    fn segments(&mut self, steps: &'a [Step]) -> Result<Option<Vec<Segment>>, ExprError> {
        let mut segments = Vec::with_capacity(steps.len());
        for step in steps {
            let id = match step {
                Step::Fixed(segment) => {
                    segments.push(segment.clone());
                    continue;
                }
                Step::Computed(id) => *id,
            };
            segments.push(match self.eval(id)? {
                Val::Null => return Ok(None),
                Val::Text(key) => Segment::key(&key),
                Val::Num(number) => match number.whole() {
                    // Nothing is so long that it has an element there.
                    Some(index) => Segment::Index(i64::try_from(index).unwrap_or(i64::MAX)),
                    None => return Err(self.fail(id, "an index must be a whole number".into())),
                },
                other => {
                    let why = format!("an index must be a number or a string, got {}", other.type_name());
                    return Err(self.fail(id, why.into()));
                }
            });
        }
        Ok(Some(segments))
    }

    fn post(&mut self, base: Id, links: &'a [Link]) -> Eval<'a> {
        let mut value = self.eval(base)?;
        for link in links {
            self.charge(1, base)?;
            value = match link {
                Link::Walk(steps) => match self.segments(steps)? {
                    Some(segments) => path::walk_made(value, &segments).unwrap_or(Val::Null),
                    None => Val::Null,
                },
                Link::Call(call, at) => self.call(call, Some(value), *at as usize)?,
                Link::Macro(call, at) => self.macro_call(call, &value, *at as usize)?,
            };
        }
        Ok(value)
    }

    fn call(&mut self, call: &'a Call, first: Option<Val<'a>>, at: usize) -> Eval<'a> {
        if call.function.name == functions::DEFAULT || call.function.name == functions::OR_VALUE {
            return self.default(&call.arguments, first);
        }
        let arguments = self.all(&call.arguments, first)?;
        let result = match &call.regex {
            Some(regex) => functions::matches(&mut self.meter, &arguments, regex),
            None => (call.function.call)(&mut self.meter, &arguments),
        };
        result.map_err(|why| ExprError::new(at, format!("{}(): {why}", call.function.name)))
    }

    /// The first that is not null. Those after it are not evaluated.
    fn default(&mut self, candidates: &'a [Id], first: Option<Val<'a>>) -> Eval<'a> {
        let mut value = first.unwrap_or(Val::Null);
        for candidate in candidates {
            if !matches!(value, Val::Null) {
                break;
            }
            value = self.eval(*candidate)?;
        }
        Ok(value)
    }

    fn macro_call(&mut self, call: &'a Macro, value: &Val<'a>, at: usize) -> Eval<'a> {
        let items = match value.keys() {
            Some(keys) => Some(keys.into_iter().map(Val::Text).collect()),
            None => value.elements(),
        };
        let Some(items) = items else {
            let why = format!(
                "{}(): expected a list or a map, got {}{}",
                call.kind.name(),
                value.type_name(),
                if matches!(value, Val::Null) {
                    "; default(x, []) replaces null"
                } else {
                    ""
                },
            );
            return Err(ExprError::new(at, why));
        };
        self.meter.charge(items.len()).map_err(|why| ExprError::new(at, why))?;
        let mut out = Vec::new();
        let mut holding = 0_usize;
        for item in items {
            self.locals.push(item.clone());
            let outcome = self.one(call, item);
            self.locals.pop();
            match outcome? {
                Outcome::Keep(value) => out.push(value),
                Outcome::Holds(holds) => {
                    holding += usize::from(holds);
                    match call.kind {
                        MacroKind::Exists if holds => return Ok(Val::Bool(true)),
                        MacroKind::All if !holds => return Ok(Val::Bool(false)),
                        _ => {}
                    }
                }
            }
        }
        Ok(match call.kind {
            MacroKind::Map | MacroKind::Filter => Val::list(out),
            MacroKind::Exists => Val::Bool(false),
            MacroKind::ExistsOne => Val::Bool(holding == 1),
            MacroKind::All => Val::Bool(true),
        })
    }

    fn one(&mut self, call: &'a Macro, item: Val<'a>) -> Result<Outcome<'a>, ExprError> {
        if let Some(condition) = call.condition
            && !self.eval(condition)?.truthy()
        {
            return Ok(Outcome::Holds(false));
        }
        let value = self.eval(call.body)?;
        Ok(match call.kind {
            MacroKind::Map => Outcome::Keep(value),
            MacroKind::Filter if value.truthy() => Outcome::Keep(item),
            _ => Outcome::Holds(value.truthy()),
        })
    }
}

enum Outcome<'a> {
    Keep(Val<'a>),
    Holds(bool),
}

/// As a function wants its numbers: whole and not negative.
pub(super) fn place(value: &Val<'_>) -> Result<usize, Fault> {
    match value {
        Val::Num(Num::Int(index)) => usize::try_from(*index).map_err(|_| "an index must not be negative".into()),
        other => Err(format!("expected an int, got {}", other.type_name()).into()),
    }
}
