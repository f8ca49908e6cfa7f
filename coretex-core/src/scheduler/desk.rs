//! What one scheduler keeps in mind. Everything here can be rebuilt from the store and from heartbeats.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::fleet::Fleet;
use super::parked::{Class, Entry, Parked};
use super::placement::Demand;
use crate::jobs::{Note, PendingReason, Revision};
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
    /// What it was last held for; see [`Entry::held`].
    pub held: Option<PendingReason>,
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

/// Waiting jobs of one tenant, by urgency and age.
type Limited = BTreeMap<(Class, Timestamp, u64), (Demand, Entry)>;

/// Everything one scheduler keeps in mind.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub fleet: Fleet,
    pub parked: Parked,
    /// Jobs of tenants that are at their limit, most urgent first, then oldest.
    pub limited: HashMap<Arc<str>, Limited>,
    /// Jobs to look at again at a certain time.
    delayed: BTreeMap<(Timestamp, u64), Entry>,
    /// The jobs in the two above.
    aside: HashSet<JobId>,
    sequence: u64,
    /// A job was turned away because too many wait here. It is PENDING in the store.
    pub overflowed: bool,
    pub in_flight: HashMap<JobId, InFlight>,
    /// Workers with jobs of ours that were silent and have just been heard of; empty for one without an id.
    pub returned: HashSet<String>,
    /// What is to be written down at the next occasion.
    pub notes: Vec<Note>,
}

impl Desk {
    /// How many jobs wait here.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len() + self.aside.len()
    }

    /// Whether this process looks after the job.
    pub(super) fn knows(&self, id: &JobId) -> bool {
        self.in_flight.contains_key(id) || self.parked.contains(id) || self.aside.contains(id)
    }

    /// Whether one more job may wait here, of at most `max`. If not, it is remembered that one was turned away.
    pub(super) fn admits(&mut self, max: usize) -> bool {
        let admits = self.waiting() < max;
        self.overflowed |= !admits;
        admits
    }

    /// Lets a job wait until its tenant has fewer jobs running.
    pub(super) fn limit(&mut self, demand: Demand, entry: Entry) {
        if self.aside.insert(entry.id.clone()) {
            self.sequence += 1;
            let key = (entry.class, entry.since, self.sequence);
            self.limited
                .entry(Arc::clone(&entry.tenant))
                .or_default()
                .insert(key, (demand, entry));
        }
    }

    /// Forgets the waiting jobs that `keep` refuses.
    pub(super) fn retain_waiting(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.parked.retain(&keep);
        let aside = &mut self.aside;
        let mut keep = |entry: &Entry| {
            let kept = keep(entry);
            if !kept {
                aside.remove(&entry.id);
            }
            kept
        };
        self.delayed.retain(|_, entry| keep(entry));
        self.limited.retain(|_, queue| {
            queue.retain(|_, (_, entry)| keep(entry));
            !queue.is_empty()
        });
    }

    /// Looks at the job again at `at`.
    pub(super) fn delay(&mut self, at: Timestamp, entry: Entry) {
        if self.aside.insert(entry.id.clone()) {
            self.sequence += 1;
            self.delayed.insert((at, self.sequence), entry);
        }
    }

    /// Whether there is a job whose time has come.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.delayed.first_key_value().is_some_and(|((at, _), _)| *at <= now)
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
            self.aside.remove(&entry.id);
            due.push(entry);
        }
        due
    }

    /// Lets jobs of a tenant try again, as many as places may have become free.
    pub(super) fn unlimit(&mut self, tenant: &str, max: usize) -> bool {
        let Some(queue) = self.limited.get_mut(tenant) else {
            return false;
        };
        let mut woken = 0;
        while woken < max
            && let Some((_, (demand, entry))) = queue.pop_first()
        {
            self.aside.remove(&entry.id);
            self.parked.push(demand, entry);
            woken += 1;
        }
        if queue.is_empty() {
            self.limited.remove(tenant);
        }
        woken > 0
    }

    /// Makes every job in flight one to ask about now.
    pub(super) fn ask_about_all(&mut self, now: Timestamp) {
        for job in self.in_flight.values_mut() {
            job.ask_at = now;
        }
    }

    /// The same for the jobs of workers that came back.
    pub(super) fn ask_returned(&mut self, now: Timestamp) {
        let returned = std::mem::take(&mut self.returned);
        if returned.is_empty() {
            return;
        }
        for job in self.in_flight.values_mut() {
            if returned.contains(job.worker.as_ref().map_or("", WorkerId::as_str)) {
                job.ask_at = now;
            }
        }
    }

    /// Forgets a placed job and frees its place. Returns it, and the pool that has more room now.
    pub(super) fn settle(&mut self, id: &JobId) -> Option<(InFlight, Option<String>)> {
        let job = self.in_flight.remove(id)?;
        let pool = self.fleet.release(job.worker.as_ref());
        Some((job, pool))
    }
}
