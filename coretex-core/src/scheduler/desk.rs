//! What one scheduler keeps in mind. Everything here can be rebuilt from the store and from heartbeats.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::fleet::Fleet;
use super::parked::{Entry, Parked};
use super::placement::Demand;
use crate::jobs::{Note, Revision};
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TraceId, WorkerId};
use crate::time::Timestamp;

/// A job on its way through the scheduler.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub id: JobId,
    pub trace_id: Option<TraceId>,
    pub request: Arc<JobRequest>,
    /// Whether it is PENDING in the store for certain, so that letting it wait needs no commit first.
    pub stored: bool,
    /// Since when it waits, if it does.
    pub since: Timestamp,
    /// A place that is reserved for it already.
    pub reserved: Option<Reserved>,
}

/// A place on a worker, counted but not yet committed.
#[derive(Debug, Clone)]
pub(super) struct Reserved {
    pub worker: Option<WorkerId>,
    pub direct: bool,
    pub confirms: bool,
    pub why: String,
}

/// Through which subject a job was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Worker,
    Topic,
}

/// A job that was placed and is not over.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub worker: Option<WorkerId>,
    pub via: Via,
    pub confirms: bool,
    /// The worker said that it has it.
    pub confirmed: bool,
    pub revision: Revision,
    pub since: Timestamp,
    /// When to ask the worker again.
    pub ask_at: Timestamp,
    pub asked: u32,
    /// Taken over from another process: its worker may not have been heard of yet.
    pub adopted: bool,
}

/// Everything one scheduler keeps in mind.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub fleet: Fleet,
    pub parked: Parked,
    /// Jobs of tenants that are at their limit, oldest first.
    pub limited: HashMap<Arc<str>, VecDeque<(Demand, Entry)>>,
    /// Jobs to look at again at a certain time.
    pub delayed: BTreeMap<(Timestamp, u64), Entry>,
    delayed_ids: std::collections::HashSet<JobId>,
    sequence: u64,
    pub in_flight: HashMap<JobId, InFlight>,
    /// What is to be written down at the next occasion.
    pub notes: Vec<Note>,
}

impl Desk {
    /// How many jobs wait here.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len() + self.delayed.len() + self.limited.values().map(VecDeque::len).sum::<usize>()
    }

    /// Whether this process looks after the job.
    pub(super) fn knows(&self, id: &JobId) -> bool {
        self.in_flight.contains_key(id)
            || self.parked.contains(id)
            || self.delayed_ids.contains(id)
            || self
                .limited
                .values()
                .any(|queue| queue.iter().any(|(_, entry)| entry.id == *id))
    }

    /// Looks at the job again at `at`.
    pub(super) fn delay(&mut self, at: Timestamp, entry: Entry) {
        if self.delayed_ids.insert(entry.id.clone()) {
            self.sequence += 1;
            self.delayed.insert((at, self.sequence), entry);
        }
    }

    /// Takes the jobs whose time has come, at most `max`.
    pub(super) fn take_due(&mut self, now: Timestamp, max: usize) -> Vec<Entry> {
        let mut due = Vec::new();
        while due.len() < max {
            let Some(first) = self.delayed.first_entry() else { break };
            if first.key().0 > now {
                break;
            }
            let entry = first.remove();
            self.delayed_ids.remove(&entry.id);
            due.push(entry);
        }
        due
    }

    /// Lets jobs of a tenant try again, as many as places may have become free.
    pub(super) fn unlimit(&mut self, tenant: &str, max: usize) -> bool {
        let Some(queue) = self.limited.get_mut(tenant) else {
            return false;
        };
        let n = queue.len().min(max);
        let woken: Vec<_> = queue.drain(..n).collect();
        if queue.is_empty() {
            self.limited.remove(tenant);
        }
        for (demand, entry) in woken {
            self.parked.push(demand, entry);
        }
        n > 0
    }

    /// Forgets a placed job and frees its place. Returns it, and the pool that has more room now.
    pub(super) fn settle(&mut self, id: &JobId) -> Option<(InFlight, Option<String>)> {
        let job = self.in_flight.remove(id)?;
        let pool = self.fleet.release(job.worker.as_ref());
        Some((job, pool))
    }
}
