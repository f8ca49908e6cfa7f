//! Calls of functions and macros.

use std::sync::Arc;

use regex::Regex;

use super::super::ast::{Call, Id, Link, Macro, MacroKind, Node};
use super::super::functions::{self, Function};
use super::super::lexer::Tok;
use super::super::{MAX_PATTERNS, SyntaxError};
use super::{Parsed, Parser};

impl<'s> Parser<'s> {
    pub(super) fn call(&mut self, name: &str, at: usize) -> Parsed<Id> {
        if name == "has" {
            let argument = self.expression()?;
            self.expect(")")?;
            if !matches!(self.nodes[argument.0 as usize], Node::Path(_)) {
                return Err(SyntaxError::new(at, "has() takes a path, as in has(input.key)"));
            }
            return Ok(self.add(at, Node::Has(argument)));
        }
        if MacroKind::named(name).is_some() {
            return Err(SyntaxError::new(
                at,
                format!("{name}() is called on a list, as in input.items.{name}(x, x.ready)"),
            ));
        }
        let function = find(name, at)?;
        let arguments = self.list(")")?;
        let call = self.checked_call(function, arguments, None, at)?;
        Ok(self.add(at, Node::Call(call)))
    }

    pub(super) fn method(&mut self, name: &'s str, at: usize) -> Parsed<Link> {
        let position = u32::try_from(at).unwrap_or(u32::MAX);
        if let Some(kind) = MacroKind::named(name) {
            return Ok(Link::Macro(self.macro_call(kind, at)?, position));
        }
        let function = find(name, at)?;
        let arguments = self.list(")")?;
        // The value it is called on is not among the arguments.
        Ok(Link::Call(
            self.checked_call(function, arguments, Some(()), at)?,
            position,
        ))
    }

    fn macro_call(&mut self, kind: MacroKind, at: usize) -> Parsed<Macro> {
        let name = kind.name();
        let Tok::Name(variable) = self.peek() else {
            return Err(self.unexpected(&format!("the variable of {name}(), as in {name}(x, x.ready)")));
        };
        self.next += 1;
        self.expect(",")?;
        self.locals.push(variable);
        let arguments = self.list(")");
        self.locals.pop();
        match *arguments?.as_slice() {
            [body] => Ok(Macro {
                kind,
                condition: None,
                body,
            }),
            [condition, body] if kind == MacroKind::Map => Ok(Macro {
                kind,
                condition: Some(condition),
                body,
            }),
            _ => Err(SyntaxError::new(
                at,
                format!("{name}() takes a variable and one expression, as in {name}(x, x.ready)"),
            )),
        }
    }

    /// Counts the arguments and compiles a literal pattern.
    fn checked_call(
        &mut self,
        function: &'static Function,
        arguments: Vec<Id>,
        receiver: Option<()>,
        at: usize,
    ) -> Parsed<Call> {
        let given = arguments.len() + usize::from(receiver.is_some());
        if given < function.least || given > function.most {
            return Err(SyntaxError::new(at, function.wrong_count(given)));
        }
        let mut regex = None;
        if function.name == functions::MATCHES
            && let Some(id) = arguments.last()
            && let Node::Text(pattern) = &self.nodes[id.0 as usize]
        {
            self.patterns += 1;
            if self.patterns > MAX_PATTERNS {
                return Err(SyntaxError::new(
                    at,
                    format!("more than {MAX_PATTERNS} patterns in one expression"),
                ));
            }
            let compiled: Regex = functions::pattern(pattern).map_err(|why| SyntaxError::new(self.at(*id), why))?;
            regex = Some(Arc::new(compiled));
        }
        Ok(Call {
            function,
            arguments,
            regex,
        })
    }

    fn at(&self, id: Id) -> usize {
        self.at[id.0 as usize] as usize
    }
}

/// The function of that name, or what it may have been meant to be.
fn find(name: &str, at: usize) -> Parsed<&'static Function> {
    functions::find(name).ok_or_else(|| {
        let known = functions::names()
            .chain(MacroKind::NAMES.iter().map(|(name, _)| *name))
            .chain(["has"]);
        let nearest = known
            .map(|known| (distance(name, known), known))
            .min()
            .filter(|(distance, known)| *distance <= (known.len().max(3) / 2).max(2));
        let mut message = format!("unknown function {name:?}");
        if let Some((_, nearest)) = nearest {
            message.push_str("; did you mean ");
            message.push_str(nearest);
            message.push_str("()?");
        }
        if name.contains('-') {
            message.push_str("; to subtract, put spaces around `-`");
        }
        SyntaxError::new(at, message)
    })
}

/// How many letters have to be changed, added or removed; case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(40).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
