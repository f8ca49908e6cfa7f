//! The engine: a run, what happened, the time → the run's next state and what follows from it.
//! See `docs/spec/workflows.md` §3–7.
//!
//! [`advance`] is the whole of it. It does no I/O, draws no random numbers and reads no clock, so that every replica comes to
//! the same answer, and a commit that lost a race is made again from the run as it is now. It costs what changes: neither the
//! definition nor the children of a fan-out are looked through for a result of one child.

mod dispatch;
mod failure;
mod groups;
mod native;
mod results;
mod retry;
mod schedule;
mod scope;
mod timeline;
mod waits;

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use dispatch::job_request;
pub(super) use results::write;
pub(crate) use scope::outputs;

use self::scope::{Local, RunScope};
use super::event::{Effect, Event, Refusal, Transition};
use super::model::StepKind;
use super::plan::{Part, Plan, PlannedStep, StepIndex};
use super::run::{Failure, Run, RunStatus, StepKey, StepRecord, StepStatus};
use crate::audit::AuditRecord;
use crate::protocol::JobId;
use crate::time::Timestamp;

/// How many jobs, child runs and computations one transition begins at most.
pub const MAX_DISPATCHES: usize = 500;
/// How much output is kept with a step, in bytes of JSON. What workers return above that is only pointed to.
pub const MAX_OUTPUT: usize = 256 * 1024;
/// How deep runs may start runs.
pub const MAX_DEPTH: u32 = 16;
/// How many signals that nobody waits for a run keeps.
pub const MAX_SIGNALS: usize = 100;
/// How many ids of signals a run remembers.
const MAX_SIGNAL_IDS: usize = 1_000;
/// When jobs in flight are compared with the job store after the last news.
const FIRST_CHECK: Duration = Duration::from_secs(5);
/// The longest pause between comparisons.
const LAST_CHECK: Duration = Duration::from_secs(3_600);
/// Who sends what the engine sends, and who cancels child runs.
pub const SENDER: &str = "workflow-engine";

/// Carries a run through one event.
///
/// A run at revision 0 is being created: its first transition always has something to write.
///
/// # Errors
/// [`Refusal`] if the event asks for something that cannot be done now. The run is as it was.
pub fn advance(plan: &Plan, run: &mut Run, event: &Event, now: Timestamp) -> Result<Transition, Refusal> {
    if run.head.definition.is_empty() {
        // The reference wrote it, and counted nothing.
        run.recount();
    }
    let mut work = Work {
        plan,
        before: run.head.status,
        run,
        now,
        transition: Transition::default(),
        touched: BTreeSet::new(),
        queue: BTreeSet::new(),
        budget: MAX_DISPATCHES,
        news: false,
        never: Vec::new(),
        puts: 0,
        looked_at: None,
    };
    work.take(event)?;
    Ok(work.finish())
}

/// One transition while it is being made.
struct Work<'a> {
    plan: &'a Plan,
    run: &'a mut Run,
    now: Timestamp,
    /// The run's status when it began.
    before: RunStatus,
    transition: Transition,
    /// The records that changed.
    touched: BTreeSet<StepKey>,
    /// Steps to look at, by their place in topological order.
    queue: BTreeSet<usize>,
    /// How much more may be begun.
    budget: usize,
    /// Something happened that puts off the comparison with the job store.
    news: bool,
    /// Which steps will never run, if that was asked since a record changed.
    never: Vec<bool>,
    /// Counts changes of records.
    puts: u64,
    /// That count when all steps were looked at.
    looked_at: Option<u64>,
}

/// A step, one of its children, or what undoes it.
#[derive(Debug, Clone)]
struct Unit<'a> {
    key: StepKey,
    /// The step of the definition.
    top: StepIndex,
    /// What is to be done.
    spec: &'a PlannedStep,
    place: Place,
}

/// Where a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A step of the definition.
    Top,
    /// A child: an item, a branch, a round.
    Child(usize),
    /// Undoes a step.
    Undo,
}

impl<'a> Work<'a> {
    fn take(&mut self, event: &Event) -> Result<(), Refusal> {
        if self.run.revision == 0 && self.run.head.status == RunStatus::Pending {
            self.told("run_created");
        }
        match event {
            Event::Wake => self.wake(),
            Event::JobEnded { job, ended } => self.job_ended(job, ended),
            Event::JobLost { job } => self.job_lost(job),
            Event::Checked => self.checked(),
            Event::ChildEnded {
                step,
                run,
                status,
                output,
                error,
                cost,
            } => self.child_ended(step, run, *status, output.as_ref(), error.as_ref(), *cost),
            Event::ChildRefused { step, run, error } => self.child_refused(step, run, error),
            Event::Vote { step, vote } => self.vote(step, vote)?,
            Event::Form { step, value, by, role } => self.form(step, value, by, role)?,
            Event::Signal { name, payload, id, by } => self.signal(name, payload, id, by)?,
            Event::Cancel { by, reason } => self.cancel(by, reason)?,
            Event::Pause { by } => self.pause(by)?,
            Event::Resume { by } => self.resume(by)?,
            Event::Done(done) => self.done(done),
        }
        Ok(())
    }

    fn finish(mut self) -> Transition {
        self.go_on();
        if !self.transition.changed {
            return self.transition;
        }
        let head = &mut self.run.head;
        if head.definition.is_empty() {
            head.definition.clone_from(&self.plan.hash);
        }
        if !head.status.is_terminal() && head.status != RunStatus::Pending {
            head.status = if head.waiting > 0 {
                RunStatus::Waiting
            } else {
                RunStatus::Running
            };
        }
        if head.status.is_terminal() || head.in_flight == 0 {
            head.check_at = None;
            head.checks = 0;
        } else if self.news || head.check_at.is_none() {
            head.check_at = Some(self.now.plus(FIRST_CHECK));
            head.checks = 0;
        }
        if head.status != self.before {
            self.tell_status();
        }
        self.transition.steps = self
            .touched
            .iter()
            .filter_map(|key| Some((key.clone(), self.run.steps.get(key)?.clone())))
            .collect();
        self.transition
    }

    /// Effects that were carried out are forgotten.
    fn done(&mut self, done: &[u64]) {
        for id in done {
            if self.run.outbox.remove(id).is_some() {
                self.transition.done.push(*id);
                self.transition.changed = true;
            }
        }
    }

    /// The jobs in flight were under way: the next comparison is later.
    fn checked(&mut self) {
        let head = &mut self.run.head;
        if head.status.is_terminal() || head.in_flight == 0 || head.check_at.is_none_or(|at| at > self.now) {
            return;
        }
        head.checks = head.checks.saturating_add(1);
        let pause = FIRST_CHECK
            .saturating_mul(1u32.checked_shl(head.checks).unwrap_or(u32::MAX))
            .min(LAST_CHECK);
        head.check_at = Some(self.now.plus(pause));
        self.transition.changed = true;
    }

    // === what changes the run ===

    fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Something other than bookkeeping changed.
    fn changed(&mut self) {
        self.transition.changed = true;
        self.run.head.updated_at = self.now;
    }

    fn record(&self, key: &str) -> Option<&StepRecord> {
        self.run.steps.get(key)
    }

    /// The only way to change a record: counters and timers follow.
    fn put(&mut self, key: &StepKey, change: impl FnOnce(&mut StepRecord)) {
        let mut record = match self.run.steps.remove(key) {
            Some(record) => {
                self.count(&record, false);
                if !record.status.is_terminal() {
                    for at in [record.next_attempt_at, record.expires_at].into_iter().flatten() {
                        self.run.timers.remove(&(at, key.clone()));
                    }
                }
                record
            }
            None => StepRecord::default(),
        };
        change(&mut record);
        self.count(&record, true);
        if !record.status.is_terminal() {
            for at in [record.next_attempt_at, record.expires_at].into_iter().flatten() {
                self.run.timers.insert((at, key.clone()));
            }
        }
        if !self.run.blocked.is_empty()
            && let Some((parent, index)) = key.parent()
        {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.run.blocked.remove(&(StepKey::new(parent), index));
        }
        self.run.steps.insert(key.clone(), record);
        self.touched.insert(key.clone());
        self.never.clear();
        self.puts += 1;
        self.changed();
    }

    fn count(&mut self, record: &StepRecord, add: bool) {
        let head = &mut self.run.head;
        let step = |n: &mut u32, counts: bool| {
            if counts {
                *n = if add { n.saturating_add(1) } else { n.saturating_sub(1) };
            }
        };
        step(&mut head.open, !record.status.is_terminal());
        step(&mut head.waiting, record.status == StepStatus::Waiting);
        step(&mut head.in_flight, record.in_flight());
    }

    fn effect(&mut self, effect: Effect) {
        let id = self.run.head.next_effect;
        self.run.head.next_effect += 1;
        self.run.outbox.insert(id, effect.clone());
        self.transition.effects.insert(id, effect);
        self.changed();
    }

    /// Takes back the submission of a job that is not committed yet. Whether there was one.
    fn unsubmit(&mut self, job: &JobId) -> bool {
        let found = self.transition.effects.iter().find_map(|(id, effect)| match effect {
            Effect::Submit { job: other, .. } if other == job => Some(*id),
            _ => None,
        });
        let Some(id) = found else {
            return false;
        };
        self.transition.effects.remove(&id);
        self.run.outbox.remove(&id);
        self.transition.payloads.retain(|(other, _)| other != job);
        true
    }

    /// Notes who did what, with an id that the same transition would make again.
    fn audit(&mut self, by: &str, role: &str, action: &str, detail: &[(&str, Value)]) {
        let mut record = AuditRecord::new(self.now, by, role, action, self.run.id.as_str());
        record.id = format!(
            "wf:{}:{}:{}",
            self.run.id,
            self.run.revision,
            self.transition.audit.len()
        );
        record.detail = detail
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        self.transition.audit.push(record);
    }

    // === units and scopes ===

    fn top(&self, index: StepIndex) -> Unit<'a> {
        let step = &self.plan()[index];
        Unit {
            key: step.key.clone(),
            top: index,
            spec: step,
            place: Place::Top,
        }
    }

    /// The child of a step, whether it has been begun or not.
    fn child(&self, parent: StepIndex, index: usize) -> Option<Unit<'a>> {
        let step = &self.plan()[parent];
        let spec = match step.kind {
            _ if step.fans_out => step,
            StepKind::Loop => step.body.as_deref()?,
            _ => step.branches.get(index)?,
        };
        Some(Unit {
            key: step.key.child(index),
            top: parent,
            spec,
            place: Place::Child(index),
        })
    }

    /// What a key of a record names, if the definition has it.
    fn unit(&self, key: &str) -> Option<Unit<'a>> {
        let plan = self.plan();
        if let Some(index) = plan.index(key) {
            return Some(self.top(index));
        }
        let key = StepKey::new(key);
        if let Some(id) = key.undoes() {
            let top = plan.index(id)?;
            let spec = plan[top].compensate.as_deref()?;
            return Some(Unit {
                key,
                top,
                spec,
                place: Place::Undo,
            });
        }
        let (parent, index) = key.parent()?;
        self.child(plan.index(parent)?, index)
    }

    /// Looks at a step before the transition is over.
    fn look_at(&mut self, index: StepIndex) {
        self.queue.insert(self.plan.rank(index));
    }

    /// The scope of a unit's expressions.
    fn scope(&self, unit: &Unit<'a>) -> RunScope<'_> {
        let mut local = Local::default();
        let step = &self.plan()[unit.top];
        if let Place::Child(index) = unit.place {
            local.index = Some(index);
            if let Some(items) = self.run.items.get(&step.key) {
                local.item = items.get(index).filter(|item| !item.is_null());
                local.total = Some(items.len());
            } else if step.kind == StepKind::Loop {
                local.last = self.round_output(&step.key, index.checked_sub(1));
            } else {
                local.total = Some(step.branches.len());
            }
        }
        local.error = self.handled_failure(step);
        RunScope {
            plan: self.plan,
            run: self.run,
            now: self.now,
            local,
        }
    }

    /// What a round of a loop came to.
    fn round_output(&self, key: &StepKey, round: Option<usize>) -> Option<Arc<Value>> {
        self.record(key.child(round?).as_str())?.output.clone()
    }

    /// The failure that a step was reached for, if it is an error handler.
    fn handled_failure(&self, step: &PlannedStep) -> Option<Failure> {
        step.handles
            .iter()
            .filter_map(|index| {
                let guarded = &self.plan()[*index];
                let record = self.record(guarded.id()).filter(|record| record.handled)?;
                let mut failure = record.error.clone().unwrap_or_default();
                failure.step_id = guarded.key.to_string();
                Some((record.completed_at, failure))
            })
            .min_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, failure)| failure)
    }
}

/// A failure of one of our own kinds (docs/spec/workflows.md §5.3).
fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        code: code.to_owned(),
        message: message.into(),
        step_id: String::new(),
    }
}

/// A compiled part of a definition, if it has it. A part that does not compile fails what needs it.
fn compiled<T>(part: Option<&Part<T>>) -> Result<Option<&T>, Failure> {
    match part {
        None => Ok(None),
        Some(Ok(part)) => Ok(Some(part)),
        Some(Err(why)) => Err(failure("expression", why.clone())),
    }
}
