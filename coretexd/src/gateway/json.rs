//! JSON as every existing client writes and reads it. See `docs/spec/http.md` §3.

use std::collections::BTreeMap;
use std::fmt;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ApiError;

/// A 200 with a JSON body and a line end.
pub(super) fn ok(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => {
            let mut json = escape_html(json);
            json.push(b'\n');
            let mut response = Response::new(Body::from(json));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "a response cannot be encoded");
            ApiError::internal().into_response()
        }
    }
}

/// Escapes what would be unsafe inside HTML or JavaScript. In JSON these characters only ever stand in texts, so the
/// bytes can be replaced without looking at the structure.
fn escape_html(json: Vec<u8>) -> Vec<u8> {
    let suspicious = |b: &u8| matches!(b, b'<' | b'>' | b'&' | 0xe2);
    let Some(first) = json.iter().position(suspicious) else {
        return json;
    };
    let (clean, mut rest) = json.split_at(first);
    let mut out = Vec::with_capacity(json.len() + 64);
    out.extend_from_slice(clean);
    while let Some((&byte, tail)) = rest.split_first() {
        let (escaped, length): (&[u8], usize) = match (byte, tail) {
            (b'<', _) => (b"\\u003c", 1),
            (b'>', _) => (b"\\u003e", 1),
            (b'&', _) => (b"\\u0026", 1),
            (0xe2, [0x80, 0xa8, ..]) => (b"\\u2028", 3),
            (0xe2, [0x80, 0xa9, ..]) => (b"\\u2029", 3),
            _ => (&rest[..1], 1),
        };
        out.extend_from_slice(escaped);
        rest = &rest[length..];
    }
    out
}

/// Stored bytes as JSON, unchanged: numbers keep every digit. `None` if they are not JSON.
pub(super) fn raw(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok()
}

/// Writes a float without a needless `.0`.
pub(super) fn float<S: Serializer>(value: f32, serializer: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "the value is integral and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(value as i64)
    } else {
        serializer.serialize_f32(value)
    }
}

/// Reads the first JSON value of a body; what follows it is ignored.
///
/// # Errors
/// 400 with the text `text`.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], text: &'static str) -> Result<T, ApiError> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body)).map_err(|error| {
        let detail = error.to_string();
        // `read_field` puts the field in front.
        let field = detail
            .split_once(": ")
            .map(|(field, _)| field)
            .filter(|field| field.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .map(str::to_owned);
        ApiError::invalid_json(text, field, format!("{text}: {detail}"))
    })
}

/// Reads a body that may be missing.
///
/// # Errors
/// 400 with the text `text`.
pub(super) fn read_optional<T: DeserializeOwned + Default>(body: &[u8], text: &'static str) -> Result<T, ApiError> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        read(body, text)
    }
}

/// A field of a request: `null` leaves it as it is.
pub(super) trait Field {
    /// What stands in the JSON.
    type Wire: DeserializeOwned;

    /// Takes what was read.
    fn set(&mut self, wire: Self::Wire);
}

macro_rules! plain_fields {
    ($($ty:ty),+) => {
        $(impl Field for $ty {
            type Wire = Option<$ty>;

            fn set(&mut self, wire: Self::Wire) {
                if let Some(value) = wire {
                    *self = value;
                }
            }
        })+
    };
}

plain_fields!(String, bool, f64, i32, i64);

macro_rules! optional_fields {
    ($($ty:ty),+) => {
        $(impl Field for Option<$ty> {
            type Wire = Self;

            fn set(&mut self, wire: Self) {
                if wire.is_some() {
                    *self = wire;
                }
            }
        })+
    };
}

optional_fields!(String, bool, i64);

impl Field for Option<Box<RawValue>> {
    type Wire = Self;

    fn set(&mut self, wire: Self) {
        *self = wire;
    }
}

impl Field for Map<String, Value> {
    type Wire = Option<Self>;

    fn set(&mut self, wire: Self::Wire) {
        if let Some(members) = wire {
            *self = members;
        }
    }
}

impl Field for Vec<String> {
    type Wire = Option<Vec<Option<String>>>;

    fn set(&mut self, wire: Self::Wire) {
        *self = wire
            .unwrap_or_default()
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
    }
}

impl Field for BTreeMap<String, String> {
    type Wire = Option<BTreeMap<String, Option<String>>>;

    /// A repeated object adds to the first one, a `null` empties it.
    fn set(&mut self, wire: Self::Wire) {
        match wire {
            Some(entries) => self.extend(
                entries
                    .into_iter()
                    .map(|(name, value)| (name, value.unwrap_or_default())),
            ),
            None => self.clear(),
        }
    }
}

/// Finds the field of a name, in any case; an exact match first.
pub(super) struct FieldName(pub &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let exact = self.0.iter().find(|field| **field == name);
        Ok(exact
            .or_else(|| self.0.iter().find(|field| field.eq_ignore_ascii_case(name)))
            .copied())
    }
}

/// Reads the value of one field, naming the field in the error.
pub(super) fn read_field<'de, A: MapAccess<'de>, F: Field>(
    map: &mut A,
    name: &str,
    field: &mut F,
) -> Result<(), A::Error> {
    let wire = map
        .next_value::<F::Wire>()
        .map_err(|error| serde::de::Error::custom(format_args!("{name}: {error}")))?;
    field.set(wire);
    Ok(())
}

/// Declares a request body: names match in any case, unknown ones are ignored, the last of a repeated one wins, `null`
/// means absent.
macro_rules! request {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        struct $name {
            $($field: $ty),+
        }

        impl $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Body;

                impl<'de> serde::de::Visitor<'de> for Body {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_unit<E>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut out = $name::default();
                        while let Some(name) = map.next_key_seed($crate::gateway::json::FieldName($name::FIELDS))? {
                            match name {
                                $(Some(name) if name == stringify!($field) => {
                                    $crate::gateway::json::read_field(&mut map, name, &mut out.$field)?;
                                })+
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(out)
                    }
                }

                deserializer.deserialize_any(Body)
            }
        }
    };
}
pub(crate) use request;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    request! {
        struct Sample {
            prompt: String,
            count: i32,
            big: i64,
            flag: bool,
            tags: Vec<String>,
            labels: BTreeMap<String, String>,
            context: Option<Box<RawValue>>,
        }
    }

    fn check(json: &str, expected: &str) {
        let text = match read::<Sample>(json.as_bytes(), "invalid json") {
            Ok(s) => format!(
                "{} {} {} {} {:?} {:?} {}",
                s.prompt,
                s.count,
                s.big,
                s.flag,
                s.tags,
                s.labels,
                s.context.map_or_else(|| "-".to_owned(), |raw| raw.get().to_owned())
            ),
            Err(_) => "invalid".to_owned(),
        };
        assert_eq!(text, expected, "{json}");
    }

    /// docs/spec/http.md §3.
    #[test]
    fn bodies_are_read_with_tolerance() {
        check("{}", " 0 0 false [] {} -");
        check("null", " 0 0 false [] {} -");
        check(r#"{"PROMPT":"a","Count":2}"#, "a 2 0 false [] {} -");
        check(r#"{"prompt":"a","prompt":"b"}"#, "b 0 0 false [] {} -");
        check(r#"{"prompt":"a","prompt":null}"#, "a 0 0 false [] {} -");
        check(r#"{"prompt":"a"} trailing {"#, "a 0 0 false [] {} -");
        check(r#"{"other":[{"x":1e999}],"flag":true}"#, " 0 0 true [] {} -");
        check(
            r#"{"tags":["a",null],"labels":{"k":null}}"#,
            r#" 0 0 false ["a", ""] {"k": ""} -"#,
        );
        check(
            r#"{"context":{"n":12345678901234567890123}}"#,
            r#" 0 0 false [] {} {"n":12345678901234567890123}"#,
        );
        check(r#"{"context":null}"#, " 0 0 false [] {} -");
        for json in [
            "",
            "[]",
            "\"x\"",
            "{",
            r#"{"prompt":1}"#,
            r#"{"count":1.5}"#,
            r#"{"count":1e3}"#,
            r#"{"count":2147483648}"#,
            r#"{"big":9223372036854775808}"#,
            r#"{"flag":"true"}"#,
            r#"{"tags":"a"}"#,
            r#"{"labels":{"k":1}}"#,
            "{\"prompt\":\"\u{1}\"}",
        ] {
            check(json, "invalid");
        }
    }

    #[test]
    fn responses_are_safe_inside_html() {
        for (text, json) in [
            ("plain", "\"plain\""),
            ("<a>&", "\"\\u003ca\\u003e\\u0026\""),
            ("\u{2028}\u{2029}\u{2030}é", "\"\\u2028\\u2029\u{2030}é\""),
        ] {
            let encoded = escape_html(serde_json::to_vec(text).unwrap());
            assert_eq!(String::from_utf8(encoded).unwrap(), json);
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Sample>(&bytes, "invalid json");
        }

        #[test]
        fn reading_json_like_text_never_panics(text in r#"[{}\[\]",:a-z0-9\\ueE.+-]{0,80}"#) {
            let _ = read::<Sample>(text.as_bytes(), "invalid json");
        }

        #[test]
        fn escaping_keeps_the_value(text in "\\PC{0,40}[<>&\u{2028}]?\\PC{0,10}") {
            let encoded = escape_html(serde_json::to_vec(&text).unwrap());
            prop_assert_eq!(serde_json::from_slice::<String>(&encoded).unwrap(), text);
        }
    }
}
