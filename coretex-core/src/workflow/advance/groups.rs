//! Steps with children: fan-outs, `parallel` and `loop` (docs/spec/workflows.md §2.2).
//!
//! The parent counts its children, so that the end of one costs the same however many there are.

use std::sync::Arc;

use serde_json::Value;

use super::scope::children;
use super::{Local, RunScope, Unit, Work, compiled, failure};
use crate::expr::Expr;
use crate::workflow::model::{DEFAULT_MAX_ITEMS, DEFAULT_MAX_ITERATIONS, StepKind, WaitFor};
use crate::workflow::plan::{Part, PlannedStep, StepIndex};
use crate::workflow::run::{Failure, Group, StepKey, StepStatus};

/// What the counters of a parent say.
enum Verdict {
    /// More may be begun.
    Go,
    /// It ended well.
    Well,
    /// Too much failed.
    Badly(Failure),
}

impl<'a> Work<'a> {
    pub(super) fn begin_fan_out(&mut self, unit: &Unit<'a>) {
        let items = match self.items(unit) {
            Ok(items) => items,
            Err(why) => {
                self.fail(unit, StepStatus::Failed, why);
                return;
            }
        };
        let total = u32::try_from(items.len()).unwrap_or(u32::MAX);
        self.run.items.insert(unit.key.clone(), Arc::new(items));
        self.transition.items.push(unit.key.clone());
        self.begin_group(unit, total);
    }

    /// The items of a fan-out, as they are from now on.
    fn items(&self, unit: &Unit<'a>) -> Result<Vec<Value>, Failure> {
        let Some(for_each) = compiled(unit.spec.for_each.as_ref())? else {
            return Ok(Vec::new());
        };
        let value = for_each
            .eval(&self.scope(unit))
            .map_err(|error| failure("expression", error.to_string()))?;
        let items = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            other => {
                let why = format!("for_each expression must return array, got {}", type_of(&other));
                return Err(failure("fan_out", why));
            }
        };
        let most = usize::try_from(unit.spec.step.max_items)
            .ok()
            .filter(|most| *most > 0)
            .unwrap_or(DEFAULT_MAX_ITEMS);
        if items.len() > most {
            return Err(failure(
                "fan_out",
                format!("{} items, at most {most} are allowed", items.len()),
            ));
        }
        Ok(items)
    }

    pub(super) fn begin_parallel(&mut self, unit: &Unit<'a>) {
        let total = u32::try_from(unit.spec.branches.len()).unwrap_or(u32::MAX);
        self.begin_group(unit, total);
    }

    pub(super) fn begin_loop(&mut self, unit: &Unit<'a>) {
        if unit.spec.body.is_none() {
            self.fail(
                unit,
                StepStatus::Failed,
                failure("invalid_definition", "a loop needs a `body`"),
            );
            return;
        }
        self.begin_group(unit, 0);
    }

    fn begin_group(&mut self, unit: &Unit<'a>, total: u32) {
        let now = self.now;
        // The timeout of a fan-out is that of each child.
        let expires = unit
            .spec
            .timeout
            .filter(|_| !unit.spec.fans_out)
            .map(|timeout| now.plus(timeout));
        self.put(&unit.key, |record| {
            record.status = StepStatus::Running;
            record.started_at = Some(now);
            record.expires_at = expires;
            record.group = Some(Group {
                total,
                ..Group::default()
            });
        });
        self.look_at(unit.top);
    }

    /// Ends a step with children if they say so, or begins as many more as may be.
    pub(super) fn drive_group(&mut self, index: StepIndex) {
        let step: &'a PlannedStep = &self.plan()[index];
        let unit = self.top(index);
        loop {
            let open = self.record(step.id()).filter(|record| !record.status.is_terminal());
            let Some(group) = open.and_then(|record| record.group.clone()) else {
                return;
            };
            match self.verdict(step, &group) {
                Verdict::Well => {
                    self.cancel_children(&step.key);
                    let output = match step.kind {
                        StepKind::Loop => self.round_output(&step.key, previous(&group)),
                        _ => None,
                    };
                    self.complete(&unit, output, "");
                    return;
                }
                Verdict::Badly(why) => {
                    if self.waits_for_others() && group.running > 0 {
                        return;
                    }
                    self.cancel_children(&step.key);
                    self.fail(&unit, StepStatus::Failed, why);
                    return;
                }
                Verdict::Go => {}
            }
            let Some((child, fresh)) = self.next_child(step, &group) else {
                return;
            };
            if self.budget == 0 {
                self.transition.more = true;
                return;
            }
            self.begin_child(index, child, fresh);
        }
    }

    fn verdict(&self, step: &PlannedStep, group: &Group) -> Verdict {
        if step.kind == StepKind::Loop && !step.fans_out {
            return self.loop_verdict(step, group);
        }
        let (needed, tolerated) = if step.fans_out {
            let tolerated = u32::try_from(step.step.tolerated_failures.max(0)).unwrap_or(u32::MAX);
            (group.total, tolerated)
        } else {
            let needed = match step.step.wait_for {
                WaitFor::All => group.total,
                WaitFor::Any => group.total.min(1),
                WaitFor::Count(count) => group.total.min(count),
            };
            (needed, group.total - needed)
        };
        if group.failed > tolerated {
            return Verdict::Badly(self.first_failure(&step.key));
        }
        if group.succeeded >= needed || group.succeeded + group.failed == group.total {
            return Verdict::Well;
        }
        Verdict::Go
    }

    fn loop_verdict(&self, step: &PlannedStep, group: &Group) -> Verdict {
        if group.failed > 0 {
            return Verdict::Badly(self.first_failure(&step.key));
        }
        if group.succeeded < group.next {
            return Verdict::Go;
        }
        let holds = |part: Option<&Part<Expr>>, index: u32| -> Result<Option<bool>, Failure> {
            let Some(expr) = compiled(part)? else {
                return Ok(None);
            };
            let local = Local {
                index: usize::try_from(index).ok(),
                last: self.round_output(&step.key, previous(group)),
                error: self.handled_failure(step),
                ..Local::default()
            };
            let scope = RunScope {
                plan: self.plan,
                run: self.run,
                now: self.now,
                local,
            };
            expr.test(&scope)
                .map(Some)
                .map_err(|error| failure("expression", error.to_string()))
        };
        let most = usize::try_from(step.step.max_iterations)
            .ok()
            .filter(|most| *most > 0)
            .unwrap_or(DEFAULT_MAX_ITERATIONS);
        let ask = || -> Result<Verdict, Failure> {
            let mut bounded = true;
            if group.next > 0 {
                match holds(step.until.as_ref(), group.next - 1)? {
                    Some(true) => return Ok(Verdict::Well),
                    Some(false) => bounded = false,
                    None => {}
                }
            }
            match holds(step.while_.as_ref(), group.next)? {
                Some(false) => return Ok(Verdict::Well),
                Some(true) => bounded = false,
                None => {}
            }
            if usize::try_from(group.next).unwrap_or(usize::MAX) < most {
                return Ok(Verdict::Go);
            }
            if bounded {
                return Ok(Verdict::Well);
            }
            Err(failure("loop_limit", format!("it has not ended after {most} rounds")))
        };
        ask().unwrap_or_else(Verdict::Badly)
    }

    /// The child to begin next, and whether it is new; `None` if there is none, or no place for it.
    fn next_child(&self, step: &PlannedStep, group: &Group) -> Option<(u32, bool)> {
        if !has_place(step, group) {
            return None;
        }
        let from = (step.key.clone(), 0);
        let to = (step.key.clone(), u32::MAX);
        if let Some((_, index)) = self.run.blocked.range(from..=to).next() {
            return Some((*index, false));
        }
        let more = if step.kind == StepKind::Loop && !step.fans_out {
            group.succeeded == group.next
        } else {
            group.next < group.total
        };
        more.then_some((group.next, true))
    }

    /// Another attempt of a child is due: begins it if there is a place for it.
    pub(super) fn child_due(&mut self, index: StepIndex, child: usize) {
        let step = &self.plan()[index];
        let Ok(child) = u32::try_from(child) else {
            return;
        };
        self.run.blocked.insert((step.key.clone(), child));
        self.look_at(index);
    }

    fn begin_child(&mut self, index: StepIndex, child: u32, fresh: bool) {
        let step = &self.plan()[index];
        let place = usize::try_from(child).unwrap_or(usize::MAX);
        let Some(unit) = self.child(index, place) else {
            return;
        };
        self.run.blocked.remove(&(step.key.clone(), child));
        self.put(&step.key, |record| {
            if let Some(group) = &mut record.group {
                group.running += 1;
                if fresh {
                    group.next = child + 1;
                    group.total = group.total.max(group.next);
                }
            }
        });
        if fresh && step.kind == StepKind::Loop && !step.fans_out {
            self.told_of(&step.key, "step_loop")
                .data
                .insert("index".to_owned(), child.into());
        }
        if fresh {
            self.begin(&unit);
        } else {
            self.begin_again(&unit);
        }
    }

    pub(super) fn child_of_group_ended(&mut self, parent: StepIndex, well: bool) {
        self.leave_group(parent, |group| {
            if well {
                group.succeeded += 1;
            } else {
                group.failed += 1;
            }
        });
    }

    /// A child waits for its next attempt, and leaves its place to others.
    pub(super) fn child_pauses(&mut self, parent: StepIndex) {
        self.leave_group(parent, |_| {});
    }

    fn leave_group(&mut self, parent: StepIndex, change: impl FnOnce(&mut Group)) {
        let key = &self.plan()[parent].key;
        let open = self
            .record(key.as_str())
            .is_some_and(|record| !record.status.is_terminal());
        if !open {
            return;
        }
        self.put(key, |record| {
            if let Some(group) = &mut record.group {
                group.running = group.running.saturating_sub(1);
                change(group);
            }
        });
        self.look_at(parent);
    }

    /// Cancels the children that have not ended.
    pub(super) fn cancel_children(&mut self, parent: &StepKey) {
        let group = self.record(parent.as_str()).and_then(|record| record.group.as_ref());
        if group.is_none_or(|group| group.succeeded + group.failed >= group.next) {
            return;
        }
        let open: Vec<StepKey> = children(self.run, parent.as_str())
            .filter(|(_, record)| !record.status.is_terminal())
            .map(|(index, _)| parent.child(index))
            .collect();
        for key in open {
            self.cancel_record(&key, "no longer needed");
        }
        self.put(parent, |record| {
            if let Some(group) = &mut record.group {
                group.running = 0;
            }
        });
    }

    /// Why the first child failed that did.
    fn first_failure(&self, parent: &StepKey) -> Failure {
        let first = children(self.run, parent.as_str())
            .filter(|(_, record)| record.status.is_terminal() && record.status != StepStatus::Succeeded)
            .min_by_key(|(index, record)| (record.completed_at, *index));
        let Some((index, record)) = first else {
            return failure("failed", "a child failed");
        };
        let why = record.error.clone().unwrap_or_default();
        failure(&why.code, format!("{}: {}", parent.child(index), why.message))
    }
}

/// Whether another child may be on its way.
fn has_place(step: &PlannedStep, group: &Group) -> bool {
    let most = match u32::try_from(step.step.max_parallel) {
        Ok(most) if most > 0 => most,
        _ => u32::MAX,
    };
    let most = if step.kind == StepKind::Loop && !step.fans_out {
        1
    } else {
        most
    };
    group.running < most
}

/// The round that ended last.
fn previous(group: &Group) -> Option<usize> {
    usize::try_from(group.next.checked_sub(1)?).ok()
}

/// The reference's words.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "map[string]interface {}",
    }
}
