//! Policy files on this machine.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use coretex_core::policy::{CompiledPolicy, Document, MAX_DOCUMENT_BYTES, Part, PartKind};

use crate::failure::Failure;

/// A fragment and its file, as `secops/freeze=freeze.yaml`.
#[derive(Debug, Clone)]
pub(super) struct Fragment {
    id: String,
    file: PathBuf,
}

impl Fragment {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

pub(super) fn fragment(text: &str) -> Result<Fragment, String> {
    match text.split_once('=') {
        Some((id, file)) if !id.trim().is_empty() && !file.is_empty() => Ok(Fragment {
            id: id.trim().to_owned(),
            file: file.into(),
        }),
        _ => Err(format!("`{text}` is not ID=FILE, such as secops/freeze=freeze.yaml")),
    }
}

/// Reads a base policy and its fragments, in decisive order (docs/spec/policy.md §4.7).
pub(super) fn parts(base: Option<&Path>, fragments: &[Fragment]) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    if let Some(base) = base {
        parts.push(Part::base(document(base)?));
    }
    let mut fragments: Vec<&Fragment> = fragments.iter().collect();
    fragments.sort_by_key(|fragment| {
        let kind = PartKind::of_fragment(&fragment.id);
        (kind.only_tightens(), &fragment.id)
    });
    for fragment in fragments {
        parts.push(Part {
            origin: fragment.id.clone(),
            kind: PartKind::of_fragment(&fragment.id),
            document: document(&fragment.file)?,
        });
    }
    Ok(parts)
}

/// Compiles parts; the snapshot id says that they are only files.
pub(super) fn compile(parts: Vec<Part>) -> CompiledPolicy {
    CompiledPolicy::from_parts(parts, "files".to_owned()).0
}

fn document(path: &Path) -> Result<Document, Failure> {
    let name = path.display().to_string();
    let bytes = bytes(path)?;
    match Document::parse(&bytes, &name) {
        Ok(parsed) => Ok(parsed.document),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// A file, or standard input for `-`, up to a little more than a policy may have.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_DOCUMENT_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::new(format!("cannot read {}", path.display())).because(&error))?;
    Ok(bytes)
}

/// The same, as text.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes(path)?)
        .map_err(|error| Failure::new(format!("{} is not UTF-8", path.display())).because(&error))
}
