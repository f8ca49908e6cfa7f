//! One step.

use serde_json::Value;

use super::links::{Place, Reads};
use super::{Checker, MAX_STEP_ID};
use crate::workflow::model::{Step, StepKind, WaitFor};
use crate::workflow::plan::is_reserved_label;

/// How many branches may run side by side, how many rounds a loop and how many items a fan-out may have.
const MAX_BRANCHES: usize = 1_000;
const MAX_CHILDREN: i64 = 100_000;
/// How deep `output_path` may go.
const MAX_PATH: usize = 32;

impl<'a> Checker<'a> {
    /// A step of the definition, and those within it.
    pub(super) fn step(&mut self, id: &'a str, step: &'a Step) {
        let well_formed = !id.is_empty()
            && id.len() <= MAX_STEP_ID
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !well_formed {
            let told = id.escape_debug();
            let message = format!("`{told}` is no step id: use up to {MAX_STEP_ID} of the characters A-Z a-z 0-9 _ -");
            self.error("step_id", message);
        }
        let fans_out = step.fans_out();
        let here = Reads {
            step: Some(id),
            ..Reads::default()
        };
        let of_child = Reads {
            place: if fans_out { Place::Item } else { Place::Step },
            ..here.clone()
        };
        self.members(step);
        self.waits(step);
        if step.kind() == StepKind::Condition && step.condition.trim().is_empty() {
            self.error_at("condition", "condition", "condition expression required".to_owned());
        } else {
            self.expression("condition", &step.condition, &here);
        }
        if fans_out {
            self.expression("for_each", &step.for_each, &here);
            self.count("max_items", step.max_items, MAX_CHILDREN);
            self.count("tolerated_failures", step.tolerated_failures, MAX_CHILDREN);
            if step.kind() == StepKind::Job && step.input.is_empty() {
                let message = "without `input` every child gets a copy of the whole run input, with `item` added: \
                               say what it needs, such as {\"item\": \"${item}\"}";
                self.warn_at("for_each", "copies_input", message.to_owned());
            }
        }
        self.count("max_parallel", step.max_parallel, MAX_CHILDREN);
        self.contents(step, &of_child);
        self.composite(step, &here);
        if let Some(undo) = &step.compensate {
            let reads = Reads {
                place: Place::Undo,
                ..here.clone()
            };
            self.within(&["compensate"], |checker| checker.nested(undo, &reads));
            if step.finally {
                let message = "a `finally` step is not undone: nothing comes after it".to_owned();
                self.error_at("compensate", "finally", message);
            }
        }
    }

    /// A step within a step.
    fn nested(&mut self, step: &'a Step, reads: &Reads<'a>) {
        self.nested_members(step);
        self.members(step);
        self.waits(step);
        if step.kind() == StepKind::Condition && step.condition.trim().is_empty() {
            self.error_at("condition", "condition", "condition expression required".to_owned());
        } else {
            self.expression("condition", &step.condition, reads);
        }
        self.contents(step, reads);
    }

    /// What all steps may have.
    fn contents(&mut self, step: &'a Step, reads: &Reads<'a>) {
        if !step.input.is_empty() {
            self.template("input", &Value::Object(step.input.clone()), reads);
        }
        for (member, id_member, schema, id) in [
            (
                "input_schema",
                "input_schema_id",
                &step.input_schema,
                &step.input_schema_id,
            ),
            (
                "output_schema",
                "output_schema_id",
                &step.output_schema,
                &step.output_schema_id,
            ),
        ] {
            self.schema(member, schema);
            if schema.is_empty() && !id.trim().is_empty() {
                self.registered_schema(id_member, id);
            }
        }
        self.output_path(&step.output_path);
        self.seconds("timeout_sec", step.timeout_sec);
        self.millis("timeout_ms", step.timeout_ms);
        self.both("timeout_ms", step.timeout_ms, "timeout_sec", step.timeout_sec);
        if let Some(retry) = &step.retry {
            self.within(&["retry"], |checker| checker.retry(retry));
        }
        self.job(step, reads);
        self.text("prompt", &step.prompt, reads);
        match step.kind() {
            StepKind::Delay => self.delay(step, reads),
            StepKind::Subworkflow => self.subworkflow(step, reads),
            StepKind::Transform => {
                self.expression("expression", &step.expression, reads);
                match (step.expression.is_empty(), step.input.is_empty()) {
                    (true, true) => {
                        let message = "a `transform` step needs an `expression`, or an `input` that is its value";
                        self.error_at("expression", "transform", message.to_owned());
                    }
                    (false, false) => {
                        let message = "`expression` is set as well: the output can be one of them only";
                        self.error_at("input", "transform", message.to_owned());
                    }
                    _ => {}
                }
            }
            StepKind::Signal if step.signal.len() > 256 || step.signal.chars().any(char::is_control) => {
                let message = "a signal's name has up to 256 bytes and no control characters".to_owned();
                self.error_at("signal", "signal", message);
            }
            _ => {}
        }
    }

    fn job(&mut self, step: &'a Step, reads: &Reads<'a>) {
        if let Some(topic) = self.text("topic", &step.topic, reads)
            && topic
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
        {
            let message = format!(
                "`{}` is no topic: blanks and wildcards cannot be in one",
                topic.escape_debug()
            );
            self.error_at("topic", "topic", message);
        }
        if let Some(priority) = self.text("priority", &step.priority, reads) {
            let known = ["", "critical", "interactive", "batch"];
            if !known.iter().any(|known| known.eq_ignore_ascii_case(priority.trim())) {
                let told = priority.escape_debug();
                let message = format!("`{told}` is none of critical, interactive, batch");
                self.error_at("priority", "priority", message);
            }
        }
        self.text("memory_id", &step.memory_id, reads);
        for (label, value) in &step.route_labels {
            let place = format!("route_labels/{}", super::pointer_segment(label));
            if is_reserved_label(label) {
                let message = format!(
                    "label `{}` is set by the engine, not by definitions",
                    label.escape_debug()
                );
                self.error_at(&place, "reserved_label", message);
            }
            self.text(&place, value, reads);
        }
        let Some(meta) = &step.meta else { return };
        self.within(&["meta"], |checker| {
            if let Some(actor) = checker.text("actor_type", &meta.actor_type, reads) {
                let known = ["", "human", "service"];
                if !known.iter().any(|known| known.eq_ignore_ascii_case(actor.trim())) {
                    let message = format!(
                        "`{}` is neither human nor service: it is not sent",
                        actor.escape_debug()
                    );
                    checker.warn_at("actor_type", "meta", message);
                }
            }
            checker.text("actor_id", &meta.actor_id, reads);
            checker.text("idempotency_key", &meta.idempotency_key, reads);
            checker.text("pack_id", &meta.pack_id, reads);
            checker.text("capability", &meta.capability, reads);
            for (member, list) in [("risk_tags", &meta.risk_tags), ("requires", &meta.requires)] {
                for (index, text) in list.iter().enumerate() {
                    checker.text(&format!("{member}/{index}"), text, reads);
                }
            }
            for (label, value) in &meta.labels {
                checker.text(&format!("labels/{}", super::pointer_segment(label)), value, reads);
            }
        });
    }

    fn delay(&mut self, step: &'a Step, reads: &Reads<'a>) {
        self.millis("delay_ms", step.delay_ms);
        self.seconds("delay_sec", step.delay_sec);
        self.both("delay_ms", step.delay_ms, "delay_sec", step.delay_sec);
        if let Some(until) = self.text("delay_until", step.delay_until.trim(), reads)
            && !until.is_empty()
            && let Err(error) = until.parse::<jiff::Timestamp>()
        {
            let message = format!("`{}` is no time as of RFC 3339: {error}", until.escape_debug());
            self.error_at("delay_until", "delay", message);
        }
        if step.delay_ms == 0 && step.delay_sec == 0 && step.delay_until.trim().is_empty() && step.timeout().is_none() {
            let message = "it does not wait: set `delay_sec`, `delay_ms` or `delay_until`".to_owned();
            self.warn_at("type", "delay", message);
        }
    }

    fn subworkflow(&mut self, step: &'a Step, reads: &Reads<'a>) {
        if step.workflow.trim().is_empty() {
            let message = "a `subworkflow` step needs the id of a `workflow`".to_owned();
            self.error_at("workflow", "subworkflow", message);
            return;
        }
        let Some(id) = self.text("workflow", &step.workflow, reads) else {
            return;
        };
        if id == self.workflow.id {
            let message = "the workflow calls itself: see that a `condition` ends it".to_owned();
            self.warn_at("workflow", "subworkflow", message);
        } else if let Some(workflows) = &self.known.workflows
            && !workflows.contains(id)
        {
            let near = super::nearest(id, workflows.iter().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message = format!("there is no workflow `{}`{hint}", id.escape_debug());
            self.warn_at("workflow", "unknown_workflow", message);
        }
    }

    /// Steps that have steps within, or choose some.
    fn composite(&mut self, step: &'a Step, here: &Reads<'a>) {
        match step.kind() {
            StepKind::Switch => {
                for (index, case) in step.cases.iter().enumerate() {
                    let place = format!("cases/{index}/when");
                    if case.when.trim().is_empty() {
                        self.error_at(
                            &place,
                            "switch",
                            "a case needs a `when`; `default` is for the rest".to_owned(),
                        );
                    } else {
                        self.expression(&place, &case.when, here);
                    }
                }
            }
            StepKind::Parallel => {
                let count = step.branches.len();
                if count == 0 {
                    self.error_at("branches", "parallel", "a `parallel` step needs `branches`".to_owned());
                } else if count > MAX_BRANCHES {
                    self.error_at(
                        "branches",
                        "range",
                        format!("{count} branches; there may be {MAX_BRANCHES}"),
                    );
                }
                if let WaitFor::Count(wanted) = step.wait_for
                    && usize::try_from(wanted).is_ok_and(|wanted| wanted > count)
                {
                    let message = format!("{wanted} of {count} branches can never succeed");
                    self.error_at("wait_for", "parallel", message);
                }
                let reads = Reads {
                    place: Place::Branch,
                    ..here.clone()
                };
                for (index, branch) in step.branches.iter().enumerate() {
                    self.within(&["branches", &index.to_string()], |checker| {
                        checker.nested(branch, &reads);
                    });
                }
            }
            StepKind::Loop => {
                let reads = Reads {
                    place: Place::Round,
                    ..here.clone()
                };
                match &step.body {
                    Some(body) => self.within(&["body"], |checker| checker.nested(body, &reads)),
                    None => self.error_at("body", "loop", "a `loop` step needs a `body`".to_owned()),
                }
                if step.while_.trim().is_empty() && step.until.trim().is_empty() {
                    let message = "a `loop` step needs `while` or `until`: without them it only ends by its limit";
                    self.error_at("until", "loop", message.to_owned());
                }
                self.expression("while", &step.while_, &reads);
                self.expression("until", &step.until, &reads);
                self.count("max_iterations", step.max_iterations, MAX_CHILDREN);
            }
            _ => {}
        }
    }

    fn output_path(&mut self, path: &str) {
        if path.is_empty() {
            return;
        }
        let segments: Vec<&str> = path.split('.').map(str::trim).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            let message = format!("`{}` has an empty segment", path.escape_debug());
            self.error_at("output_path", "output_path", message);
        } else if segments[0] == "steps" {
            let message = "`steps` is where the engine keeps results: write elsewhere".to_owned();
            self.error_at("output_path", "output_path", message);
        } else if segments.len() > MAX_PATH {
            let message = format!("it has {} segments; there may be {MAX_PATH}", segments.len());
            self.error_at("output_path", "output_path", message);
        }
    }
}
