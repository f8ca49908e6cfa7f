//! What replicas do for each other, and what one does for jobs it has lost sight of. See `docs/spec/scheduler.md` §8.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Inner;
use super::WorkerLost;
use super::desk::{InFlight, Via};
use super::fleet::Worker;
use super::handover::Handover;
use crate::bus::Health;
use crate::error::{StoreError, chain};
use crate::jobs::{
    Change, Cursor, JobEvent, JobRecord, JobState, JobStoreExt, Note, Outcome, PendingNote, PendingReason, Revision,
    ScanItem, StateSet,
};
use crate::metrics::{JOBS_ADOPTED, JOBS_ASKED_AGAIN, JOBS_REQUEUED};
use crate::protocol::{InstanceId, JobId};
use crate::time::Timestamp;
use crate::workers::LIVENESS;

/// How often a replica says that it is alive, and for how long that holds. Short: taking over from one that only paused
/// does no harm, and every job of one that died waits this long.
const BEAT: Duration = Duration::from_millis(300);
const BEAT_TTL: Duration = Duration::from_millis(1_200);
/// A pending job that nobody looks after for so long is adopted.
const ORPHAN_AGE: Duration = Duration::from_secs(2);
/// How many jobs are looked at in one call.
const PAGE: usize = 500;
/// How often jobs in flight are looked after.
const LOOK: Duration = Duration::from_millis(250);
/// How many workers are asked at once.
const ASK_BATCH: usize = 256;
/// How many jobs are looked up at once whose workers cannot be asked.
const CHECK_BATCH: usize = 1_024;

/// Jobs in flight that something has to be done about.
#[derive(Debug, Default)]
struct Overdue {
    /// To be looked up in the store.
    check: Vec<(JobId, Revision)>,
    /// Whose worker is to be asked.
    ask: Vec<JobId>,
    /// Whose worker is gone.
    lost: Vec<(JobId, InFlight)>,
}

/// Which jobs were seen, at eight bytes each. It may take a few that were not for seen, never the reverse.
#[derive(Debug, Default)]
struct Seen {
    state: RandomState,
    hashes: HashSet<u64>,
}

impl Seen {
    fn extend<'a>(&mut self, ids: impl Iterator<Item = &'a JobId>) {
        let state = &self.state;
        self.hashes.extend(ids.map(|id| state.hash_one(id)));
    }

    fn contains(&self, id: &JobId) -> bool {
        self.hashes.contains(&self.state.hash_one(id))
    }
}

impl Inner {
    /// Says that this replica lives, and takes over from those that do not. Taking over may take long; the others must
    /// not think meanwhile that this one is gone.
    pub(super) async fn keep_membership(self: Arc<Self>) {
        let (seen, live) = watch::channel(HashSet::new());
        tokio::join!(self.beat(seen), self.take_over(live));
    }

    async fn beat(&self, seen: watch::Sender<HashSet<InstanceId>>) {
        let me = &self.options.instance;
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            match self.parts.stores.cluster.beat(me, BEAT_TTL).await {
                Ok(live) => {
                    seen.send_replace(live.into_iter().chain([me.clone()]).collect());
                }
                Err(error) => warn!(error = %chain(&error), "cannot reach the other replicas' store"),
            }
        }
    }

    async fn take_over(self: &Arc<Self>, mut seen: watch::Receiver<HashSet<InstanceId>>) {
        // Everything that nobody alive owns is adopted at the start, later what belonged to replicas that left.
        let mut known: Option<HashSet<InstanceId>> = None;
        let mut watched_until = Timestamp::ZERO;
        let mut look_over_at = Instant::now() + self.options.look_over;
        let mut failed = false;
        // Ends with the other half of the membership, at shutdown.
        while seen.changed().await.is_ok() {
            let live = seen.borrow_and_update().clone();
            let someone_left = known
                .as_ref()
                .is_none_or(|known| known.iter().any(|id| !live.contains(id)));
            let now = self.parts.clock.now();
            let done = if someone_left {
                if !failed {
                    // On a bus that keeps nothing, results of our jobs may have gone to the one that left.
                    self.desk.lock().ask_about_all(now);
                    self.look.notify_one();
                }
                // A job that changed hands while we looked is seen by the watch below.
                watched_until = now.minus(ORPHAN_AGE * 2);
                self.adopt_all(&live).await
            } else if Instant::now() >= look_over_at || self.has_room_again() {
                let started = Instant::now();
                let adopted = self.look_over(&live).await;
                look_over_at = Instant::now() + self.options.look_over.max(started.elapsed() * 20);
                adopted
            } else {
                let until = now.minus(ORPHAN_AGE);
                let adopted = self
                    .adopt(JobState::Pending, &live, Some(watched_until), until, None)
                    .await;
                if adopted.is_ok() {
                    watched_until = until;
                }
                adopted
            };
            failed = done.is_err();
            match done {
                Ok(0) => known = Some(live),
                Ok(adopted) => {
                    info!(adopted, "took over jobs");
                    known = Some(live);
                }
                Err(error) => warn!(error = %chain(&error), "jobs could not be taken over; trying again"),
            }
        }
    }

    async fn adopt_all(self: &Arc<Self>, live: &HashSet<InstanceId>) -> Result<usize, StoreError> {
        let now = self.parts.clock.now();
        let mut adopted = 0;
        for state in [JobState::Running, JobState::Dispatched, JobState::Scheduled] {
            adopted += self.adopt(state, live, None, now, None).await?;
        }
        Ok(adopted + self.adopt(JobState::Pending, live, None, now, None).await?)
    }

    /// Whether jobs that were turned away because too many waited here would find room by now.
    fn has_room_again(&self) -> bool {
        let desk = self.desk.lock();
        desk.overflowed && desk.waiting() <= self.options.max_parked / 4 * 3
    }

    /// Compares what waits here with what is pending in the store: takes what nobody looks after, however it came to that
    /// (turned away, approved without anybody hearing it, stored by a clock that is late), and forgets what is not
    /// pending any more, because it was cancelled, or placed by others.
    async fn look_over(self: &Arc<Self>, live: &HashSet<InstanceId>) -> Result<usize, StoreError> {
        let now = self.parts.clock.now();
        self.desk.lock().overflowed = false;
        let mut pending = Seen::default();
        let adopted = self
            .adopt(JobState::Pending, live, None, now.minus(ORPHAN_AGE), Some(&mut pending))
            .await?;
        if !self.stop.is_cancelled() {
            // What came to wait since, or a moment before by another clock, need not have been seen.
            let recent = now.minus(ORPHAN_AGE * 2);
            self.desk
                .lock()
                .retain_waiting(|entry| entry.since > recent || pending.contains(&entry.id));
        }
        Ok(adopted)
    }

    /// Looks at the jobs in `state` and takes over those that nobody alive looks after.
    async fn adopt(
        self: &Arc<Self>,
        state: JobState,
        live: &HashSet<InstanceId>,
        from: Option<Timestamp>,
        until: Timestamp,
        mut seen: Option<&mut Seen>,
    ) -> Result<usize, StoreError> {
        let me = &self.options.instance;
        let mut adopted = 0;
        let mut after = from.map(|at| Cursor { at, id: String::new() });
        loop {
            let page = self.parts.stores.jobs.scan(state, until, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(adopted) };
            after = Some(Cursor {
                at: last.revision.0,
                id: last.id.as_str().to_owned(),
            });
            let full = page.len() == PAGE;
            if let Some(seen) = &mut seen {
                seen.extend(page.iter().map(|item| &item.id));
            }
            let orphans: Vec<ScanItem> = {
                let mut desk = self.desk.lock();
                let mut orphans: Vec<ScanItem> = page
                    .into_iter()
                    .filter(|item| match &item.owner {
                        // A placed job without an owner belongs to a scheduler that keeps no owners.
                        None => state == JobState::Pending,
                        // Ours, and not on our desk.
                        Some(owner) if owner == me => state == JobState::Pending,
                        Some(owner) => !live.contains(owner),
                    })
                    .filter(|item| !desk.knows(&item.id))
                    .collect();
                if state == JobState::Pending && !orphans.is_empty() && !desk.admits(self.options.max_parked) {
                    orphans.clear();
                }
                orphans
            };
            adopted += orphans.len();
            counter!(JOBS_ADOPTED).increment(u64::try_from(orphans.len()).unwrap_or(0));
            if state == JobState::Pending {
                self.process_stored(orphans).await;
            } else {
                self.adopt_placed(orphans).await?;
            }
            if !full || self.stop.is_cancelled() {
                return Ok(adopted);
            }
        }
    }

    /// Takes over jobs that are with workers, as far as is known.
    async fn adopt_placed(&self, orphans: Vec<ScanItem>) -> Result<(), StoreError> {
        if orphans.is_empty() {
            return Ok(());
        }
        let owned: Vec<Note> = orphans
            .iter()
            .map(|item| Note::Owned {
                id: item.id.clone(),
                owner: self.options.instance.clone(),
            })
            .collect();
        // Tried again here: what was written before it failed is ours by now, and a second look would pass it over.
        let mut attempt = 0;
        while let Err(error) = self.parts.stores.jobs.note_many(&owned).await {
            if !error.is_retryable() {
                return Err(error);
            }
            warn!(error = %chain(&error), attempt, "store does not answer, trying again");
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(super::back_off(attempt)) => attempt += 1,
            }
        }
        let now = self.parts.clock.now();
        let mut desk = self.desk.lock();
        for item in orphans {
            desk.fleet.reserve(item.worker_id.as_ref());
            desk.in_flight.insert(
                item.id,
                InFlight {
                    worker: item.worker_id,
                    via: Via::Worker,
                    confirms: true,
                    confirmed: item.accepted,
                    revision: item.revision,
                    since: now,
                    ask_at: now,
                    asked: 0,
                    adopted: true,
                },
            );
        }
        drop(desk);
        self.look.notify_one();
        Ok(())
    }

    /// Asks workers that should have confirmed, gives up on workers that are gone, and writes notes down.
    pub(super) async fn look_after_in_flight(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut health = self.parts.bus.health();
        // A worker that nobody could have heard is not silent.
        let mut hearing_since = self.parts.clock.now();
        loop {
            let mut reconnected = false;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    reconnected = matches!(*health.borrow_and_update(), Health::Connected { .. });
                }
                () = self.look.notified() => {}
                _ = tick.tick() => {}
            }
            let now = self.parts.clock.now();
            {
                let mut desk = self.desk.lock();
                desk.fleet.purge(now);
                if reconnected {
                    // What was said while nobody could hear it is lost: ask everyone.
                    desk.ask_about_all(now);
                }
                desk.ask_returned(now);
            }
            if reconnected {
                self.call_roll().await;
            }
            self.parts.registry.purge(now);
            self.flush_notes().await;
            if reconnected || !matches!(*health.borrow(), Health::Connected { .. }) {
                hearing_since = now;
            }
            let Overdue { check, ask, lost } = self.overdue(now, hearing_since);
            self.check(check).await;
            self.ask(ask).await;
            for (id, job) in lost {
                self.give_up(&id, &job).await;
            }
        }
    }

    fn overdue(&self, now: Timestamp, hearing_since: Timestamp) -> Overdue {
        let mut overdue = Overdue::default();
        let mut desk = self.desk.lock();
        let desk = &mut *desk;
        for (id, job) in &mut desk.in_flight {
            if now < job.ask_at {
                continue;
            }
            let worker = job.worker.as_ref().and_then(|id| desk.fleet.get(id.as_str()));
            match worker {
                Some(worker) if worker.confirms => {
                    if overdue.ask.len() < ASK_BATCH {
                        job.asked += 1;
                        job.confirms = true;
                        job.ask_at = now.plus(self.next_ask(job));
                        overdue.ask.push(id.clone());
                    }
                }
                // It does not confirm: what it does not say, the time limits will. But somebody else may have heard it.
                Some(_) => {
                    job.confirms = false;
                    if overdue.check.len() < CHECK_BATCH {
                        job.asked = job.asked.saturating_add(1);
                        job.ask_at = now.plus(self.next_ask(job));
                        overdue.check.push((id.clone(), job.revision));
                    }
                }
                None if job.worker.as_ref().is_some_and(|worker| {
                    let last = desk.fleet.last_heard(worker.as_str());
                    self.is_lost(job, last.max(Some(hearing_since)), now)
                }) =>
                {
                    overdue.lost.push((id.clone(), job.clone()));
                }
                None if job.worker.is_none() && overdue.check.len() < CHECK_BATCH => {
                    job.asked = job.asked.saturating_add(1);
                    job.ask_at = now.plus(self.next_ask(job));
                    overdue.check.push((id.clone(), job.revision));
                }
                None => job.ask_at = now.plus(LOOK),
            }
        }
        overdue
    }

    /// Forgets jobs that are not in flight any more, as the store has it.
    async fn check(&self, jobs: Vec<(JobId, Revision)>) {
        if jobs.is_empty() {
            return;
        }
        let (ids, revisions): (Vec<JobId>, Vec<Revision>) = jobs.into_iter().unzip();
        match self.parts.stores.jobs.get_many(&ids).await {
            Ok(records) => {
                for ((id, revision), record) in ids.iter().zip(revisions).zip(&records) {
                    self.release_if_over(id, revision, record.as_ref());
                }
            }
            Err(error) => warn!(error = %chain(&error), "jobs in flight could not be looked at"),
        }
    }

    /// Frees the place of a job that was in flight at `revision`, if the store says that it is over, waits again, or is in
    /// the hands of another replica.
    fn release_if_over(&self, id: &JobId, revision: Revision, record: Option<&JobRecord>) -> bool {
        let over = record.is_none_or(|record| {
            let ours = record
                .owner
                .as_ref()
                .is_none_or(|owner| *owner == self.options.instance);
            record.revision >= revision && !(ours && StateSet::PLACED.contains(Some(record.state)))
        });
        if over {
            self.release(id);
        }
        over
    }

    fn next_ask(&self, job: &InFlight) -> Duration {
        if job.confirmed {
            self.options.ask_running
        } else {
            (self.options.ask_again * (1 << job.asked.min(4))).min(self.options.ask_running)
        }
    }

    /// Whether the worker of this job has been silent for so long that it will not come back.
    fn is_lost(&self, job: &InFlight, last_heard: Option<Timestamp>, now: Timestamp) -> bool {
        if self.options.workers_in_process && job.adopted {
            // It lived in the process that is gone.
            return true;
        }
        let silent_since = last_heard.map_or(job.since, |heard| heard.max(job.since));
        now.since(silent_since) >= LIVENESS + self.options.lost_grace
    }

    /// Hands the same jobs over again. To a worker that confirms, that is a question: it answers with another
    /// confirmation, with the result it has, or by running the job that never reached it.
    async fn ask(&self, ids: Vec<JobId>) {
        if ids.is_empty() {
            return;
        }
        let Some(requests) = self.read_requests(&ids).await else {
            return;
        };
        let records = match self.parts.stores.jobs.get_many(&ids).await {
            Ok(records) => records,
            Err(error) => {
                warn!(error = %chain(&error), "workers could not be asked");
                return;
            }
        };
        let mut handovers = Vec::new();
        for ((id, request), record) in ids.into_iter().zip(requests).zip(records) {
            let revision = self.desk.lock().in_flight.get(&id).map(|job| job.revision);
            let Some(revision) = revision else { continue };
            if self.release_if_over(&id, revision, record.as_ref()) {
                continue;
            }
            // Without its request it cannot be asked for: the time limits decide.
            let (Some(request), Some(record)) = (request, record) else {
                continue;
            };
            let Some(job) = self.desk.lock().in_flight.get(&id).cloned() else {
                continue;
            };
            counter!(JOBS_ASKED_AGAIN).increment(1);
            let outgoing = Box::new(self.outgoing_again(&Arc::new(request), &record).await);
            handovers.push(Handover {
                id,
                trace_id: record.trace_id,
                outgoing,
                job: InFlight {
                    via: Via::Worker,
                    ..job
                },
                again: true,
            });
        }
        self.hand_over(handovers).await;
    }

    /// The worker is gone: its job is placed again, or is over. See `docs/spec/scheduler.md` §8.
    async fn give_up(&self, id: &JobId, job: &InFlight) {
        let Some(mut requests) = self.read_requests(std::slice::from_ref(id)).await else {
            return;
        };
        let request = requests.pop().flatten();
        let record = match self.parts.stores.jobs.get(id).await {
            Ok(record) => record,
            Err(error) => {
                warn!(job_id = %id, error = %chain(&error), "lost worker's job could not be read");
                return;
            }
        };
        let Some(record) = record.filter(|record| !record.state.is_terminal()) else {
            self.release(id);
            return;
        };
        let accepted = job.confirmed || record.accepted_at.is_some();
        let idempotent = request
            .as_ref()
            .and_then(|request| request.labels.get("coretex.idempotent"))
            .is_some_and(|value| value == "true");
        let again = match self.options.worker_lost {
            WorkerLost::Judge => (!accepted && job.confirms) || idempotent,
            WorkerLost::Redispatch => true,
            WorkerLost::Fail => false,
            WorkerLost::Wait => {
                self.look_later(id);
                return;
            }
        };
        // A worker that never confirms may well be running it: without a word of its own, the time limits decide.
        if self.options.worker_lost == WorkerLost::Judge && !job.confirms && !idempotent {
            self.look_later(id);
            return;
        }
        let worker = job.worker.as_ref().map_or("", |worker| worker.as_str());
        if again {
            self.requeue(id, PendingReason::WorkerLost, format!("worker {worker} is gone"))
                .await;
        } else {
            let message = format!("worker {worker} was lost while it had the job");
            self.expire(vec![id.clone()], self.parts.clock.now(), "worker_lost", &message)
                .await;
        }
    }

    fn look_later(&self, id: &JobId) {
        let at = self.parts.clock.now().plus(self.options.ask_running);
        if let Some(job) = self.desk.lock().in_flight.get_mut(id) {
            job.ask_at = at;
        }
    }

    /// Takes a placed job back to wait again, unless it has moved on since.
    pub(super) async fn requeue(&self, id: &JobId, reason: PendingReason, why: String) {
        let Some(job) = self.desk.lock().in_flight.get(id).cloned() else {
            return;
        };
        let now = self.parts.clock.now();
        let mut change = Change::new(id.clone(), JobEvent::Requeue, now);
        change.expected = Some(job.revision);
        change.owner = Some(self.options.instance.clone());
        change.pending = Some(PendingNote { reason, detail: why });
        let outcome = self.commit(&[change]).await.pop().flatten();
        let Some(outcome) = outcome else { return };
        self.release(id);
        if let Outcome::Applied(applied) = outcome {
            counter!(JOBS_REQUEUED, "reason" => reason.as_str()).increment(1);
            let ids = [id.clone()];
            let Some(Some(request)) = self.read_requests(&ids).await.and_then(|mut found| found.pop()) else {
                return;
            };
            let entry = self.entry_of(id, applied.trace_id, &request, now);
            // A worker that only seems to listen is not tried again in a tight loop.
            let pause = if reason == PendingReason::NoListener {
                LOOK
            } else {
                Duration::ZERO
            };
            {
                let mut desk = self.desk.lock();
                if desk.admits(self.options.max_parked) {
                    desk.delay(now.plus(pause), entry);
                }
            }
            self.room.notify_one();
        }
    }

    /// Writes down what was learned; what the store does not take now is tried again later.
    pub(super) async fn flush_notes(&self) {
        loop {
            let notes: Vec<Note> = {
                let mut desk = self.desk.lock();
                let n = desk.notes.len().min(PAGE);
                desk.notes.drain(..n).collect()
            };
            if notes.is_empty() {
                return;
            }
            if let Err(error) = self.parts.stores.jobs.note_many(&notes).await {
                warn!(error = %chain(&error), "notes could not be written");
                let mut desk = self.desk.lock();
                // Bounded: notes only help people and restarts, and the next look renews the important ones.
                if error.is_retryable() && desk.notes.len() < self.options.max_parked {
                    desk.notes.extend(notes);
                }
                return;
            }
        }
    }

    /// The live workers, for the snapshot.
    pub(super) fn live_workers(&self) -> Vec<Worker> {
        self.desk.lock().fleet.iter().cloned().collect()
    }
}
