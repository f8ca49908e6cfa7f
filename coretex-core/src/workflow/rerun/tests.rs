use serde_json::json;

use super::*;
use crate::workflow::advance::tests::harness::Bench;
use crate::workflow::run::RunStatus;

fn options(from_step: &str) -> Options<'_> {
    Options {
        id: RunId::new("r2"),
        from_step,
        dry_run: false,
        by: "",
        now: Timestamp::from_secs(1_800_000_000),
    }
}

/// `a` → `b` → `c`, and `x` beside them, which fans out.
fn source() -> Bench {
    let mut run = Bench::start(
        json!({"steps": {
            "a": {"topic": "t", "output_path": "from.a"},
            "b": {"topic": "t", "depends_on": ["a"], "output_path": "from.b"},
            "c": {"topic": "t", "depends_on": ["b"]},
            "x": {"topic": "t", "for_each": "[1, 2]"},
            "f": {"topic": "t", "finally": true},
        }}),
        json!({"k": 1}),
    );
    run.succeed("a", json!("A"));
    run.succeed("x[0]", json!("X0"));
    run.succeed("x[1]", json!("X1"));
    run.succeed("b", json!("B"));
    run
}

#[test]
fn all_of_it() {
    let mut source = source();
    source.run.head.labels.insert("dry_run".to_owned(), "true".to_owned());
    source.run.head.metadata.insert("dry_run".to_owned(), "true".to_owned());
    let run = rerun(&source.plan, &source.run, &options("")).unwrap();
    assert_eq!((run.revision, run.head.status), (0, RunStatus::Pending));
    assert!(run.steps.is_empty() && run.context.is_empty());
    assert_eq!(*run.input, json!({"k": 1}));
    assert_eq!(run.head.rerun_of, "r1");
    assert_eq!(run.head.metadata["rerun_of"], "r1");
    // The request decides whether it is a dry run.
    assert!(run.head.labels.is_empty() && !run.head.metadata.contains_key("dry_run"));
}

#[test]
fn what_comes_before_and_beside_is_not_done_again() {
    let source = source();
    let run = rerun(&source.plan, &source.run, &options("b")).unwrap();
    let keys: Vec<&str> = run.steps.keys().map(StepKey::as_str).collect();
    assert_eq!(keys, ["a", "x", "x[0]", "x[1]"]);
    assert_eq!(
        serde_json::Value::Object(run.context.clone()),
        json!({"from": {"a": "A"}})
    );
    assert_eq!(run.head.metadata["rerun_step"], "b");

    let mut again = Bench::idle(serde_json::to_value(&*source.plan.workflow).unwrap(), json!({}));
    again.stored = run.clone();
    again.run = run;
    again.wake();
    assert_eq!(again.submitted, ["r2:b@1"]);
}

#[test]
fn what_a_step_builds_on_has_to_be_there() {
    let source = source();
    assert_eq!(
        rerun(&source.plan, &source.run, &options("zz")),
        Err(Error::StepNotFound)
    );
    let mut failed = Bench::of(json!({"a": {"topic": "t"}, "b": {"topic": "t", "depends_on": ["a"]}}));
    failed.fail("a");
    let why = rerun(&failed.plan, &failed.run, &options("b")).unwrap_err();
    assert_eq!(why.to_string(), "dependency a not succeeded");
}

#[test]
fn what_was_undone_has_to_be_done_again() {
    let mut source = Bench::of(json!({
        "book": {"topic": "t", "compensate": {"topic": "undo"}},
        "pay": {"topic": "t", "depends_on": ["book"]},
    }));
    source.succeed("book", json!(1));
    source.fail("pay");
    source.succeed("book~compensate", json!(1));
    assert_eq!(source.status(), RunStatus::Failed);
    let why = rerun(&source.plan, &source.run, &options("pay")).unwrap_err();
    assert_eq!(why, Error::DependencyNotSucceeded("book".to_owned()));
}
