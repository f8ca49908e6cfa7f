//! How jobs end. See `docs/spec/scheduler.md` §6.

use std::sync::Arc;

use metrics::counter;
use tokio::sync::Semaphore;
use tracing::debug;

use super::handover::dead_letter;
use super::{Inner, signals};
use crate::bus::{self, Delivery, Message, SubscribeOptions, Subscription};
use crate::jobs::{Applied, Change, JobEvent, JobState, Outcome, StateSet, TerminalDetail};
use crate::metrics::{JOBS_COMPLETED, PACKETS_INVALID, RESULTS_IGNORED};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobResult, JobStatus};
use crate::protocol::{JobId, TenantId, subjects};
use crate::time::Timestamp;

/// What [`TenantId::fallback`] says.
const DEFAULT_TENANT: &str = "default";

/// What others are to hear after jobs have ended.
#[derive(Debug, Default)]
pub(super) struct News {
    letters: Vec<Message>,
    /// Jobs that another replica may have placed and has to free the places of: a line for each, with the tenant.
    elsewhere: String,
}

impl News {
    fn elsewhere(&mut self, id: &JobId, tenant: &str) {
        self.elsewhere.push_str(id.as_str());
        if TenantId::try_new(tenant).is_ok() {
            self.elsewhere.push('\t');
            self.elsewhere.push_str(tenant.trim());
        }
        self.elsewhere.push('\n');
    }

    pub(super) fn into_messages(self) -> Vec<Message> {
        let mut messages = self.letters;
        if !self.elsewhere.is_empty() {
            messages.push(Message {
                subject: subjects::ENDED.to_owned(),
                payload: self.elsewhere.into(),
                message_id: None,
            });
        }
        messages
    }
}

impl Inner {
    pub(super) async fn subscribe_results(&self) -> Result<Subscription, bus::Error> {
        self.parts
            .bus
            .subscribe(subjects::RESULT, SubscribeOptions::queue(subjects::SCHEDULER))
            .await
    }

    /// Takes results until the end, several batches at a time.
    pub(super) async fn take_results(self: Arc<Self>, mut results: Subscription) {
        let lanes = Arc::new(Semaphore::new(self.options.lanes.max(1)));
        loop {
            let Ok(permit) = Arc::clone(&lanes).acquire_owned().await else {
                return;
            };
            let batch = self.next_batch(&mut results).await;
            if batch.is_empty() {
                return;
            }
            let this = Arc::clone(&self);
            self.tasks.spawn(async move {
                this.result_batch(batch).await;
                drop(permit);
            });
        }
    }

    async fn result_batch(&self, batch: Vec<Delivery>) {
        let now = self.parts.clock.now();
        let mut changes = Vec::with_capacity(batch.len());
        let mut deliveries = Vec::with_capacity(batch.len());
        for delivery in batch {
            match read_result(&delivery, now) {
                Some(change) => {
                    changes.push(change);
                    deliveries.push(delivery);
                }
                None => signals::settle(delivery).await,
            }
        }
        if changes.is_empty() {
            return;
        }
        let outcomes = self.commit(&changes).await;
        let mut news = News::default();
        for ((change, outcome), delivery) in changes.into_iter().zip(outcomes).zip(deliveries) {
            match outcome {
                Some(Outcome::Applied(applied)) => self.ended(&change, &applied, now, &mut news),
                Some(Outcome::Conflict { state, .. }) => self.ignored(&change, state, &mut news),
                Some(_) => {}
                // No answer from the store: the message comes again.
                None => continue,
            }
            signals::settle(delivery).await;
        }
        self.room.notify_one();
        self.publish_all(news.into_messages()).await;
    }

    /// Follows up on a job that has just ended.
    pub(super) fn ended(&self, change: &Change, applied: &Applied, now: Timestamp, news: &mut News) {
        let state = change.event.target();
        let topic = if applied.topic.is_empty() {
            "unknown".to_owned()
        } else {
            applied.topic.clone()
        };
        counter!(JOBS_COMPLETED, "topic" => topic, "status" => state.status().as_str_name()).increment(1);
        {
            let mut desk = self.desk.lock();
            let ours = desk.settle(&change.id).is_some();
            desk.unlimit(tenant_or_default(&applied.tenant), 1);
            if !ours && StateSet::PLACED.contains(applied.previous) {
                news.elsewhere(&change.id, &applied.tenant);
            }
        }
        let detail = change.outcome.as_ref();
        if change.dead_letter {
            let (code, message) = detail.map_or(("", ""), |detail| {
                (detail.error_code.as_str(), detail.error_message.as_str())
            });
            news.letters.push(dead_letter(&change.id, state, code, message, now));
        }
    }

    /// Lets one more job of a tenant that is at its limit try.
    pub(super) fn let_in_one_of(&self, tenant: &TenantId) {
        let mut desk = self.desk.lock();
        if !desk.limited.is_empty() && desk.unlimit(tenant.as_str(), 1) {
            self.room.notify_one();
        }
    }

    /// Another replica has seen the end of jobs that it had not placed itself.
    pub(super) fn ended_elsewhere(&self, lines: &str) {
        let mut desk = self.desk.lock();
        let mut freed = false;
        for line in lines.lines() {
            let (id, tenant) = line.split_once('\t').unwrap_or((line, ""));
            let Ok(id) = JobId::try_new(id) else { continue };
            freed |= desk.settle(&id).is_some();
            freed |= desk.unlimit(tenant_or_default(tenant), 1);
        }
        drop(desk);
        if freed {
            self.room.notify_one();
        }
    }

    fn ignored(&self, change: &Change, state: Option<JobState>, news: &mut News) {
        let why = match state {
            Some(state) if state.is_terminal() => "already_ended",
            Some(_) => "never_dispatched",
            None => "unknown_job",
        };
        counter!(RESULTS_IGNORED, "why" => why).increment(1);
        debug!(job_id = %change.id, why, "result ignored");
        // A gateway that cancels a job stores that itself: this may be the first that a scheduler hears of it.
        if state.is_some_and(JobState::is_terminal) && self.desk.lock().settle(&change.id).is_none() {
            news.elsewhere(&change.id, "");
        }
    }
}

/// The tenant that a job without one counts for.
fn tenant_or_default(tenant: &str) -> &str {
    if tenant.is_empty() { DEFAULT_TENANT } else { tenant }
}

/// What a result changes. `None` if nothing; that has been said and counted.
fn read_result(delivery: &Delivery, now: Timestamp) -> Option<Change> {
    let packet = signals::decode(delivery)?;
    let Some(Payload::JobResult(result)) = packet.payload else {
        return None;
    };
    let id = match JobId::try_new(&result.job_id) {
        Ok(id) => id,
        Err(error) => {
            counter!(PACKETS_INVALID, "subject" => subjects::RESULT).increment(1);
            signals::complain(subjects::RESULT, &packet.sender_id, &error.to_string());
            return None;
        }
    };
    let status = result.status();
    let (state, missing) = match JobState::from_terminal_status(status) {
        Some(state) => (state, false),
        // Nobody said how it ended: that is a failure, and the record says why.
        None if status == JobStatus::Unspecified => (JobState::Failed, true),
        // Still on its way: progress, whatever the subject.
        None => return None,
    };
    let event = if state == JobState::Cancelled {
        JobEvent::Cancel
    } else {
        JobEvent::Finish(state)
    };
    let mut change = Change::new(id, event, now);
    change.dead_letter = !matches!(state, JobState::Succeeded | JobState::Cancelled);
    change.outcome = Some(detail(result, missing));
    Some(change)
}

fn detail(result: JobResult, missing: bool) -> TerminalDetail {
    let mut detail = TerminalDetail {
        result_ptr: result.result_ptr,
        worker_id: result.worker_id,
        execution_ms: result.execution_ms,
        error_code: result.error_code,
        error_message: result.error_message,
        artifact_ptrs: result.artifact_ptrs,
    };
    if missing && detail.error_code.is_empty() {
        "missing_status".clone_into(&mut detail.error_code);
        if detail.error_message.is_empty() {
            "the worker's result says no status".clone_into(&mut detail.error_message);
        }
    }
    detail
}
