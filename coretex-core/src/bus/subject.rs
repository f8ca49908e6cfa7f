//! Subjects and filters: what is well-formed, and what matches what. See `docs/spec/bus.md` §1.

/// Whether a message can be published on `subject`: dot-separated tokens, none of them empty or a wildcard, no white space.
pub fn is_subject(subject: &str) -> bool {
    well_formed(subject.as_bytes(), false)
}

/// Whether `filter` can be subscribed to: a subject in which a token may be `*`, and the last one `>`.
pub fn is_filter(filter: &str) -> bool {
    well_formed(filter.as_bytes(), true)
}

/// Whether `filter` holds a wildcard. `filter` is well-formed.
pub fn has_wildcard(filter: &str) -> bool {
    filter.split('.').any(|token| token == "*" || token == ">")
}

/// Whether a message on `subject` reaches a subscription to `filter`. Both are well-formed.
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        let Some(token) = tokens.next() else { return false };
        match wanted {
            ">" => return true,
            "*" => {}
            wanted if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

fn well_formed(text: &[u8], wildcards: bool) -> bool {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| *byte == b'.').unwrap_or(rest.len());
        let (token, tail) = rest.split_at(end);
        if token.is_empty() || token.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
            return false;
        }
        match token {
            b"*" if !wildcards => return false,
            b">" if !wildcards || !tail.is_empty() => return false,
            _ => {}
        }
        match tail.split_first() {
            Some((_, tail)) => rest = tail,
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_subjects() {
        for (text, subject, filter) in [
            ("sys.job.submit", true, true),
            ("a", true, true),
            ("a*b.c>", true, true),
            ("job.*", false, true),
            ("*.jobs", false, true),
            ("sys.>", false, true),
            (">", false, true),
            ("sys.>.x", false, false),
            ("", false, false),
            (".", false, false),
            ("a..b", false, false),
            ("a.", false, false),
            (".a", false, false),
            ("a b", false, false),
            ("a\tb", false, false),
            ("a\r\nb", false, false),
        ] {
            assert_eq!(is_subject(text), subject, "subject {text:?}");
            assert_eq!(is_filter(text), filter, "filter {text:?}");
        }
    }

    #[test]
    fn matching() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b", true),
            ("worker.*.jobs", "worker.w1.jobs", true),
            ("worker.*.jobs", "worker.w1.x", false),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }
}
