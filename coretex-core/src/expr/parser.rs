//! Tokens to nodes: the grammar of docs/spec/expressions.md §2. Recursion is bounded by [`MAX_DEPTH`]; operators, accesses
//! and alternatives of one level are loops.

mod calls;

use super::ast::{Arith, Compare, Id, Link, Node, Path, Program, Root, Step};
use super::lexer::{self, Tok};
use super::number::{self, Num};
use super::{MAX_DEPTH, MAX_SOURCE, Segment, SyntaxError};

type Parsed<T> = Result<T, SyntaxError>;

/// Parses `text`, which begins `base` bytes into what the positions count from.
pub(super) fn parse(text: &str, base: usize) -> Parsed<Program> {
    if text.len() > MAX_SOURCE {
        return Err(SyntaxError::new(
            base,
            format!("expression is longer than {MAX_SOURCE} bytes"),
        ));
    }
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(SyntaxError::new(base, super::EMPTY));
    }
    let mut parser = Parser {
        tokens: lexer::tokens(text, base)?,
        next: 0,
        nodes: Vec::new(),
        at: Vec::new(),
        locals: Vec::new(),
        depth: 0,
        patterns: 0,
    };
    let root = parser.expression()?;
    if !matches!(parser.peek(), Tok::End) {
        return Err(parser.unexpected("an operator or the end"));
    }
    // JSON has one kind of number: a literal alone is written without a fraction if it has none.
    if let Node::Num(number) = &mut parser.nodes[root.0 as usize]
        && let Some(whole) = number.whole().and_then(Num::int)
    {
        *number = whole;
    }
    Ok(Program {
        source: trimmed.into(),
        nodes: parser.nodes,
        at: parser.at,
        root,
    })
}

struct Parser<'s> {
    tokens: Vec<(Tok<'s>, usize)>,
    next: usize,
    nodes: Vec<Node>,
    at: Vec<u32>,
    /// The variables of the macros around, innermost last.
    locals: Vec<&'s str>,
    depth: usize,
    patterns: usize,
}

impl<'s> Parser<'s> {
    fn peek(&self) -> Tok<'s> {
        self.tokens.get(self.next).map_or(Tok::End, |(token, _)| *token)
    }

    fn peek_second(&self) -> Tok<'s> {
        self.tokens.get(self.next + 1).map_or(Tok::End, |(token, _)| *token)
    }

    /// Where the next token is.
    fn here(&self) -> usize {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(0, |(_, at)| *at)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.peek().is(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Parsed<()> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{symbol}`")))
        }
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        SyntaxError::new(
            self.here(),
            format!("expected {expected}, found {}", self.peek().describe()),
        )
    }

    fn add(&mut self, at: usize, node: Node) -> Id {
        let id = Id(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        self.at.push(u32::try_from(at).unwrap_or(u32::MAX));
        id
    }

    /// `or [ "?" expression ":" expression ]`
    fn expression(&mut self) -> Parsed<Id> {
        let at = self.here();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError::new(
                at,
                format!("expression is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let mut arms = Vec::new();
        let mut last = self.or()?;
        while self.take("?") {
            let then = self.expression()?;
            self.expect(":")?;
            arms.push((last, then));
            last = self.or()?;
        }
        self.depth -= 1;
        Ok(if arms.is_empty() {
            last
        } else {
            self.add(at, Node::Cond(arms, last))
        })
    }

    fn or(&mut self) -> Parsed<Id> {
        let at = self.here();
        let first = self.and()?;
        if !self.peek().is("||") {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.take("||") {
            terms.push(self.and()?);
        }
        Ok(self.add(at, Node::Or(terms)))
    }

    fn and(&mut self) -> Parsed<Id> {
        let at = self.here();
        let first = self.not()?;
        if !self.peek().is("&&") {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.take("&&") {
            terms.push(self.not()?);
        }
        Ok(self.add(at, Node::And(terms)))
    }

    /// `!` in front of a comparison negates the comparison.
    fn not(&mut self) -> Parsed<Id> {
        let at = self.here();
        let (found, odd) = self.run("!");
        let inner = self.relation()?;
        Ok(if found {
            self.add(at, Node::Not(inner, odd))
        } else {
            inner
        })
    }

    /// Takes all of `symbol` there are: whether there were any, and whether their number is odd.
    fn run(&mut self, symbol: &str) -> (bool, bool) {
        let before = self.next;
        while self.take(symbol) {}
        (self.next > before, (self.next - before) % 2 == 1)
    }

    fn relation(&mut self) -> Parsed<Id> {
        let left = self.sum()?;
        let at = self.here();
        let node = match self.peek() {
            Tok::Sym(symbol) => {
                let Some(operator) = Compare::of(symbol) else {
                    return Ok(left);
                };
                self.next += 1;
                Node::Compare(operator, left, self.sum()?)
            }
            Tok::Name("in") => {
                self.next += 1;
                Node::In(left, self.sum()?)
            }
            _ => return Ok(left),
        };
        let again = match self.peek() {
            Tok::Sym(symbol) => Compare::of(symbol).is_some(),
            Tok::Name("in") => true,
            _ => false,
        };
        if again {
            return Err(SyntaxError::new(
                self.here(),
                "comparisons cannot be chained; use parentheses, as in (a == b) == c",
            ));
        }
        Ok(self.add(at, node))
    }

    fn sum(&mut self) -> Parsed<Id> {
        self.chain(
            |symbol| match symbol {
                "+" => Some(Arith::Add),
                "-" => Some(Arith::Sub),
                _ => None,
            },
            Self::product,
        )
    }

    fn product(&mut self) -> Parsed<Id> {
        self.chain(
            |symbol| match symbol {
                "*" => Some(Arith::Mul),
                "/" => Some(Arith::Div),
                "%" => Some(Arith::Rem),
                _ => None,
            },
            Self::unary,
        )
    }

    fn chain(
        &mut self,
        operator: fn(&'static str) -> Option<Arith>,
        operand: fn(&mut Self) -> Parsed<Id>,
    ) -> Parsed<Id> {
        let at = self.here();
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Tok::Sym(symbol) = self.peek()
            && let Some(operator) = operator(symbol)
        {
            self.next += 1;
            rest.push((operator, operand(self)?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            self.add(at, Node::Chain(first, rest))
        })
    }

    fn unary(&mut self) -> Parsed<Id> {
        let at = self.here();
        let (negated, odd) = self.run("!");
        if negated {
            let inner = self.signed()?;
            return Ok(self.add(at, Node::Not(inner, odd)));
        }
        self.signed()
    }

    fn signed(&mut self) -> Parsed<Id> {
        let at = self.here();
        let (signed, odd) = self.run("-");
        if !signed {
            if self.take("+") {
                return match self.number() {
                    Some(number) => Ok(self.add(at, Node::Num(number))),
                    None => Err(self.unexpected("a number after `+`")),
                };
            }
            return self.postfix();
        }
        // The sign belongs to a literal, so that the smallest integer can be written.
        if let Some(number) = self.number() {
            let number = if odd {
                number::negate(number).ok_or_else(|| SyntaxError::new(at, "number out of range"))?
            } else {
                number
            };
            let id = self.add(at, Node::Num(number));
            return self.links(id);
        }
        let inner = self.postfix()?;
        Ok(self.add(at, Node::Neg(inner, odd)))
    }

    /// Takes a number, if one is next.
    fn number(&mut self) -> Option<Num> {
        let number = match self.peek() {
            Tok::Num(number) => number,
            Tok::Name(name) if !self.names_a_value() => number::named(name)?,
            _ => return None,
        };
        self.next += 1;
        Some(number)
    }

    /// Whether what follows the next word makes it a root or a function, whatever it is called.
    fn names_a_value(&self) -> bool {
        let second = self.peek_second();
        second.is(".") || second.is("[") || second.is("(")
    }

    fn postfix(&mut self) -> Parsed<Id> {
        let base = self.primary()?;
        self.links(base)
    }

    /// `{ "." key | "." name "(" … ")" | "[" expression "]" }`
    fn links(&mut self, base: Id) -> Parsed<Id> {
        let mut links: Vec<Link> = Vec::new();
        loop {
            let at = self.here();
            if self.take("[") {
                let step = self.index()?;
                self.step(base, &mut links, step);
            } else if self.take(".") {
                let at = self.here();
                let Tok::Member(key) = self.peek() else {
                    return Err(self.unexpected("a key after `.`"));
                };
                self.next += 1;
                if self.take("(") {
                    links.push(self.method(key, at)?);
                } else {
                    self.step(base, &mut links, Step::Fixed(Segment::key(key)));
                }
            } else if links.is_empty() {
                return Ok(base);
            } else {
                return Ok(self.add(at, Node::Post(base, links)));
            }
        }
    }

    /// A step belongs to the path it follows, if nothing was called in between.
    fn step(&mut self, base: Id, links: &mut Vec<Link>, step: Step) {
        match links.last_mut() {
            Some(Link::Walk(steps)) => steps.push(step),
            Some(_) => links.push(Link::Walk(vec![step])),
            None => match &mut self.nodes[base.0 as usize] {
                Node::Path(path) => match step {
                    Step::Fixed(segment) if path.computed.is_empty() => path.fixed.push(segment),
                    step => path.computed.push(step),
                },
                _ => links.push(Link::Walk(vec![step])),
            },
        }
    }

    /// What is between the brackets, and the closing one.
    fn index(&mut self) -> Parsed<Step> {
        let inner = self.expression()?;
        self.expect("]")?;
        Ok(match &self.nodes[inner.0 as usize] {
            Node::Text(key) => Step::Fixed(Segment::key(key)),
            Node::Num(Num::Int(index)) => match i64::try_from(*index) {
                Ok(index) => Step::Fixed(Segment::Index(index)),
                Err(_) => Step::Computed(inner),
            },
            _ => Step::Computed(inner),
        })
    }

    fn primary(&mut self) -> Parsed<Id> {
        let at = self.here();
        if let Some(number) = self.number() {
            return Ok(self.add(at, Node::Num(number)));
        }
        let node = match self.peek() {
            Tok::Text(text) => {
                self.next += 1;
                Node::Text(text.into())
            }
            Tok::Name(name) => {
                self.next += 1;
                return self.word(name, at);
            }
            Tok::Sym("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Tok::Sym("[") => {
                self.next += 1;
                Node::List(self.list("]")?)
            }
            Tok::Sym("{") => {
                self.next += 1;
                Node::Map(self.pairs()?)
            }
            _ => return Err(self.unexpected("a value")),
        };
        Ok(self.add(at, node))
    }

    /// Expressions up to `close`, which is taken. A comma may follow the last.
    fn list(&mut self, close: &str) -> Parsed<Vec<Id>> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.expression()?);
            if !self.take(",") && !self.peek().is(close) {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
        Ok(items)
    }

    fn pairs(&mut self) -> Parsed<Vec<(Id, Id)>> {
        let mut pairs = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            pairs.push((key, self.expression()?));
            if !self.take(",") && !self.peek().is("}") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(pairs)
    }

    fn word(&mut self, name: &'s str, at: usize) -> Parsed<Id> {
        if self.take("(") {
            return self.call(name, at);
        }
        let accessed = self.peek().is(".");
        let node = match name {
            "in" => return Err(SyntaxError::new(at, "expected a value, found `in`")),
            "true" if !accessed => Node::Bool(true),
            "false" if !accessed => Node::Bool(false),
            "null" if !accessed => Node::Null,
            _ => Node::Path(match self.locals.iter().rposition(|local| *local == name) {
                Some(level) => Path {
                    root: Root::Local(level),
                    fixed: Vec::new(),
                    computed: Vec::new(),
                },
                None => Path {
                    root: Root::Scope,
                    fixed: vec![Segment::key(name)],
                    computed: Vec::new(),
                },
            }),
        };
        Ok(self.add(at, node))
    }
}
