//! Which files the demo reads.

use std::fs;
use std::path::{Path, PathBuf};

/// At most so many files become jobs.
pub(super) const MAX_FILES: usize = 500;
/// Larger files are left out.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// How deep folders are searched.
const MAX_DEPTH: usize = 12;
/// What counts as a text in a folder. A file that is named is read whatever it is called.
const EXTENSIONS: [&str; 6] = ["md", "markdown", "txt", "rst", "adoc", "org"];
/// Folders that hold no documents of their own.
const SKIPPED: [&str; 4] = ["target", "node_modules", "vendor", "__pycache__"];

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// A path that was named is not there, or may not be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// Which.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nothing was named, and there is no repository around.
    #[error("found no README.md with a docs folder here or above; name files or folders: coretexd demo PATH…")]
    NoRepository,
    /// Nothing in there is a text.
    #[error(
        "found no text files under {0}; the demo reads .md, .markdown, .txt, .rst, .adoc and .org files up to 1 MiB, and any file \
         that is named"
    )]
    Nothing(String),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each file once, in order.
    pub(super) files: Vec<PathBuf>,
    /// What was left out, and why, for people.
    pub(super) skipped: Vec<String>,
}

/// The files under `paths`; if there are none, the documents of the repository around `here`.
pub(super) fn find(paths: &[PathBuf], here: &Path) -> Result<Found, FilesError> {
    let roots = if paths.is_empty() {
        repository_documents(here).ok_or(FilesError::NoRepository)?
    } else {
        paths.to_vec()
    };
    let mut found = Found::default();
    for root in &roots {
        let unreadable = |source| FilesError::Unreadable {
            path: root.display().to_string(),
            source,
        };
        if fs::metadata(root).map_err(unreadable)?.is_dir() {
            walk(root, 0, &mut found);
        } else {
            take(root.clone(), &mut found);
        }
    }
    found.files.sort();
    found.files.dedup();
    if found.files.len() > MAX_FILES {
        let left_out = found.files.len() - MAX_FILES;
        found
            .skipped
            .push(format!("{left_out} files beyond the first {MAX_FILES}"));
        found.files.truncate(MAX_FILES);
    }
    if found.files.is_empty() {
        let names: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        return Err(FilesError::Nothing(names.join(", ")));
    }
    Ok(found)
}

/// The README and the docs folder of the nearest folder, from `here` upwards, that has both.
fn repository_documents(here: &Path) -> Option<Vec<PathBuf>> {
    let root = here
        .ancestors()
        .find(|folder| folder.join("README.md").is_file() && folder.join("docs").is_dir())?;
    // Relative names read better, where they are possible.
    let base = if root == here { PathBuf::new() } else { root.to_owned() };
    let mut documents = vec![base.join("README.md"), base.join("docs")];
    documents.extend(
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .into_iter()
            .filter(|name| root.join(name).is_file())
            .map(|name| base.join(name)),
    );
    Some(documents)
}

fn walk(folder: &Path, depth: usize, found: &mut Found) {
    if depth > MAX_DEPTH {
        found.skipped.push(format!("{} (too deep)", folder.display()));
        return;
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            found.skipped.push(format!("{} ({error})", folder.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Links are not followed: they may lead in circles.
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') || found.files.len() > 2 * MAX_FILES {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() && !SKIPPED.contains(&name.as_ref()) {
            walk(&path, depth + 1, found);
        } else if kind.is_file() && is_text(&path) {
            take(path, found);
        }
    }
}

fn is_text(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()))
}

fn take(path: PathBuf, found: &mut Found) {
    match fs::metadata(&path) {
        Ok(data) if data.len() > MAX_FILE_BYTES => found.skipped.push(format!("{} (over 1 MiB)", path.display())),
        Ok(_) => found.files.push(path),
        Err(error) => found.skipped.push(format!("{} ({error})", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, size) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, vec![b'x'; *size]).expect("written");
        }
        folder
    }

    fn names(found: &Found, root: &Path) -> Vec<String> {
        found
            .files
            .iter()
            .map(|file| file.strip_prefix(root).unwrap_or(file).display().to_string())
            .collect()
    }

    #[test]
    fn texts_are_found_in_order_and_the_rest_is_left_out() {
        let folder = folder(&[
            ("b.md", 1),
            ("a/c.TXT", 1),
            ("a/d.rs", 1),
            ("target/e.md", 1),
            (".git/f.md", 1),
            ("big.md", (1 << 20) + 1),
        ]);
        let found = find(&[folder.path().to_owned()], folder.path()).expect("found");
        assert_eq!(names(&found, folder.path()), ["a/c.TXT", "b.md"]);
        assert_eq!(found.skipped.len(), 1, "{:?}", found.skipped);
    }

    #[test]
    fn a_named_file_is_read_whatever_it_is_called_and_only_once() {
        let folder = folder(&[("main.rs", 1)]);
        let file = folder.path().join("main.rs");
        let found = find(&[file.clone(), file.clone()], folder.path()).expect("found");
        assert_eq!(found.files, [file]);
    }

    #[test]
    fn without_paths_the_repository_around_is_read() {
        let folder = folder(&[
            ("README.md", 1),
            ("docs/cli.md", 1),
            ("crate/src/x.md", 1),
            ("notes.md", 1),
        ]);
        let found = find(&[], &folder.path().join("crate/src")).expect("found");
        assert_eq!(names(&found, folder.path()), ["README.md", "docs/cli.md"]);
    }

    #[test]
    fn errors_say_what_to_do() {
        let empty = folder(&[("a.rs", 1)]);
        let text = |paths: &[PathBuf]| find(paths, empty.path()).expect_err("nothing there").to_string();
        assert!(text(&[]).contains("coretexd demo PATH"));
        assert!(text(&[empty.path().to_owned()]).contains(".md"));
        assert!(text(&[empty.path().join("missing")]).contains("missing"));
    }
}
