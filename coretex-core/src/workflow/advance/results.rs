//! How steps end: what jobs and child runs report, and what follows (docs/spec/workflows.md §4.1, §4.4, §5.1).

use std::sync::Arc;

use serde_json::Value;

use super::retry::Class;
use super::{Place, Unit, Work, compiled, failure};
use crate::jobs::JobState;
use crate::protocol::JobId;
use crate::workflow::event::{Fetched, JobEnded};
use crate::workflow::model::Object;
use crate::workflow::run::{Failure, RunId, RunStatus, StepKey, StepStatus};

impl<'a> Work<'a> {
    /// The step of this run that a job belongs to, by its id.
    pub(super) fn step_of(&self, job: &JobId) -> Option<StepKey> {
        let rest = job.as_str().strip_prefix(self.run.id.as_str())?.strip_prefix(':')?;
        let step = match rest.rsplit_once('@') {
            Some((step, _)) if !step.is_empty() => step,
            _ => rest,
        };
        Some(StepKey::new(step))
    }

    pub(super) fn job_ended(&mut self, job: &JobId, ended: &JobEnded) {
        let Some(unit) = self.step_of(job).and_then(|key| self.unit(key.as_str())) else {
            return;
        };
        let Some(record) = self.record(unit.key.as_str()) else {
            return;
        };
        if record.job_id.as_ref() != Some(job) || !ended.state.is_terminal() {
            return;
        }
        if record.status.is_terminal() {
            self.late_result(&unit, job, ended);
            return;
        }
        if record.status != StepStatus::Running {
            return;
        }
        self.news = true;
        self.add_cost(&ended.output);
        match ended.state {
            JobState::Succeeded => self.job_succeeded(&unit, job, ended),
            JobState::Cancelled => self.job_failed(&unit, job, ended, StepStatus::Cancelled, Class::Final),
            JobState::Timeout => self.job_failed(&unit, job, ended, StepStatus::TimedOut, Class::Timeout),
            JobState::Denied => self.job_failed(&unit, job, ended, StepStatus::Failed, Class::Denied),
            _ => self.job_failed(&unit, job, ended, StepStatus::Failed, Class::Failed),
        }
    }

    /// A job that was thought to be stopped says how it ended after all.
    fn late_result(&mut self, unit: &Unit<'a>, job: &JobId, ended: &JobEnded) {
        let told = self
            .record(unit.key.as_str())
            .is_none_or(|record| record.late || record.status != StepStatus::Cancelled);
        if told || ended.state == JobState::Cancelled {
            return;
        }
        let updated = self.run.head.updated_at;
        self.put(&unit.key, |record| record.late = true);
        self.run.head.updated_at = updated;
        let entry = self.told_of(&unit.key, "late_result");
        entry.job_id = job.to_string();
        entry.status = word(ended.state).to_owned();
        entry.result_ptr.clone_from(&ended.result_ptr);
        entry.message.clone_from(&ended.error_message);
    }

    fn job_succeeded(&mut self, unit: &Unit<'a>, job: &JobId, ended: &JobEnded) {
        let key = &unit.key;
        let checked = check_fetched(unit, ended);
        if let Err(why) = checked {
            if why.code == "foreign_pointer" {
                // It may not be kept: whoever reads it next might follow it.
                return self.attempt_failed(unit, StepStatus::Failed, Class::Final, why, Some((job, "")));
            }
            let entry = self.told_of(key, "step_output_invalid");
            entry.job_id = job.to_string();
            entry.message.clone_from(&why.message);
            entry.result_ptr.clone_from(&ended.result_ptr);
            self.put(key, |record| record.result_ptr.clone_from(&ended.result_ptr));
            return self.attempt_failed(
                unit,
                StepStatus::Failed,
                Class::Final,
                why,
                Some((job, &ended.result_ptr)),
            );
        }
        let output = match &ended.output {
            Fetched::Value(value) => Some(Arc::clone(value)),
            _ => None,
        };
        let entry = self.told_of(key, "step_completed");
        entry.job_id = job.to_string();
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        entry.result_ptr.clone_from(&ended.result_ptr);
        entry.message.clone_from(&ended.error_message);
        self.complete(unit, output, &ended.result_ptr);
    }

    fn job_failed(&mut self, unit: &Unit<'a>, job: &JobId, ended: &JobEnded, status: StepStatus, class: Class) {
        let code = match ended.error_code.as_str() {
            "" if ended.state == JobState::Cancelled => "cancelled",
            "" => class.word(),
            code => code,
        };
        let why = failure(code, ended.error_message.clone());
        self.attempt_failed(unit, status, class, why, Some((job, &ended.result_ptr)));
    }

    pub(super) fn child_ended(
        &mut self,
        step: &StepKey,
        run: &RunId,
        status: RunStatus,
        output: Option<&Arc<Value>>,
        error: Option<&Failure>,
        cost: f64,
    ) {
        let Some(unit) = self.waits_for_child(step, run) else {
            return;
        };
        if !status.is_terminal() {
            return;
        }
        self.news = true;
        if cost.is_finite() && cost > 0.0 {
            self.run.head.total_cost += cost;
        }
        let entry = self.told_of(step, "child_ended");
        entry.status = status.as_str().to_owned();
        entry.data.insert("run_id".to_owned(), run.as_str().into());
        let why = || {
            let mut why = error.cloned().unwrap_or_default();
            if why.code.is_empty() {
                why.code = match status {
                    RunStatus::TimedOut => "timeout",
                    RunStatus::Cancelled => "cancelled",
                    _ => "failed",
                }
                .to_owned();
            }
            if why.message.is_empty() {
                why.message = format!("run {run} is {}", status.as_str());
            }
            why.step_id = String::new();
            why
        };
        match status {
            RunStatus::Succeeded => {
                let checked = match output {
                    Some(output) => check_output(&unit, output),
                    None => check_output(&unit, &Value::Null),
                };
                match checked {
                    Ok(()) => self.complete(&unit, output.cloned(), ""),
                    Err(why) => self.attempt_failed(&unit, StepStatus::Failed, Class::Final, why, None),
                }
            }
            RunStatus::TimedOut => self.attempt_failed(&unit, StepStatus::TimedOut, Class::Timeout, why(), None),
            RunStatus::Cancelled => self.attempt_failed(&unit, StepStatus::Cancelled, Class::Final, why(), None),
            _ => self.attempt_failed(&unit, StepStatus::Failed, Class::Failed, why(), None),
        }
    }

    pub(super) fn child_refused(&mut self, step: &StepKey, run: &RunId, error: &Failure) {
        let Some(unit) = self.waits_for_child(step, run) else {
            return;
        };
        self.news = true;
        let mut why = error.clone();
        if why.code.is_empty() {
            why.code = "child_refused".to_owned();
        }
        why.step_id = String::new();
        self.attempt_failed(&unit, StepStatus::Failed, Class::Final, why, None);
    }

    fn waits_for_child(&self, step: &StepKey, run: &RunId) -> Option<Unit<'a>> {
        let record = self.record(step.as_str())?;
        let current = record.status == StepStatus::Running && record.child_run.as_ref() == Some(run);
        self.unit(step.as_str()).filter(|_| current)
    }

    /// What an ended job says that it cost.
    fn add_cost(&mut self, output: &Fetched) {
        let (Fetched::Value(value) | Fetched::TooLarge { value: Some(value), .. }) = output else {
            return;
        };
        let cost = value
            .get("cost")
            .and_then(Value::as_f64)
            .or_else(|| value.get("usage")?.get("cost")?.as_f64());
        if let Some(cost) = cost.filter(|cost| cost.is_finite() && *cost > 0.0) {
            self.run.head.total_cost += cost;
        }
    }

    /// A unit ended well.
    pub(super) fn succeed(&mut self, unit: &Unit<'a>, output: Option<Arc<Value>>) {
        self.complete(unit, output, "");
    }

    pub(super) fn complete(&mut self, unit: &Unit<'a>, output: Option<Arc<Value>>, result_ptr: &str) {
        let now = self.now;
        let nth = if unit.place == Place::Top {
            self.run.head.ended += 1;
            self.run.head.ended
        } else {
            0
        };
        let written = output.clone();
        self.put(&unit.key, |record| {
            record.status = StepStatus::Succeeded;
            record.completed_at = Some(now);
            record.next_attempt_at = None;
            record.expires_at = None;
            record.error = None;
            record.output = output;
            result_ptr.clone_into(&mut record.result_ptr);
            record.ended_nth = nth;
        });
        if unit.place == Place::Top && !unit.spec.step.output_path.trim().is_empty() {
            let value = match (written, result_ptr) {
                (Some(value), _) => Some(Arc::unwrap_or_clone(value)),
                (None, "") => super::outputs(self.plan, self.run, unit.key.as_str()),
                (None, pointer) => Some(pointer.into()),
            };
            if let Some(value) = value {
                let written = write(&mut self.run.context, &unit.spec.step.output_path, value);
                self.transition.context |= written;
            }
        }
        self.unit_ended(unit, true);
    }

    /// An attempt ended without success: there is another, or the unit fails for good.
    pub(super) fn attempt_failed(
        &mut self,
        unit: &Unit<'a>,
        status: StepStatus,
        class: Class,
        why: Failure,
        job: Option<(&JobId, &str)>,
    ) {
        if let Some(pause) = self.retry_after(unit, class, &why) {
            self.schedule_retry(unit, pause, why);
            return;
        }
        match job {
            Some((job, result_ptr)) => {
                let entry = self.told_of(&unit.key, "step_completed");
                entry.job_id = job.to_string();
                entry.status = status.as_str().to_owned();
                result_ptr.clone_into(&mut entry.result_ptr);
                // The reason of an output that does not fit was told right before.
                if !matches!(why.code.as_str(), "invalid_output" | "output_missing") {
                    entry.message.clone_from(&why.message);
                }
            }
            None => {
                let entry = self.told_of(&unit.key, "step_failed");
                entry.status = status.as_str().to_owned();
                entry.message.clone_from(&why.message);
                entry.data.insert("code".to_owned(), why.code.as_str().into());
            }
        }
        self.fail_told(unit, status, why);
    }

    /// A unit fails before anybody was asked to do it.
    pub(super) fn fail(&mut self, unit: &Unit<'a>, status: StepStatus, why: Failure) {
        self.attempt_failed(unit, status, Class::Final, why, None);
    }

    /// A unit fails for good, and that has been told.
    pub(super) fn fail_told(&mut self, unit: &Unit<'a>, status: StepStatus, why: Failure) {
        let now = self.now;
        let error = why.clone();
        self.put(&unit.key, |record| {
            record.status = status;
            record.completed_at = Some(now);
            record.next_attempt_at = None;
            record.expires_at = None;
            record.error = Some(error);
        });
        if unit.place == Place::Top {
            self.step_failed(unit.top, status, why);
        }
        self.unit_ended(unit, false);
    }

    /// Tells whoever waits for the unit.
    pub(super) fn unit_ended(&mut self, unit: &Unit<'a>, well: bool) {
        match unit.place {
            Place::Top => self.look_after(unit.top),
            Place::Child(_) => self.child_of_group_ended(unit.top, well),
            Place::Undo => {}
        }
    }
}

/// Writes a value to its place in a context; a path that cannot be is not written at all. Whether it was.
pub(crate) fn write(context: &mut Object, path: &str, value: Value) -> bool {
    let segments: Vec<&str> = path.split('.').map(str::trim).collect();
    let Some((last, before)) = segments.split_last() else {
        return false;
    };
    if segments.iter().any(|segment| segment.is_empty()) || segments[0] == "steps" {
        return false;
    }
    let mut place = context;
    for segment in before {
        let inner = place
            .entry((*segment).to_owned())
            .or_insert_with(|| Value::Object(Object::new()));
        if !inner.is_object() {
            *inner = Value::Object(Object::new());
        }
        let Value::Object(inner) = inner else {
            return false;
        };
        place = inner;
    }
    place.insert((*last).to_owned(), value);
    true
}

/// The word for how a job ended.
fn word(state: JobState) -> &'static str {
    match state {
        JobState::Succeeded => "succeeded",
        JobState::Cancelled => "cancelled",
        JobState::Timeout => "timed_out",
        JobState::Denied => "denied",
        _ => "failed",
    }
}

/// Whether what a worker returned may be taken.
fn check_fetched(unit: &Unit<'_>, ended: &JobEnded) -> Result<(), Failure> {
    let schema = match compiled(unit.spec.output_schema.as_ref()) {
        Ok(schema) => schema,
        Err(why) => return Err(failure("invalid_output", why.message)),
    };
    match (&ended.output, schema) {
        (Fetched::Foreign(why), _) => Err(failure("foreign_pointer", why.clone())),
        (_, None) => Ok(()),
        (Fetched::Value(value) | Fetched::TooLarge { value: Some(value), .. }, Some(_)) => check_output(unit, value),
        (_, Some(_)) => Err(failure(
            "output_missing",
            "the output cannot be read, and there is a schema for it",
        )),
    }
}

/// Whether an output fits its schema.
pub(super) fn check_output(unit: &Unit<'_>, value: &Value) -> Result<(), Failure> {
    let schema = compiled(unit.spec.output_schema.as_ref()).map_err(|why| failure("invalid_output", why.message))?;
    match schema {
        Some(schema) => schema
            .validate(value)
            .map_err(|invalid| failure("invalid_output", invalid.to_string())),
        None => Ok(()),
    }
}
