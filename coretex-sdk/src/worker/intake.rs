//! Messages in: jobs, repeats of jobs, and cancels.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::bus::{Delivery, Subscription};
use coretex_core::protocol::agent::{BusPacket, JobProgress, JobRequest, JobStatus, bus_packet::Payload};
use coretex_core::protocol::{JobId, decode_packet, encode_packet, packet};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::execute;
use super::ledger::{Admission, Known};
use super::outbox::Outgoing;
use crate::context::JobContext;
use crate::metrics;

/// How many messages are taken at once.
const BATCH: usize = 256;

/// Takes jobs until `stop`, then those that are here already.
///
/// Returns when the bus is closed, too.
pub(crate) async fn jobs(core: Arc<Core>, mut subscription: Subscription, stop: CancellationToken) {
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            batch = subscription.next_batch(BATCH) => batch,
        };
        if batch.is_empty() {
            return;
        }
        for delivery in batch {
            job(&core, delivery).await;
        }
    }
    // What the broker handed over before it knew: better done here than found missing by the scheduler.
    while let Some(batch) = subscription.next_batch(BATCH).now_or_never()
        && !batch.is_empty()
    {
        for delivery in batch {
            job(&core, delivery).await;
        }
    }
}

async fn job(core: &Arc<Core>, delivery: Delivery) {
    let now = Instant::now();
    let (packet, request, id) = match read_job(&delivery) {
        Ok(read) => read,
        Err((sender, what)) => {
            core.complaints.bad_packet(&sender, &delivery.subject, &what, now);
            return;
        }
    };
    let room = match Arc::clone(&core.room).try_acquire_owned() {
        Ok(room) => room,
        Err(_) => {
            // A repeat needs no room: it is answered even when the worker is full.
            if let Some(known) = core.ledger.look_up(&id) {
                return repeated(core, known, &id, &packet.trace_id).await;
            }
            match Arc::clone(&core.room).acquire_owned().await {
                Ok(room) => room,
                Err(_) => return,
            }
        }
    };
    let brake = match core.ledger.admit(&id, &packet.trace_id, now) {
        Admission::New(brake) => brake,
        Admission::Known(known) => return repeated(core, known, &id, &packet.trace_id).await,
    };
    let deadline = request
        .budget
        .as_ref()
        .and_then(|budget| u64::try_from(budget.deadline_ms).ok())
        .filter(|ms| *ms > 0)
        // A deadline beyond what the clock can say is none.
        .and_then(|ms| now.checked_add(Duration::from_millis(ms)));
    let context = JobContext::new(Arc::clone(core), id, packet.trace_id, request, deadline, brake);
    core.jobs.spawn(execute::run(Arc::clone(core), context, room));
}

/// Answers a job that is known already.
async fn repeated(core: &Core, known: Known, id: &JobId, trace_id: &str) {
    metrics::repeated();
    let answer = match known {
        Known::Active => acceptance(core, id, trace_id),
        Known::Finished(result) => Outgoing::Result(result),
    };
    core.outbox.send(answer).await;
}

/// Says that the worker has the job.
pub(crate) fn acceptance(core: &Core, id: &JobId, trace_id: &str) -> Outgoing {
    let payload = Payload::JobProgress(JobProgress {
        job_id: id.to_string(),
        status: JobStatus::Running.into(),
        ..JobProgress::default()
    });
    let packet = packet(trace_id, core.settings.id.as_str(), core.clock.now(), payload);
    Outgoing::Progress(encode_packet(&packet))
}

fn read_job(delivery: &Delivery) -> Result<(BusPacket, JobRequest, JobId), (String, String)> {
    // Bytes that are no packet name no sender.
    let mut packet =
        decode_packet(&delivery.payload).map_err(|error| (format!("({})", delivery.subject), error.to_string()))?;
    match packet.payload.take() {
        Some(Payload::JobRequest(request)) => match JobId::try_new(&request.job_id) {
            Ok(id) => Ok((packet, request, id)),
            Err(error) => Err((packet.sender_id, error.to_string())),
        },
        _ => Err((packet.sender_id, "not a job request".to_owned())),
    }
}

/// Takes cancels until `stop`.
pub(crate) async fn cancels(core: Arc<Core>, mut subscription: Subscription, stop: CancellationToken) {
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            batch = subscription.next_batch(BATCH) => batch,
        };
        if batch.is_empty() {
            return;
        }
        for delivery in batch {
            cancel(&core, &delivery);
        }
    }
}

fn cancel(core: &Core, delivery: &Delivery) {
    let now = Instant::now();
    let packet = match decode_packet(&delivery.payload) {
        Ok(packet) => packet,
        Err(error) => {
            let sender = format!("({})", delivery.subject);
            core.complaints
                .bad_packet(&sender, &delivery.subject, &error.to_string(), now);
            return;
        }
    };
    let Some(Payload::JobCancel(cancel)) = packet.payload else {
        core.complaints
            .bad_packet(&packet.sender_id, &delivery.subject, "not a cancel", now);
        return;
    };
    match JobId::try_new(&cancel.job_id) {
        Ok(id) => {
            core.ledger.cancel(&id, &cancel.reason, now);
        }
        Err(error) => {
            core.complaints
                .bad_packet(&packet.sender_id, &delivery.subject, &error.to_string(), now);
        }
    }
}
