//! How workflows are laid out in Redis, and what the reference left (docs/spec/storage.md §10).

mod layout;
mod legacy;

use std::sync::Arc;

use coretex_core::workflow::store::{Committed, Created, NewRun, RunCommit};
use coretex_core::workflow::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord};
use serde_json::json;

use super::support::{Bench, at};

fn head(status: RunStatus, micros: i64) -> RunHead {
    RunHead {
        workflow_id: "w1".to_owned(),
        definition: "abc".to_owned(),
        org_id: "acme".to_owned(),
        team_id: "blue".to_owned(),
        status,
        created_at: at(0),
        updated_at: at(micros),
        ..RunHead::default()
    }
}

fn commit(run: &str, expected: u64, head: RunHead) -> RunCommit {
    RunCommit {
        run: RunId::new(run),
        expected,
        token: rand::random(),
        head,
        context: None,
        steps: Vec::new(),
        items: Vec::new(),
        effects: Vec::new(),
        done: Vec::new(),
        payloads: Vec::new(),
        timeline: Vec::new(),
        due: None,
        inbox_add: Vec::new(),
        inbox_remove: Vec::new(),
        audit: Vec::new(),
    }
}

fn new_run(commit: RunCommit) -> NewRun {
    NewRun {
        commit,
        input: Arc::new(json!({"a": 1})),
        idempotency: None,
        org_limit: None,
        workflow_limit: None,
    }
}

fn record(status: RunStatus) -> StepRecord {
    StepRecord {
        status,
        ..StepRecord::default()
    }
}

fn key(text: &str) -> StepKey {
    StepKey::new(text)
}

async fn create(bench: &Bench, new: NewRun) -> Created {
    let created = bench.stores.workflows.create_runs(&[new]).await.pop();
    created.expect("an answer").expect("creates")
}

async fn apply(bench: &Bench, commit: &RunCommit) -> Committed {
    let committed = bench.stores.workflows.commit_runs(std::slice::from_ref(commit)).await;
    committed.into_iter().next().expect("an answer").expect("commits")
}

async fn load(bench: &Bench, run: &str) -> Run {
    let loaded = bench.stores.workflows.load_runs(&[RunId::new(run)]).await.pop();
    loaded.expect("an answer").expect("loads").expect("the run")
}

/// docs/spec/storage.md §10: the registry is the reference's.
#[tokio::test]
async fn schemas_of_the_registry_are_read() {
    let bench = Bench::new().await;
    let text = r#"{"type":"object","required":["n"]}"#;
    bench.raw::<String>(&["SET", "schema:acme/in", text]).await;
    let ids = ["none", "acme/in"].map(str::to_owned);
    let found = bench.stores.workflows.schemas(&ids).await.expect("read");
    assert_eq!(found, [None, Some(serde_json::from_str(text).expect("JSON"))]);
    bench.raw::<String>(&["SET", "schema:broken", "{"]).await;
    let broken = bench.stores.workflows.schemas(&["broken".to_owned()]).await;
    assert!(broken.is_err_and(|error| !error.is_retryable()));
}
