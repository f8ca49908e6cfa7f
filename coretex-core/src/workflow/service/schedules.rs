//! Schedules: workflows that are started by the clock.

use super::{Error, Problem, Started, Workflows};
use crate::audit::{Actor, AuditRecord};
use crate::workflow::schedule::{Times, next_at};
use crate::workflow::store::Schedule;

/// How often a change is tried that others are faster with.
const TRIES: usize = 20;

impl Workflows {
    /// Stores a schedule. Its times are worked out from now; what it did before is kept.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Conflict`] if its stored revision is not `if_revision` (0: there is none).
    pub async fn save_schedule(
        &self,
        schedule: Schedule,
        if_revision: Option<u64>,
        by: &Actor,
    ) -> Result<Schedule, Error> {
        let mut schedule = schedule;
        if schedule.id.is_empty() {
            schedule.id = uuid::Uuid::new_v4().to_string();
        }
        let times = self.check_schedule(&schedule).await?;
        let id = schedule.id.clone();
        for _ in 0..TRIES {
            let before = self.store.schedule(&id).await?;
            let expected = before.as_ref().map_or(0, |before| before.revision);
            if if_revision.is_some_and(|revision| revision != expected) {
                return Err(Error::Conflict);
            }
            let now = self.clock.now();
            let mut write = schedule.clone();
            write.next_at = next_at(&write, &times, now);
            let before = before.unwrap_or_default();
            write.buffered_at = before.buffered_at;
            write.last_run = before.last_run;
            write.last_at = before.last_at;
            write.last_result = before.last_result;
            write.revision = expected + 1;
            let audit = AuditRecord::by(now, by, "schedule.save", &format!("schedule:{id}"))
                .with("workflow_id", write.workflow_id.as_str())
                .with("revision", write.revision);
            if self.store.put_schedule(&write, expected, Some(&audit)).await? {
                self.engine.schedules_changed();
                return Ok(write);
            }
        }
        Err(Error::Conflict)
    }

    async fn check_schedule(&self, schedule: &Schedule) -> Result<Times, Error> {
        let mut problems = Vec::new();
        let mut wrong = |pointer: &str, message: String| {
            problems.push(Problem::error(pointer, "schedule", message));
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if schedule.id.len() > 128 || !schedule.id.chars().all(fits) {
            wrong("/id", "letters, digits, `_`, `-` and `.` only, at most 128".to_owned());
        }
        if self.store.workflow(&schedule.workflow_id).await?.is_none() {
            wrong("/workflow_id", format!("no workflow `{}`", schedule.workflow_id));
        }
        if schedule.catch_up_sec < 0 {
            wrong("/catch_up_sec", "must not be negative".to_owned());
        }
        if let (Some(start), Some(end)) = (schedule.start_at, schedule.end_at)
            && start > end
        {
            wrong("/end_at", "is before `start_at`".to_owned());
        }
        match Times::parse(&schedule.cron, &schedule.timezone) {
            Ok(times) if problems.is_empty() => Ok(times),
            Ok(_) => Err(Error::Invalid(problems)),
            Err((pointer, message)) => {
                problems.push(Problem::error(pointer, "schedule", message));
                Err(Error::Invalid(problems))
            }
        }
    }

    /// A schedule.
    ///
    /// # Errors
    /// [`Error::UnknownSchedule`] if there is none.
    pub async fn schedule(&self, id: &str) -> Result<Schedule, Error> {
        self.store.schedule(id).await?.ok_or(Error::UnknownSchedule)
    }

    /// Schedules by id.
    ///
    /// # Errors
    /// [`Error::Store`] if they cannot be read.
    pub async fn schedules(&self, limit: usize) -> Result<Vec<Schedule>, Error> {
        Ok(self.store.schedules(limit).await?)
    }

    /// Deletes a schedule; the runs it started stay.
    ///
    /// # Errors
    /// [`Error::UnknownSchedule`] if there is none.
    pub async fn delete_schedule(&self, id: &str, by: &Actor) -> Result<(), Error> {
        let audit = AuditRecord::by(self.clock.now(), by, "schedule.delete", &format!("schedule:{id}"));
        if self.store.delete_schedule(id, Some(&audit)).await? {
            Ok(())
        } else {
            Err(Error::UnknownSchedule)
        }
    }

    /// Stops a schedule, or lets it go on; what it missed is not made up for.
    ///
    /// # Errors
    /// [`Error::UnknownSchedule`] if there is none.
    pub async fn pause_schedule(&self, id: &str, paused: bool, by: &Actor) -> Result<Schedule, Error> {
        for _ in 0..TRIES {
            let before = self.schedule(id).await?;
            if before.paused == paused {
                return Ok(before);
            }
            let now = self.clock.now();
            let mut write = before.clone();
            write.paused = paused;
            write.buffered_at = None;
            if let Ok(times) = Times::parse(&write.cron, &write.timezone) {
                write.next_at = next_at(&write, &times, now);
            }
            write.revision = before.revision + 1;
            let action = if paused { "schedule.pause" } else { "schedule.resume" };
            let audit = AuditRecord::by(now, by, action, &format!("schedule:{id}"));
            if self.store.put_schedule(&write, before.revision, Some(&audit)).await? {
                self.engine.schedules_changed();
                return Ok(write);
            }
        }
        Err(Error::Conflict)
    }

    /// Starts a run of a schedule now, whatever its times and its last run.
    ///
    /// # Errors
    /// [`Error::UnknownSchedule`], and those of [`start`](Self::start).
    pub async fn trigger_schedule(&self, id: &str, by: &Actor) -> Result<Started, Error> {
        let schedule = self.schedule(id).await?;
        let mut start = crate::workflow::engine::start_of(&schedule);
        start.by = by.clone();
        self.start(start).await
    }
}
