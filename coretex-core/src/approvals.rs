//! People say yes or no to jobs that policy does not decide alone. See `docs/spec/http.md` §8.
//!
//! A yes binds what was judged: the policy that asked, and the exact request. If either has changed since, it is refused.
//! It takes effect once: the job leaves `APPROVAL_REQUIRED` by compare-and-set, so of several people one is heard.

use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;
use crate::jobs::service::{JobFilter, JobPage, JobService};
use crate::jobs::{
    ApprovalRecord, Change, Decision, JobEvent, JobRecord, JobState, JobStore, JobStoreExt, Outcome, RequestWrite,
    TerminalDetail,
};
use crate::policy::{Kernel, Unavailable};
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TraceId, job_hash, labels, subjects};
use crate::time::Clock;

/// How often a decision is looked at again when the job changed under it but still waits for people.
const TRIES: usize = 3;

/// Who decides, and why.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The principal; empty for the one the job runs for.
    pub by: String,
    /// In which role; may be empty.
    pub role: String,
    /// Why; may be empty.
    pub reason: String,
    /// Anything else; may be empty.
    pub note: String,
}

/// Why a verdict has no effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such job.
    #[error("job not found")]
    NotFound,
    /// It does not wait for people: it never did, or somebody was quicker.
    #[error("job not awaiting approval")]
    NotAwaiting,
    /// What was asked for is gone.
    #[error("job request not found")]
    RequestMissing,
    /// The decision that asks for people is gone.
    #[error("safety decision unavailable")]
    DecisionMissing,
    /// The decision does not say what it judged.
    #[error("approval job hash unavailable")]
    NoHash,
    /// The decision does not say which policy made it.
    #[error("approval policy snapshot unavailable")]
    NoSnapshot,
    /// Policy cannot be asked whether it has changed.
    #[error("safety kernel unavailable")]
    Kernel(#[from] Unavailable),
    /// Another policy is in force by now.
    #[error("policy snapshot changed; re-evaluate before approving")]
    SnapshotChanged,
    /// The request is not the one that was judged.
    #[error("job request changed; approval rejected")]
    RequestChanged,
    /// The store did not answer.
    #[error("the verdict could not be stored")]
    Store(#[from] StoreError),
}

/// A job that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The job.
    pub job_id: JobId,
    /// Its trace, if it has one.
    pub trace_id: Option<TraceId>,
}

/// The approvals of jobs. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    jobs: Arc<dyn JobStore>,
    service: JobService,
    kernel: Arc<dyn Kernel>,
    clock: Clock,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").finish_non_exhaustive()
    }
}

impl Approvals {
    /// Approvals over these jobs, bound to the policies of this kernel.
    pub fn new(jobs: Arc<dyn JobStore>, service: JobService, kernel: Arc<dyn Kernel>, clock: Clock) -> Self {
        Self {
            jobs,
            service,
            kernel,
            clock,
        }
    }

    /// The jobs that wait for people; pages as [`JobService::list`] does.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn list(&self, filter: JobFilter) -> Result<JobPage, StoreError> {
        self.service
            .list(&JobFilter {
                state: Some(JobState::ApprovalRequired),
                ..filter
            })
            .await
    }

    /// Lets the job run.
    ///
    /// # Errors
    /// [`Error`] says why not; except for [`Error::Store`], nothing has happened.
    ///
    /// # Cancel safety
    /// Dropped half-way, the job may have been approved; schedulers find it then.
    pub async fn approve(&self, id: &JobId, verdict: &Verdict) -> Result<Approved, Error> {
        for _ in 0..TRIES {
            let record = self.waiting(id).await?;
            let request = self.jobs.request(id).await?.ok_or(Error::RequestMissing)?;
            let (snapshot, hash) = self.judged(&record, &request).await?;
            let (request, message_id) = granted(request, verdict);
            let request = Arc::new(request);
            let mut change = self.change(&record, JobEvent::Approve);
            change.request = RequestWrite::Replace(Arc::clone(&request));
            change.approval = Some(self.approval(&request.principal_id, verdict, snapshot, hash));
            if self.decide(change).await? {
                self.service
                    .announce_approved(&request, record.trace_id.as_ref(), message_id)
                    .await;
                return Ok(Approved {
                    job_id: id.clone(),
                    trace_id: record.trace_id,
                });
            }
        }
        Err(Error::NotAwaiting)
    }

    /// Ends the job as denied, with a dead letter.
    ///
    /// # Errors
    /// [`Error`] says why not; except for [`Error::Store`], nothing has happened.
    ///
    /// # Cancel safety
    /// Dropped half-way, the job may have been denied.
    pub async fn reject(&self, id: &JobId, verdict: &Verdict) -> Result<(), Error> {
        for _ in 0..TRIES {
            let record = self.waiting(id).await?;
            let (snapshot, hash) = record
                .decision
                .as_ref()
                .map(|decision| (decision.policy_snapshot.clone(), decision.job_hash.clone()))
                .unwrap_or_default();
            let message = match verdict.reason.as_str() {
                "" => "approval rejected",
                reason => reason,
            };
            let outcome = TerminalDetail {
                error_code: "approval_rejected".to_owned(),
                error_message: message.to_owned(),
                ..TerminalDetail::default()
            };
            let mut change = self.change(&record, JobEvent::Deny);
            change.approval = Some(self.approval(&record.principal, verdict, snapshot, hash));
            change.outcome = Some(outcome.clone());
            change.dead_letter = true;
            if self.decide(change).await? {
                self.service
                    .announce_rejected(id, record.trace_id.as_ref(), &outcome)
                    .await;
                return Ok(());
            }
        }
        Err(Error::NotAwaiting)
    }

    async fn waiting(&self, id: &JobId) -> Result<JobRecord, Error> {
        let record = self.jobs.get(id).await?.ok_or(Error::NotFound)?;
        if record.state == JobState::ApprovalRequired {
            Ok(record)
        } else {
            Err(Error::NotAwaiting)
        }
    }

    /// The policy and the digest that the decision is about, if both still hold.
    async fn judged(&self, record: &JobRecord, request: &JobRequest) -> Result<(String, String), Error> {
        let decision = record.decision.as_ref().ok_or(Error::DecisionMissing)?;
        if !decision.approval_required && decision.decision != Decision::RequireApproval {
            return Err(Error::NotAwaiting);
        }
        if decision.job_hash.is_empty() {
            return Err(Error::NoHash);
        }
        let snapshot = decision.policy_snapshot.trim();
        if snapshot.is_empty() {
            return Err(Error::NoSnapshot);
        }
        let active = self.kernel.snapshots().await?;
        if active.first().map(|active| active.trim()) != Some(snapshot) {
            return Err(Error::SnapshotChanged);
        }
        if job_hash(request) != decision.job_hash {
            return Err(Error::RequestChanged);
        }
        Ok((snapshot.to_owned(), decision.job_hash.clone()))
    }

    fn change(&self, record: &JobRecord, event: JobEvent) -> Change {
        let mut change = Change::new(record.id.clone(), event, self.clock.now());
        change.expected = Some(record.revision);
        change
    }

    fn approval(
        &self,
        principal: &str,
        verdict: &Verdict,
        policy_snapshot: String,
        job_hash: String,
    ) -> ApprovalRecord {
        ApprovalRecord {
            by: if verdict.by.is_empty() { principal } else { &verdict.by }.to_owned(),
            role: verdict.role.clone(),
            at: self.clock.now(),
            reason: verdict.reason.clone(),
            note: verdict.note.clone(),
            policy_snapshot,
            job_hash,
        }
    }

    /// Whether the change took place; false if the job has changed but still waits.
    async fn decide(&self, change: Change) -> Result<bool, Error> {
        match self.jobs.apply(change).await? {
            Outcome::Applied(_) => Ok(true),
            Outcome::Conflict {
                state: Some(JobState::ApprovalRequired),
                ..
            } => Ok(false),
            Outcome::Conflict { .. }
            | Outcome::LimitReached
            | Outcome::AttemptsExhausted { .. }
            | Outcome::DuplicateKey { .. } => Err(Error::NotAwaiting),
        }
    }
}

/// The request with the marks of an approval, and what de-duplicates it on the bus: the first submit of this job may
/// still be within the broker's window.
fn granted(mut request: JobRequest, verdict: &Verdict) -> (JobRequest, String) {
    let mark = format!("approval:{}", uuid::Uuid::new_v4());
    let message_id = format!("jobreq:{}:{mark}", subjects::SUBMIT);
    for (name, value) in [
        (labels::APPROVAL_GRANTED, "true"),
        (labels::APPROVAL_REASON, &verdict.reason),
        (labels::APPROVAL_NOTE, &verdict.note),
        (labels::BUS_MSG_ID, &mark),
    ] {
        if !value.is_empty() {
            request.labels.insert(name.to_owned(), value.to_owned());
        }
    }
    (request, message_id)
}
