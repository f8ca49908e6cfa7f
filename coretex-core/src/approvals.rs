//! People say yes or no to jobs that policy does not decide alone. See `docs/spec/approvals.md`.
//!
//! A yes binds what was judged: the policy that asked, and the exact request. If either has changed since, it is refused.
//! It takes effect once: each vote, and the step out of `APPROVAL_REQUIRED`, is a compare-and-set, so that of many people
//! exactly as many are heard as policy asked for.

mod audit;
pub(crate) mod expiry;
mod tally;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use tracing::warn;

pub(crate) use self::tally::is_granted;
pub use self::tally::{ON_EXPIRY, Tally};
use crate::error::{StoreError, chain};
use crate::jobs::service::{JobFilter, JobPage, JobService};
use crate::jobs::{
    ApprovalRecord, Change, Decision, DecisionRecord, JobEvent, JobRecord, JobState, JobStore, JobStoreExt, Outcome,
    RequestWrite, TerminalDetail,
};
use crate::policy::{Kernel, Unavailable};
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TraceId, job_hash, labels, subjects};
use crate::time::Clock;

/// How often a verdict is tried again because the job changed under it but still waits for people. Each time somebody
/// else was heard, so it ends by itself; this only bounds what one call may cost.
const TRIES: u32 = 64;

/// Who decides, and why.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The principal; empty if nobody is named.
    pub by: String,
    /// In which role; may be empty.
    pub role: String,
    /// Whether the caller's key says who they are, and not only the caller.
    pub verified: bool,
    /// Why; may be empty.
    pub reason: String,
    /// Anything else; may be empty.
    pub note: String,
}

/// Who may approve their own jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelfApproval {
    /// Only callers whose key does not say who they are: for them it could not be enforced.
    #[default]
    Unverified,
    /// Nobody; whoever approves has to say who they are.
    Never,
    /// Everybody.
    Always,
}

/// Why a verdict has no effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such job.
    #[error("job not found")]
    NotFound,
    /// Policy never asked people about it.
    #[error("approval not found")]
    NoApproval,
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
    /// Another policy is in force by now. The job has been sent back to be judged by it.
    #[error("policy snapshot changed; re-evaluate before approving")]
    SnapshotChanged,
    /// The request is not the one that was judged.
    #[error("job request changed; approval rejected")]
    RequestChanged,
    /// Nobody says who approves, and it matters.
    #[error("this approval needs a principal: send the header X-Principal-Id, or use a key of your own")]
    Anonymous,
    /// A name that only policy may use.
    #[error("principals that begin with `policy:` are reserved")]
    Reserved,
    /// Whoever asked for the job may not be the one who approves it.
    #[error("you cannot approve your own job")]
    OwnJob,
    /// Each principal counts once.
    #[error("already approved by this principal")]
    AlreadyVoted,
    /// The time for it has passed; what happens then is about to happen.
    #[error("the time for this approval is over")]
    Expired,
    /// The job changed again and again.
    #[error("the job keeps changing; try again")]
    Contended,
    /// The store did not answer.
    #[error("the verdict could not be stored")]
    Store(#[from] StoreError),
}

/// A yes that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The job.
    pub job_id: JobId,
    /// Its trace, if it has one.
    pub trace_id: Option<TraceId>,
    /// How many have said yes, this one included.
    pub approvals: u32,
    /// How many have to.
    pub quorum: u32,
    /// Where the job is now: `PENDING` if it goes on, `APPROVAL_REQUIRED` if more people have to say yes.
    pub state: JobState,
}

/// What people need to know to decide about a job.
#[derive(Debug, Clone)]
pub struct Case {
    /// What the store knows.
    pub record: JobRecord,
    /// What was asked for, if it is still there.
    pub request: Option<JobRequest>,
    /// Whether another policy is in force than the one that asked; `None` if policy cannot be asked.
    pub stale: Option<bool>,
}

/// The approvals of jobs. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    jobs: Arc<dyn JobStore>,
    service: JobService,
    kernel: Arc<dyn Kernel>,
    clock: Clock,
    own: SelfApproval,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// What a decision asks people to approve: exactly this, under exactly this policy.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    snapshot: &'a str,
    hash: &'a str,
}

impl Approvals {
    /// Approvals over these jobs, bound to the policies of this kernel.
    pub fn new(jobs: Arc<dyn JobStore>, service: JobService, kernel: Arc<dyn Kernel>, clock: Clock) -> Self {
        Self {
            jobs,
            service,
            kernel,
            clock,
            own: SelfApproval::default(),
        }
    }

    /// Sets who may approve their own jobs.
    #[must_use]
    pub fn with_self_approval(mut self, own: SelfApproval) -> Self {
        self.own = own;
        self
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

    /// All that there is to know about one approval, decided or not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoApproval`] if policy never asked people, [`Error::Store`].
    pub async fn case(&self, id: &JobId) -> Result<Case, Error> {
        let record = self.jobs.get(id).await?.ok_or(Error::NotFound)?;
        let decision = record.decision.as_ref().ok_or(Error::NoApproval)?;
        if record.state != JobState::ApprovalRequired && decision.job_hash.is_empty() {
            return Err(Error::NoApproval);
        }
        let (request, active) = tokio::join!(self.jobs.request(id), self.kernel.snapshots());
        let request = match request {
            Err(error) if error.is_retryable() => return Err(error.into()),
            // One that cannot be read is as good as none.
            request => request.unwrap_or_default(),
        };
        let stale = active.ok().map(|active| !is_active(&active, &decision.policy_snapshot));
        Ok(Case { record, request, stale })
    }

    /// Says yes. The job goes on once as many principals have said so as policy asked for.
    ///
    /// If another policy is in force by now the job is sent back to be judged by that one.
    ///
    /// # Errors
    /// [`Error`] says why not; except for [`Error::Store`] and [`Error::SnapshotChanged`], nothing has happened.
    ///
    /// # Cancel safety
    /// Dropped half-way, the vote may count, and the job may have been approved; schedulers find it then.
    pub async fn approve(&self, id: &JobId, verdict: &Verdict) -> Result<Approved, Error> {
        if verdict.by.starts_with(tally::RESERVED) {
            return Err(Error::Reserved);
        }
        for _ in 0..TRIES {
            let record = self.waiting(id).await?;
            let request = self.jobs.request(id).await?.ok_or(Error::RequestMissing)?;
            let asked = asked(record.decision.as_ref())?;
            let tally = Tally::of(&record);
            self.admit(&record, &request, &tally, verdict)?;
            if !is_active(&self.kernel.snapshots().await?, asked.snapshot) {
                self.judge_again(&record, &request).await;
                return Err(Error::SnapshotChanged);
            }
            if job_hash(&request) != asked.hash {
                return Err(Error::RequestChanged);
            }
            if let Some(approved) = self.vote(&record, request, asked, &tally, verdict).await? {
                return Ok(approved);
            }
        }
        Err(Error::Contended)
    }

    /// Ends the job as denied, with a dead letter. One no is enough.
    ///
    /// # Errors
    /// [`Error`] says why not; except for [`Error::Store`], nothing has happened.
    ///
    /// # Cancel safety
    /// Dropped half-way, the job may have been denied.
    pub async fn reject(&self, id: &JobId, verdict: &Verdict) -> Result<(), Error> {
        if verdict.by.starts_with(tally::RESERVED) {
            return Err(Error::Reserved);
        }
        for _ in 0..TRIES {
            let record = self.waiting(id).await?;
            let asked = record
                .decision
                .as_ref()
                .map_or(Asked { snapshot: "", hash: "" }, |d| Asked {
                    snapshot: &d.policy_snapshot,
                    hash: &d.job_hash,
                });
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
            let approval = self.approval(&record.principal, verdict, asked);
            change.audit = Some(audit::verdict(
                audit::REJECT,
                &record,
                &approval,
                verdict,
                &Tally::of(&record),
            ));
            change.approval = Some(approval);
            change.outcome = Some(outcome.clone());
            change.dead_letter = true;
            if self.decide(change).await? {
                self.service
                    .announce_rejected(id, record.trace_id.as_ref(), &outcome)
                    .await;
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    async fn waiting(&self, id: &JobId) -> Result<JobRecord, Error> {
        let record = self.jobs.get(id).await?.ok_or(Error::NotFound)?;
        if record.state == JobState::ApprovalRequired {
            Ok(record)
        } else {
            Err(Error::NotAwaiting)
        }
    }

    /// Whether this principal may say yes to this job now.
    fn admit(&self, record: &JobRecord, request: &JobRequest, tally: &Tally, verdict: &Verdict) -> Result<(), Error> {
        if tally.expired(self.clock.now()) {
            return Err(Error::Expired);
        }
        let own = match self.own {
            SelfApproval::Unverified => verdict.verified,
            SelfApproval::Never => true,
            SelfApproval::Always => false,
        };
        if verdict.by.is_empty() {
            let matters = tally.quorum > 1 || verdict.verified || self.own == SelfApproval::Never;
            return if matters { Err(Error::Anonymous) } else { Ok(()) };
        }
        let actor = request.meta.as_ref().map_or("", |meta| meta.actor_id.as_str());
        if own && [&record.principal, &record.actor_id, &request.principal_id, actor].contains(&verdict.by.as_str()) {
            return Err(Error::OwnJob);
        }
        if tally.has(&verdict.by) {
            return Err(Error::AlreadyVoted);
        }
        Ok(())
    }

    /// Counts one yes; the last that is needed lets the job go on. `None` if the job has changed but still waits.
    async fn vote(
        &self,
        record: &JobRecord,
        request: JobRequest,
        asked: Asked<'_>,
        tally: &Tally,
        verdict: &Verdict,
    ) -> Result<Option<Approved>, Error> {
        let approval = self.approval(&request.principal_id, verdict, asked);
        let approvals = tally.approvals().saturating_add(1);
        let last = approvals >= tally.quorum;
        let counted = tally.clone().with(&approval.by);
        let mut change = self.change(record, if last { JobEvent::Approve } else { JobEvent::Vote });
        let action = if last { audit::APPROVE } else { audit::VOTE };
        change.audit = Some(audit::verdict(action, record, &approval, verdict, &counted));
        change.vote = Some(approval.clone());
        let mut news = None;
        if last {
            let (request, message_id) = granted(request, &verdict.reason, &verdict.note);
            let request = Arc::new(request);
            change.request = RequestWrite::Replace(Arc::clone(&request));
            change.approval = Some(approval);
            news = Some((request, message_id));
        }
        let state = change.event.target();
        if !self.decide(change).await? {
            return Ok(None);
        }
        if let Some((request, message_id)) = news {
            let trace = record.trace_id.as_ref();
            self.service.announce_again(&request, trace, message_id).await;
        }
        Ok(Some(Approved {
            job_id: record.id.clone(),
            trace_id: record.trace_id.clone(),
            approvals,
            quorum: tally.quorum,
            state,
        }))
    }

    /// Sends the job back to be judged by the policy that is in force now, unless somebody else was quicker. If that fails,
    /// the next approval tries again.
    async fn judge_again(&self, record: &JobRecord, request: &JobRequest) {
        match self.decide(self.change(record, JobEvent::Rejudge)).await {
            Ok(true) => {
                let message_id = format!("jobreq:{}:rejudge:{}", subjects::SUBMIT, uuid::Uuid::new_v4());
                self.service
                    .announce_again(request, record.trace_id.as_ref(), message_id)
                    .await;
            }
            Ok(false) | Err(Error::NotAwaiting) => {}
            Err(error) => warn!(job_id = %record.id, error = %chain(&error), "a job could not be sent back to policy"),
        }
    }

    fn change(&self, record: &JobRecord, event: JobEvent) -> Change {
        let mut change = Change::new(record.id.clone(), event, self.clock.now());
        change.expected = Some(record.revision);
        change
    }

    fn approval(&self, principal: &str, verdict: &Verdict, asked: Asked<'_>) -> ApprovalRecord {
        ApprovalRecord {
            by: if verdict.by.is_empty() { principal } else { &verdict.by }.to_owned(),
            role: verdict.role.clone(),
            at: self.clock.now(),
            reason: verdict.reason.clone(),
            note: verdict.note.clone(),
            policy_snapshot: asked.snapshot.to_owned(),
            job_hash: asked.hash.to_owned(),
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

/// Whether policy asks people by this decision.
pub(crate) fn asks(decision: &DecisionRecord) -> bool {
    decision.approval_required || decision.decision == Decision::RequireApproval
}

/// What the decision asks people to approve.
fn asked(decision: Option<&DecisionRecord>) -> Result<Asked<'_>, Error> {
    let decision = decision.ok_or(Error::DecisionMissing)?;
    if !asks(decision) {
        return Err(Error::NotAwaiting);
    }
    if decision.job_hash.is_empty() {
        return Err(Error::NoHash);
    }
    match decision.policy_snapshot.trim() {
        "" => Err(Error::NoSnapshot),
        snapshot => Ok(Asked {
            snapshot,
            hash: &decision.job_hash,
        }),
    }
}

/// Whether the policy in force is this one.
fn is_active(active: &[String], snapshot: &str) -> bool {
    active.first().map(|active| active.trim()) == Some(snapshot.trim())
}

/// The request with the marks of an approval, and what de-duplicates it on the bus: the first submit of this job may
/// still be within the broker's window.
fn granted(mut request: JobRequest, reason: &str, note: &str) -> (JobRequest, String) {
    let mark = format!("approval:{}", uuid::Uuid::new_v4());
    let message_id = format!("jobreq:{}:{mark}", subjects::SUBMIT);
    for (name, value) in [
        (labels::APPROVAL_GRANTED, "true"),
        (labels::APPROVAL_REASON, reason),
        (labels::APPROVAL_NOTE, note),
        (labels::BUS_MSG_ID, &mark),
    ] {
        if !value.is_empty() {
            request.labels.insert(name.to_owned(), value.to_owned());
        }
    }
    (request, message_id)
}
