//! The small messages: heartbeats, progress, cancels, jobs that reached nobody. See `docs/spec/scheduler.md` §5.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Inner;
use super::desk::Via;
use super::handover::Handover;
use super::results::News;
use crate::bus::{self, Delivery, Message, SubscribeOptions, Subscription};
use crate::config::{DEFAULT, Notice, PAUSES, SYSTEM};
use crate::error::chain;
use crate::jobs::{Change, JobEvent, JobStoreExt, Note, Outcome, PendingReason, TerminalDetail};
use crate::metrics::{HEARTBEATS_BAD_ID, PACKETS_INVALID, PACKETS_UNDECODABLE};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{BusPacket, Heartbeat, JobCancel, JobProgress, JobStatus};
use crate::protocol::{JobId, PROTOCOL_VERSION, WorkerId, decode_packet, encode_packet, subjects};

/// How often one sender's bad packets are logged.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// How many senders are remembered for that.
const MAX_COMPLAINTS: usize = 10_000;

/// The subscriptions of the small messages.
#[derive(Debug)]
pub(super) struct Signals {
    pub heartbeats: Subscription,
    pub progress: Subscription,
    pub cancels: Subscription,
    pub endings: Subscription,
    pub config: Subscription,
}

/// Logs something wrong with a sender's packets, at most once a minute for each sender.
pub(super) fn complain(subject: &str, sender: &str, problem: &str) {
    static LAST: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);
    let now = Instant::now();
    let mut last = LAST.lock();
    if last.len() >= MAX_COMPLAINTS {
        last.retain(|_, at| now.duration_since(*at) < COMPLAINT_PAUSE);
        if last.len() >= MAX_COMPLAINTS {
            return;
        }
    }
    if last
        .get(sender)
        .is_some_and(|at| now.duration_since(*at) < COMPLAINT_PAUSE)
    {
        return;
    }
    last.insert(sender.to_owned(), now);
    drop(last);
    warn!(subject, sender, problem, "packet ignored");
}

/// Reads a packet; what cannot be read is counted and forgotten.
pub(super) fn decode(delivery: &Delivery) -> Option<BusPacket> {
    match decode_packet(&delivery.payload) {
        Ok(packet) => Some(packet),
        Err(error) => {
            counter!(PACKETS_UNDECODABLE, "subject" => known(&delivery.subject)).increment(1);
            complain(&delivery.subject, "", &chain(&error));
            None
        }
    }
}

/// A subject as a metric label: only those that we listen on, so that the set is closed.
fn known(subject: &str) -> &'static str {
    [
        subjects::SUBMIT,
        subjects::RESULT,
        subjects::HEARTBEAT,
        subjects::PROGRESS,
        subjects::CANCEL,
        subjects::ENDED,
    ]
    .into_iter()
    .find(|name| *name == subject)
    .unwrap_or("other")
}

/// Acknowledges; a message whose acknowledgement is lost comes again, and changes nothing then.
pub(super) async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        debug!(error = %chain(&error), "message not acknowledged");
    }
}

impl Inner {
    pub(super) async fn subscribe_signals(&self) -> Result<Signals, bus::Error> {
        let bus = &self.parts.bus;
        Ok(Signals {
            heartbeats: bus.subscribe(subjects::HEARTBEAT, SubscribeOptions::default()).await?,
            progress: bus.subscribe(subjects::PROGRESS, SubscribeOptions::tap()).await?,
            cancels: bus
                .subscribe(subjects::CANCEL, SubscribeOptions::queue(subjects::SCHEDULER))
                .await?,
            endings: bus.subscribe(subjects::ENDED, SubscribeOptions::tap()).await?,
            config: bus.subscribe(subjects::CONFIG_CHANGED, SubscribeOptions::tap()).await?,
        })
    }

    /// The next packets of a subscription; `None` at the end.
    async fn packets(&self, subscription: &mut Subscription) -> Option<Vec<BusPacket>> {
        let batch = self.next_batch(subscription).await;
        if batch.is_empty() {
            return None;
        }
        let mut packets = Vec::with_capacity(batch.len());
        for delivery in batch {
            packets.extend(decode(&delivery));
            settle(delivery).await;
        }
        Some(packets)
    }

    /// Asks all workers to say that they live, so that nothing waits for their regular heartbeats. Those that do not
    /// know the call are heard of at their own time.
    pub(super) async fn call_roll(&self) {
        let call = BusPacket {
            trace_id: self.options.instance.as_str().to_owned(),
            sender_id: subjects::SCHEDULER.to_owned(),
            created_at: Some(self.parts.clock.now().to_proto()),
            protocol_version: PROTOCOL_VERSION,
            ..BusPacket::default()
        };
        let message = Message {
            subject: subjects::STARTED.to_owned(),
            payload: encode_packet(&call),
            message_id: None,
        };
        if let Err(error) = self.parts.bus.publish(message).await {
            debug!(error = %chain(&error), "roll not called");
        }
    }

    pub(super) async fn take_heartbeats(self: Arc<Self>, mut heartbeats: Subscription) {
        while let Some(packets) = self.packets(&mut heartbeats).await {
            for packet in packets {
                if let Some(Payload::Heartbeat(heartbeat)) = packet.payload {
                    self.observe(heartbeat, &packet.sender_id);
                }
            }
        }
    }

    fn observe(&self, mut heartbeat: Heartbeat, sender: &str) {
        heartbeat.worker_id = heartbeat.worker_id.trim().to_owned();
        if !heartbeat.worker_id.is_empty() {
            match WorkerId::try_new(&heartbeat.worker_id) {
                Ok(id) if id.is_token() => {}
                Ok(_) => {
                    counter!(HEARTBEATS_BAD_ID).increment(1);
                    complain(
                        subjects::HEARTBEAT,
                        sender,
                        "worker_id is no single subject token; its jobs go by topic",
                    );
                }
                Err(error) => {
                    counter!(PACKETS_INVALID, "subject" => subjects::HEARTBEAT).increment(1);
                    complain(subjects::HEARTBEAT, sender, &error.to_string());
                    return;
                }
            }
        }
        let now = self.parts.clock.now();
        let heartbeat = self.parts.registry.observe(heartbeat, now);
        let (room, returned) = {
            let mut desk = self.desk.lock();
            let returned = desk.fleet.misses(&heartbeat.worker_id);
            if returned {
                desk.returned.insert(heartbeat.worker_id.clone());
            }
            (desk.fleet.observe(heartbeat, now), returned)
        };
        if room {
            self.room.notify_one();
        }
        if returned {
            // What became of its jobs is to be asked at once: nobody may have heard what it said meanwhile.
            self.look.notify_one();
        }
    }

    pub(super) async fn take_progress(self: Arc<Self>, mut progress: Subscription) {
        while let Some(packets) = self.packets(&mut progress).await {
            for packet in packets {
                if let Some(Payload::JobProgress(progress)) = packet.payload {
                    self.note_progress(&progress, &packet.sender_id);
                }
            }
        }
    }

    /// Progress from the worker that has the job confirms that it has it.
    fn note_progress(&self, progress: &JobProgress, sender: &str) {
        if !matches!(progress.status(), JobStatus::Running | JobStatus::Unspecified) {
            return;
        }
        let Ok(id) = JobId::try_new(&progress.job_id) else {
            return;
        };
        let now = self.parts.clock.now();
        let mut desk = self.desk.lock();
        let Some(job) = desk.in_flight.get_mut(&id) else { return };
        if job.worker.as_ref().is_none_or(|worker| worker.as_str() != sender) {
            return;
        }
        job.asked = 0;
        job.ask_at = now.plus(self.options.ask_running);
        if job.confirmed {
            return;
        }
        job.confirmed = true;
        if let Some(worker_id) = job.worker.clone() {
            desk.notes.push(Note::Accepted { id, worker_id, at: now });
        }
    }

    pub(super) async fn take_cancels(self: Arc<Self>, mut cancels: Subscription) {
        while let Some(packets) = self.packets(&mut cancels).await {
            for packet in packets {
                if let Some(Payload::JobCancel(cancel)) = packet.payload {
                    self.cancel(&cancel, &packet.sender_id).await;
                }
            }
        }
    }

    /// Jobs placed here whose end another replica has stored.
    pub(super) async fn take_endings(self: Arc<Self>, mut endings: Subscription) {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                batch = endings.next_batch(self.options.batch) => batch,
            };
            if batch.is_empty() {
                return;
            }
            for delivery in batch {
                match std::str::from_utf8(&delivery.payload) {
                    Ok(lines) => self.ended_elsewhere(lines),
                    Err(error) => {
                        counter!(PACKETS_UNDECODABLE, "subject" => known(&delivery.subject)).increment(1);
                        complain(subjects::ENDED, "", &error.to_string());
                    }
                }
                settle(delivery).await;
            }
        }
    }

    /// Whatever changed, nothing read before it counts any more.
    pub(super) async fn take_config_notices(self: Arc<Self>, mut notices: Subscription) {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                batch = notices.next_batch(self.options.batch) => batch,
            };
            if batch.is_empty() {
                return;
            }
            self.effective.forget();
            let ours = |delivery: &Delivery| {
                Notice::parse(&delivery.payload)
                    .is_some_and(|notice| notice.is_about(SYSTEM, DEFAULT) || notice.is_about(SYSTEM, PAUSES))
            };
            if batch.iter().any(ours) {
                self.reload.notify_one();
            }
            for delivery in batch {
                settle(delivery).await;
            }
        }
    }

    /// The message has reached the workers already; what is left is the job's record.
    async fn cancel(&self, cancel: &JobCancel, sender: &str) {
        let id = match JobId::try_new(&cancel.job_id) {
            Ok(id) => id,
            Err(error) => {
                counter!(PACKETS_INVALID, "subject" => subjects::CANCEL).increment(1);
                complain(subjects::CANCEL, sender, &error.to_string());
                return;
            }
        };
        let mut change = Change::new(id.clone(), JobEvent::Cancel, self.parts.clock.now());
        change.outcome = Some(TerminalDetail {
            error_message: cancel.reason.clone(),
            ..TerminalDetail::default()
        });
        let outcome = self.commit(std::slice::from_ref(&change)).await.pop().flatten();
        if let Some(Outcome::Applied(applied)) = outcome {
            let mut news = News::default();
            self.ended(&change, &applied, change.at, &mut news);
            self.room.notify_one();
            self.publish_all(news.into_messages()).await;
        }
    }

    /// Frees the place of a job that is not in flight any more.
    pub(super) fn release(&self, id: &JobId) {
        let settled = self.desk.lock().settle(id);
        if settled.is_some() {
            self.room.notify_one();
        }
    }

    /// Jobs that were handed over and reached nobody.
    pub(super) async fn take_undelivered(self: Arc<Self>, mut undelivered: mpsc::Receiver<JobId>) {
        loop {
            let id = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                id = undelivered.recv() => id,
            };
            let Some(id) = id else { return };
            self.try_elsewhere(&id).await;
        }
    }

    /// Nobody listens on the topic: a worker that never said so may still listen on its own subject. Otherwise the job
    /// waits again.
    async fn try_elsewhere(&self, id: &JobId) {
        let Some(job) = self.desk.lock().in_flight.get(id).cloned() else {
            return;
        };
        if job.via == Via::Topic && job.worker.is_some() {
            let stored = (
                self.parts.stores.jobs.request(id).await,
                self.parts.stores.jobs.get(id).await,
            );
            if let (Ok(Some(request)), Ok(Some(record))) = stored {
                let outgoing = Box::new(self.outgoing_again(&Arc::new(request), &record).await);
                if let Some(worker) = &job.worker {
                    self.desk.lock().fleet.learn_direct(worker);
                }
                let job = super::desk::InFlight {
                    via: Via::Worker,
                    ..job
                };
                let trace_id = record.trace_id;
                self.hand_over(vec![Handover {
                    id: id.clone(),
                    trace_id,
                    outgoing,
                    job,
                    again: true,
                }])
                .await;
                return;
            }
        }
        if let Some(worker) = &job.worker {
            // It comes back with its next heartbeat.
            self.desk.lock().fleet.suspend(worker);
        }
        self.requeue(
            id,
            PendingReason::NoListener,
            "nobody listened when the job was handed over".to_owned(),
        )
        .await;
    }
}
