use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::workflow::decode;
use crate::workflow::plan::Plan;

/// Checks the document and says what was found, errors first.
fn told(document: Value) -> Vec<Problem> {
    let decoded = decode::value(document).unwrap();
    check(&decoded.workflow, &Known::default())
}

/// A document with these steps, `t` being one that others can depend on.
fn with_steps(steps: Value) -> Value {
    let mut all = json!({"t": {"topic": "job.t"}});
    if let (Value::Object(all), Value::Object(steps)) = (&mut all, steps) {
        all.extend(steps);
    }
    json!({"id": "w", "steps": all})
}

fn found(problems: &[Problem], severity: Severity, pointer: &str, text: &str) -> bool {
    problems
        .iter()
        .any(|problem| problem.severity == severity && problem.pointer == pointer && problem.message.contains(text))
}

#[track_caller]
fn finds(document: Value, severity: Severity, pointer: &str, text: &str) {
    let text_of = document.to_string();
    let problems = told(document);
    assert!(
        found(&problems, severity, pointer, text),
        "{}\nlacks {pointer}: {text}\n{problems:#?}",
        text_of.get(..400).unwrap_or(&text_of)
    );
}

#[test]
fn workflows_that_are_refused() {
    let many: Map<String, Value> = (0..1_001).map(|n| (format!("s{n}"), json!({"topic": "t"}))).collect();
    let step = json!({"a": {"topic": "t"}});
    for (document, pointer, text) in [
        (json!({"id": "all", "steps": step}), "/id", "reserved"),
        (json!({"id": "status:failed", "steps": step}), "/id", "reserved"),
        (json!({"id": "a b", "steps": step}), "/id", "blanks"),
        (json!({"id": "a\u{7}", "steps": step}), "/id", "control characters"),
        (json!({"id": "x".repeat(300), "steps": step}), "/id", "longer than 256"),
        (
            json!({"timeout_sec": -1, "steps": step}),
            "/timeout_sec",
            "-1 is out of range",
        ),
        (
            json!({"timeout_ms": -1, "steps": step}),
            "/timeout_ms",
            "-1 is out of range",
        ),
        (
            json!({"timeout_sec": i64::MAX, "steps": step}),
            "/timeout_sec",
            "out of range",
        ),
        (
            json!({"max_concurrent_runs": -2, "steps": step}),
            "/max_concurrent_runs",
            "-2 is out of range",
        ),
        (
            json!({"output": "${steps.b.output}", "steps": step}),
            "/output",
            "there is no step `b`",
        ),
        (
            json!({"output": {"x": ["${"]}, "steps": step}),
            "/output/x/0",
            "unterminated",
        ),
        (
            json!({"input_schema": {"type": "strin"}, "steps": step}),
            "/input_schema",
            "compile schema",
        ),
        (json!({"steps": many}), "/steps", "1001 steps; there may be 1000"),
        (
            json!({"steps": step, "config": {"x": "y".repeat(1 << 20)}}),
            "",
            "there may be 1048576",
        ),
    ] {
        finds(document, Severity::Error, pointer, text);
    }
}

#[test]
fn steps_that_are_refused() {
    let deep_path = ["x"; 40].join(".");
    for (steps, pointer, text) in [
        // Ids.
        (json!({"a:b": {}}), "/steps/a:b", "no step id"),
        (json!({"a[0]": {}}), "/steps/a[0]", "no step id"),
        (json!({"a.b": {}}), "/steps/a.b", "no step id"),
        (json!({"": {}}), "/steps/", "no step id"),
        (json!({"a/b": {}}), "/steps/a~1b", "no step id"),
        (json!({"é": {}}), "/steps/é", "no step id"),
        (
            json!({"x".repeat(65): {}}),
            &*format!("/steps/{}", "x".repeat(65)),
            "up to 64",
        ),
        // Dependencies.
        (
            json!({"a": {"depends_on": ["b"]}}),
            "/steps/a/depends_on/0",
            "there is no step `b`",
        ),
        (
            json!({"fetch": {}, "a": {"depends_on": ["fetsh"]}}),
            "/steps/a/depends_on/0",
            "did you mean `fetch`?",
        ),
        (
            json!({"a": {"depends_on": ["t[0]"]}}),
            "/steps/a/depends_on/0",
            "name the step `t`",
        ),
        (json!({"a": {"depends_on": ["a"]}}), "/steps/a/depends_on", "a → a"),
        (
            json!({"a": {"depends_on": ["b"]}, "b": {"depends_on": ["a"]}}),
            "/steps/a/depends_on",
            "a → b → a",
        ),
        (
            json!({"a": {"depends_on": ["b"]}, "b": {"type": "switch", "depends_on": ["a"], "default": ["a"]}}),
            "/steps/a/depends_on",
            "wait for each other",
        ),
        (
            json!({"f": {"finally": true}, "a": {"depends_on": ["f"]}}),
            "/steps/a/depends_on/0",
            "`finally` step",
        ),
        (
            json!({"f": {"finally": true, "depends_on": ["t"]}}),
            "/steps/f/depends_on/0",
            "`steps.t.status`",
        ),
        (
            json!({"a": {"dependency_policy": "any_success"}}),
            "/steps/a/dependency_policy",
            "never run",
        ),
        (
            json!({"a": {"dependency_policy": "on_failure"}}),
            "/steps/a/dependency_policy",
            "never run",
        ),
        // Handlers.
        (
            json!({"a": {"on_error": "b"}}),
            "/steps/a/on_error",
            "there is no step `b`",
        ),
        (json!({"a": {"on_error": "a"}}), "/steps/a/on_error", "its own failure"),
        (
            json!({"a": {"on_error": "t", "depends_on": ["t"]}}),
            "/steps/a/on_error",
            "comes before",
        ),
        (
            json!({"a": {"on_error": "h"}, "h": {"depends_on": ["a"]}}),
            "/steps/h/depends_on/0",
            "handles the failure",
        ),
        (
            json!({"a": {"on_error": "f"}, "f": {"finally": true}}),
            "/steps/a/on_error",
            "`finally` step",
        ),
        (
            json!({"f": {"finally": true, "on_error": "t"}}),
            "/steps/f/on_error",
            "has no handler",
        ),
        (
            json!({"f": {"finally": true, "compensate": {}}}),
            "/steps/f/compensate",
            "not undone",
        ),
        // Expressions and templates.
        (
            json!({"a": {"condition": "input.x =="}}),
            "/steps/a/condition",
            "at byte",
        ),
        (
            json!({"a": {"condition": " "}}),
            "/steps/a/condition",
            "empty expression",
        ),
        (json!({"a": {"for_each": "input.["}}), "/steps/a/for_each", "at byte"),
        (
            json!({"a": {"input": {"x": {"y": ["${input."]}}}}),
            "/steps/a/input/x/y/0",
            "unterminated",
        ),
        (
            json!({"a": {"condition": "steps.b.output"}}),
            "/steps/a/condition",
            "there is no step `b`",
        ),
        (
            json!({"a": {"input": {"x": "${steps.tt.output}"}}}),
            "/steps/a/input",
            "did you mean `t`?",
        ),
        (json!({"a": {"topic": "job.${"}}), "/steps/a/topic", "unterminated"),
        (json!({"a": {"topic": "job.*"}}), "/steps/a/topic", "wildcards"),
        (json!({"a": {"topic": "job x"}}), "/steps/a/topic", "no topic"),
        (
            json!({"a": {"meta": {"risk_tags": ["${("]}}}),
            "/steps/a/meta/risk_tags/0",
            "",
        ),
        (
            json!({"a": {"meta": {"labels": {"k": "${(}"}}}}),
            "/steps/a/meta/labels/k",
            "",
        ),
        (
            json!({"a": {"priority": "urgent"}}),
            "/steps/a/priority",
            "none of critical",
        ),
        (json!({"a": {"memory_id": "${"}}), "/steps/a/memory_id", "unterminated"),
        (
            json!({"a": {"route_labels": {"run_id": "x"}}}),
            "/steps/a/route_labels/run_id",
            "set by the engine",
        ),
        (
            json!({"a": {"route_labels": {"Approval_granted": "x"}}}),
            "/steps/a/route_labels/Approval_granted",
            "set by",
        ),
        (
            json!({"a": {"route_labels": {"coretex.bus_msg_id": "x"}}}),
            "/steps/a/route_labels/coretex.bus_msg_id",
            "",
        ),
        // Schemas.
        (
            json!({"a": {"input_schema": {"$ref": "file:///etc/passwd"}}}),
            "/steps/a/input_schema",
            "file:///etc/passwd",
        ),
        (
            json!({"a": {"output_schema": {"$ref": "http://x.test/"}}}),
            "/steps/a/output_schema",
            "http://x.test/",
        ),
        // Numbers.
        (
            json!({"a": {"timeout_sec": -5}}),
            "/steps/a/timeout_sec",
            "-5 is out of range",
        ),
        (
            json!({"a": {"max_parallel": -1}}),
            "/steps/a/max_parallel",
            "-1 is out of range",
        ),
        (
            json!({"a": {"for_each": "input.x", "max_items": -1}}),
            "/steps/a/max_items",
            "out of range",
        ),
        (
            json!({"a": {"for_each": "input.x", "tolerated_failures": 100_001}}),
            "/steps/a/tolerated_failures",
            "100001",
        ),
        (
            json!({"a": {"output_path": "steps.x"}}),
            "/steps/a/output_path",
            "`steps` is where",
        ),
        (
            json!({"a": {"output_path": " steps "}}),
            "/steps/a/output_path",
            "`steps` is where",
        ),
        (
            json!({"a": {"output_path": "a..b"}}),
            "/steps/a/output_path",
            "empty segment",
        ),
        (
            json!({"a": {"output_path": deep_path}}),
            "/steps/a/output_path",
            "40 segments",
        ),
        // Retries.
        (
            json!({"a": {"retry": {"max_retries": -1}}}),
            "/steps/a/retry/max_retries",
            "out of range",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "multiplier": -2}}}),
            "/steps/a/retry/multiplier",
            "-2",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "jitter": 1.5}}}),
            "/steps/a/retry/jitter",
            "0 to 1",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "backoff": "constant", "multiplier": 3}}}),
            "/steps/a/retry/multiplier",
            "do not grow",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "initial_backoff_sec": 9, "max_backoff_ms": 10}}}),
            "/steps/a/retry",
            "longer than the longest",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "on": ["x"], "non_retryable": ["x"]}}}),
            "/steps/a/retry/non_retryable",
            "`on` as well",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "on": [""]}}}),
            "/steps/a/retry/on",
            "empty",
        ),
        // Types and their members.
        (
            json!({"a": {"type": "foo"}}),
            "/steps/a/type",
            "unknown type `foo`: a step of this type needs a `topic`",
        ),
        (
            json!({"a": {"type": "aproval"}}),
            "/steps/a/type",
            "did you mean `approval`?",
        ),
        (
            json!({"a": {"type": "condition"}}),
            "/steps/a/condition",
            "condition expression required",
        ),
        (
            json!({"a": {"type": "approval", "cases": [{"when": "true"}]}}),
            "/steps/a/cases",
            "goes with `switch` steps; this is a `approval` step",
        ),
        (
            json!({"a": {"type": "switch", "topic": "t", "default": ["t"]}}),
            "/steps/a/default",
            "with a `topic` this one is a job",
        ),
        (json!({"a": {"delay_ms": 5}}), "/steps/a/delay_ms", "`delay` steps"),
        (
            json!({"a": {"prompt": "?"}}),
            "/steps/a/prompt",
            "`approval` and `input` steps",
        ),
        (json!({"a": {"max_items": 5}}), "/steps/a/max_items", "there is none"),
        (json!({"a": {"type": "switch"}}), "/steps/a/cases", "chooses no step"),
        (
            json!({"a": {"type": "switch", "cases": [{"then": ["t"]}]}}),
            "/steps/a/cases/0/when",
            "needs a `when`",
        ),
        (
            json!({"a": {"type": "switch", "cases": [{"when": "(", "then": ["t"]}]}}),
            "/steps/a/cases/0/when",
            "at byte",
        ),
        (
            json!({"a": {"type": "switch", "default": ["b"]}}),
            "/steps/a/default/0",
            "there is no step `b`",
        ),
        (
            json!({"a": {"type": "switch", "default": ["a"]}}),
            "/steps/a/default/0",
            "cannot choose itself",
        ),
        (
            json!({"f": {"finally": true}, "a": {"type": "switch", "default": ["f"]}}),
            "/steps/a/default/0",
            "neither choose nor",
        ),
        (
            json!({"a": {"type": "switch", "default": ["t"], "for_each": "input.x"}}),
            "/steps/a/for_each",
            "has no items",
        ),
        (
            json!({"a": {"type": "parallel"}}),
            "/steps/a/branches",
            "needs `branches`",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{}], "wait_for": 2}}),
            "/steps/a/wait_for",
            "2 of 1 branches",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{"type": "loop"}]}}),
            "/steps/a/branches/0/type",
            "cannot be within",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{"id": "x"}]}}),
            "/steps/a/branches/0/id",
            "use `name`",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{"depends_on": ["t"]}]}}),
            "/steps/a/branches/0/depends_on",
            "has no",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{"for_each": "input.x"}]}}),
            "/steps/a/branches/0/for_each",
            "has no",
        ),
        (
            json!({"a": {"type": "parallel", "branches": [{"type": "bar"}]}}),
            "/steps/a/branches/0/type",
            "unknown type",
        ),
        (
            json!({"a": {"type": "loop", "until": "last"}}),
            "/steps/a/body",
            "needs a `body`",
        ),
        (
            json!({"a": {"type": "loop", "body": {}}}),
            "/steps/a/until",
            "needs `while` or `until`",
        ),
        (
            json!({"a": {"type": "loop", "body": {}, "until": "("}}),
            "/steps/a/until",
            "at byte",
        ),
        (
            json!({"a": {"type": "loop", "body": {"compensate": {}}, "until": "last"}}),
            "/steps/a/body/compensate",
            "has no",
        ),
        (
            json!({"a": {"type": "loop", "body": {}, "until": "last", "max_iterations": -1}}),
            "/steps/a/max_iterations",
            "-1",
        ),
        (
            json!({"a": {"compensate": {"type": "parallel", "branches": [{}]}}}),
            "/steps/a/compensate/type",
            "cannot be within",
        ),
        (
            json!({"a": {"compensate": {"on_error": "t"}}}),
            "/steps/a/compensate/on_error",
            "has no",
        ),
        (
            json!({"a": {"type": "subworkflow"}}),
            "/steps/a/workflow",
            "needs the id",
        ),
        (
            json!({"a": {"type": "transform"}}),
            "/steps/a/expression",
            "needs an `expression`",
        ),
        (
            json!({"a": {"type": "transform", "expression": "1", "input": {"x": 1}}}),
            "/steps/a/input",
            "one of them",
        ),
        (
            json!({"a": {"type": "delay", "delay_sec": -1}}),
            "/steps/a/delay_sec",
            "out of range",
        ),
        (
            json!({"a": {"type": "delay", "delay_until": "tomorrow"}}),
            "/steps/a/delay_until",
            "no time as of RFC 3339",
        ),
        (
            json!({"a": {"type": "signal", "signal": "x".repeat(300)}}),
            "/steps/a/signal",
            "256",
        ),
        (
            json!({"a": {"type": "approval", "approval": {"quorum": -1}}}),
            "/steps/a/approval/quorum",
            "out of range",
        ),
        (
            json!({"a": {"type": "approval", "approval": {"roles": [" "]}}}),
            "/steps/a/approval/roles",
            "empty",
        ),
        (
            json!({"a": {"type": "approval", "approval": {"on_expiry": "approve"}}}),
            "/steps/a/approval/on_expiry",
            "never expires",
        ),
    ] {
        finds(with_steps(steps), Severity::Error, pointer, text);
    }
}

#[test]
fn oddities_are_told_and_allowed() {
    for (steps, pointer, text) in [
        (
            json!({"a": {"depends_on": ["t", "t"]}}),
            "/steps/a/depends_on/1",
            "named twice",
        ),
        (
            json!({"a": {"for_each": "input.x"}}),
            "/steps/a/for_each",
            "copy of the whole run input",
        ),
        (
            json!({"a": {"retry": {"initial_backoff_sec": 1}}}),
            "/steps/a/retry/max_retries",
            "nothing is tried again",
        ),
        (
            json!({"a": {"retry": {"max_retries": 1, "multiplier": 1}}}),
            "/steps/a/retry/multiplier",
            "count as 2",
        ),
        (
            json!({"a": {"type": "approval", "retry": {"max_retries": 1}}}),
            "/steps/a/retry",
            "no effect",
        ),
        (json!({"a": {"type": "approval"}}), "/steps/a/type", "may wait for ever"),
        (
            json!({"a": {"type": "approval", "for_each": "input.x"}}),
            "/steps/a/for_each",
            "no effect",
        ),
        (
            json!({"a": {"type": "approval", "topic": "t"}}),
            "/steps/a/topic",
            "no effect",
        ),
        (json!({"a": {"type": "delay"}}), "/steps/a/type", "does not wait"),
        (json!({"a": {"max_parallel": 3}}), "/steps/a/max_parallel", "no effect"),
        (
            json!({"a": {"timeout_sec": 3, "timeout_ms": 5}}),
            "/steps/a/timeout_sec",
            "`timeout_ms` is set as well",
        ),
        (
            json!({"a": {"dependency_policy": "all_done"}}),
            "/steps/a/dependency_policy",
            "no `depends_on`",
        ),
        (
            json!({"a": {"condition": "steps.t.output"}}),
            "/steps/a/condition",
            "add it to `depends_on`",
        ),
        (
            json!({"a": {"condition": "steps.a.output"}}),
            "/steps/a/condition",
            "this step itself",
        ),
        (
            json!({"a": {"condition": "inptu.x"}}),
            "/steps/a/condition",
            "did you mean `input`?",
        ),
        (
            json!({"a": {"condition": "yes"}}),
            "/steps/a/condition",
            "texts need quotes",
        ),
        (
            json!({"a": {"input": {"x": "${item}"}}}),
            "/steps/a/input",
            "is null here",
        ),
        (
            json!({"a": {"input": {"x": "${error.code}"}}}),
            "/steps/a/input",
            "names in `on_error`",
        ),
        (json!({"a": {"input": {"x": "${last}"}}}), "/steps/a/input", "a `loop`"),
        (
            json!({"a": {"type": "Approval", "topic": "t"}}),
            "/steps/a/type",
            "did you mean `approval`?",
        ),
        (
            json!({"a": {"type": "subworkflow", "workflow": "w"}}),
            "/steps/a/workflow",
            "calls itself",
        ),
        (
            json!({"a": {"on_error": "t", "continue_on_error": true}}),
            "/steps/a/continue_on_error",
            "choose one",
        ),
        (
            json!({"a": {"meta": {"actor_type": "robot"}}}),
            "/steps/a/meta/actor_type",
            "neither human nor service",
        ),
        (
            json!({"a": {"type": "transform", "expression": "1"}, "b": {"depends_on": ["a"]}}),
            "/steps/a/type",
            "nobody reads",
        ),
        (
            json!({"a": {"input_schema": {"type": "object"}, "input_schema_id": "x"}}),
            "/steps/a/input_schema_id",
            "wins",
        ),
    ] {
        let document = with_steps(steps);
        let problems = told(document.clone());
        assert!(!refused(&problems), "{document}: {problems:?}");
        finds(document, Severity::Warning, pointer, text);
    }
}

#[test]
fn what_makes_sense_is_not_mentioned() {
    let problems = told(json!({"id": "order", "output": "${steps.join.output}", "steps": {
        "fetch": {"topic": "job.fetch", "retry": {"max_retries": 2}, "on_error": "rescue",
            "compensate": {"topic": "job.undo", "input": {"ref": "${steps.fetch.output.ref}"}}},
        "rescue": {"topic": "job.rescue", "input": {"why": "${error.message}", "from": "${steps.fetch.error.code}"}},
        "fan": {"topic": "job.fan", "for_each": "steps.fetch.output.items", "depends_on": ["fetch"],
            "input": {"item": "${item}", "n": "${index + 1}"}},
        "pick": {"type": "switch", "depends_on": ["fan"],
            "cases": [{"when": "size(steps.fan.output) > 3", "then": ["big"]}], "default": ["small"]},
        "big": {"topic": "job.big", "input": {"first": "${steps.fan[0].output}"}},
        "small": {"type": "transform", "expression": "steps.fan.output.map(x, x.id)"},
        "join": {"type": "llm", "depends_on": ["big", "small"], "input": {"a": "${steps.small.output}"}},
        "poll": {"type": "loop", "until": "last.done", "body": {"topic": "job.poll", "input": {"round": "${index}"}}},
        "ok": {"type": "approval", "timeout_sec": 60, "prompt": "Pay ${input.amount}?",
            "approval": {"quorum": 2, "on_expiry": "reject"}},
        "clean": {"topic": "job.clean", "finally": true, "condition": "steps.fetch.status == 'succeeded'"},
    }}));
    assert_eq!(problems, []);
}

#[test]
fn all_of_them_at_once_errors_first() {
    let problems = told(json!({"id": "all", "timeout_sec": -1, "steps": {
        "a": {"type": "approval", "depends_on": ["x"], "condition": "("}, "b:": {"type": "foo"},
    }}));
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    assert_eq!(errors, 6, "{problems:#?}");
    assert!(
        problems
            .iter()
            .rev()
            .take(problems.len() - errors)
            .all(|problem| problem.severity == Severity::Warning)
    );
    assert_eq!(problems[0].to_string(), format!("/id: {}", problems[0].message));
}

#[test]
fn what_exists_outside_is_looked_at() {
    let workflow = decode::value(with_steps(json!({
        "a": {"type": "subworkflow", "workflow": "bill", "input_schema_id": "known"},
        "b": {"type": "subworkflow", "workflow": "${input.which}", "output_schema_id": "gone"},
        "c": {"topic": "t", "input_schema_id": "broken"},
    })))
    .unwrap()
    .workflow;
    let mut known = Known {
        workflows: Some(BTreeSet::from(["billing".to_owned(), "bull".to_owned()])),
        registry: true,
        ..Known::default()
    };
    known
        .schemas
        .registered
        .insert("known".to_owned(), json!({"type": "object"}));
    known.schemas.registered.insert("broken".to_owned(), json!({"type": 5}));
    let problems = check(&workflow, &known);
    assert!(
        found(
            &problems,
            Severity::Warning,
            "/steps/a/workflow",
            "did you mean `bull`?"
        ),
        "{problems:?}"
    );
    assert!(found(
        &problems,
        Severity::Warning,
        "/steps/b/output_schema_id",
        "`gone` is not registered"
    ));
    assert!(found(
        &problems,
        Severity::Error,
        "/steps/c/input_schema_id",
        "compile schema"
    ));
    assert!(
        check(&workflow, &Known::default())
            .iter()
            .all(|problem| problem.code != "unknown_schema")
    );
}

#[test]
fn a_thousand_steps_are_checked_in_one_go() {
    let mut steps: Map<String, Value> = (0..999)
        .map(|n| {
            let before: Vec<String> = (n > 0).then(|| format!("s{}", n - 1)).into_iter().collect();
            (
                format!("s{n}"),
                json!({"topic": "t", "depends_on": before, "input": {"x": "${steps.s0.output}"}}),
            )
        })
        .collect();
    steps["s0"]["input"] = json!({});
    assert_eq!(told(json!({"id": "w", "steps": steps})), []);
}

/// Values that definitions are made of, right or wrong.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2.0..3.0_f64).prop_map(Value::from),
        prop::sample::select(vec![
            "a",
            "b",
            "t",
            "steps",
            "input.x",
            "${steps.a.output}",
            "${item}",
            "x ${",
            "(",
            "approval",
            "switch",
            "loop",
            "parallel",
            "subworkflow",
            "transform",
            "input",
            "signal",
            "delay",
            "notify",
            "condition",
            "all_done",
            "wait",
            "any",
            "constant",
            "",
            "job.x",
            "2026-01-01T00:00:00Z",
            "file:///etc/passwd",
            "#",
        ])
        .prop_map(Value::from),
    ];
    let keys: Vec<String> = ["a", "b", "t[0]", "type", "$ref", "allOf", "properties", "run_id"]
        .into_iter()
        .chain(decode::member_names())
        .map(str::to_owned)
        .collect();
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Steps that are mostly right.
fn plausible_step() -> impl Strategy<Value = Value> {
    let member = |name: &'static str, values: Vec<Value>| {
        prop::option::weighted(0.3, prop::sample::select(values)).prop_map(move |value| (name, value))
    };
    (
        member(
            "type",
            [
                "",
                "approval",
                "condition",
                "delay",
                "switch",
                "transform",
                "loop",
                "parallel",
                "signal",
            ]
            .map(Value::from)
            .to_vec(),
        ),
        member("topic", vec![json!("job.x"), json!("job.${input.kind}")]),
        member("depends_on", vec![json!(["a"]), json!(["b"]), json!(["a", "c"])]),
        member("condition", vec![json!("input.x > 1"), json!("steps.a.output == 'x'")]),
        member("for_each", vec![json!("input.list"), json!("${input.list}")]),
        member(
            "input",
            vec![json!({"x": "${input.x} y"}), json!({"list": [1, "${steps.b.output}"]})],
        ),
        member("on_error", vec![json!("c"), json!("d")]),
        member(
            "delay_until",
            vec![json!("2026-01-01T00:00:00Z"), json!("${input.at}"), json!("${")],
        ),
        member("expression", vec![json!("1 + input.n")]),
        member("default", vec![json!(["c"]), json!(["d"])]),
        member("body", vec![json!({"topic": "t", "condition": "index < 3"})]),
        member("until", vec![json!("last.done")]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j, k, l)| {
            let members = [a, b, c, d, e, f, g, h, i, j, k, l].into_iter();
            members
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect::<Map<_, _>>()
                .into()
        })
}

fn holds(document: Value) {
    let Ok(decoded) = decode::value(document) else { return };
    let workflow = decoded.workflow;
    let again = decode::definition(&serde_json::to_vec(&workflow).unwrap()).unwrap();
    assert_eq!(again.workflow, workflow);
    assert_eq!(again.warnings, []);
    let problems = check(&workflow, &Known::default());
    let passes = !refused(&problems);
    let hash = workflow.content_hash();
    let plan = Plan::compile(Arc::new(workflow), hash, &SchemaSet::new());
    if passes {
        let errors: Vec<&str> = plan.steps().iter().flat_map(|step| step.errors()).collect();
        // Schemas of the registry are looked up when the plan is made.
        let errors: Vec<&str> = errors
            .into_iter()
            .filter(|error| !error.ends_with("is not registered"))
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(plan.output.as_ref().is_none_or(Result::is_ok));
        assert!(plan.input_schema.as_ref().is_none_or(Result::is_ok));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_passes_can_be_planned(document in arbitrary_json()) {
        holds(document);
    }

    #[test]
    fn whatever_steps_pass_can_be_planned(steps in prop::collection::btree_map("[a-d]", plausible_step(), 0..5)) {
        holds(json!({"id": "w", "steps": steps}));
    }

    #[test]
    fn arbitrary_steps_do_no_harm(step in arbitrary_json(), other in arbitrary_json()) {
        holds(json!({"id": "w", "steps": {"a": step, "b": other}}));
    }
}
