use serde_json::{Value, json};

use super::*;
use crate::workflow::advance::tests::harness::Bench;

#[test]
fn the_reference_s_example() {
    let mut run = Bench::start(
        json!({"id": "w1", "steps": {"fan": {"topic": "job.t", "for_each": "input.items", "max_parallel": 1}}}),
        json!({"items": ["a", "b", "c"]}),
    );
    run.succeed("fan[0]", json!({"n": 1}));
    let at = "2023-11-14T22:13:20Z";
    let first = json!({
        "step_id": "fan[0]", "status": "succeeded", "started_at": at, "completed_at": at, "attempts": 1,
        "input": {"items": ["a", "b", "c"], "item": "a"}, "output": "redis://res:r1:fan[0]@1", "job_id": "r1:fan[0]@1", "item": "a",
    });
    let second = json!({
        "step_id": "fan[1]", "status": "running", "started_at": at, "attempts": 1,
        "input": {"items": ["a", "b", "c"], "item": "b"}, "job_id": "r1:fan[1]@1", "item": "b",
    });
    let third = json!({"step_id": "fan[2]", "status": "pending", "item": "c"});
    assert_eq!(
        run_json(&run.run),
        json!({
            "id": "r1", "workflow_id": "w1", "org_id": "acme", "team_id": "", "input": {"items": ["a", "b", "c"]},
            "context": {"steps": {"fan[0]": {"output": {"n": 1}, "result_ptr": "redis://res:r1:fan[0]@1"}}},
            "status": "running", "started_at": at, "completed_at": null, "output": null, "error": null,
            "steps": {
                "fan": {"step_id": "fan", "status": "running", "started_at": at,
                        "children": {"fan[0]": first, "fan[1]": second, "fan[2]": third}},
                "fan[0]": first, "fan[1]": second, "fan[2]": third,
            },
            "total_cost": 0.0, "triggered_by": "", "created_at": at, "updated_at": at,
            "workflow_revision": "hash",
        })
    );
}

#[test]
fn a_run_that_has_not_begun() {
    let run = Bench::idle(json!({"steps": {"a": {"topic": "t"}}}), json!({}));
    let document = run_json(&run.run);
    assert_eq!(document["context"], Value::Null);
    assert_eq!(document["steps"], json!({}));
    assert_eq!(document["status"], "pending");
    assert_eq!(document["started_at"], Value::Null);
}

#[test]
fn steps_without_jobs_show_their_values() {
    let mut run = Bench::of(json!({
        "c": {"type": "condition", "condition": "1 == 2"},
        "t": {"type": "transform", "expression": "[1]"},
        "s": {"topic": "job.t", "condition": "false"},
        "ok": {"type": "approval", "prompt": "Go?", "approval": {"quorum": 2}, "timeout_sec": 9},
    }));
    run.vote("ok", "ann", "dev", true).unwrap();
    let document = run_json(&run.run);
    assert_eq!(document["steps"]["c"]["output"], false);
    assert_eq!(document["steps"]["t"]["output"], json!([1]));
    assert_eq!(document["steps"]["s"]["skipped"], "condition");
    assert_eq!(document["steps"]["ok"]["prompt"], "Go?");
    assert_eq!(document["steps"]["ok"]["votes"][0]["by"], "ann");
    assert_eq!(document["steps"]["ok"]["expires_at"], "2023-11-14T22:13:29Z");
    assert_eq!(
        document["context"]["steps"],
        json!({"c": {"output": false}, "t": {"output": [1]}})
    );
    let summary = run_summary_json(&run.run);
    assert_eq!(summary["status"], "waiting");
    assert!(summary.get("steps").is_none() && summary.get("input").is_none());
}

#[test]
fn an_error_has_a_code() {
    let mut run = Bench::of(json!({"a": {"topic": "job.t"}}));
    run.fail("a");
    let document = run_json(&run.run);
    assert_eq!(
        document["steps"]["a"]["error"],
        json!({"message": "boom", "code": "failed"})
    );
    assert_eq!(
        document["error"],
        json!({"message": "boom", "code": "failed", "step_id": "a"})
    );
    assert_eq!(document["status"], "failed");
}
