//! What a handler knows about its job, and can say while it runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coretex_core::pointers::{Pointer, PointerStore};
use coretex_core::protocol::agent::{JobProgress, JobRequest, JobStatus, bus_packet::Payload};
use coretex_core::protocol::{JobId, encode_packet, packet};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::constraints::PolicyConstraints;
use crate::error::{JobError, codes};
use crate::handler::too_large;
use crate::payloads;
use crate::worker::core::Core;
use crate::worker::ledger::{Brake, StopReason};
use crate::worker::outbox::Outgoing;

/// The merged configuration of the job's organisation, team, workflow and step.
const EFFECTIVE_CONFIG: &str = "CORETEX_EFFECTIVE_CONFIG";
const POLICY_CONSTRAINTS: &str = "CORETEX_POLICY_CONSTRAINTS";
const MAX_ARTIFACT_BYTES: &str = "CORETEX_MAX_ARTIFACT_BYTES";
const MAX_RETRIES: &str = "CORETEX_MAX_RETRIES";

/// How many artifacts one job may attach; their pointers travel in the result.
const MAX_ARTIFACTS: usize = 256;

/// One attempt at one job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobContext {
    inner: Arc<Inner>,
    attempt: u32,
}

#[derive(Debug)]
struct Inner {
    id: JobId,
    trace_id: String,
    request: JobRequest,
    deadline: Option<Instant>,
    brake: Arc<Brake>,
    artifacts: Mutex<Vec<String>>,
    core: Arc<Core>,
}

impl JobContext {
    pub(crate) fn new(
        core: Arc<Core>,
        id: JobId,
        trace_id: String,
        request: JobRequest,
        deadline: Option<Instant>,
        brake: Arc<Brake>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                id,
                trace_id,
                request,
                deadline,
                brake,
                artifacts: Mutex::default(),
                core,
            }),
            attempt: 1,
        }
    }

    pub(crate) fn with_attempt(&self, attempt: u32) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            attempt,
        }
    }

    /// The job's id.
    pub fn job_id(&self) -> &JobId {
        &self.inner.id
    }

    /// The topic that the job was submitted to.
    pub fn topic(&self) -> &str {
        &self.inner.request.topic
    }

    /// The trace that the job belongs to. Pass it on when you submit more jobs.
    pub fn trace_id(&self) -> &str {
        &self.inner.trace_id
    }

    /// Whose job it is.
    pub fn tenant_id(&self) -> &str {
        let request = &self.inner.request;
        match request.tenant_id.as_str() {
            "" => self.env("tenant_id").unwrap_or("default"),
            tenant => tenant,
        }
    }

    /// 1 for the first attempt of this worker at this job, and so on; see [`retries`](crate::Builder::retries).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The whole request, as it came over the bus.
    pub fn request(&self) -> &JobRequest {
        &self.inner.request
    }

    /// One variable of the job's environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.inner.request.env.get(name).map(String::as_str)
    }

    /// One label of the job.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.inner.request.labels.get(name).map(String::as_str)
    }

    /// What policy allows the job to do; everything empty if it said nothing.
    ///
    /// # Errors
    /// `input_invalid` if the constraints cannot be read. Better to fail the job than to work without them.
    pub fn constraints(&self) -> Result<PolicyConstraints, JobError> {
        match self.env(POLICY_CONSTRAINTS) {
            None => Ok(PolicyConstraints::default()),
            Some(text) => read_env(POLICY_CONSTRAINTS, text),
        }
    }

    /// The merged configuration for this job, read as `T`; `None` if there is none.
    ///
    /// # Errors
    /// `input_invalid` if it is not what `T` takes.
    pub fn config<T: DeserializeOwned>(&self) -> Result<Option<T>, JobError> {
        self.env(EFFECTIVE_CONFIG)
            .map(|text| read_env(EFFECTIVE_CONFIG, text))
            .transpose()
    }

    /// When the job has to be done, if it has a deadline: its budget counted from receipt.
    pub fn deadline(&self) -> Option<Instant> {
        self.inner.deadline
    }

    /// How long is left until the deadline.
    pub fn time_left(&self) -> Option<Duration> {
        self.inner
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits until the job has to stop: cancelled, past its deadline, or the worker itself stops.
    ///
    /// A handler that returns an error after that reports the job as stopped. One that does not return within the
    /// [`cancel_grace`](crate::Builder::cancel_grace) is dropped.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn cancelled(&self) {
        self.inner.brake.token.cancelled().await;
    }

    /// Whether the job has to stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.brake.token.is_cancelled()
    }

    /// A token that is cancelled when the job has to stop, to hand to code that takes one.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.inner.brake.token.child_token()
    }

    /// Why the job has to stop, once it has to.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.inner.brake.reason()
    }

    /// Tells whoever watches how far the job is, in percent and in words.
    ///
    /// One message per call, and it may get lost; so tell what a person wants to see, not every turn of a loop. It waits
    /// for room if the bus is slow.
    ///
    /// # Cancel safety
    /// The note is sent, or not, when the future is dropped.
    pub async fn progress(&self, percent: u8, message: impl Into<String> + Send) {
        let payload = Payload::JobProgress(JobProgress {
            job_id: self.inner.id.to_string(),
            step_id: self.env("step_id").unwrap_or_default().to_owned(),
            percent: i32::from(percent.min(100)),
            message: message.into(),
            status: JobStatus::Running.into(),
            ..JobProgress::default()
        });
        let core = &self.inner.core;
        let sender = core.settings.id.as_str();
        let bytes = encode_packet(&packet(&self.inner.trace_id, sender, core.clock.now(), payload));
        core.outbox.send(Outgoing::Progress(bytes)).await;
    }

    /// Where payloads are: to follow pointers of your own, for example to shared memory.
    pub fn payloads(&self) -> &Arc<dyn PointerStore> {
        &self.inner.core.payloads
    }

    /// Stores an artifact and attaches its pointer to the job's result.
    ///
    /// # Errors
    /// `result_too_large` if it is larger than policy or the worker's result limit allow, or if there are more than 256;
    /// `payload_unavailable` if the store did not answer in time.
    pub async fn attach_artifact(&self, content: Bytes) -> Result<Pointer, JobError> {
        let limit = self
            .env(MAX_ARTIFACT_BYTES)
            .and_then(|text| text.parse().ok())
            .map_or(self.result_limit(), |limit: usize| limit.min(self.result_limit()));
        if content.len() > limit {
            return Err(too_large("artifact", Some(content.len()), limit));
        }
        let pointer = Pointer::from_key(&format!("art:{}", uuid::Uuid::new_v4()))?;
        {
            let mut artifacts = self.inner.artifacts.lock();
            if artifacts.len() >= MAX_ARTIFACTS {
                return Err(JobError::new(
                    codes::RESULT_TOO_LARGE,
                    format!("a job may attach {MAX_ARTIFACTS} artifacts"),
                ));
            }
            artifacts.push(pointer.to_string());
        }
        let stored = payloads::write(&self.inner.core, &pointer, content).await;
        if stored.is_err() {
            let text = pointer.to_string();
            self.inner.artifacts.lock().retain(|attached| *attached != text);
        }
        stored.map(|()| pointer)
    }

    pub(crate) fn brake(&self) -> &Brake {
        &self.inner.brake
    }

    pub(crate) fn take_artifacts(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.artifacts.lock())
    }

    /// How large the result may be, in bytes.
    pub fn result_limit(&self) -> usize {
        self.inner.core.settings.result_limit
    }

    /// How many attempts policy and the worker allow after the first.
    pub(crate) fn retries(&self) -> u32 {
        let own = self.inner.core.settings.retries;
        self.env(MAX_RETRIES)
            .and_then(|text| text.parse().ok())
            .map_or(own, |allowed: u32| own.min(allowed))
    }
}

fn read_env<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, JobError> {
    serde_json::from_str(text)
        .map_err(|error| JobError::new(codes::INPUT_INVALID, format!("cannot read the job's {name}: {error}")))
}
