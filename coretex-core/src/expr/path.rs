//! Steps into a value. What is not there is null, never an error (docs/spec/expressions.md §3.3).

use serde_json::{Map, Value};

use super::Segment;
use super::value::Val;

/// The member that `path` begins with, and how many segments it takes: two, if a key and an index are one literal key.
pub(super) fn member<'v>(members: &'v Map<String, Value>, path: &[Segment]) -> Option<(&'v Value, usize)> {
    match path {
        [Segment::Key(key), Segment::Index(index), ..] => match members.get(&format!("{key}[{index}]")) {
            Some(value) => Some((value, 2)),
            None => members.get(&**key).map(|value| (value, 1)),
        },
        [Segment::Key(key), ..] => members.get(&**key).map(|value| (value, 1)),
        [Segment::Index(index), ..] => members.get(&index.to_string()).map(|value| (value, 1)),
        [] => None,
    }
}

/// What `path` leads to in `value`.
pub(super) fn walk<'v>(mut value: &'v Value, mut path: &[Segment]) -> Option<&'v Value> {
    while let Some(first) = path.first() {
        let used = match (value, first) {
            (Value::Object(members), _) => {
                let (found, used) = member(members, path)?;
                value = found;
                used
            }
            (Value::Array(items), Segment::Index(index)) => {
                value = items.get(usize::try_from(*index).ok()?)?;
                1
            }
            _ => return None,
        };
        path = path.get(used..)?;
    }
    Some(value)
}

/// What `path` leads to in a value that may have been made by the expression.
pub(super) fn walk_made<'a>(mut value: Val<'a>, mut path: &[Segment]) -> Option<Val<'a>> {
    while let Some(first) = path.first() {
        if let Val::Json(json) = value {
            return walk(json, path).map(Val::of);
        }
        let mut used = 1;
        value = match first {
            Segment::Index(index) => match value.list_len() {
                Some(_) => value.element(usize::try_from(*index).ok()?)?,
                None => value.member(&index.to_string())?,
            },
            Segment::Key(key) => {
                let literal = match path.get(1) {
                    Some(Segment::Index(index)) => value.member(&format!("{key}[{index}]")),
                    _ => None,
                };
                used += usize::from(literal.is_some());
                literal.or_else(|| value.member(key))?
            }
        };
        path = path.get(used..)?;
    }
    Some(value)
}
