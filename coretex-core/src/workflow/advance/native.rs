//! Steps that end where they begin, or wait for nothing but the time (docs/spec/workflows.md §2.2).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{MAX_OUTPUT, Place, Unit, Work, compiled, failure};
use crate::expr::Template;
use crate::time::Timestamp;
use crate::workflow::event::Effect;
use crate::workflow::model::{Object, StepKind};
use crate::workflow::run::{Failure, Skip, StepStatus};

impl<'a> Work<'a> {
    /// Begins a unit that has no children: a step, a child of one, or what undoes one.
    pub(super) fn begin(&mut self, unit: &Unit<'a>) {
        self.budget = self.budget.saturating_sub(1);
        if unit.place != Place::Top {
            match self.gate(unit) {
                Ok(true) => {}
                Ok(false) => {
                    self.skip_unit(unit);
                    return;
                }
                Err(why) => {
                    self.fail(unit, StepStatus::Failed, why);
                    return;
                }
            }
        }
        match unit.spec.kind {
            StepKind::Condition => self.begin_condition(unit),
            StepKind::Approval => self.begin_approval(unit),
            StepKind::Input => self.begin_input(unit),
            StepKind::Signal => self.begin_signal(unit),
            StepKind::Delay => self.begin_delay(unit),
            StepKind::Notify => self.begin_notify(unit),
            StepKind::Transform => self.begin_transform(unit),
            StepKind::Subworkflow => self.begin_subworkflow(unit),
            StepKind::Job => self.begin_job(unit),
            // Refused within other steps, and begun elsewhere at the top.
            StepKind::Switch | StepKind::Parallel | StepKind::Loop => {
                let why = failure(
                    "invalid_definition",
                    "steps with steps in them cannot stand in other steps",
                );
                self.fail(unit, StepStatus::Failed, why);
            }
        }
    }

    /// A child or compensation whose condition does not hold.
    fn skip_unit(&mut self, unit: &Unit<'a>) {
        let now = self.now;
        self.put(&unit.key, |record| {
            record.status = StepStatus::Succeeded;
            record.started_at = Some(now);
            record.completed_at = Some(now);
            record.skipped = Some(Skip::Condition);
        });
        self.unit_ended(unit, true);
    }

    fn begin_condition(&mut self, unit: &Unit<'a>) {
        let now = self.now;
        self.put(&unit.key, |record| record.started_at = Some(now));
        let outcome = match compiled(unit.spec.condition.as_ref()) {
            Ok(None) => Err(failure("expression", "condition expression required")),
            Ok(Some(condition)) => condition
                .test(&self.scope(unit))
                .map_err(|error| failure("expression", error.to_string())),
            Err(why) => Err(why),
        };
        let outcome = outcome.and_then(|holds| {
            let value = Value::Bool(holds);
            super::results::check_output(unit, &value)?;
            Ok(value)
        });
        match outcome {
            Ok(value) => {
                self.told_of(&unit.key, "step_condition_evaluated")
                    .data
                    .insert("value".to_owned(), value.clone());
                self.succeed(unit, Some(Arc::new(value)));
            }
            Err(why) => {
                self.told_of(&unit.key, "step_condition_failed").message = why.message.clone();
                self.fail_told(unit, StepStatus::Failed, why);
            }
        }
    }

    fn begin_delay(&mut self, unit: &Unit<'a>) {
        let now = self.now;
        let until = match self.delay_end(unit) {
            Ok(until) => until,
            Err(why) => {
                self.told_of(&unit.key, "step_delay_failed").message = why.message.clone();
                self.fail_told(unit, StepStatus::Failed, why);
                return;
            }
        };
        self.put(&unit.key, |record| {
            record.status = StepStatus::Running;
            record.started_at = Some(now);
            record.next_attempt_at = Some(until).filter(|until| *until > now);
        });
        if until <= now {
            self.delay_completed(unit);
            return;
        }
        let entry = self.told_of(&unit.key, "step_delay_started");
        entry.status = StepStatus::Running.as_str().to_owned();
        entry.message = "delay started".to_owned();
        let pause = until.since(now).as_millis();
        entry
            .data
            .insert("delay_ms".to_owned(), u64::try_from(pause).unwrap_or(u64::MAX).into());
    }

    pub(super) fn delay_completed(&mut self, unit: &Unit<'a>) {
        let entry = self.told_of(&unit.key, "step_delay_completed");
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        entry.message = "delay completed".to_owned();
        self.succeed(unit, None);
    }

    /// When a delay is over: the first of its members that is set says so.
    fn delay_end(&self, unit: &Unit<'a>) -> Result<Timestamp, Failure> {
        let step = &unit.spec.step;
        if step.delay_ms < 0 {
            return Err(failure("expression", "delay_ms must be non-negative"));
        }
        if step.delay_sec < 0 {
            return Err(failure("expression", "delay_sec must be non-negative"));
        }
        if step.delay_ms > 0 {
            return Ok(self.now.plus(Duration::from_millis(step.delay_ms.unsigned_abs())));
        }
        if step.delay_sec > 0 {
            return Ok(self.now.plus(Duration::from_secs(step.delay_sec.unsigned_abs())));
        }
        if let Some(until) = compiled(unit.spec.delay_until.as_ref())? {
            let text = self.text(unit, until)?;
            let text = text.trim();
            if !text.is_empty() {
                return text
                    .parse::<jiff::Timestamp>()
                    .map(|until| Timestamp::from_micros(until.as_microsecond()))
                    .map_err(|error| {
                        let why = format!("invalid delay_until: parsing time \"{text}\": {error}");
                        failure("expression", why)
                    });
            }
        }
        Ok(unit.spec.timeout.map_or(self.now, |timeout| self.now.plus(timeout)))
    }

    fn begin_notify(&mut self, unit: &Unit<'a>) {
        let payload = match compiled(unit.spec.input.as_ref()) {
            Ok(None) => Ok(Value::Object(Object::new())),
            Ok(Some(template)) => self.value(unit, template),
            Err(why) => Err(why),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(why) => {
                self.told_of(&unit.key, "step_event_failed").message = why.message.clone();
                self.fail_told(unit, StepStatus::Failed, why);
                return;
            }
        };
        let text = |name: &str| {
            payload
                .get(name)
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|text| !text.is_empty())
        };
        let step = &unit.spec.step;
        let named = if step.name.trim().is_empty() {
            unit.key.as_str()
        } else {
            step.name.as_str()
        };
        let message = text("message").unwrap_or(named).to_owned();
        let alert = Effect::Alert {
            step: unit.key.clone(),
            level: text("level").unwrap_or("INFO").to_uppercase(),
            message: message.clone(),
            code: text("code").unwrap_or_default().to_owned(),
            component: text("component").unwrap_or(super::SENDER).to_owned(),
        };
        self.effect(alert);
        let now = self.now;
        self.put(&unit.key, |record| record.started_at = Some(now));
        let entry = self.told_of(&unit.key, "step_event_emitted");
        entry.status = StepStatus::Succeeded.as_str().to_owned();
        entry.message = message;
        entry.data.insert("payload".to_owned(), payload);
        self.succeed(unit, None);
    }

    fn begin_transform(&mut self, unit: &Unit<'a>) {
        let now = self.now;
        self.put(&unit.key, |record| record.started_at = Some(now));
        match self.transformed(unit) {
            Ok(value) => {
                self.succeed(unit, Some(Arc::new(value)));
            }
            Err(why) => self.fail(unit, StepStatus::Failed, why),
        }
    }

    fn transformed(&self, unit: &Unit<'a>) -> Result<Value, Failure> {
        let value = match (
            compiled(unit.spec.expression.as_ref())?,
            compiled(unit.spec.input.as_ref())?,
        ) {
            (Some(expression), _) => expression
                .eval(&self.scope(unit))
                .map_err(|error| failure("expression", error.to_string()))?,
            (None, Some(template)) => self.value(unit, template)?,
            (None, None) => return Err(failure("expression", "transform needs `expression` or `input`")),
        };
        super::results::check_output(unit, &value)?;
        if size(&value) > MAX_OUTPUT {
            let why = format!("the output has more than {MAX_OUTPUT} bytes");
            return Err(failure("payload_too_large", why));
        }
        Ok(value)
    }

    pub(super) fn begin_switch(&mut self, unit: &Unit<'a>) {
        let now = self.now;
        self.put(&unit.key, |record| record.started_at = Some(now));
        let mut taken = None;
        for (index, case) in unit.spec.cases.iter().enumerate() {
            let holds = match &case.when {
                Ok(when) => when
                    .test(&self.scope(unit))
                    .map_err(|error| failure("expression", format!("case {index}: {error}"))),
                Err(why) => Err(failure("expression", format!("case {index}: {why}"))),
            };
            match holds {
                Ok(false) => {}
                Ok(true) => {
                    taken = Some(index);
                    break;
                }
                Err(why) => {
                    self.fail(unit, StepStatus::Failed, why);
                    return;
                }
            }
        }
        let step = &unit.spec.step;
        let case = taken.and_then(|index| step.cases.get(index));
        let then = case.map_or(&step.default, |case| &case.then);
        let output = json!({"case": taken, "then": then});
        if let Value::Object(data) = &output {
            self.told_of(&unit.key, "step_switch").data = data.clone();
        }
        self.succeed(unit, Some(Arc::new(output)));
    }

    /// What a template tree makes where the unit stands.
    pub(super) fn value(&self, unit: &Unit<'a>, template: &Template) -> Result<Value, Failure> {
        template
            .eval(&self.scope(unit))
            .map_err(|error| failure("expression", error.to_string()))
    }

    /// What a template makes where the unit stands, as text.
    pub(super) fn text(&self, unit: &Unit<'a>, template: &Template) -> Result<String, Failure> {
        template
            .eval_text(&self.scope(unit))
            .map_err(|error| failure("expression", error.to_string()))
    }
}

/// How many bytes of JSON a value is.
pub(super) fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}
