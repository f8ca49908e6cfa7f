//! What is wrong with a policy document.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One mistake, or one oddity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The line, from 1; 0 if it is not known.
    pub line: u64,
    /// The column, from 1; 0 if it is not known.
    pub column: u64,
    /// The id of the rule it is in, if it is in one and that has an id.
    pub rule: Option<String>,
    /// Where in the document: `rules[3].match.topics[0]`.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "rule `{rule}`: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Why a document is refused: at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The name of the document: its path.
    pub document: String,
    /// All that was found, in order.
    pub problems: Vec<Problem>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(
                f,
                "{}:{}{problem}",
                self.document,
                if problem.line > 0 { "" } else { " " }
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentError {}
