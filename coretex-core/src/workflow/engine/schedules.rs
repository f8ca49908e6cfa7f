//! Schedules: runs that are started by the clock. See `docs/spec/workflows.md` §8.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Inner;
use crate::audit::Actor;
use crate::error::{StoreError, chain};
use crate::workflow::event::Event;
use crate::workflow::schedule::{Times, run_id, step};
use crate::workflow::service::{Error, Start};
use crate::workflow::store::Schedule;

/// The longest sleep: others may have written a schedule.
const LONGEST: Duration = Duration::from_secs(1);
/// For how long a schedule that was taken is nobody else's; also how often one is looked at whose start waits.
const CLAIM: Duration = Duration::from_secs(5);
/// How many are taken at once.
const BATCH: usize = 100;

/// What a schedule starts.
pub(in crate::workflow) fn start_of(schedule: &Schedule) -> Start {
    Start {
        workflow_id: schedule.workflow_id.clone(),
        input: schedule.input.clone(),
        org_id: schedule.org_id.clone(),
        team_id: schedule.team_id.clone(),
        metadata: [("schedule".to_owned(), schedule.id.clone())].into(),
        by: Actor::new(format!("schedule:{}", schedule.id), ""),
        ..Start::default()
    }
}

impl Inner {
    /// Starts what is to be started.
    pub(super) async fn run_schedules(self: Arc<Self>, stop: CancellationToken) {
        let clock = &self.parts.clock;
        loop {
            let now = clock.now();
            let claim = self.parts.store.claim_due_schedules(now, now.plus(CLAIM), BATCH).await;
            let next = match claim {
                Ok(due) => {
                    for id in &due.ids {
                        if stop.is_cancelled() {
                            return;
                        }
                        if let Err(error) = self.fire(id).await {
                            warn!(schedule = id, error = %chain(&error), "schedule put off");
                        }
                    }
                    due.next
                }
                Err(error) => {
                    warn!(error = %chain(&error), "schedules that are due cannot be read; tried again soon");
                    None
                }
            };
            let pause = next.map_or(LONGEST, |next| next.since(clock.now()).min(LONGEST));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.max(Duration::from_millis(5))) => {}
                () = self.schedules.notified() => {}
            }
        }
    }

    /// Does what a schedule that is due has to do. The run is started before that is written down: its id is made from the
    /// time, so that starting it again changes nothing.
    async fn fire(&self, id: &str) -> Result<(), StoreError> {
        let Some(schedule) = self.parts.store.schedule(id).await? else {
            return Ok(());
        };
        let now = self.parts.clock.now();
        let times = match Times::parse(&schedule.cron, &schedule.timezone) {
            Ok(times) => times,
            Err((at, why)) => {
                let mut broken = schedule.clone();
                broken.next_at = None;
                broken.buffered_at = None;
                broken.last_result = format!("cannot be used: {at}: {why}");
                return self.write(broken, schedule.revision).await;
            }
        };
        let open = match &schedule.last_run {
            None => false,
            Some(last) => match self.parts.store.load_runs(std::slice::from_ref(last)).await.pop() {
                Some(Ok(run)) => run.is_some_and(|run| !run.head.status.is_terminal()),
                // What cannot be read is not waited for.
                Some(Err(error)) if error.is_retryable() => return Err(error),
                Some(Err(_)) | None => false,
            },
        };
        let mut step = step(&schedule, &times, now, open);
        if let Some(last) = schedule.last_run.as_ref().filter(|_| step.cancel) {
            let event = Event::Cancel {
                by: format!("schedule:{id}"),
                reason: "the schedule starts another run".to_owned(),
            };
            match self.apply(last, None, event).await {
                Ok(()) | Err(Error::UnknownRun | Error::Refused(_)) => {}
                Err(error) => warn!(schedule = id, run_id = %last, %error, "last run not cancelled"),
            }
        }
        if let Some(at) = step.start {
            let run = run_id(id, at);
            match self.start_run(start_of(&schedule), Some(run)).await {
                Ok(started) => {
                    info!(schedule = id, run_id = %started.run, "started");
                    step.schedule.last_run = Some(started.run);
                    step.schedule.last_at = Some(at);
                    step.schedule.last_result = "started".to_owned();
                }
                // Tried again when the claim is over.
                Err(Error::Store(error)) => {
                    warn!(schedule = id, error = %chain(&*error), "not started; tried again soon");
                    return Ok(());
                }
                Err(Error::Stopping) => return Ok(()),
                Err(refusal) => {
                    warn!(schedule = id, error = %refusal, "not started");
                    step.schedule.last_at = Some(at);
                    step.schedule.last_result = format!("refused: {refusal}");
                }
            }
        }
        if step.schedule == schedule {
            return Ok(());
        }
        self.write(step.schedule, schedule.revision).await
    }

    async fn write(&self, mut schedule: Schedule, expected: u64) -> Result<(), StoreError> {
        schedule.revision = expected + 1;
        // If somebody else was faster, what they wrote counts.
        self.parts.store.put_schedule(&schedule, expected, None).await?;
        Ok(())
    }
}
