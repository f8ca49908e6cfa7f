//! Schedules.

use crate::test_util::conformance::{Fixture, Scene};
use crate::workflow::store::Schedule;

fn schedule(scene: &Scene, name: &str, revision: u64) -> Schedule {
    Schedule {
        id: scene.name(name),
        workflow_id: scene.name("workflow"),
        cron: "@hourly".to_owned(),
        revision,
        ..Schedule::default()
    }
}

async fn put(fixture: &Fixture, schedule: &Schedule, expected: u64) -> bool {
    let put = fixture.workflows.put_schedule(schedule, expected, None);
    put.await.expect("puts")
}

async fn claim(fixture: &Fixture, scene: &Scene, now: u64, again: u64) -> Vec<String> {
    let claimed = fixture
        .workflows
        .claim_due_schedules(scene.secs(now), scene.secs(again), 10);
    claimed.await.expect("claims").ids
}

/// Compare-and-set on the revision.
pub async fn a_schedule_is_written_only_over_what_was_seen(fixture: &Fixture) {
    let scene = Scene::new();
    let (one, two) = (schedule(&scene, "s", 1), schedule(&scene, "s", 2));
    let store = &fixture.workflows;
    assert_eq!(store.schedule(&one.id).await.expect("reads"), None);
    assert!(!put(fixture, &two, 1).await, "there is none");
    assert!(put(fixture, &one, 0).await);
    assert!(!put(fixture, &one, 0).await);
    assert_eq!(store.schedule(&one.id).await.expect("reads"), Some(one.clone()));
    assert!(put(fixture, &two, 1).await);
    assert!(!put(fixture, &two, 1).await);
    assert_eq!(store.schedule(&one.id).await.expect("reads"), Some(two));
}

/// All of them, by id.
pub async fn schedules_are_listed_by_id(fixture: &Fixture) {
    let scene = Scene::new();
    let mut all: Vec<Schedule> = ["b", "ü", "a"].iter().map(|name| schedule(&scene, name, 1)).collect();
    for schedule in &all {
        assert!(put(fixture, schedule, 0).await);
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(fixture.workflows.schedules(10).await.expect("lists"), all);
    assert_eq!(fixture.workflows.schedules(2).await.expect("lists"), all[..2]);
    assert!(fixture.workflows.schedules(0).await.expect("lists").is_empty());
}

/// Due at the earlier of its times; not while it is paused.
pub async fn due_schedules_are_claimed_once(fixture: &Fixture) {
    let scene = Scene::new();
    let mut one = schedule(&scene, "s", 1);
    one.next_at = Some(scene.secs(20));
    one.buffered_at = Some(scene.secs(10));
    assert!(put(fixture, &one, 0).await);
    assert!(claim(fixture, &scene, 9, 60).await.is_empty());
    assert_eq!(claim(fixture, &scene, 10, 60).await, [one.id.clone()]);
    assert!(claim(fixture, &scene, 59, 90).await.is_empty());
    assert_eq!(claim(fixture, &scene, 60, 90).await, [one.id.clone()], "due again");

    one.revision = 2;
    one.paused = true;
    assert!(put(fixture, &one, 1).await);
    assert!(claim(fixture, &scene, 1_000, 2_000).await.is_empty());
    one.revision = 3;
    one.paused = false;
    one.buffered_at = None;
    assert!(put(fixture, &one, 2).await);
    let due = fixture
        .workflows
        .claim_due_schedules(scene.secs(19), scene.secs(60), 10);
    let due = due.await.expect("claims");
    assert!(due.ids.is_empty());
    assert_eq!(due.next, Some(scene.secs(20)));
}

/// Nothing is left of it.
pub async fn a_deleted_schedule_is_not_due(fixture: &Fixture) {
    let scene = Scene::new();
    let mut one = schedule(&scene, "s", 1);
    one.next_at = Some(scene.secs(1));
    assert!(put(fixture, &one, 0).await);
    let store = &fixture.workflows;
    assert!(store.delete_schedule(&one.id, None).await.expect("deletes"));
    assert!(!store.delete_schedule(&one.id, None).await.expect("deletes"));
    assert_eq!(store.schedule(&one.id).await.expect("reads"), None);
    assert!(store.schedules(10).await.expect("lists").is_empty());
    assert!(claim(fixture, &scene, 100, 200).await.is_empty());
    assert!(put(fixture, &one, 0).await, "there is none");
}
