//! Functions of moments and durations.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::super::eval::Meter;
use super::super::number::Num;
use super::super::value::{Fault, Val};
use super::{argument, expected, string};

type Result<T> = std::result::Result<T, Fault>;

/// RFC 3339, or seconds since 1970.
pub(super) fn timestamp<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let time = match argument(arguments, 0) {
        Val::Time(time) => Some(*time),
        Val::Text(text) => Some(
            text.parse::<Timestamp>()
                .map_err(|_| Fault::from("not a time as in 2026-11-22T10:00:00Z"))?,
        ),
        Val::Num(Num::Int(secs)) => i64::try_from(*secs)
            .ok()
            .and_then(|secs| Timestamp::from_second(secs).ok()),
        other => return Err(expected("a string or an int", other)),
    };
    time.map(Val::Time).ok_or("time out of range".into())
}

/// `1h30m`, `1.5s`, `-250ms`, or seconds.
pub(super) fn duration<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let span = match argument(arguments, 0) {
        Val::Span(span) => Some(*span),
        Val::Text(text) => Some(parse_duration(text).ok_or("not a duration as in 1h30m or 1.5s")?),
        Val::Num(Num::Int(secs)) => i64::try_from(*secs).ok().map(SignedDuration::from_secs),
        Val::Num(Num::Double(secs)) => SignedDuration::try_from_secs_f64(*secs).ok(),
        other => return Err(expected("a string or a number", other)),
    };
    span.map(Val::Span).ok_or("duration out of range".into())
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Numbers with units, added up.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() || rest.len() > 100 {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let digits = rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len());
        let whole: i128 = match &rest[..digits] {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        rest = &rest[digits..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.find(|next: char| !next.is_ascii_digit()).unwrap_or(after.len());
            fraction = &after[..digits];
            rest = &after[digits..];
        }
        if digits == 0 && fraction.is_empty() {
            return None;
        }
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(whole.checked_mul(*nanos)?)?;
        // Below a nanosecond nothing counts.
        let mut scale = *nanos;
        for digit in fraction.bytes() {
            let worth = scale / 10;
            total = total.checked_add(i128::from(digit - b'0') * worth)?;
            scale = worth;
        }
    }
    let total = if negative { -total } else { total };
    let secs = i64::try_from(total / 1_000_000_000).ok()?;
    let nanos = i32::try_from(total % 1_000_000_000).ok()?;
    Some(SignedDuration::new(secs, nanos))
}

/// The moment in the time zone that was asked for; UTC if none was.
fn zoned(arguments: &[Val<'_>]) -> Result<Zoned> {
    let Val::Time(time) = argument(arguments, 0) else {
        return Err(expected("a timestamp", argument(arguments, 0)));
    };
    let zone = match arguments.get(1) {
        None => TimeZone::UTC,
        Some(_) => zone(string(arguments, 1)?)?,
    };
    Ok(time.to_zoned(zone))
}

/// `UTC`, `+02:00`, or a name as in `Europe/Prague`.
fn zone(name: &str) -> Result<TimeZone> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let (sign, clock) = match name.as_bytes().first() {
        Some(b'+') => (1, &name[1..]),
        Some(b'-') => (-1, &name[1..]),
        Some(byte) if byte.is_ascii_digit() => (1, name),
        _ => return TimeZone::get(name).map_err(|_| format!("unknown time zone {name:?}").into()),
    };
    let offset = clock.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
        let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
        (minutes < 60).then(|| Offset::from_seconds(seconds).ok())?
    });
    offset
        .map(TimeZone::fixed)
        .ok_or_else(|| format!("unknown time zone {name:?}").into())
}

fn int<'a>(value: impl Into<i128>) -> Val<'a> {
    Val::Num(Num::Int(value.into()))
}

pub(super) fn full_year<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.year()))
}

/// From 0.
pub(super) fn month<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.month() - 1))
}

/// The day of the month, from 1.
pub(super) fn date<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.day()))
}

/// From 0.
pub(super) fn day_of_month<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.day() - 1))
}

/// From 0.
pub(super) fn day_of_year<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.day_of_year() - 1))
}

/// Sunday is 0.
pub(super) fn day_of_week<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(int(zoned(arguments)?.weekday().to_sunday_zero_offset()))
}

/// Of the day; of a duration, all of them.
pub(super) fn hours<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        Val::Span(span) => Ok(int(span.as_secs() / 3600)),
        _ => Ok(int(zoned(arguments)?.hour())),
    }
}

/// Of the hour; of a duration, all of them.
pub(super) fn minutes<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        Val::Span(span) => Ok(int(span.as_secs() / 60)),
        _ => Ok(int(zoned(arguments)?.minute())),
    }
}

/// Of the minute; of a duration, all of them.
pub(super) fn seconds<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        Val::Span(span) => Ok(int(span.as_secs())),
        _ => Ok(int(zoned(arguments)?.second())),
    }
}

/// Of the second.
pub(super) fn milliseconds<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    match argument(arguments, 0) {
        Val::Span(span) => Ok(int(span.subsec_millis())),
        _ => Ok(int(zoned(arguments)?.millisecond())),
    }
}
