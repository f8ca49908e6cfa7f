//! Which members go with which types.

use super::Checker;
use crate::workflow::model::{DependencyPolicy, OnExpiry, Step, StepKind, WaitFor};

/// The types that are more than a job, as they are written.
pub(super) const NATIVE: [(&str, StepKind); 11] = [
    ("condition", StepKind::Condition),
    ("approval", StepKind::Approval),
    ("delay", StepKind::Delay),
    ("notify", StepKind::Notify),
    ("switch", StepKind::Switch),
    ("parallel", StepKind::Parallel),
    ("loop", StepKind::Loop),
    ("subworkflow", StepKind::Subworkflow),
    ("transform", StepKind::Transform),
    ("input", StepKind::Input),
    ("signal", StepKind::Signal),
];

/// The types that the reference knew and gave to workers.
pub(super) const JOBS: [&str; 7] = ["", "worker", "llm", "http", "container", "script", "storage"];

use StepKind as K;

impl Checker<'_> {
    pub(super) fn members(&mut self, step: &Step) {
        let kind = step.kind();

        // Members of ours: on another type they are a mistake.
        let ours: [(&str, bool, &[StepKind]); 13] = [
            ("delay_ms", step.delay_ms != 0, &[K::Delay]),
            ("cases", !step.cases.is_empty(), &[K::Switch]),
            ("default", !step.default.is_empty(), &[K::Switch]),
            ("branches", !step.branches.is_empty(), &[K::Parallel]),
            ("wait_for", step.wait_for != WaitFor::All, &[K::Parallel]),
            ("while", !step.while_.is_empty(), &[K::Loop]),
            ("until", !step.until.is_empty(), &[K::Loop]),
            ("max_iterations", step.max_iterations != 0, &[K::Loop]),
            ("body", step.body.is_some(), &[K::Loop]),
            ("workflow", !step.workflow.is_empty(), &[K::Subworkflow]),
            ("expression", !step.expression.is_empty(), &[K::Transform]),
            ("signal", !step.signal.is_empty(), &[K::Signal]),
            ("approval", step.approval.is_some(), &[K::Approval]),
        ];
        for (member, set, kinds) in ours {
            if set && !kinds.contains(&kind) {
                self.contradiction(member, kinds, step);
            }
        }
        if !step.prompt.is_empty() && !matches!(kind, K::Approval | K::Input) {
            self.contradiction("prompt", &[K::Approval, K::Input], step);
        }
        for (member, set) in [
            ("max_items", step.max_items != 0),
            ("tolerated_failures", step.tolerated_failures != 0),
        ] {
            if set && !step.fans_out() {
                self.error_at(
                    member,
                    "contradiction",
                    "it is about the children of a `for_each`, and there is none".to_owned(),
                );
            }
        }
        if matches!(kind, K::Switch | K::Parallel | K::Loop) && !step.for_each.is_empty() {
            let message = format!(
                "a `{}` step has no items: put it into a workflow and use `subworkflow`",
                name(step)
            );
            self.error_at("for_each", "contradiction", message);
        }

        // Members the reference has: it ignored them on other types, and so do we.
        let jobs: &[StepKind] = &[K::Job];
        let reference: [(&str, bool, &[StepKind]); 16] = [
            ("topic", !step.topic.is_empty(), jobs),
            ("worker_id", !step.worker_id.is_empty(), jobs),
            ("meta", step.meta.is_some(), jobs),
            ("route_labels", !step.route_labels.is_empty(), jobs),
            ("priority", !step.priority.is_empty(), jobs),
            ("memory_id", !step.memory_id.is_empty(), jobs),
            ("delay_sec", step.delay_sec != 0, &[K::Delay]),
            ("delay_until", !step.delay_until.is_empty(), &[K::Delay]),
            ("retry", step.retry.is_some(), &[K::Job, K::Subworkflow]),
            (
                "input",
                !step.input.is_empty(),
                &[K::Job, K::Notify, K::Subworkflow, K::Transform],
            ),
            (
                "input_schema",
                !step.input_schema.is_empty(),
                &[K::Job, K::Subworkflow, K::Transform],
            ),
            (
                "input_schema_id",
                !step.input_schema_id.is_empty(),
                &[K::Job, K::Subworkflow, K::Transform],
            ),
            ("output_schema", !step.output_schema.is_empty(), OUTPUT_IS_CHECKED),
            ("output_schema_id", !step.output_schema_id.is_empty(), OUTPUT_IS_CHECKED),
            (
                "output_path",
                !step.output_path.is_empty(),
                &[
                    K::Job,
                    K::Condition,
                    K::Subworkflow,
                    K::Transform,
                    K::Input,
                    K::Signal,
                    K::Parallel,
                    K::Loop,
                ],
            ),
            (
                "for_each",
                !step.for_each.is_empty(),
                &[
                    K::Job,
                    K::Subworkflow,
                    K::Transform,
                    K::Input,
                    K::Signal,
                    K::Switch,
                    K::Parallel,
                    K::Loop,
                ],
            ),
        ];
        for (member, set, kinds) in reference {
            if set && !kinds.contains(&kind) {
                self.no_effect(member, step);
            }
        }
        for (member, value) in [("timeout_sec", step.timeout_sec), ("timeout_ms", step.timeout_ms)] {
            if value != 0 && matches!(kind, K::Condition | K::Notify | K::Switch | K::Transform) {
                self.no_effect(member, step);
            }
        }
        if step.max_parallel != 0 && !step.fans_out() && kind != K::Parallel {
            self.no_effect("max_parallel", step);
        }
        if step.topic.is_empty() && step.worker_id.is_empty() {
            self.type_is_known(step);
        } else if kind == K::Job {
            self.type_of_a_job(step);
        }
        for (member, inline, id) in [
            ("input_schema_id", &step.input_schema, &step.input_schema_id),
            ("output_schema_id", &step.output_schema, &step.output_schema_id),
        ] {
            if !inline.is_empty() && !id.is_empty() {
                self.warn_at(
                    member,
                    "no_effect",
                    "there is a schema in the definition as well, which wins".to_owned(),
                );
            }
        }
    }

    fn contradiction(&mut self, member: &str, kinds: &[StepKind], step: &Step) {
        let wanted: Vec<String> = NATIVE
            .iter()
            .filter(|(_, kind)| kinds.contains(kind))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let wanted = wanted.join(" and ");
        let named = NATIVE
            .iter()
            .any(|(name, kind)| *name == step.step_type && kinds.contains(kind));
        let message = if named {
            let which = if step.topic.is_empty() { "worker_id" } else { "topic" };
            format!("`{member}` goes with {wanted} steps; with a `{which}` this one is a job: remove one of them")
        } else {
            format!("`{member}` goes with {wanted} steps; this is a `{}` step", name(step))
        };
        self.error_at(member, "contradiction", message);
    }

    fn no_effect(&mut self, member: &str, step: &Step) {
        let message = format!("`{member}` has no effect on a `{}` step", name(step));
        self.warn_at(member, "no_effect", message);
    }

    /// Without a topic and a worker the type says what the step is.
    fn type_is_known(&mut self, step: &Step) {
        let word = step.step_type.as_str();
        let types = || NATIVE.iter().map(|(name, _)| *name).chain(JOBS);
        if types().any(|known| known == word) {
            return;
        }
        let hint = super::nearest(word, types().filter(|known| !known.is_empty()));
        let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let message = format!(
            "unknown type `{}`: a step of this type needs a `topic`{hint}",
            word.escape_debug()
        );
        self.error_at("type", "unknown_type", message);
    }

    /// Any word is a type of job. A native one in the wrong case is rarely meant to be.
    fn type_of_a_job(&mut self, step: &Step) {
        let word = step.step_type.as_str();
        if let Some((native, _)) = NATIVE
            .iter()
            .find(|(native, _)| native.eq_ignore_ascii_case(word.trim()) && *native != word)
        {
            let message = format!("`{}` is a job; did you mean `{native}`?", word.escape_debug());
            self.warn_at("type", "unknown_type", message);
        }
    }

    /// Steps within steps are simple ones.
    pub(super) fn nested_members(&mut self, step: &Step) {
        let kind = step.kind();
        if matches!(kind, K::Switch | K::Parallel | K::Loop) {
            let message = format!(
                "a `{}` step cannot be within a step: move it to a workflow and use `subworkflow`",
                name(step)
            );
            self.error_at("type", "nested", message);
        }
        let set = [
            ("id", !step.id.is_empty()),
            ("depends_on", !step.depends_on.is_empty()),
            (
                "dependency_policy",
                step.dependency_policy != DependencyPolicy::AllSuccess,
            ),
            ("for_each", !step.for_each.is_empty()),
            ("on_error", !step.on_error.is_empty()),
            ("finally", step.finally),
            ("compensate", step.compensate.is_some()),
        ];
        for (member, set) in set {
            if set {
                let remedy = if member == "id" { ": use `name`" } else { "" };
                self.error_at(
                    member,
                    "nested",
                    format!("a step within a step has no `{member}`{remedy}"),
                );
            }
        }
    }

    /// What people are asked.
    pub(super) fn waits(&mut self, step: &Step) {
        let kind = step.kind();
        let timeout = step.timeout().is_some();
        if matches!(kind, K::Approval | K::Input | K::Signal) && !timeout {
            let message = format!("a `{}` step without `timeout_sec` may wait for ever", name(step));
            self.warn_at("type", "no_timeout", message);
        }
        let Some(rule) = step.approval.as_ref().filter(|_| kind == K::Approval) else {
            return;
        };
        self.within(&["approval"], |checker| {
            checker.count("quorum", rule.quorum, 1_000);
            if rule.roles.iter().any(|role| role.trim().is_empty()) {
                checker.error_at("roles", "approval", "a role is empty: nobody could have it".to_owned());
            }
            if rule.on_expiry != OnExpiry::Fail && !timeout {
                checker.error_at(
                    "on_expiry",
                    "approval",
                    "it never expires without `timeout_sec`".to_owned(),
                );
            }
        });
    }
}

const OUTPUT_IS_CHECKED: &[StepKind] = &[K::Job, K::Condition, K::Subworkflow, K::Transform, K::Input, K::Signal];

/// What a step is, for messages.
pub(super) fn name(step: &Step) -> &str {
    let kind = step.kind();
    NATIVE
        .iter()
        .find(|(_, native)| *native == kind)
        .map_or("worker", |(name, _)| name)
}
