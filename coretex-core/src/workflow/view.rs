//! Runs as clients see them. See `docs/spec/workflows.md` §6.1.
//!
//! What is stored in parts is put together as the one document that the reference has: what every part of it means, and
//! when it is left out, is as it was. Members of ours come last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;
use serde_json::{Map, Value};

use super::model::{Object, rfc3339};
use super::run::{Failure, Phase, Run, RunHead, RunId, RunStatus, Skip, StepKey, StepRecord, StepStatus, StepVote};
use crate::time::Timestamp;

/// The document of a run. Serialize it for the members in their order.
#[derive(Debug, Serialize)]
pub struct RunDocument<'a> {
    #[serde(flatten)]
    head: HeadDocument<'a>,
    input: &'a Value,
    context: Option<Object>,
    steps: BTreeMap<Cow<'a, str>, StepDocument<'a>>,
}

/// What is known of a run without its steps.
#[derive(Debug, Serialize)]
struct HeadDocument<'a> {
    id: &'a RunId,
    workflow_id: &'a str,
    org_id: &'a str,
    team_id: &'a str,
    status: RunStatus,
    started_at: Option<String>,
    completed_at: Option<String>,
    output: Option<&'a Value>,
    error: Option<&'a Failure>,
    total_cost: f64,
    triggered_by: &'a str,
    #[serde(with = "rfc3339")]
    created_at: Timestamp,
    #[serde(with = "rfc3339")]
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    idempotency_key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rerun_of: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rerun_step: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    dry_run: bool,
    // Ours.
    #[serde(skip_serializing_if = "str::is_empty")]
    workflow_revision: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "is_false")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_run: Option<ParentDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct ParentDocument<'a> {
    run_id: &'a RunId,
    step_id: &'a StepKey,
}

#[derive(Debug, Serialize)]
struct StepDocument<'a> {
    step_id: Cow<'a, str>,
    status: StepStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Cow<'a, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    children: BTreeMap<String, StepDocument<'a>>,
    // Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    prompt: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    votes: Vec<VoteDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_run: Option<&'a RunId>,
    #[serde(skip_serializing_if = "is_false")]
    handled: bool,
}

#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    code: &'a str,
}

#[derive(Debug, Serialize)]
struct VoteDocument<'a> {
    by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    role: &'a str,
    approved: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
    #[serde(with = "rfc3339")]
    at: Timestamp,
}

/// The document of a run.
pub fn run_document(run: &Run) -> RunDocument<'_> {
    let mut steps = BTreeMap::new();
    for (key, record) in &run.steps {
        let key = key.as_str();
        // Children are there twice: with their step, and beside it.
        for (child, document) in child_documents(run, key, record) {
            steps.insert(Cow::Owned(child), document);
        }
        steps.insert(Cow::Borrowed(key), step_document(run, key.into(), record));
    }
    RunDocument {
        head: head_document(&run.id, &run.head),
        input: &run.input,
        context: context(run),
        steps,
    }
}

/// The document of a run, as a value.
pub fn run_json(run: &Run) -> Value {
    serde_json::to_value(run_document(run)).unwrap_or_default()
}

/// The same without input, context and steps, for lists.
pub fn run_summary_json(run: &Run) -> Value {
    serde_json::to_value(head_document(&run.id, &run.head)).unwrap_or_default()
}

/// One step of a run as it is in its document; `None` if it was not touched.
pub fn step_json(run: &Run, step: &StepKey) -> Option<Value> {
    let record = run.steps.get(step)?;
    serde_json::to_value(step_document(run, step.as_str().into(), record)).ok()
}

fn head_document<'a>(id: &'a RunId, head: &'a RunHead) -> HeadDocument<'a> {
    HeadDocument {
        id,
        workflow_id: &head.workflow_id,
        org_id: &head.org_id,
        team_id: &head.team_id,
        status: head.status,
        started_at: head.started_at.map(Timestamp::rfc3339),
        completed_at: head.completed_at.map(Timestamp::rfc3339),
        output: head.output.as_deref(),
        error: head.error.as_ref(),
        total_cost: head.total_cost,
        triggered_by: &head.triggered_by,
        created_at: head.created_at,
        updated_at: head.updated_at,
        labels: &head.labels,
        metadata: &head.metadata,
        idempotency_key: &head.idempotency_key,
        rerun_of: &head.rerun_of,
        rerun_step: &head.rerun_step,
        dry_run: head.dry_run,
        workflow_revision: &head.definition,
        phase: Some(head.phase).filter(|phase| *phase != Phase::Steps && !head.status.is_terminal()),
        paused: head.paused,
        start_at: head.start_at.map(Timestamp::rfc3339),
        deadline_at: head.deadline_at.map(Timestamp::rfc3339),
        parent_run: head.parent.as_ref().map(|parent| ParentDocument {
            run_id: &parent.run,
            step_id: &parent.step,
        }),
    }
}

/// What expressions see as `ctx`, without what was never recorded; `None` if nothing was.
fn context(run: &Run) -> Option<Object> {
    let steps: Object = run
        .steps
        .iter()
        .filter(|(_, record)| record.status == StepStatus::Succeeded)
        .filter_map(|(key, record)| {
            let mut entry = Map::new();
            if let Some(output) = &record.output {
                entry.insert("output".to_owned(), Value::clone(output));
            }
            if !record.result_ptr.is_empty() {
                entry.insert("result_ptr".to_owned(), record.result_ptr.as_str().into());
            }
            (!entry.is_empty()).then(|| (key.to_string(), entry.into()))
        })
        .collect();
    if steps.is_empty() && run.context.is_empty() {
        return None;
    }
    let mut context = run.context.clone();
    context.insert("steps".to_owned(), steps.into());
    Some(context)
}

fn step_document<'a>(run: &'a Run, key: Cow<'a, str>, record: &'a StepRecord) -> StepDocument<'a> {
    let item = StepKey::new(&key)
        .parent()
        .and_then(|(parent, index)| run.items.get(parent)?.get(index))
        .filter(|item| !item.is_null());
    let children = child_documents(run, &key, record);
    StepDocument {
        step_id: key,
        status: record.status,
        started_at: record.started_at.map(Timestamp::rfc3339),
        completed_at: record.completed_at.map(Timestamp::rfc3339),
        next_attempt_at: record.next_attempt_at.map(Timestamp::rfc3339),
        attempts: Some(record.attempts).filter(|attempts| *attempts > 0),
        input: input(run, record, item),
        output: output(record),
        error: record
            .error
            .as_ref()
            .filter(|error| !error.message.is_empty() || !error.code.is_empty())
            .map(|error| ErrorDocument {
                message: &error.message,
                code: &error.code,
            }),
        job_id: record.job_id.as_ref().map(crate::protocol::JobId::as_str),
        item,
        children,
        skipped: record.skipped,
        expires_at: record.expires_at.map(Timestamp::rfc3339),
        prompt: &record.prompt,
        votes: record.votes.iter().map(vote_document).collect(),
        child_run: record.child_run.as_ref(),
        handled: record.handled,
    }
}

fn vote_document(vote: &StepVote) -> VoteDocument<'_> {
    VoteDocument {
        by: &vote.by,
        role: &vote.role,
        approved: vote.approved,
        reason: &vote.reason,
        note: &vote.note,
        at: vote.at,
    }
}

/// The payload of the latest attempt.
fn input<'a>(run: &'a Run, record: &'a StepRecord, item: Option<&Value>) -> Option<Cow<'a, Value>> {
    let input = match (&record.input, record.inherits_input) {
        (Some(input), _) => Cow::Borrowed(&**input),
        (None, false) => return None,
        (None, true) => match item {
            Some(item) if run.input.get("item").is_none() => {
                let mut input = Value::clone(&run.input);
                if let Value::Object(members) = &mut input {
                    members.insert("item".to_owned(), item.clone());
                }
                Cow::Owned(input)
            }
            _ => Cow::Borrowed(&*run.input),
        },
    };
    let empty = input.as_object().is_some_and(Map::is_empty);
    (!empty).then_some(input)
}

/// The pointer where a worker left it, else the value.
fn output(record: &StepRecord) -> Option<Cow<'_, Value>> {
    if !record.result_ptr.is_empty() {
        return Some(Cow::Owned(record.result_ptr.as_str().into()));
    }
    if record.job_id.is_some() {
        return None;
    }
    record
        .output
        .as_deref()
        .filter(|output| !output.is_null())
        .map(Cow::Borrowed)
}

/// The children of a step. Those that were not begun have no record: they wait, or never will be begun.
fn child_documents<'a>(run: &'a Run, key: &str, record: &StepRecord) -> BTreeMap<String, StepDocument<'a>> {
    static WAITING: LazyLock<StepRecord> = LazyLock::new(StepRecord::default);
    static CANCELLED: LazyLock<StepRecord> = LazyLock::new(|| StepRecord {
        status: StepStatus::Cancelled,
        ..StepRecord::default()
    });
    let items = run.items.get(key).map(|items| items.len());
    let group = || usize::try_from(record.group.as_ref()?.total).ok();
    let untouched = if record.status.is_terminal() {
        &CANCELLED
    } else {
        &WAITING
    };
    (0..items.or_else(group).unwrap_or(0))
        .map(|index| {
            let child = format!("{key}[{index}]");
            let record = run.steps.get(child.as_str()).unwrap_or(untouched);
            (child.clone(), step_document(run, child.into(), record))
        })
        .collect()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !b
}

#[cfg(test)]
mod tests;
