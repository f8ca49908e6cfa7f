//! A list of words in a condition. See `docs/spec/policy.md` §3.1.

use super::fold;

/// Words, ready for comparison.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Vec<Word>);

/// One word.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// As compared.
    pub(super) key: Box<str>,
    /// As written.
    pub(super) text: Box<str>,
}

impl Words {
    pub(super) fn new(texts: &[String]) -> Self {
        Self(
            texts
                .iter()
                .map(|text| Word {
                    key: fold::fold(text).into(),
                    text: text.as_str().into(),
                })
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Word> {
        self.0.iter()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether each of `others` is one of these.
    pub(super) fn include(&self, others: &Self) -> bool {
        others
            .0
            .iter()
            .all(|other| self.0.iter().any(|word| word.key == other.key))
    }

    /// The entry that `value` is.
    pub(super) fn find(&self, value: &str) -> Option<&Word> {
        self.0.iter().find(|word| fold::is(&word.key, value))
    }
}
