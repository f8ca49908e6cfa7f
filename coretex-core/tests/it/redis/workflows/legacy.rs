//! Runs that the reference left.

use std::time::Duration;

use coretex_core::error::StoreError;
use coretex_core::workflow::store::{Committed, Created, Idempotency, NewRun, RunQuery, Waiting};
use coretex_core::workflow::{RunId, RunStatus};
use serde_json::{Value, json};

use super::super::support::{Bench, START, at};
use super::{apply, commit, create, head, key, load, new_run, record};

/// A run as the reference leaves it, with its place in the lists.
async fn leave(bench: &Bench, id: &str, status: &str, steps: Value) {
    let document = json!({
        "id": id, "workflow_id": "w1", "org_id": "acme", "team_id": "", "input": {"a": 1}, "context": null,
        "status": status, "started_at": "2026-11-20T10:00:00.5Z", "completed_at": null, "output": null, "error": null,
        "steps": steps, "total_cost": 0, "triggered_by": "", "created_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:00:00.75Z",
    });
    let _: String = bench
        .raw(&["SET", &format!("wf:run:{id}"), &document.to_string()])
        .await;
    let secs = (START / 1_000_000).to_string();
    let in_status = format!("wf:runs:status:{status}");
    for set in ["wf:runs:all", "wf:runs:w1", &in_status] {
        let _: i64 = bench.raw(&["ZADD", set, &secs, id]).await;
    }
    if ["pending", "running", "waiting"].contains(&status) {
        let _: i64 = bench.raw(&["SADD", "wf:runs:active:acme", id]).await;
    }
}

async fn left_waiting(bench: &Bench, id: &str) {
    let steps = json!({
        "a": {"step_id": "a", "status": "succeeded", "attempts": 1, "output": "redis://res:x", "job_id": "r1:a@1"},
        "gate": {"step_id": "gate", "status": "waiting", "started_at": "2026-11-20T10:00:00.6Z"},
    });
    leave(bench, id, "waiting", steps).await;
}

/// Its first commit stores all of it our way; every list goes on.
#[tokio::test]
async fn a_run_of_the_reference_goes_on() {
    let bench = Bench::new().await;
    left_waiting(&bench, "r1").await;
    let run = load(&bench, "r1").await;
    assert_eq!(run.head.status, RunStatus::Waiting);
    assert_eq!(run.steps.len(), 2);

    let mut first = commit("r1", run.revision, head(RunStatus::Running, 900_000));
    first.steps = vec![(key("gate"), record(RunStatus::Succeeded))];
    first.inbox_remove = vec![key("gate")];
    first.due = Some(at(0));
    assert_eq!(apply(&bench, &first).await, Committed::Applied(run.revision + 1));
    assert_eq!(bench.text("wf:run:r1").await, None);
    let after = load(&bench, "r1").await;
    assert_eq!(after.revision, run.revision + 1);
    assert_eq!(after.head, first.head);
    assert_eq!(after.steps[&key("a")], run.steps[&key("a")], "as it was read");
    assert_eq!(after.steps[&key("gate")].status, RunStatus::Succeeded);
    assert_eq!(*after.input, json!({"a": 1}));
    assert_eq!(
        apply(&bench, &first).await,
        Committed::Applied(run.revision + 1),
        "repeated"
    );
    assert_eq!(bench.stores.workflows.open_runs("w1").await.expect("counts"), 1);
    let waiting: i64 = bench.raw(&["ZCARD", "wf:runs:status:waiting"]).await;
    assert_eq!(waiting, 0);

    let end = commit("r1", run.revision + 1, head(RunStatus::Succeeded, 950_000));
    assert_eq!(apply(&bench, &end).await, Committed::Applied(run.revision + 2));
    assert_eq!(bench.stores.workflows.open_runs("w1").await.expect("counts"), 0);
    let active: i64 = bench.raw(&["SCARD", "wf:runs:active:acme"]).await;
    assert_eq!(active, 0);
}

/// The reference went on writing it in between.
#[tokio::test]
async fn a_run_that_was_written_since_is_read_again() {
    let bench = Bench::new().await;
    left_waiting(&bench, "r1").await;
    let run = load(&bench, "r1").await;
    leave(&bench, "r1", "running", json!({})).await;
    let stale = commit("r1", run.revision, head(RunStatus::Failed, 900_000));
    let again = load(&bench, "r1").await;
    assert_eq!(apply(&bench, &stale).await, Committed::Conflict(again.revision));
    let deleted = bench
        .stores
        .workflows
        .delete_run(&RunId::new("r1"), run.revision, None)
        .await;
    assert_eq!(deleted.expect("answers"), Committed::Conflict(again.revision));
    assert_eq!(again.head.status, RunStatus::Running);
    assert!(bench.text("wf:run:r1").await.is_some());
    let taken = create(&bench, new_run(commit("r1", 0, head(RunStatus::Running, 1)))).await;
    assert_eq!(taken, Created::Exists);
}

/// Open ones become due, all are listed by organisation, and what waits for people is found once they go on.
#[tokio::test]
async fn runs_of_the_reference_are_adopted() {
    let bench = Bench::new().await;
    let store = &bench.stores.workflows;
    for n in 0..5 {
        leave(&bench, &format!("p{n}"), "pending", json!({})).await;
    }
    left_waiting(&bench, "r1").await;
    leave(&bench, "over", "succeeded", json!({})).await;
    let _: String = bench.raw(&["SET", "wf:run:bad", "{"]).await;
    let _: i64 = bench.raw(&["ZADD", "wf:runs:status:running", "1", "bad"]).await;
    let _: i64 = bench.raw(&["ZADD", "wf:runs:all", "1", "bad"]).await;
    assert_eq!(
        create(&bench, new_run(commit("ours", 0, head(RunStatus::Running, 1)))).await,
        Created::Created
    );
    let of_org = RunQuery {
        org_id: Some("acme".to_owned()),
        limit: 100,
        ..RunQuery::default()
    };
    let listed = async || store.runs(&of_org).await.expect("lists").runs.len();
    assert_eq!(listed().await, 8, "before they are adopted");
    assert_eq!(store.adopt_legacy(4).await.expect("adopts"), 4);
    assert_eq!(store.adopt_legacy(100).await.expect("adopts"), 2, "the rest");
    assert_eq!(store.adopt_legacy(100).await.expect("adopts"), 0);
    assert_eq!(listed().await, 8, "and after");
    let now = coretex_core::time::Clock::system().now().plus(Duration::from_secs(60));
    let due = store
        .claim_due(now, now.plus(Duration::from_secs(60)), 100)
        .await
        .expect("claims");
    assert_eq!(due.ids.len(), 6);
    assert_eq!(store.open_runs("w1").await.expect("counts"), 7);

    assert_eq!(store.waiting_steps(None, 10).await.expect("lists"), []);
    let run = load(&bench, "r1").await;
    let pinned = commit("r1", run.revision, head(RunStatus::Waiting, 900_000));
    assert_eq!(apply(&bench, &pinned).await, Committed::Applied(run.revision + 1));
    let waiting = Waiting {
        since: at(600_000),
        run: RunId::new("r1"),
        step: key("gate"),
    };
    assert_eq!(store.waiting_steps(None, 10).await.expect("lists"), [waiting]);
}

/// They are listed with ours, filtered, deleted and expired; what cannot be read is an error only where it is asked for.
#[tokio::test]
async fn runs_of_the_reference_are_listed() {
    let bench = Bench::new().await;
    let store = &bench.stores.workflows;
    for n in 0..300 {
        leave(
            &bench,
            &format!("r{n:03}"),
            if n % 3 == 0 { "failed" } else { "succeeded" },
            json!({}),
        )
        .await;
    }
    let _: String = bench.raw(&["SET", "wf:run:bad", "[]"]).await;
    leave(&bench, "open", "running", json!({})).await;
    for id in ["bad", "gone", "open"] {
        let _: i64 = bench.raw(&["ZADD", "wf:runs:status:failed", "1", id]).await;
    }
    let mut query = RunQuery {
        status: Some(RunStatus::Failed),
        limit: 33,
        ..RunQuery::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = store.runs(&query).await.expect("lists");
        ids.extend(page.runs.into_iter().map(|run| run.id));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 100, "all of one second");
    let bad = store.load_runs(&[RunId::new("bad"), RunId::new("r000")]).await;
    assert!(matches!(bad[0], Err(StoreError::Corrupt { .. })));
    assert!(matches!(bad[1], Ok(Some(_))));

    let run = load(&bench, "r000").await;
    let deleted = store.delete_run(&run.id, run.revision, None).await.expect("deletes");
    assert_eq!(deleted, Committed::Applied(run.revision));
    let expired = store.expire_runs(at(10_000_000), 1_000).await.expect("expires");
    assert_eq!(expired, 299);
    assert_eq!(
        bench.keys().await,
        [
            "wf:run:bad",
            "wf:run:open",
            "wf:runs:active:acme",
            "wf:runs:all",
            "wf:runs:status:running",
            "wf:runs:w1"
        ],
        "what has not ended, and what nobody can read"
    );
}

fn keyed(run: &str, name: &str) -> NewRun {
    NewRun {
        idempotency: Some(Idempotency {
            key: name.to_owned(),
            fingerprint: "ff".to_owned(),
            ttl: Duration::from_secs(100),
        }),
        ..new_run(commit(run, 0, head(RunStatus::Running, 1)))
    }
}

/// The reference's keys know neither organisation nor workflow, and may name runs that were never created.
#[tokio::test]
async fn idempotency_keys_of_the_reference_hold() {
    let bench = Bench::new().await;
    left_waiting(&bench, "r1").await;
    for (name, run) in [("k1", "r1"), ("k2", "never"), ("k3", "r1"), ("k4", "r4")] {
        let _: String = bench.raw(&["SET", &format!("wf:run:idempotency:{name}"), run]).await;
    }
    assert_eq!(
        create(&bench, keyed("n1", "k1")).await,
        Created::Replayed(RunId::new("r1"))
    );
    assert_eq!(
        create(&bench, keyed("n2", "k2")).await,
        Created::Created,
        "there is no such run"
    );
    let mut other = keyed("n3", "k3");
    other.commit.head.org_id = "other".to_owned();
    assert_eq!(create(&bench, other).await, Created::Created, "another organisation's");
    assert_eq!(
        create(&bench, new_run(commit("r4", 0, head(RunStatus::Running, 1)))).await,
        Created::Created
    );
    assert_eq!(
        create(&bench, keyed("n4", "k4")).await,
        Created::Replayed(RunId::new("r4"))
    );
}

/// Members that others forgot in the set of open runs do not take places for ever.
#[tokio::test]
async fn forgotten_members_are_not_counted() {
    let bench = Bench::new().await;
    for id in ["x", "y", "z"] {
        let _: i64 = bench.raw(&["SADD", "wf:runs:active:acme", id]).await;
    }
    left_waiting(&bench, "r1").await;
    let limited = |id: &str| NewRun {
        org_limit: Some(2),
        ..new_run(commit(id, 0, head(RunStatus::Running, 1)))
    };
    assert_eq!(create(&bench, limited("n1")).await, Created::Created);
    assert_eq!(create(&bench, limited("n2")).await, Created::Limit(2));
}
