//! What every [`Cluster`](crate::cluster::Cluster) does.

use std::time::Duration;

use super::{Fixture, Scene, eventually};

const LONG: Duration = Duration::from_secs(600);

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! cluster_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, cluster:
            instances_see_each_other,
            who_leaves_is_gone,
            who_is_silent_is_gone,
            the_snapshot_is_kept,
            a_live_store_answers_pings,
        );
    };
}

/// A beat returns everybody, the caller included, once.
pub async fn instances_see_each_other(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.instance("a"), scene.instance("b"));
    let first = fixture.cluster.beat(&a, LONG).await.expect("beat");
    assert!(first.contains(&a) && !first.contains(&b));
    let second = fixture.cluster.beat(&b, LONG).await.expect("beat");
    assert!(second.contains(&a) && second.contains(&b));
    let third = fixture.cluster.beat(&a, LONG).await.expect("beat");
    assert_eq!(third.iter().filter(|id| **id == a).count(), 1);
}

/// Leaving needs no timeout.
pub async fn who_leaves_is_gone(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.instance("a"), scene.instance("b"));
    fixture.cluster.beat(&a, LONG).await.expect("beat");
    fixture.cluster.leave(&a).await.expect("leave");
    fixture.cluster.leave(&a).await.expect("leave twice");
    assert!(!fixture.cluster.beat(&b, LONG).await.expect("beat").contains(&a));
}

/// Whoever stops beating is gone after its time.
pub async fn who_is_silent_is_gone(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.instance("a"), scene.instance("b"));
    fixture.cluster.beat(&a, Duration::from_millis(20)).await.expect("beat");
    eventually("the silent instance is gone", || async {
        let alive = fixture.cluster.beat(&b, LONG).await.expect("beat");
        assert!(alive.contains(&b));
        !alive.contains(&a)
    })
    .await;
}

/// The worker snapshot is read as it was written.
pub async fn the_snapshot_is_kept(fixture: &Fixture) {
    let text = format!(r#"{{"workers":[],"note":"{} ü"}}"#, Scene::new().name("snapshot"));
    // Cases on one server share this one document: another may write between our two calls.
    eventually("our snapshot is read back", || async {
        fixture.cluster.put_worker_snapshot(&text).await.expect("put");
        fixture.cluster.worker_snapshot().await.expect("get").as_ref() == Some(&text)
    })
    .await;
}

/// The store is there.
pub async fn a_live_store_answers_pings(fixture: &Fixture) {
    fixture.cluster.ping().await.expect("ping");
}
