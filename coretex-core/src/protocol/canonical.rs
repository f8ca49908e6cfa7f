//! JSON with exactly one spelling per value, to be hashed. See `docs/spec/protocol.md` §11.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::hash::hex;

/// What numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// 64-bit floats, all of them: what every hash over JSON from clients is made of.
    Doubles,
    /// Integers up to 64 bits keep every digit; the rest are floats. For what was never JSON, and for reading.
    Exact,
}

/// The canonical text: no white space, members in the order of the bytes of their names, at every level.
pub fn text(value: &Value, numbers: Numbers) -> String {
    let mut out = String::new();
    write(&mut out, value, numbers);
    out
}

/// SHA-256 of the canonical text, in lower-case hex.
pub fn hash(value: &Value, numbers: Numbers) -> String {
    hex(&Sha256::digest(text(value, numbers)))
}

/// [`hash`] of an object.
pub fn hash_object(members: &Map<String, Value>, numbers: Numbers) -> String {
    hex(&Sha256::digest(text_of_object(members, numbers)))
}

/// [`text`] of an object.
pub fn text_of_object(members: &Map<String, Value>, numbers: Numbers) -> String {
    let mut out = String::new();
    write_object(&mut out, members, numbers);
    out
}

fn write(out: &mut String, value: &Value, numbers: Numbers) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number, numbers),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, item, numbers);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(out, members, numbers),
    }
}

fn write_object(out: &mut String, members: &Map<String, Value>, numbers: Numbers) {
    // Sorted here, so that it does not matter how the map keeps its members.
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|(name, _)| name.as_bytes());
    out.push('{');
    for (i, (name, member)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write(out, member, numbers);
    }
    out.push('}');
}

/// Writing to a string cannot fail, so results of `write!` are dropped.
fn write_number(out: &mut String, number: &Number, numbers: Numbers) {
    if numbers == Numbers::Exact && !number.is_f64() {
        let _ = write!(out, "{number}");
        return;
    }
    // Every number of JSON is one of 64 bits here.
    let Some(value) = number.as_f64() else {
        let _ = write!(out, "{number}");
        return;
    };
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        let _ = write!(out, "{value}");
        return;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    let _ = write!(out, "{digits}e{sign}{exponent}");
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) =
        rest.find(|c: char| c < ' ' || matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}'))
    {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests;
