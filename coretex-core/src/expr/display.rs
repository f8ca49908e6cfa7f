//! Values as text (docs/spec/expressions.md §6).

use std::fmt::Write as _;

use jiff::SignedDuration;
use serde_json::Value;

use super::number::Num;
use super::value::{Fault, Val, deep};

/// What `value` looks like between other text: strings as they are, nothing for null, numbers as plain decimals, `[a b]`
/// for a list and `map[k:v]` for an object, ordered by key.
pub fn display(value: &Value) -> String {
    text(&Val::of(value))
}

/// As [`display`].
pub(super) fn text(value: &Val<'_>) -> String {
    let mut show = Show::new(usize::MAX);
    if !matches!(value, Val::Null) {
        // What is nested too deep is left out; nothing that was read from JSON is.
        let _ = show.value(value, 0);
    }
    show.out
}

/// As [`display`], of at most `limit` bytes.
pub(super) fn limited(value: &Val<'_>, limit: usize) -> Result<String, Fault> {
    if matches!(value, Val::Null) {
        return Ok(String::new());
    }
    compared(value, limit)
}

/// The text two values of different kinds are compared by: as [`limited`], but null is `<nil>`.
pub(super) fn compared(value: &Val<'_>, limit: usize) -> Result<String, Fault> {
    let mut show = Show::new(limit);
    show.value(value, 0)?;
    Ok(show.out)
}

/// A number with as few digits as it takes to read the same again.
pub(super) fn number(number: Num) -> String {
    match number {
        Num::Int(value) => value.to_string(),
        Num::Double(value) if value == f64::INFINITY => "+Inf".to_owned(),
        Num::Double(value) if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        Num::Double(value) => value.to_string(),
    }
}

/// `5400s`, `-0.5s`.
pub(super) fn span(value: SignedDuration) -> String {
    let nanos = value.as_nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let (secs, part) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    if part == 0 {
        return format!("{sign}{secs}s");
    }
    let fraction = format!("{part:09}");
    format!("{sign}{secs}.{}s", fraction.trim_end_matches('0'))
}

struct Show {
    out: String,
    limit: usize,
}

impl Show {
    fn new(limit: usize) -> Self {
        Self {
            out: String::new(),
            limit,
        }
    }

    fn push(&mut self, text: &str) -> Result<(), Fault> {
        if self.out.len() + text.len() > self.limit {
            return Err(Fault::Borrowed("text is too long"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Val<'_>, depth: usize) -> Result<(), Fault> {
        match value {
            Val::Null => self.push("<nil>"),
            Val::Bool(true) => self.push("true"),
            Val::Bool(false) => self.push("false"),
            Val::Num(value) => self.push(&number(*value)),
            Val::Text(text) => self.push(text),
            Val::Json(value) => self.json(value, depth),
            Val::List(items) => self.list(items.iter(), depth, Self::value),
            Val::Map(members) => {
                let members = members.iter().map(|(key, value)| (&**key, value));
                self.map(members, depth, Self::value)
            }
            Val::Time(time) => {
                let mut text = String::new();
                let _ = write!(text, "{time}");
                self.push(&text)
            }
            Val::Span(value) => self.push(&span(*value)),
        }
    }

    fn json(&mut self, value: &Value, depth: usize) -> Result<(), Fault> {
        match value {
            Value::Array(items) => self.list(items.iter(), depth, Self::json),
            Value::Object(members) => {
                let mut sorted: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value)).collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                self.map(sorted.into_iter(), depth, Self::json)
            }
            scalar => self.value(&Val::of(scalar), depth),
        }
    }

    fn list<'v, V: 'v>(
        &mut self,
        items: impl Iterator<Item = &'v V>,
        depth: usize,
        show: fn(&mut Self, &V, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        deep(depth)?;
        self.push("[")?;
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.push(" ")?;
            }
            show(self, item, depth + 1)?;
        }
        self.push("]")
    }

    fn map<'v, V: 'v>(
        &mut self,
        members: impl Iterator<Item = (&'v str, &'v V)>,
        depth: usize,
        show: fn(&mut Self, &V, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        deep(depth)?;
        self.push("map[")?;
        for (index, (key, value)) in members.enumerate() {
            if index > 0 {
                self.push(" ")?;
            }
            self.push(key)?;
            self.push(":")?;
            show(self, value, depth + 1)?;
        }
        self.push("]")
    }
}
