//! Runs whose time has come. See `docs/spec/workflows.md` §6.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Inner;
use super::shard::Input;
use crate::error::chain;
use crate::time::Timestamp;

/// The longest sleep: others may have committed something that is due.
const LONGEST: Duration = Duration::from_secs(1);
/// The shortest, so that a time that has come and cannot be worked off keeps nobody busy.
const SHORTEST: Duration = Duration::from_millis(2);
/// For how long a run that was taken is nobody else's. If this process dies, another comes to it then.
const CLAIM: Duration = Duration::from_secs(10);

/// Wakes the timers earlier than they meant to.
#[derive(Debug)]
pub(super) struct Nudge {
    earliest: AtomicI64,
    notify: Notify,
}

impl Default for Nudge {
    fn default() -> Self {
        Self {
            earliest: AtomicI64::new(i64::MAX),
            notify: Notify::new(),
        }
    }
}

impl Nudge {
    /// Something is due at this time.
    pub(super) fn at(&self, due: Option<Timestamp>) {
        let Some(due) = due else { return };
        if self.earliest.fetch_min(due.micros(), Ordering::Relaxed) > due.micros() {
            self.notify.notify_one();
        }
    }

    fn earliest(&self) -> Option<Timestamp> {
        let micros = self.earliest.load(Ordering::Relaxed);
        (micros != i64::MAX).then(|| Timestamp::from_micros(micros))
    }

    /// What was said so far counts as looked at.
    fn reset(&self) {
        self.earliest.store(i64::MAX, Ordering::Relaxed);
    }
}

impl Inner {
    /// Wakes runs when they are due.
    pub(super) async fn run_timers(self: Arc<Self>, stop: CancellationToken) {
        let clock = &self.parts.clock;
        loop {
            self.nudge.reset();
            let now = clock.now();
            let limit = self.options.due_batch.max(1);
            let claim = self.parts.store.claim_due(now, now.plus(CLAIM), limit).await;
            let next = match claim {
                Ok(due) => {
                    let full = due.ids.len() >= limit;
                    for run in due.ids {
                        let input = Input::Due { run: run.clone() };
                        if self.send(&run, input).await.is_err() {
                            return;
                        }
                    }
                    if full { Some(now) } else { due.next }
                }
                Err(error) => {
                    warn!(error = %chain(&error), "runs that are due cannot be read; tried again soon");
                    None
                }
            };
            // At most this long, and not as long if something committed meanwhile is due before.
            let begun = tokio::time::Instant::now();
            loop {
                let slept = begun.elapsed();
                let due = [next, self.nudge.earliest()].into_iter().flatten().min();
                let pause = due.map_or(LONGEST, |due| due.since(clock.now())).max(SHORTEST);
                let pause = pause.min(LONGEST.saturating_sub(slept));
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => break,
                    () = self.nudge.notify.notified() => {}
                }
            }
        }
    }
}
