//! What a schema must not be, whatever it says: too large, too deep, or without an end.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::super::model::Object;
use super::{MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH};

/// How many schemas may apply to one place of a value, references followed. Without a limit, thirty definitions that
/// each refer twice to the next are a billion.
const MAX_APPLIED: u32 = 20_000;
/// How many references in a row may be followed at one place of a value.
const MAX_HOPS: usize = 200;

/// Keywords whose schemas apply to the same place of the value: one, a list, and a map of schemas.
const ONE: [&str; 4] = ["not", "if", "then", "else"];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

pub(super) fn check(schema: &Object) -> Result<(), String> {
    let (bytes, depth) = measure_object(schema);
    if bytes > MAX_SCHEMA_BYTES {
        return Err(format!("it is larger than {MAX_SCHEMA_BYTES} bytes"));
    }
    if depth > MAX_SCHEMA_DEPTH {
        return Err(format!("it is nested deeper than {MAX_SCHEMA_DEPTH} levels"));
    }
    let mut names = HashMap::new();
    collect_names(schema, &mut names);
    let mut walk = Walk {
        root: schema,
        names,
        costs: HashMap::new(),
    };
    walk.all(schema)
}

/// About how long it is as JSON, and how deep.
fn measure(value: &Value) -> (usize, usize) {
    match value {
        Value::String(text) => (text.len() + 2, 0),
        Value::Array(items) => items.iter().map(measure).fold((2, 1), |(bytes, depth), (more, deep)| {
            (bytes + more + 1, depth.max(deep + 1))
        }),
        Value::Object(members) => measure_object(members),
        _ => (4, 0),
    }
}

fn measure_object(members: &Object) -> (usize, usize) {
    members.iter().fold((2, 1), |(bytes, depth), (name, value)| {
        let (more, deep) = measure(value);
        (bytes + name.len() + more + 4, depth.max(deep + 1))
    })
}

/// What a reference may name besides a place: anchors and ids.
fn collect_names<'a>(schema: &'a Object, names: &mut HashMap<&'a str, &'a Object>) {
    for key in ["$anchor", "$dynamicAnchor", "$id", "id"] {
        if let Some(Value::String(name)) = schema.get(key) {
            names.insert(name.trim_end_matches('#'), schema);
        }
    }
    for_each_object(schema, &mut |child| {
        collect_names(child, names);
        Ok::<(), ()>(())
    })
    .unwrap_or_default();
}

/// The objects next below.
fn for_each_object<'a, E>(schema: &'a Object, visit: &mut impl FnMut(&'a Object) -> Result<(), E>) -> Result<(), E> {
    fn below<'a, E>(value: &'a Value, visit: &mut impl FnMut(&'a Object) -> Result<(), E>) -> Result<(), E> {
        match value {
            Value::Object(object) => visit(object),
            Value::Array(items) => items.iter().try_for_each(|item| below(item, visit)),
            _ => Ok(()),
        }
    }
    schema.values().try_for_each(|value| below(value, visit))
}

#[derive(Clone, Copy)]
enum Cost {
    /// On the way from here to here again: there is no end.
    Open,
    Known(u32),
}

struct Walk<'a> {
    root: &'a Object,
    names: HashMap<&'a str, &'a Object>,
    costs: HashMap<*const Object, Cost>,
}

impl<'a> Walk<'a> {
    /// Every object is looked at as if it were a schema: those that are none are in nobody's way.
    fn all(&mut self, schema: &'a Object) -> Result<(), String> {
        self.cost(schema, 0)?;
        for_each_object(schema, &mut |child| self.all(child))
    }

    /// How many schemas apply where this one does.
    fn cost(&mut self, schema: &'a Object, hops: usize) -> Result<u32, String> {
        let key = std::ptr::from_ref(schema);
        match self.costs.get(&key) {
            Some(Cost::Known(cost)) => return Ok(*cost),
            Some(Cost::Open) => {
                return Err("a reference leads to itself at the same place: an infinite loop".to_owned());
            }
            None => {}
        }
        if hops > MAX_HOPS {
            return Err(format!(
                "more than {MAX_HOPS} schemas are within each other at the same place"
            ));
        }
        self.costs.insert(key, Cost::Open);
        let mut sum = 1_u32;
        for next in self.next(schema) {
            sum = sum.saturating_add(self.cost(next, hops + 1)?);
        }
        if sum > MAX_APPLIED {
            return Err(format!(
                "more than {MAX_APPLIED} schemas apply at one place, references followed"
            ));
        }
        self.costs.insert(key, Cost::Known(sum));
        Ok(sum)
    }

    fn next(&self, schema: &'a Object) -> Vec<&'a Object> {
        let one = ONE.iter().filter_map(|key| schema.get(*key));
        let lists = LISTS.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
        let maps = MAPS.iter().filter_map(|key| schema.get(*key)?.as_object());
        let direct = one
            .chain(lists)
            .chain(maps.flat_map(Object::values))
            .filter_map(Value::as_object);
        let referred = REFERENCES
            .iter()
            .filter_map(|key| schema.get(*key)?.as_str())
            .filter_map(|reference| self.resolve(reference));
        direct.chain(referred).collect()
    }

    /// What a reference names, if it is found here. What is not is the compiler's to refuse.
    fn resolve(&self, reference: &str) -> Option<&'a Object> {
        if let Some((base, fragment)) = reference.split_once('#') {
            let start = if base.is_empty() {
                self.root
            } else {
                self.names.get(base).copied().unwrap_or(self.root)
            };
            if fragment.is_empty() {
                return Some(start);
            }
            if !fragment.starts_with('/') {
                return self.names.get(fragment).copied();
            }
            let mut segments = fragment[1..].split('/').map(decode);
            let first = start.get(segments.next()?.as_ref())?;
            return segments
                .try_fold(first, |value, segment| match value {
                    Value::Object(members) => members.get(segment.as_ref()),
                    Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
                    _ => None,
                })?
                .as_object();
        }
        self.names.get(reference).copied()
    }
}

/// A segment of a pointer in a URI.
fn decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains(['~', '%']) {
        return Cow::Borrowed(segment);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let hex = (*byte == b'%')
            .then(|| std::str::from_utf8(tail.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match hex {
            Some(decoded) => {
                bytes.push(decoded);
                &tail[2..]
            }
            None => {
                bytes.push(*byte);
                tail
            }
        };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~"))
}
