//! Doing a run again, whole or from a step. See `docs/spec/workflows.md` §3.6.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::plan::{Plan, StepIndex};
use super::run::{Run, RunHead, RunId, StepKey, StepRecord, StepStatus};
use crate::time::Timestamp;

/// What is to be done again, and how.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The new run's id.
    pub id: RunId,
    /// From which step; empty is all of it.
    pub from_step: &'a str,
    /// Whether its jobs say that nothing is to be changed. What the first run said does not matter.
    pub dry_run: bool,
    /// Who wants it; empty keeps who wanted the first.
    pub by: &'a str,
    /// When.
    pub now: Timestamp,
}

/// Why a run cannot be done again that way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The definition has no such step.
    #[error("step not found")]
    StepNotFound,
    /// The step builds on this one, which has not succeeded, or was undone.
    #[error("dependency {0} not succeeded")]
    DependencyNotSucceeded(String),
}

/// A run that does `source` again by `plan`: a new one, that has not begun.
///
/// With a step to begin from, what succeeded and does not come after that step is taken over with its output: it is not done
/// again.
///
/// # Errors
/// [`Error`] if there is no such step, or something it builds on has not succeeded.
pub fn rerun(plan: &Plan, source: &Run, options: &Options<'_>) -> Result<Run, Error> {
    let mut run = Run::new(options.id.clone(), head(plan, source, options), serde_json::Value::Null);
    run.input = Arc::clone(&source.input);
    if options.from_step.is_empty() {
        return Ok(run);
    }
    let from = plan.index(options.from_step).ok_or(Error::StepNotFound)?;
    let again = after(plan, from);
    for index in before(plan, from) {
        if reusable(source, &plan[index].key).is_none() {
            return Err(Error::DependencyNotSucceeded(plan[index].id().to_owned()));
        }
    }
    for step in plan.steps() {
        if again.contains(&step.index) || step.step.finally {
            continue;
        }
        if let Some(record) = reusable(source, &step.key) {
            take_over(source, &mut run, &step.key, record);
            copy_context(source, &mut run, &step.step.output_path);
        }
    }
    Ok(run)
}

fn head(plan: &Plan, source: &Run, options: &Options<'_>) -> RunHead {
    let old = &source.head;
    let mut head = RunHead {
        workflow_id: old.workflow_id.clone(),
        definition: plan.hash.clone(),
        org_id: old.org_id.clone(),
        team_id: old.team_id.clone(),
        created_at: options.now,
        updated_at: options.now,
        triggered_by: if options.by.is_empty() {
            old.triggered_by.clone()
        } else {
            options.by.to_owned()
        },
        labels: old.labels.clone(),
        metadata: old.metadata.clone(),
        rerun_of: source.id.to_string(),
        rerun_step: options.from_step.to_owned(),
        dry_run: options.dry_run,
        ended: old.ended,
        ..RunHead::default()
    };
    for name in ["dry_run", "rerun_of", "rerun_step"] {
        head.metadata.remove(name);
    }
    head.labels.remove("dry_run");
    head.metadata.insert("rerun_of".to_owned(), source.id.to_string());
    if !options.from_step.is_empty() {
        head.metadata
            .insert("rerun_step".to_owned(), options.from_step.to_owned());
    }
    if options.dry_run {
        head.metadata.insert("dry_run".to_owned(), "true".to_owned());
        head.labels.insert("dry_run".to_owned(), "true".to_owned());
    }
    head
}

/// The step, and what comes after it: what depends on it, what handles its failure, what it chooses.
fn after(plan: &Plan, from: StepIndex) -> BTreeSet<StepIndex> {
    reached(from, |index| {
        let step = &plan[index];
        step.dependents.iter().chain(&step.on_error).copied().collect()
    })
}

/// What a step builds on.
fn before(plan: &Plan, from: StepIndex) -> BTreeSet<StepIndex> {
    let mut all = reached(from, |index| plan[index].waits_for().collect());
    all.remove(&from);
    all
}

fn reached(from: StepIndex, next: impl Fn(StepIndex) -> Vec<StepIndex>) -> BTreeSet<StepIndex> {
    let mut found = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(index) = open.pop() {
        open.extend(next(index).into_iter().filter(|index| found.insert(*index)));
    }
    found
}

/// The record of a step that need not be done again: it succeeded, and nobody has undone it.
fn reusable<'a>(source: &'a Run, key: &StepKey) -> Option<&'a StepRecord> {
    let record = source.steps.get(key)?;
    let undone = source.steps.contains_key(&key.compensation());
    (record.status == StepStatus::Succeeded && !undone).then_some(record)
}

fn take_over(source: &Run, run: &mut Run, key: &StepKey, record: &StepRecord) {
    run.steps.insert(key.clone(), record.clone());
    if let Some(items) = source.items.get(key) {
        run.items.insert(key.clone(), Arc::clone(items));
    }
    let total = record.group.as_ref().map_or(0, |group| group.total);
    for index in 0..usize::try_from(total).unwrap_or(0) {
        let child = key.child(index);
        if let Some(record) = source.steps.get(&child) {
            run.steps.insert(child, record.clone());
        }
    }
}

/// What the step wrote, and nothing else: the rest of the old context is not known to the new run.
fn copy_context(source: &Run, run: &mut Run, path: &str) {
    let segments: Vec<&str> = path.split('.').map(str::trim).collect();
    let mut value = None;
    let mut place = Some(&source.context);
    for segment in &segments {
        value = place.and_then(|members| members.get(*segment));
        place = value.and_then(serde_json::Value::as_object);
    }
    if let Some(value) = value {
        super::advance::write(&mut run.context, path, value.clone());
    }
}

#[cfg(test)]
mod tests;
