mod language;
mod limits;
mod subset;
mod templates;
mod vectors;

use serde_json::{Map, Value, json};

use super::{Expr, ExprError};

/// The value of `text` where `scope`'s members are the roots.
fn eval(text: &str, scope: &Value) -> Value {
    try_eval(text, scope).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn try_eval(text: &str, scope: &Value) -> Result<Value, ExprError> {
    let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expr.eval(members(scope))
}

fn members(scope: &Value) -> &Map<String, Value> {
    scope.as_object().expect("a scope is an object")
}

/// Checks rows of text and value.
fn table(scope: &Value, rows: &[(&str, Value)]) {
    for (text, expected) in rows {
        assert_eq!(eval(text, scope), *expected, "{text}");
    }
}

/// Checks rows of text, and what the error of its evaluation says.
fn failures(scope: &Value, rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        let error = try_eval(text, scope).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
        assert!(error.at <= text.len(), "{text}: {error}");
    }
}

/// Checks rows of text, where it is wrong, and what its syntax error says.
fn refusals(rows: &[(&str, usize, &str)]) {
    for (text, at, expected) in rows {
        let error = Expr::parse(text).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
        assert_eq!(error.at, *at, "{text}: {error}");
    }
}

fn nothing() -> Value {
    json!({})
}
