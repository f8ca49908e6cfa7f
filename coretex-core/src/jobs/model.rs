//! What is known of a job. See `docs/spec/jobs.md` §2.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::JobState;
use crate::protocol::agent::{DecisionType, PolicyCheckRequest, PolicyConstraints, PolicyRemediation};
use crate::protocol::{InstanceId, JobId, TraceId, WorkerId};
use crate::time::Timestamp;

/// Counts the changes of a job: the time of the last one, made to grow with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub Timestamp);

/// What policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// Run it.
    Allow,
    /// Run it within limits.
    AllowWithConstraints,
    /// Never run it.
    Deny,
    /// Ask people.
    RequireApproval,
    /// Not now.
    Throttle,
}

impl Decision {
    /// The name in JSON and in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::AllowWithConstraints => "ALLOW_WITH_CONSTRAINTS",
            Self::Deny => "DENY",
            Self::RequireApproval => "REQUIRE_APPROVAL",
            Self::Throttle => "THROTTLE",
        }
    }

    /// As the protocol spells it.
    pub fn to_proto(self) -> DecisionType {
        match self {
            Self::Allow => DecisionType::Allow,
            Self::AllowWithConstraints => DecisionType::AllowWithConstraints,
            Self::Deny => DecisionType::Deny,
            Self::RequireApproval => DecisionType::RequireHuman,
            Self::Throttle => DecisionType::Throttle,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Decision {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Allow,
            Self::AllowWithConstraints,
            Self::Deny,
            Self::RequireApproval,
            Self::Throttle,
        ]
        .into_iter()
        .find(|decision| decision.as_str() == text)
        .ok_or(())
    }
}

/// A decision as it is kept with its job.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// The verdict.
    pub decision: Decision,
    /// Why, for people.
    pub reason: String,
    /// Which rule; empty if none matched.
    pub rule_id: String,
    /// Which policy.
    pub policy_snapshot: String,
    /// Within which limits.
    pub constraints: Option<PolicyConstraints>,
    /// Whether people must say yes.
    pub approval_required: bool,
    /// What to approve: the job's id, or empty.
    pub approval_ref: String,
    /// What exactly was judged (docs/spec/protocol.md §8); set when approval is required.
    pub job_hash: String,
    /// When.
    pub checked_at: Timestamp,
    /// Which conditions of the rule held, and on what, for people: `topics: job.* matches job.x`.
    pub matched: Vec<String>,
    /// On which terms people say yes; set when approval is required.
    pub terms: Option<ApprovalTerms>,
    /// Safer ways to ask for the same thing.
    pub remediations: Vec<PolicyRemediation>,
    /// What was judged, whole: judging it again by the same policy gives the same decision.
    pub input: Option<Arc<PolicyCheckRequest>>,
}

impl DecisionRecord {
    /// A decision and nothing else.
    pub fn new(decision: Decision, checked_at: Timestamp) -> Self {
        Self {
            decision,
            reason: String::new(),
            rule_id: String::new(),
            policy_snapshot: String::new(),
            constraints: None,
            approval_required: false,
            approval_ref: String::new(),
            job_hash: String::new(),
            checked_at,
            matched: Vec::new(),
            terms: None,
            remediations: Vec::new(),
            input: None,
        }
    }
}

/// On which terms people say yes to a job. See `docs/spec/approvals.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalTerms {
    /// How many distinct principals must say yes; at least 1.
    pub quorum: u32,
    /// How long after the decision they may; `None` is for ever.
    #[serde(
        default,
        rename = "expires_after_ms",
        with = "millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_after: Option<Duration>,
    /// What happens then.
    #[serde(default)]
    pub on_expiry: OnExpiry,
}

impl Default for ApprovalTerms {
    fn default() -> Self {
        Self {
            quorum: 1,
            expires_after: None,
            on_expiry: OnExpiry::Deny,
        }
    }
}

/// What happens to a job that nobody decided about in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// It is denied, with a dead letter.
    #[default]
    Deny,
    /// It runs.
    Allow,
}

impl OnExpiry {
    /// The name in documents, JSON and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// A duration as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
        serde::Serialize::serialize(&millis, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// Who said yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalRecord {
    /// The principal.
    pub by: String,
    /// In which role.
    pub role: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// Anything else.
    pub note: String,
    /// Under which policy.
    pub policy_snapshot: String,
    /// What exactly.
    pub job_hash: String,
}

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingReason {
    /// No live worker serves its pools, or none with the right labels.
    NoWorkers,
    /// All fitting workers are busy.
    PoolOverloaded,
    /// Its tenant is at its limit.
    TenantLimit,
    /// Policy said: not now.
    Throttled,
    /// Policy could not be asked.
    SafetyUnavailable,
    /// It was dispatched, and nobody listened.
    NoListener,
    /// Its worker is gone.
    WorkerLost,
    /// Somebody paused its topic, or all its pools.
    Paused,
}

impl PendingReason {
    /// The name in JSON and in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoWorkers => "no_workers",
            Self::PoolOverloaded => "pool_overloaded",
            Self::TenantLimit => "tenant_limit",
            Self::Throttled => "throttled",
            Self::SafetyUnavailable => "safety_unavailable",
            Self::NoListener => "no_listener",
            Self::WorkerLost => "worker_lost",
            Self::Paused => "paused",
        }
    }
}

impl FromStr for PendingReason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::NoWorkers,
            Self::PoolOverloaded,
            Self::TenantLimit,
            Self::Throttled,
            Self::SafetyUnavailable,
            Self::NoListener,
            Self::WorkerLost,
            Self::Paused,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or(())
    }
}

/// Why a job waits, with the explanation of its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingNote {
    /// For programs.
    pub reason: PendingReason,
    /// For people: `not placed because: pool full (3 workers), label region=eu missing on 2`.
    pub detail: String,
}

/// How a job ended, beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TerminalDetail {
    /// Where the result is; kept verbatim, may be empty.
    pub result_ptr: String,
    /// Which worker says so.
    pub worker_id: String,
    /// How long the worker took.
    pub execution_ms: i64,
    /// For programs.
    pub error_code: String,
    /// For people.
    pub error_message: String,
    /// What else it made.
    pub artifact_ptrs: Vec<String>,
}

/// Everything that is known of one job, without its request.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// Its revision; also the time of its last change.
    pub revision: Revision,
    /// Its trace, if it has one.
    pub trace_id: Option<TraceId>,
    /// Its topic.
    pub topic: String,
    /// Its tenant; may be empty.
    pub tenant: String,
    /// Its team; may be empty.
    pub team: String,
    /// Who it runs for; may be empty.
    pub principal: String,
    /// Who asked; may be empty.
    pub actor_id: String,
    /// `human`, `service` or empty.
    pub actor_type: String,
    /// Its idempotency key; may be empty.
    pub idempotency_key: String,
    /// The capability it needs; may be empty.
    pub capability: String,
    /// Its risk tags.
    pub risk_tags: Vec<String>,
    /// What its pool must offer.
    pub requires: Vec<String>,
    /// The pack it belongs to; may be empty.
    pub pack_id: String,
    /// Its memory; may be empty.
    pub memory_id: String,
    /// Its labels, those of the request overlaid by those of its metadata.
    pub labels: BTreeMap<String, String>,
    /// How often it was dispatched.
    pub attempts: u32,
    /// When it times out.
    pub deadline: Option<Timestamp>,
    /// The last decision.
    pub decision: Option<DecisionRecord>,
    /// What people said last.
    pub approval: Option<ApprovalRecord>,
    /// Everybody who said yes since the job began to wait for people, in order; a principal once.
    pub votes: Vec<ApprovalRecord>,
    /// Why it waits, while it is pending.
    pub pending: Option<PendingNote>,
    /// Which replica looks after it, while it is open.
    pub owner: Option<InstanceId>,
    /// Where it was placed.
    pub worker_id: Option<WorkerId>,
    /// Why it was placed there, for people.
    pub placement: String,
    /// When it was dispatched last.
    pub dispatched_at: Option<Timestamp>,
    /// When the worker confirmed that it has it.
    pub accepted_at: Option<Timestamp>,
    /// How it ended. The result pointer may be set alone.
    pub outcome: TerminalDetail,
}
