//! Which steps are reached (docs/spec/workflows.md §3.1, §3.2).

use serde_json::Value;

use super::failure::ends_runs;
use super::{Unit, Work, compiled, failure};
use crate::workflow::model::{DependencyPolicy, OnFailure, StepKind};
use crate::workflow::plan::{PlannedStep, StepIndex};
use crate::workflow::run::{Failure, Phase, RunStatus, Skip, StepStatus};

/// What a step's dependencies say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Not yet.
    Wait,
    /// Now.
    Ready,
    /// It is on a way that was not taken.
    Skip,
    /// It can never be reached.
    Never,
}

/// What has become of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is not over.
    Open,
    /// It ended well, or may have failed.
    Well,
    /// It is on a way that was not taken.
    Branch,
    /// It ended otherwise.
    Badly,
    /// It will never run.
    Never,
}

impl Work<'_> {
    /// Begins the run, notices deadlines and timers, and looks at every step.
    pub(super) fn wake(&mut self) {
        let head = &self.run.head;
        if head.status.is_terminal() {
            return;
        }
        if head.status == RunStatus::Pending {
            if head.paused || head.start_at.is_some_and(|at| at > self.now) {
                return;
            }
            self.begin_run();
        }
        if self.run.head.deadline_at.is_some_and(|at| at <= self.now) {
            self.run.head.deadline_at = None;
            self.changed();
            self.deadline_passed();
        }
        if self.run.head.paused {
            return;
        }
        self.fire_timers();
        self.look_at_all();
    }

    fn begin_run(&mut self) {
        let timeout = self.plan.timeout;
        let now = self.now;
        let head = &mut self.run.head;
        head.status = RunStatus::Running;
        head.started_at = Some(now);
        head.deadline_at = timeout.map(|timeout| now.plus(timeout));
        self.changed();
    }

    pub(super) fn look_at_all(&mut self) {
        self.queue.extend(0..self.plan.order.len());
    }

    /// What to look at after a step ended.
    pub(super) fn look_after(&mut self, index: StepIndex) {
        let plan = self.plan();
        let step = &plan[index];
        // Whether the watchful run depends on what will never run.
        for next in step.dependents.iter().chain(&step.on_error).chain(plan.watchful()) {
            self.look_at(*next);
        }
    }

    /// Goes on until nothing changes any more, and ends the run if there is nothing left to wait for.
    pub(super) fn go_on(&mut self) {
        loop {
            let head = &self.run.head;
            if head.paused || head.status == RunStatus::Pending || head.status.is_terminal() {
                return;
            }
            while let Some(rank) = self.queue.pop_first() {
                self.visit(self.plan.order[rank]);
            }
            if self.transition.more || self.run.head.open > 0 {
                return;
            }
            if self.looked_at != Some(self.puts) {
                // Nothing is left to wait for: make sure of it.
                self.looked_at = Some(self.puts);
                self.look_at_all();
                continue;
            }
            self.next_phase();
        }
    }

    /// Looks at one step: begins it if it is reached, or its children if it has some.
    fn visit(&mut self, index: StepIndex) {
        let step = &self.plan()[index];
        if let Some(record) = self.record(step.id()) {
            if record.group.is_some() && !record.status.is_terminal() {
                self.drive_group(index);
            }
            return;
        }
        if !self.may_begin(index) {
            return;
        }
        match self.reach(index) {
            Reach::Wait | Reach::Never => {}
            Reach::Skip => self.skip(index, Skip::Branch),
            Reach::Ready => {
                if self.budget == 0 {
                    self.transition.more = true;
                    return;
                }
                self.begin_step(index);
            }
        }
    }

    /// Whether the phase of the run lets a step begin.
    fn may_begin(&self, index: StepIndex) -> bool {
        let step = &self.plan[index];
        match self.run.head.phase {
            Phase::Steps => !ends_runs(self.plan, step),
            Phase::Settling => !ends_runs(self.plan, step) && follows_failure(step),
            Phase::Compensating => false,
            Phase::Finally => ends_runs(self.plan, step),
        }
    }

    fn begin_step(&mut self, index: StepIndex) {
        let unit = self.top(index);
        if let Some(problem) = &self.plan[index].problem {
            self.fail(
                &unit,
                StepStatus::Failed,
                failure("invalid_definition", problem.clone()),
            );
            return;
        }
        match self.gate(&unit) {
            Ok(true) => {}
            Ok(false) => {
                self.skip(index, Skip::Condition);
                return;
            }
            Err(why) => {
                self.fail(&unit, StepStatus::Failed, why);
                return;
            }
        }
        if unit.spec.fans_out {
            self.begin_fan_out(&unit);
            return;
        }
        match unit.spec.kind {
            StepKind::Switch => self.begin_switch(&unit),
            StepKind::Parallel => self.begin_parallel(&unit),
            StepKind::Loop => self.begin_loop(&unit),
            _ => self.begin(&unit),
        }
    }

    /// Records that a step does not run.
    pub(super) fn skip(&mut self, index: StepIndex, why: Skip) {
        let key = &self.plan()[index].key;
        let now = self.now;
        self.put(key, |record| {
            record.status = StepStatus::Succeeded;
            record.started_at = Some(now);
            record.completed_at = Some(now);
            record.skipped = Some(why);
        });
        let reason = match why {
            Skip::Condition => "condition",
            Skip::Branch => "branch",
        };
        let entry = self.told_of(key, "step_skipped");
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        entry.data.insert("reason".to_owned(), Value::from(reason));
        self.look_after(index);
    }

    fn reach(&mut self, index: StepIndex) -> Reach {
        let plan = self.plan();
        let step = &plan[index];
        if step.problem.is_some() {
            return Reach::Ready;
        }
        for gate in [self.chosen(step), self.needed(step)] {
            if gate != Reach::Ready {
                return gate;
            }
        }
        let last = ends_runs(plan, step);
        let ends: Vec<End> = step
            .depends_on
            .iter()
            .filter(|dependency| !step.handles.contains(dependency))
            .filter(|dependency| !last || ends_runs(plan, &plan[**dependency]))
            .map(|dependency| self.end_of(*dependency))
            .collect();
        let any = |end: End| ends.contains(&end);
        let all_branch = !ends.is_empty() && ends.iter().all(|end| *end == End::Branch);
        match step.step.dependency_policy {
            DependencyPolicy::AllSuccess => {
                if any(End::Badly) || any(End::Never) {
                    Reach::Never
                } else if any(End::Open) {
                    Reach::Wait
                } else if all_branch {
                    Reach::Skip
                } else {
                    Reach::Ready
                }
            }
            DependencyPolicy::AnySuccess => {
                if ends.is_empty() || any(End::Well) {
                    Reach::Ready
                } else if any(End::Open) {
                    Reach::Wait
                } else if all_branch {
                    Reach::Skip
                } else {
                    Reach::Never
                }
            }
            DependencyPolicy::AllDone if any(End::Open) => Reach::Wait,
            DependencyPolicy::AllDone => Reach::Ready,
            DependencyPolicy::OnFailure => {
                let failed = || {
                    step.depends_on.iter().any(|dependency| {
                        self.record(plan[*dependency].id())
                            .is_some_and(|record| record.status.is_terminal() && record.status != StepStatus::Succeeded)
                    })
                };
                if any(End::Open) {
                    Reach::Wait
                } else if failed() {
                    Reach::Ready
                } else if all_branch {
                    Reach::Skip
                } else {
                    Reach::Never
                }
            }
        }
    }

    /// Whether a `switch` that the step belongs to has chosen it.
    fn chosen(&mut self, step: &PlannedStep) -> Reach {
        let plan = self.plan();
        let mut reach = if step.chosen_by.is_empty() {
            Reach::Ready
        } else {
            Reach::Never
        };
        for switch in &step.chosen_by {
            let switch = *switch;
            match self.end_of(switch) {
                End::Well => {
                    let record = self.record(plan[switch].id());
                    let taken = record
                        .and_then(|record| record.output.as_ref()?.get("then")?.as_array())
                        .is_some_and(|then| then.iter().any(|id| id.as_str() == Some(step.key.as_str())));
                    if taken {
                        return Reach::Ready;
                    }
                    if reach == Reach::Never {
                        reach = Reach::Skip;
                    }
                }
                End::Branch if reach == Reach::Never => reach = Reach::Skip,
                End::Open => reach = Reach::Wait,
                End::Branch | End::Badly | End::Never => {}
            }
        }
        reach
    }

    /// Whether an error handler has something to handle.
    fn needed(&mut self, step: &PlannedStep) -> Reach {
        let plan = self.plan();
        let mut reach = if step.handles.is_empty() {
            Reach::Ready
        } else {
            Reach::Never
        };
        for guarded in &step.handles {
            let guarded = *guarded;
            let handled = self
                .record(plan[guarded].id())
                .is_some_and(|record| record.handled && record.status.is_terminal());
            if handled {
                return Reach::Ready;
            }
            match self.end_of(guarded) {
                End::Open => reach = Reach::Wait,
                End::Well | End::Branch if reach == Reach::Never => reach = Reach::Skip,
                _ => {}
            }
        }
        reach
    }

    fn end_of(&mut self, index: StepIndex) -> End {
        let step = &self.plan()[index];
        let Some(record) = self.record(step.id()) else {
            return if self.never_runs(index) { End::Never } else { End::Open };
        };
        match record.status {
            StepStatus::Pending | StepStatus::Running | StepStatus::Waiting => End::Open,
            StepStatus::Succeeded if record.skipped == Some(Skip::Branch) => End::Branch,
            StepStatus::Succeeded => End::Well,
            _ if step.step.continue_on_error && record.handled => End::Well,
            _ => End::Badly,
        }
    }

    /// Whether a step that was not begun never will be.
    fn never_runs(&mut self, index: StepIndex) -> bool {
        let count = self.plan.order.len();
        if self.never.len() != count {
            self.never = vec![false; count];
            // In topological order, so that what a step depends on is known before it.
            for index in &self.plan().order {
                let step = &self.plan()[*index];
                let touched = self.record(step.id()).is_some();
                self.never[index.get()] = if touched || ends_runs(self.plan, step) {
                    false
                } else if self.run.head.phase != Phase::Steps && !self.may_begin(*index) {
                    true
                } else {
                    self.reach(*index) == Reach::Never
                };
            }
        }
        self.never.get(index.get()).copied().unwrap_or_default()
    }

    /// Evaluates a unit's condition, once. The value of `condition` steps is their own business.
    pub(super) fn gate(&self, unit: &Unit<'_>) -> Result<bool, Failure> {
        if unit.spec.kind == StepKind::Condition {
            return Ok(true);
        }
        match compiled(unit.spec.condition.as_ref())? {
            Some(condition) => condition
                .test(&self.scope(unit))
                .map_err(|error| failure("expression", error.to_string())),
            None => Ok(true),
        }
    }

    /// Whether steps in flight may finish when the run fails.
    pub(super) fn waits_for_others(&self) -> bool {
        self.plan.workflow.on_failure == OnFailure::Wait
    }
}

/// Whether a step may begin when the run will not succeed.
fn follows_failure(step: &PlannedStep) -> bool {
    matches!(
        step.step.dependency_policy,
        DependencyPolicy::AllDone | DependencyPolicy::OnFailure
    )
}
