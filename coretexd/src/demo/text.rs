//! What a text says about itself: its title, its words, its terms.

use std::collections::BTreeMap;

/// Words a minute that people read without hurry.
const READING_SPEED: u64 = 220;
/// Words that say nothing about a text.
const STOP_WORDS: &str = " a about above after again all also although always am an and any are as at be because been before \
     being below between both but by can cannot could did do does doing done down during each either else even ever every few \
     first for from further get gets give given gives go goes had has have having he her here hers him his how however i if in \
     into is it its itself just keep last least less let like made make makes many may me might more most much must my need \
     needs neither never new no nor not nothing now of off often on once one only or other others our out over own per same see \
     set shall she should since so some still such than that the their them then there these they thing things this those \
     three through thus to too two under until up upon us use used uses using very via want was way we well were what when \
     where whether which while who whom whose why will with within without would yes yet you your ";

/// A text, taken apart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Text {
    /// Its first heading, or its first line.
    pub(super) title: Option<String>,
    /// How many words it has, code aside.
    pub(super) words: u64,
    /// How often each term occurs, code aside.
    pub(super) terms: BTreeMap<String, u32>,
}

impl Text {
    /// Seconds it takes to read.
    pub(super) fn reading_seconds(&self) -> u64 {
        (self.words * 60).div_ceil(READING_SPEED)
    }
}

/// Takes a text apart. Fenced code blocks of Markdown are left out: they are not read, but copied.
pub(super) fn take_apart(source: &str) -> Text {
    let mut text = Text::default();
    let mut first_line = None;
    let mut fence: Option<&str> = None;
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some(mark) = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark)) {
            match fence {
                None => fence = Some(mark),
                Some(open) if open == mark => fence = None,
                Some(_) => {}
            }
            continue;
        }
        if fence.is_some() {
            continue;
        }
        if text.title.is_none() && trimmed.starts_with('#') {
            let heading = plain(trimmed.trim_matches('#'));
            if trimmed.trim_start_matches('#').starts_with(' ') && !heading.is_empty() {
                text.title = Some(heading);
            }
        }
        if first_line.is_none() && trimmed.chars().any(char::is_alphanumeric) {
            first_line = Some(plain(trimmed));
        }
        for word in words(line) {
            text.words += 1;
            if let Some(term) = term(word) {
                *text.terms.entry(term).or_default() += 1;
            }
        }
    }
    text.title = text.title.or(first_line).map(|title| cut(&title, 80));
    text
}

/// Without the marks of Markdown around and inside.
fn plain(text: &str) -> String {
    text.replace(['`', '*'], "").trim().to_owned()
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

/// Runs of letters and digits, with `-`, `_` and `'` inside.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '\'')))
        .map(|word| word.trim_matches(['-', '_', '\'']))
        .filter(|word| !word.is_empty())
}

/// A word as a term: lower case, no stop word, no number, nothing short, a plain plural as its singular.
fn term(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    let word = word.strip_suffix("'s").unwrap_or(&word);
    if word.chars().count() < 3 || !word.chars().any(char::is_alphabetic) || word.starts_with(|c: char| c.is_numeric())
    {
        return None;
    }
    if word.contains('\'') || STOP_WORDS.contains(&format!(" {word} ")) {
        return None;
    }
    let singular = match word.strip_suffix('s') {
        Some(stem) if stem.len() > 3 && !stem.ends_with(['s', 'u', 'i', 'a']) => stem,
        _ => word,
    };
    Some(singular.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, title: Option<&str>, words: u64, terms: &[(&str, u32)]) {
        let text = take_apart(source);
        assert_eq!(text.title.as_deref(), title);
        assert_eq!(text.words, words);
        let expected = terms.iter().map(|(term, count)| ((*term).to_owned(), *count)).collect();
        assert_eq!(text.terms, expected);
    }

    #[test]
    fn title_words_and_terms() {
        check("", None, 0, &[]);
        check(
            "Intro first.\n\n# The `bus`\n\nJobs and a job's worker.\n",
            Some("The bus"),
            9,
            &[("bus", 1), ("intro", 1), ("job", 1), ("jobs", 1), ("worker", 1)],
        );
        check(
            "plain text\nworkers worker",
            Some("plain text"),
            4,
            &[("plain", 1), ("text", 1), ("worker", 2)],
        );
        check("#!/bin/sh\n", Some("#!/bin/sh"), 2, &[("bin", 1)]);
    }

    #[test]
    fn code_is_not_read() {
        check(
            "# T\n```sh\n# no title\nrm everything\n~~~\nstill code\n```\nafter\n",
            Some("T"),
            2,
            &[],
        );
    }

    #[test]
    fn long_titles_are_cut_at_characters() {
        let text = take_apart(&format!("# {}", "ü".repeat(200)));
        assert_eq!(text.title.map(|title| title.chars().count()), Some(80));
    }

    #[test]
    fn reading_takes_time() {
        let seconds = |words| {
            Text {
                words,
                ..Text::default()
            }
            .reading_seconds()
        };
        assert_eq!((seconds(0), seconds(1), seconds(220), seconds(2_200)), (0, 1, 60, 600));
    }
}
