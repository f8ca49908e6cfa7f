//! What happens to runs, and what follows from it. See `docs/spec/workflows.md` §6–7.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::Object;
use super::run::{Failure, RunId, RunStatus, StepKey, StepRecord, StepVote};
use crate::audit::AuditRecord;
use crate::jobs::JobState;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// Something that happened to a run. The same event twice is like once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Look what can be done: after the start, after a time that was due, after something outside the run changed.
    Wake,
    /// A job ended.
    JobEnded {
        /// Which.
        job: JobId,
        /// How.
        ended: JobEnded,
    },
    /// A job that should be under way is not known: it has to be submitted again.
    JobLost {
        /// Which.
        job: JobId,
    },
    /// Jobs in flight were compared with the job store, and were under way.
    Checked,
    /// A run that a step of this run waits for ended.
    ChildEnded {
        /// Which step.
        step: StepKey,
        /// Which run.
        run: RunId,
        /// How.
        status: RunStatus,
        /// With what.
        output: Option<Arc<Value>>,
        /// Or why not.
        error: Option<Failure>,
        /// What it cost.
        cost: f64,
    },
    /// A run that a step waits for could not be started.
    ChildRefused {
        /// Which step.
        step: StepKey,
        /// Which run.
        run: RunId,
        /// Why.
        error: Failure,
    },
    /// Somebody said yes or no.
    Vote {
        /// To which step.
        step: StepKey,
        /// What.
        vote: StepVote,
    },
    /// Somebody filled in a form.
    Form {
        /// Of which step.
        step: StepKey,
        /// With what.
        value: Arc<Value>,
        /// Who.
        by: String,
        /// In which role.
        role: String,
    },
    /// Something outside happened.
    Signal {
        /// Its name.
        name: String,
        /// What came with it.
        payload: Arc<Value>,
        /// Repeating an id changes nothing. Empty if the sender gave none.
        id: String,
        /// Who sent it.
        by: String,
    },
    /// Somebody stops it.
    Cancel {
        /// Who.
        by: String,
        /// Why; `workflow run cancelled` by default.
        reason: String,
    },
    /// Nothing new is to be begun.
    Pause {
        /// Who.
        by: String,
    },
    /// Go on.
    Resume {
        /// Who.
        by: String,
    },
    /// These effects were carried out.
    Done(Vec<EffectId>),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEnded {
    /// The terminal state.
    pub state: JobState,
    /// Where the worker says that its output is.
    pub result_ptr: String,
    /// The output itself.
    pub output: Fetched,
    /// For programs.
    pub error_code: String,
    /// For people.
    pub error_message: String,
}

/// What was found where a result pointer points.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// There is no pointer.
    Nothing,
    /// JSON, or the raw text as a string.
    Value(Arc<Value>),
    /// Larger than is kept with a run; the value is given if a schema needs it.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Itself, to be validated only.
        value: Option<Arc<Value>>,
    },
    /// Nothing is there.
    Missing,
    /// Not a pointer to a payload of this job; a text for people.
    Foreign(String),
    /// Not a pointer of ours: it is kept, not followed.
    Elsewhere,
}

/// Names an effect within its run.
pub type EffectId = u64;

/// Something to be done outside. Doing it twice is like once, because of what it is named by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// Submit the job of a step. Skipped if the step has moved on to another job.
    Submit {
        /// Which step.
        step: StepKey,
        /// The job.
        job: JobId,
    },
    /// Cancel a job.
    CancelJob {
        /// Which.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// Start the run of a `subworkflow` step.
    StartChild {
        /// Which step.
        step: StepKey,
        /// The run's id, made from the parent, the step and the attempt.
        run: RunId,
        /// Of which workflow.
        workflow: String,
        /// With what.
        input: Arc<Value>,
    },
    /// Cancel the run of a `subworkflow` step.
    CancelChild {
        /// Which.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// Tell the parent that this run ended.
    TellParent,
    /// Tell the bus: a `notify` step.
    Alert {
        /// Which step.
        step: StepKey,
        /// Upper case.
        level: String,
        /// For people.
        message: String,
        /// For programs.
        code: String,
        /// Who says so.
        component: String,
    },
}

/// An entry of the timeline, as clients see it (docs/spec/workflows.md §7).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimelineEvent {
    /// When.
    #[serde(with = "super::model::rfc3339")]
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: String,
    /// To which run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_id: String,
    /// Of which workflow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow_id: String,
    /// In which step.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step_id: String,
    /// By which job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_id: String,
    /// The status that came of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Where the result is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_ptr: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The rest.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub data: Object,
}

/// What an event changed in a run, to be committed in one piece. The run itself has been changed in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transition {
    /// Whether anything changed at all. If not, nothing has to be written.
    pub changed: bool,
    /// Whether there is more to do at once: the work of one commit is bounded. Send [`Event::Wake`] after the commit.
    pub more: bool,
    /// The records that changed.
    pub steps: BTreeMap<StepKey, StepRecord>,
    /// The fan-outs whose items are known now.
    pub items: Vec<StepKey>,
    /// Whether the context changed.
    pub context: bool,
    /// What is told.
    pub timeline: Vec<TimelineEvent>,
    /// What has to be done.
    pub effects: BTreeMap<EffectId, Effect>,
    /// What was done and may be forgotten.
    pub done: Vec<EffectId>,
    /// The inputs of the jobs that are submitted.
    pub payloads: Vec<(JobId, Bytes)>,
    /// What goes to the audit log.
    pub audit: Vec<AuditRecord>,
}

/// Why an event is refused. The run is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No step of that id, or it was never reached.
    #[error("step not found")]
    StepNotFound,
    /// The step does not wait for this.
    #[error("step not waiting")]
    StepNotWaiting,
    /// The run is over.
    #[error("run is {}", .0.as_str())]
    RunEnded(RunStatus),
    /// The form does not fit its schema; one problem each.
    #[error("form does not fit its schema: {}", .0.join("; "))]
    Form(Vec<String>),
    /// This principal has voted already.
    #[error("{0} has voted already")]
    AlreadyVoted(String),
    /// The step asks for another role.
    #[error("role `{given}` may not approve this step; one of {} may", .needed.join(", "))]
    Role {
        /// The voter's.
        given: String,
        /// The step's.
        needed: Vec<String>,
    },
    /// A vote without a name cannot count towards a quorum.
    #[error("this step needs votes of {0} different principals: say who you are")]
    Anonymous(i64),
    /// Too many signals that nobody waits for.
    #[error("{0} signals wait already; nobody has taken them")]
    TooManySignals(usize),
}
