//! How jobs end reaches their runs. See `docs/spec/workflows.md` §4.1.

use std::sync::Arc;

use metrics::counter;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Inner;
use super::shard::{Input, settle};
use crate::bus::{self, Delivery, SubscribeOptions, Subscription};
use crate::jobs::JobState;
use crate::metrics::{PACKETS_UNDECODABLE, WORKFLOW_RESULTS_IGNORED};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobResult, JobStatus};
use crate::protocol::{JobId, decode_packet, subjects};
use crate::workflow::event::{Event, Fetched, JobEnded};
use crate::workflow::run::{RunId, parse_job_id};

use super::Ears;

/// As much of a packet as says whose it is.
#[derive(Clone, PartialEq, prost::Message)]
struct Peek {
    #[prost(message, optional, tag = "11")]
    job_result: Option<PeekResult>,
}

/// As much of a result.
#[derive(Clone, PartialEq, prost::Message)]
struct PeekResult {
    #[prost(string, tag = "1")]
    job_id: String,
}

impl Inner {
    pub(super) async fn listen(&self) -> Result<Ears, bus::Error> {
        let bus = &self.parts.bus;
        let queue = || SubscribeOptions::queue(subjects::WORKFLOW_ENGINE);
        Ok(Ears {
            results: bus.subscribe(subjects::RESULT, queue()).await?,
            // Jobs that were denied, rejected, or could not be run end here, with the reason.
            letters: bus.subscribe(subjects::DLQ, queue()).await?,
            config: bus.subscribe(subjects::CONFIG_CHANGED, SubscribeOptions::tap()).await?,
        })
    }

    /// Takes results until `stop`; those that only this process was given by then are still taken.
    pub(super) async fn take_results(self: Arc<Self>, mut results: Subscription, stop: CancellationToken) {
        let mut stopping = false;
        while !stopping {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    stopping = true;
                    results.close();
                    results.next_batch(self.options.queue).await
                }
                batch = results.next_batch(self.options.batch) => batch,
            };
            if batch.is_empty() {
                return;
            }
            for delivery in batch {
                match read(&delivery) {
                    Some((run, event)) => {
                        let input = Input::Event {
                            run: run.clone(),
                            event: Box::new(event),
                            workflow: None,
                            reply: None,
                            delivery: Some(delivery),
                        };
                        if self.send(&run, input).await.is_err() {
                            return;
                        }
                    }
                    None => settle(delivery).await,
                }
            }
        }
    }
}

/// What a result means, and to which run. `None` if it is nothing for us.
fn read(delivery: &Delivery) -> Option<(RunId, Event)> {
    let peek = match Peek::decode(&*delivery.payload) {
        Ok(peek) => peek,
        Err(error) => {
            counter!(PACKETS_UNDECODABLE, "subject" => subjects::WORKFLOW_ENGINE).increment(1);
            debug!(subject = delivery.subject, %error, "not a packet");
            return None;
        }
    };
    if !peek.job_result.is_some_and(|result| result.job_id.contains(':')) {
        return None;
    }
    let Some(Payload::JobResult(result)) = decode_packet(&delivery.payload).ok()?.payload else {
        return None;
    };
    let ignored = |why: &'static str| counter!(WORKFLOW_RESULTS_IGNORED, "why" => why).increment(1);
    let (Some((run, _, _)), Ok(job)) = (parse_job_id(&result.job_id), JobId::try_new(&result.job_id)) else {
        ignored("bad_id");
        return None;
    };
    let Some(ended) = ended(result) else {
        ignored("not_ended");
        return None;
    };
    Some((run, Event::JobEnded { job, ended }))
}

/// How a job ended; `None` if it has not.
fn ended(result: JobResult) -> Option<JobEnded> {
    let status = result.status();
    let (state, missing) = match JobState::from_terminal_status(status) {
        Some(state) => (state, false),
        // Nobody said how it ended: that is a failure, as it is for the scheduler.
        None if status == JobStatus::Unspecified => (JobState::Failed, true),
        None => return None,
    };
    let or = |text: String, other: &str| {
        if missing && text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    Some(JobEnded {
        state,
        result_ptr: result.result_ptr,
        output: Fetched::Nothing,
        error_code: or(result.error_code, "missing_status"),
        error_message: or(result.error_message, "the worker's result says no status"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{encode_packet, packet};
    use crate::time::Timestamp;

    fn delivery(job: &str, status: JobStatus) -> Delivery {
        let result = JobResult {
            job_id: job.to_owned(),
            status: status.into(),
            result_ptr: "redis://res:x".to_owned(),
            error_code: "code".to_owned(),
            ..JobResult::default()
        };
        let packet = packet("t", "worker", Timestamp::ZERO, Payload::JobResult(result));
        Delivery::new(subjects::RESULT.to_owned(), encode_packet(&packet), None)
    }

    #[track_caller]
    fn check(job: &str, status: JobStatus, expected: Option<(&str, JobState)>) {
        let found = read(&delivery(job, status)).map(|(run, event)| match event {
            Event::JobEnded { ended, .. } => (run.to_string(), ended.state),
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected.map(|(run, state)| (run.to_owned(), state)));
    }

    /// docs/spec/workflows.md §4.1.
    #[test]
    fn results_find_their_runs() {
        check("run:a@1", JobStatus::Succeeded, Some(("run", JobState::Succeeded)));
        check("run:a[3]@2", JobStatus::Denied, Some(("run", JobState::Denied)));
        check("x:y:a@1", JobStatus::Failed, Some(("x:y", JobState::Failed)));
        check("run:a@1", JobStatus::Unspecified, Some(("run", JobState::Failed)));
        check("run:a@1", JobStatus::Running, None);
        check("no-run", JobStatus::Succeeded, None);
        check(":", JobStatus::Succeeded, None);
        let garbage = Delivery::new(subjects::RESULT.to_owned(), "garbage".into(), None);
        assert!(read(&garbage).is_none());
    }
}
