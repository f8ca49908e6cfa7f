//! Paths as they come over the wire. See `docs/spec/http.md` §1.

/// Whether every `%` is followed by two hexadecimal digits.
pub(super) fn well_formed(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes().take(2);
        digits.next().is_some_and(|b| b.is_ascii_hexdigit()) && digits.next().is_some_and(|b| b.is_ascii_hexdigit())
    })
}

/// The path without empty, `.` and `..` segments; `None` if it has none of them.
pub(super) fn cleaned(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if clean.len() > 1 && path.ends_with('/') {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_checked() {
        for (path, expected) in [
            ("/a", true),
            ("/a%2Fb%c3%A9", true),
            ("/%", false),
            ("/%2", false),
            ("/%zz", false),
        ] {
            assert_eq!(well_formed(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/", None),
            ("/a/b", None),
            ("/a/b/", None),
            ("//a", Some("/a")),
            ("/a//b/", Some("/a/b/")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("/../..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
        }
    }
}
