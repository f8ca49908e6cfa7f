//! Steps that wait for people, signals and the clock (docs/spec/workflows.md §2.2).

use std::sync::Arc;

use serde_json::Value;

use super::results::check_output;
use super::retry::Class;
use super::scope::children;
use super::{MAX_OUTPUT, MAX_SIGNAL_IDS, MAX_SIGNALS, Place, Unit, Work, compiled, failure, native};
use crate::workflow::event::{Effect, Refusal};
use crate::workflow::model::{OnExpiry, StepKind};
use crate::workflow::run::{Failure, PendingSignal, StepKey, StepStatus, StepVote};

impl<'a> Work<'a> {
    pub(super) fn begin_approval(&mut self, unit: &Unit<'a>) {
        self.begin_question(unit, "approval requested");
    }

    pub(super) fn begin_input(&mut self, unit: &Unit<'a>) {
        self.begin_question(unit, "input requested");
    }

    fn begin_question(&mut self, unit: &Unit<'a>, message: &str) {
        let prompt = match compiled(unit.spec.prompt.as_ref()) {
            Ok(None) => Ok(String::new()),
            Ok(Some(template)) => self.text(unit, template),
            Err(why) => Err(why),
        };
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(why) => {
                self.fail(unit, StepStatus::Failed, why);
                return;
            }
        };
        self.begin_wait(unit, StepStatus::Waiting, prompt);
        let entry = self.told_of(&unit.key, "step_waiting");
        entry.status = StepStatus::Waiting.as_str().to_owned();
        entry.message = message.to_owned();
    }

    fn begin_wait(&mut self, unit: &Unit<'a>, status: StepStatus, prompt: String) {
        let now = self.now;
        let expires = unit.spec.timeout.map(|timeout| now.plus(timeout));
        self.put(&unit.key, |record| {
            record.status = status;
            record.started_at = Some(now);
            record.expires_at = expires;
            record.prompt = prompt;
        });
    }

    pub(super) fn begin_signal(&mut self, unit: &Unit<'a>) {
        self.begin_wait(unit, StepStatus::Running, String::new());
        let name = unit.spec.signal.as_str();
        let entry = self.told_of(&unit.key, "step_waiting");
        entry.status = StepStatus::Running.as_str().to_owned();
        entry.message = format!("waiting for signal {name}");
        // One that came early; those that do not fit are of no use to anybody.
        while let Some(at) = self.run.head.signals.iter().position(|signal| signal.name == name) {
            let signal = self.run.head.signals.remove(at);
            self.changed();
            if check_output(unit, &signal.payload).is_ok() {
                self.signalled(unit, signal.payload);
                return;
            }
        }
    }

    /// The waiting step that a vote or form is for.
    fn waiting(&self, step: &StepKey, kind: StepKind) -> Result<Unit<'a>, Refusal> {
        if self.run.head.status.is_terminal() {
            return Err(Refusal::RunEnded(self.run.head.status));
        }
        let unit = self.unit(step.as_str()).ok_or(Refusal::StepNotFound)?;
        let record = self.record(step.as_str()).ok_or(Refusal::StepNotFound)?;
        if record.status != StepStatus::Waiting || unit.spec.kind != kind {
            return Err(Refusal::StepNotWaiting);
        }
        Ok(unit)
    }

    pub(super) fn vote(&mut self, step: &StepKey, vote: &StepVote) -> Result<(), Refusal> {
        let unit = self.waiting(step, StepKind::Approval)?;
        let rule = unit.spec.step.approval.clone().unwrap_or_default();
        check_role(&rule.roles, &vote.role)?;
        let quorum = rule.quorum.max(1);
        if quorum > 1 && vote.by.is_empty() {
            return Err(Refusal::Anonymous(quorum));
        }
        let votes = self.record(step.as_str()).map_or(&[][..], |record| &record.votes);
        if !vote.by.is_empty() && votes.iter().any(|other| other.by == vote.by) {
            return Err(Refusal::AlreadyVoted(vote.by.clone()));
        }
        let in_favour = votes.iter().filter(|vote| vote.approved).count() + usize::from(vote.approved);
        self.put(step, |record| record.votes.push(vote.clone()));
        let detail = [
            ("step", step.as_str().into()),
            ("approved", vote.approved.into()),
            ("reason", vote.reason.as_str().into()),
            ("note", vote.note.as_str().into()),
        ];
        self.audit(&vote.by, &vote.role, "workflow.vote", &detail);
        let decided = !vote.approved || i64::try_from(in_favour).is_ok_and(|votes| votes >= quorum);
        let status = match (vote.approved, decided) {
            (false, _) => StepStatus::Failed,
            (true, true) => StepStatus::Succeeded,
            (true, false) => StepStatus::Waiting,
        };
        let entry = self.told_of(
            step,
            if vote.approved {
                "step_approved"
            } else {
                "step_rejected"
            },
        );
        entry.status = status.as_str().to_owned();
        entry.message.clone_from(&vote.reason);
        if !vote.by.is_empty() {
            entry.data.insert("by".to_owned(), vote.by.as_str().into());
        }
        if quorum > 1 {
            entry.data.insert("votes".to_owned(), in_favour.into());
            entry.data.insert("quorum".to_owned(), quorum.into());
        }
        match status {
            StepStatus::Succeeded => self.succeed(&unit, None),
            StepStatus::Failed => self.fail_told(&unit, StepStatus::Failed, rejected(&vote.by, &vote.reason)),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn form(&mut self, step: &StepKey, value: &Arc<Value>, by: &str, role: &str) -> Result<(), Refusal> {
        let unit = self.waiting(step, StepKind::Input)?;
        if let Some(rule) = &unit.spec.step.approval {
            check_role(&rule.roles, role)?;
        }
        check_form(&unit, value)?;
        self.audit(by, role, "workflow.input", &[("step", step.as_str().into())]);
        let entry = self.told_of(step, "step_input_received");
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        if !by.is_empty() {
            entry.data.insert("by".to_owned(), by.into());
        }
        self.succeed(&unit, Some(Arc::clone(value)));
        Ok(())
    }

    pub(super) fn signal(&mut self, name: &str, payload: &Arc<Value>, id: &str, by: &str) -> Result<(), Refusal> {
        if self.run.head.status.is_terminal() {
            return Err(Refusal::RunEnded(self.run.head.status));
        }
        if !id.is_empty() && self.run.head.signal_ids.iter().any(|known| known == id) {
            return Ok(());
        }
        if native::size(payload) > MAX_OUTPUT {
            return Err(Refusal::Form(vec![format!("more than {MAX_OUTPUT} bytes")]));
        }
        let taker = self.waits_for_signal(name);
        match &taker {
            Some(unit) => check_form(unit, payload)?,
            None if self.run.head.signals.len() >= MAX_SIGNALS => return Err(Refusal::TooManySignals(MAX_SIGNALS)),
            None => {}
        }
        if !id.is_empty() {
            let ids = &mut self.run.head.signal_ids;
            if ids.len() >= MAX_SIGNAL_IDS {
                ids.remove(0);
            }
            ids.push(id.to_owned());
        }
        self.audit(by, "", "run.signal", &[("signal", name.into())]);
        let entry = self.told("signal_received");
        entry.data.insert("signal".to_owned(), name.into());
        if !by.is_empty() {
            entry.data.insert("by".to_owned(), by.into());
        }
        match taker {
            Some(unit) => self.signalled(&unit, Arc::clone(payload)),
            None => self.run.head.signals.push(PendingSignal {
                name: name.to_owned(),
                payload: Arc::clone(payload),
            }),
        }
        Ok(())
    }

    fn signalled(&mut self, unit: &Unit<'a>, payload: Arc<Value>) {
        let entry = self.told_of(&unit.key, "step_signalled");
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        entry.data.insert("signal".to_owned(), unit.spec.signal.as_str().into());
        self.succeed(unit, Some(payload));
    }

    /// The step that has waited longest for a signal of that name.
    fn waits_for_signal(&self, name: &str) -> Option<Unit<'a>> {
        let waits = |unit: &Unit<'a>| unit.spec.kind == StepKind::Signal && unit.spec.signal == name;
        let mut found: Vec<Unit<'a>> = Vec::new();
        for step in self.plan().steps() {
            let top = self.top(step.index);
            if step.fans_out || step.body.is_some() || !step.branches.is_empty() {
                let open = children(self.run, step.id()).filter(|(_, record)| record.status == StepStatus::Running);
                let units = open
                    .filter_map(|(index, _)| self.child(step.index, index))
                    .filter(waits);
                found.extend(units.min_by_key(|unit| (self.since(unit), order(unit))));
            } else if waits(&top) {
                found.push(top);
            }
            if step.compensate.is_some() {
                found.extend(self.unit(step.key.compensation().as_str()).filter(waits));
            }
        }
        found
            .into_iter()
            .filter(|unit| {
                self.record(unit.key.as_str())
                    .is_some_and(|record| record.status == StepStatus::Running)
            })
            .min_by_key(|unit| (self.since(unit), unit.key.clone(), order(unit)))
    }

    fn since(&self, unit: &Unit<'a>) -> Option<crate::time::Timestamp> {
        self.record(unit.key.as_str())?.started_at
    }

    /// What is due: delays end, attempts begin, waits expire.
    pub(super) fn fire_timers(&mut self) {
        loop {
            let head = &self.run.head;
            if head.status.is_terminal() || head.paused {
                return;
            }
            let Some((at, key)) = self.run.timers.first().filter(|(at, _)| *at <= self.now).cloned() else {
                return;
            };
            if self.budget == 0 {
                self.transition.more = true;
                return;
            }
            self.run.timers.remove(&(at, key.clone()));
            let (Some(unit), Some(record)) = (self.unit(key.as_str()), self.record(key.as_str())) else {
                continue;
            };
            if record.status == StepStatus::Pending {
                match unit.place {
                    Place::Child(index) => self.child_due(unit.top, index),
                    Place::Top | Place::Undo => self.begin_again(&unit),
                }
            } else if record.expires_at == Some(at) {
                self.expire(&unit);
            } else if unit.spec.kind == StepKind::Delay {
                self.delay_completed(&unit);
            }
        }
    }

    /// Another attempt. The condition was asked when the step was reached.
    pub(super) fn begin_again(&mut self, unit: &Unit<'a>) {
        self.budget = self.budget.saturating_sub(1);
        match unit.spec.kind {
            StepKind::Subworkflow => self.begin_subworkflow(unit),
            _ => self.begin_job(unit),
        }
    }

    fn expire(&mut self, unit: &Unit<'a>) {
        let spec = unit.spec;
        let action = match spec.kind {
            StepKind::Approval => spec
                .step
                .approval
                .as_ref()
                .map_or(OnExpiry::Fail, |rule| rule.on_expiry),
            _ => OnExpiry::Fail,
        };
        let (status, word) = match action {
            OnExpiry::Fail => (StepStatus::TimedOut, "fail"),
            OnExpiry::Reject => (StepStatus::Failed, "reject"),
            OnExpiry::Approve => (StepStatus::Succeeded, "approve"),
        };
        let entry = self.told_of(&unit.key, "step_expired");
        entry.status = status.as_str().to_owned();
        entry.data.insert("action".to_owned(), word.into());
        match action {
            OnExpiry::Approve => self.succeed(unit, None),
            OnExpiry::Reject => self.fail_told(unit, status, rejected("", "nobody answered in time")),
            OnExpiry::Fail => {
                let seconds = spec.timeout.unwrap_or_default().as_secs_f64();
                let why = failure("timeout", format!("not done after {seconds} s"));
                self.timed_out(unit, why);
            }
        }
    }

    fn timed_out(&mut self, unit: &Unit<'a>, why: Failure) {
        let child = self
            .record(unit.key.as_str())
            .and_then(|record| record.child_run.clone());
        if unit.spec.kind == StepKind::Subworkflow
            && let Some(run) = child
        {
            self.effect(Effect::CancelChild {
                run,
                reason: "step timed out".to_owned(),
            });
            self.attempt_failed(unit, StepStatus::TimedOut, Class::Timeout, why, None);
            return;
        }
        self.cancel_children(&unit.key);
        self.fail_told(unit, StepStatus::TimedOut, why);
    }
}

/// Children in their order.
fn order(unit: &Unit<'_>) -> usize {
    match unit.place {
        Place::Child(index) => index,
        Place::Top | Place::Undo => 0,
    }
}

fn rejected(by: &str, reason: &str) -> Failure {
    let message = match (by, reason) {
        ("", "") => "rejected".to_owned(),
        ("", reason) => reason.to_owned(),
        (by, "") => format!("rejected by {by}"),
        (by, reason) => format!("rejected by {by}: {reason}"),
    };
    failure("rejected", message)
}

fn check_role(needed: &[String], given: &str) -> Result<(), Refusal> {
    if needed.is_empty() || needed.iter().any(|role| role == given) {
        return Ok(());
    }
    Err(Refusal::Role {
        given: given.to_owned(),
        needed: needed.to_vec(),
    })
}

/// Whether what people or others sent fits the step that waits for it.
fn check_form(unit: &Unit<'_>, value: &Value) -> Result<(), Refusal> {
    if native::size(value) > MAX_OUTPUT {
        return Err(Refusal::Form(vec![format!("more than {MAX_OUTPUT} bytes")]));
    }
    let problems = match &unit.spec.output_schema {
        None => Vec::new(),
        Some(Ok(schema)) => schema.problems(value),
        Some(Err(why)) => vec![why.clone()],
    };
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Form(problems))
    }
}
