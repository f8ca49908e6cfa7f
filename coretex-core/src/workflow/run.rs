//! The state of one run. See `docs/spec/workflows.md` §6 and `docs/spec/storage.md`.
//!
//! A run is a head, a record for each step that was touched, and a few parts that are written rarely (its input, what
//! `output_path` wrote, the items of a fan-out). They are stored apart, so that an event costs what it changes. The documented
//! JSON of a run is put together when somebody reads it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{Effect, EffectId};
use super::model::{Object, StepMeta};
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// Names one run, for ever. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Any text: the reference did not restrict it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// A new id: a UUID of version 4, as the reference makes them.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace of all jobs of the run. `None` if the id is none that a trace may have.
    pub fn trace(&self) -> Option<TraceId> {
        TraceId::try_new(&self.0).ok()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a step of a run: the id of a step (`fan`), of one of its children (`fan[3]`), or what undoes it
/// (`book~compensate`). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepKey(Arc<str>);

/// Ends the key of what undoes a step.
const COMPENSATE: &str = "~compensate";

impl StepKey {
    /// A step of the definition, or any key as it is stored.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The `index`-th child of this step.
    #[must_use]
    pub fn child(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0).into())
    }

    /// What undoes this step.
    #[must_use]
    pub fn compensation(&self) -> Self {
        Self(format!("{}{COMPENSATE}", self.0).into())
    }

    /// The step and the index, if this is a child.
    pub fn parent(&self) -> Option<(&str, usize)> {
        let (parent, rest) = self.0.split_once('[')?;
        Some((parent, rest.strip_suffix(']')?.parse().ok()?))
    }

    /// The step that this undoes, if it does.
    pub fn undoes(&self) -> Option<&str> {
        self.0.strip_suffix(COMPENSATE)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StepKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The job of one attempt: `<run>:<step>@<attempt>` (docs/spec/workflows.md §4.1).
///
/// `None` if the ids together are no job id.
pub fn job_id(run: &RunId, step: &StepKey, attempt: u32) -> Option<JobId> {
    JobId::try_new(&format!("{run}:{step}@{attempt}")).ok()
}

/// The run, step and attempt that a job belongs to, if its id has that form. The attempt is 0 where the id names none.
pub fn parse_job_id(job: &str) -> Option<(RunId, StepKey, u32)> {
    let (run, step) = job.rsplit_once(':')?;
    let (step, attempt) = match step.rsplit_once('@') {
        Some((step, attempt)) if !step.is_empty() => (step, attempt.parse().unwrap_or(0)),
        _ => (step, 0),
    };
    (!run.is_empty() && !step.is_empty()).then(|| (RunId::new(run), StepKey::new(step), attempt))
}

/// Where a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Created, not begun.
    #[default]
    Pending,
    /// Steps are being done.
    Running,
    /// A step waits for people.
    Waiting,
    /// It ended well.
    Succeeded,
    /// A step failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// It, or a step, took too long.
    TimedOut,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// Whether it is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// The word used in JSON and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Where a step is. The words are those of [`RunStatus`].
pub type StepStatus = RunStatus;

/// Why a run or a step failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// For programs: a worker's error code, or one of docs/spec/workflows.md §5.3.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// For people.
    pub message: String,
    /// The step it came from, on runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step_id: String,
}

/// Why a step did not run though it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Its condition did not hold. What depends on it runs.
    Condition,
    /// It is on a way that was not taken: a `switch` went elsewhere, an error handler was not needed, or all its
    /// dependencies were skipped for that reason.
    Branch,
}

/// How the children of a step are doing. Kept with the parent, so that no event has to look at all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// How many there will be. For a loop, how many there were so far.
    pub total: u32,
    /// The first that has no record yet.
    pub next: u32,
    /// How many are on their way; those that wait for another attempt do not count.
    pub running: u32,
    /// How many ended well.
    pub succeeded: u32,
    /// How many ended otherwise.
    pub failed: u32,
}

/// One vote on an `approval` step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepVote {
    /// Who.
    pub by: String,
    /// In which role.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Yes or no.
    pub approved: bool,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Remarks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When.
    pub at: Timestamp,
}

/// The parts of a job's request that templates decide, as they were when the attempt began (docs/spec/workflows.md §4.2).
/// Kept only where there are such templates: submitting it again must not ask them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dispatch {
    /// Its topic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Labels of the step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<StepMeta>,
    /// Its priority.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority: String,
    /// Its memory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory_id: String,
}

/// All that is known of one step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Where it is.
    pub status: StepStatus,
    /// When the latest attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When it goes on: the end of a delay or of the pause before another attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// When it has taken too long. Only for what no scheduler watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How often it was begun.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// The input of the latest attempt. `None` where it is the run's own input (and, for a child, `item`): see
    /// `inherits_input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Arc<Value>>,
    /// The input is the run's, which is not repeated here.
    #[serde(skip_serializing_if = "is_false")]
    pub inherits_input: bool,
    /// The output as JSON, as expressions see it under `steps.<id>.output`. `None` if there is none, or it is too large
    /// and only `result_ptr` names it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    pub output: Option<Arc<Value>>,
    /// Where the worker left the output.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_ptr: String,
    /// Why it failed, or why the last attempt did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The job of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The run of the latest attempt of a `subworkflow` step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_run: Option<RunId>,
    /// It did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skip>,
    /// It has children.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// What people said to an `approval`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<StepVote>,
    /// What people are asked: the evaluated prompt of an `approval` or `input`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Its place among the steps that ended well, from 1: what is undone is undone in reverse.
    #[serde(skip_serializing_if = "is_zero")]
    pub ended_nth: u32,
    /// Somebody took care of its failure: an error handler, or `continue_on_error`.
    #[serde(skip_serializing_if = "is_false")]
    pub handled: bool,
    /// What templates said about the job of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Arc<Dispatch>>,
    /// A result that came after it was over has been told.
    #[serde(skip_serializing_if = "is_false")]
    pub late: bool,
}

impl StepRecord {
    /// Whether a job or a child run is on its way for it.
    pub fn in_flight(&self) -> bool {
        self.status == StepStatus::Running && (self.job_id.is_some() || self.child_run.is_some())
    }
}

/// A null that is there is an output.
fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::deserialize(deserializer).map(Some)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !b
}

/// What a run is doing, beyond its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its steps.
    #[default]
    Steps,
    /// It will not succeed; what is in flight or allowed to follow a failure still ends.
    Settling,
    /// Undoing what was done, last first.
    Compensating,
    /// The `finally` steps.
    Finally,
}

/// The step of another run that waits for this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentStep {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// How deep: 1 for the child of a run that has no parent.
    pub depth: u32,
}

/// A signal that nobody has waited for yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingSignal {
    /// Its name.
    pub name: String,
    /// What came with it.
    pub payload: Arc<Value>,
}

/// What is known of a run as a whole. Written by every commit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunHead {
    /// Which workflow.
    pub workflow_id: String,
    /// Which revision of it: the content hash. Empty for a run of the reference that has not been touched since.
    pub definition: String,
    /// Whose it is: the tenant of its jobs.
    pub org_id: String,
    /// Whose it is, for people.
    pub team_id: String,
    /// Where it is.
    pub status: RunStatus,
    /// What it is doing.
    pub phase: Phase,
    /// How it will end, once it is known that it will not succeed.
    pub outcome: Option<RunStatus>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// When its first step was looked at.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Not before this time: a start delay.
    pub start_at: Option<Timestamp>,
    /// When it has taken too long. `None` as well once that was noticed, or cannot happen any more.
    pub deadline_at: Option<Timestamp>,
    /// Who started it.
    pub triggered_by: String,
    /// Labels of the run.
    pub labels: BTreeMap<String, String>,
    /// The same for what the system writes: `dry_run`, `rerun_of`, `rerun_step`, `schedule`.
    pub metadata: BTreeMap<String, String>,
    /// The key it was started with.
    pub idempotency_key: String,
    /// The run it repeats.
    pub rerun_of: String,
    /// From which step.
    pub rerun_step: String,
    /// Jobs say that nothing is to be changed.
    pub dry_run: bool,
    /// Whose child it is.
    pub parent: Option<ParentStep>,
    /// What came of it.
    pub output: Option<Arc<Value>>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// The sum of what its steps cost.
    pub total_cost: f64,
    /// Nothing new is begun.
    pub paused: bool,
    /// How many steps ended well: numbers [`StepRecord::ended_nth`].
    pub ended: u32,
    /// How many records are not over: of steps, children, and what undoes steps.
    pub open: u32,
    /// How many of those wait for people.
    pub waiting: u32,
    /// How many of those have a job or a child run on its way.
    pub in_flight: u32,
    /// When the jobs in flight are compared with the job store, in case a message was lost.
    pub check_at: Option<Timestamp>,
    /// How often that was done without news: the pauses grow.
    pub checks: u32,
    /// Signals nobody has waited for yet. Bounded.
    pub signals: Vec<PendingSignal>,
    /// The ids of signals that were taken, newest last: repeating one changes nothing. Bounded.
    pub signal_ids: Vec<String>,
    /// The number of the next effect.
    pub next_effect: u64,
}

/// One run, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Counts commits, from 1. 0 is not stored yet.
    pub revision: u64,
    /// The whole.
    pub head: RunHead,
    /// What it was started with, an object.
    pub input: Arc<Value>,
    /// What `output_path` wrote: the run's context without `steps`.
    pub context: Object,
    /// The steps that were touched, and their children.
    pub steps: BTreeMap<StepKey, StepRecord>,
    /// The items of each fan-out, as they were when it began.
    pub items: BTreeMap<StepKey, Arc<Vec<Value>>>,
    /// What has to be done and may not have been.
    pub outbox: BTreeMap<EffectId, Effect>,
    /// When steps go on or expire: what [`StepRecord::next_attempt_at`] and [`StepRecord::expires_at`] of the open steps say.
    /// Not stored.
    pub timers: BTreeSet<(Timestamp, StepKey)>,
    /// Children whose pause before another attempt is over, but which have to wait for others of their step (`max_parallel`):
    /// the step and the index. They are not in `timers`. Not stored.
    pub blocked: BTreeSet<(StepKey, u32)>,
}

impl Run {
    /// A run that has not begun.
    pub fn new(id: RunId, head: RunHead, input: Value) -> Self {
        Self {
            id,
            revision: 0,
            head,
            input: Arc::new(input),
            context: Object::new(),
            steps: BTreeMap::new(),
            items: BTreeMap::new(),
            outbox: BTreeMap::new(),
            timers: BTreeSet::new(),
            blocked: BTreeSet::new(),
        }
    }

    /// Makes the timers from the records, as a store has to after reading a run.
    pub fn index_timers(&mut self) {
        self.blocked.clear();
        self.timers = self
            .steps
            .iter()
            .filter(|(_, record)| !record.status.is_terminal())
            .flat_map(|(key, record)| {
                [record.next_attempt_at, record.expires_at]
                    .into_iter()
                    .flatten()
                    .map(|at| (at, key.clone()))
            })
            .collect();
    }

    /// Makes the counters of the head from the records, for a run that another program wrote.
    pub fn recount(&mut self) {
        let count = |test: fn(&StepRecord) -> bool| {
            u32::try_from(self.steps.values().filter(|record| test(record)).count()).unwrap_or(u32::MAX)
        };
        self.head.open = count(|record| !record.status.is_terminal());
        self.head.waiting = count(|record| record.status == StepStatus::Waiting);
        self.head.in_flight = count(StepRecord::in_flight);
    }

    /// When somebody has to look at it next if nothing happens; `None` if never. What is left in the outbox is another matter.
    pub fn due(&self) -> Option<Timestamp> {
        if self.head.status.is_terminal() && self.outbox.is_empty() {
            return None;
        }
        let head = &self.head;
        let timers = (!head.paused).then(|| self.timers.first().map(|(at, _)| *at)).flatten();
        let start =
            (head.status == RunStatus::Pending && !head.paused).then(|| head.start_at.unwrap_or(head.created_at));
        [timers, start, head.deadline_at, head.check_at]
            .into_iter()
            .flatten()
            .min()
    }
}
