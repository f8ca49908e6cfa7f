//! When a schedule fires, and what it does then; no I/O. See `docs/spec/workflows.md` §8.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::run::RunId;
use super::store::{Overlap, Schedule};
use crate::time::Timestamp;

/// How long after its time a start is made up for, if the schedule does not say.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A cron expression in its time zone.
#[derive(Debug, Clone)]
pub struct Times {
    cron: Cron,
    zone: TimeZone,
}

impl Times {
    /// Reads five or six fields (seconds first), or a nickname such as `@hourly`. The zone is an IANA name; empty is UTC.
    ///
    /// # Errors
    /// The member that is wrong as a JSON pointer, and what is wrong, for people.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, (&'static str, String)> {
        let parsed = CronParser::builder()
            .seconds(Seconds::Optional)
            .build()
            .parse(cron.trim())
            .map_err(|error| ("/cron", error.to_string()))?;
        let zone = match zone.trim() {
            "" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| ("/timezone", format!("unknown time zone `{name}`")))?,
        };
        Ok(Self { cron: parsed, zone })
    }

    fn local(&self, time: Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_microsecond(time.micros()).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }

    /// The first time after this one; `None` if there is none any more.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&self.local(time)?, false).ok()?;
        Some(Timestamp::from_micros(next.timestamp().as_microsecond()))
    }

    /// The last time up to this one; `None` if there was none.
    pub fn until(&self, time: Timestamp) -> Option<Timestamp> {
        let last = self.cron.find_previous_occurrence(&self.local(time)?, true).ok()?;
        Some(Timestamp::from_micros(last.timestamp().as_microsecond()))
    }
}

/// The next time that this schedule fires after `now`, within its bounds.
pub fn next_at(schedule: &Schedule, times: &Times, now: Timestamp) -> Option<Timestamp> {
    let instant = Duration::from_micros(1);
    let from = schedule.start_at.map_or(now, |start| now.max(start.minus(instant)));
    times
        .after(from)
        .filter(|next| schedule.end_at.is_none_or(|end| *next <= end))
}

/// The run that a schedule starts at a time: the same on every replica.
pub fn run_id(schedule: &str, at: Timestamp) -> RunId {
    let name = format!("coretex:schedule:{schedule}:{}", at.micros());
    RunId::new(&uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
}

/// What is to be done about a schedule that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Start a run for this time.
    pub start: Option<Timestamp>,
    /// Cancel the last run first.
    pub cancel: bool,
    /// The schedule afterwards; `last_run`, `last_at` and `last_result` of a start are for the caller to fill in.
    pub schedule: Schedule,
}

/// Decides what to do with a schedule that is due. `open` says whether the run it started last is open.
pub fn step(schedule: &Schedule, times: &Times, now: Timestamp, open: bool) -> Step {
    let mut after = schedule.clone();
    let mut step = Step {
        start: None,
        cancel: false,
        schedule: schedule.clone(),
    };
    if schedule.paused {
        after.buffered_at = None;
        step.schedule = after;
        return step;
    }
    if let Some(planned) = schedule.next_at.filter(|at| *at <= now) {
        after.next_at = next_at(schedule, times, now);
        // What was missed while nobody looked is made up for once, by its latest time.
        let latest = times.until(now).filter(|at| *at >= planned).unwrap_or(planned);
        let latest = schedule.end_at.map_or(latest, |end| latest.min(end.max(planned)));
        let patience = u64::try_from(schedule.catch_up_sec)
            .ok()
            .filter(|secs| *secs > 0)
            .map_or(CATCH_UP, Duration::from_secs);
        if now.since(latest) > patience {
            after.last_result = format!("missed: {latest}");
        } else if !open || schedule.overlap == Overlap::Allow {
            step.start = Some(latest);
        } else {
            match schedule.overlap {
                Overlap::Skip => after.last_result = format!("skipped: {latest}, the last run is still open"),
                Overlap::BufferOne => {
                    after.buffered_at = after.buffered_at.or(Some(latest));
                    after.last_result = format!(
                        "waits: {}, the last run is still open",
                        after.buffered_at.unwrap_or(latest)
                    );
                }
                Overlap::CancelOther => {
                    step.cancel = true;
                    step.start = Some(latest);
                }
                Overlap::Allow => {}
            }
        }
    } else if schedule.next_at.is_none() {
        after.next_at = next_at(schedule, times, now);
    }
    if let Some(buffered) = after.buffered_at
        && !open
    {
        // Both at once are one start.
        step.start = Some(step.start.unwrap_or(buffered));
        after.buffered_at = None;
    }
    step.schedule = after;
    step
}

#[cfg(test)]
mod tests;
