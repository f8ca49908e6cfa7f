//! What a run has to come to where nothing but workers and people decides: worked out once, in order, without events, time,
//! or anything of the engine but the compiled definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::world::{approves, failures, job_output, outcome};
use crate::jobs::JobState;
use crate::workflow::model::{DependencyPolicy, Retry, StepKind, WaitFor, Workflow};
use crate::workflow::plan::{Plan, PlannedStep, StepIndex};
use crate::workflow::run::{Run, RunStatus, Skip, StepKey, StepStatus};
use crate::workflow::schema::SchemaSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well,
    /// By its condition.
    Skipped,
    Branch,
    Badly,
    Never,
}

struct Model<'a> {
    seed: u64,
    plan: &'a Plan,
    child: Option<&'a Plan>,
    ends: BTreeMap<StepIndex, End>,
    /// Whether a failure is nobody's business but the run's.
    failed: bool,
}

/// Compares how `main` ended with what had to come.
pub(super) fn check(seed: u64, definitions: &Value, run: &Run) {
    let plan = |id: &str| {
        let mut workflow: Workflow = serde_json::from_value(definitions[id].clone()).unwrap();
        workflow.id = id.to_owned();
        Plan::compile(Arc::new(workflow), String::new(), &SchemaSet::new())
    };
    let (main, child) = (plan("main"), plan("child"));
    let model = Model::of(seed, &main, Some(&child));
    if model.failed {
        let expected = [RunStatus::Failed, RunStatus::TimedOut];
        assert!(
            expected.contains(&run.head.status),
            "{:?}: {:?}",
            run.head.status,
            model.ends
        );
        return;
    }
    assert_eq!(
        run.head.status,
        RunStatus::Succeeded,
        "{:?}: {:?}",
        run.head.error,
        model.ends
    );
    for step in main.steps() {
        let record = run.steps.get(step.id());
        let end = model.ends[&step.index];
        let ended = record.map(|record| (record.status == StepStatus::Succeeded, record.skipped));
        let expected = match end {
            End::Well => Some((true, None)),
            End::Skipped => Some((true, Some(Skip::Condition))),
            End::Branch => Some((true, Some(Skip::Branch))),
            End::Badly => Some((false, None)),
            End::Never => None,
        };
        assert_eq!(ended, expected, "{}: {:?}", step.id(), model.ends);
        if end == End::Well && step.kind == StepKind::Job && !step.fans_out {
            let output = record.and_then(|record| record.output.as_deref());
            assert_eq!(output, Some(&job_output(&step.key)));
        }
    }
}

impl<'a> Model<'a> {
    fn of(seed: u64, plan: &'a Plan, child: Option<&'a Plan>) -> Self {
        let mut model = Self {
            seed,
            plan,
            child,
            ends: BTreeMap::new(),
            failed: false,
        };
        for last in [false, true] {
            for index in &plan.order {
                let step = &plan[*index];
                if step.step.finally == last {
                    let end = model.end(step);
                    model.ends.insert(*index, end);
                    let handled = step.step.continue_on_error || step.on_error.is_some();
                    model.failed |= end == End::Badly && !handled;
                }
            }
        }
        model
    }

    fn end(&self, step: &PlannedStep) -> End {
        let of = |index: &StepIndex| self.ends[index];
        if !step.chosen_by.is_empty() {
            let takes = |switch: &StepIndex| {
                // `input.x` is 1 in every run.
                let case = self.plan[*switch]
                    .step
                    .cases
                    .iter()
                    .find(|case| case.when.ends_with("== 1"));
                let then = case.map_or(&self.plan[*switch].step.default, |case| &case.then);
                of(switch) == End::Well && then.iter().any(|id| id == step.id())
            };
            if !step.chosen_by.iter().any(takes) {
                let gone = step
                    .chosen_by
                    .iter()
                    .all(|switch| matches!(of(switch), End::Badly | End::Never));
                return if gone { End::Never } else { End::Branch };
            }
        }
        if !step.handles.is_empty() && !step.handles.iter().any(|guarded| of(guarded) == End::Badly) {
            let gone = step.handles.iter().all(|guarded| of(guarded) == End::Never);
            return if gone { End::Never } else { End::Branch };
        }
        let ends: Vec<(End, bool)> = step
            .depends_on
            .iter()
            .filter(|before| !step.handles.contains(before))
            .filter(|before| !step.step.finally || self.plan[**before].step.finally)
            .map(|before| (of(before), self.plan[*before].step.continue_on_error))
            .collect();
        let well = |(end, tolerated): &(End, bool)| {
            matches!(end, End::Well | End::Skipped) || *end == End::Badly && *tolerated
        };
        let all_branch = !ends.is_empty() && ends.iter().all(|(end, _)| *end == End::Branch);
        let failed = step.depends_on.iter().any(|before| of(before) == End::Badly);
        let reached = match step.step.dependency_policy {
            DependencyPolicy::AllSuccess => ends.iter().all(|end| well(end) || end.0 == End::Branch),
            DependencyPolicy::AnySuccess => ends.is_empty() || ends.iter().any(well) || all_branch,
            DependencyPolicy::AllDone => true,
            DependencyPolicy::OnFailure => failed || all_branch,
        };
        if !reached {
            return End::Never;
        }
        let skips = match step.step.dependency_policy {
            DependencyPolicy::AllDone => false,
            DependencyPolicy::OnFailure => all_branch && !failed,
            _ => all_branch,
        };
        if skips {
            return End::Branch;
        }
        if step.step.condition == "false" {
            return End::Skipped;
        }
        if self.succeeds(step, &step.key, true) {
            End::Well
        } else {
            End::Badly
        }
    }

    fn succeeds(&self, step: &PlannedStep, key: &StepKey, top: bool) -> bool {
        let failed = |count: usize, spec: &dyn Fn(usize) -> &'a PlannedStep| {
            (0..count)
                .filter(|n| !self.succeeds(spec(*n), &key.child(*n), false))
                .count()
        };
        let step: &'a PlannedStep = self.plan.step(key).unwrap_or_else(|| panic!("{} {}", key, step.id()));
        if top && step.fans_out {
            let items: Vec<Value> = serde_json::from_str(&step.step.for_each).unwrap();
            return failed(items.len(), &|_| step) <= usize::try_from(step.step.tolerated_failures).unwrap();
        }
        match step.kind {
            StepKind::Job => self.job_succeeds(step, key),
            StepKind::Approval => approves(self.seed, failures(self.seed), &self.plan.workflow.id, key),
            StepKind::Subworkflow => !Model::of(self.seed, self.child.unwrap(), None).failed,
            StepKind::Parallel => {
                let total = step.branches.len();
                let needed = match step.step.wait_for {
                    WaitFor::All => total,
                    WaitFor::Any => total.min(1),
                    WaitFor::Count(n) => total.min(usize::try_from(n).unwrap()),
                };
                total - failed(total, &|n| &step.branches[n]) >= needed
            }
            StepKind::Loop => {
                let rounds = step.step.while_.trim_start_matches("index < ").parse().unwrap();
                failed(rounds, &|_| step.body.as_deref().unwrap()) == 0
            }
            _ => true,
        }
    }

    fn job_succeeds(&self, step: &PlannedStep, key: &StepKey) -> bool {
        let retry = step.step.retry.clone().unwrap_or_default();
        for attempt in 1.. {
            let state = outcome(self.seed, failures(self.seed), &self.plan.workflow.id, key, attempt);
            if state == JobState::Succeeded {
                return true;
            }
            if i64::from(attempt) > retry.max_retries || !again(&retry, state) {
                return false;
            }
        }
        false
    }
}

fn again(retry: &Retry, state: JobState) -> bool {
    let words: &[&str] = match state {
        JobState::Failed => &["E1", "failed"],
        JobState::Timeout => &["timeout"],
        _ => &["denied"],
    };
    let has = |list: &[String]| list.iter().any(|entry| words.contains(&entry.as_str()));
    let tried = if retry.on.is_empty() {
        state != JobState::Denied
    } else {
        has(&retry.on)
    };
    tried && !has(&retry.non_retryable)
}
