//! References to secrets, which must not travel in payloads or show up in answers. See `docs/spec/protocol.md` §7.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value;

/// What such a reference begins with.
pub const SCHEME: &str = "secret://";
/// What is shown in its place.
pub const REDACTED: &str = "<redacted>";

/// Whether a text is a reference to a secret.
pub fn is_reference(text: &str) -> bool {
    text.trim_start().starts_with(SCHEME)
}

/// Whether there is a reference among the values, at any depth. Names of members do not count.
pub fn contains(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(contains),
        Value::Object(members) => members.values().any(contains),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Replaces the references among the values, at any depth; whether there were any.
pub fn redact(value: &mut Value) -> bool {
    match value {
        Value::String(text) if is_reference(text) => {
            REDACTED.clone_into(text);
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |any, item| redact(item) | any),
        Value::Object(members) => members.values_mut().fold(false, |any, item| redact(item) | any),
        _ => false,
    }
}

/// Whether there is a reference among the values of a JSON text; there is none in an empty text.
///
/// # Errors
/// The text is not JSON.
pub fn contains_json(text: &[u8]) -> Result<bool, serde_json::Error> {
    Ok(matches!(redact_json(text)?, Cow::Owned(_)))
}

/// Replaces the references among the values of a JSON text, and nothing else: numbers, the order of members and white space
/// stay as they are. An empty text is left alone.
///
/// # Errors
/// The text is not JSON.
pub fn redact_json(text: &[u8]) -> Result<Cow<'_, [u8]>, serde_json::Error> {
    if text.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_slice::<IgnoredAny>(text)?;
    let mut out = Vec::new();
    let mut done = 0;
    let mut at = 0;
    // The text is JSON, so quotes stand only around strings.
    while let Some(start) = find(text, at, b"\"") {
        let end = string_end(text, start);
        at = end;
        let is_name = text
            .get(end..)
            .is_some_and(|rest| rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':'));
        let literal = text.get(start..end).unwrap_or_default();
        if !is_name && is_literal_reference(literal) {
            out.extend_from_slice(text.get(done..start).unwrap_or_default());
            out.push(b'"');
            out.extend_from_slice(REDACTED.as_bytes());
            out.push(b'"');
            done = end;
        }
    }
    if done == 0 {
        return Ok(Cow::Borrowed(text));
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    Ok(Cow::Owned(out))
}

/// Whether a string with its quotes is a reference, escapes resolved.
fn is_literal_reference(literal: &[u8]) -> bool {
    match literal {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => std::str::from_utf8(inner).is_ok_and(is_reference),
        _ => serde_json::from_slice::<String>(literal).is_ok_and(|text| is_reference(&text)),
    }
}

/// Where the first of these bytes is, at or after a place.
fn find(text: &[u8], from: usize, bytes: &[u8]) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.iter().position(|byte| bytes.contains(byte)).map(|at| from + at)
}

/// The place after the string that begins at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(special) = find(text, at, b"\"\\") {
        if text.get(special) == Some(&b'"') {
            return special + 1;
        }
        at = special + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redacted(text: &str) -> String {
        String::from_utf8(redact_json(text.as_bytes()).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn references_are_replaced_and_nothing_else() {
        for (text, want) in [
            (
                r#"{"z":"secret://a","a":9007199254740993}"#,
                r#"{"z":"<redacted>","a":9007199254740993}"#,
            ),
            (r#"[ "  secret://a" , 1.50, "x" ]"#, r#"[ "<redacted>" , 1.50, "x" ]"#),
            (r#""secret://""#, r#""<redacted>""#),
            (
                r#"{"secret://key" : "secret:\/\/a"}"#,
                r#"{"secret://key" : "<redacted>"}"#,
            ),
            (
                r#"["\u0073ecret://a","\n\tsecret://b","a\"secret://c"]"#,
                r#"["<redacted>","<redacted>","a\"secret://c"]"#,
            ),
            (
                r#"{"a":{"b":["secret://x","secret://y"]}}"#,
                r#"{"a":{"b":["<redacted>","<redacted>"]}}"#,
            ),
        ] {
            assert_eq!(redacted(text), want);
            assert!(contains_json(text.as_bytes()).unwrap());
        }
        for text in [
            "",
            "1",
            "null",
            r#"{"a":"see secret://x"}"#,
            r#"{"secret://k":1}"#,
            r#"["SECRET://x", "secret:/x"]"#,
        ] {
            assert_eq!(redacted(text), text);
            assert!(!contains_json(text.as_bytes()).unwrap());
        }
        for text in [
            "{",
            "secret://a",
            "{\"a\":\"secret://a\"} x",
            "\"secret://",
            "\u{feff}{}",
        ] {
            assert!(redact_json(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
            "[ \"\\\\\n]{0,2}secret://[\"\\\\a]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("(secret://)?.{0,3}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The walk over the text and the walk over the values agree.
        #[test]
        fn text_and_values_agree(value in any_json()) {
            let text = serde_json::to_vec_pretty(&value).unwrap();
            let by_text: Value = serde_json::from_slice(&redact_json(&text).unwrap()).unwrap();
            let mut by_value = value.clone();
            prop_assert_eq!(redact(&mut by_value), contains(&value));
            prop_assert_eq!(contains_json(&text).unwrap(), contains(&value));
            prop_assert_eq!(by_text, by_value);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = redact_json(&bytes);
        }
    }

    #[test]
    fn values() {
        let mut value = json!({"a": ["secret://x", 1], "b": "x"});
        assert!(contains(&value));
        assert!(redact(&mut value));
        assert_eq!(value, json!({"a": [REDACTED, 1], "b": "x"}));
        assert!(!redact(&mut value));
    }
}
