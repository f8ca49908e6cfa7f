//! From a verdict to a worker: find a place, follow up on the commit, hand over. See `docs/spec/scheduler.md` §1 and §3.

use std::sync::Arc;

use metrics::counter;
use tracing::{debug, warn};

use super::decide::tenant_of;
use super::desk::{InFlight, Item, Reserved, Via};
use super::intake::{Plan, Then};
use super::placement::{Demand, Placement, place};
use super::{Inner, gauge};
use crate::bus::Message;
use crate::error::chain;
use crate::jobs::{Applied, Change, JobEvent, JobState, Note, Outcome, PendingNote, PendingReason, RequestWrite};
use crate::metrics::{JOBS_COMPLETED, JOBS_DISPATCHED, SAFETY_DENIED};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobRequest, JobResult};
use crate::protocol::{JobId, TraceId, encode_packet, packet, subjects};
use crate::time::Timestamp;

impl Inner {
    /// Finds a place for a job that may run. `None` if it waits and nothing need be written for that.
    pub(super) fn plan_dispatch(
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

    pub(super) fn unreserve(&self, item: &Item) {
        if let Some(place) = &item.reserved {
            self.desk.lock().fleet.release(place.worker.as_ref());
            self.room.notify_one();
        }
    }

    pub(super) fn give_back(&self, plan: &Plan) {
        if let Then::Dispatch { place, .. } = &plan.then {
            self.desk.lock().fleet.release(place.worker.as_ref());
            self.room.notify_one();
        }
    }

    pub(super) fn conclude(self: &Arc<Self>, plan: Plan, outcome: Outcome, now: Timestamp, after: &mut After) {
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

/// What follows from a round of commits.
#[derive(Debug, Default)]
pub(super) struct After {
    pub plans: Vec<Plan>,
    pub handovers: Vec<Handover>,
    pub messages: Vec<Message>,
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
