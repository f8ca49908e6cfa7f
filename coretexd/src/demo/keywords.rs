//! Which terms set a text apart from the others: TF-IDF.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text::Text;

/// How many keywords a digest has.
const KEYWORDS: usize = 6;

/// In how many texts of a corpus each term occurs.
#[derive(Debug, Default)]
pub(super) struct Frequencies {
    texts: usize,
    with_term: BTreeMap<String, usize>,
}

impl Frequencies {
    /// Counts one more text.
    pub(super) fn add(&mut self, text: &Text) {
        self.texts += 1;
        for term in text.terms.keys() {
            *self.with_term.entry(term.clone()).or_default() += 1;
        }
    }

    /// The terms of `text` that weigh most: frequent in it, rare elsewhere. Heaviest first; equals in alphabetical order.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of words in documents are far below 2^52"
    )]
    pub(super) fn keywords(&self, text: &Text) -> Vec<Keyword> {
        let total: u32 = text.terms.values().sum();
        let mut weighed: Vec<Keyword> = text
            .terms
            .iter()
            .map(|(term, count)| {
                let frequency = f64::from(*count) / f64::from(total.max(1));
                let with_term = self.with_term.get(term).copied().unwrap_or(0);
                // Smoothed, so that a corpus of one text has keywords too.
                let rarity = ((1 + self.texts) as f64 / (1 + with_term) as f64).ln() + 1.0;
                Keyword {
                    term: term.clone(),
                    weight: (frequency * rarity * 1e4).round() / 1e4,
                }
            })
            .collect();
        weighed.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.term.cmp(&b.term)));
        weighed.truncate(KEYWORDS);
        weighed
    }
}

/// A term and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Keyword {
    /// The term.
    pub(super) term: String,
    /// Its TF-IDF weight in this text.
    pub(super) weight: f64,
}

#[cfg(test)]
mod tests {
    use super::super::text::take_apart;
    use super::*;

    #[test]
    fn what_every_text_says_weighs_less() {
        let texts: Vec<Text> = [
            "coretex bus bus subject",
            "coretex store lua script",
            "coretex policy rule rule rule",
        ]
        .into_iter()
        .map(take_apart)
        .collect();
        let mut frequencies = Frequencies::default();
        for text in &texts {
            frequencies.add(text);
        }
        let terms = |text: &Text| -> Vec<String> {
            frequencies
                .keywords(text)
                .into_iter()
                .map(|keyword| keyword.term)
                .collect()
        };
        assert_eq!(terms(&texts[0]), ["bus", "subject", "coretex"]);
        assert_eq!(terms(&texts[1]), ["lua", "script", "store", "coretex"]);
        assert_eq!(terms(&texts[2]), ["rule", "policy", "coretex"]);
    }

    #[test]
    fn one_text_alone_has_keywords_and_an_empty_one_has_none() {
        let mut frequencies = Frequencies::default();
        let text = take_apart("alpha beta gamma delta epsilon zeta theta alpha");
        frequencies.add(&text);
        let keywords = frequencies.keywords(&text);
        assert_eq!(keywords.len(), KEYWORDS);
        assert_eq!(keywords[0].term, "alpha");
        assert!(frequencies.keywords(&Text::default()).is_empty());
    }
}
