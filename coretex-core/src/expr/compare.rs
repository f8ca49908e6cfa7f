//! Comparison (docs/spec/expressions.md §4).

use std::cmp::Ordering;

use serde_json::Value;

use super::ast::Compare;
use super::display;
use super::eval::Meter;
use super::number::{self, Num};
use super::value::{Fault, Val, deep};

impl Compare {
    /// `None` is what a comparison with a NaN gives.
    fn holds(self, ordering: Option<Ordering>) -> bool {
        match self {
            Self::Eq => ordering == Some(Ordering::Equal),
            Self::Ne => ordering != Some(Ordering::Equal),
            Self::Ge => ordering.is_some_and(Ordering::is_ge),
            Self::Le => ordering.is_some_and(Ordering::is_le),
            Self::Gt => ordering == Some(Ordering::Greater),
            Self::Lt => ordering == Some(Ordering::Less),
        }
    }

    fn is_order(self) -> bool {
        !matches!(self, Self::Eq | Self::Ne)
    }
}

/// Compares by the type of the left value.
pub(super) fn compare(meter: &mut Meter, how: Compare, left: &Val<'_>, right: &Val<'_>) -> Result<bool, Fault> {
    let ordering = match (left, right) {
        (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
        (Val::Span(a), Val::Span(b)) => Some(a.cmp(b)),
        (Val::Time(_) | Val::Span(_), _) | (_, Val::Time(_) | Val::Span(_)) if how.is_order() => {
            return Err(format!("cannot order {} and {}", left.type_name(), right.type_name()).into());
        }
        (Val::Num(_), Val::Time(_) | Val::Span(_)) => None,
        (Val::Num(a), b) => a.compare(as_number(b)),
        (Val::Text(a), Val::Text(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            Some((**a).cmp(&**b))
        }
        (Val::Null, Val::Null) => Some(Ordering::Equal),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ if how.is_order() => return Ok(false),
        (a, b) => {
            let a = display::compared(a, meter.bytes_left())?;
            meter.bytes(a.len())?;
            let b = display::compared(b, meter.bytes_left())?;
            meter.bytes(b.len())?;
            Some(a.cmp(&b))
        }
    };
    // Only numbers, strings and times have an order.
    let ordered = matches!(left, Val::Num(_) | Val::Text(_) | Val::Time(_) | Val::Span(_));
    Ok((ordered || !how.is_order()) && how.holds(ordering))
}

/// What the right side of a comparison with a number counts as.
fn as_number(value: &Val<'_>) -> Num {
    match value {
        Val::Num(number) => Some(*number),
        Val::Text(text) => number::parse(text),
        _ => None,
    }
    .unwrap_or(Num::Int(0))
}

/// Equality by type and value: numbers by value, lists and maps element by element, nothing else of different types.
pub(super) fn same(meter: &mut Meter, left: &Val<'_>, right: &Val<'_>, depth: usize) -> Result<bool, Fault> {
    meter.charge(1)?;
    deep(depth)?;
    Ok(match (left, right) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Num(a), Val::Num(b)) => a.compare(*b) == Some(Ordering::Equal),
        (Val::Text(a), Val::Text(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            a == b
        }
        (Val::Time(a), Val::Time(b)) => a == b,
        (Val::Span(a), Val::Span(b)) => a == b,
        _ => {
            if let (Some(a), Some(b)) = (left.list_len(), right.list_len()) {
                return Ok(a == b
                    && all(0..a, |index| {
                        pair(meter, left.element(index), right.element(index), depth)
                    })?);
            }
            let (Some(a), Some(b)) = (left.map_len(), right.map_len()) else {
                return Ok(false);
            };
            let keys = left.keys().unwrap_or_default();
            a == b
                && all(keys.iter(), |key| {
                    pair(meter, left.member(key), right.member(key), depth)
                })?
        }
    })
}

fn pair(meter: &mut Meter, left: Option<Val<'_>>, right: Option<Val<'_>>, depth: usize) -> Result<bool, Fault> {
    match (left, right) {
        (Some(left), Some(right)) => same(meter, &left, &right, depth + 1),
        _ => Ok(false),
    }
}

fn all<I: Iterator>(items: I, mut holds: impl FnMut(I::Item) -> Result<bool, Fault>) -> Result<bool, Fault> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `needle in haystack`: an element of a list, a key of a map.
pub(super) fn contains(meter: &mut Meter, needle: &Val<'_>, haystack: &Val<'_>) -> Result<bool, Fault> {
    if let Some(length) = haystack.list_len() {
        for index in 0..length {
            if let Some(element) = haystack.element(index)
                && same(meter, needle, &element, 0)?
            {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    match (haystack, needle) {
        (Val::Map(_) | Val::Json(Value::Object(_)), Val::Text(key)) => Ok(haystack.member(key).is_some()),
        (Val::Map(_) | Val::Json(Value::Object(_)), _) => Ok(false),
        _ => Err(format!("`in` needs a list or a map on its right, got {}", haystack.type_name()).into()),
    }
}
