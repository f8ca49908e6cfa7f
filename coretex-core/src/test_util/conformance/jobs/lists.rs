//! How jobs are found.

use std::time::Duration;

use super::support::{apply, change, create, dispatch, reach, record, worker};
use crate::jobs::{Change, Cursor, JobEvent, JobRecord, JobState, ListQuery, Note, ScanItem, Source};
use crate::protocol::JobId;
use crate::test_util::conformance::{Fixture, Scene};
use crate::time::{Clock, Timestamp};

/// Walks a list page by page, from `from` on until past `until`, and returns the case's own jobs in it. The cursors go
/// through their text form, as clients send them.
async fn walk(fixture: &Fixture, scene: &Scene, source: &Source, from: Timestamp, until: Timestamp) -> Vec<JobRecord> {
    let mut after = Some(Cursor {
        at: from,
        id: String::new(),
    });
    let mut own = vec![];
    for _ in 0..10_000 {
        let query = ListQuery {
            source: source.clone(),
            after: after.take(),
            limit: 3,
        };
        let page = fixture.jobs.list(&query).await.expect("list");
        assert!(page.jobs.len() <= 3);
        let past = page.jobs.last().is_some_and(|job| match source {
            Source::StateOldestFirst(_) => job.revision.0 > until,
            Source::Recent | Source::State(_) => job.revision.0 < until,
        });
        own.extend(page.jobs.into_iter().filter(|job| scene.owns(job.id.as_str())));
        match page.next {
            Some(next) if !past => after = Some(next.to_string().parse().expect("a cursor")),
            _ => return own,
        }
    }
    panic!("the list does not end");
}

fn names(jobs: &[JobRecord]) -> Vec<&str> {
    jobs.iter().map(|job| job.id.as_str()).collect()
}

/// Ten jobs of four times: many ties, also at the borders of pages.
async fn ties(fixture: &Fixture, scene: &Scene) -> Vec<(Timestamp, String)> {
    let mut made = vec![];
    for i in 0..10_u64 {
        let id = scene.job(&format!("tie {i}"));
        let revision = create(fixture, &id, scene.secs(1 + i / 3)).await;
        made.push((revision.0, id.as_str().to_owned()));
    }
    made
}

fn check_pages(jobs: &[JobRecord], made: &[(Timestamp, String)], newest_first: bool) {
    let mut listed: Vec<(Timestamp, String)> = jobs
        .iter()
        .map(|job| (job.revision.0, job.id.as_str().to_owned()))
        .collect();
    let in_order = listed.windows(2).all(|pair| {
        if newest_first {
            pair[0].0 >= pair[1].0
        } else {
            pair[0].0 <= pair[1].0
        }
    });
    assert!(in_order, "{listed:?}");
    listed.sort();
    let mut made = made.to_vec();
    made.sort();
    assert_eq!(listed, made);
}

/// Of all states, whatever ties there are.
pub async fn recent_pages_cover_everything_once(fixture: &Fixture) {
    let scene = Scene::new();
    let mut made = ties(fixture, &scene).await;
    for (i, state) in (0_u64..).zip([JobState::Running, JobState::Denied, JobState::Succeeded]) {
        let id = scene.job(state.as_str());
        let revision = reach(fixture, &id, state, scene.secs(3 + i)).await;
        made.push((revision.0, id.as_str().to_owned()));
    }
    let jobs = walk(fixture, &scene, &Source::Recent, scene.secs(60), scene.secs(0)).await;
    check_pages(&jobs, &made, true);
}

/// In both directions.
pub async fn state_pages_cover_everything_once(fixture: &Fixture) {
    let scene = Scene::new();
    let made = ties(fixture, &scene).await;
    reach(fixture, &scene.job("other"), JobState::Running, scene.secs(2)).await;
    let newest = Source::State(JobState::Pending);
    let jobs = walk(fixture, &scene, &newest, scene.secs(60), scene.secs(0)).await;
    check_pages(&jobs, &made, true);
    let oldest = Source::StateOldestFirst(JobState::Pending);
    let jobs = walk(fixture, &scene, &oldest, scene.secs(0), scene.secs(60)).await;
    check_pages(&jobs, &made, false);
}

/// A job is in one state's list only, and in its newest place.
pub async fn lists_follow_transitions(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.job("a"), scene.job("b"));
    create(fixture, &a, scene.secs(1)).await;
    create(fixture, &b, scene.secs(2)).await;
    apply(fixture, dispatch(&a, scene.secs(3))).await;
    let (from, until) = (scene.secs(60), scene.secs(0));
    let recent = walk(fixture, &scene, &Source::Recent, from, until).await;
    assert_eq!(names(&recent), [a.as_str(), b.as_str()]);
    for state in JobState::ALL {
        let jobs = walk(fixture, &scene, &Source::State(state), from, until).await;
        let expected: &[&str] = match state {
            JobState::Pending => &[b.as_str()],
            JobState::Running => &[a.as_str()],
            _ => &[],
        };
        assert_eq!(names(&jobs), expected, "{state}");
    }
}

/// As a client asks that knows only a number.
pub async fn a_bare_time_begins_with_that_time(fixture: &Fixture) {
    let scene = Scene::new();
    for secs in 1..=3 {
        create(fixture, &scene.job(&secs.to_string()), scene.secs(secs)).await;
    }
    let ids = ["1", "2", "3"].map(|name| scene.job(name));
    let [one, two, three] = [0, 1, 2].map(|i| ids[i].as_str());
    for source in [Source::Recent, Source::State(JobState::Pending)] {
        let jobs = walk(fixture, &scene, &source, scene.secs(2), scene.secs(0)).await;
        assert_eq!(names(&jobs), [two, one]);
    }
    let oldest = Source::StateOldestFirst(JobState::Pending);
    let jobs = walk(fixture, &scene, &oldest, scene.secs(2), scene.secs(60)).await;
    assert_eq!(names(&jobs), [two, three]);
    let none = ListQuery {
        source: Source::Recent,
        after: None,
        limit: 0,
    };
    assert!(fixture.jobs.list(&none).await.expect("list").jobs.is_empty());
}

/// A list shows what `get` shows.
pub async fn listed_records_are_whole(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.secs(1)).await;
    let change = Change {
        trace_id: Some(scene.trace("trace")),
        owner: Some(scene.instance("me")),
        deadline: Some(scene.secs(90)),
        ..dispatch(&id, scene.secs(2))
    };
    apply(fixture, change).await;
    let record = record(fixture, &id).await;
    let jobs = walk(fixture, &scene, &Source::Recent, scene.secs(60), scene.secs(0)).await;
    assert_eq!(jobs, std::slice::from_ref(&record));
    let traced = fixture.jobs.trace(&scene.trace("trace"), 10).await.expect("trace");
    assert_eq!(traced, [record]);
}

/// By their last change, in any state, as many as asked for.
pub async fn traces_are_oldest_first(fixture: &Fixture) {
    let scene = Scene::new();
    let trace = scene.trace("trace: é/b");
    for (i, name) in (0_u64..).zip(["a", "b", "c", "d"]) {
        let submit = Change {
            trace_id: Some(trace.clone()),
            ..change(&scene.job(name), JobEvent::Submit, scene.secs(1 + i))
        };
        apply(fixture, submit).await;
    }
    create(fixture, &scene.job("untraced"), scene.secs(2)).await;
    apply(fixture, change(&scene.job("b"), JobEvent::Cancel, scene.secs(20))).await;
    apply(fixture, dispatch(&scene.job("a"), scene.secs(30))).await;
    let ids = ["c", "d", "b", "a"].map(|name| scene.job(name));
    let jobs = fixture.jobs.trace(&trace, 10).await.expect("trace");
    assert_eq!(names(&jobs), ids.iter().map(JobId::as_str).collect::<Vec<_>>());
    assert_eq!(fixture.jobs.trace(&trace, 2).await.expect("trace").len(), 2);
    assert!(
        fixture
            .jobs
            .trace(&scene.trace("none"), 9)
            .await
            .expect("trace")
            .is_empty()
    );
}

/// A job that has one keeps it.
pub async fn a_trace_is_recorded_once(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.secs(1)).await;
    for name in ["first", "second"] {
        let park = Change {
            trace_id: Some(scene.trace(name)),
            ..change(&id, JobEvent::Park, scene.secs(2))
        };
        assert_eq!(apply(fixture, park).await.trace_id, Some(scene.trace("first")));
    }
    assert_eq!(record(fixture, &id).await.trace_id, Some(scene.trace("first")));
    assert_eq!(
        fixture.jobs.trace(&scene.trace("first"), 9).await.expect("trace").len(),
        1
    );
    assert!(
        fixture
            .jobs
            .trace(&scene.trace("second"), 9)
            .await
            .expect("trace")
            .is_empty()
    );
}

/// Page by page, without those of the other states.
pub async fn scans_are_oldest_first_until(fixture: &Fixture) {
    let scene = Scene::new();
    let mut made = ties(fixture, &scene).await;
    reach(fixture, &scene.job("other"), JobState::Running, scene.secs(2)).await;
    let until = scene.secs(3);
    made.retain(|(at, _)| *at <= until);
    assert_eq!(made.len(), 9);
    let mut after = Cursor {
        at: scene.secs(0),
        id: String::new(),
    };
    let mut seen = vec![];
    loop {
        let items = fixture
            .jobs
            .scan(JobState::Pending, until, Some(&after), 4)
            .await
            .expect("scan");
        assert!(items.len() <= 4);
        let Some(last) = items.last() else { break };
        after = Cursor {
            at: last.revision.0,
            id: last.id.as_str().to_owned(),
        };
        assert!(items.iter().all(|item| item.revision.0 <= until));
        seen.extend(
            items
                .into_iter()
                .map(|item| (item.revision.0, item.id.as_str().to_owned())),
        );
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    seen.retain(|(_, id)| scene.owns(id));
    seen.sort();
    made.sort();
    assert_eq!(seen, made);
}

/// Owner, worker, and whether it was accepted.
pub async fn scan_items_say_who_has_it(fixture: &Fixture) {
    let scene = Scene::new();
    let (bare, accepted) = (scene.job("bare"), scene.job("accepted"));
    reach(fixture, &bare, JobState::Pending, scene.secs(1)).await;
    create(fixture, &accepted, scene.secs(1)).await;
    let dispatch = Change {
        owner: Some(scene.instance("me")),
        ..dispatch(&accepted, scene.secs(2))
    };
    apply(fixture, dispatch).await;
    let scan = |state| {
        let scene = &scene;
        async move {
            let after = Cursor {
                at: scene.secs(0),
                id: String::new(),
            };
            let items = fixture.jobs.scan(state, scene.secs(9), Some(&after), 10_000).await;
            let mut items = items.expect("scan");
            items.retain(|item| scene.owns(item.id.as_str()));
            items
        }
    };
    let mut item = ScanItem {
        id: accepted.clone(),
        revision: record(fixture, &accepted).await.revision,
        owner: Some(scene.instance("me")),
        worker_id: Some(worker("worker-1")),
        accepted: false,
    };
    assert_eq!(scan(JobState::Running).await, [item.clone()]);
    let note = Note::Accepted {
        id: accepted.clone(),
        worker_id: worker("worker-1"),
        at: scene.secs(3),
    };
    fixture.jobs.note_many(&[note]).await.expect("note");
    item.accepted = true;
    assert_eq!(scan(JobState::Running).await, [item]);
    let pending = scan(JobState::Pending).await;
    assert_eq!(pending.len(), 1);
    assert_eq!(
        (&pending[0].id, &pending[0].owner, &pending[0].worker_id),
        (&bare, &None, &None)
    );
}

/// At least what we see; others may be at work beside us.
pub async fn counts_count(fixture: &Fixture) {
    let scene = Scene::new();
    for (i, state) in super::support::REACHABLE.into_iter().enumerate() {
        for n in 0..=i {
            reach(fixture, &scene.job(&format!("{state} {n}")), state, scene.secs(1)).await;
        }
    }
    let counts = fixture.jobs.counts().await.expect("counts");
    for (i, state) in (1_u64..).zip(super::support::REACHABLE) {
        let found: Vec<u64> = counts.iter().filter(|(s, _)| *s == state).map(|(_, n)| *n).collect();
        assert_eq!(found.len(), 1, "{state} is counted once");
        assert!(found[0] >= i, "{state}: {} of {i}", found[0]);
    }
}

/// Ended jobs older than the metadata's time to live leave every list; younger ones stay.
pub async fn the_sweep_takes_what_is_old(fixture: &Fixture) {
    let scene = Scene::new();
    let now = Clock::system().now();
    let long_ago = now.minus(fixture.meta_ttl() + Duration::from_secs(3_600));
    let (old, young) = (scene.job("old"), scene.job("young"));
    reach(fixture, &old, JobState::Succeeded, long_ago).await;
    reach(fixture, &young, JobState::Succeeded, scene.secs(1)).await;
    for _ in 0..1_000 {
        if fixture.jobs.sweep(now).await.expect("sweep") == 0 {
            break;
        }
    }
    let (from, until) = (now, long_ago.minus(Duration::from_secs(1)));
    for source in [Source::Recent, Source::State(JobState::Succeeded)] {
        let jobs = walk(fixture, &scene, &source, from, until).await;
        assert_eq!(names(&jobs), [young.as_str()]);
    }
    let scanned = fixture
        .jobs
        .scan(
            JobState::Succeeded,
            long_ago.plus(Duration::from_secs(60)),
            None,
            10_000,
        )
        .await
        .expect("scan");
    assert!(scanned.iter().all(|item| item.id != old));
    assert_eq!(record(fixture, &young).await.state, JobState::Succeeded);
}
