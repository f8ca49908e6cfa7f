//! One job, from admission to its result.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use coretex_core::pointers::Pointer;
use coretex_core::protocol::agent::{JobResult, JobStatus, bus_packet::Payload};
use coretex_core::protocol::{encode_packet, packet};
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::{Instrument, debug, error, info_span};

use super::core::Core;
use super::ledger::StopReason;
use super::outbox::Outgoing;
use crate::backoff::Backoff;
use crate::context::JobContext;
use crate::error::{JobError, codes};
use crate::handler::{Job, too_large};
use crate::{metrics, payloads};

/// How long an error message may be; the results of many jobs are kept in memory.
const MAX_MESSAGE_BYTES: usize = 2_048;

/// How a job ended.
#[derive(Debug)]
enum Outcome {
    Succeeded { result: Option<Pointer> },
    Failed(JobError),
    Stopped(StopReason),
}

/// Runs the job and reports how it ended. `_room` is its place in the worker, given back at the end.
pub(crate) async fn run(core: Arc<Core>, context: JobContext, _room: OwnedSemaphorePermit) {
    let span = info_span!("job", job_id = %context.job_id(), topic = context.topic());
    let started = OnceLock::new();
    let outcome = within_deadline(&core, &context, &started).instrument(span).await;
    let took = started.get().map_or(Duration::ZERO, Instant::elapsed);

    let result = job_result(&core, &context, outcome, took);
    metrics::finished(result.status(), took);
    let payload = Payload::JobResult(result);
    let sender = core.settings.id.as_str();
    let bytes = encode_packet(&packet(context.trace_id(), sender, core.clock.now(), payload));
    core.ledger.finish(context.job_id(), bytes.clone(), Instant::now());
    core.outbox.send(Outgoing::Result(bytes)).await;
}

/// Pulls the job's brake at its deadline.
async fn within_deadline(core: &Core, context: &JobContext, started: &OnceLock<Instant>) -> Outcome {
    // The guard is around everything, so that a panic while dropping a handler is caught, too. What the handler shares
    // with others must cope with a panic, as it must in any task.
    let work = AssertUnwindSafe(perform(core, context, started))
        .catch_unwind()
        .map(|outcome| outcome.unwrap_or_else(|panic| Outcome::Failed(panicked(panic.as_ref()))));
    let Some(deadline) = context.deadline() else {
        return work.await;
    };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        outcome = &mut work => outcome,
        () = tokio::time::sleep_until(deadline) => {
            context.brake().pull(StopReason::Deadline);
            work.await
        }
    }
}

/// `started` is set when the job leaves the queue.
async fn perform(core: &Core, context: &JobContext, started: &OnceLock<Instant>) -> Outcome {
    // The slot is held until the output is written; an output is part of the work.
    let _slot = tokio::select! {
        biased;
        () = context.cancelled() => return stopped(context),
        slot = core.slots.acquire() => slot,
    };
    started.get_or_init(Instant::now);
    let Some(handler) = core.handlers.get(context.topic()) else {
        let message = format!("this worker has no handler for the topic `{}`", context.topic());
        return Outcome::Failed(JobError::new(codes::NO_HANDLER, message));
    };
    let input = tokio::select! {
        biased;
        () = context.cancelled() => return stopped(context),
        input = payloads::read(core, &context.request().context_ptr) => match input {
            Ok(input) => input,
            Err(error) => return Outcome::Failed(error),
        },
    };

    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut attempt = 1;
    let output = loop {
        let job = Job {
            context: context.with_attempt(attempt),
            input: input.clone(),
        };
        let error = tokio::select! {
            biased;
            output = handler.clone().oneshot(job) => match output {
                Ok(output) => break output,
                Err(error) => error,
            },
            () = out_of_grace(core, context) => return stopped(context),
        };
        if context.is_cancelled() {
            return stopped(context);
        }
        if !error.is_retryable() || attempt > context.retries() {
            return Outcome::Failed(error);
        }
        debug!(%error, attempt, "the handler failed; trying again");
        attempt += 1;
        tokio::select! {
            biased;
            () = context.cancelled() => return stopped(context),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    };

    if output.is_empty() {
        return Outcome::Succeeded { result: None };
    }
    if output.len() > core.settings.result_limit {
        return Outcome::Failed(too_large("result", Some(output.len()), core.settings.result_limit));
    }
    write(core, context, output).await
}

/// Stores the output. A job that is done is not thrown away by a late cancel, unless the store keeps it waiting.
async fn write(core: &Core, context: &JobContext, output: Bytes) -> Outcome {
    let pointer = Pointer::result(context.job_id());
    tokio::select! {
        biased;
        written = payloads::write(core, &pointer, output) => match written {
            Ok(()) => Outcome::Succeeded { result: Some(pointer) },
            Err(error) => Outcome::Failed(error),
        },
        () = out_of_grace(core, context) => stopped(context),
    }
}

/// Waits until the job has to stop and did not for the whole grace period.
async fn out_of_grace(core: &Core, context: &JobContext) {
    context.cancelled().await;
    tokio::time::sleep(core.settings.cancel_grace).await;
}

fn stopped(context: &JobContext) -> Outcome {
    let reason = context.stop_reason().cloned();
    Outcome::Stopped(reason.unwrap_or(StopReason::WorkerStopped))
}

fn panicked(panic: &(dyn Any + Send)) -> JobError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    error!(panic = text, "a handler panicked");
    JobError::new(codes::HANDLER_PANICKED, format!("the handler panicked: {text}"))
}

fn job_result(core: &Core, context: &JobContext, outcome: Outcome, took: Duration) -> JobResult {
    let (status, pointer, error_code, error_message) = match outcome {
        Outcome::Succeeded { result } => (JobStatus::Succeeded, result, String::new(), String::new()),
        Outcome::Failed(error) => (JobStatus::Failed, None, error.code().to_owned(), error.message()),
        Outcome::Stopped(StopReason::Cancelled { reason }) => {
            let message = if reason.is_empty() {
                "the job was cancelled".to_owned()
            } else {
                format!("the job was cancelled: {reason}")
            };
            (JobStatus::Cancelled, None, codes::CANCELLED.to_owned(), message)
        }
        Outcome::Stopped(StopReason::Deadline) => {
            let ms = context.request().budget.as_ref().map_or(0, |budget| budget.deadline_ms);
            let message = format!("the job's deadline of {ms} ms passed");
            (JobStatus::Timeout, None, codes::DEADLINE_EXCEEDED.to_owned(), message)
        }
        Outcome::Stopped(StopReason::WorkerStopped) => {
            let message = "the worker stopped before the job was done".to_owned();
            (JobStatus::Failed, None, codes::WORKER_STOPPED.to_owned(), message)
        }
    };
    JobResult {
        job_id: context.job_id().to_string(),
        status: status.into(),
        result_ptr: pointer.map(String::from).unwrap_or_default(),
        worker_id: core.settings.id.to_string(),
        execution_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
        error_code,
        error_message: shortened(error_message),
        artifact_ptrs: context.take_artifacts(),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("€".repeat(1_000));
        assert!(
            long.len() <= MAX_MESSAGE_BYTES && long.ends_with("€…"),
            "{}",
            long.len()
        );
    }
}
