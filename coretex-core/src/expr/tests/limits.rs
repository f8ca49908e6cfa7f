//! docs/spec/expressions.md §9: no text makes the parser or the evaluator use much stack, time or memory.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Expr, MAX_DEPTH, MAX_PATTERNS, MAX_SOURCE, Scope, Segment, Template};
use super::{eval, failures, members, nothing, try_eval};

/// Runs on half of the stack that threads usually have.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(1024 * 1024)
        .spawn(work)
        .expect("a thread")
        .join()
        .expect("no panic");
}

fn nested(depth: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn nesting_is_bounded() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{'a': ", "}"),
            ("length(", ")"),
            ("!(-(1 + ", "))"),
            ("x[", "]"),
            ("[1].map(x, ", ")"),
            ("default(null, ", ")"),
            ("true ? ", " : 0"),
            ("(1 == 1 && 2 * ", " || 1 in [1])"),
            ("'a'.split(", ")"),
        ] {
            let levels = open.matches(['(', '[', '{', '?']).count().max(1);
            let fits = nested((MAX_DEPTH - 2) / levels, open, "1", close);
            let expr = Expr::parse(&fits).unwrap_or_else(|error| panic!("{fits}: {error}"));
            let _ = expr.eval(members(&nothing()));
            for depth in [MAX_DEPTH, 2_000] {
                let error = Expr::parse(&nested(depth, open, "1", close)).expect_err(open);
                assert!(
                    error.message.contains("nested deeper than 64 levels"),
                    "{open}: {error}"
                );
            }
            assert!(Expr::parse(&open.repeat(2_000)).is_err(), "{open}");
        }
    });
}

#[test]
fn long_chains_do_not_recurse() {
    on_a_small_stack(|| {
        let scope = json!({"x": 1, "list": [1]});
        for (first, more, expected) in [
            ("1", " + 1", json!(10_001)),
            ("1", " * 1", json!(1)),
            ("0", " - 1", json!(-10_000)),
            ("x", " && x", json!(true)),
            ("0", " || 0", json!(false)),
            ("x", ".y", Value::Null),
            ("x", "[0]", Value::Null),
            ("list", " + []", json!([1])),
            ("''", " + ''", json!("")),
            ("", "!", Value::Null),
            ("", "-", Value::Null),
            ("0", " ? 1 : 0", json!(0)),
        ] {
            let text = match first {
                "" => format!("{}x", more.repeat(10_000)),
                first => format!("{first}{}", more.repeat(if more.len() > 6 { 6_000 } else { 10_000 })),
            };
            let expected = match more {
                "!" => json!(true),
                "-" => json!(1),
                _ => expected,
            };
            assert_eq!(eval(&text, &scope), expected, "{more}");
        }
        let calls = format!("'a'{}", ".trim()".repeat(9_000));
        assert_eq!(eval(&calls, &scope), json!("a"));
        let list = format!("[{}]", "1,".repeat(30_000));
        assert_eq!(eval(&list, &scope).as_array().map(Vec::len), Some(30_000));
    });
}

#[test]
fn sources_are_bounded() {
    let text = " ".repeat(MAX_SOURCE) + "1";
    assert!(
        Expr::parse(&text)
            .expect_err("long")
            .message
            .contains("longer than 65536 bytes")
    );
    assert!(Expr::parse(&format!("'{}'", "x".repeat(MAX_SOURCE - 2))).is_ok());
    let patterns = vec!["x.matches('a')"; MAX_PATTERNS + 1].join(" || ");
    assert!(
        Expr::parse(&patterns)
            .expect_err("many")
            .message
            .contains("more than 16 patterns")
    );
    let error = Expr::parse("x.matches('((\\\\w{100}){100}){100}')").expect_err("large");
    assert!(error.message.contains("too large"), "{error}");
    assert!(Expr::parse(&format!("x.matches('{}')", nested(1000, "(", "", ")"))).is_err());
}

#[test]
fn work_is_bounded() {
    let scope = json!({"text": "x".repeat(100_000), "list": (0..2_000).collect::<Vec<_>>()});
    failures(
        &scope,
        &[
            ("list.map(a, list.map(b, a * b))", "takes more than 250000 steps"),
            (
                "list.exists(a, list.exists(b, a + b < 0))",
                "takes more than 250000 steps",
            ),
            ("list.map(a, text + text).size()", "takes more than 250000 steps"),
            ("range(1000000000)", "takes more than 250000 steps"),
            ("text.replace('', text)", "takes more than 250000 steps"),
            ("range(5000).map(a, text).join()", "takes more than 250000 steps"),
            (
                "list.map(a, ('a{' + string(a) + '}').matches('b' + string(a)))",
                "takes more than 250000 steps",
            ),
            ("range(100000).map(a, text == text)", "takes more than 250000 steps"),
            ("range(4000).map(a, list)", "result is too large"),
            ("list.map(a, text)", "result is too large"),
            ("json(list.map(a, text))", "result is too large"),
        ],
    );
    // What reading a large list takes is nowhere near.
    assert_eq!(
        eval("list.map(x, x + 1).filter(x, x % 2 == 0).size()", &scope),
        json!(1000)
    );
    // A long chain costs what its result is long.
    let chain = format!("''{}", " + 'abc'".repeat(8_000));
    assert_eq!(eval(&chain, &scope).as_str().map(str::len), Some(24_000));
}

#[test]
fn doubling_by_nesting_is_bounded() {
    let text = nested(60, "[1, 2].map(x, ", "x", ")");
    assert!(
        try_eval(&text, &nothing())
            .expect_err("too much")
            .message
            .contains("steps")
    );
    // Shared lists are counted as often as they would be written.
    let text = format!("{}[1]{}", "[".repeat(20), "].map(x, x + x)".repeat(20));
    let _ = try_eval(&text, &nothing());
}

#[test]
fn results_are_not_nested_without_end() {
    let mut deep = json!(1);
    for _ in 0..119 {
        deep = json!([deep]);
    }
    let scope = json!({"deep": deep});
    assert_eq!(eval("deep", &scope), scope["deep"]);
    assert!(
        try_eval("[[deep]]", &scope)
            .expect_err("deep")
            .message
            .contains("nested deeper than 120 levels")
    );
    assert!(try_eval("[[[deep]]] == 1", &scope).is_err());
    assert!(try_eval("same([[[deep]]], [[[deep]]])", &scope).is_err());
    assert!(Template::compile(&json!([[scope["deep"]]])).is_err());
}

#[test]
fn templates_are_one_result() {
    let scope = json!({"text": "x".repeat(1_000_000)});
    for template in [
        json!(vec!["${text}"; 17]),
        json!("${text}".repeat(17)),
        json!(vec!["a ${text}"; 17]),
    ] {
        let error = Template::compile(&template)
            .expect("compiles")
            .eval(members(&scope))
            .expect_err("large");
        assert!(error.message.contains("result is too large"), "{error}");
    }
    let fits = Template::compile(&json!(vec!["${text}"; 16])).expect("compiles");
    assert!(fits.eval(members(&scope)).is_ok());
}

/// A scope that makes its values, as one that reads records from a store does.
struct Made;

impl Scope for Made {
    fn resolve<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        match path {
            [Segment::Key(root), Segment::Key(id), ..] if &**root == "steps" => Some((
                Cow::Owned(json!({"output": {"id": &**id, "list": [1, 2, 3], "fan[0]": 4}})),
                2,
            )),
            [Segment::Key(root), ..] if &**root == "big" => Some((Cow::Owned(json!(vec![0; 5_000])), 1)),
            _ => None,
        }
    }
}

#[test]
fn scopes_may_make_values() {
    for (text, expected) in [
        ("steps.a.output.id", json!("a")),
        ("steps.a.output.id + 'b'", json!("ab")),
        ("steps.a.output.list.map(x, x * 2)", json!([2, 4, 6])),
        ("steps.a.output.fan[0] + 1", json!(5)),
        ("steps['b'].output", json!({"id": "b", "list": [1, 2, 3], "fan[0]": 4})),
        ("steps.a.missing", Value::Null),
        ("steps", Value::Null),
        ("has(steps.a.output.list[2])", json!(true)),
        ("has(steps.a.output.list[3])", json!(false)),
    ] {
        let expr = Expr::parse(text).expect("parses");
        assert_eq!(expr.eval(&Made), Ok(expected), "{text}");
    }
    // Making them is counted.
    let expr = Expr::parse("range(1000).map(x, big[x])").expect("parses");
    assert!(expr.eval(&Made).is_ok());
    let expr = Expr::parse("range(1000).map(x, big.size())").expect("parses");
    assert!(expr.eval(&Made).expect_err("too much").message.contains("steps"));
}

/// Texts that are nearly expressions.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "input.x",
        ".b",
        "[0]",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "'s'",
        "'",
        "\"",
        "1",
        "1.5",
        "0x1p4",
        "inf",
        "-",
        "+",
        "*",
        "/",
        "%",
        "!",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "?",
        ":",
        ",",
        ".",
        " in ",
        "null",
        "true",
        "has(",
        "size(",
        ".map(x, ",
        ".filter(x,",
        "x",
        ".matches('a')",
        "default(",
        "timestamp(",
        "duration('1s')",
        " ",
        "\n",
        "ž",
        "${",
        "e9",
        "_",
        "$",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), nearly()]) {
        let scope = json!({"a": [1, {"b": null}], "input": {"x": "text", "y": 5}, "x": 1.5});
        match Expr::parse(&text) {
            Ok(expr) => {
                let value = expr.eval(members(&scope));
                prop_assert_eq!(&value, &expr.eval(members(&scope)));
                if let Err(error) = value {
                    prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at) && !error.message.is_empty());
                }
                // What was accepted is accepted in a template, and means the same.
                if let Ok(value) = expr.eval(members(&scope)) {
                    let whole = Template::text(&format!("${{{text}}}")).expect("a template");
                    prop_assert_eq!(whole.eval(members(&scope)), Ok(value));
                }
            }
            Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at) && !error.message.is_empty()),
        }
        if let Ok(template) = Template::text(&text) {
            let _ = template.eval(members(&scope));
            let _ = template.eval_text(members(&scope));
        }
        let _ = Expr::parse_lenient(&text);
    }
}
