//! The digest of one document, and the documents it is compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::keywords::{Frequencies, Keyword};
use super::secrets::{self, Finding};
use super::text;

/// What is worth knowing of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Which document.
    pub(super) path: String,
    /// Its first heading, or its first line, or its name.
    pub(super) title: String,
    /// Its size.
    pub(super) bytes: usize,
    /// How many words it has, code aside.
    pub(super) words: u64,
    /// How long it takes to read.
    pub(super) reading_seconds: u64,
    /// What sets it apart from the others.
    pub(super) keywords: Vec<Keyword>,
    /// Secrets that leaked into it.
    pub(super) findings: Vec<Finding>,
}

/// The documents of one demo. A job may read these, and nothing else.
#[derive(Debug)]
pub(super) struct Corpus {
    files: BTreeMap<String, PathBuf>,
    frequencies: Frequencies,
}

impl Corpus {
    /// Reads all documents once, for their term frequencies. One that cannot be read is counted as empty; its job says why.
    pub(super) fn read(files: Vec<PathBuf>) -> Self {
        let mut frequencies = Frequencies::default();
        for file in &files {
            let source = read_text(file).unwrap_or_default();
            frequencies.add(&text::take_apart(&source));
        }
        Self {
            files: files
                .into_iter()
                .map(|file| (file.display().to_string(), file))
                .collect(),
            frequencies,
        }
    }

    /// The names of the documents, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Digests one document.
    ///
    /// # Errors
    /// If it is none of these documents, or cannot be read.
    pub(super) fn digest(&self, name: &str) -> io::Result<Digest> {
        let file = self.files.get(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("`{name}` is none of the demo's documents"),
            )
        })?;
        let source = read_text(file)?;
        let text = text::take_apart(&source);
        Ok(Digest {
            path: name.to_owned(),
            title: text.title.clone().unwrap_or_else(|| name.to_owned()),
            bytes: source.len(),
            words: text.words,
            reading_seconds: text.reading_seconds(),
            keywords: self.frequencies.keywords(&text),
            findings: secrets::find(&source),
        })
    }
}

/// Reads a text in whatever encoding: what is no UTF-8 is replaced.
fn read_text(file: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

/// What the demo publishes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    /// When it was made, RFC 3339.
    pub(super) generated_at: String,
    /// How many documents there are.
    pub(super) documents: usize,
    /// How many words they have.
    pub(super) words: u64,
    /// How many leaked secrets they hold.
    pub(super) findings: usize,
    /// The digests, by path.
    pub(super) digests: Vec<Digest>,
}

impl Index {
    /// Puts digests together.
    pub(super) fn of(mut digests: Vec<Digest>, generated_at: String) -> Self {
        digests.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            generated_at,
            documents: digests.len(),
            words: digests.iter().map(|digest| digest.words).sum(),
            findings: digests.iter().map(|digest| digest.findings.len()).sum(),
            digests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_digested_and_nothing_else_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let a = folder.path().join("a.md");
        let b = folder.path().join("b.md");
        fs::write(&a, "# Bus\n\nsubjects and queues, subjects again\n").expect("written");
        fs::write(&b, b"caf\xe9 queues").expect("written");
        let corpus = Corpus::read(vec![a.clone(), b]);
        let digest = corpus.digest(&a.display().to_string()).expect("digested");
        assert_eq!(
            (digest.title.as_str(), digest.words, digest.reading_seconds),
            ("Bus", 6, 2)
        );
        assert_eq!(digest.keywords[0].term, "subject");
        assert!(digest.findings.is_empty());

        let other = folder.path().join("../etc/passwd").display().to_string();
        assert_eq!(
            corpus.digest(&other).expect_err("not in the corpus").kind(),
            io::ErrorKind::PermissionDenied
        );

        let digests = corpus
            .names()
            .map(|name| corpus.digest(name).expect("digested"))
            .collect();
        let index = Index::of(digests, "2026-01-01T00:00:00Z".to_owned());
        assert_eq!((index.documents, index.words), (2, 8));
    }
}
