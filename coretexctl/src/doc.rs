//! Reading the server's JSON with tolerance: what is missing, null or of another type is empty.

use jiff::Timestamp;
use serde_json::Value;

/// A JSON object as somebody wants to show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doc<'a>(pub(crate) &'a Value);

impl<'a> Doc<'a> {
    /// A member; null if it is missing.
    pub(crate) fn get(self, key: &str) -> Doc<'a> {
        Doc(self.0.get(key).unwrap_or(&Value::Null))
    }

    /// A text member.
    pub(crate) fn text(self, key: &str) -> &'a str {
        self.get(key).0.as_str().unwrap_or_default()
    }

    /// A number member.
    pub(crate) fn int(self, key: &str) -> i64 {
        self.get(key).0.as_i64().unwrap_or_default()
    }

    /// A time member: microseconds since the epoch, or a text.
    pub(crate) fn time(self, key: &str) -> String {
        match self.int(key) {
            0 => self.text(key).to_owned(),
            micros => stamp(micros),
        }
    }

    /// The items of an array member, or of this array.
    pub(crate) fn items(self) -> impl Iterator<Item = Doc<'a>> {
        self.0.as_array().into_iter().flatten().map(Doc)
    }

    /// An array of texts, joined.
    pub(crate) fn joined(self, key: &str) -> String {
        self.get(key)
            .items()
            .filter_map(|item| item.0.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// An object of texts and numbers, as `k=v, k=v`.
    pub(crate) fn pairs(self, key: &str) -> String {
        self.get(key)
            .0
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", scalar(value)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// An object or anything else, as compact JSON; empty if there is none.
    pub(crate) fn compact(self, key: &str) -> String {
        match self.get(key).0 {
            Value::Null => String::new(),
            value => value.to_string(),
        }
    }
}

/// A scalar without quotes, anything else as JSON.
pub(crate) fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Microseconds since the epoch, as a moment in UTC with milliseconds.
pub(crate) fn stamp(micros: i64) -> String {
    Timestamp::from_microsecond(micros)
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}

/// How long ago a moment was, roughly; empty for none.
pub(crate) fn age(micros: i64, now: Timestamp) -> String {
    if micros == 0 {
        return String::new();
    }
    let seconds = now.as_microsecond().saturating_sub(micros).max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Cuts a text to `max` characters, with a mark where it was cut.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    let text = text.trim();
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_empty() {
        let value = json!({"a": null, "b": 3, "c": ["x", 1, "y"], "d": {"k": "v", "n": 2}});
        let doc = Doc(&value);
        assert_eq!((doc.text("a"), doc.text("b"), doc.text("zz")), ("", "", ""));
        assert_eq!((doc.int("b"), doc.int("a"), doc.int("c")), (3, 0, 0));
        assert_eq!(doc.joined("c"), "x, y");
        assert_eq!(doc.pairs("d"), "k=v, n=2");
        assert_eq!(doc.compact("a"), "");
        assert_eq!(doc.get("zz").items().count(), 0);
    }

    #[test]
    fn ages_and_cuts() {
        let now = Timestamp::from_microsecond(10_000_000_000_000).expect("in range");
        let check = |seconds: i64, text: &str| {
            assert_eq!(age(10_000_000_000_000 - seconds * 1_000_000, now), text);
        };
        check(0, "0s");
        check(59, "59s");
        check(61, "1m");
        check(7_300, "2h");
        check(400_000, "4d");
        check(-5, "0s");
        assert_eq!(age(0, now), "");
        assert_eq!(shorten("hello world", 6), "hello…");
        assert_eq!(shorten("grün", 4), "grün");
    }
}
