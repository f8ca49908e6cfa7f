//! Comparison of words: surrounding white space and case don't count. See `docs/spec/policy.md` §3.1.

use std::borrow::Cow;

/// One character without its case, by simple (one to one) folding.
fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // The Turkic pair folds to nothing else; through upper case it would become `i`.
    if matches!(c, 'ı' | 'İ') {
        return c;
    }
    let upper = single(c.to_uppercase()).unwrap_or(c);
    single(upper.to_lowercase()).unwrap_or(upper)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// The key that is equal for equal words. Borrowed if the word is its own key.
pub(super) fn fold(word: &str) -> Cow<'_, str> {
    let word = word.trim();
    if word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.chars().map(fold_char).collect())
    }
}

/// Whether `value` is the word whose key is `key`. An empty value is no word at all; a blank one equals a blank entry.
pub(super) fn is(key: &str, value: &str) -> bool {
    !value.is_empty() && {
        let value = value.trim();
        key == value || value.chars().map(fold_char).eq(key.chars())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words() {
        for (a, b, equal) in [
            ("prod", " PROD\t", true),
            ("prod", "prode", false),
            ("k", "\u{212a}", true),
            ("s", "ſ", true),
            ("σας", "ΣΑΣ", true),
            ("straße", "STRASSE", false),
            ("ß", "ẞ", true),
            ("i", "ı", false),
            ("i", "İ", false),
            ("", " ", true),
            ("", "", false),
            (" ", " \u{a0}", true),
        ] {
            assert_eq!(is(&fold(a), b), equal, "{a:?} {b:?}");
            assert_eq!(!b.is_empty() && fold(a) == fold(b), equal, "{a:?} {b:?} by key");
        }
    }
}
