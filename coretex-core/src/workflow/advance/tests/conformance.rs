//! What the reference's tests ask for, and its documented flows.

use serde_json::{Value, json};

use super::harness::Bench;
use crate::jobs::JobState;
use crate::workflow::event::{Effect, Fetched};
use crate::workflow::job_request;
use crate::workflow::run::{RunStatus, StepKey, StepStatus};

#[test]
fn a_fan_out_of_two() {
    let mut run = Bench::start(
        json!({"steps": {"fan": {"topic": "job.t", "for_each": "input.items"}}}),
        json!({"items": ["a", "b"]}),
    );
    assert_eq!(run.jobs(), ["fan[0]@1", "fan[1]@1"]);
    run.succeed("fan[0]", json!({"n": 1}));
    assert_eq!(run.status(), RunStatus::Running);
    run.succeed("fan[1]", json!({"n": 2}));
    assert_eq!(run.is("fan"), Some(StepStatus::Succeeded));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.payloads["r1:fan[0]@1"], json!({"items": ["a", "b"], "item": "a"}));
    assert_eq!(run.run.head.output.as_deref(), Some(&json!([{"n": 1}, {"n": 2}])));
}

#[test]
fn one_at_a_time() {
    let mut run = Bench::start(
        json!({"steps": {"fan": {"topic": "job.t", "for_each": "input.items", "max_parallel": 1}}}),
        json!({"items": [1, 2, 3]}),
    );
    for index in 0..3 {
        assert_eq!(run.jobs(), [format!("fan[{index}]@1")]);
        run.succeed(&format!("fan[{index}]"), Value::Null);
    }
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_failed_attempt_is_followed_by_another() {
    let mut run = Bench::of(
        json!({"a": {"topic": "job.t", "retry": {"max_retries": 1, "initial_backoff_sec": 1, "multiplier": 1.0}}}),
    );
    run.fail("a");
    assert_eq!(run.is("a"), Some(StepStatus::Pending));
    run.after(999);
    assert_eq!(run.jobs(), ["a@1"]);
    run.after(1);
    assert_eq!(run.jobs(), ["a@2"]);
    run.succeed("a", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert!(run.step("a").error.is_none());
}

#[test]
fn an_approval_comes_first() {
    let mut run = Bench::of(json!({
        "ok": {"type": "approval"},
        "work": {"topic": "job.t", "depends_on": ["ok"]},
    }));
    assert_eq!(run.jobs(), [""; 0]);
    assert_eq!(run.status(), RunStatus::Waiting);
    assert_eq!(run.told(), ["run_created", "step_waiting ok", "run_status waiting"]);
    run.vote("ok", "", "", true).unwrap();
    assert_eq!(run.jobs(), ["work@1"]);
    assert_eq!(run.status(), RunStatus::Running);
    run.succeed("work", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn the_request_of_a_job() {
    let mut run = Bench::start(
        json!({"steps": {"a": {
            "worker_id": "w-1", "timeout_sec": 3,
            "meta": {"actor_id": " svc ", "actor_type": "service", "risk_tags": [" network "], "requires": ["", "gpu"],
                     "capability": "c", "pack_id": "p", "labels": {"k": "v"}},
            "route_labels": {"region": "eu", "run_id": "forged", "approval_granted": "true"},
        }}}),
        json!({"priority": " Critical ", "memory_id": " mem:1 "}),
    );
    let request = job_request(&run.plan, &run.run, &StepKey::new("a")).unwrap();
    assert_eq!(request.job_id, "r1:a@1");
    assert_eq!(request.topic, "job.workflow.w");
    assert_eq!(request.priority().as_str_name(), "JOB_PRIORITY_CRITICAL");
    assert_eq!(request.context_ptr, "redis://ctx:r1:a@1");
    assert_eq!(request.adapter_id, "w-1");
    assert_eq!(request.workflow_id, "w");
    assert_eq!(request.memory_id, "mem:1");
    assert_eq!(request.tenant_id, "acme");
    assert_eq!(request.principal_id, "svc");
    assert_eq!(request.budget.unwrap().deadline_ms, 3_000);
    let labels: Vec<_> = request.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        labels,
        ["region=eu", "run_id=r1", "step_id=a", "worker_id=w-1", "workflow_id=w"]
    );
    let env: Vec<_> = request.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        env,
        [
            "context_mode=raw",
            "memory_id=mem:1",
            "run_id=r1",
            "step_id=a",
            "team_id=",
            "tenant_id=acme",
            "workflow_id=w"
        ]
    );
    let meta = request.meta.unwrap();
    assert_eq!(meta.tenant_id, "acme");
    assert_eq!(meta.actor_type().as_str_name(), "ACTOR_TYPE_SERVICE");
    assert_eq!(meta.risk_tags, ["network"]);
    assert_eq!(meta.requires, ["gpu"]);
    run.succeed("a", Value::Null);
    assert_eq!(job_request(&run.plan, &run.run, &StepKey::new("a")), None);
}

#[test]
fn the_request_of_a_child() {
    let run = Bench::start(
        json!({"steps": {"fan": {"topic": "job.t", "for_each": "input.items"}}}),
        json!({"items": [null, {"k": "x".repeat(5000)}]}),
    );
    let request = job_request(&run.plan, &run.run, &StepKey::new("fan[0]")).unwrap();
    assert_eq!(request.env["foreach_index"], "0");
    assert_eq!(request.env["foreach_item"], "null");
    assert_eq!(request.memory_id, "run:r1");
    assert_eq!(request.priority().as_str_name(), "JOB_PRIORITY_BATCH");
    assert!(run.payloads["r1:fan[0]@1"].get("item").is_none());
    // A large item is in the payload only.
    let request = job_request(&run.plan, &run.run, &StepKey::new("fan[1]")).unwrap();
    assert!(!request.env.contains_key("foreach_item"));
    assert!(run.payloads["r1:fan[1]@1"].get("item").is_some());
}

#[test]
fn a_request_is_the_same_when_it_is_made_again() {
    let mut run = Bench::start(
        json!({"steps": {
            "a": {"topic": "job.${ctx.kind}", "meta": {"actor_id": "${ctx.kind}"}, "route_labels": {"at": "${now}"}},
            "b": {"type": "transform", "expression": "'later'", "output_path": "kind", "depends_on": ["ok"]},
            "ok": {"type": "approval"},
            "z": {"type": "transform", "expression": "'early'", "output_path": "kind"},
            "y": {"topic": "job.y", "depends_on": ["z"]},
        }}),
        json!({}),
    );
    // `a` was begun before anything was written.
    let first = job_request(&run.plan, &run.run, &StepKey::new("a")).unwrap();
    run.after(60_000);
    run.vote("ok", "", "", true).unwrap();
    assert_eq!(run.run.context["kind"], "later");
    assert_eq!(job_request(&run.plan, &run.run, &StepKey::new("a")), Some(first));
}

#[test]
fn a_delay_of_a_second() {
    let mut run = Bench::of(json!({"d": {"type": "delay", "delay_sec": 1}}));
    assert_eq!(run.status(), RunStatus::Running);
    assert_eq!(run.run.due(), Some(run.now.plus(std::time::Duration::from_secs(1))));
    run.after(1_000);
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(
        run.told()[1..],
        [
            "step_delay_started d",
            "run_status running",
            "step_delay_completed d",
            "run_status succeeded"
        ]
    );
}

#[test]
fn a_notification() {
    let run = Bench::of(
        json!({"n": {"type": "notify", "name": "N", "input": {"message": "hello", "level": " warn ", "code": 3}}}),
    );
    assert_eq!(run.status(), RunStatus::Succeeded);
    let [
        Effect::Alert {
            level,
            message,
            code,
            component,
            ..
        },
    ] = run.effects.as_slice()
    else {
        panic!("{:?}", run.effects);
    };
    assert_eq!(
        (level.as_str(), message.as_str(), code.as_str(), component.as_str()),
        ("WARN", "hello", "", "workflow-engine")
    );
}

#[test]
fn a_condition_is_recorded() {
    let run = Bench::start(
        json!({"steps": {"cond": {"type": "condition", "condition": "input.allow", "output_path": "decision.allowed"}}}),
        json!({"allow": true}),
    );
    assert_eq!(run.output("cond"), json!(true));
    assert_eq!(
        Value::Object(run.run.context.clone()),
        json!({"decision": {"allowed": true}})
    );
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.run.head.output.as_deref(), Some(&json!(true)));
}

#[test]
fn templates_of_inputs() {
    let run = Bench::start(
        json!({"steps": {"a": {"topic": "job.t", "input": {"foo": "${input.foo}", "msg": "hello ${input.foo}"}}}}),
        json!({"foo": "bar"}),
    );
    let expected = json!({"foo": "bar", "msg": "hello bar"});
    assert_eq!(run.step("a").input.as_deref(), Some(&expected));
    assert_eq!(run.payloads["r1:a@1"], expected);
}

#[test]
fn the_timeline_of_two_steps() {
    let mut run = Bench::of(json!({"a": {"topic": "job.t"}, "b": {"topic": "job.t", "depends_on": ["a"]}}));
    run.succeed("a", json!(1));
    run.succeed("b", json!(2));
    assert_eq!(
        run.told(),
        [
            "run_created",
            "step_dispatched a",
            "run_status running",
            "step_completed a",
            "step_dispatched b",
            "step_completed b",
            "run_status succeeded"
        ]
    );
}

#[test]
fn an_invalid_output() {
    let mut run = Bench::of(
        json!({"a": {"topic": "job.t", "output_schema": {"type": "object", "required": ["n"]}, "retry": {"max_retries": 3}}}),
    );
    run.succeed("a", json!({}));
    assert_eq!(
        run.told()[1..],
        [
            "step_dispatched a",
            "run_status running",
            "step_output_invalid a",
            "step_completed a",
            "run_status failed"
        ]
    );
    assert_eq!(run.code("a"), "invalid_output");
    assert_eq!(run.step("a").result_ptr, "redis://res:r1:a@1");
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn an_output_with_a_schema_has_to_be_there() {
    for missing in [Fetched::Nothing, Fetched::Missing, Fetched::Elsewhere] {
        let mut run = Bench::of(json!({"a": {"topic": "job.t", "output_schema": {"type": "object"}}}));
        run.ended("r1:a@1", JobState::Succeeded, "", missing);
        assert_eq!(run.code("a"), "output_missing");
    }
}

#[test]
fn a_large_output_is_only_pointed_to() {
    let mut run = Bench::of(json!({"a": {"topic": "job.t", "output_path": "x"}}));
    let large = Fetched::TooLarge {
        bytes: 300_000,
        value: None,
    };
    run.ended("r1:a@1", JobState::Succeeded, "", large);
    assert_eq!(run.step("a").output, None);
    assert_eq!(run.run.context["x"], "redis://res:r1:a@1");
}

#[test]
fn nothing_to_do() {
    let run = Bench::of(json!({}));
    assert_eq!(run.status(), RunStatus::Succeeded);
    let run = Bench::start(
        json!({"steps": {"f": {"topic": "job.t", "for_each": "input.none"}}}),
        json!({}),
    );
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.run.head.output.as_deref(), Some(&json!([])));
}
