//! Reading a configuration file so that a mistake can be found: file, line, column, and what was probably meant.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use crate::error::BoxError;

/// The largest configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read at all.
    #[error("{file}: cannot be read")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the system said.
        #[source]
        source: BoxError,
    },
    /// There is a mistake in it.
    #[error("{file}:{line}:{column}: {problem}")]
    At {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: u64,
        /// Which column, from 1.
        column: u64,
        /// What is wrong, naming the key.
        problem: String,
    },
    /// It lacks something as a whole.
    #[error("{file}: {problem}")]
    Whole {
        /// Which file.
        file: String,
        /// What is missing.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn whole(file: &str, problem: &str) -> Self {
        Self::Whole {
            file: file.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// The text of a file, if it is not absurdly large.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source: BoxError| ConfigError::Unreadable {
        file: path.to_string_lossy().into_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(|e| unreadable(e.into()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(
            format!("it is {size} bytes long; the limit is {MAX_FILE_BYTES}").into(),
        ));
    }
    std::fs::read_to_string(path).map_err(|e| unreadable(e.into()))
}

/// Parses one YAML document; an empty one counts as an empty mapping.
pub(super) fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    let text = if blank(text) { "{}" } else { text };
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location();
        let of_key = |problem: String| {
            let key = at.and_then(|at| key_at(text, at.line(), at.column()));
            key.map_or_else(|| problem.clone(), |key| format!("`{key}`: {problem}"))
        };
        let problem = match error {
            Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
            Error::SerdeInvalidType {
                unexpected, expected, ..
            }
            | Error::SerdeInvalidValue {
                unexpected, expected, ..
            } => {
                let found = if unexpected == "unit value" {
                    "nothing"
                } else {
                    unexpected
                };
                of_key(format!("found {found}, expected {expected}"))
            }
            Error::Message { msg, .. } => of_key(msg.clone()),
            other => other.to_string(),
        };
        match at {
            Some(at) if at.line() > 0 => ConfigError::At {
                file: file.to_owned(),
                line: at.line(),
                column: at.column(),
                problem,
            },
            _ => ConfigError::whole(file, &problem),
        }
    })
}

/// The key at a place in the text, or, if the place is in a value, the key that its line begins with.
fn key_at(text: &str, line: u64, column: u64) -> Option<&str> {
    let line = text.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let skipped = usize::try_from(column.checked_sub(1)?).ok()?;
    let start = line.char_indices().nth(skipped).map_or(line.len(), |(at, _)| at);
    [start, 0].into_iter().find_map(|from| {
        let rest = line.get(from..)?.trim_start().trim_start_matches("- ");
        let (key, value) = rest.split_once(':')?;
        let key = key.trim().trim_matches(['"', '\'']);
        let is_key = !key.is_empty() && !key.contains(['{', '}', '[', ']', ',', '#', '"', '\'']);
        (is_key && (value.is_empty() || value.starts_with(char::is_whitespace))).then_some(key)
    })
}

/// Whether there is nothing but comments and white space.
fn blank(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (distance(key, known), known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, nearest)) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`; known keys: {}", known.join(", ")),
    }
}

/// How many letters have to be added, removed or changed (Levenshtein), cases being equal.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "", 0),
            ("topics", "topics", 0),
            ("topcs", "topics", 1),
            ("Topics", "topics", 0),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
