//! docs/spec/expressions.md §8.

use serde_json::{Value, json};

use super::super::{Expr, Template};
use super::members;

fn scope() -> Value {
    json!({
        "input": {"foo": "bar", "arr": [1], "n": 1_000_000, "f": 0.5, "z": null, "big": 9_007_199_254_740_993_i64,
                  "brace": "}", "obj": {"k": "v"}},
    })
}

fn check(template: &Value, expected: &Value) {
    let compiled = Template::compile(template).unwrap_or_else(|errors| panic!("{template}: {errors:?}"));
    let value = compiled.eval(members(&scope()));
    assert_eq!(value.as_ref(), Ok(expected), "{template}");
}

#[test]
fn one_expression_keeps_its_type() {
    for (text, expected) in [
        ("${input.foo}", json!("bar")),
        (" ${input.arr} ", json!([1])),
        ("${ input.arr }", json!([1])),
        ("\n${input.obj}\t", json!({"k": "v"})),
        ("${input.x}", Value::Null),
        ("${input.n}", json!(1_000_000)),
        ("${input.big}", json!(9_007_199_254_740_993_i64)),
        ("${length(input.arr)}", json!(1)),
        ("${input.foo == 'bar'}", json!(true)),
        ("${'}'}", json!("}")),
        ("${input.brace == '}'}", json!(true)),
        ("${'${'}", json!("${")),
        ("${{'a': {'b': input.foo}}}", json!({"a": {"b": "bar"}})),
        ("${ {'a': 1} }", json!({"a": 1})),
    ] {
        check(&json!(text), &json!(expected));
    }
}

#[test]
fn expressions_stand_between_other_text() {
    for (text, expected) in [
        ("hello ${input.foo}", "hello bar"),
        ("m=${input.x}!", "m=!"),
        ("m=${input.z}!", "m=!"),
        ("${input.arr} ${input.foo}", "[1] bar"),
        ("${input.foo}${input.foo}", "barbar"),
        ("$${input.foo}", "$bar"),
        ("${input.foo}}", "bar}"),
        ("n=${input.n}", "n=1000000"),
        ("n=${input.big}", "n=9007199254740993"),
        ("f=${input.f}", "f=0.5"),
        ("inf=${inf} ${-inf} ${nan}", "inf=+Inf -Inf NaN"),
        ("o=${input.obj}", "o=map[k:v]"),
        ("j=${json(input.obj)}", "j={\"k\":\"v\"}"),
        ("it's ${input.foo}'s", "it's bar's"),
        (" a${'}'}b ", " a}b "),
        ("žluť ${input.foo} žluť", "žluť bar žluť"),
    ] {
        check(&json!(text), &json!(expected));
    }
}

#[test]
fn everything_else_is_left_alone() {
    for value in [
        json!(null),
        json!(5),
        json!(1.5),
        json!(true),
        json!("plain"),
        json!("$"),
        json!("{x}"),
        json!("$ {x}"),
        json!({"${input.foo}": "key"}),
        json!([1, {"a": []}]),
    ] {
        check(&value, &value);
        assert!(Template::compile(&value).expect("compiles").is_constant(), "{value}");
    }
    check(
        &json!({"foo": "${input.foo}", "msg": "hello ${input.foo}", "deep": [{"${k}": "${input.n}"}], "n": 1}),
        &json!({"foo": "bar", "msg": "hello bar", "deep": [{"${k}": 1_000_000}], "n": 1}),
    );
}

#[test]
fn results_are_not_evaluated_again() {
    let scope = json!({"input": {"evil": "${input.secret}", "secret": "s"}});
    for text in ["${input.evil}", "x ${input.evil}"] {
        let value = Template::text(text)
            .expect("compiles")
            .eval(members(&scope))
            .expect("a value");
        assert!(value.as_str().expect("text").ends_with("${input.secret}"), "{value}");
    }
}

#[test]
fn all_errors_are_found_with_their_places() {
    let template = json!({
        "empty": "${}", "blank": "a ${  } b", "open": "a ${input.foo", "quote": "${'a}", "a/b~c": ["ok", "x ${1 +} ${)}"],
    });
    let errors = Template::compile(&template).expect_err("bad");
    let mut found: Vec<_> = errors
        .iter()
        .map(|e| (e.pointer.as_str(), e.at, e.message.as_str()))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("/a~1b~0c/1", 7, "expected a value, found the end"),
            ("/a~1b~0c/1", 11, "expected a value, found `)`"),
            ("/blank", 4, "empty expression"),
            ("/empty", 2, "empty expression"),
            ("/open", 2, "unterminated template expression"),
            ("/quote", 2, "unterminated string"),
        ]
    );
    assert!(errors.iter().all(|error| error.to_string().contains(&error.message)));
}

#[test]
fn errors_of_evaluation_point_into_the_text() {
    let template = Template::text("sum: ${1 + input.foo}").expect("compiles");
    let error = template.eval(members(&scope())).expect_err("a type error");
    assert_eq!(error.at, 11, "{error}");
}

#[test]
fn texts() {
    for (text, expected) in [
        ("job.${input.foo}.x", "job.bar.x"),
        ("${input.n}", "1000000"),
        ("${input.x}", ""),
        ("plain", "plain"),
        ("${nan}", "NaN"),
    ] {
        let template = Template::text(text).expect("compiles");
        assert_eq!(template.eval_text(members(&scope())).as_deref(), Ok(expected), "{text}");
    }
    let number = Template::compile(&json!(5)).expect("compiles");
    assert_eq!(number.eval_text(members(&scope())).as_deref(), Ok("5"));
}

#[test]
fn conditions_may_be_written_as_templates() {
    for (text, expected) in [
        ("${input.foo == 'bar'}", json!(true)),
        (" ${ input.arr } ", json!([1])),
        ("input.foo", json!("bar")),
        ("${'}' + '${'}", json!("}${")),
    ] {
        let expr = Expr::parse_lenient(text).expect("parses");
        assert_eq!(expr.eval(members(&scope())), Ok(expected), "{text}");
    }
    assert_eq!(
        Expr::parse_lenient("${}").expect_err("empty").message,
        "empty expression"
    );
    assert_eq!(Expr::parse_lenient(" ${ 1 + } ").expect_err("bad").at, 8);
    assert!(Expr::parse_lenient("${a} ${b}").is_err());
    assert!(Expr::parse_lenient("x ${a}").is_err());
}

#[test]
fn paths_of_a_template() {
    let template =
        Template::compile(&json!({"a": "${steps.x.output} and ${steps.y[0].z}", "b": "${input.q}"})).expect("compiles");
    let paths: Vec<String> = template
        .paths()
        .iter()
        .map(|path| path.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
        .collect();
    assert_eq!(paths, ["steps.x.output", "steps.y.[0].z", "input.q"]);
}
