//! What can be done with jobs, whoever asks: submit, cancel, look up, list. See `docs/spec/http.md` §5–8.

mod list;
mod remediate;
mod submit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

pub use list::{JobFilter, JobPage, LIST_LIMIT_MAX, NextCursor, parse_cursor, parse_lower_bound, parse_upper_bound};
pub use remediate::{RemediateError, Remediated, Remediator};
pub use submit::{Invalid, SubmitError, SubmitRequest, Submitted};

use super::{Change, DecisionRecord, JobEvent, JobRecord, JobState, JobStore, JobStoreExt, Outcome, TerminalDetail};
use crate::bus::{Bus, Message};
use crate::dlq::{DeadLetter, DlqStore};
use crate::error::{StoreError, chain};
use crate::pointers::{Pointer, PointerStore};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobCancel, JobRequest, JobResult, JobStatus};
use crate::protocol::{JobId, TenantId, TraceId, encode_packet, packet, subjects};
use crate::time::{Clock, Timestamp};

/// The sender id of packets that carry jobs submitted over HTTP.
const HTTP_SENDER: &str = "api-gateway-http";

/// Jobs, as an application sees them. Cheap to clone.
#[derive(Clone)]
pub struct JobService {
    jobs: Arc<dyn JobStore>,
    pointers: Arc<dyn PointerStore>,
    dlq: Arc<dyn DlqStore>,
    bus: Arc<dyn Bus>,
    clock: Clock,
    default_tenant: TenantId,
}

impl fmt::Debug for JobService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobService")
            .field("default_tenant", &self.default_tenant)
            .finish_non_exhaustive()
    }
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled: now, or since an earlier cancel.
    Done,
    /// It had ended otherwise before.
    AlreadyTerminal(JobState),
    /// There is no such job.
    NotFound,
}

/// All that is known of one job.
#[derive(Debug, Clone)]
pub struct JobDetail {
    /// What the store knows.
    pub record: JobRecord,
    /// What was asked for.
    pub request: Option<JobRequest>,
    /// Its input, as stored.
    pub context: Option<Bytes>,
    /// What its result pointer names, as stored.
    pub result: Option<Bytes>,
    /// Its dead letter.
    pub letter: Option<DeadLetter>,
    /// Every state that it went through.
    pub events: Vec<(Timestamp, JobState)>,
}

impl JobService {
    /// A service over these stores.
    pub fn new(
        jobs: Arc<dyn JobStore>,
        pointers: Arc<dyn PointerStore>,
        dlq: Arc<dyn DlqStore>,
        bus: Arc<dyn Bus>,
        clock: Clock,
        default_tenant: TenantId,
    ) -> Self {
        Self {
            jobs,
            pointers,
            dlq,
            bus,
            clock,
            default_tenant,
        }
    }

    /// Stops a job. Repeating it is harmless and tells nobody again.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer; the job may be cancelled.
    ///
    /// # Cancel safety
    /// Dropped half-way, the job may be cancelled without its worker being told.
    pub async fn cancel(&self, id: &JobId) -> Result<Cancelled, StoreError> {
        let now = self.clock.now();
        match self.jobs.apply(Change::new(id.clone(), JobEvent::Cancel, now)).await? {
            Outcome::Applied(_) => {
                self.announce_cancel(id, now).await;
                Ok(Cancelled::Done)
            }
            Outcome::Conflict { state: None, .. } => Ok(Cancelled::NotFound),
            Outcome::Conflict {
                state: Some(JobState::Cancelled),
                ..
            } => Ok(Cancelled::Done),
            Outcome::Conflict { state: Some(state), .. } => Ok(Cancelled::AlreadyTerminal(state)),
            Outcome::LimitReached | Outcome::AttemptsExhausted { .. } | Outcome::DuplicateKey { .. } => {
                Err(unexpected("cancel"))
            }
        }
    }

    /// Tells the worker and everybody who listens. The job is cancelled whether or not that works.
    async fn announce_cancel(&self, id: &JobId, now: Timestamp) {
        let result = Payload::JobResult(JobResult {
            job_id: id.to_string(),
            status: JobStatus::Cancelled.into(),
            ..JobResult::default()
        });
        let cancel = Payload::JobCancel(JobCancel {
            job_id: id.to_string(),
            reason: "cancelled via api".to_owned(),
            requested_by: subjects::GATEWAY.to_owned(),
        });
        let message = |subject: &str, payload, message_id| Message {
            subject: subject.to_owned(),
            payload: encode_packet(&packet(id.as_str(), subjects::GATEWAY, now, payload)),
            message_id,
        };
        let sent = self
            .bus
            .publish_all(vec![
                message(subjects::RESULT, result, Some(format!("{}:{id}", subjects::RESULT))),
                message(subjects::CANCEL, cancel, None),
            ])
            .await;
        for error in sent.into_iter().filter_map(Result::err) {
            metrics::counter!("coretex_api_gateway_publish_failures_total").increment(1);
            warn!(job_id = %id, error = %chain(&error), "cancelled, but the bus did not take the news");
        }
    }

    /// Publishes a job that the store already has. A failure is no loss: schedulers find pending jobs in the store.
    async fn announce_submit(&self, request: &JobRequest, trace: &str, sender: &str, message_id: String) {
        let payload = Payload::JobRequest(request.clone());
        let message = Message {
            subject: subjects::SUBMIT.to_owned(),
            payload: encode_packet(&packet(trace, sender, self.clock.now(), payload)),
            message_id: Some(message_id),
        };
        if let Err(error) = self.bus.publish(message).await {
            metrics::counter!("coretex_api_gateway_publish_failures_total").increment(1);
            warn!(
                job_id = request.job_id,
                error = %chain(&error),
                "job is stored, but the bus did not take it; the scheduler will find it"
            );
        }
    }

    /// Publishes a job that waited for people, and is for the schedulers again.
    pub(crate) async fn announce_again(&self, request: &JobRequest, trace: Option<&TraceId>, message_id: String) {
        let trace = trace.map_or("", TraceId::as_str);
        self.announce_submit(request, trace, subjects::GATEWAY, message_id)
            .await;
    }

    /// Publishes that people have denied a job. It is denied whether or not that works.
    pub(crate) async fn announce_rejected(&self, id: &JobId, trace: Option<&TraceId>, outcome: &TerminalDetail) {
        let result = Payload::JobResult(JobResult {
            job_id: id.to_string(),
            status: JobStatus::Denied.into(),
            error_code: outcome.error_code.clone(),
            error_message: outcome.error_message.clone(),
            ..JobResult::default()
        });
        let trace = trace.map_or("", TraceId::as_str);
        let message = Message {
            subject: subjects::DLQ.to_owned(),
            payload: encode_packet(&packet(trace, subjects::GATEWAY, self.clock.now(), result)),
            message_id: Some(format!("{}:{id}", subjects::DLQ)),
        };
        if let Err(error) = self.bus.publish(message).await {
            metrics::counter!("coretex_api_gateway_publish_failures_total").increment(1);
            warn!(job_id = %id, error = %chain(&error), "denied, but the bus did not take the news");
        }
    }

    /// One job's record.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn record(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        self.jobs.get(id).await
    }

    /// Everything about one job; `None` if there is no such job. Payloads that cannot be read are left out.
    ///
    /// # Errors
    /// [`StoreError`] if a store did not answer.
    pub async fn detail(&self, id: &JobId) -> Result<Option<JobDetail>, StoreError> {
        let Some(record) = self.jobs.get(id).await? else {
            return Ok(None);
        };
        let result_ptr = record.outcome.result_ptr.parse::<Pointer>().ok();
        let context_ptr = Pointer::context(id);
        let (request, context, result, letter, events) = tokio::join!(
            self.jobs.request(id),
            self.payload(Some(&context_ptr)),
            self.payload(result_ptr.as_ref()),
            self.dlq.get(id),
            self.jobs.events(id),
        );
        let unreadable = |error: StoreError| match error {
            StoreError::Corrupt { .. } | StoreError::Refused { .. } => {
                warn!(job_id = %id, error = %chain(&error), "part of a job cannot be read");
                Ok(None)
            }
            error @ StoreError::Unavailable { .. } => Err(error),
        };
        Ok(Some(JobDetail {
            request: request.or_else(unreadable)?,
            context: context?,
            result: result?,
            letter: letter?,
            events: events?,
            record,
        }))
    }

    async fn payload(&self, pointer: Option<&Pointer>) -> Result<Option<Bytes>, StoreError> {
        let Some(pointer) = pointer else {
            return Ok(None);
        };
        match self.pointers.get(pointer).await {
            Err(StoreError::Refused { .. } | StoreError::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    /// The decisions on one job, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn decisions(&self, id: &JobId, limit: usize) -> Result<Vec<DecisionRecord>, StoreError> {
        self.jobs.decisions(id, limit.min(LIST_LIMIT_MAX)).await
    }

    /// The jobs of one trace, oldest change first.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn trace(&self, trace: &TraceId) -> Result<Vec<JobRecord>, StoreError> {
        self.jobs.trace(trace, LIST_LIMIT_MAX).await
    }

    /// How many jobs are in each state.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn counts(&self) -> Result<Vec<(JobState, u64)>, StoreError> {
        self.jobs.counts().await
    }
}

/// An outcome that the change cannot have.
fn unexpected(op: &'static str) -> StoreError {
    StoreError::Refused {
        backend: "job store",
        op,
        source: "an outcome that this change cannot have".into(),
    }
}
