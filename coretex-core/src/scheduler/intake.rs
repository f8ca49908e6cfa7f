//! Submitted jobs: read, judge, commit. See `docs/spec/scheduler.md` §1 and §2.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tracing::warn;

use super::decide::{Verdict, claims_approval, tenant_of};
use super::desk::{Item, Reserved};
use super::handover::After;
use super::placement::Demand;
use super::{Inner, signals};
use crate::bus::{self, Delivery, SubscribeOptions, Subscription};
use crate::error::chain;
use crate::jobs::{
    Change, JobEvent, JobRecord, JobStoreExt, PendingNote, PendingReason, RequestWrite, Slot, TerminalDetail,
};
use crate::metrics::{JOBS_RECEIVED, PACKETS_INVALID};
use crate::protocol::agent::JobRequest;
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::{JobId, TraceId, subjects};
use crate::time::Timestamp;

/// How long a throttled job waits before policy is asked again.
const THROTTLE_PAUSE: Duration = Duration::from_secs(5);
/// How long a job waits before a policy that could not be asked is asked again.
const POLICY_PAUSE: Duration = Duration::from_secs(1);

/// A change on its way to the store, and what follows once it is there.
#[derive(Debug)]
pub(super) struct Plan {
    pub item: Item,
    pub change: Change,
    pub then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
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
    pub(super) fn change(&self, item: &Item, event: JobEvent, now: Timestamp) -> Change {
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

    pub(super) fn fail(&self, item: Item, now: Timestamp, code: &'static str, message: String) -> Plan {
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
