//! What a workflow definition says. See `docs/spec/workflows.md` §1–2.
//!
//! The members of the reference keep their names, meaning and order; members of ours are left out when they are not used, so
//! that an old document reads and prints as it did.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::protocol::canonical::{Numbers, hash_object};
use crate::time::Timestamp;

/// A JSON object.
pub type Object = Map<String, Value>;

/// A workflow: steps, and what holds them together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Workflow {
    /// Its name in URLs and keys.
    pub id: String,
    /// Whose it is, for lists. Runs do not inherit it.
    pub org_id: String,
    /// Whose it is, for people.
    pub team_id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// A label of the author's, never interpreted.
    pub version: String,
    /// How long a run may take, in seconds; 0 is for ever.
    pub timeout_sec: i64,
    /// The steps by id.
    pub steps: BTreeMap<String, Step>,
    /// Kept for clients.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub config: Object,
    /// What a run's input has to be.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub input_schema: Object,
    /// Kept for user interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Object>,
    /// Who wrote it.
    pub created_by: String,
    /// When it was saved first. Not part of the content hash.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// When it was saved last. Not part of the content hash.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub updated_at: Timestamp,
    /// How long a run may take, in milliseconds; wins over `timeout_sec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout_ms: i64,
    /// What happens to steps in flight when the run fails.
    #[serde(skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// The run's output: a template tree over the final scope. Without it, the outputs of the steps nothing depends on.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// How many runs of this workflow may be open at once; 0 is any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_concurrent_runs: i64,
}

impl Workflow {
    /// What it says, as JSON.
    ///
    /// Always an object; empty only if a number in it is none of JSON, which no decoder lets through.
    pub fn to_object(&self) -> Object {
        match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            _ => Object::new(),
        }
    }

    /// Names this revision (docs/spec/workflows.md §1): the SHA-256 of what it says, without the times of saving.
    pub fn content_hash(&self) -> String {
        let mut members = self.to_object();
        members.remove("created_at");
        members.remove("updated_at");
        hash_object(&members, Numbers::Exact)
    }

    /// The JSON Schema of definitions, for editors. It knows the form only: [`check`](super::check::check) knows the rest.
    pub fn json_schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }

    /// How long a run may take; `None` is for ever.
    pub fn timeout(&self) -> Option<std::time::Duration> {
        millis(self.timeout_ms).or_else(|| millis(self.timeout_sec.saturating_mul(1_000)))
    }
}

/// What happens to steps in flight when the run fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are cancelled.
    #[default]
    Cancel,
    /// They may finish; nothing new is begun.
    Wait,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Step {
    /// The key it has in `steps`; empty for the steps inside a step.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it is: `condition`, `approval`, `delay`, `notify`; without `topic` and `worker_id` also `switch`, `parallel`, `loop`,
    /// `subworkflow`, `transform`, `input`, `signal`. Anything else is a job for a worker.
    #[serde(rename = "type")]
    pub step_type: String,
    /// The worker that is to do it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker_id: String,
    /// The job's topic, a template. `job.workflow.<workflow>` by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// The steps it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Whether it runs at all; for a `condition` step, its value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// An expression whose value is an array: one child for each item.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub for_each: String,
    /// How many children run at once; 0 and less is any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_parallel: i64,
    /// The input, a template tree. Without it, the run's input.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub input: Object,
    /// What the evaluated input has to be.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub input_schema: Object,
    /// The same by the id of a registered schema, used if there is none inline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub input_schema_id: String,
    /// Where in the run's context the output is written, dotted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_path: String,
    /// What the output has to be.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub output_schema: Object,
    /// The same by the id of a registered schema, used if there is none inline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_schema_id: String,
    /// Goes with the job, for policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<StepMeta>,
    /// The step that runs if this one fails; the failure is handled then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub on_error: String,
    /// When and how often it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take, in seconds; for waits, until they expire.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout_sec: i64,
    /// `delay`: how long, in seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_sec: i64,
    /// `delay`: until when, RFC 3339, a template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub delay_until: String,
    /// Labels of the job, values are templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub route_labels: BTreeMap<String, String>,

    // What the reference does not have.
    /// Milliseconds; wins over `timeout_sec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout_ms: i64,
    /// Milliseconds; wins over `delay_sec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ms: i64,
    /// Its failure does not fail the run, and counts as success for what depends on it.
    #[serde(skip_serializing_if = "is_false")]
    pub continue_on_error: bool,
    /// Which ends of its dependencies let it run.
    #[serde(skip_serializing_if = "is_default")]
    pub dependency_policy: DependencyPolicy,
    /// It runs at the end, however the run ended.
    #[serde(skip_serializing_if = "is_false")]
    pub finally: bool,
    /// What undoes this step, if the run does not succeed after it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Box<Step>>,
    /// The job's priority (`critical`, `interactive`, `batch`), a template; wins over the input's `priority`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority: String,
    /// The job's memory, a template; wins over the input's `memory_id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory_id: String,
    /// `for_each`: how many items are allowed at most; 0 is the default, 10 000.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_items: i64,
    /// `for_each`: how many children may fail without the step failing.
    #[serde(skip_serializing_if = "is_zero")]
    pub tolerated_failures: i64,
    /// `switch`: the first whose `when` holds decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// `switch`: the steps that run if no case holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default: Vec<String>,
    /// `parallel`: the steps that run side by side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Step>,
    /// `parallel`: how many branches have to succeed. The rest is cancelled.
    #[serde(skip_serializing_if = "is_default")]
    pub wait_for: WaitFor,
    /// `loop`: goes on while this holds, asked before each round.
    #[serde(rename = "while", skip_serializing_if = "String::is_empty")]
    pub while_: String,
    /// `loop`: ends once this holds, asked after each round.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// `loop`: how many rounds at most; 0 is the default, 1 000.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_iterations: i64,
    /// `loop`: what is done in each round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<Step>>,
    /// `subworkflow`: which workflow, a template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow: String,
    /// `transform`: the expression whose value is the output.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// `signal`: its name. The step's id by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signal: String,
    /// `approval`, `input`: what people are asked, a template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// `approval`: whose and how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRule>,
}

/// How many children a `for_each` step may have unless it says otherwise.
pub const DEFAULT_MAX_ITEMS: usize = 10_000;
/// How many rounds a `loop` may have unless it says otherwise.
pub const DEFAULT_MAX_ITERATIONS: usize = 1_000;

/// How a step behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// A worker does it. Every type that has no behaviour here, and every native one that names a topic or worker.
    Job,
    /// Records whether an expression holds.
    Condition,
    /// Waits for a yes.
    Approval,
    /// Waits for a time.
    Delay,
    /// Tells the bus.
    Notify,
    /// Chooses which of several ways to go.
    Switch,
    /// Runs other steps side by side.
    Parallel,
    /// Runs another step again and again.
    Loop,
    /// Runs another workflow.
    Subworkflow,
    /// Computes a value.
    Transform,
    /// Waits for a person to fill in a form.
    Input,
    /// Waits for a signal.
    Signal,
}

impl Step {
    /// How it behaves (docs/spec/workflows.md §2.2): types of ours are native only where no topic and no worker is named,
    /// for such a step was a job before.
    pub fn kind(&self) -> StepKind {
        match self.step_type.as_str() {
            "condition" => StepKind::Condition,
            "approval" => StepKind::Approval,
            "delay" => StepKind::Delay,
            "notify" => StepKind::Notify,
            _ if !self.topic.is_empty() || !self.worker_id.is_empty() => StepKind::Job,
            "switch" => StepKind::Switch,
            "parallel" => StepKind::Parallel,
            "loop" => StepKind::Loop,
            "subworkflow" => StepKind::Subworkflow,
            "transform" => StepKind::Transform,
            "input" => StepKind::Input,
            "signal" => StepKind::Signal,
            _ => StepKind::Job,
        }
    }

    /// Whether it has a child for each item of an array. The reference's four native types ignore `for_each`, and so do
    /// the steps that have children already.
    pub fn fans_out(&self) -> bool {
        !self.for_each.trim().is_empty()
            && matches!(
                self.kind(),
                StepKind::Job | StepKind::Subworkflow | StepKind::Transform | StepKind::Input | StepKind::Signal
            )
    }

    /// How long one attempt or wait may take; `None` is for ever.
    pub fn timeout(&self) -> Option<std::time::Duration> {
        millis(self.timeout_ms).or_else(|| millis(self.timeout_sec.saturating_mul(1_000)))
    }
}

fn millis(n: i64) -> Option<std::time::Duration> {
    u64::try_from(n)
        .ok()
        .filter(|n| *n > 0)
        .map(std::time::Duration::from_millis)
}

/// Goes with the job, for policy (docs/spec/workflows.md §4.3). Values are templates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct StepMeta {
    /// Who acts; the job's principal as well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor_id: String,
    /// `human` or `service`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor_type: String,
    /// Claimed by the first job that carries it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idempotency_key: String,
    /// The pack it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pack_id: String,
    /// What the job is able to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub capability: String,
    /// What is risky about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub risk_tags: Vec<String>,
    /// What its worker has to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Labels of the metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// When and how often a step is tried again (docs/spec/workflows.md §5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// How often after the first attempt.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_retries: i64,
    /// The first pause, in seconds. 1 by default.
    #[serde(skip_serializing_if = "is_zero")]
    pub initial_backoff_sec: i64,
    /// The longest pause, in seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_backoff_sec: i64,
    /// How much longer each pause is. 1 and less is 2.
    #[serde(skip_serializing_if = "is_zero_f64")]
    pub multiplier: f64,
    /// Milliseconds; wins over `initial_backoff_sec`, and pauses are not rounded to seconds any more.
    #[serde(skip_serializing_if = "is_zero")]
    pub initial_backoff_ms: i64,
    /// Milliseconds; wins over `max_backoff_sec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_backoff_ms: i64,
    /// How pauses grow.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff: Backoff,
    /// Up to this part of each pause, 0 to 1, is taken off at random (from the attempt's id, so that a replay agrees).
    #[serde(skip_serializing_if = "is_zero_f64")]
    pub jitter: f64,
    /// The only error codes worth another attempt; also `timeout`, `denied`, `failed`. Empty is all but `denied`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// Error codes that are final. Wins over `on`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub non_retryable: Vec<String>,
}

/// How pauses grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// By the multiplier each time.
    #[default]
    Exponential,
    /// Not at all.
    Constant,
}

/// Which ends of its dependencies let a step run (docs/spec/workflows.md §3.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependencyPolicy {
    /// All succeeded (or were skipped by their condition, or may fail).
    #[default]
    AllSuccess,
    /// All ended, however.
    AllDone,
    /// One succeeded; the others need not have ended.
    AnySuccess,
    /// All ended, one failed.
    OnFailure,
}

/// One way of a `switch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Case {
    /// Whether to go this way.
    pub when: String,
    /// The steps that run then.
    pub then: Vec<String>,
}

/// How many branches of a `parallel` step have to succeed: `"all"`, `"any"` or a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum WaitFor {
    /// All of them.
    #[default]
    All,
    /// One.
    Any,
    /// This many.
    Count(u32),
}

impl TryFrom<Value> for WaitFor {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, &'static str> {
        match &value {
            Value::Null => Ok(Self::All),
            Value::String(word) if word == "all" => Ok(Self::All),
            Value::String(word) if word == "any" => Ok(Self::Any),
            Value::Number(n) => n
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0)
                .map(Self::Count)
                .ok_or("`wait_for` has to be \"all\", \"any\" or a number above 0"),
            _ => Err("`wait_for` has to be \"all\", \"any\" or a number above 0"),
        }
    }
}

impl JsonSchema for WaitFor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WaitFor".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "How many branches have to succeed.",
            "oneOf": [{ "enum": ["all", "any"] }, { "type": "integer", "minimum": 1, "maximum": u32::MAX }],
        })
    }
}

impl From<WaitFor> for Value {
    fn from(wait: WaitFor) -> Self {
        match wait {
            WaitFor::All => "all".into(),
            WaitFor::Any => "any".into(),
            WaitFor::Count(n) => n.into(),
        }
    }
}

/// Who may say yes to an `approval` step, and how many have to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct ApprovalRule {
    /// How many different principals; 0 and 1 are one.
    #[serde(skip_serializing_if = "is_zero")]
    pub quorum: i64,
    /// One of these roles is needed. Empty is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What happens when the step's timeout is over.
    #[serde(skip_serializing_if = "is_default")]
    pub on_expiry: OnExpiry,
}

/// What happens when nobody has answered in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The step fails with `timed_out`.
    #[default]
    Fail,
    /// It counts as rejected.
    Reject,
    /// It counts as approved.
    Approve,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "serde passes references; only an exact zero is the default"
)]
fn is_zero_f64(n: &f64) -> bool {
    *n == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !b
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Times as the reference writes them: RFC 3339 in UTC, trailing zeros trimmed, `0001-01-01T00:00:00Z` for none.
pub(crate) mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::Timestamp;

    const NONE: &str = "0001-01-01T00:00:00Z";

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        if *time == Timestamp::ZERO {
            return serializer.serialize_str(NONE);
        }
        serializer.serialize_str(&time.rfc3339())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let Some(text) = text.filter(|text| !text.is_empty() && text != NONE) else {
            return Ok(Timestamp::ZERO);
        };
        text.parse::<jiff::Timestamp>()
            .map(|time| Timestamp::from_micros(time.as_microsecond()))
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
