//! Which steps are reached: policies, conditions, switches, fan-outs, `parallel` and `loop` (§2.2, §3.1, §3.2).

use serde_json::{Value, json};

use super::harness::Bench;
use crate::workflow::run::{RunStatus, Skip, StepStatus};

#[test]
fn inline_steps_go_on_at_once_in_topological_order() {
    // Ids against the order of dependencies: one pass by id would stop in between.
    let run = Bench::of(json!({
        "d": {"type": "condition", "condition": "true"},
        "c": {"type": "transform", "expression": "1", "depends_on": ["d"]},
        "b": {"type": "delay", "depends_on": ["c"]},
        "a": {"type": "notify", "depends_on": ["b"]},
    }));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(
        run.timeline
            .iter()
            .filter(|entry| entry.event_type == "run_status")
            .count(),
        1
    );
}

#[test]
fn a_condition_is_asked_once() {
    // An approval that is gated cannot be passed by what changes afterwards.
    let mut run = Bench::of(json!({
        "flag": {"type": "transform", "expression": "true", "output_path": "open"},
        "ok": {"type": "approval", "condition": "ctx.open", "depends_on": ["flag"]},
        "gone": {"type": "transform", "expression": "false", "output_path": "open", "depends_on": ["flag", "work"]},
        "work": {"topic": "t", "depends_on": ["flag"]},
        "guarded": {"topic": "t", "depends_on": ["ok"]},
    }));
    assert_eq!(run.is("ok"), Some(StepStatus::Waiting));
    run.succeed("work", Value::Null);
    assert_eq!(run.run.context["open"], false);
    run.after(60_000);
    assert_eq!(run.is("ok"), Some(StepStatus::Waiting));
    assert_eq!(run.is("guarded"), None);
}

#[test]
fn a_retry_is_not_gated_again() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "condition": "size(steps) == 0", "retry": {"max_retries": 1}},
    }));
    run.fail("a");
    run.after(2_000);
    assert_eq!(run.jobs(), ["a@1", "a@2"]);
}

#[test]
fn a_gated_step_is_skipped_and_passed() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "condition": "1 == 2"},
        "b": {"topic": "t", "depends_on": ["a"]},
    }));
    assert_eq!(run.step("a").skipped, Some(Skip::Condition));
    assert_eq!(run.is("a"), Some(StepStatus::Succeeded));
    assert_eq!(run.jobs(), ["b@1"]);
}

#[test]
fn expressions_that_cannot_be_evaluated_fail_their_step() {
    for (step, code) in [
        (json!({"topic": "t", "condition": "1 + 'a' * 2"}), "expression"),
        (json!({"type": "condition"}), "expression"),
        (json!({"topic": "t", "for_each": "'text'"}), "fan_out"),
        (
            json!({"topic": "t", "for_each": "[1, 2, 3]", "max_items": 2}),
            "fan_out",
        ),
        (json!({"topic": "t", "input": {"x": "${"}}), "expression"),
        (json!({"type": "delay", "delay_sec": -1}), "expression"),
        (json!({"type": "delay", "delay_until": "soon"}), "expression"),
        (
            json!({"topic": "t", "input_schema": {"type": "object", "required": ["n"]}}),
            "invalid_input",
        ),
        (
            json!({"type": "transform", "expression": "1", "output_schema": {"type": "string"}}),
            "invalid_output",
        ),
        (json!({"topic": "t", "depends_on": ["nobody"]}), "invalid_definition"),
        (json!({"topic": "t", "depends_on": ["a"]}), "invalid_definition"),
        (json!({"type": "subworkflow"}), "unknown_workflow"),
        (json!({"type": "loop"}), "invalid_definition"),
        (json!({"topic": "${input.none}"}), "expression"),
    ] {
        let run = Bench::of(json!({"a": step}));
        assert_eq!(run.code("a"), code, "{step}");
        assert_eq!(run.status(), RunStatus::Failed, "{step}");
        assert!(run.step("a").completed_at.is_some());
    }
}

#[test]
fn every_policy() {
    let steps = |policy: &str| {
        json!({
            "good": {"topic": "t"},
            "bad": {"topic": "t", "continue_on_error": policy == "any_success"},
            "slow": {"topic": "t"},
            "next": {"topic": "t", "depends_on": ["good", "bad", "slow"], "dependency_policy": policy},
        })
    };
    for (policy, after_good, after_bad) in [
        ("all_success", false, false),
        ("any_success", true, true),
        ("all_done", false, true),
        ("on_failure", false, true),
    ] {
        let mut run = Bench::of(steps(policy));
        run.jobs();
        run.succeed("good", Value::Null);
        assert_eq!(run.is("next").is_some(), after_good, "{policy}");
        run.fail("bad");
        assert_eq!(run.is("next").is_some(), after_bad, "{policy}");
        // The failure cancelled what was in flight.
        if policy == "all_done" {
            assert_eq!(run.is("slow"), Some(StepStatus::Cancelled));
            run.succeed("next", Value::Null);
        }
        if policy == "on_failure" {
            run.succeed("next", Value::Null);
        }
        if policy != "any_success" {
            assert_eq!(run.status(), RunStatus::Failed, "{policy}");
        }
    }
}

#[test]
fn what_follows_a_failure_is_not_reached_without_one() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t"},
        "repair": {"topic": "t", "depends_on": ["a"], "dependency_policy": "on_failure"},
        "last": {"topic": "t", "depends_on": ["repair", "a"], "dependency_policy": "all_done"},
        "after": {"topic": "t", "depends_on": ["repair"]},
    }));
    run.succeed("a", Value::Null);
    assert_eq!(run.is("repair"), None);
    assert_eq!(run.jobs(), ["a@1", "last@1"]);
    run.succeed("last", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.is("after"), None);
}

#[test]
fn a_switch_goes_one_way() {
    let steps = json!({
        "sw": {"type": "switch", "cases": [{"when": "input.n > 10", "then": ["big"]}, {"when": "input.n > 1", "then": ["mid", "mid2"]}], "default": ["small"]},
        "big": {"topic": "t"},
        "mid": {"topic": "t"},
        "mid2": {"topic": "t", "depends_on": ["mid"]},
        "small": {"topic": "t"},
        "after_big": {"topic": "t", "depends_on": ["big"]},
        "join": {"topic": "t", "depends_on": ["big", "mid2", "small"]},
    });
    for (n, way) in [
        (11, vec!["big", "after_big"]),
        (5, vec!["mid", "mid2"]),
        (0, vec!["small"]),
    ] {
        let mut run = Bench::start(json!({"steps": steps}), json!({"n": n}));
        for step in ["big", "after_big", "mid", "mid2", "small"] {
            if way.contains(&step) {
                run.succeed(step, json!(step));
            } else {
                assert_eq!(run.step(step).skipped, Some(Skip::Branch), "{n} {step}");
            }
        }
        assert_eq!(run.is("join"), Some(StepStatus::Running), "{n}");
        run.succeed("join", json!("joined"));
        assert_eq!(run.status(), RunStatus::Succeeded);
    }
}

#[test]
fn a_switch_that_does_not_run_skips_all_its_ways() {
    let run = Bench::of(json!({
        "sw": {"type": "switch", "condition": "false", "cases": [{"when": "true", "then": ["a"]}], "default": ["b"]},
        "a": {"topic": "t"},
        "b": {"topic": "t"},
    }));
    assert_eq!(run.step("a").skipped, Some(Skip::Branch));
    assert_eq!(run.step("b").skipped, Some(Skip::Branch));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn branches_side_by_side() {
    let branches = json!([{"topic": "x"}, {"topic": "y"}, {"type": "transform", "expression": "items_total + index"}]);
    let mut run = Bench::of(json!({"p": {"type": "parallel", "branches": branches, "output_path": "all"}}));
    assert_eq!(run.jobs(), ["p[0]@1", "p[1]@1"]);
    run.succeed("p[0]", json!("x"));
    run.succeed("p[1]", json!("y"));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.run.context["all"], json!(["x", "y", 5]));

    // The first is enough: the others are cancelled.
    let mut run = Bench::of(
        json!({"p": {"type": "parallel", "branches": [{"topic": "x"}, {"topic": "y"}, {"topic": "z"}], "wait_for": "any"}}),
    );
    run.fail("p[1]");
    assert_eq!(run.status(), RunStatus::Running);
    run.succeed("p[0]", json!("x"));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.cancelled_jobs(), ["p[2]@1"]);
    assert_eq!(run.run.head.output.as_deref(), Some(&json!(["x", null, null])));

    // Too many failures.
    let mut run = Bench::of(
        json!({"p": {"type": "parallel", "branches": [{"topic": "x"}, {"topic": "y"}, {"topic": "z"}], "wait_for": 2}}),
    );
    run.fail("p[1]");
    run.fail("p[2]");
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.cancelled_jobs(), ["p[0]@1"]);
    assert_eq!(run.step("p").error.as_ref().unwrap().message, "p[1]: boom");
}

#[test]
fn one_branch_after_another() {
    let mut run = Bench::of(
        json!({"p": {"type": "parallel", "max_parallel": 1, "branches": [{"topic": "x"}, {"type": "approval"}]}}),
    );
    assert_eq!(run.jobs(), ["p[0]@1"]);
    run.succeed("p[0]", Value::Null);
    assert_eq!(run.status(), RunStatus::Waiting);
    run.vote("p[1]", "ann", "", true).unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn rounds() {
    let mut run = Bench::of(
        json!({"l": {"type": "loop", "until": "last.done", "body": {"topic": "t", "input": {"n": "${index}", "before": "${last}"}}}}),
    );
    assert_eq!(run.payloads["r1:l[0]@1"], json!({"n": 0, "before": null}));
    run.succeed("l[0]", json!({"done": false}));
    assert_eq!(run.payloads["r1:l[1]@1"], json!({"n": 1, "before": {"done": false}}));
    run.succeed("l[1]", json!({"done": true}));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.run.head.output.as_deref(), Some(&json!({"done": true})));

    let run = Bench::of(
        json!({"l": {"type": "loop", "while": "index < 3", "body": {"type": "transform", "expression": "index"}}}),
    );
    assert_eq!(run.output("l"), json!(2));
    let run = Bench::of(json!({"l": {"type": "loop", "while": "false", "body": {"topic": "t"}}}));
    assert_eq!((run.status(), run.output("l")), (RunStatus::Succeeded, Value::Null));
    let run = Bench::of(
        json!({"l": {"type": "loop", "max_iterations": 4, "body": {"type": "transform", "expression": "index"}}}),
    );
    assert_eq!(run.output("l"), json!(3));
    let run = Bench::of(
        json!({"l": {"type": "loop", "while": "true", "max_iterations": 4, "body": {"type": "transform", "expression": "index"}}}),
    );
    assert_eq!(run.code("l"), "loop_limit");
    // A thousand rounds need more than one commit, and no deep stack.
    let run = Bench::of(
        json!({"l": {"type": "loop", "while": "true", "body": {"type": "transform", "expression": "index"}}}),
    );
    assert_eq!(run.code("l"), "loop_limit");
    assert_eq!(run.run.revision, 2);
}

#[test]
fn a_round_that_fails_ends_the_loop() {
    let mut run =
        Bench::of(json!({"l": {"type": "loop", "while": "true", "body": {"topic": "t", "retry": {"max_retries": 1}}}}));
    run.fail("l[0]");
    assert_eq!(run.is("l"), Some(StepStatus::Running));
    run.after(1_000);
    assert_eq!(run.jobs(), ["l[0]@1", "l[0]@2"]);
    run.fail("l[0]");
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn failures_that_are_tolerated() {
    let mut run = Bench::of(json!({
        "fan": {"topic": "t", "for_each": "[1, 2, 3]", "tolerated_failures": 1},
        "sum": {"type": "transform", "expression": "steps.fan.output", "depends_on": ["fan"]},
    }));
    run.succeed("fan[0]", json!(1));
    run.fail("fan[1]");
    assert_eq!(run.is("fan"), Some(StepStatus::Running));
    run.succeed("fan[2]", json!(3));
    assert_eq!(run.output("sum"), json!([1, null, 3]));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_failed_child_cancels_the_others() {
    let mut run = Bench::of(json!({"fan": {"topic": "t", "for_each": "[1, 2, 3]", "max_parallel": 2}}));
    run.fail("fan[0]");
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.cancelled_jobs(), ["fan[1]@1"]);
    assert_eq!(run.is("fan[2]"), None);

    let mut run = Bench::start(
        json!({"on_failure": "wait", "steps": {"fan": {"topic": "t", "for_each": "[1, 2, 3]", "max_parallel": 2}}}),
        json!({}),
    );
    run.fail("fan[0]");
    assert_eq!(run.status(), RunStatus::Running);
    run.succeed("fan[1]", Value::Null);
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.is("fan[2]"), None);
}

#[test]
fn a_retry_waits_for_a_place() {
    let mut run = Bench::of(
        json!({"fan": {"topic": "t", "for_each": "[1, 2, 3]", "max_parallel": 1, "retry": {"max_retries": 1}}}),
    );
    run.fail("fan[0]");
    assert_eq!(run.jobs(), ["fan[0]@1", "fan[1]@1"]);
    // Its pause is over, but the place is taken.
    run.after(1_000);
    assert_eq!(run.jobs(), [""; 0]);
    assert!(!run.wake().changed);
    run.succeed("fan[1]", Value::Null);
    assert_eq!(run.jobs(), ["fan[0]@2"]);
    run.succeed("fan[0]", Value::Null);
    assert_eq!(run.jobs(), ["fan[2]@1"]);
    run.succeed("fan[2]", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_large_fan_out_takes_several_commits() {
    let items: Vec<u32> = (0..1_234).collect();
    let mut run = Bench::start(
        json!({"steps": {"fan": {"topic": "t", "for_each": "input.items"}}}),
        json!({"items": items}),
    );
    assert_eq!(run.jobs().len(), 1_234);
    assert_eq!(run.run.revision, 3);
    for index in 0..1_234 {
        let made = run.succeed(&format!("fan[{index}]"), json!(index));
        // The child and its parent, nothing else.
        assert_eq!(made.steps.len(), 2);
    }
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn native_types_with_a_topic_are_jobs() {
    for kind in [
        "switch",
        "parallel",
        "loop",
        "subworkflow",
        "transform",
        "input",
        "signal",
        "storage",
        "llm",
    ] {
        let mut run = Bench::of(json!({"a": {"type": kind, "topic": "t"}}));
        assert_eq!(run.jobs(), ["a@1"], "{kind}");
    }
}

#[test]
fn children_see_their_item() {
    let run = Bench::of(
        json!({"fan": {"type": "transform", "for_each": "[10, null, 30]", "expression": "[item, index, items_total]"}}),
    );
    assert_eq!(run.output("fan[0]"), json!([10, 0, 3]));
    assert_eq!(run.output("fan[1]"), json!([null, 1, 3]));
}

#[test]
fn the_scope() {
    let run = Bench::start(
        json!({"steps": {
            "a": {"type": "transform", "expression": "1"},
            "fan": {"type": "transform", "for_each": "[5, 6]", "expression": "item", "depends_on": ["a"]},
            "z": {"type": "transform", "depends_on": ["fan"], "input": {
                "run": "${run.id}/${run.workflow_id}/${run.org_id}/${run.dry_run}", "step": "${steps.a.status}",
                "child": "${steps.fan[1].output}", "all": "${steps.fan.output}", "ctx": "${ctx.steps.a.output}",
                "missing": "${steps.nobody.output}", "deep": "${input.x.y}", "attempts": "${steps.a.attempts}",
            }},
        }}),
        json!({"x": {"y": 7}}),
    );
    assert_eq!(
        run.output("z"),
        json!({
            "run": "r1/w/acme/false", "step": "succeeded", "child": 6, "all": [5, 6], "ctx": 1, "missing": null, "deep": 7,
            "attempts": 0,
        })
    );
}
