//! Names and forms.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use coretex_core::backend::redis::RedisOptions;
use coretex_core::test_util::servers::RedisServer;
use coretex_core::workflow::event::{Effect, TimelineEvent};
use coretex_core::workflow::store::{
    Committed, Created, Idempotency, Schedule, StoredWorkflow, TimelineOrder, WorkflowWrite,
};
use coretex_core::workflow::{RunId, RunStatus, Workflow};

use super::super::support::{Bench, DATA_TTL, at, job};
use super::{apply, commit, create, head, key, new_run, record};

async fn members(bench: &Bench, set: &str) -> BTreeMap<String, String> {
    let pairs: Vec<(String, String)> = bench.raw(&["ZRANGE", set, "0", "-1", "WITHSCORES"]).await;
    pairs.into_iter().collect()
}

/// A score in seconds says the microsecond.
fn micros(score: &str) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a test's own numbers")]
    let micros = (score.parse::<f64>().expect("a number") * 1e6).round() as i64;
    micros
}

/// The reference's tools find runs under the names they know; every list moves with the status.
#[tokio::test]
async fn a_run_is_laid_out_as_documented() {
    let bench = Bench::new().await;
    let mut first = commit("r1", 0, head(RunStatus::Waiting, 123_456));
    first.token = u64::MAX;
    first.context = Some(serde_json::Map::new());
    first.steps = vec![(key("a"), record(RunStatus::Waiting))];
    first.items = vec![(key("fan"), std::sync::Arc::new(vec![1.into()]))];
    first.effects = vec![(7, Effect::TellParent)];
    first.payloads = vec![(job("r1:a@1"), Bytes::from_static(b"{}"))];
    first.timeline = vec![TimelineEvent {
        time: at(0),
        event_type: "run_created".to_owned(),
        ..TimelineEvent::default()
    }];
    first.due = Some(at(1_500));
    first.inbox_add = vec![key("a")];
    let mut new = new_run(first);
    new.idempotency = Some(Idempotency {
        key: "k:1".to_owned(),
        fingerprint: "ff".to_owned(),
        ttl: Duration::from_secs(100),
    });
    assert_eq!(create(&bench, new).await, Created::Created);
    assert_eq!(
        bench.keys().await,
        [
            "ctx:r1:a@1",
            "cx:wf:due",
            "cx:wf:idem:acme:w1:k:1",
            "cx:wf:open:w1",
            "cx:wf:run:r1",
            "cx:wf:runs:org:acme",
            "cx:wf:waiting",
            "wf:run:timeline:r1",
            "wf:runs:active:acme",
            "wf:runs:all",
            "wf:runs:status:waiting",
            "wf:runs:w1",
        ]
    );
    let hash = bench.hash("cx:wf:run:r1").await;
    let names: Vec<&str> = hash.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "context", "created", "head", "i:fan", "input", "o:7", "org", "rev", "s:a", "status", "team", "token",
            "updated", "workflow"
        ]
    );
    assert_eq!((hash["rev"].as_str(), hash["status"].as_str()), ("1", "waiting"));
    assert_eq!(hash["token"], u64::MAX.to_string());
    for set in [
        "wf:runs:all",
        "wf:runs:w1",
        "wf:runs:status:waiting",
        "cx:wf:runs:org:acme",
    ] {
        let members = members(&bench, set).await;
        assert_eq!(members.keys().collect::<Vec<_>>(), ["r1"], "{set}");
        assert_eq!(micros(&members["r1"]), at(123_456).micros(), "{set}");
    }
    assert_eq!(
        bench.score("cx:wf:due", "r1").await,
        Some(at(0).micros() / 1_000 + 2),
        "rounded up"
    );
    assert_eq!(
        bench.score("cx:wf:waiting", "r1\u{1f}a").await,
        Some(at(123_456).micros())
    );
    bench.assert_ttl("ctx:r1:a@1", DATA_TTL).await;
    bench.assert_ttl("cx:wf:run:r1", -1).await;
    bench.assert_ttl("cx:wf:idem:acme:w1:k:1", 100).await;
    assert_eq!(bench.hash("cx:wf:idem:acme:w1:k:1").await["run"], "r1");
    let timeline = bench.list("wf:run:timeline:r1").await;
    assert_eq!(timeline, [r#"{"time":"2026-11-20T10:00:00Z","type":"run_created"}"#]);

    let mut end = commit("r1", 1, head(RunStatus::Succeeded, 200_000));
    end.done = vec![7];
    end.inbox_remove = vec![key("a")];
    assert_eq!(apply(&bench, &end).await, Committed::Applied(2));
    let left = bench.keys().await;
    for gone in [
        "cx:wf:due",
        "cx:wf:open:w1",
        "cx:wf:waiting",
        "wf:runs:active:acme",
        "wf:runs:status:waiting",
    ] {
        assert!(!left.iter().any(|key| key == gone), "{gone}");
    }
    assert_eq!(members(&bench, "wf:runs:status:succeeded").await.len(), 1);
    assert!(!bench.hash("cx:wf:run:r1").await.contains_key("o:7"));

    let deleted = bench.stores.workflows.delete_run(&RunId::new("r1"), 2, None).await;
    assert_eq!(deleted.expect("deletes"), Committed::Applied(2));
    assert_eq!(bench.keys().await, ["ctx:r1:a@1", "cx:wf:idem:acme:w1:k:1"]);
}

/// Whatever it brings; and a batch is one pipeline of those.
#[tokio::test]
async fn a_commit_is_one_command() {
    let bench = Bench::new().await;
    let news: Vec<_> = (0..10)
        .map(|n| new_run(commit(&format!("r{n}"), 0, head(RunStatus::Running, 1))))
        .collect();
    for created in bench.stores.workflows.create_runs(&news).await {
        assert_eq!(created.expect("creates"), Created::Created);
    }
    let _: String = bench.raw(&["CONFIG", "RESETSTAT"]).await;
    let commits: Vec<_> = (0..10)
        .map(|n| {
            let mut commit = commit(&format!("r{n}"), 1, head(RunStatus::Running, 2));
            commit.steps = (0..600)
                .map(|n| (key("fan").child(n), record(RunStatus::Running)))
                .collect();
            commit.effects = vec![(1, Effect::TellParent)];
            commit.due = Some(at(1));
            commit
        })
        .collect();
    for committed in bench.stores.workflows.commit_runs(&commits).await {
        assert_eq!(committed.expect("commits"), Committed::Applied(2));
    }
    let stats: String = bench.raw(&["INFO", "commandstats"]).await;
    let calls = |name: &str| -> u64 {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    assert_eq!(calls("evalsha"), 10, "{stats}");
    for name in ["get", "hgetall", "hkeys", "multi", "exec", "watch"] {
        assert_eq!(calls(name), 0, "{name}: {stats}");
    }
}

/// The limit of the timeline can be set.
#[tokio::test]
async fn a_timeline_is_as_long_as_asked_for() {
    let mut options = RedisOptions::default();
    options.timeline_limit = 3;
    let bench = Bench::with(RedisServer::start().await, options).await;
    let mut first = commit("r1", 0, head(RunStatus::Running, 1));
    first.timeline = (0..5)
        .map(|n| TimelineEvent {
            message: n.to_string(),
            ..TimelineEvent::default()
        })
        .collect();
    assert_eq!(create(&bench, new_run(first)).await, Created::Created);
    let run = RunId::new("r1");
    let events = bench.stores.workflows.timeline(&run, TimelineOrder::Oldest, 0, 10);
    let messages: Vec<String> = events
        .await
        .expect("reads")
        .into_iter()
        .map(|event| event.message)
        .collect();
    assert_eq!(messages, ["2", "3", "4"]);
}

fn definition(version: &str) -> StoredWorkflow {
    let workflow = Workflow {
        id: "w1".to_owned(),
        org_id: "acme".to_owned(),
        version: version.to_owned(),
        updated_at: at(500_000),
        ..Workflow::default()
    };
    StoredWorkflow {
        hash: workflow.content_hash(),
        workflow,
        revision: 1,
    }
}

async fn put(bench: &Bench, stored: &StoredWorkflow, expected: Option<&str>) -> bool {
    let write = WorkflowWrite {
        stored,
        expected,
        audit: None,
    };
    bench.stores.workflows.put_workflow(&write).await.expect("puts")
}

/// As the reference lays them out, with revisions beside.
#[tokio::test]
async fn a_definition_is_laid_out_as_documented() {
    let bench = Bench::new().await;
    let one = definition("1");
    assert!(put(&bench, &one, None).await);
    let revision = format!("cx:wf:rev:{}", one.hash);
    assert_eq!(
        bench.keys().await,
        [
            "cx:wf:def:w1",
            &revision,
            "cx:wf:revs:w1",
            "wf:def:w1",
            "wf:index:all",
            "wf:index:org:acme"
        ]
    );
    let text = bench.text("wf:def:w1").await.expect("a document");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["updated_at"], "2026-11-20T10:00:00.5Z");
    assert_eq!(document["created_at"], "0001-01-01T00:00:00Z");
    assert_eq!(bench.text(&revision).await, Some(text));
    assert_eq!(
        micros(&members(&bench, "wf:index:all").await["w1"]),
        at(500_000).micros()
    );
    assert!(
        bench
            .stores
            .workflows
            .delete_workflow("w1", None)
            .await
            .expect("deletes")
    );
    assert_eq!(bench.keys().await, [revision.as_str(), "cx:wf:revs:w1"]);
}

/// A document that others wrote is a definition of its own: revision 0, named by what it says.
#[tokio::test]
async fn a_definition_of_others_is_read() {
    let bench = Bench::new().await;
    let store = &bench.stores.workflows;
    let (one, two) = (definition("1"), definition("2"));
    assert!(put(&bench, &one, None).await);
    let text = serde_json::to_string_pretty(&two.workflow).expect("JSON");
    let _: String = bench.raw(&["SET", "wf:def:w1", &text]).await;
    let found = store.workflow("w1").await.expect("reads").expect("a definition");
    assert_eq!((found.revision, &found.hash), (0, &two.hash));
    assert_eq!(found.workflow, two.workflow);
    assert_eq!(store.workflow_revision(&two.hash).await.expect("reads"), None);
    store.ensure_revision(&found).await.expect("stores");
    assert_eq!(
        store.workflow_revision(&two.hash).await.expect("reads"),
        Some(two.workflow.clone())
    );
    assert_eq!(bench.text("wf:def:w1").await, Some(text), "as it was");

    let three = definition("3");
    assert!(!put(&bench, &three, Some(&one.hash)).await, "it is not that any more");
    assert!(put(&bench, &three, Some(&two.hash)).await);

    let _: String = bench
        .raw(&[
            "SET",
            "wf:def:w2",
            r#"{"id":"w2","steps":{"a":{"type":"job","topic":"t"}}}"#,
        ])
        .await;
    let _: String = bench.raw(&["SET", "wf:def:w3", "{"]).await;
    for id in ["w2", "w3", "gone"] {
        let _: i64 = bench.raw(&["ZADD", "wf:index:all", "1700000000", id]).await;
    }
    let ids: Vec<String> = store
        .workflows(None, 10)
        .await
        .expect("lists")
        .into_iter()
        .map(|stored| stored.workflow.id)
        .collect();
    assert_eq!(ids, ["w1", "w2"]);
    assert!(store.workflow("w3").await.is_err());
    assert!(store.delete_workflow("w3", None).await.expect("deletes"));
}

/// One string each, one set of all.
#[tokio::test]
async fn a_schedule_is_laid_out_as_documented() {
    let bench = Bench::new().await;
    let schedule = Schedule {
        id: "s1".to_owned(),
        next_at: Some(at(1)),
        revision: 1,
        ..Schedule::default()
    };
    let put = bench.stores.workflows.put_schedule(&schedule, 0, None).await;
    assert!(put.expect("puts"));
    assert_eq!(
        bench.keys().await,
        ["cx:wf:schedule:s1", "cx:wf:schedules", "cx:wf:schedules:due"]
    );
    assert_eq!(
        bench.score("cx:wf:schedules:due", "s1").await,
        Some(at(0).micros() / 1_000 + 1)
    );
    assert!(
        bench
            .stores
            .workflows
            .delete_schedule("s1", None)
            .await
            .expect("deletes")
    );
    assert!(bench.keys().await.is_empty());
}
