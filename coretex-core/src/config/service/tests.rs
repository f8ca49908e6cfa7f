use serde_json::json;

use super::*;

#[track_caller]
fn check(scope: &str, id: &str, expected: Result<(&str, &str), &str>) {
    let found = named(scope, id);
    match (&found, expected) {
        (Ok((scope, id)), Ok(expected)) => assert_eq!((scope.as_str(), id.as_str()), expected),
        (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
        _ => panic!("{scope:?} {id:?}: {found:?}"),
    }
}

/// docs/spec/config.md §1.
#[test]
fn documents_have_a_scope_and_an_id() {
    check("system", "", Ok(("system", "default")));
    check("system", "policy", Ok(("system", "policy")));
    check("org", "acme: ü", Ok(("org", "acme: ü")));
    check("anything", "x", Ok(("anything", "x")));
    check("", "x", Err("scope required"));
    check("", "", Err("scope required"));
    check("org", "", Err("scope_id required for non-system scope"));
}

/// docs/spec/config.md §2.
#[test]
fn size_is_that_of_the_stored_text() {
    let document = Document {
        scope: "team".to_owned(),
        data: json!({"a": "ü".repeat(100)}).as_object().cloned().unwrap_or_default(),
        ..Document::default()
    };
    let size = serde_json::to_string(&document).expect("JSON").len();
    assert!(within(&document, size).is_ok());
    let error = within(&document, size - 1).expect_err("too large");
    assert_eq!(
        error.to_string(),
        format!("config document too large: {size} bytes, the limit is {}", size - 1)
    );
}
