//! How runs end that do not succeed, and how all of them do (docs/spec/workflows.md §3.3–3.5).

use std::sync::Arc;

use serde_json::Value;

use super::{MAX_OUTPUT, Place, RunScope, SENDER, Unit, Work, compiled, failure, native};
use crate::expr::MAX_RESULT;
use crate::workflow::event::{Effect, Refusal};
use crate::workflow::model::Object;
use crate::workflow::plan::{PlannedStep, StepIndex};
use crate::workflow::run::{Failure, Phase, RunStatus, StepKey, StepStatus};

const RUN_FAILED: &str = "workflow run failed";
const RUN_CANCELLED: &str = "workflow run cancelled";
const RUN_TIMED_OUT: &str = "workflow run timed out";

impl<'a> Work<'a> {
    /// A step of the definition failed for good: somebody handles it, or the run will not succeed.
    pub(super) fn step_failed(&mut self, index: StepIndex, status: StepStatus, why: Failure) {
        let step = &self.plan()[index];
        let phase = self.run.head.phase;
        let goes_on = match phase {
            Phase::Steps => true,
            Phase::Finally => ends_runs(self.plan, step),
            Phase::Settling | Phase::Compensating => false,
        };
        let handler = step.on_error.filter(|_| goes_on);
        if handler.is_some() || step.step.continue_on_error {
            self.put(&step.key, |record| record.handled = true);
            if let Some(handler) = handler {
                self.look_at(handler);
            }
            return;
        }
        let mut why = why;
        why.step_id = step.id().to_owned();
        match phase {
            Phase::Steps => {
                let outcome = match status {
                    StepStatus::TimedOut => RunStatus::TimedOut,
                    _ => RunStatus::Failed,
                };
                let cancel = (!self.waits_for_others()).then_some(RUN_FAILED);
                self.settle(outcome, why, cancel);
            }
            Phase::Finally if self.run.head.outcome.is_none() => {
                self.run.head.outcome = Some(RunStatus::Failed);
                self.run.head.error = Some(why);
                self.changed();
            }
            Phase::Finally | Phase::Settling | Phase::Compensating => {}
        }
    }

    /// The run will not succeed.
    fn settle(&mut self, outcome: RunStatus, why: Failure, cancel: Option<&str>) {
        self.enter(Phase::Settling);
        self.run.head.outcome = Some(outcome);
        self.run.head.error = Some(why);
        if let Some(reason) = cancel {
            self.cancel_open(reason);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.run.head.phase = phase;
        self.never.clear();
        self.looked_at = None;
        self.look_at_all();
        self.changed();
    }

    pub(super) fn deadline_passed(&mut self) {
        self.run.head.paused = false;
        if self.run.head.outcome.is_some() {
            self.cancel_open(RUN_TIMED_OUT);
            return;
        }
        let seconds = self.plan.timeout.unwrap_or_default().as_secs_f64();
        let why = failure("timeout", format!("the run has not ended after {seconds} s"));
        self.settle(RunStatus::TimedOut, why, Some(RUN_TIMED_OUT));
    }

    pub(super) fn cancel(&mut self, by: &str, reason: &str) -> Result<(), Refusal> {
        let head = &self.run.head;
        match head.status {
            RunStatus::Cancelled => return Ok(()),
            status if status.is_terminal() => return Err(Refusal::RunEnded(status)),
            _ => {}
        }
        let again = head.outcome == Some(RunStatus::Cancelled);
        if again && by == SENDER {
            // A parent says it as often as it has to; only people mean more by the second time.
            return Ok(());
        }
        let reason = if reason.is_empty() { RUN_CANCELLED } else { reason };
        if by != SENDER {
            self.audit(by, "", "run.cancel", &[("reason", reason.into())]);
        }
        self.run.head.paused = false;
        // What ended while it was paused has not been looked at.
        self.look_at_all();
        self.changed();
        let why = failure("cancelled", reason);
        let begun = self.run.head.status != RunStatus::Pending;
        if !begun || again {
            self.run.head.outcome = Some(RunStatus::Cancelled);
            self.run.head.error.get_or_insert(why);
            self.cancel_open(reason);
            self.end_run();
            return Ok(());
        }
        match self.run.head.phase {
            Phase::Steps | Phase::Settling => self.settle(RunStatus::Cancelled, why, Some(reason)),
            Phase::Compensating | Phase::Finally => {
                self.run.head.outcome = Some(RunStatus::Cancelled);
                self.run.head.error = Some(why);
            }
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, by: &str) -> Result<(), Refusal> {
        let head = &self.run.head;
        if head.status.is_terminal() {
            return Err(Refusal::RunEnded(head.status));
        }
        if !head.paused {
            self.run.head.paused = true;
            self.audit(by, "", "run.pause", &[]);
            self.told("run_paused").data.insert("by".to_owned(), by.into());
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, by: &str) -> Result<(), Refusal> {
        let head = &self.run.head;
        if head.status.is_terminal() {
            return Err(Refusal::RunEnded(head.status));
        }
        if head.paused {
            self.run.head.paused = false;
            self.audit(by, "", "run.resume", &[]);
            self.told("run_resumed").data.insert("by".to_owned(), by.into());
            self.wake();
        }
        Ok(())
    }

    /// Cancels whatever is not over.
    fn cancel_open(&mut self, reason: &str) {
        let open: Vec<StepKey> = self
            .run
            .steps
            .iter()
            .filter(|(_, record)| !record.status.is_terminal())
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            self.cancel_record(&key, reason);
            if !self
                .unit(key.as_str())
                .is_some_and(|unit| matches!(unit.place, Place::Child(_)))
            {
                self.told_of(&key, "step_cancelled").status = StepStatus::Cancelled.as_str().to_owned();
            }
        }
        self.look_at_all();
    }

    /// Cancels one step or child, and what it waits for.
    pub(super) fn cancel_record(&mut self, key: &StepKey, reason: &str) {
        let Some(record) = self.record(key.as_str()) else {
            return;
        };
        if record.in_flight() {
            let (job, run) = (record.job_id.clone(), record.child_run.clone());
            if let Some(job) = job
                && !self.unsubmit(&job)
            {
                let reason = reason.to_owned();
                self.effect(Effect::CancelJob { job, reason });
            }
            if let Some(run) = run {
                let reason = reason.to_owned();
                self.effect(Effect::CancelChild { run, reason });
            }
        }
        let now = self.now;
        self.put(key, |record| {
            record.status = StepStatus::Cancelled;
            record.completed_at = Some(now);
            record.next_attempt_at = None;
            record.expires_at = None;
            if let Some(group) = &mut record.group {
                group.running = 0;
            }
        });
    }

    /// Nothing is left to wait for: what comes next.
    pub(super) fn next_phase(&mut self) {
        match self.run.head.phase {
            Phase::Steps => self.enter_finally(),
            Phase::Settling => {
                self.run.head.deadline_at = None;
                self.enter(Phase::Compensating);
                if self.to_undo().is_some() {
                    self.told("run_compensating");
                }
            }
            Phase::Compensating => match self.to_undo() {
                None => self.enter_finally(),
                Some(_) if self.budget == 0 => self.transition.more = true,
                Some(unit) => self.begin(&unit),
            },
            Phase::Finally => self.end_run(),
        }
    }

    fn enter_finally(&mut self) {
        self.run.head.deadline_at = None;
        self.enter(Phase::Finally);
    }

    /// What is undone next: of the steps that succeeded the one that did so last.
    fn to_undo(&self) -> Option<Unit<'a>> {
        let plan = self.plan();
        if !plan.compensates {
            return None;
        }
        let steps = plan.steps().iter().filter(|step| step.compensate.is_some());
        let done = steps.filter_map(|step| {
            let record = self.record(step.id())?;
            let done = record.status == StepStatus::Succeeded && record.skipped.is_none();
            let undone = self.run.steps.contains_key(&step.key.compensation());
            (done && !undone).then_some((record.ended_nth, step))
        });
        let (_, step) = done.max_by_key(|(nth, _)| *nth)?;
        self.unit(step.key.compensation().as_str())
    }

    fn end_run(&mut self) {
        let mut status = self.run.head.outcome.unwrap_or(RunStatus::Succeeded);
        if status == RunStatus::Succeeded {
            match self.output() {
                Ok(output) => self.run.head.output = output.map(Arc::new),
                Err(why) => {
                    status = RunStatus::Failed;
                    self.run.head.error = Some(why);
                }
            }
        }
        if status == RunStatus::Cancelled {
            self.cancel_untouched();
        }
        let now = self.now;
        let head = &mut self.run.head;
        head.status = status;
        head.completed_at = Some(now);
        head.deadline_at = None;
        self.queue.clear();
        self.transition.more = false;
        self.changed();
        if self.run.head.parent.is_some() {
            self.effect(Effect::TellParent);
        }
    }

    /// A cancelled run says of every step that it was.
    fn cancel_untouched(&mut self) {
        let now = self.now;
        for step in self.plan().steps() {
            if self.record(step.id()).is_none() {
                self.put(&step.key, |record| {
                    record.status = StepStatus::Cancelled;
                    record.completed_at = Some(now);
                });
            }
        }
    }

    /// What a run that succeeded comes to.
    fn output(&self) -> Result<Option<Value>, Failure> {
        let plan = self.plan();
        if let Some(template) = compiled(plan.output.as_ref())? {
            let scope = RunScope {
                plan,
                run: self.run,
                now: self.now,
                local: super::Local::default(),
            };
            let value = template
                .eval(&scope)
                .map_err(|error| failure("expression", format!("output: {error}")))?;
            return Ok(Some(value).filter(|value| !value.is_null()));
        }
        let of = |index: &StepIndex| -> Option<Value> {
            let step = &plan[*index];
            let record = self
                .record(step.id())
                .filter(|record| record.status == StepStatus::Succeeded)?;
            match &record.output {
                Some(output) => Some(Value::clone(output)),
                None if !record.result_ptr.is_empty() => Some(record.result_ptr.as_str().into()),
                None => super::outputs(plan, self.run, step.id()),
            }
        };
        let output = match plan.leaves.as_slice() {
            [] => None,
            [one] => of(one),
            several => {
                let all: Object = several
                    .iter()
                    .filter_map(|index| Some((plan[*index].id().to_owned(), of(index)?)))
                    .collect();
                (!all.is_empty()).then_some(Value::Object(all))
            }
        };
        // What nobody asked for is not kept at any price.
        Ok(output.filter(|output| native::size(output) <= MAX_RESULT.min(MAX_OUTPUT * 4)))
    }
}

/// Whether a step runs at the end: because it says so, or because it handles failures of such steps only.
pub(super) fn ends_runs(plan: &crate::workflow::plan::Plan, step: &PlannedStep) -> bool {
    let handles = || !step.handles.is_empty() && step.handles.iter().all(|index| plan[*index].step.finally);
    step.step.finally || handles()
}
