//! Submitted and waiting jobs: judge, place, commit, hand over. See `docs/spec/scheduler.md` §1.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use tracing::{debug, warn};

use super::decide::{Verdict, claims_approval, tenant_of};
use super::desk::{InFlight, Item, Reserved, Via};
use super::parked::{Class, Entry};
use super::placement::{Demand, Placement, place};
use super::{Inner, gauge, signals};
use crate::bus::{self, Delivery, Message, SubscribeOptions, Subscription};
use crate::error::chain;
use crate::jobs::{
    Applied, Change, JobEvent, JobRecord, JobState, JobStoreExt, Note, Outcome, PendingNote, PendingReason,
    RequestWrite, Slot, TerminalDetail,
};
use crate::metrics::{JOBS_COMPLETED, JOBS_DISPATCHED, JOBS_RECEIVED, PACKETS_INVALID, SAFETY_DENIED};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobRequest, JobResult};
use crate::protocol::{JobId, TraceId, encode_packet, packet, subjects};
use crate::time::Timestamp;

/// How long a throttled job waits before policy is asked again.
const THROTTLE_PAUSE: Duration = Duration::from_secs(5);
/// How long a job waits before a policy that could not be asked is asked again.
const POLICY_PAUSE: Duration = Duration::from_secs(1);
/// How many waiting jobs are taken at once.
const WAKE_BATCH: usize = 128;

/// A change on its way to the store, and what follows once it is there.
#[derive(Debug)]
struct Plan {
    item: Item,
    change: Change,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Dispatch {
        outgoing: Box<JobRequest>,
        place: Reserved,
    },
    Park {
        demand: Demand,
    },
    Delay {
        until: Timestamp,
        held: Option<PendingReason>,
    },
    Approval,
    Denied {
        reason: String,
    },
    Failed {
        code: &'static str,
        message: String,
    },
}

/// Whether the sender is a gateway, which stores a job before it publishes it.
fn is_gateway(sender: &str) -> bool {
    sender.starts_with(subjects::GATEWAY)
}

impl Inner {
    pub(super) async fn subscribe_submit(&self) -> Result<Subscription, bus::Error> {
        self.parts
            .bus
            .subscribe(subjects::SUBMIT, SubscribeOptions::queue(subjects::SCHEDULER))
            .await
    }

    /// Takes submissions until the end, several batches at a time.
    pub(super) async fn take_submissions(self: Arc<Self>, mut submissions: Subscription) {
        loop {
            let Ok(permit) = Arc::clone(&self.intake).acquire_owned().await else {
                return;
            };
            let batch = self.next_batch(&mut submissions).await;
            if batch.is_empty() {
                return;
            }
            let this = Arc::clone(&self);
            self.tasks.spawn(async move {
                this.submit_batch(batch).await;
                drop(permit);
            });
        }
    }

    async fn submit_batch(self: &Arc<Self>, batch: Vec<Delivery>) {
        let now = self.parts.clock.now();
        let mut items = Vec::with_capacity(batch.len());
        let mut deliveries = Vec::with_capacity(batch.len());
        for delivery in batch {
            match read_submission(&delivery, now) {
                Some(item) => {
                    items.push(item);
                    deliveries.push(delivery);
                }
                None => signals::settle(delivery).await,
            }
        }
        let ids: Vec<JobId> = items.iter().map(|item| item.id.clone()).collect();
        let untaken = self.process(items).await;
        for (id, delivery) in ids.iter().zip(deliveries) {
            // The others come again, alone.
            if !untaken.contains(id) {
                signals::settle(delivery).await;
            }
        }
    }

    /// Serves waiting jobs whenever there may be room, and those whose pause is over.
    pub(super) async fn serve_waiting(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.room.notified() => {}
                _ = tick.tick() => self.let_in(),
            }
            self.serve_due().await;
            loop {
                let Ok(permit) = Arc::clone(&self.intake).acquire_owned().await else {
                    return;
                };
                let taken = self.take_placeable();
                if taken.is_empty() || self.stop.is_cancelled() {
                    self.put_back(taken);
                    break;
                }
                let this = Arc::clone(&self);
                self.tasks.spawn(async move {
                    this.resume(taken).await;
                    drop(permit);
                });
            }
        }
    }

    fn take_placeable(&self) -> Vec<(Entry, Reserved)> {
        let routing = self.routing.load();
        let mut desk = self.desk.lock();
        let desk = &mut *desk;
        // While nobody takes anything, which is when most jobs wait, there is no need to ask for each.
        if desk.parked.is_empty() || !desk.fleet.has_room() {
            return Vec::new();
        }
        let fleet = &mut desk.fleet;
        desk.parked
            .take(WAKE_BATCH, |demand| match place(demand, &routing, fleet) {
                Placement::On {
                    worker,
                    direct,
                    confirms,
                    why,
                } => {
                    fleet.reserve(worker.as_ref());
                    Some(Reserved {
                        worker,
                        direct,
                        confirms,
                        why,
                    })
                }
                Placement::Wait { .. } | Placement::Impossible { .. } => None,
            })
    }

    fn put_back(&self, taken: Vec<(Entry, Reserved)>) {
        let mut desk = self.desk.lock();
        for (_, place) in taken {
            // Only at shutdown: the job is PENDING in the store, and its place is given back.
            desk.fleet.release(place.worker.as_ref());
        }
    }

    /// Moves jobs whose turn may have come: of tenants that may have room again, and old ones upwards.
    fn let_in(&self) {
        let now = self.parts.clock.now();
        let mut desk = self.desk.lock();
        let tenants: Vec<Arc<str>> = desk.limited.keys().cloned().collect();
        for tenant in tenants {
            // Other replicas free places as well, unseen from here: let one job find out.
            desk.unlimit(&tenant, 1);
        }
        desk.parked.age(now);
        gauge(&desk);
    }

    /// Looks again at the jobs whose pause is over.
    async fn serve_due(self: &Arc<Self>) {
        let now = self.parts.clock.now();
        while self.desk.lock().is_due(now) && !self.stop.is_cancelled() {
            let Ok(permit) = Arc::clone(&self.intake).acquire_owned().await else {
                return;
            };
            let due = self.desk.lock().take_due(now, WAKE_BATCH);
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                let items = this.reload(due.into_iter().map(|entry| (entry, None)).collect()).await;
                this.process(items).await;
                drop(permit);
            });
            // As long as policy does not answer, a few jobs find out for all.
            if self.unjudged.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn resume(self: &Arc<Self>, taken: Vec<(Entry, Reserved)>) {
        let items = self
            .reload(taken.into_iter().map(|(entry, place)| (entry, Some(place))).collect())
            .await;
        self.process(items).await;
    }

    /// Makes items of waiting jobs again; reads the requests that were not kept. A job whose request is gone is forgotten
    /// here: whoever looks over the store deals with it.
    async fn reload(&self, entries: Vec<(Entry, Option<Reserved>)>) -> Vec<Item> {
        let missing: Vec<JobId> = entries
            .iter()
            .filter(|(entry, _)| entry.request.is_none())
            .map(|(entry, _)| entry.id.clone())
            .collect();
        let mut read = match self.read_requests(&missing).await {
            Some(requests) => missing
                .into_iter()
                .zip(requests)
                .collect::<std::collections::HashMap<_, _>>(),
            None => std::collections::HashMap::new(),
        };
        let mut items = Vec::with_capacity(entries.len());
        for (entry, reserved) in entries {
            let request = match &entry.request {
                Some(bytes) => JobRequest::decode(bytes.clone()).ok(),
                None => read.remove(&entry.id).flatten(),
            };
            match request {
                Some(request) => items.push(Item {
                    id: entry.id,
                    trace_id: entry.trace_id,
                    request: Arc::new(request),
                    stored: true,
                    since: entry.since,
                    held: entry.held,
                    reserved,
                }),
                None => {
                    warn!(job_id = %entry.id, "the request of a waiting job is gone");
                    if let Some(place) = reserved {
                        self.desk.lock().fleet.release(place.worker.as_ref());
                    }
                }
            }
        }
        items
    }

    /// Reads requests, trying again until the store answers; `None` at shutdown. A request that is not there, or cannot be
    /// read at all, is `None` in it.
    pub(super) async fn read_requests(&self, ids: &[JobId]) -> Option<Vec<Option<JobRequest>>> {
        let mut attempt = 0;
        loop {
            if ids.is_empty() {
                return Some(Vec::new());
            }
            match self.parts.stores.jobs.requests(ids).await {
                Ok(requests) => return Some(requests),
                Err(error) if error.is_retryable() => {
                    warn!(error = %chain(&error), attempt, "store does not answer, trying again");
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = tokio::time::sleep(super::back_off(attempt)) => attempt += 1,
                    }
                }
                Err(error) if ids.len() > 1 => {
                    // One of them cannot be read: read each alone, so that it does not take the others with it.
                    warn!(error = %chain(&error), "a request cannot be read");
                    let mut requests = Vec::with_capacity(ids.len());
                    for id in ids {
                        requests.extend(Box::pin(self.read_requests(std::slice::from_ref(id))).await?);
                    }
                    return Some(requests);
                }
                Err(error) => {
                    warn!(error = %chain(&error), "a request cannot be read");
                    return Some(vec![None; ids.len()]);
                }
            }
        }
    }

    /// Takes jobs as far as they go: to a worker, to a waiting place, or to their end. Returns those that the store did
    /// not take, so that their messages must come again.
    pub(super) async fn process(self: &Arc<Self>, items: Vec<Item>) -> HashSet<JobId> {
        if items.is_empty() {
            return HashSet::new();
        }
        let Some(records) = self.records_of_approved(&items).await else {
            return items
                .into_iter()
                .map(|item| {
                    self.unreserve(&item);
                    item.id
                })
                .collect();
        };
        let now = self.parts.clock.now();
        let mut plans = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let record = records.get(i).and_then(Option::as_ref);
            if let Some(plan) = self.plan(item, record, now).await {
                plans.push(plan);
            }
        }
        let mut untaken = HashSet::new();
        // Each round answers what the one before could not do: a limit reached becomes a wait, a key taken a failure.
        for _ in 0..3 {
            if plans.is_empty() {
                break;
            }
            let changes: Vec<Change> = plans.iter().map(|plan| plan.change.clone()).collect();
            let outcomes = self.commit(&changes).await;
            let mut after = After::default();
            for (plan, outcome) in plans.drain(..).zip(outcomes) {
                match outcome {
                    Some(outcome) => self.conclude(plan, outcome, now, &mut after),
                    None => {
                        self.give_back(&plan);
                        untaken.insert(plan.item.id);
                    }
                }
            }
            plans = after.plans;
            self.hand_over(after.handovers).await;
            self.publish_all(after.messages).await;
        }
        untaken
    }

    /// What the store knows of the jobs that claim an approval; nothing for all others, which is most. `None` at shutdown.
    async fn records_of_approved(&self, items: &[Item]) -> Option<Vec<Option<JobRecord>>> {
        let claimed: Vec<usize> = (0..items.len())
            .filter(|&i| claims_approval(&items[i].request))
            .collect();
        if claimed.is_empty() {
            return Some(Vec::new());
        }
        let mut records = vec![None; items.len()];
        for i in claimed {
            let mut attempt = 0;
            records[i] = loop {
                match self.parts.stores.jobs.get(&items[i].id).await {
                    Ok(record) => break record,
                    // Going on would ask people again for what they have granted.
                    Err(error) if error.is_retryable() => {
                        warn!(error = %chain(&error), attempt, "an approval could not be read, trying again");
                        tokio::select! {
                            () = self.stop.cancelled() => return None,
                            () = tokio::time::sleep(super::back_off(attempt)) => attempt += 1,
                        }
                    }
                    // The claim counts for nothing, and policy is asked again: never a yes by accident.
                    Err(error) => {
                        warn!(error = %chain(&error), "an approval cannot be read");
                        break None;
                    }
                }
            };
        }
        Some(records)
    }

    async fn plan(&self, item: Item, record: Option<&JobRecord>, now: Timestamp) -> Option<Plan> {
        if item.request.topic.is_empty() {
            return Some(self.fail(item, now, "missing_topic", "missing topic".to_owned()));
        }
        match self.judge(&item, record, now).await {
            Verdict::Run { decision, outgoing } => {
                let budgets = decision.constraints.as_ref().and_then(|limits| limits.budgets);
                let positive = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
                let mut change = self.change(&item, JobEvent::Dispatch, now);
                change.attempt_limit = positive(budgets.map(|b| b.max_retries)).map(|retries| retries + 1);
                change.slot = Some(Slot {
                    tenant: tenant_of(&item.request),
                    limit: positive(budgets.map(|b| b.max_concurrent_jobs)).unwrap_or(0),
                });
                change.deadline = deadline(&outgoing, now);
                change.decision = Some(decision);
                self.plan_dispatch(item, change, outgoing, now)
            }
            Verdict::Approval(decision) => {
                self.unreserve(&item);
                let mut change = self.change(&item, JobEvent::RequireApproval, now);
                change.decision = Some(decision);
                Some(Plan {
                    item,
                    change,
                    then: Then::Approval,
                })
            }
            Verdict::Deny(decision) => {
                self.unreserve(&item);
                let reason = decision.reason.clone();
                let mut change = self.change(&item, JobEvent::Deny, now);
                change.decision = Some(decision);
                change.dead_letter = true;
                change.outcome = Some(TerminalDetail {
                    error_code: "safety_denied".to_owned(),
                    error_message: reason.clone(),
                    ..TerminalDetail::default()
                });
                Some(Plan {
                    item,
                    change,
                    then: Then::Denied { reason },
                })
            }
            Verdict::Hold { decision, reason, why } => {
                self.unreserve(&item);
                let pause = if reason == PendingReason::Throttled {
                    THROTTLE_PAUSE
                } else {
                    POLICY_PAUSE
                };
                let until = now.plus(pause);
                if item.stored && item.held == Some(reason) {
                    // On record already. A decision that says the same again every few seconds would only grow the job.
                    self.set_aside(&item, until);
                    return None;
                }
                let mut change = self.change(&item, JobEvent::Park, now);
                change.decision = decision;
                change.pending = Some(PendingNote { reason, detail: why });
                Some(Plan {
                    item,
                    change,
                    then: Then::Delay {
                        until,
                        held: Some(reason),
                    },
                })
            }
        }
    }

    /// A change that also stores what is new about the job.
    fn change(&self, item: &Item, event: JobEvent, now: Timestamp) -> Change {
        let mut change = Change::new(item.id.clone(), event, now);
        if !item.stored {
            // What a gateway stored has its deadline since then.
            change.deadline = deadline(&item.request, now);
        }
        change.request = RequestWrite::IfAbsent(Arc::clone(&item.request));
        change.trace_id.clone_from(&item.trace_id);
        change.owner = Some(self.options.instance.clone());
        change
    }

    fn fail(&self, item: Item, now: Timestamp, code: &'static str, message: String) -> Plan {
        self.unreserve(&item);
        let mut change = self.change(&item, JobEvent::Fail, now);
        change.dead_letter = true;
        change.outcome = Some(TerminalDetail {
            error_code: code.to_owned(),
            error_message: message.clone(),
            ..TerminalDetail::default()
        });
        Plan {
            item,
            change,
            then: Then::Failed { code, message },
        }
    }

    /// Finds a place for a job that may run. `None` if it waits and nothing need be written for that.
    fn plan_dispatch(
        &self,
        mut item: Item,
        mut change: Change,
        outgoing: Box<JobRequest>,
        now: Timestamp,
    ) -> Option<Plan> {
        let place = match item.reserved.take() {
            Some(place) => place,
            None => {
                let demand = Demand::of(&item.request);
                match self.find_place(&demand) {
                    Placement::On {
                        worker,
                        direct,
                        confirms,
                        why,
                    } => Reserved {
                        worker,
                        direct,
                        confirms,
                        why,
                    },
                    Placement::Wait { reason, why } => {
                        let pending = PendingNote { reason, detail: why };
                        if item.stored {
                            // PENDING already: it waits from now on, and that is written down when there is time.
                            self.park(&item, demand, Some(pending));
                            return None;
                        }
                        change.event = JobEvent::Park;
                        change.slot = None;
                        change.attempt_limit = None;
                        change.pending = Some(pending);
                        return Some(Plan {
                            item,
                            change,
                            then: Then::Park { demand },
                        });
                    }
                    Placement::Impossible { why } => {
                        let mut plan = self.fail(item, now, "no_pool_mapping", why);
                        plan.change.decision = change.decision;
                        return Some(plan);
                    }
                }
            }
        };
        change.worker_id.clone_from(&place.worker);
        change.placement.clone_from(&place.why);
        Some(Plan {
            item,
            change,
            then: Then::Dispatch { outgoing, place },
        })
    }

    /// Reserves a place, unless others of the same demand wait for one already.
    fn find_place(&self, demand: &Demand) -> Placement {
        let routing = self.routing.load();
        let mut desk = self.desk.lock();
        let placement = place(demand, &routing, &desk.fleet);
        match placement {
            Placement::On { .. } if desk.parked.has_waiting(demand) => {
                self.room.notify_one();
                Placement::Wait {
                    reason: PendingReason::PoolOverloaded,
                    why: "not placed because: others that need the same wait already".to_owned(),
                }
            }
            Placement::On {
                worker,
                direct,
                confirms,
                why,
            } => {
                desk.fleet.reserve(worker.as_ref());
                Placement::On {
                    worker,
                    direct,
                    confirms,
                    why,
                }
            }
            other => other,
        }
    }

    fn unreserve(&self, item: &Item) {
        if let Some(place) = &item.reserved {
            self.desk.lock().fleet.release(place.worker.as_ref());
            self.room.notify_one();
        }
    }

    fn give_back(&self, plan: &Plan) {
        if let Then::Dispatch { place, .. } = &plan.then {
            self.desk.lock().fleet.release(place.worker.as_ref());
            self.room.notify_one();
        }
    }

    fn entry(&self, item: &Item) -> Entry {
        Entry {
            held: item.held,
            ..self.entry_of(&item.id, item.trace_id.clone(), &item.request, item.since)
        }
    }

    pub(super) fn entry_of(
        &self,
        id: &JobId,
        trace_id: Option<TraceId>,
        request: &JobRequest,
        since: Timestamp,
    ) -> Entry {
        let small = request.encoded_len() <= self.options.keep_request_bytes;
        Entry {
            id: id.clone(),
            trace_id,
            request: small.then(|| Bytes::from(request.encode_to_vec())),
            tenant: tenant_of(request).as_str().into(),
            class: Class::of(request.priority),
            since,
            held: None,
        }
    }

    /// Looks at a job again at `at`.
    pub(super) fn set_aside(&self, item: &Item, at: Timestamp) {
        let entry = self.entry(item);
        let mut desk = self.desk.lock();
        if desk.admits(self.options.max_parked) {
            desk.delay(at, entry);
        }
    }

    /// Lets a job wait for room. With `pending`, why and where is written down at the next occasion.
    pub(super) fn park(&self, item: &Item, demand: Demand, pending: Option<PendingNote>) {
        let entry = self.entry(item);
        let mut desk = self.desk.lock();
        if !desk.admits(self.options.max_parked) {
            // It stays PENDING in the store, and is adopted when there is room.
            debug!(job_id = %item.id, "too many jobs wait here");
            return;
        }
        if let Some(pending) = pending {
            desk.notes.push(Note::Waiting {
                id: item.id.clone(),
                pending,
                owner: self.options.instance.clone(),
            });
        }
        desk.parked.push(demand, entry);
        drop(desk);
        // A worker may have come between looking and waiting.
        self.room.notify_one();
    }

    fn conclude(self: &Arc<Self>, plan: Plan, outcome: Outcome, now: Timestamp, after: &mut After) {
        match outcome {
            Outcome::Applied(applied) => self.follow_up(plan, applied, now, after),
            Outcome::Conflict { state, .. } => {
                // Somebody else was faster, or the message came twice: nothing to do.
                debug!(job_id = %plan.item.id, ?state, "job is further than this");
                self.give_back(&plan);
            }
            Outcome::LimitReached => {
                self.give_back(&plan);
                self.wait_for_tenant(plan, now, after);
            }
            Outcome::AttemptsExhausted { attempts } => {
                self.give_back(&plan);
                let max = plan.change.attempt_limit.unwrap_or(1).saturating_sub(1);
                let message = format!("max retries exceeded (attempts={attempts}, max_retries={max})");
                after
                    .plans
                    .push(self.fail(plan.item, now, "max_retries_exceeded", message));
            }
            Outcome::DuplicateKey { job } => {
                self.give_back(&plan);
                let message = format!("idempotency key belongs to job {job}");
                let mut failed = self.fail(plan.item, now, "duplicate_idempotency_key", message);
                // The key is not this job's: store the request without claiming it.
                let mut request = JobRequest::clone(&failed.item.request);
                if let Some(meta) = &mut request.meta {
                    meta.idempotency_key.clear();
                }
                failed.change.request = RequestWrite::IfAbsent(Arc::new(request));
                after.plans.push(failed);
            }
        }
    }

    fn wait_for_tenant(&self, plan: Plan, now: Timestamp, after: &mut After) {
        let limit = plan.change.slot.as_ref().map_or(0, |slot| slot.limit);
        let pending = PendingNote {
            reason: PendingReason::TenantLimit,
            detail: format!("not placed because: tenant has {limit} jobs running, its limit"),
        };
        if plan.item.stored {
            let entry = self.entry(&plan.item);
            let demand = Demand::of(&plan.item.request);
            let mut desk = self.desk.lock();
            if desk.admits(self.options.max_parked) {
                desk.notes.push(Note::Waiting {
                    id: plan.item.id.clone(),
                    pending,
                    owner: self.options.instance.clone(),
                });
                desk.limit(demand, entry);
            }
            return;
        }
        let mut change = self.change(&plan.item, JobEvent::Park, now);
        change.decision = plan.change.decision;
        change.deadline = plan.change.deadline;
        change.pending = Some(pending);
        // It tries again after a short pause, and then waits without commits.
        after.plans.push(Plan {
            item: plan.item,
            change,
            then: Then::Delay { until: now, held: None },
        });
    }

    fn follow_up(&self, mut plan: Plan, applied: Applied, now: Timestamp, after: &mut After) {
        plan.item.stored = true;
        let Plan { mut item, then, .. } = plan;
        match then {
            Then::Dispatch { outgoing, place } => {
                counter!(JOBS_DISPATCHED, "topic" => item.request.topic.clone()).increment(1);
                // Where one went through another may: the limit may have grown, or places were freed elsewhere.
                self.let_in_one_of(&tenant_of(&item.request));
                after.handovers.push(Handover {
                    id: item.id,
                    trace_id: applied.trace_id.or(item.trace_id),
                    outgoing,
                    job: InFlight {
                        via: if place.direct || (!self.told() && place.worker.is_some()) {
                            Via::Worker
                        } else {
                            Via::Topic
                        },
                        worker: place.worker,
                        confirms: place.confirms,
                        confirmed: false,
                        revision: applied.revision,
                        since: now,
                        ask_at: now.plus(self.options.ask_again),
                        asked: 0,
                        adopted: false,
                    },
                    again: false,
                });
            }
            Then::Park { demand } => self.park(&item, demand, None),
            Then::Delay { until, held } => {
                item.held = held;
                self.set_aside(&item, until);
            }
            Then::Approval => {}
            Then::Denied { reason } => {
                counter!(SAFETY_DENIED, "topic" => item.request.topic.clone()).increment(1);
                after
                    .messages
                    .push(dead_letter(&item.id, JobState::Denied, "safety_denied", &reason, now));
            }
            Then::Failed { code, message } => {
                counter!(JOBS_COMPLETED,
                    "topic" => item.request.topic.clone(), "status" => JobState::Failed.status().as_str_name())
                .increment(1);
                after
                    .messages
                    .push(dead_letter(&item.id, JobState::Failed, code, &message, now));
            }
        }
    }

    /// Hands committed jobs to their workers.
    pub(super) async fn hand_over(&self, mut handovers: Vec<Handover>) {
        if handovers.is_empty() {
            return;
        }
        let now = self.parts.clock.now();
        {
            let mut desk = self.desk.lock();
            handovers.retain(|handover| {
                if handover.again {
                    // If it has ended meanwhile, its place is free already.
                    let known = desk.in_flight.get_mut(&handover.id);
                    known.map(|job| job.via = handover.job.via).is_some()
                } else {
                    desk.in_flight.insert(handover.id.clone(), handover.job.clone());
                    true
                }
            });
            gauge(&desk);
        }
        let messages: Vec<(JobId, Message)> = handovers
            .iter()
            .map(|handover| (handover.id.clone(), handover.message(now)))
            .collect();
        let ids: Vec<JobId> = messages.iter().map(|(id, _)| id.clone()).collect();
        for (id, result) in ids.into_iter().zip(self.parts.bus.dispatch(messages).await) {
            if let Err(error) = result {
                warn!(job_id = %id, error = %chain(&error), "job could not be handed over");
                self.requeue(
                    &id,
                    PendingReason::NoListener,
                    format!("not handed over: {}", chain(&error)),
                )
                .await;
            }
        }
    }
}

/// When a job that begins now has to be over.
fn deadline(request: &JobRequest, now: Timestamp) -> Option<Timestamp> {
    request
        .budget
        .and_then(|budget| u64::try_from(budget.deadline_ms).ok())
        .filter(|ms| *ms > 0)
        .map(|ms| now.plus(Duration::from_millis(ms)))
}

/// Reads a submission. `None` if there is nothing to do; that has been said and counted.
fn read_submission(delivery: &Delivery, now: Timestamp) -> Option<Item> {
    let packet = signals::decode(delivery)?;
    let sender = packet.sender_id;
    match packet.payload {
        Some(Payload::JobRequest(mut request)) => {
            let id = match JobId::try_new(&request.job_id) {
                Ok(id) => id,
                Err(error) => {
                    signals::complain(subjects::SUBMIT, &sender, &error.to_string());
                    counter!(PACKETS_INVALID, "subject" => subjects::SUBMIT).increment(1);
                    return None;
                }
            };
            id.as_str().clone_into(&mut request.job_id);
            request.topic = request.topic.trim().to_owned();
            counter!(JOBS_RECEIVED, "topic" => request.topic.clone()).increment(1);
            Some(Item {
                id,
                trace_id: TraceId::try_new(&packet.trace_id).ok(),
                request: Arc::new(request),
                stored: is_gateway(&sender),
                since: now,
                held: None,
                reserved: None,
            })
        }
        _ => None,
    }
}

/// What follows from a round of commits.
#[derive(Debug, Default)]
struct After {
    plans: Vec<Plan>,
    handovers: Vec<Handover>,
    messages: Vec<Message>,
}

/// A committed job on its way to its worker.
#[derive(Debug)]
pub(super) struct Handover {
    pub id: JobId,
    pub trace_id: Option<TraceId>,
    pub outgoing: Box<JobRequest>,
    pub job: InFlight,
    /// It was handed over before, and holds its place since then.
    pub again: bool,
}

impl Handover {
    fn message(&self, now: Timestamp) -> Message {
        let subject = match (&self.job.worker, self.job.via) {
            (Some(worker), Via::Worker) => subjects::worker_jobs(worker),
            (_, Via::Topic) | (None, Via::Worker) => self.outgoing.topic.clone(),
        };
        let trace = self.trace_id.as_ref().map_or("", TraceId::as_str);
        let payload = Payload::JobRequest(JobRequest::clone(&self.outgoing));
        Message {
            subject,
            payload: encode_packet(&packet(trace, subjects::SCHEDULER, now, payload)),
            message_id: Some(format!("jobreq:{}", self.id)),
        }
    }
}

/// The news of a job that ended without success, for whoever keeps dead letters.
pub(super) fn dead_letter(id: &JobId, state: JobState, code: &str, message: &str, now: Timestamp) -> Message {
    let result = JobResult {
        job_id: id.as_str().to_owned(),
        status: state.status().into(),
        error_code: code.to_owned(),
        error_message: message.to_owned(),
        ..JobResult::default()
    };
    Message {
        subject: subjects::DLQ.to_owned(),
        payload: encode_packet(&packet(
            id.as_str(),
            subjects::SCHEDULER,
            now,
            Payload::JobResult(result),
        )),
        message_id: Some(format!("{}:{id}", subjects::DLQ)),
    }
}
