//! Text to tokens.

use super::SyntaxError;
use super::number::{self, BadNumber, Num};

/// A token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tok<'s> {
    /// A root, a function, a keyword.
    Name(&'s str),
    /// The key after a dot.
    Member(&'s str),
    Num(Num),
    Text(&'s str),
    /// Punctuation, as written.
    Sym(&'static str),
    End,
}

impl Tok<'_> {
    pub(super) fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Sym(found) if *found == symbol)
    }

    /// As an error names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Name(name) | Self::Member(name) => format!("`{name}`"),
            Self::Num(_) => "a number".to_owned(),
            Self::Text(_) => "a string".to_owned(),
            Self::Sym(symbol) => format!("`{symbol}`"),
            Self::End => "the end".to_owned(),
        }
    }

    /// Whether a value may end here, so that a dot after it is a member access.
    fn ends_value(&self) -> bool {
        match self {
            Self::Name(_) | Self::Member(_) | Self::Num(_) | Self::Text(_) => true,
            Self::Sym(symbol) => matches!(*symbol, ")" | "]" | "}"),
            Self::End => false,
        }
    }
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", ">=", "<=", "&&", "||", ">", "<", "!", "?", ":", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}",
    ",", ".", ";", "$",
];

/// The tokens of `text`, each with its offset plus `base`. The last is [`Tok::End`].
pub(super) fn tokens(text: &str, base: usize) -> Result<Vec<(Tok<'_>, usize)>, SyntaxError> {
    let mut out: Vec<(Tok<'_>, usize)> = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next.is_whitespace() {
            at += next.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let last = out.last().map_or(Tok::End, |(token, _)| *token);
        let fail = |message: &str| Err(SyntaxError::new(base + at, message));
        let (token, length) = if last.is(".") {
            let length = member_length(rest);
            if length == 0 {
                return fail("expected a key after `.`; write other keys as [\"key\"]");
            }
            (Tok::Member(&rest[..length]), length)
        } else if next.is_ascii_digit()
            || (next == '.' && !last.ends_value() && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            let (number, length) = match number::literal(rest) {
                Ok(found) => found,
                Err(BadNumber::Malformed) => return fail("malformed number"),
                Err(BadNumber::OutOfRange) => return fail("number out of range"),
            };
            if rest[length..].starts_with(|next: char| is_name(next) || next == '.') {
                return fail("malformed number");
            }
            (Tok::Num(number), length)
        } else if next == '\'' || next == '"' {
            let Some((content, length)) = string(rest) else {
                return fail("unterminated string");
            };
            (Tok::Text(content), length)
        } else if is_name(next) {
            let length = rest.find(|next| !is_name(next)).unwrap_or(rest.len());
            (Tok::Name(&rest[..length]), length)
        } else {
            match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) if *symbol != "$" && *symbol != ";" => (Tok::Sym(symbol), symbol.len()),
                _ => return fail(&unexpected(next)),
            }
        };
        out.push((token, base + at));
        at += length;
    }
    out.push((Tok::End, base + text.len()));
    Ok(out)
}

fn unexpected(found: char) -> String {
    let hint = match found {
        '=' => "; to compare, write `==`",
        '&' => "; write `&&`",
        '|' => "; write `||`",
        _ => "",
    };
    format!("unexpected character {found:?}{hint}")
}

fn is_name(next: char) -> bool {
    next.is_alphanumeric() || matches!(next, '_' | '$' | '@')
}

/// How long the key at the start of `text` is. Hyphens inside belong to it: step ids have them.
fn member_length(text: &str) -> usize {
    let mut length = 0;
    let mut rest = text.char_indices().peekable();
    while let Some((at, next)) = rest.next() {
        if is_name(next) {
            length = at + next.len_utf8();
        } else if next != '-' || length == 0 || rest.peek().is_none_or(|(_, next)| !is_name(*next) && *next != '-') {
            break;
        }
    }
    length
}

/// The string literal at the start of `text` without its quotes, and its length with them. There are no escapes; three
/// quotes and more enclose text that has quotes in it.
pub(super) fn string(text: &str) -> Option<(&str, usize)> {
    let quote = text.chars().next()?;
    let run = |text: &str| text.len() - text.trim_start_matches(quote).len();
    let opening = run(text);
    let rest = &text[opening..];
    match opening {
        1 => rest.find(quote).map(|end| (&rest[..end], end + 2)),
        2 => Some(("", 2)),
        _ => {
            let fence: String = std::iter::repeat_n(quote, 3).collect();
            match rest.find(&fence) {
                Some(end) => Some((&rest[..end], opening + end + run(&rest[end..]))),
                // Nothing but quotes.
                None if opening % 2 == 0 => Some(("", opening)),
                None => None,
            }
        }
    }
}

/// Where the expression at the start of `text` ends: the offset of the first `}` that closes no brace of its own and is in
/// no string.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let (mut at, mut open) = (0, 0_usize);
    while let Some(next) = text.as_bytes().get(at) {
        match next {
            b'\'' | b'"' => match string(&text[at..]) {
                Some((_, length)) => {
                    at += length;
                    continue;
                }
                // The string has no end: say so where it begins, not where the text ends.
                None => return text.find('}'),
            },
            b'{' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}
