//! Which jobs this worker has, and which it had: what makes a repeated message harmless.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use coretex_core::protocol::JobId;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the result of a finished job is kept for repeats.
pub(crate) const KEEP: Duration = Duration::from_secs(600);
/// How many finished jobs are kept at most.
pub(crate) const KEEP_JOBS: usize = 10_000;
/// How many bytes of results are kept at most.
pub(crate) const KEEP_BYTES: usize = 16 << 20;
/// How many cancel requests for jobs that have not arrived are remembered.
const KEEP_CANCELS: usize = 10_000;
/// How long they are remembered. A cancel can overtake its job, but not by much.
const KEEP_CANCEL: Duration = Duration::from_secs(60);

/// Why a job is to stop before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody cancelled it.
    Cancelled {
        /// Why, in words; may be empty.
        reason: String,
    },
    /// Its deadline passed.
    Deadline,
    /// The worker stops, and the grace period is over.
    WorkerStopped,
}

/// The brake of one job.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    pub(crate) token: CancellationToken,
    reason: OnceLock<StopReason>,
}

impl Brake {
    /// Pulls the brake. The first reason stays.
    pub(crate) fn pull(&self, reason: StopReason) {
        // The reason goes first, so that whoever sees the token cancelled finds it.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(crate) fn reason(&self) -> Option<&StopReason> {
        self.reason.get()
    }
}

/// What to do with a job that arrived.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is new: run it.
    New(Arc<Brake>),
    /// It came before.
    Known(Known),
}

/// What is known of a job that comes again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is here already: say so again.
    Active,
    /// It was done before: send this packet again.
    Finished(Bytes),
}

#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    jobs: HashMap<JobId, Entry>,
    active: usize,
    /// Active jobs in order of arrival that nothing was heard of yet.
    silent: VecDeque<(Instant, JobId)>,
    finished: VecDeque<(Instant, JobId)>,
    finished_bytes: usize,
    cancels: VecDeque<(Instant, JobId)>,
}

#[derive(Debug)]
enum Entry {
    Active {
        brake: Arc<Brake>,
        trace_id: String,
    },
    Finished(Bytes),
    /// Cancelled before it arrived.
    Cancelled(String),
}

impl Ledger {
    /// Takes a job in, unless it is known.
    pub(crate) fn admit(&self, id: &JobId, trace_id: &str, now: Instant) -> Admission {
        let mut inner = self.0.lock();
        let brake = match inner.jobs.get(id) {
            Some(Entry::Active { .. }) => return Admission::Known(Known::Active),
            Some(Entry::Finished(packet)) => return Admission::Known(Known::Finished(packet.clone())),
            Some(Entry::Cancelled(reason)) => {
                let brake = Brake::default();
                brake.pull(StopReason::Cancelled { reason: reason.clone() });
                Arc::new(brake)
            }
            None => Arc::default(),
        };
        let entry = Entry::Active {
            brake: Arc::clone(&brake),
            trace_id: trace_id.to_owned(),
        };
        inner.jobs.insert(id.clone(), entry);
        inner.active += 1;
        inner.silent.push_back((now, id.clone()));
        Admission::New(brake)
    }

    /// What is known of a job; `None` if it would be new.
    pub(crate) fn look_up(&self, id: &JobId) -> Option<Known> {
        match self.0.lock().jobs.get(id) {
            Some(Entry::Active { .. }) => Some(Known::Active),
            Some(Entry::Finished(packet)) => Some(Known::Finished(packet.clone())),
            Some(Entry::Cancelled(_)) | None => None,
        }
    }

    /// Keeps the result of an active job.
    pub(crate) fn finish(&self, id: &JobId, packet: Bytes, now: Instant) {
        let mut inner = self.0.lock();
        inner.finished_bytes += packet.len();
        if let Some(Entry::Active { .. }) = inner.jobs.insert(id.clone(), Entry::Finished(packet)) {
            inner.active -= 1;
        }
        inner.finished.push_back((now, id.clone()));
        inner.evict(now);
    }

    /// Stops a job, now or when it arrives. Whether it is here.
    pub(crate) fn cancel(&self, id: &JobId, reason: &str, now: Instant) -> bool {
        let mut inner = self.0.lock();
        match inner.jobs.get(id) {
            Some(Entry::Active { brake, .. }) => {
                brake.pull(StopReason::Cancelled {
                    reason: reason.to_owned(),
                });
                true
            }
            Some(Entry::Finished(_) | Entry::Cancelled(_)) => false,
            None => {
                inner.jobs.insert(id.clone(), Entry::Cancelled(reason.to_owned()));
                inner.cancels.push_back((now, id.clone()));
                inner.evict(now);
                false
            }
        }
    }

    /// Stops all active jobs.
    pub(crate) fn stop_all(&self, reason: &StopReason) {
        for entry in self.0.lock().jobs.values() {
            if let Entry::Active { brake, .. } = entry {
                brake.pull(reason.clone());
            }
        }
    }

    /// How many jobs are running or waiting for a slot.
    pub(crate) fn active(&self) -> usize {
        self.0.lock().active
    }

    /// The active jobs that arrived before `before` and were not in an answer to this yet, with their traces.
    pub(crate) fn take_silent(&self, before: Instant) -> Vec<(JobId, String)> {
        let mut inner = self.0.lock();
        let mut due = Vec::new();
        while inner.silent.front().is_some_and(|(at, _)| *at <= before)
            && let Some((_, id)) = inner.silent.pop_front()
        {
            if let Some(Entry::Active { trace_id, .. }) = inner.jobs.get(&id) {
                due.push((id, trace_id.clone()));
            }
        }
        due
    }

    /// The results of jobs that finished after `after`, oldest first.
    pub(crate) fn finished_since(&self, after: Instant) -> Vec<Bytes> {
        let inner = self.0.lock();
        let recent = inner.finished.iter().rev().take_while(|(at, _)| *at > after);
        let mut packets: Vec<Bytes> = recent
            .filter_map(|(_, id)| match inner.jobs.get(id) {
                Some(Entry::Finished(packet)) => Some(packet.clone()),
                _ => None,
            })
            .collect();
        packets.reverse();
        packets
    }
}

impl Inner {
    /// Forgets what is too old or too much.
    fn evict(&mut self, now: Instant) {
        while let Some((at, _)) = self.finished.front()
            && (self.finished.len() > KEEP_JOBS || self.finished_bytes > KEEP_BYTES || now.duration_since(*at) > KEEP)
            && let Some((_, id)) = self.finished.pop_front()
        {
            if let Some(Entry::Finished(packet)) = self.jobs.remove(&id) {
                self.finished_bytes -= packet.len();
            }
        }
        while let Some((at, _)) = self.cancels.front()
            && (self.cancels.len() > KEEP_CANCELS || now.duration_since(*at) > KEEP_CANCEL)
            && let Some((_, id)) = self.cancels.pop_front()
        {
            // The job may have arrived in the meantime; then the entry is its own.
            if matches!(self.jobs.get(&id), Some(Entry::Cancelled(_))) {
                self.jobs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        text.parse().unwrap()
    }

    #[test]
    fn a_job_is_new_once() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        assert!(matches!(ledger.admit(&id("a"), "t", now), Admission::New(_)));
        assert!(matches!(
            ledger.admit(&id("a"), "t", now),
            Admission::Known(Known::Active)
        ));
        assert_eq!(ledger.active(), 1);
        ledger.finish(&id("a"), Bytes::from_static(b"done"), now);
        assert_eq!(ledger.active(), 0);
        assert_eq!(
            ledger.look_up(&id("a")),
            Some(Known::Finished(Bytes::from_static(b"done")))
        );
        assert!(matches!(
            ledger.admit(&id("a"), "t", now),
            Admission::Known(Known::Finished(_))
        ));
        assert_eq!(ledger.active(), 0);
    }

    #[test]
    fn results_are_forgotten_by_age_by_count_and_by_size() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let run = |name: &str, bytes: usize, at| {
            ledger.admit(&id(name), "", at);
            ledger.finish(&id(name), Bytes::from(vec![0; bytes]), at);
        };
        let known = |name: &str| ledger.0.lock().jobs.contains_key(&id(name));
        run("old", 1, now);
        run("young", 1, now + KEEP + Duration::from_secs(1));
        assert!(!known("old") && known("young"));

        let later = now + KEEP * 3;
        for n in 0..=KEEP_JOBS {
            run(&n.to_string(), 1, later);
        }
        assert!(!known("0") && known("1"));
        run("large", KEEP_BYTES - 1, later);
        assert!(known("large") && known(&KEEP_JOBS.to_string()) && !known("1"));
        assert_eq!(ledger.0.lock().finished_bytes, KEEP_BYTES);
    }

    #[test]
    fn a_cancel_may_come_before_its_job() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        assert!(!ledger.cancel(&id("a"), "changed my mind", now));
        let Admission::New(brake) = ledger.admit(&id("a"), "", now) else {
            panic!("the job is new");
        };
        assert!(brake.token.is_cancelled());
        let reason = "changed my mind".to_owned();
        assert_eq!(brake.reason(), Some(&StopReason::Cancelled { reason }));
    }

    #[test]
    fn cancels_of_other_workers_jobs_do_not_pile_up() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        for n in 0..KEEP_CANCELS + 5 {
            ledger.cancel(&id(&n.to_string()), "", now);
        }
        assert_eq!(ledger.0.lock().jobs.len(), KEEP_CANCELS);
        ledger.cancel(&id("last"), "", now + KEEP_CANCEL + Duration::from_secs(1));
        assert_eq!(ledger.0.lock().jobs.len(), 1);
    }

    #[test]
    fn only_jobs_that_are_still_active_are_silent_for_long() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.admit(&id("short"), "", now);
        ledger.admit(&id("long"), "trace", now);
        ledger.admit(&id("new"), "", now + Duration::from_secs(1));
        ledger.finish(&id("short"), Bytes::new(), now);
        assert_eq!(ledger.take_silent(now), [(id("long"), "trace".to_owned())]);
        assert_eq!(ledger.take_silent(now), []);
    }

    #[test]
    fn the_first_reason_to_stop_stays() {
        let brake = Brake::default();
        brake.pull(StopReason::Deadline);
        brake.pull(StopReason::WorkerStopped);
        assert_eq!(brake.reason(), Some(&StopReason::Deadline));
    }
}
