//! What time does to jobs: deadlines, time limits, leftovers. See `docs/spec/scheduler.md` §7.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::desk::Item;
use super::handover::dead_letter;
use super::results::News;
use super::{Inner, back_off};
use crate::bus::Message;
use crate::config::{DEFAULT, PAUSES, Pauses, SYSTEM};
use crate::error::{StoreError, chain};
use crate::jobs::{Change, Cursor, JobEvent, JobState, Outcome, ScanItem, TerminalDetail};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobCancel, JobResult, JobStatus};
use crate::protocol::{JobId, encode_packet, packet, subjects};
use crate::routing::{Routing, Timeouts};
use crate::time::Timestamp;

/// The lease that keeps replicas from reconciling at the same time. The reference's name.
const LEASE: &str = "coretex:reconciler:default";
/// How many jobs are looked at in one call.
const PAGE: usize = 200;
/// A job whose request is missing for so long has none.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);
/// How often deadlines are looked at.
const DEADLINES: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn reconcile(self: Arc<Self>) {
        let mut deadlines = tokio::time::interval(DEADLINES);
        deadlines.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_scan = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = deadlines.tick() => {}
            }
            if let Err(error) = self.expire_deadlines().await {
                warn!(error = %chain(&error), "deadlines could not be looked at");
            }
            if let Err(error) = self.expire_approvals().await {
                warn!(error = %chain(&error), "the time of approvals could not be looked at");
            }
            let interval = self.timeouts.load().scan_interval;
            if last_scan.elapsed() >= interval {
                last_scan = tokio::time::Instant::now();
                if let Err(error) = self.reconcile_once(interval).await {
                    warn!(error = %chain(&error), "reconciler could not finish");
                }
            }
        }
    }

    async fn expire_deadlines(&self) -> Result<(), StoreError> {
        loop {
            let now = self.parts.clock.now();
            let due = self.parts.stores.jobs.due(now, PAGE).await?;
            let full = due.len() == PAGE;
            let expired = self
                .expire(due, now, "deadline_exceeded", "the job's deadline has passed")
                .await;
            if !full || expired == 0 {
                return Ok(());
            }
        }
    }

    async fn reconcile_once(self: &Arc<Self>, interval: Duration) -> Result<(), StoreError> {
        let token = self.options.instance.as_str();
        if !self.parts.stores.leases.acquire(LEASE, token, interval * 2).await? {
            return Ok(());
        }
        let timeouts = Timeouts::clone(&self.timeouts.load());
        let limits = [
            (
                JobState::Dispatched,
                timeouts.dispatch_timeout,
                "dispatch_timeout",
                "no worker has started it in time",
            ),
            (
                JobState::Running,
                timeouts.running_timeout,
                "running_timeout",
                "it ran longer than the time limit",
            ),
        ];
        for (state, limit, code, message) in limits {
            let until = self.parts.clock.now().minus(limit);
            let mut after = None;
            loop {
                let page = self.parts.stores.jobs.scan(state, until, after.as_ref(), PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(Cursor {
                    at: last.revision.0,
                    id: last.id.as_str().to_owned(),
                });
                let full = page.len() == PAGE;
                let ids = page.into_iter().map(|item| item.id).collect();
                self.expire(ids, self.parts.clock.now(), code, message).await;
                if !full {
                    break;
                }
            }
        }
        self.replay_scheduled(timeouts.dispatch_timeout).await?;
        let swept = self.parts.stores.jobs.sweep(self.parts.clock.now()).await?;
        if swept > 0 {
            debug!(swept, "forgot what has outlived its time");
        }
        self.parts.stores.leases.release(LEASE, token).await
    }

    /// A job can only be seen SCHEDULED if a scheduler that commits in steps died between two of them.
    async fn replay_scheduled(self: &Arc<Self>, age: Duration) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let page = self
            .parts
            .stores
            .jobs
            .scan(JobState::Scheduled, now.minus(age), None, PAGE)
            .await?;
        self.process_stored(page).await;
        Ok(())
    }

    /// Takes jobs that are in the store through judgement and placement.
    pub(super) async fn process_stored(self: &Arc<Self>, page: Vec<ScanItem>) {
        if page.is_empty() {
            return;
        }
        let ids: Vec<JobId> = page.iter().map(|item| item.id.clone()).collect();
        let Some(requests) = self.read_requests(&ids).await else {
            return;
        };
        let records = self.parts.stores.jobs.get_many(&ids).await.unwrap_or_default();
        let now = self.parts.clock.now();
        let mut items = Vec::new();
        let mut lost = Vec::new();
        for (i, (item, request)) in page.into_iter().zip(requests).enumerate() {
            let Some(request) = request else {
                // Others may write the state of a job before its request.
                if now.since(item.revision.0) >= REQUEST_PATIENCE {
                    lost.push(item);
                }
                continue;
            };
            items.push(Item {
                trace_id: records
                    .get(i)
                    .and_then(Option::as_ref)
                    .and_then(|record| record.trace_id.clone()),
                id: item.id,
                request: Arc::new(request),
                stored: true,
                since: item.revision.0,
                held: None,
                reserved: None,
            });
        }
        self.process(items).await;
        self.fail_without_request(lost, now).await;
    }

    /// Ends jobs that can never run, because nobody knows what was asked for.
    async fn fail_without_request(&self, lost: Vec<ScanItem>, now: Timestamp) {
        const CODE: &str = "request_missing";
        const MESSAGE: &str = "the job's request is not stored, or cannot be read";
        if lost.is_empty() {
            return;
        }
        let changes: Vec<Change> = lost
            .into_iter()
            .map(|item| {
                warn!(job_id = %item.id, MESSAGE);
                let mut change = Change::new(item.id, JobEvent::Fail, now);
                change.expected = Some(item.revision);
                change.dead_letter = true;
                change.outcome = Some(TerminalDetail {
                    error_code: CODE.to_owned(),
                    error_message: MESSAGE.to_owned(),
                    ..TerminalDetail::default()
                });
                change
            })
            .collect();
        let outcomes = self.commit(&changes).await;
        let letters = changes
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| matches!(outcome, Some(Outcome::Applied(_))))
            .map(|(change, _)| dead_letter(&change.id, JobState::Failed, CODE, MESSAGE, now))
            .collect();
        self.publish_all(letters).await;
    }

    /// Ends jobs as TIMEOUT: in the store, then on the bus for their workers, for the dead letters and for workflows.
    pub(super) async fn expire(&self, ids: Vec<JobId>, now: Timestamp, code: &str, message: &str) -> usize {
        let changes: Vec<Change> = ids
            .into_iter()
            .map(|id| {
                let mut change = Change::new(id, JobEvent::Expire, now);
                change.dead_letter = true;
                change.outcome = Some(TerminalDetail {
                    error_code: code.to_owned(),
                    error_message: message.to_owned(),
                    ..TerminalDetail::default()
                });
                change
            })
            .collect();
        if changes.is_empty() {
            return 0;
        }
        let outcomes = self.commit(&changes).await;
        let mut messages = Vec::new();
        let mut news = News::default();
        let mut expired = 0;
        for (change, outcome) in changes.iter().zip(outcomes) {
            if let Some(Outcome::Applied(applied)) = outcome {
                expired += 1;
                info!(job_id = %change.id, code, "job timed out");
                self.ended(change, &applied, now, &mut news);
                messages.push(cancel_message(&change.id, message, now));
                messages.push(timeout_result(&change.id, code, message, now));
            }
        }
        if expired > 0 {
            self.room.notify_one();
        }
        messages.extend(news.into_messages());
        self.publish_all(messages).await;
        expired
    }

    /// Reads pools, pauses and time limits again whenever their documents may have changed.
    pub(super) async fn reload_config(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.options.reload_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // It has just been read.
        tick.reset();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.reload.notified() => {}
                _ = tick.tick() => {}
            }
            if let Err(error) = self.read_config().await {
                warn!(error = %chain(&error), "configuration could not be read; the last one stays");
            }
        }
    }

    /// Reads what is configured for the first time, however long it takes: before, nobody knows what is paused. Returns
    /// whether it is known; not at shutdown.
    pub(super) async fn know_config(&self) -> bool {
        let mut attempt = 0;
        while let Err(error) = self.read_config().await {
            warn!(error = %chain(&error), attempt, "configuration could not be read; nothing is dispatched before it is");
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(back_off(attempt)) => {}
            }
            attempt += 1;
        }
        true
    }

    async fn read_config(&self) -> Result<(), StoreError> {
        let names = [DEFAULT, PAUSES].map(|id| (SYSTEM.to_owned(), id.to_owned()));
        let mut documents = self.parts.stores.config.get_many(&names).await?.into_iter();
        let document = documents.next().flatten();
        let pauses = Pauses::of(documents.next().flatten().as_ref());
        let data = |key: &str| document.as_ref().and_then(|document| document.data.get(key));
        let merged = Routing::merged(&self.parts.routing, data("pools")).unwrap_or_else(|error| {
            warn!(%error, "pools of cfg:system:default cannot be used; the last ones stay");
            Routing::clone(&self.routing.load())
        });
        let routing = merged.with_pauses(&pauses);
        if routing != **self.routing.load() {
            self.routing.store(Arc::new(routing));
            info!("pools and topics changed");
            // What could not be placed may fit now, and the reverse: everything that waits is looked at again.
            let now = self.parts.clock.now();
            let mut desk = self.desk.lock();
            for entry in desk.parked.drain() {
                desk.delay(now, entry);
            }
        }
        match Timeouts::merged(&self.parts.timeouts, data("timeouts")) {
            Ok(timeouts) => self.timeouts.store(Arc::new(timeouts)),
            Err(error) => warn!(%error, "timeouts of cfg:system:default cannot be used; the last ones stay"),
        }
        Ok(())
    }
}

/// Asks the worker to stop.
fn cancel_message(id: &JobId, reason: &str, now: Timestamp) -> Message {
    let cancel = JobCancel {
        job_id: id.as_str().to_owned(),
        reason: reason.to_owned(),
        requested_by: subjects::SCHEDULER.to_owned(),
    };
    Message {
        subject: subjects::CANCEL.to_owned(),
        payload: encode_packet(&packet(
            id.as_str(),
            subjects::SCHEDULER,
            now,
            Payload::JobCancel(cancel),
        )),
        message_id: None,
    }
}

/// Tells workflows, which listen for results.
fn timeout_result(id: &JobId, code: &str, message: &str, now: Timestamp) -> Message {
    let result = JobResult {
        job_id: id.as_str().to_owned(),
        status: JobStatus::Timeout.into(),
        error_code: code.to_owned(),
        error_message: message.to_owned(),
        ..JobResult::default()
    };
    Message {
        subject: subjects::RESULT.to_owned(),
        payload: encode_packet(&packet(
            id.as_str(),
            subjects::SCHEDULER,
            now,
            Payload::JobResult(result),
        )),
        message_id: Some(format!("{}:{id}", subjects::RESULT)),
    }
}
