//! The state machine of a job. See `docs/spec/jobs.md` §1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::protocol::agent::JobStatus;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum JobState {
    /// Accepted, waiting for a decision or for a worker.
    Pending,
    /// Waiting for people.
    ApprovalRequired,
    /// A worker was chosen.
    Scheduled,
    /// Handed to the bus.
    Dispatched,
    /// With a worker.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// Took too long, or its worker was lost.
    Timeout,
    /// Refused by policy or by people.
    Denied,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::ApprovalRequired,
        Self::Scheduled,
        Self::Dispatched,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Timeout,
        Self::Denied,
    ];

    /// Whether the job is over.
    pub fn is_terminal(self) -> bool {
        StateSet::TERMINAL.contains(Some(self))
    }

    /// The name in JSON and in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
            Self::Scheduled => "SCHEDULED",
            Self::Dispatched => "DISPATCHED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Timeout => "TIMEOUT",
            Self::Denied => "DENIED",
        }
    }

    /// The name in index keys.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::ApprovalRequired => "approval_required",
            Self::Scheduled => "scheduled",
            Self::Dispatched => "dispatched",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
        }
    }

    /// The protocol's status of a job in this state.
    pub fn status(self) -> JobStatus {
        match self {
            Self::Pending | Self::ApprovalRequired => JobStatus::Pending,
            Self::Scheduled => JobStatus::Scheduled,
            Self::Dispatched => JobStatus::Dispatched,
            Self::Running => JobStatus::Running,
            Self::Succeeded => JobStatus::Succeeded,
            Self::Failed => JobStatus::Failed,
            Self::Cancelled => JobStatus::Cancelled,
            Self::Timeout => JobStatus::Timeout,
            Self::Denied => JobStatus::Denied,
        }
    }

    /// The terminal state that a worker's status asks for; `None` for every status that is no ending.
    pub fn from_terminal_status(status: JobStatus) -> Option<Self> {
        match status {
            JobStatus::Succeeded => Some(Self::Succeeded),
            JobStatus::Failed => Some(Self::Failed),
            JobStatus::Cancelled => Some(Self::Cancelled),
            JobStatus::Timeout => Some(Self::Timeout),
            JobStatus::Denied => Some(Self::Denied),
            JobStatus::Unspecified
            | JobStatus::Pending
            | JobStatus::Scheduled
            | JobStatus::Dispatched
            | JobStatus::Running => None,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown job state `{0}`")]
pub struct UnknownState(String);

impl FromStr for JobState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A set of states, "no such job" being one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    const ABSENT_BIT: u16 = 1 << 15;

    /// No state at all.
    pub const EMPTY: Self = Self(0);
    /// Only "no such job".
    pub const ABSENT: Self = Self(Self::ABSENT_BIT);
    /// The five ends.
    pub const TERMINAL: Self = Self::of(&[
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
        JobState::Timeout,
        JobState::Denied,
    ]);
    /// The states of a job that holds a worker's place.
    pub const PLACED: Self = Self::of(&[JobState::Scheduled, JobState::Dispatched, JobState::Running]);
    /// Every state before the end.
    pub const OPEN: Self = Self::PLACED.or(Self::of(&[JobState::Pending, JobState::ApprovalRequired]));

    /// The set of these states.
    pub const fn of(states: &[JobState]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < states.len() {
            bits |= 1 << (states[i] as u16);
            i += 1;
        }
        Self(bits)
    }

    /// Both sets together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `state` (`None`: no such job) is in it.
    pub const fn contains(self, state: Option<JobState>) -> bool {
        match state {
            Some(state) => self.0 & (1 << (state as u16)) != 0,
            None => self.0 & Self::ABSENT_BIT != 0,
        }
    }

    /// Its states, without "no such job".
    pub fn states(self) -> impl Iterator<Item = JobState> {
        JobState::ALL
            .into_iter()
            .filter(move |state| self.contains(Some(*state)))
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A new job is accepted.
    Submit,
    /// It waits for room, for the policy, or for its turn.
    Park,
    /// Policy asks for people.
    RequireApproval,
    /// Somebody said yes, but more have to.
    Vote,
    /// Policy has changed since it asked for people: it is judged again.
    Rejudge,
    /// People said yes.
    Approve,
    /// Policy or people said no.
    Deny,
    /// A worker was chosen and is told.
    Dispatch,
    /// It goes back to waiting: nobody listened, or its worker is gone.
    Requeue,
    /// It cannot be run at all: no pool, no retries left, invalid.
    Fail,
    /// The worker says how it ended.
    Finish(JobState),
    /// Somebody asked to stop it.
    Cancel,
    /// A deadline or a time limit has passed, or its worker is lost.
    Expire,
}

impl JobEvent {
    /// From which states the event may happen.
    pub const fn from(self) -> StateSet {
        use JobState::{ApprovalRequired, Pending};
        const WAITING: StateSet = StateSet::of(&[Pending, ApprovalRequired]);
        match self {
            Self::Submit => StateSet::ABSENT,
            // Not from APPROVAL_REQUIRED: a message that comes twice must not make people start again.
            Self::Park | Self::RequireApproval => StateSet::ABSENT.or(StateSet::of(&[Pending])),
            Self::Vote | Self::Rejudge | Self::Approve => StateSet::of(&[ApprovalRequired]),
            Self::Deny | Self::Fail => StateSet::ABSENT.or(WAITING).or(StateSet::of(&[JobState::Scheduled])),
            // SCHEDULED: a reference scheduler died between its three commits.
            Self::Dispatch => StateSet::ABSENT.or(StateSet::of(&[Pending, JobState::Scheduled])),
            Self::Requeue => StateSet::PLACED,
            // PENDING only after a dispatch: a worker given up for lost answers after all. `Change::guard` sees to that.
            Self::Finish(_) => StateSet::PLACED.or(StateSet::of(&[Pending])),
            Self::Cancel | Self::Expire => StateSet::OPEN,
        }
    }

    /// Which states the job then passes through; the last one is where it stays.
    pub const fn path(self) -> &'static [JobState] {
        use JobState::{
            ApprovalRequired, Cancelled, Denied, Dispatched, Failed, Pending, Running, Scheduled, Succeeded, Timeout,
        };
        match self {
            Self::Submit | Self::Park | Self::Rejudge | Self::Approve | Self::Requeue => &[Pending],
            Self::RequireApproval | Self::Vote => &[ApprovalRequired],
            Self::Deny | Self::Finish(Denied) => &[Denied],
            Self::Dispatch => &[Scheduled, Dispatched, Running],
            Self::Finish(Succeeded) => &[Succeeded],
            Self::Cancel | Self::Finish(Cancelled) => &[Cancelled],
            Self::Expire | Self::Finish(Timeout) => &[Timeout],
            Self::Fail | Self::Finish(_) => &[Failed],
        }
    }

    /// Where the job is afterwards.
    pub fn target(self) -> JobState {
        self.path().last().copied().unwrap_or(JobState::Failed)
    }
}

/// An event that cannot happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a job that is {}", .state.map_or("unknown", JobState::as_str))]
pub struct IllegalTransition {
    /// The state; `None` for a job that is not there.
    pub state: Option<JobState>,
    /// The event.
    pub event: JobEvent,
}

/// The whole state machine: where `event` takes a job that is in `state` (`None`: not there yet).
///
/// # Errors
/// [`IllegalTransition`] if the event cannot happen there; the job stays as it is.
///
/// ```
/// use coretex_core::jobs::{JobEvent, JobState, transition};
///
/// assert_eq!(transition(Some(JobState::Pending), JobEvent::Dispatch), Ok(JobState::Running));
/// assert!(transition(Some(JobState::Succeeded), JobEvent::Cancel).is_err());
/// ```
pub fn transition(state: Option<JobState>, event: JobEvent) -> Result<JobState, IllegalTransition> {
    if event.from().contains(state) {
        Ok(event.target())
    } else {
        Err(IllegalTransition { state, event })
    }
}

#[cfg(test)]
mod tests;
