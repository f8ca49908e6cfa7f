//! How runs are created and change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{apply, commit, create, event, head, key, load, new_run, record, run_id, stored};
use crate::audit::AuditRecord;
use crate::pointers::Pointer;
use crate::test_util::conformance::{Fixture, Scene};
use crate::workflow::event::Effect;
use crate::workflow::store::{Committed, Created, Idempotency, NewRun, RunCommit, TimelineOrder};
use crate::workflow::{RunId, RunStatus};

/// Everything a commit can bring is there after it.
pub async fn a_run_is_stored_whole(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    assert_eq!(load(fixture, &run).await, None);
    let mut first = commit(&run, 0, head(&scene, RunStatus::Running, 5));
    first.head.labels.insert("ä".to_owned(), "\u{1f}\n".to_owned());
    first.head.total_cost = 0.1;
    first.context = json!({"a": {"b": [1, null]}}).as_object().cloned();
    let mut fan = record(RunStatus::Running, 1);
    fan.next_attempt_at = Some(scene.secs(9));
    fan.output = Some(Arc::new(json!({"big": 9_007_199_254_740_993_u64})));
    first.steps = vec![(key("fan"), fan), (key("fan[0]"), record(RunStatus::Pending, 0))];
    first.items = vec![(key("fan"), Arc::new(vec![json!("x"), Value::Null]))];
    let tell = Effect::CancelChild {
        run: RunId::new("child"),
        reason: "why".to_owned(),
    };
    first.effects = vec![(7, Effect::TellParent), (12, tell.clone())];
    let mut new = new_run(first.clone());
    new.input = Arc::new(json!({"items": ["x", null], "π": 3.5}));
    assert_eq!(create(fixture, new.clone()).await, Created::Created);

    let found = load(fixture, &run).await.expect("the run");
    assert_eq!((found.id.clone(), found.revision), (run.clone(), 1));
    assert_eq!(found.head, first.head);
    assert_eq!(found.input, new.input);
    assert_eq!(Some(&found.context), first.context.as_ref());
    assert_eq!(found.steps, first.steps.into_iter().collect());
    assert_eq!(found.items, first.items.into_iter().collect());
    assert_eq!(found.outbox, [(7, Effect::TellParent), (12, tell)].into());
    assert_eq!(found.timers.len(), 1, "made from the records");
}

/// The reference did not restrict the ids of runs and steps.
pub async fn a_run_of_any_name_is_stored(fixture: &Fixture) {
    let scene = Scene::new();
    let names = [
        "ü✓",
        "a:b",
        "a|b",
        "a b\n",
        "\u{1}",
        "a\0b",
        "a\0",
        "%3A*?[x]",
        "timeline:x",
        "idempotency:x",
        "all",
    ];
    for name in names {
        let run = RunId::new(&format!("{name}{}", scene.name("")));
        let mut first = commit(&run, 0, head(&scene, RunStatus::Waiting, 1));
        first.head.workflow_id = format!("{name}{}", scene.name("w"));
        first.head.org_id = format!("{name}{}", scene.name("o"));
        let step = key(&format!("{name}[0]~compensate"));
        first.steps = vec![(step.clone(), record(RunStatus::Waiting, 1))];
        first.inbox_add = vec![step.clone()];
        first.timeline = vec![event(scene.at(1), name)];
        first.due = Some(scene.secs(1));
        assert_eq!(load(fixture, &run).await, None, "{name:?}");
        assert_eq!(
            create(fixture, new_run(first.clone())).await,
            Created::Created,
            "{name:?}"
        );
        let found = load(fixture, &run).await.expect("the run");
        assert_eq!(found.steps.keys().collect::<Vec<_>>(), [&step], "{name:?}");
        let timeline = fixture.workflows.timeline(&run, TimelineOrder::Oldest, 0, 10);
        assert_eq!(timeline.await.expect("reads").len(), 1, "{name:?}");
        let waiting = fixture.workflows.waiting_steps(None, 100).await.expect("lists");
        assert!(
            waiting.iter().any(|waiting| waiting.run == run && waiting.step == step),
            "{name:?}"
        );
        assert_eq!(
            fixture
                .workflows
                .open_runs(&first.head.workflow_id)
                .await
                .expect("counts"),
            1
        );
        let deleted = fixture.workflows.delete_run(&run, 1, None).await.expect("deletes");
        assert_eq!(deleted, Committed::Applied(1), "{name:?}");
        assert_eq!(
            fixture
                .workflows
                .open_runs(&first.head.workflow_id)
                .await
                .expect("counts"),
            0
        );
    }
    assert!(
        fixture
            .workflows
            .waiting_steps(None, 100)
            .await
            .expect("lists")
            .is_empty()
    );
}

/// An id names one run.
pub async fn a_run_is_created_once(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let again = new_run(commit(&run, 0, head(&scene, RunStatus::Failed, 2)));
    assert_eq!(create(fixture, again).await, Created::Exists);
    let found = load(fixture, &run).await.expect("the run");
    assert_eq!((found.revision, found.head.status), (1, RunStatus::Running));
}

/// Also if the run has gone on since, and if it has claimed a key or reached a limit itself.
pub async fn a_repeated_creation_is_answered_as_before(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let mut new = new_run(commit(&run, 0, head(&scene, RunStatus::Running, 1)));
    new.idempotency = Some(idempotency("k", "f"));
    new.org_limit = Some(1);
    new.workflow_limit = Some(1);
    for _ in 0..2 {
        assert_eq!(create(fixture, new.clone()).await, Created::Created);
    }
    let next = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    assert_eq!(create(fixture, new).await, Created::Created);
    assert_eq!(load(fixture, &run).await.expect("the run").revision, 2);
    assert_eq!(
        fixture
            .workflows
            .open_runs(&scene.name("workflow"))
            .await
            .expect("counts"),
        1
    );
}

fn idempotency(key: &str, fingerprint: &str) -> Idempotency {
    Idempotency {
        key: key.to_owned(),
        fingerprint: fingerprint.to_owned(),
        ttl: Duration::from_secs(3_600),
    }
}

fn keyed(scene: &Scene, run: &RunId, key: &str, fingerprint: &str) -> NewRun {
    NewRun {
        idempotency: Some(idempotency(&scene.name(key), fingerprint)),
        ..new_run(commit(run, 0, head(scene, RunStatus::Running, 1)))
    }
}

/// One run, also under concurrency, and after it was deleted.
pub async fn an_idempotency_key_belongs_to_one_run(fixture: &Fixture) {
    let scene = Scene::new();
    let runs: Vec<RunId> = (0..6).map(|n| run_id(&scene, &n.to_string())).collect();
    let creations = runs.iter().map(|run| create(fixture, keyed(&scene, run, "k", "f")));
    let created = futures::future::join_all(creations).await;
    let winners: Vec<usize> = (0..6).filter(|i| created[*i] == Created::Created).collect();
    assert_eq!(winners.len(), 1, "{created:?}");
    let winner = &runs[winners[0]];
    for (run, created) in runs.iter().zip(&created) {
        if run != winner {
            assert_eq!(created, &Created::Replayed(winner.clone()));
            assert_eq!(load(fixture, run).await, None, "nothing was written");
        }
    }
    let other = run_id(&scene, "other");
    let mismatch = create(fixture, keyed(&scene, &other, "k", "g")).await;
    assert_eq!(mismatch, Created::Mismatch(winner.clone()));
    let deleted = fixture.workflows.delete_run(winner, 1, None).await.expect("deletes");
    assert_eq!(deleted, Committed::Applied(1));
    let replayed = create(fixture, keyed(&scene, &other, "k", "f")).await;
    assert_eq!(replayed, Created::Replayed(winner.clone()));
}

/// Other organisations and workflows have their own.
pub async fn an_idempotency_key_is_scoped(fixture: &Fixture) {
    let scene = Scene::new();
    for (n, (org, workflow)) in [("a", "b:c"), ("a:b", "c"), ("a", "c"), ("", "a:b:c")]
        .into_iter()
        .enumerate()
    {
        let run = run_id(&scene, &n.to_string());
        let mut new = keyed(&scene, &run, "k", &n.to_string());
        new.commit.head.org_id = org.to_owned();
        new.commit.head.workflow_id = workflow.to_owned();
        assert_eq!(create(fixture, new).await, Created::Created, "{org} {workflow}");
    }
}

/// A run that is over makes room; one that was refused takes none, and leaves its key free.
pub async fn limits_hold(fixture: &Fixture) {
    let scene = Scene::new();
    let limited = |name: &str, org: Option<u64>, workflow: Option<u64>| NewRun {
        org_limit: org,
        workflow_limit: workflow,
        ..keyed(&scene, &run_id(&scene, name), name, "f")
    };
    assert_eq!(create(fixture, limited("a", Some(2), None)).await, Created::Created);
    assert_eq!(create(fixture, limited("b", Some(2), None)).await, Created::Created);
    assert_eq!(create(fixture, limited("c", Some(2), None)).await, Created::Limit(2));
    assert_eq!(create(fixture, limited("c", None, Some(1))).await, Created::Limit(2));
    assert_eq!(create(fixture, limited("c", Some(0), None)).await, Created::Limit(2));
    assert_eq!(load(fixture, &run_id(&scene, "c")).await, None);

    let end = commit(&run_id(&scene, "a"), 1, head(&scene, RunStatus::Succeeded, 2));
    assert_eq!(apply(fixture, &end).await, Committed::Applied(2));
    assert_eq!(create(fixture, limited("c", Some(2), Some(2))).await, Created::Created);
    let mut other = limited("d", Some(1), Some(2));
    other.commit.head.org_id = scene.name("other");
    assert_eq!(
        create(fixture, other.clone()).await,
        Created::Limit(2),
        "the workflow's"
    );
    other.commit.head.workflow_id = scene.name("other");
    assert_eq!(create(fixture, other).await, Created::Created);
}

/// Never more than the limit.
pub async fn limits_hold_under_concurrency(fixture: &Fixture) {
    let scene = Scene::new();
    let creations = (0..24).map(|n| {
        let run = run_id(&scene, &n.to_string());
        let new = NewRun {
            org_limit: Some(5),
            ..new_run(commit(&run, 0, head(&scene, RunStatus::Running, 1)))
        };
        create(fixture, new)
    });
    let created = futures::future::join_all(creations).await;
    let count = |wanted: &Created| created.iter().filter(|created| *created == wanted).count();
    assert_eq!(count(&Created::Created), 5);
    assert_eq!(count(&Created::Limit(5)), 19);
    assert_eq!(
        fixture
            .workflows
            .open_runs(&scene.name("workflow"))
            .await
            .expect("counts"),
        5
    );
}

/// What a commit does not name stays.
pub async fn a_commit_changes_what_it_names(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let mut first = commit(&run, 0, head(&scene, RunStatus::Running, 1));
    first.context = json!({"a": 1}).as_object().cloned();
    first.steps = vec![
        (key("a"), record(RunStatus::Running, 1)),
        (key("b"), record(RunStatus::Running, 1)),
    ];
    first.effects = vec![(1, Effect::TellParent), (2, Effect::TellParent)];
    assert_eq!(create(fixture, new_run(first)).await, Created::Created);

    let mut second = commit(&run, 1, head(&scene, RunStatus::Waiting, 2));
    second.steps = vec![
        (key("b"), record(RunStatus::Succeeded, 2)),
        (key("c"), record(RunStatus::Waiting, 0)),
    ];
    second.done = vec![1];
    second.effects = vec![(3, Effect::TellParent)];
    assert_eq!(apply(fixture, &second).await, Committed::Applied(2));

    let found = load(fixture, &run).await.expect("the run");
    assert_eq!((found.revision, &found.head), (2, &second.head));
    let steps: Vec<(&str, RunStatus, u32)> = found
        .steps
        .iter()
        .map(|(key, record)| (key.as_str(), record.status, record.attempts))
        .collect();
    assert_eq!(
        steps,
        [
            ("a", RunStatus::Running, 1),
            ("b", RunStatus::Succeeded, 2),
            ("c", RunStatus::Waiting, 0)
        ]
    );
    assert_eq!(found.outbox.keys().copied().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(Value::Object(found.context), json!({"a": 1}));
    assert_eq!(*found.input, json!({"n": 1}));
}

/// Nothing of it.
pub async fn a_stale_commit_changes_nothing(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let next = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    let before = load(fixture, &run).await;
    for expected in [0, 1, 3, 1 << 40] {
        let mut stale = commit(&run, expected, head(&scene, RunStatus::Failed, 3));
        stale.steps = vec![(key("a"), record(RunStatus::Failed, 1))];
        stale.timeline = vec![event(scene.at(3), "never")];
        stale.due = Some(scene.secs(1));
        stale.inbox_add = vec![key("a")];
        assert_eq!(apply(fixture, &stale).await, Committed::Conflict(2));
    }
    assert_eq!(load(fixture, &run).await, before);
    let timeline = fixture.workflows.timeline(&run, TimelineOrder::Oldest, 0, 10);
    assert!(timeline.await.expect("reads").is_empty());
    assert!(
        fixture
            .workflows
            .waiting_steps(None, 10)
            .await
            .expect("lists")
            .is_empty()
    );
    let due = fixture
        .workflows
        .claim_due(scene.secs(9), scene.secs(10), 10)
        .await
        .expect("claims");
    assert!(due.ids.is_empty());
}

/// By its token, until the next one.
pub async fn a_repeated_commit_is_answered_as_before(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let mut second = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    second.timeline = vec![event(scene.at(2), "once")];
    for _ in 0..3 {
        assert_eq!(apply(fixture, &second).await, Committed::Applied(2));
    }
    let timeline = fixture.workflows.timeline(&run, TimelineOrder::Oldest, 0, 10);
    assert_eq!(timeline.await.expect("reads").len(), 1);
    let other = RunCommit {
        token: second.token ^ 1,
        ..second.clone()
    };
    assert_eq!(apply(fixture, &other).await, Committed::Conflict(2));
    let third = commit(&run, 2, head(&scene, RunStatus::Running, 3));
    assert_eq!(apply(fixture, &third).await, Committed::Applied(3));
    assert_eq!(apply(fixture, &second).await, Committed::Conflict(3));
}

/// Exactly one.
pub async fn of_concurrent_commits_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    for revision in 1..=5 {
        let commits: Vec<RunCommit> = (0..8)
            .map(|n| {
                let mut one = commit(&run, revision, head(&scene, RunStatus::Running, revision));
                one.steps = vec![(key("a"), record(RunStatus::Running, n))];
                one
            })
            .collect();
        let committed = futures::future::join_all(commits.iter().map(|commit| apply(fixture, commit))).await;
        let won: Vec<usize> = (0..8)
            .filter(|i| committed[*i] == Committed::Applied(revision + 1))
            .collect();
        assert_eq!(won.len(), 1, "{committed:?}");
        let lost = committed.iter().filter(|it| **it == Committed::Conflict(revision + 1));
        assert_eq!(lost.count(), 7, "{committed:?}");
        let found = load(fixture, &run).await.expect("the run");
        assert_eq!(found.steps[&key("a")].attempts as usize, won[0]);
    }
}

/// Within one call each sees the one before; one that cannot be applied does not hold up the others.
pub async fn commits_on_one_run_go_in_order(fixture: &Fixture) {
    let scene = Scene::new();
    let (one, two) = (run_id(&scene, "1"), run_id(&scene, "2"));
    let news = [&one, &two].map(|run| new_run(commit(run, 0, head(&scene, RunStatus::Running, 1))));
    let created = fixture.workflows.create_runs(&news).await;
    assert!(
        created
            .into_iter()
            .all(|created| matches!(created, Ok(Created::Created)))
    );
    let at = |run: &RunId, expected| commit(run, expected, head(&scene, RunStatus::Running, expected));
    let commits = [
        at(&one, 1),
        at(&two, 5),
        at(&RunId::new("none"), 1),
        at(&one, 2),
        at(&two, 1),
    ];
    let committed: Vec<Committed> = fixture
        .workflows
        .commit_runs(&commits)
        .await
        .into_iter()
        .map(|committed| committed.expect("commits"))
        .collect();
    assert_eq!(
        committed,
        [
            Committed::Applied(2),
            Committed::Conflict(1),
            Committed::Gone,
            Committed::Applied(3),
            Committed::Applied(2)
        ]
    );
    let ids = [two, RunId::new("none"), one];
    let loaded = fixture.workflows.load_runs(&ids).await;
    let revisions: Vec<Option<u64>> = loaded
        .into_iter()
        .map(|run| run.expect("loads").map(|run| run.revision))
        .collect();
    assert_eq!(revisions, [Some(2), None, Some(3)]);
}

/// And nothing of it is left in any list.
pub async fn a_deleted_run_stays_deleted(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let mut first = commit(&run, 0, head(&scene, RunStatus::Waiting, 1));
    first.steps = vec![(key("a"), record(RunStatus::Waiting, 1))];
    first.inbox_add = vec![key("a")];
    first.timeline = vec![event(scene.at(1), "once")];
    first.due = Some(scene.secs(1));
    assert_eq!(create(fixture, new_run(first.clone())).await, Created::Created);
    let next = commit(&run, 1, head(&scene, RunStatus::Waiting, 2));
    let store = &fixture.workflows;
    assert_eq!(
        store.delete_run(&run, 1, None).await.expect("deletes"),
        Committed::Applied(1)
    );
    assert_eq!(apply(fixture, &next).await, Committed::Gone);
    assert_eq!(store.delete_run(&run, 1, None).await.expect("deletes"), Committed::Gone);
    assert_eq!(load(fixture, &run).await, None);
    assert!(store.waiting_steps(None, 10).await.expect("lists").is_empty());
    let timeline = store.timeline(&run, TimelineOrder::Oldest, 0, 10).await;
    assert!(timeline.expect("reads").is_empty());
    let due = store
        .claim_due(scene.secs(9), scene.secs(10), 10)
        .await
        .expect("claims");
    assert_eq!((due.ids, due.next), (Vec::new(), None));
    assert_eq!(store.open_runs(&first.head.workflow_id).await.expect("counts"), 0);
}

/// A run that has gone on since is not.
pub async fn only_the_seen_run_is_deleted(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let next = commit(&run, 1, head(&scene, RunStatus::Succeeded, 2));
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    let audit = AuditRecord::new(scene.at(1), "anna", "", "run.delete", run.as_str());
    let store = &fixture.workflows;
    let refused = store.delete_run(&run, 1, Some(&audit)).await.expect("deletes");
    assert_eq!(refused, Committed::Conflict(2));
    assert!(load(fixture, &run).await.is_some());
    assert!(fixture.audit.pending(10).await.expect("reads").is_empty());
    let deleted = store.delete_run(&run, 2, Some(&audit)).await.expect("deletes");
    assert_eq!(deleted, Committed::Applied(2));
    assert_eq!(fixture.audit.pending(10).await.expect("reads"), [audit]);
}

/// Thousands of records, effects and payloads at once.
pub async fn a_big_commit_is_stored(fixture: &Fixture) {
    const MANY: usize = 2_000;
    let scene = Scene::new();
    let run = RunId::new(&scene.name("r"));
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let mut big = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    let fan = key("fan");
    big.steps = (0..MANY)
        .map(|i| (fan.child(i), record(RunStatus::Running, 1)))
        .collect();
    big.items = vec![(fan.clone(), Arc::new((0..MANY).map(Value::from).collect()))];
    big.effects = (0..MANY as u64).map(|i| (i, Effect::TellParent)).collect();
    big.payloads = (0..MANY)
        .map(|i| (scene.job(&i.to_string()), Bytes::from(vec![b'x'; 100])))
        .collect();
    big.timeline = (0..MANY).map(|i| event(scene.at(i as u64), &i.to_string())).collect();
    big.inbox_add = big.steps.iter().map(|(step, _)| step.clone()).collect();
    assert_eq!(apply(fixture, &big).await, Committed::Applied(2));
    let found = load(fixture, &run).await.expect("the run");
    assert_eq!((found.steps.len(), found.outbox.len()), (MANY, MANY));
    assert_eq!(found.items[&fan].len(), MANY);
    let waiting = fixture.workflows.waiting_steps(None, MANY * 2).await.expect("lists");
    assert_eq!(waiting.len(), MANY);

    let mut done = commit(&run, 2, head(&scene, RunStatus::Succeeded, 3));
    done.done = (0..MANY as u64).collect();
    done.inbox_remove = big.inbox_add;
    assert_eq!(apply(fixture, &done).await, Committed::Applied(3));
    assert!(load(fixture, &run).await.expect("the run").outbox.is_empty());
    assert!(
        fixture
            .workflows
            .waiting_steps(None, 10)
            .await
            .expect("lists")
            .is_empty()
    );
    let deleted = fixture.workflows.delete_run(&run, 3, None).await.expect("deletes");
    assert_eq!(deleted, Committed::Applied(3));
}

/// Where a worker looks for them; not those of a commit that was refused.
pub async fn payloads_are_stored(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let (one, two) = (scene.job("1"), scene.job("2"));
    let mut first = commit(&run, 0, head(&scene, RunStatus::Running, 1));
    first.payloads = vec![(one.clone(), Bytes::from_static(b"{\"\0\":1}"))];
    assert_eq!(create(fixture, new_run(first)).await, Created::Created);
    let mut stale = commit(&run, 7, head(&scene, RunStatus::Running, 2));
    stale.payloads = vec![(two.clone(), Bytes::from_static(b"never"))];
    assert_eq!(apply(fixture, &stale).await, Committed::Conflict(1));
    let stored = fixture.payloads.get(&Pointer::context(&one)).await.expect("reads");
    assert_eq!(stored.as_deref(), Some(b"{\"\0\":1}".as_slice()));
    assert_eq!(
        fixture.payloads.get(&Pointer::context(&two)).await.expect("reads"),
        None
    );
}

/// Of a workflow: until they end, and again if they go on.
pub async fn ended_runs_are_not_open(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let workflow = scene.name("workflow");
    let open = || async { fixture.workflows.open_runs(&workflow).await.expect("counts") };
    assert_eq!(open().await, 0);
    stored(fixture, &run, head(&scene, RunStatus::Pending, 1)).await;
    let path = [
        (RunStatus::Running, 1),
        (RunStatus::Waiting, 1),
        (RunStatus::Failed, 0),
        (RunStatus::Failed, 0),
        (RunStatus::Running, 1),
        (RunStatus::TimedOut, 0),
    ];
    for (revision, (status, count)) in (1..).zip(path) {
        let next = commit(&run, revision, head(&scene, status, revision));
        assert_eq!(apply(fixture, &next).await, Committed::Applied(revision + 1));
        assert_eq!(open().await, count, "{status:?}");
    }
    let over = run_id(&scene, "over");
    stored(fixture, &over, head(&scene, RunStatus::Succeeded, 9)).await;
    assert_eq!(open().await, 0, "over from the start");
}

/// In the outbox with the commit, once.
pub async fn a_commit_brings_its_audit_records(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let records: Vec<AuditRecord> = (0..3)
        .map(|n| AuditRecord::new(scene.at(n), "anna", "", "run.vote", run.as_str()))
        .collect();
    let mut first = commit(&run, 0, head(&scene, RunStatus::Running, 1));
    first.audit = records[..2].to_vec();
    assert_eq!(create(fixture, new_run(first)).await, Created::Created);
    let mut next = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    next.audit = records[1..].to_vec();
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    let mut stale = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    stale.audit = vec![AuditRecord::new(scene.at(9), "anna", "", "run.vote", run.as_str())];
    assert_eq!(apply(fixture, &stale).await, Committed::Conflict(2));
    assert_eq!(fixture.audit.pending(10).await.expect("reads"), records);
}

/// Both ends, with what is skipped.
pub async fn a_timeline_keeps_its_order(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    let mut first = commit(&run, 0, head(&scene, RunStatus::Running, 1));
    first.timeline = (0..3).map(|n| event(scene.at(n), &n.to_string())).collect();
    assert_eq!(create(fixture, new_run(first)).await, Created::Created);
    let mut next = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    next.timeline = (3..5).map(|n| event(scene.at(n), &n.to_string())).collect();
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    for (order, skip, limit, expected) in [
        (TimelineOrder::Oldest, 0, 10, "01234"),
        (TimelineOrder::Oldest, 1, 2, "12"),
        (TimelineOrder::Newest, 0, 10, "43210"),
        (TimelineOrder::Newest, 1, 2, "32"),
        (TimelineOrder::Newest, 4, 9, "0"),
        (TimelineOrder::Newest, 5, 9, ""),
        (TimelineOrder::Oldest, 9, 9, ""),
        (TimelineOrder::Oldest, 0, 0, ""),
        (TimelineOrder::Newest, 0, usize::MAX, "43210"),
    ] {
        let events = fixture
            .workflows
            .timeline(&run, order, skip, limit)
            .await
            .expect("reads");
        let text: String = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(text, expected, "{order:?} {skip} {limit}");
    }
    let whole = fixture.workflows.timeline(&run, TimelineOrder::Oldest, 0, 1).await;
    assert_eq!(whole.expect("reads"), [event(scene.at(0), "0")]);
    let unknown = RunId::new("none");
    let none = fixture.workflows.timeline(&unknown, TimelineOrder::Oldest, 0, 9);
    assert!(none.await.expect("reads").is_empty());
}

/// The newest 10 000 are kept.
pub async fn a_long_timeline_is_trimmed(fixture: &Fixture) {
    let scene = Scene::new();
    let run = run_id(&scene, "r");
    stored(fixture, &run, head(&scene, RunStatus::Running, 1)).await;
    let mut revision = 1;
    for part in 0..3_u64 {
        let mut next = commit(&run, revision, head(&scene, RunStatus::Running, part));
        next.timeline = (0..4_000)
            .map(|n| event(scene.at(n), &(part * 4_000 + n).to_string()))
            .collect();
        revision += 1;
        assert_eq!(apply(fixture, &next).await, Committed::Applied(revision));
    }
    let events = fixture.workflows.timeline(&run, TimelineOrder::Oldest, 0, 20_000);
    let events = events.await.expect("reads");
    assert_eq!(events.len(), 10_000);
    assert_eq!(
        (events[0].message.as_str(), events[9_999].message.as_str()),
        ("2000", "11999")
    );
}
