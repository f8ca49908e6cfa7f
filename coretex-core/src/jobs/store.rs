//! Where jobs are kept. See `docs/spec/storage.md` §2–4.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::{ApprovalRecord, DecisionRecord, JobEvent, JobRecord, JobState, PendingNote, Revision, TerminalDetail};
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::protocol::agent::JobRequest;
use crate::protocol::{InstanceId, JobId, TenantId, TraceId, WorkerId};
use crate::time::Timestamp;

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, which is also in the request.
    pub id: JobId,
    /// What is asked for.
    pub request: Arc<JobRequest>,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its input, stored at `ctx:<id>` in the same commit.
    pub payload: Option<Bytes>,
    /// Claimed in the same commit, scoped by the tenant.
    pub idempotency: Option<(TenantId, String)>,
    /// When it times out.
    pub deadline: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What became of a [`NewJob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is PENDING, and durable.
    Accepted(Revision),
    /// Its idempotency key belongs to this job already; nothing was written.
    Duplicate {
        /// The job that holds the key.
        job: JobId,
        /// That job's trace, if it has one.
        trace: Option<TraceId>,
    },
    /// There is a job of this id already; nothing was written.
    Exists(JobState),
}

/// What a change does to the stored request.
#[derive(Debug, Clone, Default)]
pub enum RequestWrite {
    /// Leaves it.
    #[default]
    Keep,
    /// Stores it, with the job's descriptive fields, if there is none: the first time the job is seen.
    IfAbsent(Arc<JobRequest>),
    /// Stores it in place of the old one, with the job's descriptive fields.
    Replace(Arc<JobRequest>),
}

/// A place among the tenant's dispatched jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whose.
    pub tenant: TenantId,
    /// How many there are; zero means any number.
    pub limit: u32,
}

/// One step in the life of one job: applied whole or not at all, and only if the job is where the event may happen.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which job.
    pub id: JobId,
    /// What happens: from which states, to which.
    pub event: JobEvent,
    /// Apply only at this revision; otherwise in any state that the event allows.
    pub expected: Option<Revision>,
    /// Marks the change. A change whose token is the job's last one was applied before, and is answered as it was then:
    /// repeating a change whose answer was lost is safe.
    pub token: u64,
    /// Now. The revision becomes this, or one microsecond after the last if that is later.
    pub at: Timestamp,
    /// What to do with the request.
    pub request: RequestWrite,
    /// The job's trace, recorded if it has none.
    pub trace_id: Option<TraceId>,
    /// Replaces the decision, and is appended to the job's decisions.
    pub decision: Option<DecisionRecord>,
    /// Replaces what people said.
    pub approval: Option<ApprovalRecord>,
    /// Appended to what people said ([`JobRecord::votes`]). A change to `APPROVAL_REQUIRED` that carries a decision forgets
    /// them first.
    pub vote: Option<ApprovalRecord>,
    /// Written to the outbox of the audit log in the same commit.
    pub audit: Option<AuditRecord>,
    /// Replaces why it waits; cleared by every change that is without.
    pub pending: Option<PendingNote>,
    /// Which replica looks after it from now on.
    pub owner: Option<InstanceId>,
    /// With [`JobEvent::Dispatch`]: where to.
    pub worker_id: Option<WorkerId>,
    /// With [`JobEvent::Dispatch`]: why there, for people.
    pub placement: String,
    /// With [`JobEvent::Dispatch`]: the tenant's place to take. Freed by every change out of a placed state.
    pub slot: Option<Slot>,
    /// With [`JobEvent::Dispatch`]: how often the job may be dispatched in all.
    pub attempt_limit: Option<u32>,
    /// When it times out. Set the first time, later only made earlier.
    pub deadline: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<TerminalDetail>,
    /// Writes a dead letter in the same commit, from the outcome and what is stored; and, if the job has no result, an
    /// error document at `res:<id>` that its result pointer then names.
    pub dead_letter: bool,
}

impl Change {
    /// A change that does nothing but move the job.
    pub fn new(id: JobId, event: JobEvent, at: Timestamp) -> Self {
        Self {
            id,
            event,
            expected: None,
            token: rand::random(),
            at,
            request: RequestWrite::Keep,
            trace_id: None,
            decision: None,
            approval: None,
            vote: None,
            audit: None,
            pending: None,
            owner: None,
            worker_id: None,
            placement: String::new(),
            slot: None,
            attempt_limit: None,
            deadline: None,
            outcome: None,
            dead_letter: false,
        }
    }

    /// What this change does to the time until which people may approve.
    #[cfg(any(feature = "embedded", feature = "redis"))]
    pub(crate) fn approval_due(&self) -> ApprovalDue {
        if self.event.target() != JobState::ApprovalRequired {
            return ApprovalDue::Clear;
        }
        let Some(decision) = &self.decision else {
            return ApprovalDue::Keep;
        };
        match decision.terms.as_ref().and_then(|terms| terms.expires_after) {
            Some(after) => ApprovalDue::Set(decision.checked_at.plus(after)),
            None => ApprovalDue::Clear,
        }
    }

    /// Whether this change forgets the votes so far.
    #[cfg(feature = "embedded")]
    pub(crate) fn forgets_votes(&self) -> bool {
        self.event.target() == JobState::ApprovalRequired && self.decision.is_some()
    }

    /// The rule that no state set can say: whether a job in `state` that was dispatched `attempts` times is where the
    /// event may happen. Every backend applies exactly this.
    pub fn guard(&self, state: Option<JobState>, attempts: u32) -> bool {
        self.event.from().contains(state)
            && !(matches!(self.event, JobEvent::Finish(_)) && state == Some(JobState::Pending) && attempts == 0)
    }
}

/// What a change does to the time until which people may approve.
#[cfg(any(feature = "embedded", feature = "redis"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApprovalDue {
    /// It stays as it is.
    Keep,
    /// There is none.
    Clear,
    /// It is this.
    Set(Timestamp),
}

/// What a job looks like right after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its new revision.
    pub revision: Revision,
    /// Where it was; `None` if it is new.
    pub previous: Option<JobState>,
    /// How often it was dispatched, this time included.
    pub attempts: u32,
    /// Its topic; may be empty.
    pub topic: String,
    /// Its tenant; may be empty.
    pub tenant: String,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Where it was placed, before or by this change.
    pub worker_id: Option<WorkerId>,
}

/// What became of a [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and durable.
    Applied(Applied),
    /// The job is not where the event may happen, or not at the expected revision. Nothing was written.
    Conflict {
        /// Where it is; `None` if there is no such job.
        state: Option<JobState>,
        /// At which revision.
        revision: Option<Revision>,
    },
    /// The tenant has no place left. Nothing was written.
    LimitReached,
    /// The job was dispatched as often as it may be. Nothing was written.
    AttemptsExhausted {
        /// How often.
        attempts: u32,
    },
    /// A new job's idempotency key belongs to another job. Nothing was written.
    DuplicateKey {
        /// The job that holds the key.
        job: JobId,
    },
}

/// Something learned about a job that moves it nowhere.
#[derive(Debug, Clone)]
pub enum Note {
    /// The worker has confirmed that it has the job. Only kept while the job is placed with that worker.
    Accepted {
        /// Which job.
        id: JobId,
        /// Who has it.
        worker_id: WorkerId,
        /// Since when.
        at: Timestamp,
    },
    /// Why the job waits, and who looks after it. Only kept while it is pending.
    Waiting {
        /// Which job.
        id: JobId,
        /// Why.
        pending: PendingNote,
        /// Who.
        owner: InstanceId,
    },
    /// Who looks after the job from now on. Only kept while it is open.
    Owned {
        /// Which job.
        id: JobId,
        /// Who.
        owner: InstanceId,
    },
}

/// Where a list begins: right after this job, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The time of that job's last change.
    pub at: Timestamp,
    /// That job; empty for a bare time, which begins with the jobs of exactly that time.
    pub id: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.is_empty() {
            write!(f, "{}", self.at.micros())
        } else {
            write!(f, "{}.{}", self.at.micros(), URL_SAFE_NO_PAD.encode(&self.id))
        }
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    /// Reads what [`Display`](fmt::Display) prints, and bare integers (microseconds) as older clients send them.
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (micros, id) = text.split_once('.').unwrap_or((text, ""));
        let at = Timestamp::from_micros(micros.parse().map_err(|_| InvalidCursor)?);
        let id = URL_SAFE_NO_PAD
            .decode(id)
            .ok()
            .and_then(|id| String::from_utf8(id).ok())
            .ok_or(InvalidCursor)?;
        Ok(Self { at, id })
    }
}

/// Which jobs a list is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// All that are kept, newest change first.
    Recent,
    /// Those in one state, newest change first.
    State(JobState),
    /// Those in one state, oldest change first.
    StateOldestFirst(JobState),
}

/// A question for a list of jobs.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which jobs, in which order.
    pub source: Source,
    /// Only after this place in the list.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The jobs, in order.
    pub jobs: Vec<JobRecord>,
    /// Where the rest begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A decision, and the job it was about.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedDecision {
    /// The job.
    pub job_id: JobId,
    /// The decision, with its input.
    pub decision: DecisionRecord,
    /// Its place in the log.
    pub cursor: Cursor,
}

/// A question for the decision log.
#[derive(Debug, Clone, Default)]
pub struct DecisionQuery {
    /// Only decisions of this time or later.
    pub from: Option<Timestamp>,
    /// Only decisions before this time.
    pub until: Option<Timestamp>,
    /// Only after this place in the list.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// A part of the decision log.
#[derive(Debug, Clone, Default)]
pub struct DecisionPage {
    /// The decisions, newest first.
    pub items: Vec<LoggedDecision>,
    /// Where the rest begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// What the reconciler needs to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanItem {
    /// Which job.
    pub id: JobId,
    /// Its revision, at which it came into its state or was voted on last.
    pub revision: Revision,
    /// Who looks after it.
    pub owner: Option<InstanceId>,
    /// Where it was placed.
    pub worker_id: Option<WorkerId>,
    /// Whether the worker confirmed that it has it.
    pub accepted: bool,
}

/// Where jobs are kept.
///
/// # Contract
/// - `create` and each change are atomic and durable when the call returns: state, indices, request, decision, payload,
///   counters, dead letter, all or nothing.
/// - Of any number of concurrent changes that cannot all happen, exactly one is applied per state reached
///   ([`Change::guard`], [`Change::expected`]).
/// - A job passes through every state of [`JobEvent::path`], each with its own event entry and a growing time; a job that
///   is new and not created by `create` passes through PENDING first. A change to the state that the job is in already
///   writes its fields, but no event and no new revision, so that a waiting job keeps its place; only
///   [`JobEvent::Vote`] makes a new revision, so that of two votes on one revision one is applied.
/// - Readers see a change whole or not at all.
/// - A dropped future may still have taken effect.
#[async_trait]
pub trait JobStore: Send + Sync + fmt::Debug + 'static {
    /// Accepts a new job.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn create(&self, job: NewJob) -> Result<Admission, StoreError>;

    /// Applies changes of different jobs, each on its own, at the price of one wait; results in the same order. Two
    /// changes of one job in one call are applied in order.
    async fn apply_many(&self, changes: &[Change]) -> Vec<Result<Outcome, StoreError>>;

    /// Writes notes at the price of one wait. A note that does not fit the job any more is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn note_many(&self, notes: &[Note]) -> Result<(), StoreError>;

    /// What is known of these jobs; `None` for those that are not there. Their decisions may come without
    /// [`DecisionRecord::input`], which [`decisions`](Self::decisions) and [`decision_log`](Self::decision_log) have.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn get_many(&self, ids: &[JobId]) -> Result<Vec<Option<JobRecord>>, StoreError>;

    /// What was asked for; `None` for those that are not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer, [`StoreError::Corrupt`] if one cannot be read.
    async fn requests(&self, ids: &[JobId]) -> Result<Vec<Option<JobRequest>>, StoreError>;

    /// The job's decisions, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn decisions(&self, id: &JobId, limit: usize) -> Result<Vec<DecisionRecord>, StoreError>;

    /// The decisions of all jobs, newest first, as far back as the metadata of jobs is kept. Decisions of jobs that are
    /// gone are passed over. Bounded per call: a page may be shorter than asked for, even empty, and still have a next one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn decision_log(&self, query: &DecisionQuery) -> Result<DecisionPage, StoreError>;

    /// Every state the job went through, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn events(&self, id: &JobId) -> Result<Vec<(Timestamp, JobState)>, StoreError>;

    /// A list of jobs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// The jobs of one trace, oldest change first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn trace(&self, trace: &TraceId, limit: usize) -> Result<Vec<JobRecord>, StoreError>;

    /// Jobs in `state` whose revision is at most `until`, oldest first, after `after`, at most `limit`. Index entries of
    /// jobs that are gone are dropped on the way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn scan(
        &self,
        state: JobState,
        until: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<ScanItem>, StoreError>;

    /// Open jobs whose deadline is not after `now`, earliest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// Jobs in `APPROVAL_REQUIRED` whose time for approval (the decision's time and its terms' `expires_after`) is not after
    /// `now`, earliest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn approvals_due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// How many jobs are in each state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn counts(&self) -> Result<Vec<(JobState, u64)>, StoreError>;

    /// Forgets what has outlived the job metadata's time to live: index entries and, where the backend has no expiry of
    /// its own, the jobs themselves. Bounded per call; returns how many entries went.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// Conveniences over [`JobStore`].
#[async_trait]
pub trait JobStoreExt: JobStore {
    /// Applies one change.
    ///
    /// # Errors
    /// [`StoreError`] as the store reports it.
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        self.apply_many(std::slice::from_ref(&change))
            .await
            .pop()
            .unwrap_or_else(|| {
                Err(StoreError::Refused {
                    backend: "job store",
                    op: "apply",
                    source: "the store answered nothing".into(),
                })
            })
    }

    /// What is known of one job.
    ///
    /// # Errors
    /// [`StoreError`] as the store reports it.
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.get_many(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// What was asked for.
    ///
    /// # Errors
    /// [`StoreError`] as the store reports it.
    async fn request(&self, id: &JobId) -> Result<Option<JobRequest>, StoreError> {
        Ok(self.requests(std::slice::from_ref(id)).await?.pop().flatten())
    }
}

impl<S: JobStore + ?Sized> JobStoreExt for S {}

#[cfg(test)]
mod tests;
