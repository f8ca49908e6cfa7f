//! The language before was evaluated by cutting the text. Every well-behaved expression of it (docs/spec/expressions.md
//! §2.1) keeps its value and its type: here is that procedure once more, to compare with.

#![expect(clippy::cast_precision_loss, reason = "that is what it did")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{Expr, Template};
use super::members;

/// A value as the procedure has it: every number of the data is a double.
#[derive(Debug, Clone, PartialEq)]
enum Old {
    Null,
    Bool(bool),
    Num(f64),
    Text(String),
    Tree(Value),
}

impl Old {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Num(number.as_f64().expect("a double")),
            Value::String(text) => Self::Text(text.clone()),
            tree => Self::Tree(tree.clone()),
        }
    }

    fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Num(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Tree(_) => true,
        }
    }

    fn display(&self) -> String {
        match self {
            Self::Null => "<nil>".into(),
            Self::Bool(value) => value.to_string(),
            Self::Num(value) if value.is_infinite() => if *value > 0.0 { "+Inf" } else { "-Inf" }.into(),
            Self::Num(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::Tree(Value::Array(items)) => {
                let items: Vec<_> = items.iter().map(|item| Self::of(item).display()).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Tree(Value::Object(members)) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", Self::of(value).display()))
                    .collect();
                members.sort();
                format!("map[{}]", members.join(" "))
            }
            Self::Tree(_) => unreachable!("scalars are not trees"),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let clean = text.replace('_', "");
    if let Some(hex) = clean.strip_prefix("0x") {
        let (digits, power) = hex.split_once('p')?;
        let value = i64::from_str_radix(digits, 16).ok()?;
        return Some(value as f64 * 2_f64.powi(power.parse().ok()?));
    }
    clean.parse().ok()
}

fn old(text: &str, scope: &Map<String, Value>) -> Old {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('!') {
        return Old::Bool(!old(rest, scope).truthy());
    }
    for operator in ["==", "!=", ">=", "<=", ">", "<"] {
        if let Some((left, right)) = text.split_once(operator) {
            return Old::Bool(compare(operator, &old(left, scope), &old(right, scope)));
        }
    }
    if let Some(inside) = text.strip_prefix("length(").and_then(|rest| rest.strip_suffix(')')) {
        return Old::Num(match old(inside, scope) {
            Old::Text(text) => text.len(),
            Old::Tree(Value::Array(items)) => items.len(),
            Old::Tree(Value::Object(members)) => members.len(),
            _ => 0,
        } as f64);
    }
    if let Some(inside) = text.strip_prefix("first(").and_then(|rest| rest.strip_suffix(')')) {
        return match old(inside, scope) {
            Old::Tree(Value::Array(items)) => items.first().map_or(Old::Null, Old::of),
            _ => Old::Null,
        };
    }
    for quote in ['\'', '"'] {
        if text.len() >= 2 && text.starts_with(quote) && text.ends_with(quote) {
            return Old::Text(text.trim_matches(quote).to_owned());
        }
    }
    match text {
        "true" => return Old::Bool(true),
        "false" => return Old::Bool(false),
        _ => {}
    }
    if let Some(number) = number(text) {
        return Old::Num(number);
    }
    let mut keys = text.split('.');
    let mut value = keys.next().and_then(|key| scope.get(key));
    for key in keys {
        value = value.and_then(Value::as_object).and_then(|members| members.get(key));
    }
    value.map_or(Old::Null, Old::of)
}

fn compare(operator: &str, left: &Old, right: &Old) -> bool {
    use std::cmp::Ordering;
    let ordering = match (left, right) {
        (Old::Num(a), right) => a.partial_cmp(&match right {
            Old::Num(b) => *b,
            Old::Text(text) => number(text).unwrap_or(0.0),
            _ => 0.0,
        }),
        (Old::Text(a), Old::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (a, b) => {
            return match operator {
                "==" => a.display() == b.display(),
                "!=" => a.display() != b.display(),
                _ => false,
            };
        }
    };
    match operator {
        "==" => ordering == Some(Ordering::Equal),
        "!=" => ordering != Some(Ordering::Equal),
        ">=" => ordering.is_some_and(Ordering::is_ge),
        "<=" => ordering.is_some_and(Ordering::is_le),
        ">" => ordering == Some(Ordering::Greater),
        _ => ordering == Some(Ordering::Less),
    }
}

/// Keys that are often there.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "list"]).prop_map(str::to_owned),
        1 => "[a-z_][a-z0-9_]{0,6}".prop_filter("a keyword", |key| key != "in"),
    ]
}

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "x-y", "list", "0", "in"]).prop_map(str::to_owned),
        1 => "[a-z0-9_]([a-z0-9_-]{0,5}[a-z0-9_])?",
    ]
}

fn plain_text() -> impl Strategy<Value = String> {
    "[a-z0-9 .,:;/()\\[\\]{+*?&|%@$#\\\\ž-]{0,8}"
}

fn literal() -> impl Strategy<Value = String> {
    let known = vec![
        "0", "1", "5", "-5", "+5", "10", ".5", "-.5", "5.", "1.25", "1e3", "2E-1", "1_000", "0x1p4", "inf", "-Inf",
        "nan",
    ];
    prop_oneof![
        prop::sample::select(known).prop_map(str::to_owned),
        (-999_i32..999).prop_map(|number| number.to_string()),
        (-999_i32..999).prop_map(|number| (f64::from(number) / 8.0).to_string()),
    ]
}

/// A term without an operator in it.
fn term() -> impl Strategy<Value = String> {
    let path = (key(), prop::collection::vec(member(), 0..3))
        .prop_map(|(root, members)| std::iter::once(root).chain(members).collect::<Vec<_>>().join("."));
    let leaf = prop_oneof![
        5 => path,
        2 => plain_text().prop_map(|text| format!("'{text}'")),
        1 => plain_text().prop_map(|text| format!("\"{text}\"")),
        1 => literal().prop_map(|number| format!("'{number}'")),
        3 => literal(),
        1 => prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 1, |inner| {
        let inside = (prop::sample::select(vec!["", "!", " ", "! "]), inner)
            .prop_map(|(before, inner)| format!("{before}{inner} "));
        (prop::sample::select(vec!["length", "first"]), inside)
            .prop_map(|(function, inside)| format!("{function}({inside})"))
    })
}

fn well_behaved() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec![
        "==", "!=", ">=", "<=", ">", "<", " == ", " != ", " >= ", "\n<=", " > ", "< ",
    ]);
    let plain = (term(), prop::option::of((operator, term()))).prop_map(|(left, rest)| match rest {
        Some((operator, right)) => format!("{left}{operator}{right}"),
        None => left,
    });
    (prop::sample::select(vec!["", "", "!", "!!", " ! "]), plain).prop_map(|(before, plain)| format!("{before}{plain}"))
}

/// Numbers that were never written with an exponent.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2000_i64..2000).prop_map(Value::from),
        (-2000_i32..2000).prop_map(|number| Value::from(f64::from(number) / 16.0)),
        prop::sample::select(vec![
            "", "5", "0.5", "true", "abc", "inf", "1_0", " 5", "[1 2]", "map[]", "<nil>"
        ])
        .prop_map(Value::from),
        plain_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn scope() -> impl Strategy<Value = Value> {
    (value(), value(), prop::collection::vec(value(), 0..4))
        .prop_map(|(a, b, list)| json!({"a": a, "b": {"a": b, "x-y": 5, "0": "zero"}, "list": list}))
}

/// The two agree in type and value.
fn agree(old: &Old, new: &Value) -> bool {
    match (old, new) {
        (Old::Num(old), Value::Number(new)) => Some(*old) == new.as_f64(),
        (old, new) => *old == Old::of(new),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn well_behaved_expressions_keep_their_value(text in well_behaved(), scope in scope()) {
        let scope = members(&scope);
        let expected = old(&text, scope);
        let expr = Expr::parse(&text);
        prop_assert!(expr.is_ok(), "{text:?}: {expr:?}");
        let expr = expr.expect("parsed");
        prop_assert_eq!(expr.test(scope), Ok(expected.truthy()), "{:?}", &text);
        match (&expected, expr.eval(scope)) {
            (Old::Num(number), Err(_)) if !number.is_finite() => {}
            (_, value) => {
                let value = value.expect("a value");
                prop_assert!(agree(&expected, &value), "{text:?}: {expected:?} became {value:?}");
            }
        }
        // And between other text, where a string has nothing that looks like the end.
        let between = Template::text(&format!("a ${{{text}}} b"));
        prop_assert!(between.is_ok(), "{text:?}: {between:?}");
        let shown = match &expected {
            Old::Null => String::new(),
            value => value.display(),
        };
        prop_assert_eq!(between.expect("compiled").eval(scope), Ok(Value::from(format!("a {shown} b"))), "{:?}", &text);
    }
}
