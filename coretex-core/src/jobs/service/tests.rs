use proptest::prelude::*;
use serde_json::Value;

use super::submit::holds_secret;
use crate::secrets;

#[test]
fn secrets_are_found_at_any_depth_and_never_in_names() {
    for (json, expected) in [
        (r#""secret://a""#, true),
        (r#"{"a":[1,{"b":"  secret://x"}]}"#, true),
        (r#"{"a":"secret:\/\/x"}"#, true),
        (r#"{"a":"\u0073ecret://x"}"#, true),
        (r#"{"a":"\" secret://x"}"#, false),
        (r#"{"secret://name" : 1}"#, false),
        (r#"{"a":"see secret://x"}"#, false),
        (r#"{"a":"\\","b":"secret://x"}"#, true),
        ("null", false),
    ] {
        assert_eq!(holds_secret(json), expected, "{json}");
    }
    let deep = format!("{}\"secret://x\"{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(holds_secret(&deep), "depth is no obstacle");
}

proptest! {
    /// The scanner agrees with a walk through the parsed tree.
    #[test]
    fn scanning_is_as_good_as_parsing(
        names in proptest::collection::vec("(secret://)?[a-z\"\\\\: ]{0,6}", 0..4),
        texts in proptest::collection::vec("( )?(secret://)?[a-z\"\\\\:/ ]{0,8}", 0..4),
    ) {
        let members = names.iter().cloned().zip(texts.iter().cloned().map(Value::from));
        let value = Value::Array(vec![Value::Object(members.collect()), texts.clone().into()]);
        prop_assert_eq!(holds_secret(&value.to_string()), secrets::contains(&value));
    }

    #[test]
    fn scanning_never_panics(text in "\\PC{0,40}") {
        holds_secret(&text);
    }
}
