//! Durations as every existing deployment spells them: `500ms`, `10m`, `1h30m`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in settings. `docs/configuration.md` §1 is its grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    /// Nothing, or no number where one must be.
    #[error("`{0}` is not a duration such as 500ms, 30s, 10m or 1h30m")]
    Syntax(String),
    /// A number without a unit.
    #[error("`{0}` has no unit (ns, us, ms, s, m or h)")]
    Unit(String),
    /// More than 290 years.
    #[error("`{0}` is too long for a duration")]
    Overflow(String),
}

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Span {
    /// Reads a sequence of decimal numbers with units. A sign is not allowed: no setting can be negative.
    ///
    /// # Errors
    /// [`InvalidSpan`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidSpan> {
        let syntax = || InvalidSpan::Syntax(text.to_owned());
        let overflow = || InvalidSpan::Overflow(text.to_owned());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(syntax());
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let number = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (digits, tail) = rest.split_at(number);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            if digits.is_empty() || digits == "." {
                return Err(syntax());
            }
            if unit.is_empty() {
                return Err(InvalidSpan::Unit(text.to_owned()));
            }
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(syntax)?;
            if digits.matches('.').count() > 1 {
                return Err(syntax());
            }
            nanos = amount(digits, *scale)
                .and_then(|part| nanos.checked_add(part))
                .filter(|total| i64::try_from(*total).is_ok())
                .ok_or_else(overflow)?;
            rest = tail;
        }
        Ok(Self(Duration::from_nanos(
            u64::try_from(nanos).map_err(|_| overflow())?,
        )))
    }
}

/// `digits`, which may hold one point, times `scale`; `None` if that is too large.
fn amount(digits: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part = 0;
    let mut unit = scale;
    for digit in fraction.chars() {
        unit /= 10;
        part += u128::from(digit.to_digit(10)?) * unit;
    }
    whole.checked_mul(scale)?.checked_add(part)
}

impl fmt::Display for Span {
    /// The shortest exact spelling that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (name, scale) in [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ] {
            if nanos >= scale {
                write!(f, "{}{name}", nanos / scale)?;
                nanos %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_deployments_write() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("500ms", Some(500_000_000)),
            ("10m", Some(600_000_000_000)),
            ("168h", Some(604_800_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("2us", Some(2_000)),
            ("2µs", Some(2_000)),
            (" 3s ", Some(3_000_000_000)),
            ("", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-3s", None),
            ("3 s", None),
            ("3d", None),
            ("9999999h", None),
            ("99999999999999999999999999999999999999999h", None),
        ] {
            let nanos = Span::parse(text).ok().map(|span| span.0.as_nanos());
            assert_eq!(nanos, expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(nanos in 0..u64::try_from(i64::MAX).unwrap()) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = Span::parse(&text);
        }
    }
}
