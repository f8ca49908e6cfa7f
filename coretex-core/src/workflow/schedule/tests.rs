use super::*;

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().expect("a time");
    Timestamp::from_micros(time.as_microsecond())
}

fn hourly(overlap: Overlap) -> Schedule {
    Schedule {
        id: "s".to_owned(),
        cron: "@hourly".to_owned(),
        overlap,
        next_at: Some(at("2026-03-01T10:00:00Z")),
        ..Schedule::default()
    }
}

fn times(schedule: &Schedule) -> Times {
    Times::parse(&schedule.cron, &schedule.timezone).expect("times")
}

/// docs/spec/workflows.md §8.
#[test]
fn times_are_those_of_the_zone() {
    let berlin = Times::parse("30 2 * * *", "Europe/Berlin").expect("times");
    assert_eq!(
        berlin.after(at("2026-03-27T12:00:00Z")),
        Some(at("2026-03-28T01:30:00Z"))
    );
    // 02:30 does not exist on the day the clocks go forward.
    let next = berlin.after(at("2026-03-28T12:00:00Z")).expect("a time");
    assert!(next <= at("2026-03-30T00:30:00Z"), "{next}");
    assert_eq!(
        berlin.after(at("2026-03-29T12:00:00Z")),
        Some(at("2026-03-30T00:30:00Z"))
    );
    let seconds = Times::parse("*/10 * * * * *", "").expect("times");
    assert_eq!(
        seconds.after(at("2026-01-01T00:00:01Z")),
        Some(at("2026-01-01T00:00:10Z"))
    );
    assert_eq!(
        seconds.until(at("2026-01-01T00:00:10Z")),
        Some(at("2026-01-01T00:00:10Z"))
    );
    assert_eq!(
        seconds.until(at("2026-01-01T00:00:19Z")),
        Some(at("2026-01-01T00:00:10Z"))
    );
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(Times::parse("every day", "").err().map(|(at, _)| at), Some("/cron"));
    assert_eq!(
        Times::parse("* * * * *", "Mars/Base").err().map(|(at, _)| at),
        Some("/timezone")
    );
}

#[test]
fn bounds_hold() {
    let mut schedule = hourly(Overlap::Skip);
    schedule.start_at = Some(at("2026-03-01T12:00:00Z"));
    schedule.end_at = Some(at("2026-03-01T13:00:00Z"));
    let times = times(&schedule);
    assert_eq!(
        next_at(&schedule, &times, at("2026-03-01T08:00:00Z")),
        schedule.start_at
    );
    assert_eq!(next_at(&schedule, &times, at("2026-03-01T12:30:00Z")), schedule.end_at);
    assert_eq!(next_at(&schedule, &times, at("2026-03-01T13:00:00Z")), None);
}

#[track_caller]
fn check(overlap: Overlap, now: &str, open: bool, start: Option<&str>, cancel: bool, result: &str) -> Schedule {
    let schedule = hourly(overlap);
    let step = step(&schedule, &times(&schedule), at(now), open);
    assert_eq!(step.start, start.map(at));
    assert_eq!(step.cancel, cancel);
    assert!(
        step.schedule.last_result.starts_with(result),
        "{}",
        step.schedule.last_result
    );
    step.schedule
}

/// docs/spec/workflows.md §8.
#[test]
fn a_time_that_has_come_starts_a_run() {
    let ten = Some("2026-03-01T10:00:00Z");
    let after = check(Overlap::Skip, "2026-03-01T10:00:00.5Z", false, ten, false, "");
    assert_eq!(after.next_at, Some(at("2026-03-01T11:00:00Z")));
    check(Overlap::Allow, "2026-03-01T10:00:00.5Z", true, ten, false, "");
    check(Overlap::CancelOther, "2026-03-01T10:00:00.5Z", true, ten, true, "");
    check(Overlap::Skip, "2026-03-01T10:00:00.5Z", true, None, false, "skipped");
}

/// docs/spec/workflows.md §8.
#[test]
fn what_was_missed_is_made_up_for_once_or_not_at_all() {
    let late = check(
        Overlap::Skip,
        "2026-03-01T14:00:59Z",
        false,
        Some("2026-03-01T14:00:00Z"),
        false,
        "",
    );
    assert_eq!(late.next_at, Some(at("2026-03-01T15:00:00Z")));
    check(Overlap::Skip, "2026-03-01T14:02:00Z", false, None, false, "missed");
    // Not due yet: nothing happens.
    let early = check(Overlap::Skip, "2026-03-01T09:00:00Z", false, None, false, "");
    assert_eq!(early, hourly(Overlap::Skip));
}

/// docs/spec/workflows.md §8.
#[test]
fn one_start_waits_for_the_last_run() {
    let waits = check(Overlap::BufferOne, "2026-03-01T10:00:01Z", true, None, false, "waits");
    assert_eq!(waits.buffered_at, Some(at("2026-03-01T10:00:00Z")));
    let times = times(&waits);
    let still = step(&waits, &times, at("2026-03-01T11:00:01Z"), true);
    assert_eq!((still.start, still.schedule.buffered_at), (None, waits.buffered_at));
    let goes = step(&waits, &times, at("2026-03-01T10:20:00Z"), false);
    assert_eq!((goes.start, goes.schedule.buffered_at), (waits.buffered_at, None));
}

#[test]
fn a_paused_schedule_does_nothing() {
    let mut schedule = hourly(Overlap::BufferOne);
    schedule.paused = true;
    let step = step(&schedule, &times(&schedule), at("2026-03-01T10:00:01Z"), false);
    assert_eq!(step.start, None);
}

#[test]
fn a_time_names_one_run() {
    let time = at("2026-03-01T10:00:00Z");
    assert_eq!(run_id("s", time), run_id("s", time));
    assert_ne!(run_id("s", time), run_id("t", time));
    assert_ne!(run_id("s", time), run_id("s", time.plus(Duration::from_secs(1))));
}
