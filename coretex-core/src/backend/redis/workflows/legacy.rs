//! Runs that the reference left: one JSON document each. See `docs/spec/storage.md` §10.4.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Map, Value};

use crate::backend::run_parts::corrupt;
use crate::error::StoreError;
use crate::protocol::JobId;
use crate::protocol::hash::hex;
use crate::time::Timestamp;
use crate::workflow::model::Object;
use crate::workflow::run::{Failure, Group};
use crate::workflow::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord};

/// What names a document's content: the revision of the run in it, so that a commit on it fails if anybody has written it
/// since. The scripts compute the same.
pub(super) fn revision_of(text: &[u8]) -> u64 {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text);
    digest
        .as_ref()
        .iter()
        .take(6)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// SHA-1 in lower-case hex, as `redis.sha1hex`.
pub(super) fn sha1_hex(text: &[u8]) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, text).as_ref())
}

/// Steps that wait for people, and since when.
pub(super) fn inbox(run: &Run) -> Vec<(Timestamp, &StepKey)> {
    run.steps
        .iter()
        .filter(|(_, record)| record.status == RunStatus::Waiting)
        .map(|(step, record)| (record.started_at.unwrap_or(run.head.updated_at), step))
        .collect()
}

/// Reads a document. What is missing, null or of another type counts as empty, but not a status: a run whose status is not
/// known cannot go on.
pub(super) fn run(id: &RunId, text: &[u8]) -> Result<Run, StoreError> {
    let document: Object = serde_json::from_slice(text).map_err(|error| corrupt(id, "the document", error))?;
    let status =
        status(&document).ok_or_else(|| corrupt(id, "the document", format!("status {:?}", document.get("status"))))?;
    let input = document.get("input").filter(|input| input.is_object()).cloned();
    let input = input.unwrap_or_else(|| Value::Object(Map::new()));
    let mut context = object(&document, "context").cloned().unwrap_or_default();
    let outputs = match context.remove("steps") {
        Some(Value::Object(outputs)) => outputs,
        _ => Map::new(),
    };
    let head = RunHead {
        workflow_id: text_of(&document, "workflow_id"),
        org_id: text_of(&document, "org_id"),
        team_id: text_of(&document, "team_id"),
        status,
        created_at: time(&document, "created_at").unwrap_or_default(),
        updated_at: time(&document, "updated_at").unwrap_or_default(),
        started_at: time(&document, "started_at"),
        completed_at: time(&document, "completed_at"),
        triggered_by: text_of(&document, "triggered_by"),
        labels: texts(&document, "labels"),
        metadata: texts(&document, "metadata"),
        idempotency_key: text_of(&document, "idempotency_key"),
        rerun_of: text_of(&document, "rerun_of"),
        rerun_step: text_of(&document, "rerun_step"),
        dry_run: document.get("dry_run").and_then(Value::as_bool).unwrap_or_default(),
        output: value(&document, "output"),
        error: failure(&document),
        total_cost: document.get("total_cost").and_then(Value::as_f64).unwrap_or_default(),
        ..RunHead::default()
    };
    let mut run = Run::new(id.clone(), head, input);
    run.revision = revision_of(text);
    run.context = context;
    if let Some(steps) = object(&document, "steps") {
        read_steps(&mut run, steps, &outputs);
    }
    count(&mut run);
    run.index_timers();
    Ok(run)
}

/// The records: children are in the document twice, of which the one among the steps wins.
fn read_steps(run: &mut Run, steps: &Object, outputs: &Object) {
    let mut found: BTreeMap<&str, &Object> = BTreeMap::new();
    let mut fans: Vec<&str> = Vec::new();
    for (key, step) in steps {
        let Some(step) = step.as_object() else { continue };
        if let Some(children) = object(step, "children").filter(|children| !children.is_empty()) {
            fans.push(key);
            for (key, child) in children {
                if let Some(child) = child.as_object() {
                    found.entry(key).or_insert(child);
                }
            }
        }
        found.insert(key, step);
    }
    let mut items: BTreeMap<&str, BTreeMap<usize, Value>> = BTreeMap::new();
    for (key, step) in &found {
        let key_of = StepKey::new(key);
        if let Some((parent, index)) = key_of.parent()
            && let Some(fan) = fans.iter().find(|fan| **fan == parent)
        {
            let item = step.get("item").cloned().unwrap_or_default();
            items.entry(fan).or_default().insert(index, item);
        }
        if let Some(record) = record(step, outputs.get(*key), &run.input) {
            run.steps.insert(key_of, record);
        }
    }
    for fan in fans {
        group(run, fan, items.remove(fan).unwrap_or_default());
    }
}

/// One record; `None` for a step that nothing has happened to.
fn record(step: &Object, context: Option<&Value>, run_input: &Value) -> Option<StepRecord> {
    let status = status(step).unwrap_or_default();
    let attempts = step.get("attempts").and_then(Value::as_u64).unwrap_or_default();
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    let job_id = JobId::try_new(&text_of(step, "job_id")).ok();
    // Not cleared when the next attempt began.
    let next_attempt_at = time(step, "next_attempt_at")
        .filter(|_| !(status.is_terminal() || status == RunStatus::Running && job_id.is_some()));
    if status == RunStatus::Pending && attempts == 0 && next_attempt_at.is_none() {
        return None;
    }
    let input = step.get("input").filter(|input| input.is_object());
    let inherits_input = input.is_some_and(|input| is_inherited(input, step.get("item"), run_input));
    // The output of a job is a pointer there; its value, if it was small, is in the context.
    let stored = value(step, "output");
    let result_ptr = stored
        .as_deref()
        .and_then(Value::as_str)
        .filter(|_| job_id.is_some())
        .map(str::to_owned);
    let in_context = context
        .and_then(Value::as_object)
        .and_then(|entry| value(entry, "output"));
    Some(StepRecord {
        status,
        started_at: time(step, "started_at"),
        completed_at: time(step, "completed_at"),
        next_attempt_at,
        attempts,
        input: input.filter(|_| !inherits_input).cloned().map(Arc::new),
        inherits_input,
        output: in_context.or_else(|| stored.filter(|_| result_ptr.is_none())),
        result_ptr: result_ptr.unwrap_or_default(),
        error: failure(step),
        job_id,
        ..StepRecord::default()
    })
}

/// Whether an input is the run's, with the item of the child or without.
fn is_inherited(input: &Value, item: Option<&Value>, run_input: &Value) -> bool {
    if input == run_input {
        return true;
    }
    let (Some(input), Some(run_input)) = (input.as_object(), run_input.as_object()) else {
        return false;
    };
    let item = item.filter(|item| !item.is_null());
    item.is_some()
        && !run_input.contains_key("item")
        && input.get("item") == item
        && input.len() == run_input.len() + 1
        && run_input.iter().all(|(name, value)| input.get(name) == Some(value))
}

/// The children of a fan-out in numbers. All of them were written down at once and begun in order, so that those without a
/// record are the last ones.
fn group(run: &mut Run, fan: &str, items: BTreeMap<usize, Value>) {
    let total = items.last_key_value().map_or(0, |(last, _)| last + 1);
    // An index that no array of that size can have is garbage.
    if total > items.len().saturating_mul(2).saturating_add(16) {
        return;
    }
    let parent = StepKey::new(fan);
    let mut group = Group {
        total: u32::try_from(total).unwrap_or(u32::MAX),
        ..Group::default()
    };
    for index in (0..total).rev() {
        let Some(child) = run.steps.get(&parent.child(index)) else {
            continue;
        };
        group.next = group.next.max(u32::try_from(index + 1).unwrap_or(u32::MAX));
        match child.status {
            RunStatus::Succeeded => group.succeeded += 1,
            status if status.is_terminal() => group.failed += 1,
            RunStatus::Running => group.running += 1,
            _ => {}
        }
    }
    let mut all = vec![Value::Null; total];
    for (index, item) in items {
        if let Some(place) = all.get_mut(index) {
            *place = item;
        }
    }
    run.items.insert(parent.clone(), Arc::new(all));
    if let Some(record) = run.steps.get_mut(&parent) {
        record.group = Some(group);
    }
}

/// What the head says of the records, and that jobs in flight are looked after at once.
fn count(run: &mut Run) {
    let mut ended: Vec<(Option<Timestamp>, StepKey)> = Vec::new();
    for (step, record) in &run.steps {
        run.head.open += u32::from(!record.status.is_terminal());
        run.head.waiting += u32::from(record.status == RunStatus::Waiting);
        run.head.in_flight += u32::from(record.in_flight());
        if record.status == RunStatus::Succeeded {
            ended.push((record.completed_at, step.clone()));
        }
    }
    ended.sort();
    for (nth, (_, step)) in (1..).zip(&ended) {
        if let Some(record) = run.steps.get_mut(step) {
            record.ended_nth = nth;
        }
        run.head.ended = nth;
    }
    if run.head.in_flight > 0 && !run.head.status.is_terminal() {
        run.head.check_at = Some(run.head.updated_at);
    }
}

fn object<'a>(of: &'a Object, name: &str) -> Option<&'a Object> {
    of.get(name).and_then(Value::as_object)
}

fn value(of: &Object, name: &str) -> Option<Arc<Value>> {
    of.get(name).filter(|value| !value.is_null()).cloned().map(Arc::new)
}

fn text_of(of: &Object, name: &str) -> String {
    of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(of: &Object, name: &str) -> BTreeMap<String, String> {
    let members = object(of, name).into_iter().flatten();
    members
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// `None` as well for the zero time.
fn time(of: &Object, name: &str) -> Option<Timestamp> {
    let text = of.get(name).and_then(Value::as_str)?;
    let time = text.parse::<jiff::Timestamp>().ok()?;
    Some(Timestamp::from_micros(time.as_microsecond())).filter(|_| !text.starts_with("0001-01-01T00:00:00"))
}

fn status(of: &Object) -> Option<RunStatus> {
    let text = of.get("status").and_then(Value::as_str)?;
    RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
}

fn failure(of: &Object) -> Option<Failure> {
    let error = object(of, "error").filter(|error| !error.is_empty())?;
    Some(Failure {
        code: text_of(error, "code"),
        message: text_of(error, "message"),
        step_id: text_of(error, "step_id"),
    })
}

#[cfg(test)]
mod tests;
