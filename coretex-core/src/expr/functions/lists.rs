//! Functions of lists and maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::arith;
use super::super::ast::Arith;
use super::super::eval::{Meter, place};
use super::super::number::Num;
use super::super::value::{Fault, Text, Val};
use super::{argument, expected, list};

type Result<T> = std::result::Result<T, Fault>;

/// Elements, bytes of a string, or members; 0 for anything else.
pub(super) fn length<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = argument(arguments, 0);
    let text = match value {
        Val::Text(text) => text.len(),
        _ => 0,
    };
    Ok(Val::count(value.list_len().or(value.map_len()).unwrap_or(text)))
}

/// As CEL has it: characters of a string, and nothing for anything that has no size.
pub(super) fn size<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = argument(arguments, 0);
    if let Val::Text(text) = value {
        meter.bytes(text.len())?;
        return Ok(Val::count(text.chars().count()));
    }
    match value.list_len().or(value.map_len()) {
        Some(size) => Ok(Val::count(size)),
        None => Err(expected("a string, a list or a map", value)),
    }
}

pub(super) fn first<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(argument(arguments, 0).element(0).unwrap_or(Val::Null))
}

pub(super) fn last<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = argument(arguments, 0);
    let last = value
        .list_len()
        .and_then(|length| value.element(length.checked_sub(1)?));
    Ok(last.unwrap_or(Val::Null))
}

pub(super) fn keys<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = argument(arguments, 0);
    meter.charge(value.map_len().unwrap_or(0))?;
    let keys = value.keys().ok_or_else(|| expected("a map", value))?;
    Ok(Val::list(keys.into_iter().map(Val::Text).collect()))
}

pub(super) fn values<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = argument(arguments, 0);
    meter.charge(value.map_len().unwrap_or(0))?;
    let keys = value.keys().ok_or_else(|| expected("a map", value))?;
    Ok(Val::list(keys.iter().filter_map(|key| value.member(key)).collect()))
}

/// `[0, 1, …, n - 1]`
pub(super) fn range<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let count = place(argument(arguments, 0))?;
    meter.charge(count)?;
    Ok(Val::list((0..count).map(Val::count).collect()))
}

pub(super) fn reverse<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut items = list(meter, arguments, 0)?;
    items.reverse();
    Ok(Val::list(items))
}

/// From one place to before another; what is outside the list is left out.
pub(super) fn slice<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let items = list(meter, arguments, 0)?;
    let start = place(argument(arguments, 1))?;
    let end = match arguments.get(2) {
        Some(end) => place(end)?,
        None => items.len(),
    };
    Ok(Val::list(items.into_iter().take(end).skip(start).collect()))
}

/// One level less.
pub(super) fn flatten<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut out = Vec::new();
    for item in list(meter, arguments, 0)? {
        match item.elements() {
            Some(inner) => {
                meter.charge(inner.len())?;
                out.extend(inner);
            }
            None => out.push(item),
        }
    }
    Ok(Val::list(out))
}

/// Numbers, strings, or times; all of one kind.
pub(super) fn sort<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut items = list(meter, arguments, 0)?;
    if let Some(odd) = items.windows(2).find_map(|pair| match pair {
        [a, b] if order(a, b).is_none() => Some(b),
        _ => None,
    }) {
        return Err(expected("numbers, strings or times, all of one kind", odd));
    }
    let rounds = usize::try_from(items.len().checked_ilog2().unwrap_or(0)).unwrap_or(0);
    meter.charge(items.len().saturating_mul(rounds))?;
    items.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Val::list(items))
}

/// The order of two values of one kind. Not a number is greater than any.
fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Num(a), Val::Num(b)) => a
            .compare(*b)
            .or_else(|| Some(a.as_f64().is_nan().cmp(&b.as_f64().is_nan()))),
        (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
        (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
        (Val::Span(a), Val::Span(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// As `+` does; 0 if there is nothing.
pub(super) fn sum<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut total = Val::Num(Num::Int(0));
    for (index, item) in list(meter, arguments, 0)?.into_iter().enumerate() {
        if !matches!(item, Val::Num(_) | Val::Span(_)) {
            return Err(expected("numbers or durations", &item));
        }
        total = match index {
            0 => item,
            _ => arith::apply(meter, Arith::Add, total, item)?,
        };
    }
    Ok(total)
}

pub(super) fn min<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    extreme(meter, arguments, Ordering::Less)
}

pub(super) fn max<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    extreme(meter, arguments, Ordering::Greater)
}

/// Of the arguments, or of the elements of the only one; null if there is nothing.
fn extreme<'a>(meter: &mut Meter, arguments: &[Val<'a>], wanted: Ordering) -> Result<Val<'a>> {
    let items = match arguments {
        [only] if only.list_len().is_some() => list(meter, arguments, 0)?,
        _ => arguments.to_vec(),
    };
    let mut best: Option<Val<'a>> = None;
    for item in items {
        let with = best.as_ref().unwrap_or(&item);
        let Some(found) = order(&item, with) else {
            return Err(expected("numbers, strings or times, all of one kind", &item));
        };
        if best.is_none() || found == wanted {
            best = Some(item);
        }
    }
    Ok(best.unwrap_or(Val::Null))
}

/// One map of several; later ones win.
pub(super) fn merge<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut members: BTreeMap<Text<'a>, Val<'a>> = BTreeMap::new();
    for (index, map) in arguments.iter().enumerate() {
        meter.charge(map.map_len().unwrap_or(0))?;
        if let (0, Val::Map(made)) = (index, map) {
            members.clone_from(made);
            continue;
        }
        for key in map.keys().ok_or_else(|| expected("a map", map))? {
            if let Some(value) = map.member(&key) {
                members.insert(key, value);
            }
        }
    }
    Ok(Val::Map(Rc::new(members)))
}
