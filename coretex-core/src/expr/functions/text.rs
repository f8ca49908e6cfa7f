//! Functions of strings.

use super::super::compare;
use super::super::display;
use super::super::eval::{Meter, place};
use super::super::number::Num;
use super::super::value::{Fault, Val};
use super::{argument, expected, list, string};

type Result<T> = std::result::Result<T, Fault>;

pub(super) fn starts_with<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Bool(string(arguments, 0)?.starts_with(string(arguments, 1)?)))
}

pub(super) fn ends_with<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Bool(string(arguments, 0)?.ends_with(string(arguments, 1)?)))
}

/// A string in a string, or an element of a list.
pub(super) fn contains<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let whole = argument(arguments, 0);
    if whole.list_len().is_some() {
        return compare::contains(meter, argument(arguments, 1), whole).map(Val::Bool);
    }
    let text = string(arguments, 0)?;
    meter.bytes(text.len())?;
    Ok(Val::Bool(text.contains(string(arguments, 1)?)))
}

pub(super) fn lower<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    mapped(meter, arguments, str::to_lowercase)
}

pub(super) fn lower_ascii<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    mapped(meter, arguments, str::to_ascii_lowercase)
}

pub(super) fn upper<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    mapped(meter, arguments, str::to_uppercase)
}

pub(super) fn upper_ascii<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    mapped(meter, arguments, str::to_ascii_uppercase)
}

pub(super) fn trim<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    mapped(meter, arguments, |text| text.trim().to_owned())
}

fn mapped<'a>(meter: &mut Meter, arguments: &[Val<'a>], change: fn(&str) -> String) -> Result<Val<'a>> {
    let text = string(arguments, 0)?;
    meter.bytes(text.len())?;
    Ok(Val::text(change(text)))
}

/// The parts between separators; the characters, if the separator is empty.
pub(super) fn split<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let (text, separator) = (string(arguments, 0)?, string(arguments, 1)?);
    meter.bytes(text.len().saturating_mul(2))?;
    let mut parts = Vec::new();
    if separator.is_empty() {
        for (at, next) in text.char_indices() {
            meter.charge(1)?;
            parts.push(&text[at..at + next.len_utf8()]);
        }
    } else {
        for part in text.split(separator) {
            meter.charge(1)?;
            parts.push(part);
        }
    }
    let part = |part: &str| Val::text(part.to_owned());
    Ok(Val::list(parts.into_iter().map(part).collect()))
}

/// The elements as text, with a separator between them.
pub(super) fn join<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let separator = match arguments.get(1) {
        Some(_) => string(arguments, 1)?,
        None => "",
    };
    let mut out = String::new();
    for (index, item) in list(meter, arguments, 0)?.iter().enumerate() {
        if index > 0 {
            meter.bytes(separator.len())?;
            out.push_str(separator);
        }
        match item {
            Val::Text(text) => {
                meter.bytes(text.len())?;
                out.push_str(text);
            }
            Val::Null | Val::Json(_) | Val::List(_) | Val::Map(_) => {
                return Err(expected("a list of strings, numbers or booleans", item));
            }
            scalar => out.push_str(&display::text(scalar)),
        }
    }
    Ok(Val::text(out))
}

pub(super) fn replace<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let (text, from, to) = (string(arguments, 0)?, string(arguments, 1)?, string(arguments, 2)?);
    meter.bytes(text.len().saturating_mul(2))?;
    let places = text.matches(from).count();
    meter.charge(places)?;
    meter.bytes(places.saturating_mul(to.len()))?;
    Ok(Val::text(text.replace(from, to)))
}

/// From one character to before another; what is outside the string is left out.
pub(super) fn substring<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let text = string(arguments, 0)?;
    meter.bytes(text.len())?;
    let start = place(argument(arguments, 1))?;
    let end = match arguments.get(2) {
        Some(end) => place(end)?,
        None => usize::MAX,
    };
    Ok(Val::text(text.chars().take(end).skip(start).collect()))
}

/// The character at which the first occurrence begins, or -1.
pub(super) fn index_of<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let text = string(arguments, 0)?;
    meter.bytes(text.len().saturating_mul(2))?;
    Ok(match text.find(string(arguments, 1)?) {
        Some(at) => Val::count(text[..at].chars().count()),
        None => Val::Num(Num::Int(-1)),
    })
}
