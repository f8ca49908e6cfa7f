//! What a text means: nodes in one list, so that neither building, evaluating nor dropping a long chain recurses.

use std::sync::Arc;

use regex::Regex;

use super::Segment;
use super::functions::Function;
use super::number::Num;

/// A place in [`Program::nodes`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Id(pub(super) u32);

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) source: Box<str>,
    pub(super) nodes: Vec<Node>,
    /// Where each node begins.
    pub(super) at: Vec<u32>,
    pub(super) root: Id,
}

impl Program {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn at(&self, id: Id) -> usize {
        self.at[id.0 as usize] as usize
    }
}

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Num(Num),
    Text(Box<str>),
    Path(Path),
    /// Whether the truth of the operand is turned round.
    Not(Id, bool),
    /// Whether the sign of the operand is.
    Neg(Id, bool),
    Or(Vec<Id>),
    And(Vec<Id>),
    Compare(Compare, Id, Id),
    In(Id, Id),
    /// Left to right.
    Chain(Id, Vec<(Arith, Id)>),
    /// The first arm whose condition holds, else the last.
    Cond(Vec<(Id, Id)>, Id),
    List(Vec<Id>),
    Map(Vec<(Id, Id)>),
    Call(Call),
    Has(Id),
    /// What is done to a value, in turn.
    Post(Id, Vec<Link>),
}

/// A value of the scope or of a macro's variable, and the way into it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) root: Root,
    /// With the root's key as the first, if it has one. If a step has to be computed, only those before it.
    pub(super) fixed: Vec<Segment>,
    /// From the first step on that has to be computed.
    pub(super) computed: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    Scope,
    /// The variable of the macro that many levels from the outside.
    Local(usize),
}

#[derive(Debug)]
pub(super) enum Step {
    Fixed(Segment),
    Computed(Id),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: &'static Function,
    pub(super) arguments: Vec<Id>,
    /// The second argument of `matches`, if it is a literal.
    pub(super) regex: Option<Arc<Regex>>,
}

#[derive(Debug)]
pub(super) enum Link {
    Walk(Vec<Step>),
    /// With the value as the first argument; where the name is.
    Call(Call, u32),
    Macro(Macro, u32),
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) kind: MacroKind,
    /// `map` alone has both.
    pub(super) condition: Option<Id>,
    pub(super) body: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MacroKind {
    Map,
    Filter,
    Exists,
    ExistsOne,
    All,
}

impl MacroKind {
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("map", Self::Map),
        ("filter", Self::Filter),
        ("exists", Self::Exists),
        ("exists_one", Self::ExistsOne),
        ("all", Self::All),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Arith {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Ge,
    Le,
    Gt,
    Lt,
}

impl Compare {
    pub(super) fn of(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "==" => Self::Eq,
            "!=" => Self::Ne,
            ">=" => Self::Ge,
            "<=" => Self::Le,
            ">" => Self::Gt,
            "<" => Self::Lt,
            _ => return None,
        })
    }
}
