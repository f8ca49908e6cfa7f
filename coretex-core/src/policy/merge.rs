//! Several documents as one policy, and what it is called. See `docs/spec/policy.md` §8.1 and §8.5.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::compile::{CompiledPolicy, hex, snapshot_id};
use super::explanation::{BASE, Drafts};
use super::model::Document;
use super::parts::{Part, PartKind};
use super::problem::DocumentError;
use super::status::Warning;

/// One document that is fine, with what it was made from.
#[derive(Debug, Clone)]
pub(super) struct Text {
    bytes: Arc<[u8]>,
    document: Arc<Document>,
    warnings: Arc<[Warning]>,
}

impl Text {
    /// Reads a document; `name` is what errors and warnings call it.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Self, DocumentError> {
        let parsed = Document::parse(bytes, name)?;
        let warnings = parsed.warnings.into_iter().map(|problem| Warning {
            document: name.to_owned(),
            problem,
        });
        Ok(Self {
            bytes: bytes.into(),
            document: Arc::new(parsed.document),
            warnings: warnings.collect(),
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is called among snapshots.
    pub(super) fn snapshot(&self) -> String {
        snapshot_id(&self.document.version, &self.bytes)
    }
}

/// All documents in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    pub(super) base: Option<Text>,
    pub(super) fragments: BTreeMap<String, Text>,
}

impl Texts {
    /// The snapshot id of base and fragments together.
    pub(super) fn snapshot(&self) -> String {
        let base = self.base.as_ref().map(Text::snapshot);
        let fragments = (!self.fragments.is_empty()).then(|| {
            let mut hash = Sha256::new();
            for (id, text) in &self.fragments {
                hash.update(id);
                hash.update([0]);
                hash.update(&text.bytes);
            }
            format!("cfg:{}", hex(&hash.finalize()))
        });
        match (base, fragments) {
            (Some(base), Some(fragments)) => format!("{base}|{fragments}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => snapshot_id("", b""),
        }
    }

    /// Whether these are the same documents. Ids of snapshots do not tell: two sets of fragments may share one.
    pub(super) fn same(&self, other: &Self) -> bool {
        let bytes = |text: &Text| Arc::clone(&text.bytes);
        self.base.as_ref().map(bytes) == other.base.as_ref().map(bytes)
            && self.fragments.len() == other.fragments.len()
            && self
                .fragments
                .iter()
                .zip(&other.fragments)
                .all(|((id, text), (other_id, other))| id == other_id && text.bytes == other.bytes)
    }

    /// Makes them one policy: base, then `secops/`, then the others.
    pub(super) fn compile(&self) -> (CompiledPolicy, Vec<Warning>) {
        let base = self.base.iter().map(|text| (BASE, PartKind::Base, text));
        let of_kind = |kind: PartKind| {
            self.fragments
                .iter()
                .map(|(id, text)| (id.as_str(), PartKind::of_fragment(id), text))
                .filter(move |(_, of, _)| *of == kind)
        };
        let texts: Vec<_> = base
            .chain(of_kind(PartKind::Secops))
            .chain(of_kind(PartKind::Pack))
            .collect();
        let mut warnings: Vec<Warning> = texts
            .iter()
            .flat_map(|(_, _, text)| text.warnings.iter().cloned())
            .collect();
        let parts = texts
            .into_iter()
            .map(|(origin, kind, text)| Part {
                origin: origin.to_owned(),
                kind,
                document: (*text.document).clone(),
            })
            .collect();
        let (policy, more) = CompiledPolicy::from_parts(parts, self.snapshot());
        warnings.extend(more);
        (policy, warnings)
    }

    /// With drafts in the place of what is in force.
    ///
    /// # Errors
    /// [`DocumentError`] about the first draft that is refused.
    pub(super) fn with(&self, drafts: &Drafts) -> Result<Self, DocumentError> {
        let mut texts = self.clone();
        for (id, draft) in drafts {
            let text = if draft.trim().is_empty() {
                None
            } else {
                Some(Text::parse(draft.as_bytes(), id)?)
            };
            match (id.as_str(), text) {
                (BASE, text) => texts.base = text,
                (id, Some(text)) => drop(texts.fragments.insert(id.to_owned(), text)),
                (id, None) => drop(texts.fragments.remove(id)),
            }
        }
        Ok(texts)
    }
}
