//! What replicas do for each other, and what one does for jobs it has lost sight of. See `docs/spec/scheduler.md` §8.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tracing::{info, warn};

use super::Inner;
use super::WorkerLost;
use super::desk::{InFlight, Via};
use super::fleet::Worker;
use super::intake::Handover;
use crate::bus::Health;
use crate::error::{StoreError, chain};
use crate::jobs::{Change, Cursor, JobEvent, JobState, Note, Outcome, PendingNote, PendingReason, ScanItem};
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
/// How often a worker that confirmed a job is asked whether it still has it: its result may have been lost on the way.
pub(super) const ASK_RUNNING: Duration = Duration::from_secs(20);
/// How many workers are asked at once.
const ASK_BATCH: usize = 256;

impl Inner {
    /// Says that this replica lives, and takes over from those that do not.
    pub(super) async fn keep_membership(self: Arc<Self>) {
        let me = &self.options.instance;
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Everything that nobody alive owns is adopted at the start, later what belonged to replicas that left.
        let mut known: Option<HashSet<InstanceId>> = None;
        let mut watched_until = Timestamp::ZERO;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let live: HashSet<InstanceId> = match self.parts.stores.cluster.beat(me, BEAT_TTL).await {
                Ok(live) => live.into_iter().chain([me.clone()]).collect(),
                Err(error) => {
                    warn!(error = %chain(&error), "cannot reach the other replicas' store");
                    continue;
                }
            };
            let someone_left = known
                .as_ref()
                .is_none_or(|known| known.iter().any(|id| !live.contains(id)));
            let now = self.parts.clock.now();
            let done = if someone_left {
                // A job that changed hands while we looked is seen by the watch below.
                watched_until = now.minus(ORPHAN_AGE * 2);
                self.adopt_all(&live).await
            } else {
                let until = now.minus(ORPHAN_AGE);
                let adopted = self.adopt(JobState::Pending, &live, Some(watched_until), until).await;
                if adopted.is_ok() {
                    watched_until = until;
                }
                adopted
            };
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
            adopted += self.adopt(state, live, None, now).await?;
        }
        Ok(adopted + self.adopt(JobState::Pending, live, None, now).await?)
    }

    /// Looks at the jobs in `state` and takes over those that nobody alive looks after.
    async fn adopt(
        self: &Arc<Self>,
        state: JobState,
        live: &HashSet<InstanceId>,
        from: Option<Timestamp>,
        until: Timestamp,
    ) -> Result<usize, StoreError> {
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
            let orphans: Vec<ScanItem> = {
                let desk = self.desk.lock();
                page.into_iter()
                    .filter(|item| item.owner.as_ref().is_none_or(|owner| !live.contains(owner)))
                    .filter(|item| !desk.knows(&item.id))
                    // A placed job without an owner belongs to a scheduler that keeps no owners.
                    .filter(|item| state == JobState::Pending || item.owner.is_some())
                    .collect()
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
        self.parts.stores.jobs.note_many(&owned).await?;
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
                    for job in desk.in_flight.values_mut() {
                        job.ask_at = now;
                    }
                }
            }
            self.parts.registry.purge(now);
            self.flush_notes().await;
            let (ask, lost) = self.overdue(now);
            self.ask(ask).await;
            for (id, job) in lost {
                self.give_up(&id, &job).await;
            }
        }
    }

    /// Jobs whose worker is to be asked, and jobs whose worker is gone.
    fn overdue(&self, now: Timestamp) -> (Vec<JobId>, Vec<(JobId, InFlight)>) {
        let mut ask = Vec::new();
        let mut lost = Vec::new();
        let mut desk = self.desk.lock();
        let desk = &mut *desk;
        for (id, job) in &mut desk.in_flight {
            if now < job.ask_at {
                continue;
            }
            let worker = job.worker.as_ref().and_then(|id| desk.fleet.get(id.as_str()));
            match worker {
                Some(worker) if worker.confirms => {
                    if ask.len() < ASK_BATCH {
                        job.asked += 1;
                        job.confirms = true;
                        job.ask_at = now.plus(self.next_ask(job));
                        ask.push(id.clone());
                    }
                }
                // It does not confirm: what it does not say, the time limits will.
                Some(_) => {
                    job.confirms = false;
                    job.ask_at = now.plus(ASK_RUNNING);
                }
                None if job.worker.is_some() && self.is_lost(job, now) => lost.push((id.clone(), job.clone())),
                None => job.ask_at = now.plus(LOOK),
            }
        }
        (ask, lost)
    }

    fn next_ask(&self, job: &InFlight) -> Duration {
        if job.confirmed {
            ASK_RUNNING
        } else {
            (self.options.ask_again * (1 << job.asked.min(4))).min(ASK_RUNNING)
        }
    }

    /// Whether the worker of this job has been silent for so long that it will not come back.
    fn is_lost(&self, job: &InFlight, now: Timestamp) -> bool {
        if self.options.workers_in_process && job.adopted {
            // It lived in the process that is gone.
            return true;
        }
        now.since(job.since) >= LIVENESS + self.options.lost_grace
    }

    /// Hands the same jobs over again. To a worker that confirms, that is a question: it answers with another
    /// confirmation, with the result it has, or by running the job that never reached it.
    async fn ask(&self, ids: Vec<JobId>) {
        if ids.is_empty() {
            return;
        }
        let (requests, records) = match (
            self.parts.stores.jobs.requests(&ids).await,
            self.parts.stores.jobs.get_many(&ids).await,
        ) {
            (Ok(requests), Ok(records)) => (requests, records),
            (Err(error), _) | (_, Err(error)) => {
                warn!(error = %chain(&error), "workers could not be asked");
                return;
            }
        };
        let mut handovers = Vec::new();
        for ((id, request), record) in ids.into_iter().zip(requests).zip(records) {
            let (Some(request), Some(record)) = (request, record) else {
                self.release(&id);
                continue;
            };
            if record.state.is_terminal() || record.state == JobState::Pending {
                // Another replica heard the result, or took the job back.
                self.release(&id);
                continue;
            }
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
            });
        }
        self.hand_over(handovers).await;
    }

    /// The worker is gone: its job is placed again, or is over. See `docs/spec/scheduler.md` §8.
    async fn give_up(&self, id: &JobId, job: &InFlight) {
        let (request, record) = match (
            self.parts.stores.jobs.requests(std::slice::from_ref(id)).await,
            self.parts.stores.jobs.get_many(std::slice::from_ref(id)).await,
        ) {
            (Ok(mut requests), Ok(mut records)) => (requests.pop().flatten(), records.pop().flatten()),
            (Err(error), _) | (_, Err(error)) => {
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
        let at = self.parts.clock.now().plus(ASK_RUNNING);
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
            self.desk.lock().delay(now.plus(pause), entry);
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
                if desk.notes.len() < self.options.max_parked {
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
