//! Where definitions, runs and schedules are kept. See `docs/spec/storage.md`.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::event::{Effect, EffectId, TimelineEvent};
use super::model::{Object, Workflow};
use super::run::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord};
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// A definition as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorkflow {
    /// It.
    pub workflow: Workflow,
    /// Its content hash: the name of this revision.
    pub hash: String,
    /// Counts the writes of this id; 0 for a document that another program wrote.
    pub revision: u64,
}

/// A definition to be written.
#[derive(Debug, Clone)]
pub struct WorkflowWrite<'a> {
    /// What to store.
    pub stored: &'a StoredWorkflow,
    /// The hash that has to be the current one: the caller has read it and worked on it. `None`: there must be none.
    pub expected: Option<&'a str>,
    /// For the outbox of the audit log, in the same commit.
    pub audit: Option<&'a AuditRecord>,
}

/// A revision of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its content hash.
    pub hash: String,
    /// When it was saved first.
    pub saved_at: Timestamp,
}

/// A run to be created, with its first transition.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// What is written.
    pub commit: RunCommit,
    /// Its input.
    pub input: std::sync::Arc<serde_json::Value>,
    /// Steps, items and context of a rerun are in the commit.
    /// Claimed in the same commit.
    pub idempotency: Option<Idempotency>,
    /// How many open runs its organisation may have, this one included; `None` is any number.
    pub org_limit: Option<u64>,
    /// The same for its workflow.
    pub workflow_limit: Option<u64>,
}

/// A key that makes a start repeatable. Scoped by organisation and workflow; the reference's, without scope, is read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: String,
    /// A hash of the input: the same key with another input is a mistake.
    pub fingerprint: String,
    /// How long it is remembered.
    pub ttl: Duration,
}

/// What became of a [`NewRun`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is stored, at revision 1.
    Created,
    /// The key belongs to this run already; nothing was written.
    Replayed(RunId),
    /// The key belongs to this run, which had another input; nothing was written.
    Mismatch(RunId),
    /// There is a run of this id; nothing was written.
    Exists,
    /// Its organisation or workflow has this many open runs already; nothing was written.
    Limit(u64),
}

/// One transition of one run: applied whole or not at all, and only to the revision it was made for.
#[derive(Debug, Clone)]
pub struct RunCommit {
    /// Which run.
    pub run: RunId,
    /// The revision it was made for; the run has the next one afterwards.
    pub expected: u64,
    /// Marks the commit: repeating one whose answer was lost is answered as it was then.
    pub token: u64,
    /// The new head.
    pub head: RunHead,
    /// The new context, if it changed.
    pub context: Option<Object>,
    /// The records that changed.
    pub steps: Vec<(StepKey, StepRecord)>,
    /// The items of fan-outs that began.
    pub items: Vec<(StepKey, std::sync::Arc<Vec<serde_json::Value>>)>,
    /// New entries of the outbox.
    pub effects: Vec<(EffectId, Effect)>,
    /// Entries of the outbox that are done.
    pub done: Vec<EffectId>,
    /// Inputs of jobs, stored at `ctx:<job>`.
    pub payloads: Vec<(JobId, Bytes)>,
    /// Appended to the timeline.
    pub timeline: Vec<TimelineEvent>,
    /// When somebody has to look at it next: [`Run::due`].
    pub due: Option<Timestamp>,
    /// Steps that now wait for people.
    pub inbox_add: Vec<StepKey>,
    /// Steps that no longer do.
    pub inbox_remove: Vec<StepKey>,
    /// For the outbox of the audit log.
    pub audit: Vec<AuditRecord>,
}

/// What became of a [`RunCommit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is stored. The run's revision.
    Applied(u64),
    /// The run is at this other revision; nothing was written.
    Conflict(u64),
    /// There is no such run (any more); nothing was written.
    Gone,
}

/// Which runs to list, most recently changed first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Of this workflow.
    pub workflow_id: Option<String>,
    /// In this status.
    pub status: Option<RunStatus>,
    /// Of this organisation.
    pub org_id: Option<String>,
    /// Of this team.
    pub team_id: Option<String>,
    /// Changed at this time or later.
    pub updated_after: Option<Timestamp>,
    /// Changed at this time or earlier.
    pub updated_before: Option<Timestamp>,
    /// Goes on after this run.
    pub after: Option<(Timestamp, RunId)>,
    /// How many at most.
    pub limit: usize,
}

/// A page of runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<Run>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<(Timestamp, RunId)>,
}

/// Which end of a timeline comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimelineOrder {
    /// The oldest entry that is kept.
    #[default]
    Oldest,
    /// The newest.
    Newest,
}

/// A step that waits for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// Since when.
    pub since: Timestamp,
    /// Which run.
    pub run: RunId,
    /// Which step.
    pub step: StepKey,
}

/// Runs whose time has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due<Id> {
    /// They, the most overdue first. They are due again at the time given, unless a commit says otherwise.
    pub ids: Vec<Id>,
    /// When the next one after these is due.
    pub next: Option<Timestamp>,
}

/// A workflow that is started by the clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// Its name in URLs and keys.
    pub id: String,
    /// What it starts.
    pub workflow_id: String,
    /// Whose runs they are.
    pub org_id: String,
    /// For people.
    pub team_id: String,
    /// When: five or six fields, or `@hourly` and the like.
    pub cron: String,
    /// In which IANA time zone; UTC by default.
    pub timezone: String,
    /// The input of each run.
    pub input: Object,
    /// What if the last run is still open.
    pub overlap: Overlap,
    /// How long after its time a start that was missed is made up for, in seconds; 0 is 60.
    pub catch_up_sec: i64,
    /// It does nothing.
    pub paused: bool,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Not after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_at: Option<Timestamp>,
    /// The next time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// A start that waits for the last run to end (`buffer_one`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffered_at: Option<Timestamp>,
    /// The run it started last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunId>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// What became of the last time, for people: started, skipped because of overlap, refused.
    pub last_result: String,
    /// Counts the writes.
    pub revision: u64,
}

impl Schedule {
    /// When it is due: at the earlier of its next time and the start that waits, unless it is paused.
    pub fn due(&self) -> Option<Timestamp> {
        let due = [self.next_at, self.buffered_at].into_iter().flatten().min();
        due.filter(|_| !self.paused)
    }
}

/// What a schedule does while its last run is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It lets this time pass.
    #[default]
    Skip,
    /// It starts one when that run ends, but never more than one.
    BufferOne,
    /// It starts one all the same.
    Allow,
    /// It cancels that run and starts one.
    CancelOther,
}

/// Where definitions, runs and schedules are kept.
///
/// # Contract
/// - A commit is atomic, and durable where the backend is before it is answered.
/// - A run that was deleted stays deleted: a commit on it is [`Committed::Gone`].
/// - What the reference left is read: a definition without revision, a run as one document. The first commit on such a run
///   stores it our way and removes the document, if the document is still as it was read.
#[async_trait]
pub trait WorkflowStore: Send + Sync + fmt::Debug + 'static {
    /// Writes a definition and its revision, if the current hash is as expected. False if it is not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put_workflow(&self, write: &WorkflowWrite<'_>) -> Result<bool, StoreError>;

    /// Stores the revision of a definition that another program wrote, so that runs can be pinned to it. Nothing else
    /// changes, and nothing at all if the revision is known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn ensure_revision(&self, stored: &StoredWorkflow) -> Result<(), StoreError>;

    /// The current revision of a definition.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn workflow(&self, id: &str) -> Result<Option<StoredWorkflow>, StoreError>;

    /// One revision by its hash: as it was, also after the definition changed or was deleted.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn workflow_revision(&self, hash: &str) -> Result<Option<Workflow>, StoreError>;

    /// The revisions of a definition, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn workflow_revisions(&self, id: &str, limit: usize) -> Result<Vec<Revision>, StoreError>;

    /// Definitions, most recently saved first; all or those of one organisation. What cannot be read is left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn workflows(&self, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, StoreError>;

    /// Deletes a definition; its revisions stay for the runs that are pinned to them. False if there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn delete_workflow(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError>;

    /// Schemas of the registry by their ids, in the same order; `None` for what is not registered.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn schemas(&self, ids: &[String]) -> Result<Vec<Option<serde_json::Value>>, StoreError>;

    /// How many runs of a workflow are open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn open_runs(&self, workflow: &str) -> Result<u64, StoreError>;

    /// Creates runs. Answers in the same order.
    async fn create_runs(&self, runs: &[NewRun]) -> Vec<Result<Created, StoreError>>;

    /// Reads runs, whole. Answers in the same order.
    async fn load_runs(&self, ids: &[RunId]) -> Vec<Result<Option<Run>, StoreError>>;

    /// Commits transitions. Answers in the same order.
    async fn commit_runs(&self, commits: &[RunCommit]) -> Vec<Result<Committed, StoreError>>;

    /// Lists runs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer. What cannot be read is left out.
    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError>;

    /// What happened in a run. `skip` entries from the chosen end are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn timeline(
        &self,
        run: &RunId,
        order: TimelineOrder,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, StoreError>;

    /// Deletes a run and all that belongs to it but its idempotency key, if it is still at this revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn delete_run(
        &self,
        run: &RunId,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<Committed, StoreError>;

    /// Takes runs that are due by `now`, at most `limit`, and makes them due again at `again`: if whoever takes them dies,
    /// somebody else comes to them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn claim_due(&self, now: Timestamp, again: Timestamp, limit: usize) -> Result<Due<RunId>, StoreError>;

    /// Makes open runs that the reference left due, so that somebody comes to them; at most `limit`. How many there were.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn adopt_legacy(&self, limit: usize) -> Result<u64, StoreError>;

    /// Deletes runs that ended before `older_than`, the oldest first, at most `limit`. How many were deleted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn expire_runs(&self, older_than: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Steps that wait for people, oldest first, after the one given.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn waiting_steps(&self, after: Option<&Waiting>, limit: usize) -> Result<Vec<Waiting>, StoreError>;

    /// Writes a schedule, if its stored revision is still `expected` (0: there is none). False if it is not. The caller
    /// sets `revision` to `expected + 1`. It is due at the earlier of `next_at` and `buffered_at` unless it is paused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: u64,
        audit: Option<&AuditRecord>,
    ) -> Result<bool, StoreError>;

    /// One schedule.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn schedule(&self, id: &str) -> Result<Option<Schedule>, StoreError>;

    /// All schedules by id.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn schedules(&self, limit: usize) -> Result<Vec<Schedule>, StoreError>;

    /// Deletes a schedule. False if there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn delete_schedule(&self, id: &str, audit: Option<&AuditRecord>) -> Result<bool, StoreError>;

    /// [`claim_due`](Self::claim_due) for schedules.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the backend did not answer.
    async fn claim_due_schedules(
        &self,
        now: Timestamp,
        again: Timestamp,
        limit: usize,
    ) -> Result<Due<String>, StoreError>;
}
