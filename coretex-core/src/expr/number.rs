//! Numbers: integers stay exact, everything else is a double (docs/spec/expressions.md §3.1).

use std::cmp::Ordering;

use serde_json::Number;

/// A number of the language.
#[derive(Debug, Clone, Copy)]
pub(super) enum Num {
    /// Any integer from `i64::MIN` to `u64::MAX`; nothing else.
    Int(i128),
    /// Anything, even what JSON cannot say.
    Double(f64),
}

const LEAST: i128 = i64::MIN as i128;
const GREATEST: i128 = u64::MAX as i128;

impl Num {
    /// An integer, if it is one that JSON readers can be given.
    pub(super) fn int(value: i128) -> Option<Self> {
        (LEAST..=GREATEST).contains(&value).then_some(Self::Int(value))
    }

    /// A count.
    pub(super) fn count(value: usize) -> Self {
        Self::Int(i128::try_from(value).unwrap_or(GREATEST))
    }

    pub(super) fn from_json(number: &Number) -> Self {
        if let Some(value) = number.as_i64() {
            Self::Int(value.into())
        } else if let Some(value) = number.as_u64() {
            Self::Int(value.into())
        } else {
            Self::Double(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    /// As JSON; `None` if it is not finite.
    pub(super) fn to_json(self) -> Option<Number> {
        match self {
            Self::Int(value) => i64::try_from(value)
                .map(Number::from)
                .or_else(|_| u64::try_from(value).map(Number::from))
                .ok(),
            Self::Double(value) => Number::from_f64(value),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "doubles are what mixed arithmetic is done in")]
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    /// The same number as an integer, if it is a whole one. Minus zero is not: its sign would be lost.
    pub(super) fn whole(self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(value),
            Self::Double(value) => {
                let whole = value.trunc();
                (whole.to_bits() == value.to_bits()
                    && value.abs() <= 9_007_199_254_740_992.0
                    && value.to_bits() != MINUS_ZERO)
                    .then(|| truncate(whole))
            }
        }
    }

    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Int(value) => value == 0,
            Self::Double(value) => value == 0.0,
        }
    }

    /// Exact, whatever the two are; `None` if one is not a number.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(&b),
            (Self::Int(a), Self::Double(b)) => int_to_double(a, b),
            (Self::Double(a), Self::Int(b)) => int_to_double(b, a).map(Ordering::reverse),
        }
    }
}

const MINUS_ZERO: u64 = 1 << 63;

#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates, which is right for what is compared or checked"
)]
pub(super) fn truncate(value: f64) -> i128 {
    value as i128
}

fn int_to_double(int: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    let whole = double.trunc();
    // Beyond 128 bits the conversion saturates, and every integer of ours is smaller.
    Some(
        int.cmp(&truncate(whole))
            .then_with(|| whole.partial_cmp(&double).unwrap_or(Ordering::Equal)),
    )
}

/// Why digits are not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadNumber {
    Malformed,
    OutOfRange,
}

/// The number without a sign at the start of `text`, and its length. `text` begins with a digit or a dot.
pub(super) fn literal(text: &str) -> Result<(Num, usize), BadNumber> {
    let shape = Shape::of(text);
    let digits = &text[..shape.length];
    if !shape.valid || !underscores_separate(digits) {
        return Err(BadNumber::Malformed);
    }
    let clean = digits.replace('_', "");
    let number = if shape.hex && !shape.exponent {
        if shape.fraction {
            return Err(BadNumber::Malformed);
        }
        u64::from_str_radix(&clean[2..], 16)
            .ok()
            .map(|value| Num::Int(value.into()))
    } else {
        shape.read(&clean)
    };
    number.map(|number| (number, shape.length)).ok_or(BadNumber::OutOfRange)
}

/// A number that is a whole text, as in a string that is compared with a number.
pub(super) fn parse(text: &str) -> Option<Num> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number = named(digits).or_else(|| {
        let shape = Shape::of(digits);
        let whole = shape.valid && shape.length == digits.len() && (shape.exponent || !shape.hex);
        (whole && underscores_separate(digits)).then(|| shape.read(&digits.replace('_', "")))?
    })?;
    if negative { negate(number) } else { Some(number) }
}

/// `inf`, `infinity`, `nan`, in any case.
pub(super) fn named(word: &str) -> Option<Num> {
    if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("infinity") {
        Some(Num::Double(f64::INFINITY))
    } else if word.eq_ignore_ascii_case("nan") {
        Some(Num::Double(f64::NAN))
    } else {
        None
    }
}

/// The number below zero of a literal; `-0` keeps its sign.
pub(super) fn negate(number: Num) -> Option<Num> {
    match number {
        Num::Int(0) => Some(Num::Double(-0.0)),
        Num::Int(value) => Num::int(-value).or(Some(Num::Double(-number.as_f64()))),
        Num::Double(value) => Some(Num::Double(-value)),
    }
}

/// What the longest number at the start of a text looks like.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent features of a literal"
)]
struct Shape {
    length: usize,
    hex: bool,
    fraction: bool,
    exponent: bool,
    valid: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let hex = bytes.len() > 2 && bytes[0] == b'0' && bytes[1].eq_ignore_ascii_case(&b'x');
        let mut at = if hex { 2 } else { 0 };
        let is_digit = |byte: u8| {
            if hex {
                byte.is_ascii_hexdigit()
            } else {
                byte.is_ascii_digit()
            }
        };
        let mut seen = false;
        let mut skip = |at: &mut usize| {
            while let Some(byte) = bytes.get(*at).filter(|byte| is_digit(**byte) || **byte == b'_') {
                seen |= *byte != b'_';
                *at += 1;
            }
        };
        skip(&mut at);
        let fraction = bytes.get(at) == Some(&b'.');
        if fraction {
            at += 1;
            skip(&mut at);
        }
        let mark = if hex { b'p' } else { b'e' };
        let mut exponent = false;
        if bytes.get(at).is_some_and(|byte| byte.eq_ignore_ascii_case(&mark)) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            if bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
                exponent = true;
                at += 1 + sign;
                while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'_') {
                    at += 1;
                }
            }
        }
        Self {
            length: at,
            hex,
            fraction,
            exponent,
            valid: seen,
        }
    }

    /// Reads it; `None` if it is out of range.
    fn read(self, clean: &str) -> Option<Num> {
        if self.hex {
            return hex_float(clean);
        }
        if !self.fraction
            && !self.exponent
            && let Some(number) = clean.parse().ok().and_then(Num::int)
        {
            return Some(number);
        }
        let double: f64 = clean.parse().ok()?;
        double.is_finite().then_some(Num::Double(double))
    }
}

/// Underscores stand alone and between digits.
fn underscores_separate(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = bytes.len() > 1 && bytes[1].eq_ignore_ascii_case(&b'x');
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'_')
        .all(|(at, _)| {
            let before = at.checked_sub(1).map(|at| bytes[at]);
            let after = bytes.get(at + 1).copied();
            let digit = |byte: u8| {
                if hex {
                    byte.is_ascii_hexdigit()
                } else {
                    byte.is_ascii_digit()
                }
            };
            before.is_some_and(|byte| digit(byte) || (hex && at == 2)) && after.is_some_and(digit)
        })
}

/// `0x1.8p3`: hexadecimal digits times a power of two.
fn hex_float(clean: &str) -> Option<Num> {
    let (mantissa, exponent) = clean[2..].split_once(['p', 'P'])?;
    let mut exponent: i64 = exponent.parse().unwrap_or(if exponent.starts_with('-') {
        -1_000_000
    } else {
        1_000_000
    });
    let (mut value, mut fraction) = (0_u128, false);
    for digit in mantissa.chars() {
        let Some(digit) = digit.to_digit(16) else {
            fraction = true;
            continue;
        };
        if value >> 120 == 0 {
            value = (value << 4) | u128::from(digit);
            exponent = exponent.saturating_sub(if fraction { 4 } else { 0 });
        } else {
            // What no double can hold any more only decides how it is rounded.
            value |= u128::from(digit != 0);
            exponent = exponent.saturating_add(if fraction { 0 } else { 4 });
        }
    }
    if value == 0 {
        return Some(Num::Double(0.0));
    }
    #[expect(clippy::cast_precision_loss, reason = "rounded to the nearest")]
    let mut double = value as f64;
    // In two steps, as the power alone may be out of range.
    let mut left = exponent.clamp(-3000, 3000);
    while left != 0 && double != 0.0 && double.is_finite() {
        let step = left.clamp(-500, 500);
        double *= 2.0_f64.powi(i32::try_from(step).unwrap_or(0));
        left -= step;
    }
    double.is_finite().then_some(Num::Double(double))
}
