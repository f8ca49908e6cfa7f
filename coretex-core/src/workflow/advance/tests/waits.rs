//! People, signals, child runs, and the safety of all that comes from outside (§2.2, §4.1, §4.4, §6).

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::dispatch::child_run;
use super::harness::Bench;
use crate::jobs::JobState;
use crate::protocol::JobId;
use crate::workflow::event::{Effect, Event, Fetched, JobEnded, Refusal};
use crate::workflow::run::{Failure, ParentStep, RunId, RunStatus, StepKey, StepStatus};

fn form(run: &mut Bench, step: &str, value: Value) -> Result<(), Refusal> {
    let event = Event::Form {
        step: StepKey::new(step),
        value: Arc::new(value),
        by: "ann".to_owned(),
        role: "dev".to_owned(),
    };
    run.send(&event).map(|_| ())
}

fn signal(run: &mut Bench, name: &str, payload: Value, id: &str) -> Result<bool, Refusal> {
    let event = Event::Signal {
        name: name.to_owned(),
        payload: Arc::new(payload),
        id: id.to_owned(),
        by: String::new(),
    };
    run.send(&event).map(|made| made.changed)
}

#[test]
fn votes() {
    let mut run = Bench::of(
        json!({"ok": {"type": "approval", "prompt": "Deploy ${run.id}?", "approval": {"quorum": 2, "roles": ["lead", "ops"]}}}),
    );
    assert_eq!(run.step("ok").prompt, "Deploy r1?");
    assert!(matches!(run.vote("ok", "ann", "dev", true), Err(Refusal::Role { .. })));
    assert_eq!(run.vote("ok", "", "lead", true), Err(Refusal::Anonymous(2)));
    run.vote("ok", "ann", "lead", true).unwrap();
    assert_eq!(run.is("ok"), Some(StepStatus::Waiting));
    assert_eq!(
        run.vote("ok", "ann", "lead", true),
        Err(Refusal::AlreadyVoted("ann".to_owned()))
    );
    run.vote("ok", "bob", "ops", true).unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(
        run.audit.iter().map(|record| record.actor.as_str()).collect::<Vec<_>>(),
        ["ann", "bob"]
    );
    assert_eq!(
        run.vote("ok", "eve", "ops", true),
        Err(Refusal::RunEnded(RunStatus::Succeeded))
    );
}

#[test]
fn one_no_is_enough() {
    let mut run = Bench::of(json!({"ok": {"type": "approval", "approval": {"quorum": 3}}}));
    run.vote("ok", "ann", "", true).unwrap();
    run.vote("ok", "bob", "", false).unwrap();
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.code("ok"), "rejected");
    assert!(run.told().contains(&"step_rejected ok".to_owned()));
}

#[test]
fn votes_where_nobody_asks() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}, "ok": {"type": "approval", "depends_on": ["a"]}}));
    assert_eq!(run.vote("nobody", "ann", "", true), Err(Refusal::StepNotFound));
    assert_eq!(run.vote("ok", "ann", "", true), Err(Refusal::StepNotFound));
    assert_eq!(run.vote("a", "ann", "", true), Err(Refusal::StepNotWaiting));
    run.fail("a");
    assert_eq!(
        run.vote("a", "ann", "", true),
        Err(Refusal::RunEnded(RunStatus::Failed))
    );
}

#[test]
fn approvals_expire() {
    for (rule, step, status) in [
        ("fail", StepStatus::TimedOut, RunStatus::TimedOut),
        ("reject", StepStatus::Failed, RunStatus::Failed),
        ("approve", StepStatus::Succeeded, RunStatus::Succeeded),
    ] {
        let mut run = Bench::of(json!({"ok": {"type": "approval", "timeout_sec": 5, "approval": {"on_expiry": rule}}}));
        run.after(4_999);
        assert_eq!(run.status(), RunStatus::Waiting);
        run.after(1);
        assert_eq!((run.is("ok"), run.status()), (Some(step), status), "{rule}");
        assert!(run.told().contains(&"step_expired ok".to_owned()));
    }
}

#[test]
fn other_branches_go_on_while_one_waits() {
    let mut run = Bench::of(json!({
        "ok": {"type": "approval"},
        "a": {"topic": "t"},
        "b": {"topic": "t", "depends_on": ["a"]},
    }));
    run.succeed("a", Value::Null);
    assert_eq!(run.status(), RunStatus::Waiting);
    assert_eq!(run.jobs(), ["a@1", "b@1"]);
}

#[test]
fn forms() {
    let mut run = Bench::of(json!({
        "ask": {"type": "input", "prompt": "How many?", "output_schema": {"type": "object", "required": ["n"]}},
        "use": {"type": "transform", "expression": "steps.ask.output.n + 1", "depends_on": ["ask"]},
    }));
    assert_eq!(run.status(), RunStatus::Waiting);
    assert!(matches!(form(&mut run, "ask", json!({})), Err(Refusal::Form(problems)) if problems.len() == 1));
    form(&mut run, "ask", json!({"n": 2})).unwrap();
    assert_eq!(run.output("use"), json!(3));
    assert_eq!(run.audit[0].action, "workflow.input");
    assert_eq!(
        form(&mut run, "ask", json!({"n": 2})),
        Err(Refusal::RunEnded(RunStatus::Succeeded))
    );
    let mut run = Bench::of(json!({"ask": {"type": "input", "timeout_sec": 1}}));
    run.after(1_000);
    assert_eq!(run.status(), RunStatus::TimedOut);
}

#[test]
fn signals() {
    let mut run = Bench::of(json!({
        "paid": {"type": "signal", "output_schema": {"type": "object"}},
        "first": {"type": "delay", "delay_sec": 5},
        "sent": {"type": "signal", "signal": "shipped", "depends_on": ["first"], "timeout_sec": 60},
    }));
    assert_eq!(run.status(), RunStatus::Running);
    assert!(matches!(signal(&mut run, "paid", json!(1), ""), Err(Refusal::Form(_))));
    // One that comes before anybody waits is kept.
    assert!(signal(&mut run, "shipped", json!("early"), "id1").unwrap());
    assert!(!signal(&mut run, "shipped", json!("early"), "id1").unwrap());
    assert!(signal(&mut run, "paid", json!({"eur": 3}), "").unwrap());
    assert_eq!(run.output("paid"), json!({"eur": 3}));
    run.after(5_000);
    assert_eq!(run.output("sent"), json!("early"));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert!(run.run.head.signals.is_empty());
}

#[test]
fn too_many_signals() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}}));
    for n in 0..super::super::MAX_SIGNALS {
        signal(&mut run, "x", json!(n), "").unwrap();
    }
    assert!(matches!(
        signal(&mut run, "x", json!(0), ""),
        Err(Refusal::TooManySignals(_))
    ));
}

#[test]
fn a_fan_out_of_signals_takes_one_each() {
    let mut run = Bench::of(json!({"s": {"type": "signal", "signal": "go", "for_each": "[1, 2]"}}));
    signal(&mut run, "go", json!("a"), "").unwrap();
    signal(&mut run, "go", json!("b"), "").unwrap();
    assert_eq!(run.run.head.output.as_deref(), Some(&json!(["a", "b"])));
}

#[test]
fn a_child_run() {
    let mut run = Bench::of(json!({
        "sub": {"type": "subworkflow", "workflow": "other-${1 + 1}", "input": {"n": 1}, "retry": {"max_retries": 1}, "output_schema": {"type": "number"}},
    }));
    let [
        Effect::StartChild {
            run: child,
            workflow,
            input,
            ..
        },
    ] = run.effects.as_slice()
    else {
        panic!("{:?}", run.effects);
    };
    assert_eq!((workflow.as_str(), &**input), ("other-2", &json!({"n": 1})));
    let child = child.clone();
    assert_eq!(child, child_run(&RunId::new("r1"), &StepKey::new("sub"), 1));
    let ended = |run: &RunId, status, output: Option<Value>| Event::ChildEnded {
        step: StepKey::new("sub"),
        run: run.clone(),
        status,
        output: output.map(Arc::new),
        error: None,
        cost: 1.5,
    };
    run.send(&ended(&child, RunStatus::Failed, None)).unwrap();
    assert_eq!(run.is("sub"), Some(StepStatus::Pending));
    run.after(1_000);
    let second = run.step("sub").child_run.clone().unwrap();
    assert_ne!(second, child);
    // What the first one says now is of no interest.
    assert!(
        !run.send(&ended(&child, RunStatus::Succeeded, Some(json!(1))))
            .unwrap()
            .changed
    );
    run.send(&ended(&second, RunStatus::Succeeded, Some(json!(7)))).unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.run.head.output.as_deref(), Some(&json!(7)));
    assert!((run.run.head.total_cost - 3.0).abs() < 1e-9);
}

#[test]
fn child_runs_are_stopped_with_their_parent() {
    let mut run = Bench::of(json!({"sub": {"type": "subworkflow", "workflow": "w2"}}));
    run.cancel().unwrap();
    assert!(matches!(run.effects.last(), Some(Effect::CancelChild { .. })));
    let mut run = Bench::of(json!({"sub": {"type": "subworkflow", "workflow": "w2", "timeout_sec": 1}}));
    run.after(1_000);
    assert!(matches!(run.effects.last(), Some(Effect::CancelChild { .. })));
    assert_eq!(run.status(), RunStatus::TimedOut);
}

#[test]
fn a_child_that_is_refused() {
    let mut run = Bench::of(json!({"sub": {"type": "subworkflow", "workflow": "w2", "retry": {"max_retries": 3}}}));
    let child = run.step("sub").child_run.clone().unwrap();
    let error = Failure {
        code: "unknown_workflow".to_owned(),
        message: "no".to_owned(),
        ..Failure::default()
    };
    run.send(&Event::ChildRefused {
        step: StepKey::new("sub"),
        run: child,
        error,
    })
    .unwrap();
    assert_eq!(run.code("sub"), "unknown_workflow");
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn runs_start_runs_only_so_deep() {
    let mut run = Bench::idle(
        json!({"steps": {"sub": {"type": "subworkflow", "workflow": "w"}}}),
        json!({}),
    );
    run.run.head.parent = Some(ParentStep {
        run: RunId::new("p"),
        step: StepKey::new("s"),
        depth: super::super::MAX_DEPTH,
    });
    run.wake();
    assert_eq!(run.code("sub"), "too_deep");
    assert_eq!(run.effects, [Effect::TellParent]);
}

fn result(job: &str) -> Event {
    Event::JobEnded {
        job: JobId::try_new(job).unwrap(),
        ended: JobEnded {
            state: JobState::Succeeded,
            result_ptr: String::new(),
            output: Fetched::Nothing,
            error_code: String::new(),
            error_message: String::new(),
        },
    }
}

#[test]
fn results_that_nobody_waits_for() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "retry": {"max_retries": 2}},
        "b": {"topic": "t", "depends_on": ["a"]},
        "ok": {"type": "approval"},
        "fan": {"topic": "t", "for_each": "[1]"},
    }));
    for job in [
        "r1:b@1",
        "r1:zz@1",
        "r1:a@2",
        "r1:a",
        "r1:a@1-retry-ff",
        "r1:ok@1",
        "r1:fan@1",
        "r1:fan[7]@1",
        "r2:a@1",
        "x",
    ] {
        assert!(!run.send(&result(job)).unwrap().changed, "{job}");
    }
    // A failed attempt is over: its result again, or another, says nothing.
    run.fail("a");
    assert!(!run.fail("a").changed);
    assert!(!run.send(&result("r1:a@1")).unwrap().changed);
    // Only an end is an end.
    run.after(1_000);
    for state in [JobState::Running, JobState::Pending, JobState::Dispatched] {
        assert!(!run.ended("r1:a@2", state, "", Fetched::Nothing).changed);
    }
}

#[test]
fn foreign_pointers_are_not_followed_nor_kept() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}}));
    run.ended(
        "r1:a@1",
        JobState::Succeeded,
        "",
        Fetched::Foreign("redis://cfg:system".to_owned()),
    );
    assert_eq!(run.code("a"), "foreign_pointer");
    assert_eq!(run.step("a").result_ptr, "");
    assert_eq!(run.status(), RunStatus::Failed);
}

#[test]
fn a_job_that_nobody_knows_is_submitted_again() {
    let mut run = Bench::of(json!({"a": {"topic": "t", "input": {"n": 1}}}));
    let job = JobId::try_new("r1:a@1").unwrap();
    // Not yet done for the first time.
    assert!(!run.send(&Event::JobLost { job: job.clone() }).unwrap().changed);
    run.send(&Event::Done(vec![0])).unwrap();
    run.payloads.clear();
    run.send(&Event::JobLost { job: job.clone() }).unwrap();
    assert_eq!(run.jobs(), ["a@1", "a@1"]);
    assert_eq!(run.payloads["r1:a@1"], json!({"n": 1}));
    run.succeed("a", Value::Null);
    assert!(!run.send(&Event::JobLost { job }).unwrap().changed);
}

#[test]
fn jobs_in_flight_are_looked_after() {
    let mut run = Bench::of(json!({"a": {"topic": "t"}}));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let at = run.run.head.check_at.unwrap();
        pauses.push(at.since(run.now).as_secs());
        run.now = at;
        assert!(!run.wake().changed);
        run.send(&Event::Checked).unwrap();
        assert!(!run.send(&Event::Checked).unwrap().changed);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
    run.succeed("a", Value::Null);
    assert_eq!(run.run.head.check_at, None);
}

#[test]
fn a_paused_run_begins_nothing() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t", "retry": {"max_retries": 1}},
        "b": {"topic": "t", "depends_on": ["a"]},
        "d": {"type": "delay", "delay_sec": 1},
        "fan": {"topic": "t", "for_each": "[1, 2]", "max_parallel": 1},
    }));
    run.jobs();
    run.send(&Event::Pause { by: "ann".to_owned() }).unwrap();
    assert!(!run.send(&Event::Pause { by: "ann".to_owned() }).unwrap().changed);
    run.fail("a");
    run.succeed("fan[0]", Value::Null);
    run.after(60_000);
    assert_eq!(run.jobs(), [""; 0]);
    assert_eq!(run.is("d"), Some(StepStatus::Running));
    run.send(&Event::Resume { by: "ann".to_owned() }).unwrap();
    assert_eq!(run.is("d"), Some(StepStatus::Succeeded));
    let mut jobs = run.jobs();
    jobs.sort();
    assert_eq!(jobs, ["a@2", "fan[1]@1"]);
    assert_eq!(
        run.audit
            .iter()
            .map(|record| record.action.as_str())
            .collect::<Vec<_>>(),
        ["run.pause", "run.resume"]
    );
}

#[test]
fn a_run_that_starts_later() {
    let mut run = Bench::idle(json!({"steps": {"a": {"topic": "t"}}}), json!({}));
    let at = run.now.plus(std::time::Duration::from_secs(60));
    run.run.head.start_at = Some(at);
    run.stored = run.run.clone();
    assert!(run.wake().changed, "it is created");
    assert_eq!(run.status(), RunStatus::Pending);
    assert_eq!(run.run.due(), Some(at));
    assert!(!run.after(59_999).changed);
    run.after(1);
    assert_eq!(run.jobs(), ["a@1"]);
    let mut run = Bench::idle(json!({"steps": {"a": {"topic": "t"}}}), json!({}));
    run.cancel().unwrap();
    assert_eq!(run.status(), RunStatus::Cancelled);
}

#[test]
fn a_run_of_the_reference_goes_on() {
    let mut run = Bench::of(json!({
        "a": {"topic": "t"},
        "b": {"topic": "t", "depends_on": ["a"]},
        "fan": {"topic": "t", "for_each": "[1, 2]"},
    }));
    let head = &mut run.run.head;
    (head.open, head.waiting, head.in_flight) = (0, 0, 0);
    head.definition.clear();
    run.stored = run.run.clone();
    run.succeed("a", Value::Null);
    assert_eq!(run.run.head.definition, "hash");
    run.succeed("fan[0]", Value::Null);
    run.succeed("fan[1]", Value::Null);
    assert_eq!(run.status(), RunStatus::Running);
    run.succeed("b", Value::Null);
    assert_eq!(run.status(), RunStatus::Succeeded);
}
