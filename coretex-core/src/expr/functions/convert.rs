//! Functions of types and numbers.

use serde_json::Value;

use super::super::compare;
use super::super::display;
use super::super::eval::Meter;
use super::super::number::{self, Num};
use super::super::value::{Fault, Sink, Text, Val};
use super::super::{MAX_RESULT, arith};
use super::{argument, expected};

type Result<T> = std::result::Result<T, Fault>;

/// Towards zero; a string has to be a whole number.
pub(super) fn int<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let number = match argument(arguments, 0) {
        Val::Num(Num::Int(value)) => Some(*value),
        Val::Num(Num::Double(value)) if value.is_finite() => Some(number::truncate(value.trunc())),
        Val::Num(Num::Double(_)) => None,
        Val::Text(text) => match text.parse::<i128>() {
            Ok(value) => Some(value),
            Err(_) => return Err(unreadable(text, "an int")),
        },
        Val::Bool(value) => Some(i128::from(*value)),
        Val::Time(time) => Some(time.as_second().into()),
        Val::Span(span) => Some(span.as_secs().into()),
        other => return Err(expected("a number, a string, a bool or a time", other)),
    };
    number.and_then(Num::int).map(Val::Num).ok_or(arith::OVERFLOW.into())
}

pub(super) fn double<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let value = match argument(arguments, 0) {
        Val::Num(number) => number.as_f64(),
        Val::Text(text) => number::parse(text)
            .ok_or_else(|| unreadable(text, "a double"))?
            .as_f64(),
        Val::Bool(value) => f64::from(*value),
        Val::Span(span) => span.as_secs_f64(),
        other => return Err(expected("a number, a string, a bool or a duration", other)),
    };
    Ok(Val::Num(Num::Double(value)))
}

fn unreadable(text: &str, what: &str) -> Fault {
    let start: String = text.chars().take(40).collect();
    format!("{start:?} is not {what}").into()
}

pub(super) fn string<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        text @ Val::Text(_) => Ok(text.clone()),
        scalar @ (Val::Bool(_) | Val::Num(_) | Val::Time(_) | Val::Span(_)) => Ok(Val::text(display::text(scalar))),
        Val::Null => Err(expected("a value", &Val::Null)),
        other => Err(format!(
            "expected a scalar, got {}; json() writes lists and maps",
            other.type_name()
        )
        .into()),
    }
}

pub(super) fn boolean<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        Val::Bool(value) => Ok(Val::Bool(*value)),
        Val::Num(number) => Ok(Val::Bool(!number.is_zero())),
        Val::Text(text) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
            text => Err(unreadable(text, "a bool")),
        },
        other => Err(expected("a bool, a number or a string", other)),
    }
}

pub(super) fn type_of<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Text(Text::Ref(argument(arguments, 0).type_name())))
}

/// Equality that looks at types.
pub(super) fn same<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    compare::same(meter, argument(arguments, 0), argument(arguments, 1), 0).map(Val::Bool)
}

/// JSON text.
pub(super) fn json<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let mut sink = Sink::limited(meter.bytes_left().min(MAX_RESULT));
    let value = sink.value(argument(arguments, 0).clone())?;
    let text = value.to_string();
    meter.bytes(text.len())?;
    Ok(Val::text(text))
}

pub(super) fn parse_json<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let text = string_of(arguments)?;
    meter.bytes(text.len())?;
    let value: Value = serde_json::from_str(text).map_err(|error| Fault::from(format!("not JSON: {error}")))?;
    let mut count = 0;
    let value = Val::owned(value, &mut count);
    meter.charge(count)?;
    Ok(value)
}

fn string_of<'v>(arguments: &'v [Val<'_>]) -> Result<&'v str> {
    super::string(arguments, 0)
}

fn number_of(arguments: &[Val<'_>]) -> Result<Num> {
    match argument(arguments, 0) {
        Val::Num(number) => Ok(*number),
        other => Err(expected("a number", other)),
    }
}

pub(super) fn abs<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let number = match number_of(arguments)? {
        Num::Int(value) => Num::int(value.abs()).ok_or(arith::OVERFLOW)?,
        Num::Double(value) => Num::Double(value.abs()),
    };
    Ok(Val::Num(number))
}

pub(super) fn ceil<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    rounded(arguments, f64::ceil)
}

pub(super) fn floor<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    rounded(arguments, f64::floor)
}

/// Halves away from zero.
pub(super) fn round<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    rounded(arguments, f64::round)
}

/// An integer.
fn rounded<'a>(arguments: &[Val<'_>], how: fn(f64) -> f64) -> Result<Val<'a>> {
    match number_of(arguments)? {
        Num::Double(value) if value.is_finite() => {
            let whole = Num::int(number::truncate(how(value)));
            whole.map(Val::Num).ok_or(arith::OVERFLOW.into())
        }
        Num::Double(_) => Err(arith::OVERFLOW.into()),
        whole @ Num::Int(_) => Ok(Val::Num(whole)),
    }
}

pub(super) fn is_nan<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Bool(number_of(arguments)?.as_f64().is_nan()))
}

pub(super) fn is_finite<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Bool(number_of(arguments)?.as_f64().is_finite()))
}
