//! Accepting a job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{HTTP_SENDER, JobService, unexpected};
use crate::error::{Retry, StoreError};
use crate::jobs::{Admission, NewJob};
use crate::pointers::Pointer;
use crate::protocol::agent::{ActorType, Budget, ContextHints, JobMetadata, JobPriority, JobRequest};
use crate::protocol::{IdError, JobId, TenantId, Topic, TraceId};
use crate::secrets;

const PROMPT_MAX_BYTES: usize = 100_000;
const TAGS_MAX: usize = 50;
const LABELS_MAX: usize = 50;
/// So that the packet fits a broker's default limit of 1 MiB, with room for what policy adds.
const REQUEST_MAX_BYTES: usize = 512 * 1024;
/// A century, so that times stay within what stores can write; nobody waits longer.
const DEADLINE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
const DEFAULT_TOPIC: &str = "job.default";
const DEFAULT_INPUT_TOKENS: i32 = 8_000;
const DEFAULT_OUTPUT_TOKENS: i64 = 1_024;

/// A job as a client asks for it. docs/spec/http.md §5 has the table.
#[derive(Debug, Clone, Default)]
pub struct SubmitRequest {
    /// What to do.
    pub prompt: String,
    /// Which kind of work; `None` for `job.default`.
    pub topic: Option<String>,
    /// Which adapter of the worker.
    pub adapter_id: String,
    /// `interactive` (also if empty), `batch` or `critical`.
    pub priority: String,
    /// Any JSON, handed to the worker as it came.
    pub context: Option<Box<RawValue>>,
    /// Its memory; `mem:<job_id>` if empty.
    pub memory_id: String,
    /// How the context window is built.
    pub context_mode: String,
    /// Its tenant, unless `org_id` is set.
    pub tenant_id: String,
    /// Its tenant.
    pub org_id: String,
    /// Who it runs for.
    pub principal_id: String,
    /// Its team.
    pub team_id: String,
    /// Its project.
    pub project_id: String,
    /// Who asks; the principal if empty.
    pub actor_id: String,
    /// `human`, `service` or empty.
    pub actor_type: String,
    /// Two submits of one tenant with the same key are one job.
    pub idempotency_key: String,
    /// The pack it belongs to.
    pub pack_id: String,
    /// The capability it needs.
    pub capability: String,
    /// Its risk tags.
    pub risk_tags: Vec<String>,
    /// What its pool must offer.
    pub requires: Vec<String>,
    /// Tags for the context window.
    pub tags: Vec<String>,
    /// Placement constraints, and free remarks under reserved names.
    pub labels: BTreeMap<String, String>,
    /// 0 for 8000.
    pub max_input_tokens: i32,
    /// 0 for 1024.
    pub max_output_tokens: i64,
    /// 0 for no limit.
    pub max_total_tokens: i64,
    /// Milliseconds until it times out; 0 for no deadline of its own.
    pub deadline_ms: i64,
    /// Whether the context may be summarized.
    pub allow_summarization: bool,
    /// Whether the context may be extended by retrieval.
    pub allow_retrieval: bool,
}

/// What became of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job_id: JobId,
    /// Its trace, if it has one.
    pub trace_id: Option<TraceId>,
    /// Whether it is an earlier job with the same idempotency key.
    pub duplicate: bool,
}

/// A field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Invalid {
    /// Which field.
    pub field: &'static str,
    /// What is wrong, for people; names the limit.
    pub text: String,
    /// The limit, where there is one.
    pub limit: Option<usize>,
}

impl Invalid {
    fn new(field: &'static str, text: impl Into<String>) -> Self {
        Self {
            field,
            text: text.into(),
            limit: None,
        }
    }

    fn limit(field: &'static str, text: impl Into<String>, limit: usize) -> Self {
        Self {
            limit: Some(limit),
            ..Self::new(field, text)
        }
    }
}

/// Why a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request is not as it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store did not answer: the job may have been accepted.
    #[error("the job could not be stored")]
    Store(#[from] StoreError),
}

/// What a worker finds at `ctx:<job_id>`.
#[derive(Serialize)]
struct ContextPayload<'a> {
    adapter_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a RawValue>,
    created_at: String,
    priority: &'a str,
    prompt: &'a str,
    tenant_id: &'a str,
    topic: &'a str,
}

/// What is checked of a request, and what follows from it.
struct Checked {
    topic: String,
    priority: JobPriority,
    tenant: TenantId,
    actor_type: ActorType,
    deadline: Option<Duration>,
}

impl JobService {
    /// Accepts a job: when this returns, the job is durable and will be judged, whatever happens to this process.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] names the field; [`SubmitError::Store`] if the store did not answer.
    ///
    /// # Cancel safety
    /// Dropped half-way, the job may have been accepted.
    pub async fn submit(&self, submit: SubmitRequest) -> Result<Submitted, SubmitError> {
        let checked = self.check(&submit)?;
        let now = self.clock.now();
        let id = JobId::random();
        let trace = TraceId::random();

        let payload = serde_json::to_vec(&ContextPayload {
            adapter_id: &submit.adapter_id,
            context: submit.context.as_deref(),
            created_at: now.rfc3339_secs(),
            priority: &submit.priority,
            prompt: &submit.prompt,
            tenant_id: checked.tenant.as_str(),
            topic: &checked.topic,
        })
        .map_err(|error| Invalid::new("context", format!("context cannot be stored: {error}")))?;

        let key = submit.idempotency_key.trim().to_owned();
        let deadline = checked.deadline.map(|after| now.plus(after));
        let tenant = checked.tenant.clone();
        let request = Arc::new(build(submit, checked, &id, &key));
        if request.encoded_len() > REQUEST_MAX_BYTES {
            return Err(Invalid::limit(
                "labels",
                format!(
                    "labels, tags and ids are too large together (max {REQUEST_MAX_BYTES} bytes); \
                     large data belongs in context"
                ),
                REQUEST_MAX_BYTES,
            )
            .into());
        }

        let job = NewJob {
            id: id.clone(),
            request: Arc::clone(&request),
            trace_id: Some(trace.clone()),
            payload: Some(Bytes::from(payload)),
            idempotency: (!key.is_empty()).then_some((tenant, key)),
            deadline,
            at: now,
        };
        if let Some((job_id, trace_id)) = self.admit(job).await? {
            return Ok(Submitted {
                job_id,
                trace_id,
                duplicate: true,
            });
        }
        let message_id = submit_message_id(&request);
        self.announce_submit(&request, trace.as_str(), HTTP_SENDER, message_id)
            .await;
        Ok(Submitted {
            job_id: id,
            trace_id: Some(trace),
            duplicate: false,
        })
    }

    /// Stores the job; the earlier job if its key is taken. A lost answer is asked for again, which the id makes safe.
    pub(super) async fn admit(&self, job: NewJob) -> Result<Option<(JobId, Option<TraceId>)>, StoreError> {
        let id = job.id.clone();
        let mut repeated = false;
        loop {
            match self.jobs.create(job.clone()).await {
                Ok(Admission::Accepted(_)) => return Ok(None),
                // Our own first try, whose answer was lost.
                Ok(Admission::Exists(_)) if repeated => return Ok(None),
                Ok(Admission::Duplicate { job, .. }) if repeated && job == id => return Ok(None),
                Ok(Admission::Duplicate { job, trace }) => return Ok(Some((job, trace))),
                Ok(Admission::Exists(_)) => return Err(unexpected("create")),
                Err(error) if !repeated && error.retry() != Retry::Never => repeated = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks in the order that docs/spec/http.md §5 lists; the first failure is reported.
    fn check(&self, submit: &SubmitRequest) -> Result<Checked, Invalid> {
        if submit.prompt.is_empty() {
            return Err(Invalid::new("prompt", "prompt is required"));
        }
        if submit.prompt.len() > PROMPT_MAX_BYTES {
            return Err(Invalid::limit(
                "prompt",
                format!("prompt too long (>{PROMPT_MAX_BYTES} chars)"),
                PROMPT_MAX_BYTES,
            ));
        }
        let topic = submit.topic.clone().unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
        if !topic.starts_with("job.") {
            return Err(Invalid::new("topic", "topic must start with job."));
        }
        for (field, tokens) in [
            ("max_input_tokens", i64::from(submit.max_input_tokens)),
            ("max_output_tokens", submit.max_output_tokens),
            ("max_total_tokens", submit.max_total_tokens),
        ] {
            if tokens < 0 {
                return Err(Invalid::new(field, "token limits must be non-negative"));
            }
        }
        let deadline = u64::try_from(submit.deadline_ms)
            .map_err(|_| Invalid::new("deadline_ms", "deadline_ms must be non-negative"))?;
        let actor_type = match submit.actor_type.trim().to_ascii_lowercase().as_str() {
            "" => ActorType::Unspecified,
            "human" => ActorType::Human,
            "service" => ActorType::Service,
            _ => return Err(Invalid::new("actor_type", "actor_type must be 'human' or 'service'")),
        };
        if submit.tags.len() > TAGS_MAX {
            return Err(Invalid::limit(
                "tags",
                format!("too many tags (max {TAGS_MAX})"),
                TAGS_MAX,
            ));
        }
        if submit.labels.len() > LABELS_MAX {
            return Err(Invalid::limit(
                "labels",
                format!("too many labels (max {LABELS_MAX})"),
                LABELS_MAX,
            ));
        }
        let priority = match submit.priority.trim().to_ascii_lowercase().as_str() {
            "" | "interactive" => JobPriority::Interactive,
            "batch" => JobPriority::Batch,
            "critical" => JobPriority::Critical,
            _ => {
                return Err(Invalid::new(
                    "priority",
                    "priority must be 'interactive', 'batch' or 'critical'",
                ));
            }
        };
        check_id("topic", &topic, Topic::try_new)?;
        let tenant = [&submit.org_id, &submit.tenant_id]
            .into_iter()
            .find(|tenant| !tenant.is_empty());
        let tenant = match tenant {
            Some(tenant) => check_id("tenant_id", tenant, TenantId::try_new)?,
            None => self.default_tenant.clone(),
        };
        for (field, id) in [
            ("adapter_id", &submit.adapter_id),
            ("memory_id", &submit.memory_id),
            ("context_mode", &submit.context_mode),
            ("tenant_id", &submit.tenant_id),
            ("principal_id", &submit.principal_id),
            ("team_id", &submit.team_id),
            ("project_id", &submit.project_id),
            ("actor_id", &submit.actor_id),
            ("idempotency_key", &submit.idempotency_key),
            ("pack_id", &submit.pack_id),
            ("capability", &submit.capability),
        ] {
            if !id.trim().is_empty() {
                check_id(field, id, TenantId::try_new)?;
            }
        }
        Ok(Checked {
            topic,
            priority,
            tenant,
            actor_type,
            deadline: (deadline > 0).then(|| Duration::from_millis(deadline).min(DEADLINE_MAX)),
        })
    }
}

/// Checks one id with the rule of all ids, and says it about this field.
fn check_id<T>(field: &'static str, text: &str, check: impl Fn(&str) -> Result<T, IdError>) -> Result<T, Invalid> {
    const MAX: usize = crate::protocol::MAX_ID_BYTES;
    check(text).map_err(|error| match error {
        IdError::Empty { .. } => Invalid::new(field, format!("{field} is empty")),
        IdError::TooLong { bytes, .. } => {
            Invalid::limit(field, format!("{field} is {bytes} bytes long (max {MAX})"), MAX)
        }
        IdError::Control { character, at, .. } => Invalid::new(
            field,
            format!("{field} holds the control character {character:?} at byte {at}"),
        ),
    })
}

/// What de-duplicates a submit on the bus (docs/spec/bus.md §4).
pub(super) fn submit_message_id(request: &JobRequest) -> String {
    match request
        .labels
        .get(crate::protocol::labels::BUS_MSG_ID)
        .map(|label| label.trim())
    {
        Some(label) if !label.is_empty() => format!("jobreq:{}:{label}", crate::protocol::subjects::SUBMIT),
        _ => format!("jobreq:{}", request.job_id),
    }
}

fn build(submit: SubmitRequest, checked: Checked, id: &JobId, key: &str) -> JobRequest {
    let tenant = checked.tenant.to_string();
    let secret =
        secrets::is_reference(&submit.prompt) || submit.context.as_deref().is_some_and(|raw| holds_secret(raw.get()));

    // Only people approve: a client cannot bring the marks of an approval along.
    let mut labels = submit.labels;
    labels.retain(|name, _| !crate::protocol::labels::is_approval_label(name));
    let mut risk_tags = submit.risk_tags;
    if secret {
        labels.insert("secrets_present".to_owned(), "true".to_owned());
        if !risk_tags.iter().any(|tag| tag.eq_ignore_ascii_case("secrets")) {
            risk_tags.push("secrets".to_owned());
        }
    }

    let memory_id = if submit.memory_id.is_empty() {
        format!("mem:{id}")
    } else {
        submit.memory_id
    };
    let actor_id = match submit.actor_id.trim() {
        "" => submit.principal_id.clone(),
        actor => actor.to_owned(),
    };
    let max_input_tokens = or_default(submit.max_input_tokens, DEFAULT_INPUT_TOKENS);
    let max_output_tokens = or_default(submit.max_output_tokens, DEFAULT_OUTPUT_TOKENS);

    let mut env = BTreeMap::from([
        ("tenant_id".to_owned(), tenant.clone()),
        ("memory_id".to_owned(), memory_id.clone()),
        ("max_input_tokens".to_owned(), max_input_tokens.to_string()),
        ("max_output_tokens".to_owned(), max_output_tokens.to_string()),
    ]);
    for (name, value) in [
        ("team_id", submit.team_id),
        ("project_id", submit.project_id),
        ("context_mode", submit.context_mode),
    ] {
        if !value.is_empty() {
            env.insert(name.to_owned(), value);
        }
    }

    JobRequest {
        job_id: id.to_string(),
        topic: checked.topic,
        priority: checked.priority.into(),
        context_ptr: Pointer::context(id).to_string(),
        adapter_id: submit.adapter_id,
        env,
        memory_id,
        context_hints: Some(ContextHints {
            max_input_tokens,
            allow_summarization: submit.allow_summarization,
            allow_retrieval: submit.allow_retrieval,
            tags: submit.tags,
        }),
        budget: Some(Budget {
            max_input_tokens: max_input_tokens.into(),
            max_output_tokens,
            max_total_tokens: submit.max_total_tokens,
            deadline_ms: submit.deadline_ms,
        }),
        tenant_id: tenant.clone(),
        principal_id: submit.principal_id,
        meta: Some(JobMetadata {
            tenant_id: tenant,
            actor_id,
            actor_type: checked.actor_type.into(),
            idempotency_key: key.to_owned(),
            capability: submit.capability.trim().to_owned(),
            risk_tags,
            requires: submit.requires,
            pack_id: submit.pack_id.trim().to_owned(),
            labels: labels.clone(),
        }),
        labels,
        ..JobRequest::default()
    }
}

fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

/// Whether any string value of a JSON document, at any depth, is a reference to a secret. Names of members do not count.
///
/// Walks the text instead of building a tree: no recursion, and no cost beyond one pass.
pub(super) fn holds_secret(json: &str) -> bool {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(start) = find(bytes, at, |b| b == b'"') {
        let mut end = start + 1;
        while let Some(found) = find(bytes, end, |b| b == b'"' || b == b'\\') {
            end = found + 1;
            if bytes.get(found) == Some(&b'"') {
                break;
            }
            end += 1; // What is escaped; of `\uXXXX` the digits hold neither quote nor backslash.
        }
        at = end.max(start + 1);
        let name = find(bytes, at, |b| !b.is_ascii_whitespace()).and_then(|next| bytes.get(next)) == Some(&b':');
        if name {
            continue;
        }
        let literal = json.get(start..at).unwrap_or_default();
        let plain = literal.trim_start_matches('"');
        let secret = if literal.contains('\\') {
            serde_json::from_str::<String>(literal).is_ok_and(|text| secrets::is_reference(&text))
        } else {
            secrets::is_reference(plain)
        };
        if secret {
            return true;
        }
    }
    false
}

fn find(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.iter().position(|b| wanted(*b)).map(|found| from + found)
}
