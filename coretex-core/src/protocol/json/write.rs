//! Messages to text.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_types::Timestamp;

use super::tables::ProtoEnum;
use super::{JsonMessage, Mode, time};

/// Writes the members of one object.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    mode: Mode,
}

impl ObjectWriter<'_> {
    pub(super) fn member<V: Write>(&mut self, json: &str, name: &str, value: &V) {
        if self.mode == Mode::Full || value.is_set() {
            self.key(json, name);
            value.write(self.out, self.mode);
        }
    }

    pub(super) fn enumeration<E: ProtoEnum>(&mut self, json: &str, name: &str, value: i32) {
        if self.mode == Mode::Full || value != 0 {
            self.key(json, name);
            match E::name_of(value) {
                Some(value) => string(self.out, value),
                None => display(self.out, value),
            }
        }
    }

    pub(super) fn message<M: JsonMessage>(&mut self, json: &str, name: &str, value: &M) {
        self.key(json, name);
        message(self.out, value, self.mode);
    }

    fn key(&mut self, json: &str, name: &str) {
        // Nothing but the beginning of the object ends in a brace: values end in quotes, digits, letters or closing brackets.
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(if self.mode == Mode::Snake { name } else { json });
        self.out.push_str("\":");
    }
}

pub(super) fn message<M: JsonMessage>(out: &mut String, message: &M, mode: Mode) {
    out.push('{');
    message.write_members(&mut ObjectWriter { out, mode });
    out.push('}');
}

/// A value of a field.
pub(super) trait Write {
    fn is_set(&self) -> bool;

    fn write(&self, out: &mut String, mode: Mode);
}

impl Write for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }

    fn write(&self, out: &mut String, _: Mode) {
        string(out, self);
    }
}

impl Write for bool {
    fn is_set(&self) -> bool {
        *self
    }

    fn write(&self, out: &mut String, _: Mode) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl Write for i32 {
    fn is_set(&self) -> bool {
        *self != 0
    }

    fn write(&self, out: &mut String, _: Mode) {
        display(out, self);
    }
}

impl Write for i64 {
    fn is_set(&self) -> bool {
        *self != 0
    }

    fn write(&self, out: &mut String, mode: Mode) {
        if mode == Mode::Snake {
            display(out, self);
        } else {
            out.push('"');
            display(out, self);
            out.push('"');
        }
    }
}

impl Write for f32 {
    fn is_set(&self) -> bool {
        *self != 0.0
    }

    fn write(&self, out: &mut String, _: Mode) {
        if let Some(name) = non_finite(f64::from(*self)) {
            string(out, name);
        } else if plain(f64::from(*self)) {
            display(out, self);
        } else {
            exponent(out, &format!("{self:e}"));
        }
    }
}

impl Write for f64 {
    fn is_set(&self) -> bool {
        *self != 0.0
    }

    fn write(&self, out: &mut String, _: Mode) {
        if let Some(name) = non_finite(*self) {
            string(out, name);
        } else if plain(*self) {
            display(out, self);
        } else {
            exponent(out, &format!("{self:e}"));
        }
    }
}

impl Write for Vec<u8> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }

    fn write(&self, out: &mut String, _: Mode) {
        out.push('"');
        STANDARD.encode_string(self, out);
        out.push('"');
    }
}

impl Write for Vec<String> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }

    fn write(&self, out: &mut String, _: Mode) {
        list(out, self, |out, item| string(out, item));
    }
}

impl<M: JsonMessage> Write for Vec<M> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }

    fn write(&self, out: &mut String, mode: Mode) {
        list(out, self, |out, item| message(out, item, mode));
    }
}

impl Write for BTreeMap<String, String> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }

    fn write(&self, out: &mut String, _: Mode) {
        out.push('{');
        for (index, (key, value)) in self.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            string(out, key);
            out.push(':');
            string(out, value);
        }
        out.push('}');
    }
}

impl<M: JsonMessage> Write for Option<M> {
    fn is_set(&self) -> bool {
        self.is_some()
    }

    fn write(&self, out: &mut String, mode: Mode) {
        match self {
            Some(value) => message(out, value, mode),
            None => out.push_str("null"),
        }
    }
}

impl Write for Option<Timestamp> {
    fn is_set(&self) -> bool {
        self.as_ref().is_some_and(time::is_valid)
    }

    fn write(&self, out: &mut String, _: Mode) {
        match self {
            // A time outside of years 1 to 9999 has no text; it is left out, so that one bad clock hides no packet.
            Some(value) if time::is_valid(value) => {
                out.push('"');
                time::append(out, value);
                out.push('"');
            }
            _ => out.push_str("null"),
        }
    }
}

fn list<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

pub(super) fn display(out: &mut String, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

fn non_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

/// Whether the number is written without an exponent.
fn plain(value: f64) -> bool {
    let size = value.abs();
    size == 0.0 || (1e-6..1e21).contains(&size)
}

/// `1e30` becomes `1e+30`.
fn exponent(out: &mut String, digits: &str) {
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => {
            out.push_str(mantissa);
            out.push_str("e+");
            out.push_str(exponent);
        }
        _ => out.push_str(digits),
    }
}

fn string(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let (clean, special) = rest.split_at(at);
        out.push_str(clean);
        let (special, after) = special.split_at(1);
        match special {
            "\"" => out.push_str("\\\""),
            "\\" => out.push_str("\\\\"),
            "\n" => out.push_str("\\n"),
            "\r" => out.push_str("\\r"),
            "\t" => out.push_str("\\t"),
            "\u{8}" => out.push_str("\\b"),
            "\u{c}" => out.push_str("\\f"),
            _ => {
                for byte in special.bytes() {
                    out.push_str("\\u00");
                    out.push(char::from(HEX[usize::from(byte >> 4)]));
                    out.push(char::from(HEX[usize::from(byte & 15)]));
                }
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out.push('"');
}
