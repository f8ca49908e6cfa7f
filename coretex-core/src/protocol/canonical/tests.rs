use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check(json: &str, doubles: &str, exact: &str) {
    let value: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(text(&value, Numbers::Doubles), doubles, "{json}");
    assert_eq!(text(&value, Numbers::Exact), exact, "{json}");
}

#[track_caller]
fn same(json: &str, expected: &str) {
    check(json, expected, expected);
}

/// docs/spec/protocol.md §11.
#[test]
fn numbers_have_one_spelling() {
    for (json, expected) in [
        ("0", "0"),
        ("1", "1"),
        ("-1", "-1"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-0.0", "-0"),
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("123.456", "123.456"),
        ("1e20", "100000000000000000000"),
        ("123456789012345680000.0", "123456789012345680000"),
        ("999999999999999900000.0", "999999999999999900000"),
        ("1e21", "1e+21"),
        ("1.5e22", "1.5e+22"),
        ("-1e21", "-1e+21"),
        ("1e100", "1e+100"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("0.000001", "0.000001"),
        ("0.0000015", "0.0000015"),
        ("9.9e-7", "9.9e-7"),
        ("0.00000015", "1.5e-7"),
        ("1e-7", "1e-7"),
        ("-1e-7", "-1e-7"),
        ("1e-10", "1e-10"),
        ("5e-324", "5e-324"),
        // Too long for an integer of 64 bits.
        ("123456789012345678901234567890", "1.2345678901234568e+29"),
    ] {
        same(json, expected);
    }
    check("9007199254740993", "9007199254740992", "9007199254740993");
    check("-9007199254740993", "-9007199254740992", "-9007199254740993");
    check("18446744073709551615", "18446744073709552000", "18446744073709551615");
    check("-9223372036854775808", "-9223372036854776000", "-9223372036854775808");
    // An integer that is minus nothing has no sign, one that is a float has.
    same("[-0.0, 0]", "[-0,0]");
}

/// docs/spec/protocol.md §11.
#[test]
fn texts_have_one_spelling() {
    for (json, expected) in [
        (r#""""#, r#""""#),
        (r#""a/b""#, r#""a/b""#),
        (r#""\u0041\/""#, r#""A/""#),
        (r#""\"\\""#, r#""\"\\""#),
        (r#""\b\f\n\r\t""#, r#""\b\f\n\r\t""#),
        (r#""\u0000\u001F\u000b""#, r#""\u0000\u001f\u000b""#),
        (r#""<a href='x'>&""#, r#""\u003ca href='x'\u003e\u0026""#),
        (r#""\u2028\u2029\u202a""#, "\"\\u2028\\u2029\u{202a}\""),
        (r#""\u007f\u00e9\ud83d\ude00""#, "\"\u{7f}é😀\""),
    ] {
        same(json, expected);
    }
}

/// docs/spec/protocol.md §11.
#[test]
fn members_are_sorted_by_bytes_at_every_level() {
    for (json, expected) in [
        ("null", "null"),
        ("[true, false, null, [], {}]", "[true,false,null,[],{}]"),
        (
            r#"{ "b": [ {"z": 1, "a": 2} ], "a": {"d": 1, "c": {"f": 1, "e": 2}} }"#,
            r#"{"a":{"c":{"e":2,"f":1},"d":1},"b":[{"a":2,"z":1}]}"#,
        ),
        (
            r#"{"a":1,"B":2,"":3,"aa":4,"<":5}"#,
            "{\"\":3,\"\\u003c\":5,\"B\":2,\"a\":1,\"aa\":4}",
        ),
        // By bytes of UTF-8, not by code units of UTF-16.
        ("{\"\u{1f600}\":1,\"\u{ffee}\":2}", "{\"\u{ffee}\":2,\"\u{1f600}\":1}"),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
    ] {
        same(json, expected);
    }
}

/// docs/spec/protocol.md §11.
#[test]
fn hashes_are_those_that_are_stored_already() {
    for (value, expected) in [
        (
            json!({}),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        ),
        (
            json!({"timeout": 30, "model": "gpt-4"}),
            "6580e236b6839749af457feb0d8c9a19a497084b38b054e506be39329f5dde07",
        ),
    ] {
        assert_eq!(hash(&value, Numbers::Doubles), expected);
    }
}

/// Any value, with numbers that a careless writer would spell in several ways.
pub(crate) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |f| f.is_finite())
            .prop_map(Value::from),
        (-1_000_000..1_000_000_i32).prop_map(|n| Value::from(f64::from(n))),
        "\\PC{0,12}[\u{0}-\u{1f}<>&\"\\\\\u{2028}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// As every reader of doubles sees it.
fn as_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(items) => items.iter().map(as_doubles).collect(),
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), as_doubles(v))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_text_means_the_value(value in values()) {
        let read: Value = serde_json::from_str(&text(&value, Numbers::Doubles)).expect("JSON");
        prop_assert_eq!(as_doubles(&read), as_doubles(&value));
    }

    #[test]
    fn it_is_its_own_canonical_text(value in values()) {
        for numbers in [Numbers::Doubles, Numbers::Exact] {
            let once = text(&value, numbers);
            let read: Value = serde_json::from_str(&once).expect("JSON");
            prop_assert_eq!(text(&read, numbers), once);
        }
    }

    #[test]
    fn integers_are_exact_when_asked(n in any::<i64>(), m in any::<u64>()) {
        prop_assert_eq!(text(&json!([n, m]), Numbers::Exact), format!("[{n},{m}]"));
    }

    #[test]
    fn nothing_in_it_ends_a_script(value in values()) {
        let text = text(&value, Numbers::Doubles);
        let harmful = |c: char| c < ' ' || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        prop_assert!(!text.contains(harmful), "{}", text);
    }
}
