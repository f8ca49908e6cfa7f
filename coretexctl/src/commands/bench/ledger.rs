//! When each job was where, as this process saw it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coretex_core::time::{Clock, Timestamp};
use tokio::time::Instant;

/// What is known of one job. Any part may come first: a result can overtake the answer to the submit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// When the submit was due.
    pub(super) due: Option<Instant>,
    /// The same by the wall clock, to compare with what the store recorded.
    pub(super) due_at: Timestamp,
    /// When the submit was answered, or acknowledged by the stream.
    pub(super) accepted: Option<Instant>,
    /// When the worker had it.
    pub(super) worker: Option<Instant>,
    /// When its result was on the bus.
    pub(super) result: Option<Instant>,
}

const SHARDS: usize = 64;

/// The times of all jobs.
#[derive(Debug)]
pub(super) struct Ledger {
    shards: Vec<Mutex<HashMap<String, Times>>>,
    clock: Clock,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            clock: Clock::system(),
        }
    }
}

impl Ledger {
    /// A submit was due at `due`.
    pub(super) fn submitted(&self, id: &str, due: Instant) {
        let due_at = self.clock.now().minus(due.elapsed());
        self.with(id, |times| {
            times.due = Some(due);
            times.due_at = due_at;
        });
    }

    /// A submit was due at `due` and is answered now.
    pub(super) fn accepted(&self, id: &str, due: Instant) {
        self.submitted(id, due);
        let now = Instant::now();
        self.with(id, |times| times.accepted = Some(now));
    }

    /// The worker has it. Only the first time counts.
    pub(super) fn with_worker(&self, id: &str) {
        let now = Instant::now();
        self.with(id, |times| {
            times.worker.get_or_insert(now);
        });
    }

    /// Its result is there. Only the first one counts.
    pub(super) fn result(&self, id: &str) {
        let now = Instant::now();
        self.with(id, |times| {
            times.result.get_or_insert(now);
        });
    }

    /// What is known of a job.
    pub(super) fn get(&self, id: &str) -> Times {
        self.shard(id).get(id).copied().unwrap_or_default()
    }

    fn with(&self, id: &str, change: impl FnOnce(&mut Times)) {
        let mut shard = self.shard(id);
        if let Some(times) = shard.get_mut(id) {
            change(times);
        } else {
            change(shard.entry(id.to_owned()).or_default());
        }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, HashMap<String, Times>> {
        // FNV-1a: enough to spread ids.
        let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        // A panic while a time was written leaves a map that is still one.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_come_in_any_order_and_the_first_counts() {
        let ledger = Ledger::default();
        ledger.result("a");
        ledger.with_worker("a");
        let first = ledger.get("a");
        ledger.result("a");
        ledger.accepted("a", Instant::now());
        let times = ledger.get("a");
        assert_eq!(times.result, first.result);
        assert!(times.due.is_some() && times.accepted.is_some() && times.worker.is_some());
        assert!(ledger.get("b").due.is_none());
    }
}
