//! The rows of docs/spec/expressions.md that carry over from the language before: their values and types do not change.

use serde_json::{Value, json};

use super::super::{Expr, display, truthy};
use super::{eval, nothing, table};

/// §2.1
#[test]
fn conformance() {
    let scope = json!({"foo": {"bar": 10}, "arr": [1, 2, 3], "env": {"tier": "prod"}});
    table(
        &scope,
        &[
            ("foo.bar == 10", json!(true)),
            ("foo.bar > 5", json!(true)),
            ("foo.bar < 5", json!(false)),
            ("!false", json!(true)),
            ("length(arr)", json!(3)),
            ("first(arr)", json!(1)),
            ("env.tier == 'prod'", json!(true)),
        ],
    );
}

/// §2.1
#[test]
fn nothing_is_an_error() {
    for text in ["", " ", "\n\t"] {
        let error = Expr::parse(text).expect_err("empty");
        assert_eq!(error.message, "empty expression");
        assert_eq!(error.to_string(), "empty expression");
    }
}

/// §2.1
#[test]
fn negation_is_of_the_whole_comparison() {
    let scope = json!({"a": 1, "b": 2});
    table(
        &scope,
        &[
            ("!a == b", json!(true)),
            ("!a == a", json!(false)),
            ("! a == b", json!(true)),
            ("!!a", json!(true)),
            ("!!!a", json!(false)),
            ("!missing", json!(true)),
            ("!''", json!(true)),
            ("!'false'", json!(false)),
            ("a == !b", json!(false)),
            ("!nan", json!(false)),
        ],
    );
}

/// §3.2
#[test]
fn literals() {
    table(
        &nothing(),
        &[
            ("true", json!(true)),
            ("false", json!(false)),
            ("True", Value::Null),
            ("null", Value::Null),
            ("'text'", json!("text")),
            ("\"text\"", json!("text")),
            ("''", json!("")),
            ("'''a'''", json!("a")),
            ("\"\"\"a\"\"\"", json!("a")),
            ("''''", json!("")),
            ("'\"'", json!("\"")),
            ("\"'a'\"", json!("'a'")),
            ("'a\\n'", json!("a\\n")),
            ("' a '", json!(" a ")),
            ("'a==b'", json!("a==b")),
            ("0", json!(0)),
            ("42", json!(42)),
            ("-42", json!(-42)),
            ("+5", json!(5)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("-.5", json!(-0.5)),
            ("5.", json!(5)),
            ("1e3", json!(1000)),
            ("1E+3", json!(1000)),
            ("5.e-1", json!(0.5)),
            ("1_000", json!(1000)),
            ("1_0.2_5", json!(10.25)),
            ("0x1p4", json!(16)),
            ("0X1.8P1", json!(3)),
            ("0x_1p-1", json!(0.5)),
            ("-0x.8p0", json!(-0.5)),
            ("_1", Value::Null),
        ],
    );
    // What is no number is not one in a string either.
    for text in ["0x10", "_1", "1_", "1__0", "1e999", "1 ", "1e", "", "-", "0x", "."] {
        assert_eq!(eval(&format!("0 == '{text}'"), &nothing()), json!(true), "{text}");
    }
    for (text, number) in [("1_000", "1000"), ("0x1p4", "16"), ("+.5e1", "5"), ("-2.", "-2")] {
        assert_eq!(
            eval(&format!("{number} == '{text}'"), &nothing()),
            json!(true),
            "{text}"
        );
    }
}

/// §3.1
#[test]
fn infinities() {
    table(
        &nothing(),
        &[
            ("inf > 5", json!(true)),
            ("-inf < 5", json!(true)),
            ("+Infinity == INF", json!(true)),
            ("nan == nan", json!(false)),
            ("nan != nan", json!(true)),
            ("NaN < 1", json!(false)),
            ("5 < 'inf'", json!(true)),
        ],
    );
    for text in ["inf", "-inf", "nan"] {
        let error = Expr::parse(text)
            .map(|expr| expr.eval(super::members(&nothing())))
            .expect("parses")
            .expect_err("not JSON");
        assert!(error.message.contains("not a value a result can have"), "{error}");
    }
    assert!(
        Expr::parse("nan")
            .expect("parses")
            .test(super::members(&nothing()))
            .expect("a truth")
    );
}

/// §3.3
#[test]
fn paths() {
    let scope = json!({
        "input": {"a": {"b": 1}, "list": [10, 20], "text": "x", "my-key": 5, "0": "zero", "in": 1, "true": 2, "$ref": 3},
        "steps": {"fan[0]": {"output": "first"}, "fetch-data": {"output": 7}, "plain": {"output": [1, {"k": "v"}]}, "2-b": 9},
        "item[0]": "literal root",
    });
    table(
        &scope,
        &[
            ("input.a.b", json!(1)),
            (" input.a.b ", json!(1)),
            ("input.a", json!({"b": 1})),
            ("input.missing", Value::Null),
            ("input.missing.deeper", Value::Null),
            ("input.text.deeper", Value::Null),
            ("input.list.0", Value::Null),
            ("input.0", json!("zero")),
            ("input.in", json!(1)),
            ("input.true", json!(2)),
            ("input.$ref", json!(3)),
            ("input.my-key", json!(5)),
            ("input.my-key == 5", json!(true)),
            ("unknown", Value::Null),
            ("unknown.key", Value::Null),
            ("steps.fan[0].output", json!("first")),
            ("steps.fetch-data.output", json!(7)),
            ("steps.2-b", json!(9)),
            ("item[0]", json!("literal root")),
        ],
    );
}

/// §4
#[test]
fn comparison() {
    table(
        &json!({"arr": [1, "x"], "same": [1, "x"], "obj": {"k": 1}, "big": 9_007_199_254_740_993_i64, "nul": null}),
        &[
            ("0 == null", json!(true)),
            ("null == 0", json!(false)),
            ("0 == 'abc'", json!(true)),
            ("0 == true", json!(true)),
            ("0 == arr", json!(true)),
            ("1 == true", json!(false)),
            ("'5' == 5", json!(true)),
            ("5 == '5'", json!(true)),
            ("'5' > 3", json!(false)),
            ("9 > '5'", json!(true)),
            ("true == 'true'", json!(true)),
            ("'true' == true", json!(true)),
            ("null == null", json!(true)),
            ("nul == missing", json!(true)),
            ("null == ''", json!(false)),
            ("null == '<nil>'", json!(true)),
            ("null != 'x'", json!(true)),
            ("'10' < '9'", json!(true)),
            ("'b' >= 'a'", json!(true)),
            ("'a' <= 'a'", json!(true)),
            ("'a' > 'B'", json!(true)),
            ("arr == same", json!(true)),
            ("arr == '[1 x]'", json!(true)),
            ("obj == 'map[k:1]'", json!(true)),
            ("obj != arr", json!(true)),
            ("obj < arr", json!(false)),
            ("true > false", json!(false)),
            ("true >= true", json!(false)),
            ("null <= null", json!(false)),
            ("null < 1", json!(false)),
            ("1 > null", json!(true)),
            ("1 != 1.0", json!(false)),
            ("big == 9007199254740992", json!(false)),
            ("big > 9007199254740992", json!(true)),
            ("big == '9007199254740993'", json!(true)),
            ("length(arr) == 2", json!(true)),
            ("first(arr) == 1", json!(true)),
        ],
    );
}

/// §5
#[test]
fn truth() {
    for value in [json!(null), json!(false), json!(""), json!(0), json!(0.0), json!(-0.0)] {
        assert!(!truthy(&value), "{value}");
    }
    for value in [
        json!(true),
        json!("false"),
        json!(" "),
        json!(1),
        json!(-0.5),
        json!([]),
        json!({}),
        json!(u64::MAX),
    ] {
        assert!(truthy(&value), "{value}");
    }
}

/// §6
#[test]
fn display_texts() {
    for (value, expected) in [
        (json!(null), ""),
        (json!(true), "true"),
        (json!("text"), "text"),
        (json!(3), "3"),
        (json!(3.0), "3"),
        (json!(-2_500_000), "-2500000"),
        (json!(999_999), "999999"),
        (json!(123_456.7), "123456.7"),
        (json!(1_000_000), "1000000"),
        (json!(1e6), "1000000"),
        (json!(1_234_567.0), "1234567"),
        (json!(0.1), "0.1"),
        (json!(0.0001), "0.0001"),
        (json!(0.00001), "0.00001"),
        (json!(1e21), "1000000000000000000000"),
        (json!(i64::MIN), "-9223372036854775808"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!([1, "x", {"k": 1}]), "[1 x map[k:1]]"),
        (json!({"z": 1, "a": [1, null]}), "map[a:[1 <nil>] z:1]"),
        (json!([]), "[]"),
        (json!({}), "map[]"),
    ] {
        assert_eq!(display(&value), expected, "{value}");
    }
}

/// §7
#[test]
fn length_and_first() {
    table(
        &json!({"list": [1, 2], "text": "žluť", "obj": {"a": 1}, "n": 5, "empty": []}),
        &[
            ("length(list)", json!(2)),
            ("length( list )", json!(2)),
            ("length(text)", json!(6)),
            ("length('')", json!(0)),
            ("length(obj)", json!(1)),
            ("length(n)", json!(0)),
            ("length(missing)", json!(0)),
            ("length(true)", json!(0)),
            ("first(list)", json!(1)),
            ("first(empty)", Value::Null),
            ("first(text)", Value::Null),
            ("first(obj)", Value::Null),
            ("first(missing)", Value::Null),
            ("length(first(list))", json!(0)),
            ("length(list == list)", json!(0)),
        ],
    );
}
