//! The pattern language of topics. See `docs/spec/policy.md` §3.2.

use std::fmt;
use std::ops::RangeInclusive;

/// A compiled pattern. Matches whole strings, case-sensitively, one character at a time.
#[derive(Debug, Clone)]
pub struct Glob {
    source: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// No metacharacter.
    Literal(Box<str>),
    /// One `*`, at the end: by far the most frequent.
    Prefix(Box<str>),
    /// Everything else, with the literal text that every match starts with.
    General { prefix: Box<str>, tokens: Box<[Token]> },
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
    Class {
        negated: bool,
        ranges: Box<[RangeInclusive<char>]>,
    },
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[a`
    #[error("`[` without `]`")]
    OpenClass,
    /// `a\`
    #[error("nothing after `\\`")]
    TrailingEscape,
    /// `[]`, `[^]`
    #[error("empty `[]`")]
    EmptyClass,
    /// `[-a]`, `[a-]`
    #[error("`-` in `[]` needs a character on both sides, or `\\` before it")]
    Dash,
    /// `[z-a]`
    #[error("range in `[]` ends before it starts")]
    Reversed,
}

impl Glob {
    /// Compiles a pattern. Surrounding white space is not part of it.
    ///
    /// # Errors
    /// [`GlobError`] if it is malformed.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let source = pattern.trim();
        let tokens = tokenise(source)?;
        let prefix: String = tokens
            .iter()
            .map_while(|token| match token {
                Token::Char(c) => Some(*c),
                _ => None,
            })
            .collect();
        let rest = &tokens[prefix.chars().count()..];
        let kind = match rest {
            [] => Kind::Literal(prefix.into()),
            [Token::Any] => Kind::Prefix(prefix.into()),
            _ => Kind::General {
                tokens: rest.into(),
                prefix: prefix.into(),
            },
        };
        Ok(Self {
            source: source.into(),
            kind,
        })
    }

    /// A pattern that matches no topic.
    pub(super) fn never() -> Self {
        Self {
            source: Box::default(),
            kind: Kind::Literal(Box::default()),
        }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Literal(literal) => **literal == *text,
            Kind::Prefix(prefix) => text.strip_prefix(&**prefix).is_some_and(|rest| !rest.contains('/')),
            Kind::General { prefix, tokens } => text
                .strip_prefix(&**prefix)
                .is_some_and(|rest| matches_tokens(tokens, rest)),
        }
    }

    /// The one text that matches, if there is only one.
    pub fn literal(&self) -> Option<&str> {
        match &self.kind {
            Kind::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// What every matching text starts with.
    pub fn prefix(&self) -> &str {
        match &self.kind {
            Kind::Literal(prefix) | Kind::Prefix(prefix) | Kind::General { prefix, .. } => prefix,
        }
    }

    /// Whether this certainly matches all that `other` does. False if that is not plain to see.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (&self.kind, &other.kind) {
            (_, Kind::Literal(text)) => self.matches(text),
            (Kind::Prefix(prefix), Kind::Prefix(narrow)) => {
                narrow.starts_with(&**prefix) && !narrow[prefix.len()..].contains('/')
            }
            (Kind::Prefix(prefix), Kind::General { prefix: narrow, tokens }) => {
                narrow.starts_with(&**prefix)
                    && !narrow[prefix.len()..].contains('/')
                    // A class may match a slash, which a star does not.
                    && tokens.iter().all(|token| match token {
                        Token::Char(c) => *c != '/',
                        Token::One | Token::Any => true,
                        Token::Class { .. } => false,
                    })
            }
            _ => false,
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// Patterns are equal if they are written alike.
impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

fn tokenise(pattern: &str) -> Result<Vec<Token>, GlobError> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().ok_or(GlobError::TrailingEscape)?),
            '[' => class(&mut chars)?,
            c => Token::Char(c),
        };
        // A run of stars is one star.
        if token != Token::Any || tokens.last() != Some(&Token::Any) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, GlobError> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match chars.peek() {
            None => return Err(GlobError::OpenClass),
            Some(']') if ranges.is_empty() => return Err(GlobError::EmptyClass),
            Some(']') => {
                chars.next();
                return Ok(Token::Class {
                    negated,
                    ranges: ranges.into(),
                });
            }
            Some(_) => {}
        }
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        if high < low {
            return Err(GlobError::Reversed);
        }
        ranges.push(low..=high);
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, GlobError> {
    match chars.next() {
        None => Err(GlobError::OpenClass),
        Some('-' | ']') => Err(GlobError::Dash),
        Some('\\') => chars.next().ok_or(GlobError::TrailingEscape),
        Some(c) => Ok(c),
    }
}

/// Patterns up to this many tokens are matched without allocating.
const SMALL: usize = 128;

/// Follows all ways to match at once, so that no pattern takes more than text × pattern steps.
fn matches_tokens(tokens: &[Token], text: &str) -> bool {
    if tokens.len() < SMALL {
        run(tokens, text, &mut [false; SMALL][..=tokens.len()])
    } else {
        run(tokens, text, &mut vec![false; tokens.len() + 1])
    }
}

/// `alive[i]`: the text so far can be matched by the first `i` tokens.
fn run(tokens: &[Token], text: &str, alive: &mut [bool]) -> bool {
    alive[0] = true;
    skip_stars(tokens, alive);
    for c in text.chars() {
        let mut any = false;
        // From the right, so that each step reads what was true before this character.
        for i in (0..tokens.len()).rev() {
            let here = std::mem::take(&mut alive[i]);
            let stays = here && tokens[i] == Token::Any && c != '/';
            let moves = here && tokens[i] != Token::Any && accepts(&tokens[i], c);
            if i + 1 == tokens.len() {
                alive[i + 1] = moves;
            } else {
                alive[i + 1] |= moves;
            }
            alive[i] = stays;
            any |= stays || moves;
        }
        if !any {
            return false;
        }
        skip_stars(tokens, alive);
    }
    alive[tokens.len()]
}

/// A star may match nothing.
fn skip_stars(tokens: &[Token], alive: &mut [bool]) {
    for (i, token) in tokens.iter().enumerate() {
        if alive[i] && *token == Token::Any {
            alive[i + 1] = true;
        }
    }
}

fn accepts(token: &Token, c: char) -> bool {
    match token {
        Token::Char(expected) => *expected == c,
        Token::One | Token::Any => c != '/',
        Token::Class { negated, ranges } => ranges.iter().any(|range| range.contains(&c)) != *negated,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn matching() {
        // (pattern, text, matches), docs/spec/policy.md §3.2
        for (pattern, text, expected) in [
            ("job.x", "job.x", true),
            ("job.x", "job.X", false),
            ("job.x", "job.xy", false),
            ("job.*", "job.a.b.c", true),
            ("job.*", "job.", true),
            ("job.*", "job", false),
            ("job.*", "job.a/b", false),
            ("job.*", "xjob.a", false),
            ("*", "job.a", true),
            ("**", "job.a", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("job.*.write", "job.a.b.write", true),
            ("job.*.write", "job.write", false),
            ("job.*.*", "job.a.b", true),
            ("job.?", "job.a", true),
            ("job.?", "job.ab", false),
            ("job.?", "job./", false),
            ("job.[abc]", "job.b", true),
            ("job.[abc]", "job.d", false),
            ("job.[a-c]x", "job.bx", true),
            ("job.[^a-c]", "job.d", true),
            ("job.[^a-c]", "job.b", false),
            ("job.[!a]", "job.!", true),
            ("job.[^a]", "job./", true),
            ("job.[*]", "job.*", true),
            ("job.[*]", "job.a", false),
            ("job.[\\]]", "job.]", true),
            ("job.[[]", "job.[", true),
            ("job.[a\\-c]", "job.-", true),
            ("job.[a\\-c]", "job.b", false),
            ("job.\\*", "job.*", true),
            ("job.\\*", "job.a", false),
            ("job.\\a", "job.a", true),
            ("job.{a,b}", "job.a", false),
            ("job.>", "job.a", false),
            ("job.é?", "job.éß", true),
            (" job.x ", "job.x", true),
            ("*[^a]*b", "c/db", true),
            ("a*b*c*d*e", "abcdxxe", true),
            ("", "job", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for (pattern, error) in [
            ("job.[a", GlobError::OpenClass),
            ("job.[", GlobError::OpenClass),
            ("job.[a-", GlobError::OpenClass),
            ("job.[^", GlobError::OpenClass),
            ("job.\\", GlobError::TrailingEscape),
            ("job.[\\", GlobError::TrailingEscape),
            ("job.[]", GlobError::EmptyClass),
            ("job.[^]", GlobError::EmptyClass),
            ("job.[]a]", GlobError::EmptyClass),
            ("job.[-a]", GlobError::Dash),
            ("job.[a-]", GlobError::Dash),
            ("job.[a-c-e]", GlobError::Dash),
            ("job.[z-a]", GlobError::Reversed),
        ] {
            assert_eq!(Glob::new(pattern).unwrap_err(), error, "{pattern}");
        }
    }

    #[test]
    fn long_patterns_take_no_exponential_time() {
        let pattern = "*a".repeat(300) + "*b";
        assert!(!matches(&pattern, &"a".repeat(5_000)));
        assert!(matches(&pattern, &("a".repeat(5_000) + "b")));
    }

    /// The definition, word for word.
    fn naive(tokens: &[Token], text: &[char]) -> bool {
        match (tokens, text) {
            ([], []) => true,
            ([Token::Any, rest @ ..], _) => {
                naive(rest, text) || (text.first().is_some_and(|c| *c != '/') && naive(tokens, &text[1..]))
            }
            ([token, rest @ ..], [c, tail @ ..]) => accepts(token, *c) && naive(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn agrees_with_the_definition(pattern in r"[ab./*?\[\]^\-\\]{0,10}", text in "[ab./-]{0,8}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let tokens = tokenise(pattern.trim()).unwrap();
                let chars: Vec<char> = text.chars().collect();
                prop_assert_eq!(glob.matches(&text), naive(&tokens, &chars));
            }
        }

        #[test]
        fn never_panics(pattern in ".*", text in ".*") {
            let _ = Glob::new(&pattern).map(|glob| glob.matches(&text));
        }
    }
}
