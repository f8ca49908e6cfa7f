//! What goes beyond the language before (docs/spec/expressions.md §2–§7).

use serde_json::{Value, json};

use super::super::Expr;
use super::{eval, failures, nothing, refusals, table};

fn scope() -> Value {
    json!({
        "input": {
            "n": 7, "f": 2.5, "t": true, "s": "Hello", "z": null, "list": [3, 1, 2], "words": ["b", "a"], "obj": {"k": "v", "n": 1},
            "files": [{"name": "a.rs", "size": 10}, {"name": "b.md", "size": 2000}, {"name": "c.rs", "size": 300}],
            "when": "2026-11-22T10:30:15.25Z", "big": i64::MAX, "huge": u64::MAX, "odd key": 1, "nested": [[1, 2], [3]],
        },
        "index": 1,
        "steps": {"fan[0]": {"output": "x"}, "fan[1]": {"output": "y"}},
    })
}

/// §2
#[test]
fn logic_and_alternatives() {
    table(
        &scope(),
        &[
            ("true && false", json!(false)),
            ("input.n && input.s", json!(true)),
            ("input.z || input.n", json!(true)),
            ("false || false || true", json!(true)),
            ("true || false && false", json!(true)),
            ("(true || false) && false", json!(false)),
            ("!input.z && input.t", json!(true)),
            ("!input.n == 7 && true", json!(false)),
            ("!(input.n == 7) || true", json!(true)),
            ("false && 1 / 0", json!(false)),
            ("true || 1 / 0", json!(true)),
            ("input.n > 5 ? 'big' : 'small'", json!("big")),
            ("input.n > 9 ? 'big' : input.n > 6 ? 'mid' : 'small'", json!("mid")),
            ("true ? false ? 1 : 2 : 3", json!(2)),
            ("(1 == 1) == true", json!(true)),
            ("1 + 1 == 2 && 2 * 3 > 5", json!(true)),
        ],
    );
}

/// §3.4
#[test]
fn arithmetic() {
    table(
        &scope(),
        &[
            ("1 + 2 * 3", json!(7)),
            ("(1 + 2) * 3", json!(9)),
            ("10 - 2 - 3", json!(5)),
            ("1-1", json!(0)),
            ("input.n -1", json!(6)),
            ("input.list[0]-1", json!(2)),
            ("input.n - 1", json!(6)),
            ("7 / 2", json!(3)),
            ("-7 / 2", json!(-3)),
            ("-7 % 3", json!(-1)),
            ("7 / 2.0", json!(3.5)),
            ("1 + 0.5", json!(1.5)),
            ("2.5 * 2", json!(5.0)),
            ("-input.n", json!(-7)),
            ("--input.n", json!(7)),
            ("-(1 + 2)", json!(-3)),
            ("input.big + 1", json!(9_223_372_036_854_775_808_u64)),
            ("input.huge - input.big", json!(9_223_372_036_854_775_808_u64)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("9007199254740993 + 0", json!(9_007_199_254_740_993_i64)),
            ("0x10 + 1", json!(17)),
            ("'a' + 'b' + \"c\"", json!("abc")),
            ("[1] + [2, 3]", json!([1, 2, 3])),
            ("input.list + [4]", json!([3, 1, 2, 4])),
        ],
    );
    failures(
        &scope(),
        &[
            ("1 / 0", "division by zero"),
            ("1 % 0", "division by zero"),
            ("input.huge + 1", "integer overflow"),
            ("input.big * input.big", "integer overflow"),
            ("-input.huge", "integer overflow"),
            ("1.0 / 0", "+Inf is not a value a result can have"),
            ("'5' + 1", "cannot apply `+` to string and int; convert with"),
            (
                "input.z + 1",
                "cannot apply `+` to null and int; default(x, y) replaces null",
            ),
            ("-'a'", "cannot apply `-` to string"),
            ("[1] - [1]", "cannot apply `-` to list and list"),
            ("true + 1", "cannot apply `+` to bool and int"),
        ],
    );
}

/// §3.3
#[test]
fn access() {
    table(
        &scope(),
        &[
            ("input.list[0]", json!(3)),
            ("input.list[index]", json!(1)),
            ("input.list[index + 1]", json!(2)),
            ("input.list[1.0]", json!(1)),
            ("input.list[-1]", Value::Null),
            ("input.list[99]", Value::Null),
            ("input.list[input.z]", Value::Null),
            ("input['odd key']", json!(1)),
            ("input[\"obj\"].k", json!("v")),
            ("input['o' + 'bj']['k']", json!("v")),
            ("input.files[1].name", json!("b.md")),
            ("input.z[0].x", Value::Null),
            ("steps.fan[index].output", json!("y")),
            ("steps.fan[1 - 1].output", json!("x")),
            ("steps['fan[1]'].output", json!("y")),
            ("[1, [2, 3]][1][0]", json!(2)),
            ("{'a': {'b[0]': 5}}.a.b[0]", json!(5)),
            ("{'a': 1}['a']", json!(1)),
            ("{'a': 1}.b.c", Value::Null),
            ("{}", json!({})),
            ("[]", json!([])),
            ("[1, 2,]", json!([1, 2])),
            ("{'a': 1, 'b' + 'c': [2],}", json!({"a": 1, "bc": [2]})),
            ("input . obj\n  . k", json!("v")),
            ("(input.obj).k", json!("v")),
            ("has(input.z)", json!(true)),
            ("has(input.missing)", json!(false)),
            ("has(input.s.x)", json!(false)),
            ("has(unknown)", json!(false)),
            ("has(input.list[2])", json!(true)),
            ("has(input.list[3])", json!(false)),
            ("has(input.list[index])", json!(true)),
            ("null.x", Value::Null),
        ],
    );
    failures(
        &scope(),
        &[
            ("input.list[1.5]", "an index must be a whole number"),
            ("input.list[true]", "an index must be a number or a string, got bool"),
            ("{1: 2}", "a map's key must be a string, got int"),
        ],
    );
}

/// §4
#[test]
fn membership_and_sameness() {
    table(
        &scope(),
        &[
            ("3 in input.list", json!(true)),
            ("3.0 in input.list", json!(true)),
            ("'3' in input.list", json!(false)),
            ("0 in [null]", json!(false)),
            ("'k' in input.obj", json!(true)),
            ("'x' in input.obj", json!(false)),
            ("1 in input.obj", json!(false)),
            ("[1, 2] in input.nested", json!(true)),
            ("!3 in input.list", json!(false)),
            ("same(0, null)", json!(false)),
            ("same(1, 1.0)", json!(true)),
            ("same('1', 1)", json!(false)),
            ("same(input.obj, {'n': 1, 'k': 'v'})", json!(true)),
            ("same(input.obj, {'n': 1})", json!(false)),
            ("same([1, [2]], [1, [2]])", json!(true)),
            ("input.huge > input.big", json!(true)),
            ("input.big < 9223372036854775808.0", json!(true)),
            ("input.big == input.big + 0.0", json!(false)),
        ],
    );
    failures(
        &scope(),
        &[
            ("1 in input.z", "`in` needs a list or a map on its right, got null"),
            ("1 in 'a'", "got string"),
        ],
    );
}

/// §7.1
#[test]
fn macros() {
    table(
        &scope(),
        &[
            ("input.list.map(x, x * 2)", json!([6, 2, 4])),
            ("input.list.map(x, x > 1, x * 2)", json!([6, 4])),
            (
                "input.files.filter(f, f.name.endsWith('.rs')).map(f, f.size)",
                json!([10, 300]),
            ),
            ("input.list.exists(x, x == 2)", json!(true)),
            ("input.list.exists_one(x, x > 1)", json!(false)),
            ("input.list.all(x, x > 0)", json!(true)),
            ("[].all(x, false)", json!(true)),
            ("[].exists(x, true)", json!(false)),
            ("input.obj.map(k, k)", json!(["k", "n"])),
            ("input.obj.all(k, has(input.obj[k]))", json!(true)),
            ("input.nested.map(x, x.map(y, y + x[0]))", json!([[2, 3], [6]])),
            ("[1].map(x, [2].map(x, x))", json!([[2]])),
            ("[1].map(input, input)", json!([1])),
            ("input.list.map(x, x-1)", json!([2, 0, 1])),
            ("input.files.map(f, f.missing)", json!([null, null, null])),
            ("[{'a[0]': 1}].map(x, x.a[0])", json!([1])),
            ("[1, 2].map(x, has(x.y))", json!([false, false])),
        ],
    );
    failures(
        &scope(),
        &[
            (
                "input.z.map(x, x)",
                "map(): expected a list or a map, got null; default(x, []) replaces null",
            ),
            ("input.s.filter(x, x)", "filter(): expected a list or a map, got string"),
            ("input.list.map(x, x + 'a')", "cannot apply `+` to int and string"),
        ],
    );
    // The variable is not visible outside.
    assert_eq!(eval("[[1].map(x, x), [x]]", &nothing()), json!([[1], [null]]));
}

/// §7.2
#[test]
fn functions_of_strings() {
    table(
        &scope(),
        &[
            ("size('žluť')", json!(4)),
            ("input.s.size()", json!(5)),
            ("input.s.startsWith('He')", json!(true)),
            ("startsWith(input.s, 'he')", json!(false)),
            ("input.s.contains('ell')", json!(true)),
            ("input.list.contains(2)", json!(true)),
            ("input.s.matches('^H.*o$')", json!(true)),
            ("input.s.matches('l+')", json!(true)),
            ("'a1'.matches('^\\w\\d$')", json!(true)),
            ("input.s.matches('^' + 'H')", json!(true)),
            ("input.s.lower()", json!("hello")),
            ("upper('žluť')", json!("ŽLUŤ")),
            ("upperAscii('žluť')", json!("žLUť")),
            ("lowerAscii('ŽA')", json!("Ža")),
            ("' a '.trim()", json!("a")),
            ("'a,b,,c'.split(',')", json!(["a", "b", "", "c"])),
            ("'žl'.split('')", json!(["ž", "l"])),
            ("input.words.join('-')", json!("b-a")),
            ("[1, true, 'x', 1.5].join()", json!("1truex1.5")),
            ("'aXbX'.replace('X', '--')", json!("a--b--")),
            ("'ab'.replace('', '.')", json!(".a.b.")),
            ("'žluť'.substring(1, 3)", json!("lu")),
            ("'abc'.substring(1)", json!("bc")),
            ("'abc'.substring(5, 9)", json!("")),
            ("'žluť'.indexOf('u')", json!(2)),
            ("'abc'.indexOf('x')", json!(-1)),
        ],
    );
    failures(
        &scope(),
        &[
            (
                "lower(input.z)",
                "lower(): expected a string, got null; default(x, y) replaces null",
            ),
            ("input.n.startsWith('a')", "startsWith(): expected a string, got int"),
            ("matches('a', input.s + '(')", "matches(): bad pattern: unclosed group"),
            (
                "[[1]].join()",
                "join(): expected a list of strings, numbers or booleans, got list",
            ),
            ("'abc'.substring(-1)", "substring(): an index must not be negative"),
        ],
    );
}

/// §7.3
#[test]
fn functions_of_lists() {
    table(
        &scope(),
        &[
            ("size(input.list)", json!(3)),
            ("input.obj.size()", json!(2)),
            ("last(input.list)", json!(2)),
            ("last([])", Value::Null),
            ("input.list.first()", json!(3)),
            ("keys(input.obj)", json!(["k", "n"])),
            ("values(input.obj)", json!(["v", 1])),
            ("range(3)", json!([0, 1, 2])),
            ("reverse(input.list)", json!([2, 1, 3])),
            ("sort(input.list)", json!([1, 2, 3])),
            ("sort([2, 1.5, -1])", json!([-1, 1.5, 2])),
            ("input.words.sort()", json!(["a", "b"])),
            ("input.list.slice(1)", json!([1, 2])),
            ("input.list.slice(0, 2)", json!([3, 1])),
            ("input.list.slice(2, 99)", json!([2])),
            ("flatten(input.nested)", json!([1, 2, 3])),
            ("sum(input.list)", json!(6)),
            ("sum([])", json!(0)),
            ("min(input.list)", json!(1)),
            ("max(3, 1.5, 7)", json!(7)),
            ("min(2, 1)", json!(1)),
            ("max([])", Value::Null),
            ("merge(input.obj, {'n': 2, 'm': 3})", json!({"k": "v", "n": 2, "m": 3})),
            ("merge({'a': 1}, {'a': 2})", json!({"a": 2})),
        ],
    );
    failures(
        &scope(),
        &[
            ("size(input.n)", "size(): expected a string, a list or a map, got int"),
            (
                "sort([1, 'a'])",
                "sort(): expected numbers, strings or times, all of one kind, got string",
            ),
            ("max(1, 'a')", "max(): expected numbers"),
            ("sum(['a'])", "sum(): expected numbers or durations, got string"),
            ("keys([1])", "keys(): expected a map, got list"),
            ("range(-1)", "range(): an index must not be negative"),
        ],
    );
}

/// §7.4
#[test]
fn functions_of_types() {
    table(
        &scope(),
        &[
            ("int('42')", json!(42)),
            ("int(2.9)", json!(2)),
            ("int(-2.9)", json!(-2)),
            ("int(true)", json!(1)),
            ("double('2.5')", json!(2.5)),
            ("double(2) / 4", json!(0.5)),
            ("string(42)", json!("42")),
            ("string(2.0)", json!("2")),
            ("'n=' + string(input.n)", json!("n=7")),
            ("bool('true')", json!(true)),
            ("bool('0')", json!(false)),
            ("type(1)", json!("int")),
            ("type(1.5)", json!("double")),
            ("type('')", json!("string")),
            ("type(null)", json!("null")),
            ("type([]) + type({}) + type(true)", json!("listmapbool")),
            ("default(input.z, 'x')", json!("x")),
            ("default(input.missing, input.z, 5)", json!(5)),
            ("input.n.default(1 / 0)", json!(7)),
            ("input.z.orValue([])", json!([])),
            ("default(input.f, 0)", json!(2.5)),
            ("json(input.obj)", json!("{\"k\":\"v\",\"n\":1}")),
            ("parseJson('[1, {\"a\": null}]')", json!([1, {"a": null}])),
            ("abs(-5)", json!(5)),
            ("abs(-2.5)", json!(2.5)),
            ("ceil(1.2)", json!(2)),
            ("floor(-1.2)", json!(-2)),
            ("round(2.5)", json!(3)),
            ("round(7)", json!(7)),
            ("isNaN(nan)", json!(true)),
            ("isFinite(1 / 0.0)", json!(false)),
        ],
    );
    failures(
        &scope(),
        &[
            ("int('4.2')", "int(): \"4.2\" is not an int"),
            ("int(1e30)", "int(): integer overflow"),
            ("int(nan)", "int(): integer overflow"),
            ("double('x')", "\"x\" is not a double"),
            ("bool('yes')", "\"yes\" is not a bool"),
            ("string(null)", "string(): expected a value, got null"),
            ("string([])", "json() writes lists and maps"),
            ("parseJson('{')", "parseJson(): not JSON"),
            ("json(inf)", "json(): +Inf is not"),
        ],
    );
}

/// §7.5
#[test]
fn functions_of_times() {
    table(
        &scope(),
        &[
            ("timestamp(input.when)", json!("2026-11-22T10:30:15.25Z")),
            ("timestamp('2026-11-22T12:00:00+02:00')", json!("2026-11-22T10:00:00Z")),
            ("timestamp(0)", json!("1970-01-01T00:00:00Z")),
            (
                "timestamp(input.when) + duration('1h30m')",
                json!("2026-11-22T12:00:15.25Z"),
            ),
            ("timestamp(60) - duration('1m')", json!("1970-01-01T00:00:00Z")),
            ("timestamp(90) - timestamp(0)", json!("90s")),
            ("duration('1.5s') + duration('500ms')", json!("2s")),
            ("duration('-250ms')", json!("-0.25s")),
            ("duration('1d') == duration('24h')", json!(true)),
            ("duration(90)", json!("90s")),
            ("timestamp(1) < timestamp(2)", json!(true)),
            ("timestamp(0) == '1970-01-01T00:00:00Z'", json!(true)),
            ("duration('1m') > duration('59s')", json!(true)),
            ("timestamp(input.when).getFullYear()", json!(2026)),
            ("timestamp(input.when).getMonth()", json!(10)),
            ("timestamp(input.when).getDate()", json!(22)),
            ("timestamp(input.when).getDayOfMonth()", json!(21)),
            ("timestamp(input.when).getDayOfYear()", json!(325)),
            ("timestamp(input.when).getDayOfWeek()", json!(0)),
            ("timestamp(input.when).getHours()", json!(10)),
            ("timestamp(input.when).getHours('+02:00')", json!(12)),
            ("timestamp(input.when).getHours('-10:30')", json!(0)),
            ("timestamp(input.when).getMinutes()", json!(30)),
            ("timestamp(input.when).getSeconds()", json!(15)),
            ("timestamp(input.when).getMilliseconds()", json!(250)),
            ("duration('90m').getHours()", json!(1)),
            ("duration('90m').getMinutes()", json!(90)),
            ("duration('90m').getSeconds()", json!(5400)),
            ("int(duration('90s'))", json!(90)),
            ("int(timestamp(7))", json!(7)),
            ("type(timestamp(0)) + type(duration(0))", json!("timestampduration")),
            ("string(duration('0.001us'))", json!("0.000000001s")),
            ("sum([duration('1m'), duration('30s')])", json!("90s")),
            ("0 == timestamp(0)", json!(false)),
        ],
    );
    failures(
        &scope(),
        &[
            ("timestamp('soon')", "timestamp(): not a time as in"),
            ("timestamp(99999999999999)", "time out of range"),
            ("duration('5')", "not a duration as in"),
            ("duration('1x')", "not a duration as in"),
            ("duration('')", "not a duration as in"),
            ("timestamp(0) + 5", "cannot apply `+` to timestamp and int"),
            ("timestamp(0) < 5", "cannot order timestamp and int"),
            ("5 < duration('1s')", "cannot order int and duration"),
            ("timestamp(253402207200) + duration('100000h')", "time out of range"),
            ("timestamp(0).getHours('Mars/Base')", "unknown time zone \"Mars/Base\""),
            ("getHours(5)", "expected a timestamp, got int"),
        ],
    );
}

/// §10
#[test]
fn syntax_errors_say_where_and_what() {
    refusals(&[
        ("1 +", 3, "expected a value, found the end"),
        ("(1", 2, "expected `)`, found the end"),
        ("a b", 2, "expected an operator or the end, found `b`"),
        ("a = b", 2, "unexpected character '='; to compare, write `==`"),
        ("a & b", 2, "write `&&`"),
        ("a | b", 2, "write `||`"),
        ("a == b == c", 7, "comparisons cannot be chained; use parentheses"),
        ("a < b in c", 6, "comparisons cannot be chained"),
        ("'abc", 0, "unterminated string"),
        ("x == 'a", 5, "unterminated string"),
        ("1abc", 0, "malformed number"),
        ("1__0", 0, "malformed number"),
        ("1.2.3", 0, "malformed number"),
        ("x + 1e999", 4, "number out of range"),
        ("0x", 0, "malformed number"),
        ("a..b", 2, "expected a key after `.`"),
        ("a.", 2, "expected a key after `.`"),
        ("a.'b'", 2, "expected a key after `.`"),
        ("+a", 1, "expected a number after `+`"),
        ("lenght(x)", 0, "unknown function \"lenght\"; did you mean length()?"),
        ("x.startswith('a')", 2, "did you mean startsWith()?"),
        ("frobnicate()", 0, "unknown function \"frobnicate\""),
        ("a.b-size(c)", 2, "to subtract, put spaces around `-`"),
        ("lower()", 0, "lower() takes 1 argument, got 0"),
        ("'a'.lower(1)", 4, "lower() takes 1 argument, got 2"),
        ("substring('a')", 0, "substring() takes 2 to 3 arguments, got 1"),
        ("default(1)", 0, "default() takes at least 2 arguments, got 1"),
        ("has(1 + 1)", 0, "has() takes a path"),
        ("map(x, y)", 0, "map() is called on a list"),
        ("x.map(1, 2)", 6, "expected the variable of map()"),
        ("x.filter(y, 1, 2)", 2, "filter() takes a variable and one expression"),
        ("x.matches('(')", 10, "bad pattern: unclosed group"),
        ("[1 2]", 3, "expected `,` or `]`"),
        ("{'a' 1}", 5, "expected `:`"),
        ("a ? b", 5, "expected `:`"),
        ("in", 0, "expected a value, found `in`"),
        ("x[1", 3, "expected `]`"),
        ("a; b", 1, "unexpected character ';'"),
        ("žluť = 1", 7, "unexpected character '='"),
    ]);
    let error = Expr::parse("a = b").expect_err("bad");
    assert_eq!(
        error.to_string(),
        "unexpected character '='; to compare, write `==` (at byte 2)"
    );
}

#[test]
fn runtime_errors_point_at_the_part() {
    for (text, at) in [
        ("input.n > 0 && 1 / 0", 19),
        ("1 + lower(5)", 4),
        ("[1, {'a': -'x'}]", 10),
        ("input.s.map(x, x)", 8),
    ] {
        assert_eq!(super::try_eval(text, &scope()).expect_err(text).at, at, "{text}");
    }
}

#[test]
fn paths_read() {
    let expr =
        Expr::parse("steps.a.output[0].x > 1 && steps[input.name].y in items.map(s, s.z + ctx.q) || has(steps.b)")
            .expect("parses");
    let paths: Vec<String> = expr
        .paths()
        .iter()
        .map(|path| path.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
        .collect();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "ctx.q",
            "input.name",
            "items",
            "steps",
            "steps.a.output.[0].x",
            "steps.b"
        ]
    );
}

#[test]
fn expressions_are_shared_and_shown_by_their_text() {
    let expr = Expr::parse("  a + 1 ").expect("parses");
    assert_eq!(expr.source(), "a + 1");
    assert_eq!(expr.clone(), expr);
    assert_eq!(format!("{expr:?}"), "Expr(\"a + 1\")");
}
