use serde_json::json;

use super::*;

fn read(document: &Value) -> Run {
    run(&RunId::new("7b"), document.to_string().as_bytes()).expect("a run")
}

fn step<'a>(run: &'a Run, key: &str) -> &'a StepRecord {
    &run.steps[&StepKey::new(key)]
}

/// The documented example: a fan-out of two, one done.
fn example() -> Value {
    let done = json!({
        "step_id": "fan[0]", "status": "succeeded", "started_at": "2025-01-02T03:04:05.1Z",
        "completed_at": "2025-01-02T03:04:06Z", "attempts": 1, "input": {"items": ["a", "b"], "item": "a"},
        "output": "redis://res:7b:fan[0]@1", "job_id": "7b:fan[0]@1", "item": "a",
    });
    let running = json!({
        "step_id": "fan[1]", "status": "running", "started_at": "2025-01-02T03:04:05.2Z", "attempts": 1,
        "next_attempt_at": "2025-01-02T03:04:01Z", "input": {"items": ["a", "b"], "item": "b"},
        "job_id": "7b:fan[1]@1", "item": "b",
    });
    json!({
        "id": "7b", "workflow_id": "w1", "org_id": "default", "team_id": "", "input": {"items": ["a", "b"]},
        "context": {
            "found": 3,
            "steps": {"fan[0]": {"output": {"n": 1}, "result_ptr": "redis://res:7b:fan[0]@1"}},
        },
        "status": "running", "started_at": "2025-01-02T03:04:05.1Z", "completed_at": null, "output": null, "error": null,
        "steps": {
            "fan": {
                "step_id": "fan", "status": "running", "started_at": "2025-01-02T03:04:05.1Z",
                "children": {"fan[0]": done, "fan[1]": running},
            },
            "fan[0]": done,
            "fan[1]": running,
        },
        "total_cost": 0, "triggered_by": "", "created_at": "2025-01-02T03:04:05Z", "updated_at": "2025-01-02T03:04:06.123456789Z",
    })
}

#[test]
fn the_documented_example_is_read() {
    let run = read(&example());
    assert_eq!(
        (run.head.workflow_id.as_str(), run.head.org_id.as_str()),
        ("w1", "default")
    );
    assert_eq!(run.head.definition, "", "nobody has pinned it");
    assert_eq!(run.head.status, RunStatus::Running);
    assert_eq!(run.head.updated_at, Timestamp::from_micros(1_735_787_046_123_456));
    assert_eq!(run.head.completed_at, None);
    assert_eq!(*run.input, json!({"items": ["a", "b"]}));
    assert_eq!(Value::Object(run.context.clone()), json!({"found": 3}));
    assert_eq!(run.steps.len(), 3, "children are there once");

    let fan = step(&run, "fan");
    let group = Group {
        total: 2,
        next: 2,
        running: 1,
        succeeded: 1,
        failed: 0,
    };
    assert_eq!(fan.group, Some(group));
    assert_eq!(*run.items[&StepKey::new("fan")], vec![json!("a"), json!("b")]);

    let done = step(&run, "fan[0]");
    assert_eq!(done.output.as_deref(), Some(&json!({"n": 1})));
    assert_eq!(done.result_ptr, "redis://res:7b:fan[0]@1");
    assert!(done.inherits_input && done.input.is_none());
    assert_eq!(done.ended_nth, 1);
    let running = step(&run, "fan[1]");
    assert_eq!(running.next_attempt_at, None, "left over from an attempt before");
    assert!(running.in_flight());

    let head = &run.head;
    assert_eq!((head.open, head.waiting, head.in_flight, head.ended), (2, 0, 1, 1));
    assert_eq!(head.check_at, Some(head.updated_at), "its job is looked for at once");
    assert_eq!(run.due(), Some(head.updated_at));
}

#[test]
fn children_that_were_not_begun_have_no_record() {
    let mut document = example();
    for index in 2..5 {
        let key = format!("fan[{index}]");
        let child = json!({"step_id": key, "status": "pending", "item": index});
        document["steps"]["fan"]["children"][&key] = child.clone();
        document["steps"][&key] = child;
    }
    let retried = json!({
        "step_id": "fan[1]", "status": "pending", "attempts": 1, "next_attempt_at": "2025-01-02T03:04:09Z", "item": "b",
        "job_id": "7b:fan[1]@1", "error": {"message": "no luck"},
    });
    document["steps"]["fan[1]"] = retried;
    let run = read(&document);
    let group = step(&run, "fan").group.clone().expect("a group");
    assert_eq!((group.total, group.next, group.running), (5, 2, 0));
    assert_eq!(run.items[&StepKey::new("fan")][4], json!(4));
    assert_eq!(run.steps.len(), 3);
    assert_eq!(run.timers.len(), 1);
    assert_eq!(
        step(&run, "fan[1]").error.as_ref().expect("an error").message,
        "no luck"
    );
}

#[test]
fn steps_of_every_type_are_read() {
    let run = read(&json!({
        "id": "7b", "workflow_id": "w1", "status": "waiting", "input": {"a": 1}, "context": {"steps": {"if": {"output": false}}},
        "labels": {"dry_run": "true", "n": 1}, "metadata": {"rerun_of": "6a"}, "rerun_of": "6a", "dry_run": true,
        "steps": {
            "if": {"status": "succeeded", "output": false, "completed_at": "2025-01-02T03:04:05Z"},
            "gate": {"status": "waiting", "started_at": "2025-01-02T03:04:07Z"},
            "sleep": {"status": "running", "next_attempt_at": "2025-01-02T03:04:09Z"},
            "own": {"status": "failed", "attempts": 2, "input": {"b": 2}, "error": {"message": "no"}, "job_id": "7b:own@2"},
            "same": {"status": "succeeded", "attempts": 1, "input": {"a": 1}, "output": "redis://res:7b:same@1",
                     "job_id": "7b:same@1", "completed_at": "2025-01-02T03:04:04Z"},
            "new": {"status": "pending"},
        },
    }));
    assert_eq!(step(&run, "if").output.as_deref(), Some(&json!(false)));
    assert_eq!(inbox(&run).len(), 1);
    assert_eq!(run.timers.len(), 1, "the delay");
    assert_eq!(step(&run, "own").input.as_deref(), Some(&json!({"b": 2})));
    assert!(step(&run, "same").inherits_input);
    assert_eq!(step(&run, "same").output, None, "too large to be in the context");
    assert_eq!((step(&run, "same").ended_nth, step(&run, "if").ended_nth), (1, 2));
    assert!(!run.steps.contains_key("new"));
    assert_eq!(run.head.labels.len(), 1);
    assert!(run.head.dry_run);
}

#[test]
fn nulls_and_garbage_count_as_empty() {
    let run = read(&json!({
        "id": 7, "workflow_id": null, "org_id": 1, "status": "pending", "input": null, "context": null, "steps": {
            "a": null, "b": 1, "c": {"status": "failed", "attempts": -1, "input": [], "error": {}, "children": {"c[99999999]": {}}},
        },
        "created_at": "yesterday", "updated_at": "0001-01-01T00:00:00Z", "labels": null, "total_cost": "much",
    }));
    assert_eq!(*run.input, json!({}));
    assert_eq!(run.head.created_at, Timestamp::ZERO);
    assert_eq!(run.head.updated_at, Timestamp::ZERO);
    assert_eq!(run.steps.len(), 1);
    assert_eq!(step(&run, "c").group, None);
}

#[test]
fn what_is_no_run_is_refused() {
    for text in ["", "[]", "7b", "{}", r#"{"status":"odd"}"#, r#"{"status":"#] {
        let read = run(&RunId::new("7b"), text.as_bytes());
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{text}");
    }
}

#[test]
fn a_revision_names_the_content() {
    // SHA-1 of "abc" begins with a9993e364706.
    assert_eq!(revision_of(b"abc"), 0xa999_3e36_4706);
    assert_eq!(sha1_hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
}
