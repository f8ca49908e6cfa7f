//! Failures, attempts, compensation and the end (§3.3–3.5, §5).

use std::time::Duration;

use serde_json::{Value, json};

use super::super::retry::pause;
use super::harness::Bench;
use crate::jobs::JobState;
use crate::workflow::event::{Event, Fetched, Refusal};
use crate::workflow::model::Retry;
use crate::workflow::run::{RunStatus, Skip, StepStatus};

#[test]
fn siblings_are_cancelled() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t"},
        "b": {"topic": "t"},
        "ok": {"type": "approval"},
        "c": {"topic": "t", "depends_on": ["a"]},
    }));
    run.fail("a");
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.is("b"), Some(StepStatus::Cancelled));
    assert_eq!(run.is("ok"), Some(StepStatus::Cancelled));
    assert_eq!(run.is("c"), None);
    assert_eq!(run.cancelled_jobs(), ["b@1"]);
    assert_eq!(run.run.head.error.as_ref().unwrap().step_id, "a");
    // What comes of it is told once.
    let late = run.ended("r1:b@1", JobState::Succeeded, "", Fetched::Nothing);
    assert_eq!(late.timeline[0].event_type, "late_result");
    assert!(!run.ended("r1:b@1", JobState::Succeeded, "", Fetched::Nothing).changed);
    assert_eq!(run.is("b"), Some(StepStatus::Cancelled));
}

#[test]
fn siblings_may_finish() {
    let mut run = Bench::start(
        json!({"on_failure": "wait", "steps": {
            "a": {"topic": "t"},
            "b": {"topic": "t", "retry": {"max_retries": 1}},
            "c": {"topic": "t", "depends_on": ["b"]},
        }}),
        json!({}),
    );
    run.fail("a");
    assert_eq!(run.status(), RunStatus::Running);
    run.fail("b");
    run.after(1_000);
    run.succeed("b", Value::Null);
    assert_eq!(run.is("b"), Some(StepStatus::Succeeded));
    assert_eq!(run.is("c"), None);
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn a_handler_takes_over() {
    let steps = json!({
        "a": {"topic": "t", "on_error": "h"},
        "b": {"topic": "t", "depends_on": ["a"]},
        "h": {"topic": "t", "input": {"code": "${error.code}", "text": "${error.message}", "step": "${error.step_id}"}},
        "after_h": {"topic": "t", "depends_on": ["h"]},
        "join": {"topic": "t", "depends_on": ["b", "after_h"], "dependency_policy": "any_success"},
    });
    let mut run = Bench::of(steps.clone());
    assert_eq!(run.jobs(), ["a@1"]);
    run.ended("r1:a@1", JobState::Failed, "E42", Fetched::Nothing);
    assert_eq!(
        run.payloads["r1:h@1"],
        json!({"code": "E42", "text": "boom", "step": "a"})
    );
    assert!(run.step("a").handled);
    run.succeed("h", Value::Null);
    run.succeed("after_h", Value::Null);
    run.succeed("join", Value::Null);
    assert_eq!(run.is("b"), None);
    assert_eq!(run.status(), RunStatus::Succeeded);

    let mut run = Bench::of(steps.clone());
    run.succeed("a", Value::Null);
    assert_eq!(run.step("h").skipped, Some(Skip::Branch));
    assert_eq!(run.step("after_h").skipped, Some(Skip::Branch));
    run.succeed("b", Value::Null);
    run.succeed("join", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);

    // A handler that fails is a failure.
    let mut run = Bench::of(steps);
    run.fail("a");
    run.fail("h");
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.run.head.error.as_ref().unwrap().step_id, "h");
}

#[test]
fn a_handler_may_depend_on_what_it_handles() {
    let mut run = Bench::of(json!({"a": {"topic": "t", "on_error": "h"}, "h": {"topic": "t", "depends_on": ["a"]}}));
    run.fail("a");
    assert_eq!(run.is("h"), Some(StepStatus::Running));
}

#[test]
fn failures_that_do_not_matter() {
    let mut run =
        Bench::of(json!({"a": {"topic": "t", "continue_on_error": true}, "b": {"topic": "t", "depends_on": ["a"]}}));
    run.fail("a");
    assert_eq!(run.jobs(), ["a@1", "b@1"]);
    run.succeed("b", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn what_was_done_is_undone_in_reverse() {
    let undo = |topic: &str| json!({"topic": topic, "input": {"was": "${steps.a.output}"}});
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "compensate": undo("undo.a")},
        "b": {"topic": "t", "depends_on": ["a"], "compensate": undo("undo.b")},
        "n": {"topic": "t", "depends_on": ["b"], "condition": "false", "compensate": undo("undo.n")},
        "c": {"topic": "t", "depends_on": ["n"], "compensate": undo("undo.c")},
        "last": {"topic": "t", "finally": true},
    }));
    run.succeed("a", json!("A"));
    run.succeed("b", json!("B"));
    run.jobs();
    run.fail("c");
    assert_eq!(run.jobs(), ["b~compensate@1"]);
    assert_eq!(run.status(), RunStatus::Running);
    // One that cannot be undone does not stop the rest.
    run.fail("b~compensate");
    assert_eq!(run.jobs(), ["a~compensate@1"]);
    assert_eq!(run.payloads["r1:a~compensate@1"], json!({"was": "A"}));
    run.succeed("a~compensate", Value::Null);
    assert_eq!(run.jobs(), ["last@1"]);
    run.succeed("last", Value::Null);
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.run.head.error.as_ref().unwrap().step_id, "c");
    assert!(run.told().contains(&"run_compensating".to_owned()));
}

#[test]
fn the_end_of_every_run() {
    let steps = json!({
        "a": {"topic": "t"},
        "close": {"topic": "t", "finally": true},
        "report": {"topic": "t", "finally": true, "depends_on": ["a", "close"]},
    });
    let mut run = Bench::of(steps.clone());
    assert_eq!(run.jobs(), ["a@1"]);
    run.succeed("a", json!(1));
    assert_eq!(run.jobs(), ["close@1"]);
    run.succeed("close", Value::Null);
    assert_eq!(run.jobs(), ["report@1"]);
    run.succeed("report", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);

    let mut run = Bench::of(steps.clone());
    run.succeed("a", json!(1));
    run.fail("close");
    assert_eq!(run.status(), RunStatus::Failed);

    let mut run = Bench::of(steps);
    run.cancel().unwrap();
    assert_eq!(run.status(), RunStatus::Running);
    assert_eq!(run.jobs(), ["a@1", "close@1"]);
    run.succeed("close", Value::Null);
    run.succeed("report", Value::Null);
    assert_eq!(run.status(), RunStatus::Cancelled);
}

#[test]
fn steps_that_follow_a_failure_end_before_the_run() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t"},
        "b": {"topic": "t", "depends_on": ["a"]},
        "clean": {"topic": "t", "depends_on": ["b"], "dependency_policy": "all_done"},
    }));
    run.fail("a");
    // `b` never will run: `clean` need not wait for it.
    assert_eq!(run.jobs(), ["a@1", "clean@1"]);
    run.succeed("clean", Value::Null);
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.is("b"), None);
}

#[test]
fn kinds_of_failures() {
    for (state, retry, expected) in [
        (JobState::Failed, json!({"max_retries": 1}), StepStatus::Pending),
        (JobState::Timeout, json!({"max_retries": 1}), StepStatus::Pending),
        (JobState::Denied, json!({"max_retries": 1}), StepStatus::Failed),
        (
            JobState::Denied,
            json!({"max_retries": 1, "on": ["denied"]}),
            StepStatus::Pending,
        ),
        (JobState::Cancelled, json!({"max_retries": 1}), StepStatus::Cancelled),
        (JobState::Timeout, json!({}), StepStatus::TimedOut),
        (
            JobState::Failed,
            json!({"max_retries": 1, "on": ["E1"]}),
            StepStatus::Pending,
        ),
        (
            JobState::Failed,
            json!({"max_retries": 1, "on": ["E2"]}),
            StepStatus::Failed,
        ),
        (
            JobState::Failed,
            json!({"max_retries": 1, "on": ["timeout"]}),
            StepStatus::Failed,
        ),
        (
            JobState::Failed,
            json!({"max_retries": 1, "on": ["failed"], "non_retryable": ["E1"]}),
            StepStatus::Failed,
        ),
    ] {
        let mut run = Bench::of(json!({"a": {"topic": "t", "retry": retry}}));
        let code = if state == JobState::Failed { "E1" } else { "" };
        run.ended("r1:a@1", state, code, Fetched::Nothing);
        assert_eq!(run.is("a"), Some(expected), "{state:?} {retry}");
    }
    let mut run = Bench::of(json!({"a": {"topic": "t"}}));
    run.ended("r1:a@1", JobState::Timeout, "", Fetched::Nothing);
    assert_eq!(run.status(), RunStatus::TimedOut);
    assert_eq!(run.code("a"), "timeout");
}

#[test]
fn failures_before_a_job_may_be_listed() {
    let mut run = Bench::of(
        json!({"a": {"topic": "t", "input_schema": {"required": ["n"]}, "retry": {"max_retries": 2, "on": ["invalid_input"]}}}),
    );
    assert_eq!(run.is("a"), Some(StepStatus::Pending));
    run.after(1_000);
    run.after(2_000);
    assert_eq!(run.is("a"), Some(StepStatus::Failed));
    assert_eq!(run.step("a").attempts, 3);
    assert_eq!(run.jobs(), [""; 0]);
}

#[test]
fn pauses() {
    let retry = |value: Value| -> Retry { serde_json::from_value(value).unwrap() };
    let seconds = |value: Value| -> Vec<f64> {
        let retry = retry(value);
        [1, 2, 3, 10, 100_000]
            .map(|n| pause(&retry, n, "x").as_secs_f64())
            .to_vec()
    };
    let day = 86_400.0;
    assert_eq!(seconds(json!({})), [1.0, 2.0, 4.0, 512.0, day]);
    assert_eq!(
        seconds(json!({"initial_backoff_sec": 3, "multiplier": 1.0})),
        [3.0, 6.0, 12.0, 1_536.0, day]
    );
    assert_eq!(seconds(json!({"multiplier": 1.5})), [1.0, 1.0, 2.0, 38.0, day]);
    assert_eq!(seconds(json!({"max_backoff_sec": 5})), [1.0, 2.0, 4.0, 5.0, 5.0]);
    assert_eq!(
        seconds(json!({"initial_backoff_ms": 250, "multiplier": 1.5})),
        [0.25, 0.375, 0.5625, 9.610_839_844_000_001, day]
    );
    assert_eq!(
        seconds(json!({"initial_backoff_sec": 7, "backoff": "constant"})),
        [7.0; 5]
    );
    assert_eq!(seconds(json!({"initial_backoff_sec": i64::MAX})), [day; 5]);
    let jitter = retry(json!({"initial_backoff_ms": 1_000, "backoff": "constant", "jitter": 0.5}));
    let pauses: Vec<Duration> = (0..100).map(|n| pause(&jitter, 1, &format!("job@{n}"))).collect();
    assert!(pauses.iter().all(|pause| (500..=1_000).contains(&pause.as_millis())));
    let mut different = pauses.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 90, "{}", different.len());
    assert_eq!(pause(&jitter, 1, "job@1"), pauses[1]);
}

#[test]
fn the_error_of_the_last_attempt_is_kept_until_it_succeeds() {
    let mut run = Bench::of(json!({"a": {"topic": "t", "retry": {"max_retries": 2}}}));
    run.fail("a");
    assert_eq!(run.told().last().unwrap(), "step_retry_scheduled a");
    run.after(1_000);
    assert_eq!(run.step("a").error.as_ref().unwrap().message, "boom");
    assert_eq!(run.step("a").next_attempt_at, None);
    run.fail("a");
    run.after(2_000);
    run.fail("a");
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.step("a").attempts, 3);
    assert_eq!(run.step("a").next_attempt_at, None);
}

#[test]
fn the_time_of_a_run_is_up() {
    let mut run = Bench::start(
        json!({"timeout_sec": 10, "steps": {"a": {"topic": "t"}, "ok": {"type": "approval"}, "f": {"topic": "t", "finally": true}}}),
        json!({}),
    );
    run.after(9_999);
    assert_eq!(run.is("a"), Some(StepStatus::Running));
    run.after(1);
    assert_eq!(run.cancelled_jobs(), ["a@1"]);
    assert_eq!(run.jobs(), ["a@1", "f@1"]);
    run.succeed("f", Value::Null);
    assert_eq!(run.status(), RunStatus::TimedOut);
    assert_eq!(run.run.head.error.as_ref().unwrap().code, "timeout");
}

#[test]
fn the_time_of_a_paused_run_goes_on() {
    let mut run = Bench::start(json!({"timeout_ms": 500, "steps": {"a": {"topic": "t"}}}), json!({}));
    run.send(&Event::Pause { by: "ann".to_owned() }).unwrap();
    run.after(500);
    assert_eq!(run.status(), RunStatus::TimedOut);
}

#[test]
fn waiting_for_others_ends_with_the_time_of_the_run() {
    let mut run = Bench::start(
        json!({"timeout_sec": 10, "on_failure": "wait", "steps": {"a": {"topic": "t"}, "ok": {"type": "approval"}}}),
        json!({}),
    );
    run.fail("a");
    assert_eq!(run.status(), RunStatus::Waiting);
    run.after(10_000);
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn a_cancelled_run() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}, "b": {"topic": "t", "depends_on": ["a"]}}));
    let made = run.cancel().unwrap();
    assert_eq!(run.status(), RunStatus::Cancelled);
    // Every step says so, as in the reference.
    assert_eq!(run.is("b"), Some(StepStatus::Cancelled));
    assert_eq!(run.cancelled_jobs(), ["a@1"]);
    assert_eq!(made.audit[0].action, "run.cancel");
    assert_eq!(made.audit[0].id, "wf:r1:1:0");
    let last = run.timeline.last().unwrap();
    assert_eq!(
        (last.event_type.as_str(), last.message.as_str()),
        ("run_status", "run cancelled")
    );
    assert!(!run.cancel().unwrap().changed);
}

#[test]
fn a_run_that_is_over_stays_as_it_is() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}}));
    run.succeed("a", json!(1));
    assert_eq!(run.cancel(), Err(Refusal::RunEnded(RunStatus::Succeeded)));
    assert!(!run.after(1_000_000).changed);
    run.send(&Event::Done(vec![0])).unwrap();
    assert_eq!(run.run.due(), None);
}

#[test]
fn a_second_cancel_stops_compensation() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "compensate": {"topic": "u"}},
        "b": {"topic": "t", "depends_on": ["a"]},
        "f": {"topic": "t", "finally": true},
    }));
    run.succeed("a", Value::Null);
    run.cancel().unwrap();
    assert_eq!(run.is("a~compensate"), Some(StepStatus::Running));
    // A parent repeats itself without meaning more.
    let parent = Event::Cancel {
        by: super::super::SENDER.to_owned(),
        reason: String::new(),
    };
    assert!(!run.send(&parent).unwrap().changed);
    run.cancel().unwrap();
    assert_eq!(run.status(), RunStatus::Cancelled);
    assert_eq!(run.is("a~compensate"), Some(StepStatus::Cancelled));
    assert_eq!(run.is("f"), Some(StepStatus::Cancelled));
}

#[test]
fn the_output_of_a_run() {
    let run = Bench::start(
        json!({"output": {"sum": "${steps.a.output + steps.b.output}"}, "steps": {
            "a": {"type": "transform", "expression": "1"},
            "b": {"type": "transform", "expression": "2"},
        }}),
        json!({}),
    );
    assert_eq!(run.run.head.output.as_deref(), Some(&json!({"sum": 3})));
    let run = Bench::of(json!({
        "a": {"type": "transform", "expression": "1"},
        "b": {"type": "transform", "expression": "2"},
        "c": {"type": "delay"},
        "f": {"type": "transform", "finally": true, "expression": "9"},
    }));
    assert_eq!(run.run.head.output.as_deref(), Some(&json!({"a": 1, "b": 2})));
    let run = Bench::start(json!({"output": "${1 + 'x' * 2}", "steps": {}}), json!({}));
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.run.head.error.as_ref().unwrap().code, "expression");
}

#[test]
fn costs_add_up() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}, "b": {"topic": "t"}}));
    run.succeed("a", json!({"cost": 0.5}));
    run.succeed("b", json!({"usage": {"cost": 0.25}}));
    assert!((run.run.head.total_cost - 0.75).abs() < 1e-9);
}
