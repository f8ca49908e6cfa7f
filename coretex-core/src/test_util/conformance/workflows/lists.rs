//! How runs are found: lists, what is due, what waits.

use std::collections::BTreeSet;

use super::{apply, commit, create, head, key, load, new_run, record, run_id, stored};
use crate::test_util::conformance::{Fixture, Scene};
use crate::workflow::store::{Committed, Created, RunPage, RunQuery, Waiting};
use crate::workflow::{RunHead, RunId, RunStatus};

async fn due_run(fixture: &Fixture, scene: &Scene, name: &str, due: Option<u64>) -> RunId {
    let run = run_id(scene, name);
    let mut first = commit(&run, 0, head(scene, RunStatus::Running, 1));
    first.due = due.map(|secs| scene.secs(secs));
    assert_eq!(create(fixture, new_run(first)).await, Created::Created);
    run
}

/// The most overdue first, and not again before the time that was given.
pub async fn due_runs_are_claimed_once(fixture: &Fixture) {
    let scene = Scene::new();
    let store = &fixture.workflows;
    let late = due_run(fixture, &scene, "late", Some(30)).await;
    let early = due_run(fixture, &scene, "early", Some(10)).await;
    due_run(fixture, &scene, "never", None).await;

    let none = store
        .claim_due(scene.secs(9), scene.secs(60), 10)
        .await
        .expect("claims");
    assert_eq!((none.ids, none.next), (Vec::new(), Some(scene.secs(10))));
    let one = store
        .claim_due(scene.secs(40), scene.secs(60), 1)
        .await
        .expect("claims");
    assert_eq!((one.ids, one.next), (vec![early.clone()], Some(scene.secs(30))));
    let two = store
        .claim_due(scene.secs(40), scene.secs(70), 10)
        .await
        .expect("claims");
    assert_eq!((two.ids, two.next), (vec![late.clone()], Some(scene.secs(60))));
    let none = store
        .claim_due(scene.secs(59), scene.secs(80), 10)
        .await
        .expect("claims");
    assert!(none.ids.is_empty());
    let again = store
        .claim_due(scene.secs(70), scene.secs(100), 10)
        .await
        .expect("claims");
    assert_eq!(again.ids, [early, late]);
    let nothing = store
        .claim_due(scene.secs(1_000), scene.secs(2_000), 0)
        .await
        .expect("claims");
    assert!(nothing.ids.is_empty());
}

/// Whatever it was before.
pub async fn a_commit_says_when_a_run_is_due(fixture: &Fixture) {
    let scene = Scene::new();
    let store = &fixture.workflows;
    let run = due_run(fixture, &scene, "r", Some(10)).await;
    let mut next = commit(&run, 1, head(&scene, RunStatus::Running, 2));
    next.due = Some(scene.secs(20));
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    let early = store
        .claim_due(scene.secs(19), scene.secs(60), 10)
        .await
        .expect("claims");
    assert!(early.ids.is_empty());
    let due = store
        .claim_due(scene.secs(20), scene.secs(60), 10)
        .await
        .expect("claims");
    assert_eq!(due.ids, std::slice::from_ref(&run));
    let next = commit(&run, 2, head(&scene, RunStatus::Running, 3));
    assert_eq!(apply(fixture, &next).await, Committed::Applied(3));
    let never = store
        .claim_due(scene.secs(1_000), scene.secs(2_000), 10)
        .await
        .expect("claims");
    assert_eq!((never.ids, never.next), (Vec::new(), None));
}

/// No run is claimed twice.
pub async fn of_many_claims_each_gets_its_own(fixture: &Fixture) {
    let scene = Scene::new();
    for n in 0..40 {
        due_run(fixture, &scene, &n.to_string(), Some(n % 5)).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        let claims = (0..4).map(|_| fixture.workflows.claim_due(scene.secs(10), scene.secs(1_000), 7));
        let before = seen.len();
        for due in futures::future::join_all(claims).await {
            for id in due.expect("claims").ids {
                assert!(seen.insert(id), "claimed twice");
            }
        }
        assert!(seen.len() > before, "somebody gets something");
    }
}

fn of_workflow(scene: &Scene) -> RunQuery {
    RunQuery {
        workflow_id: Some(scene.name("workflow")),
        limit: 100,
        ..RunQuery::default()
    }
}

async fn page(fixture: &Fixture, query: &RunQuery) -> RunPage {
    fixture.workflows.runs(query).await.expect("lists")
}

/// The names of a page's runs, without the tag of the scene.
fn names(page: &RunPage) -> Vec<String> {
    let name = |id: &RunId| {
        id.as_str()
            .rsplit_once('-')
            .map_or_else(String::new, |(name, _)| name.to_owned())
    };
    page.runs.iter().map(|run| name(&run.id)).collect()
}

/// By their last change, whole.
pub async fn runs_are_listed_latest_first(fixture: &Fixture) {
    let scene = Scene::new();
    for (name, at) in [("a", 10), ("b", 30), ("c", 20)] {
        stored(fixture, &run_id(&scene, name), head(&scene, RunStatus::Running, at)).await;
    }
    assert_eq!(names(&page(fixture, &of_workflow(&scene)).await), ["b", "c", "a"]);
    let mut next = commit(&run_id(&scene, "a"), 1, head(&scene, RunStatus::Running, 31));
    next.steps = vec![(key("s"), record(RunStatus::Running, 1))];
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    let found = page(fixture, &of_workflow(&scene)).await;
    assert_eq!(names(&found), ["a", "b", "c"]);
    assert_eq!(found.next, None);
    assert_eq!(Some(&found.runs[0]), load(fixture, &run_id(&scene, "a")).await.as_ref());
    let all = RunQuery {
        limit: 100,
        ..RunQuery::default()
    };
    assert_eq!(names(&page(fixture, &all).await), ["a", "b", "c"]);
}

/// None is skipped and none comes twice, whatever the size of the page.
pub async fn runs_of_one_moment_are_paged(fixture: &Fixture) {
    let scene = Scene::new();
    let runs: Vec<RunId> = (0..450).map(|n| run_id(&scene, &format!("{n:03}"))).collect();
    let news: Vec<_> = runs
        .iter()
        .enumerate()
        .map(|(n, run)| {
            let at = if n < 420 { 7 } else { n as u64 };
            let status = if n % 2 == 0 {
                RunStatus::Running
            } else {
                RunStatus::Failed
            };
            new_run(commit(run, 0, head(&scene, status, at)))
        })
        .collect();
    for created in fixture.workflows.create_runs(&news).await {
        assert_eq!(created.expect("creates"), Created::Created);
    }
    for (workflow, limit) in [(true, 97), (false, 64), (true, 449), (false, 450)] {
        let mut query = RunQuery {
            limit,
            ..RunQuery::default()
        };
        if workflow {
            query = RunQuery {
                limit,
                ..of_workflow(&scene)
            };
        }
        let mut seen = Vec::new();
        loop {
            let page = page(fixture, &query).await;
            assert!(page.runs.len() <= limit);
            seen.extend(page.runs.iter().map(|run| (run.head.updated_at, run.id.clone())));
            let Some(next) = page.next else { break };
            assert_eq!(page.runs.len(), limit, "only the last page is short");
            query.after = Some(next);
        }
        let mut sorted = seen.clone();
        sorted.sort_by(|one, other| other.cmp(one));
        assert_eq!(seen, sorted);
        assert_eq!(seen.len(), 450);
    }
}

/// By each of the filters, and by several.
pub async fn runs_are_filtered(fixture: &Fixture) {
    let scene = Scene::new();
    let with = |status, at, change: fn(&mut RunHead, &Scene)| {
        let mut head = head(&scene, status, at);
        change(&mut head, &scene);
        head
    };
    let runs = [
        ("a", with(RunStatus::Running, 1, |_, _| {})),
        ("b", with(RunStatus::Failed, 2, |_, _| {})),
        (
            "c",
            with(RunStatus::Failed, 3, |head, scene| head.org_id = scene.name("org2")),
        ),
        (
            "d",
            with(RunStatus::Failed, 4, |head, scene| head.workflow_id = scene.name("w2")),
        ),
        (
            "e",
            with(RunStatus::Running, 5, |head, scene| head.team_id = scene.name("t2")),
        ),
        ("f", with(RunStatus::Succeeded, 6, |head, _| head.org_id.clear())),
    ];
    for (name, head) in runs {
        stored(fixture, &run_id(&scene, name), head).await;
    }
    let all = RunQuery {
        limit: 100,
        ..RunQuery::default()
    };
    let org = Some(scene.name("org"));
    for (query, expected) in [
        (all.clone(), "fedcba"),
        (
            RunQuery {
                status: Some(RunStatus::Failed),
                ..all.clone()
            },
            "dcb",
        ),
        (
            RunQuery {
                status: Some(RunStatus::Waiting),
                ..all.clone()
            },
            "",
        ),
        (
            RunQuery {
                org_id: org.clone(),
                ..all.clone()
            },
            "edba",
        ),
        (
            RunQuery {
                org_id: org.clone(),
                status: Some(RunStatus::Failed),
                ..all.clone()
            },
            "db",
        ),
        (
            RunQuery {
                team_id: Some(scene.name("t2")),
                ..all.clone()
            },
            "e",
        ),
        (
            RunQuery {
                workflow_id: Some(scene.name("w2")),
                ..all.clone()
            },
            "d",
        ),
        (
            RunQuery {
                org_id: org,
                ..of_workflow(&scene)
            },
            "eba",
        ),
        (
            RunQuery {
                status: Some(RunStatus::Failed),
                ..of_workflow(&scene)
            },
            "cb",
        ),
        (
            RunQuery {
                workflow_id: Some("none".to_owned()),
                ..all.clone()
            },
            "",
        ),
        (
            RunQuery {
                updated_after: Some(scene.at(3)),
                ..all.clone()
            },
            "fedc",
        ),
        (
            RunQuery {
                updated_before: Some(scene.at(3)),
                ..all.clone()
            },
            "cba",
        ),
        (
            RunQuery {
                updated_after: Some(scene.at(2)),
                updated_before: Some(scene.at(3)),
                ..all.clone()
            },
            "cb",
        ),
        (
            RunQuery {
                updated_before: Some(scene.at(3)),
                after: Some((scene.at(5), run_id(&scene, "e"))),
                ..all.clone()
            },
            "cba",
        ),
        (
            RunQuery {
                after: Some((scene.at(3), run_id(&scene, "c"))),
                ..all.clone()
            },
            "ba",
        ),
        (
            RunQuery {
                updated_after: Some(scene.at(4)),
                updated_before: Some(scene.at(3)),
                ..all
            },
            "",
        ),
    ] {
        let found = page(fixture, &query).await;
        assert_eq!(names(&found).concat(), expected, "{query:?}");
        assert_eq!(found.next, None);
    }
}

/// A page with a filter is full if there is enough, and says where the next begins only if there is one.
pub async fn pages_hold_only_what_fits(fixture: &Fixture) {
    let scene = Scene::new();
    let runs: Vec<RunId> = (0..300).map(|n| run_id(&scene, &format!("{n:03}"))).collect();
    let news: Vec<_> = runs
        .iter()
        .enumerate()
        .map(|(n, run)| {
            let status = if n % 100 == 0 {
                RunStatus::Failed
            } else {
                RunStatus::Running
            };
            new_run(commit(run, 0, head(&scene, status, n as u64)))
        })
        .collect();
    for created in fixture.workflows.create_runs(&news).await {
        assert_eq!(created.expect("creates"), Created::Created);
    }
    let mut query = RunQuery {
        status: Some(RunStatus::Failed),
        limit: 2,
        ..of_workflow(&scene)
    };
    let first = page(fixture, &query).await;
    assert_eq!(names(&first), ["200", "100"]);
    query.after = first.next;
    assert!(query.after.is_some());
    let second = page(fixture, &query).await;
    assert_eq!((names(&second), second.next), (vec!["000".to_owned()], None));
    query.limit = 0;
    assert_eq!(page(fixture, &query).await, RunPage::default());
}

/// Oldest first, page by page; no longer than they wait.
pub async fn steps_that_wait_are_listed(fixture: &Fixture) {
    let scene = Scene::new();
    let store = &fixture.workflows;
    let mut expected = Vec::new();
    for (name, at) in [("b", 5), ("a", 5), ("c", 1)] {
        let run = run_id(&scene, name);
        let mut first = commit(&run, 0, head(&scene, RunStatus::Waiting, at));
        first.inbox_add = vec![key("y"), key("x")];
        assert_eq!(create(fixture, new_run(first)).await, Created::Created);
        expected.extend(["x", "y"].map(|step| Waiting {
            since: scene.at(at),
            run: run.clone(),
            step: key(step),
        }));
    }
    expected.sort();
    assert_eq!(store.waiting_steps(None, 100).await.expect("lists"), expected);
    let mut paged = Vec::new();
    loop {
        let page = store.waiting_steps(paged.last(), 4).await.expect("lists");
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, expected);

    let mut next = commit(&run_id(&scene, "a"), 1, head(&scene, RunStatus::Waiting, 9));
    next.inbox_add = vec![key("y")];
    next.inbox_remove = vec![key("x"), key("unknown")];
    assert_eq!(apply(fixture, &next).await, Committed::Applied(2));
    expected.retain(|waiting| !(waiting.run == next.run && waiting.step == key("x")));
    assert_eq!(
        store.waiting_steps(None, 100).await.expect("lists"),
        expected,
        "y since then"
    );
    assert!(store.waiting_steps(None, 0).await.expect("lists").is_empty());
}

/// Those that ended, the oldest first.
pub async fn old_runs_expire(fixture: &Fixture) {
    let scene = Scene::new();
    for (name, status, at) in [
        ("a", RunStatus::Succeeded, 1),
        ("b", RunStatus::Failed, 2),
        ("c", RunStatus::Running, 1),
        ("d", RunStatus::TimedOut, 3),
        ("e", RunStatus::Cancelled, 9),
    ] {
        stored(fixture, &run_id(&scene, name), head(&scene, status, at)).await;
    }
    let store = &fixture.workflows;
    assert_eq!(
        store.expire_runs(scene.at(1), 10).await.expect("expires"),
        0,
        "not before"
    );
    assert_eq!(store.expire_runs(scene.at(9), 2).await.expect("expires"), 2);
    assert_eq!(names(&page(fixture, &of_workflow(&scene)).await), ["e", "d", "c"]);
    assert_eq!(store.expire_runs(scene.at(9), 10).await.expect("expires"), 1);
    assert_eq!(store.expire_runs(scene.at(9), 10).await.expect("expires"), 0);
    assert_eq!(names(&page(fixture, &of_workflow(&scene)).await), ["e", "c"]);
}
