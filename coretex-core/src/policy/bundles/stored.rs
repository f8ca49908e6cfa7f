//! How a bundle stands in the configuration document, and what of it counts. See `docs/spec/policy.md` §12.1.
//!
//! The kernel and the bundle service read by this one rule, so that what is listed is what decides.

use serde_json::{Map, Value};

/// Ids of bundles that are edited here.
pub const SECOPS: &str = "secops/";

/// Members that may hold the text, the first one first.
const TEXT_MEMBERS: [&str; 3] = ["content", "policy", "data"];

/// The text of a bundle: the value itself, or the first of `content`, `policy` and `data` that is a text.
pub fn text(bundle: &Value) -> Option<&str> {
    match bundle {
        Value::String(text) => Some(text),
        Value::Object(members) => TEXT_MEMBERS
            .iter()
            .find_map(|name| members.get(*name).and_then(Value::as_str)),
        _ => None,
    }
}

/// Whether a bundle is meant to be in force. Without a member `enabled` it is; one that cannot be understood says no.
pub fn is_enabled(bundle: &Value) -> bool {
    match bundle.get("enabled") {
        None => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(Value::Number(number)) => number.as_f64() == Some(1.0),
        Some(Value::String(word)) => is_yes(word),
        Some(_) => false,
    }
}

/// The bundles in force with their texts, by id.
pub fn in_force(bundles: &Map<String, Value>) -> impl Iterator<Item = (&str, &str)> {
    bundles
        .iter()
        .filter(|(_, bundle)| is_enabled(bundle))
        .filter_map(|(id, bundle)| Some((id.as_str(), text(bundle)?)))
        .filter(|(_, text)| !text.trim().is_empty())
}

/// `1 true yes y on`, in any case.
fn is_yes(word: &str) -> bool {
    let word = word.trim();
    ["1", "true", "yes", "y", "on"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// docs/spec/policy.md §12.1.
    #[test]
    fn bundles_are_read_with_tolerance() {
        for (bundle, enabled, expected) in [
            (json!("rules: []"), true, Some("rules: []")),
            (json!({"content": "a"}), true, Some("a")),
            (json!({"content": 1, "policy": "b", "data": "c"}), true, Some("b")),
            (json!({"content": null, "data": "c"}), true, Some("c")),
            (json!({"content": "", "data": "c"}), true, Some("")),
            (json!({"text": "a"}), true, None),
            (json!({}), true, None),
            (json!(null), true, None),
            (json!(7), true, None),
            (json!(["a"]), true, None),
            (json!({"content": "a", "enabled": false}), false, Some("a")),
            (json!({"content": "a", "enabled": true}), true, Some("a")),
            (json!({"content": "a", "enabled": " Yes "}), true, Some("a")),
            (json!({"content": "a", "enabled": "ON"}), true, Some("a")),
            (json!({"content": "a", "enabled": "y"}), true, Some("a")),
            (json!({"content": "a", "enabled": "2"}), false, Some("a")),
            (json!({"content": "a", "enabled": ""}), false, Some("a")),
            (json!({"content": "a", "enabled": 1}), true, Some("a")),
            (json!({"content": "a", "enabled": 1.0}), true, Some("a")),
            (json!({"content": "a", "enabled": 2}), false, Some("a")),
            (json!({"content": "a", "enabled": null}), false, Some("a")),
            (json!({"content": "a", "enabled": []}), false, Some("a")),
        ] {
            assert_eq!((is_enabled(&bundle), text(&bundle)), (enabled, expected), "{bundle}");
        }
    }

    #[test]
    fn those_in_force_come_by_id() {
        let bundles = json!({
            "secops/b": "B",
            "pack/a": {"policy": "A"},
            "off": {"content": "O", "enabled": false},
            "blank": " \n",
            "Z": {"content": "Z"},
        });
        let found: Vec<_> = in_force(bundles.as_object().unwrap()).collect();
        assert_eq!(found, [("Z", "Z"), ("pack/a", "A"), ("secops/b", "B")]);
    }
}
