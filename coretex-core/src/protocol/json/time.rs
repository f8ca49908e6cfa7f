//! Protobuf timestamps as text: RFC 3339 in UTC, with no, three, six or nine digits after the second.

use prost_types::Timestamp;

use super::write::display;

/// Whether the time is one of the years 1 to 9999, the range of protobuf JSON.
pub(super) fn is_valid(time: &Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}

/// Appends a valid time.
pub(super) fn append(out: &mut String, time: &Timestamp) {
    let (year, month, day) = date(time.seconds.div_euclid(86_400));
    let second = time.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    display(
        out,
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"),
    );
    let nanos = time.nanos;
    if nanos == 0 {
        // no fraction
    } else if nanos % 1_000_000 == 0 {
        display(out, format_args!(".{:03}", nanos / 1_000_000));
    } else if nanos % 1_000 == 0 {
        display(out, format_args!(".{:06}", nanos / 1_000));
    } else {
        display(out, format_args!(".{nanos:09}"));
    }
    out.push('Z');
}

/// The day of the Gregorian calendar, by its distance from 1970-01-01. By hand, because the last two days of the year 9999
/// are beyond what jiff takes, and because this is the hot path of the event stream.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that leap days come last; eras are the calendar's period of 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Reads a time; any offset from UTC is fine.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    let time = Timestamp {
        seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?,
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?,
    };
    is_valid(&time).then_some(time)
}
