//! What every [`DlqStore`](crate::dlq::DlqStore) does.

use super::{Fixture, Scene};
use crate::dlq::DeadLetter;
use crate::time::Timestamp;

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! dlq_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, dlq:
            a_letter_is_got_as_it_was_put,
            a_later_letter_replaces,
            lists_are_newest_first,
            a_list_begins_where_asked,
            deleted_letters_are_gone,
        );
    };
}

fn letter(job: &str, at: Timestamp) -> DeadLetter {
    DeadLetter {
        job_id: job.to_owned(),
        topic: "job.tests".to_owned(),
        status: "JOB_STATUS_FAILED".to_owned(),
        reason: "quoted \" and ü".to_owned(),
        reason_code: "dispatch_failed".to_owned(),
        last_state: "FAILED".to_owned(),
        attempts: 3,
        created_at: at.rfc3339(),
    }
}

/// All of it; and one with nothing in it.
pub async fn a_letter_is_got_as_it_was_put(fixture: &Fixture) {
    let scene = Scene::new();
    let job = scene.job("full");
    assert_eq!(fixture.dlq.get(&job).await.expect("get"), None);
    let full = letter(job.as_str(), scene.at(1));
    fixture.dlq.put(&full, scene.at(1)).await.expect("put");
    assert_eq!(fixture.dlq.get(&job).await.expect("get"), Some(full));

    let job = scene.job("bare");
    let bare = DeadLetter {
        job_id: job.as_str().to_owned(),
        topic: String::new(),
        status: String::new(),
        reason: String::new(),
        reason_code: String::new(),
        last_state: String::new(),
        attempts: 0,
        created_at: scene.at(1).rfc3339(),
    };
    fixture.dlq.put(&bare, scene.at(1)).await.expect("put");
    assert_eq!(fixture.dlq.get(&job).await.expect("get"), Some(bare));
}

/// There is one per job, in its newest place.
pub async fn a_later_letter_replaces(fixture: &Fixture) {
    let scene = Scene::new();
    let job = scene.job("job");
    fixture
        .dlq
        .put(&letter(job.as_str(), scene.secs(1)), scene.secs(1))
        .await
        .expect("put");
    let mut later = letter(job.as_str(), scene.secs(9));
    later.reason.push_str(", again");
    fixture.dlq.put(&later, scene.secs(9)).await.expect("put");
    assert_eq!(fixture.dlq.get(&job).await.expect("get"), Some(later.clone()));
    let listed = own(fixture, &scene, Some(scene.secs(20)), 500).await;
    assert_eq!(listed, [later]);
}

async fn own(fixture: &Fixture, scene: &Scene, before: Option<Timestamp>, limit: usize) -> Vec<DeadLetter> {
    let mut letters = fixture.dlq.list(before, limit).await.expect("list");
    assert!(letters.len() <= limit);
    letters.retain(|letter| scene.owns(&letter.job_id));
    letters
}

/// By whole seconds.
pub async fn lists_are_newest_first(fixture: &Fixture) {
    let scene = Scene::new();
    for secs in [3, 1, 5, 2, 4] {
        let at = scene.secs(secs);
        let job = scene.job(&secs.to_string());
        fixture.dlq.put(&letter(job.as_str(), at), at).await.expect("put");
    }
    let times: Vec<String> = own(fixture, &scene, None, 1_000)
        .await
        .into_iter()
        .map(|l| l.created_at)
        .collect();
    let expected: Vec<String> = [5, 4, 3, 2, 1].map(|secs| scene.secs(secs).rfc3339()).into();
    assert_eq!(times, expected);
    assert!(fixture.dlq.list(None, 2).await.expect("list").len() <= 2);
    assert!(fixture.dlq.list(None, 0).await.expect("list").is_empty());
}

/// With what is of that very second.
pub async fn a_list_begins_where_asked(fixture: &Fixture) {
    let scene = Scene::new();
    for secs in 1..=5 {
        let at = scene.secs(secs).plus(std::time::Duration::from_millis(700));
        let job = scene.job(&secs.to_string());
        fixture.dlq.put(&letter(job.as_str(), at), at).await.expect("put");
    }
    let listed = own(fixture, &scene, Some(scene.secs(3)), 1_000).await;
    let ids: Vec<&str> = listed.iter().map(|letter| letter.job_id.as_str()).collect();
    let expected = ["3", "2", "1"].map(|name| scene.job(name));
    assert_eq!(ids, expected.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
}

/// From the list too; and deleting what is not there is fine.
pub async fn deleted_letters_are_gone(fixture: &Fixture) {
    let scene = Scene::new();
    let job = scene.job("job");
    fixture
        .dlq
        .put(&letter(job.as_str(), scene.at(1)), scene.at(1))
        .await
        .expect("put");
    for _ in 0..2 {
        fixture.dlq.delete(&job).await.expect("delete");
        assert_eq!(fixture.dlq.get(&job).await.expect("get"), None);
        assert!(own(fixture, &scene, Some(scene.secs(9)), 500).await.is_empty());
    }
}
