//! Secrets that leaked into a text, found by their shape. What is found is never repeated whole.

use serde::{Deserialize, Serialize};

/// At most so many findings per text.
const MAX_FINDINGS: usize = 50;

/// One leaked secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    /// What it seems to be.
    pub(super) kind: String,
    /// On which line, from 1.
    pub(super) line: usize,
    /// How it begins; the rest is not shown.
    pub(super) excerpt: String,
}

/// Tokens that begin with a fixed text and go on with a run of certain characters.
struct Shape {
    kind: &'static str,
    prefix: &'static str,
    /// Which characters may follow.
    body: fn(char) -> bool,
    /// How many of them there are at least.
    min: usize,
}

fn upper_or_digit(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit()
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn dashed(c: char) -> bool {
    word(c) || c == '-'
}

fn dotted(c: char) -> bool {
    dashed(c) || c == '.'
}

const SHAPES: [Shape; 18] = [
    Shape {
        kind: "AWS access key",
        prefix: "AKIA",
        body: upper_or_digit,
        min: 16,
    },
    Shape {
        kind: "AWS session key",
        prefix: "ASIA",
        body: upper_or_digit,
        min: 16,
    },
    Shape {
        kind: "GitHub token",
        prefix: "ghp_",
        body: alphanumeric,
        min: 36,
    },
    Shape {
        kind: "GitHub token",
        prefix: "gho_",
        body: alphanumeric,
        min: 36,
    },
    Shape {
        kind: "GitHub token",
        prefix: "ghs_",
        body: alphanumeric,
        min: 36,
    },
    Shape {
        kind: "GitHub token",
        prefix: "github_pat_",
        body: word,
        min: 40,
    },
    Shape {
        kind: "GitLab token",
        prefix: "glpat-",
        body: dashed,
        min: 20,
    },
    Shape {
        kind: "Slack token",
        prefix: "xoxb-",
        body: dashed,
        min: 20,
    },
    Shape {
        kind: "Slack token",
        prefix: "xoxp-",
        body: dashed,
        min: 20,
    },
    Shape {
        kind: "Google API key",
        prefix: "AIza",
        body: dashed,
        min: 35,
    },
    Shape {
        kind: "Stripe key",
        prefix: "sk_live_",
        body: alphanumeric,
        min: 16,
    },
    Shape {
        kind: "Stripe key",
        prefix: "rk_live_",
        body: alphanumeric,
        min: 16,
    },
    Shape {
        kind: "model provider key",
        prefix: "sk-ant-",
        body: dashed,
        min: 24,
    },
    Shape {
        kind: "model provider key",
        prefix: "sk-proj-",
        body: dashed,
        min: 24,
    },
    Shape {
        kind: "npm token",
        prefix: "npm_",
        body: alphanumeric,
        min: 36,
    },
    Shape {
        kind: "PyPI token",
        prefix: "pypi-",
        body: dashed,
        min: 50,
    },
    Shape {
        kind: "SendGrid key",
        prefix: "SG.",
        body: dotted,
        min: 40,
    },
    Shape {
        kind: "web token (JWT)",
        prefix: "eyJ",
        body: dotted,
        min: 60,
    },
];

/// Names whose values are secrets.
const SECRET_NAMES: [&str; 7] = [
    "password",
    "passwd",
    "secret",
    "api_key",
    "apikey",
    "access_token",
    "private_key",
];
/// What people write where a secret would be.
const PLACEHOLDERS: [&str; 14] = [
    "example",
    "changeme",
    "change-me",
    "password",
    "passwd",
    "secret",
    "placeholder",
    "your",
    "xxxx",
    "redacted",
    "dummy",
    "test",
    "todo",
    "env",
];

/// Looks through a text.
pub(super) fn find(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut found = |kind: &str, secret: &str| {
            if findings.len() < MAX_FINDINGS {
                findings.push(Finding {
                    kind: kind.to_owned(),
                    line: number,
                    excerpt: redact(secret),
                });
            }
        };
        for shape in &SHAPES {
            for token in tokens(line, shape) {
                found(shape.kind, token);
            }
        }
        if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----") {
            found("private key", "-----BEGIN");
        }
        if let Some(password) = password_in_address(line) {
            found("password in an address", password);
        }
        if let Some(value) = assigned(line) {
            found("assigned secret", value);
        }
    }
    findings
}

/// How a secret begins, and how long it is.
fn redact(secret: &str) -> String {
    let shown: String = secret.chars().take(4).collect();
    let hidden = secret.chars().count().saturating_sub(4);
    if hidden == 0 {
        shown
    } else {
        format!("{shown}… (+{hidden})")
    }
}

/// The tokens of one shape in a line.
fn tokens<'a>(line: &'a str, shape: &Shape) -> impl Iterator<Item = &'a str> {
    line.match_indices(shape.prefix).filter_map(|(at, prefix)| {
        // In the middle of a longer word it is no token.
        if line.get(..at)?.ends_with(word) {
            return None;
        }
        let body = line.get(at + prefix.len()..)?;
        let length = body.find(|c| !(shape.body)(c)).unwrap_or(body.len());
        let is_one = length >= shape.min && (shape.prefix != "eyJ" || body.get(..length)?.matches('.').count() == 2);
        is_one.then(|| line.get(at..at + prefix.len() + length)).flatten()
    })
}

/// The password of `scheme://user:password@host`.
fn password_in_address(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("://")?;
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '`' | ')' | '>'))
        .unwrap_or(rest.len());
    let (login, _) = rest.get(..end)?.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    looks_secret(password, 6).then_some(password)
}

/// The value of `name = "value"` or `name: value` where the name says that it is a secret.
fn assigned(line: &str) -> Option<&str> {
    let at = line.find(['=', ':'])?;
    let name = line
        .get(..at)?
        .trim()
        .trim_matches(['"', '\'', '`', '-', ' '])
        .to_ascii_lowercase();
    if !SECRET_NAMES.iter().any(|secret| name.ends_with(secret)) {
        return None;
    }
    let value = line.get(at + 1..)?.trim();
    let value = value.trim_end_matches([',', ';']).trim_matches(['"', '\'', '`']);
    looks_secret(value, 12).then_some(value)
}

/// Whether a value is one, and not a stand-in or a sentence: long enough, in one piece, of letters and digits.
fn looks_secret(value: &str, min: usize) -> bool {
    let lower = value.to_ascii_lowercase();
    value.chars().count() >= min
        && !value
            .contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '{' | '}' | '$' | '*' | '…' | '(' | ')'))
        && value.contains(|c: char| c.is_ascii_digit())
        && value.contains(|c: char| c.is_ascii_alphabetic())
        && !PLACEHOLDERS.iter().any(|placeholder| lower.contains(placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kinds: &[&str]) {
        let findings = find(text);
        let found: Vec<&str> = findings.iter().map(|finding| finding.kind.as_str()).collect();
        assert_eq!(found, kinds, "in {text:?}");
    }

    // Put together here, so that no scanner stumbles over this file.
    fn made(prefix: &str, length: usize) -> String {
        format!("{prefix}{}", "A1b2".repeat(length.div_ceil(4)))
    }

    #[test]
    fn each_shape_is_found() {
        for shape in &SHAPES {
            let mut token = made(shape.prefix, shape.min + 8);
            if matches!(shape.prefix, "AKIA" | "ASIA") {
                token = token.to_uppercase();
            }
            if shape.prefix == "eyJ" {
                token = format!("{}.{}.{}", made("eyJ", 30), made("eyJ", 30), made("", 20));
            }
            check(&format!("key `{token}` leaked"), &[shape.kind]);
        }
        check(&format!("{} PRIVATE KEY-----", "-----BEGIN RSA"), &["private key"]);
    }

    #[test]
    fn addresses_and_assignments() {
        check("redis://user:hunter2hunter2@db:6379/0", &["password in an address"]);
        check("redis://user:$REDIS_PASSWORD@db:6379", &[]);
        check("nats://nats:4222 and a@b", &[]);
        check("db_password = \"kX93jfLLq02pz\"", &["assigned secret"]);
        check("  API_KEY: 9f8e7d6c5b4a3f2e1d", &["assigned secret"]);
        check("password = <your password>", &[]);
        check("api_key: the key of the account 42", &[]);
        check("secret: changeme12345", &[]);
    }

    #[test]
    fn what_is_short_or_inside_a_word_is_none() {
        check("AKIA12345", &[]);
        check(&made("XAKIA", 20).to_uppercase(), &[]);
        check("the prefix ghp_ marks a token", &[]);
    }

    #[test]
    fn a_finding_does_not_repeat_the_secret() {
        let token = made("ghp_", 36);
        let findings = find(&format!("\n\n{token}"));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 3);
        assert_eq!(findings[0].excerpt, "ghp_… (+36)");
    }

    #[test]
    fn findings_are_bounded() {
        let text = format!("{}\n", made("ghp_", 36)).repeat(MAX_FINDINGS * 2);
        assert_eq!(find(&text).len(), MAX_FINDINGS);
    }
}
