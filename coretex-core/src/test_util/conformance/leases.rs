//! What every [`LeaseStore`](crate::locks::LeaseStore) does.

use std::time::Duration;

use super::{Fixture, Scene, eventually};

const LONG: Duration = Duration::from_secs(600);

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! lease_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, leases:
            a_lease_has_one_holder,
            the_holder_renews,
            release_frees_the_name,
            only_the_holder_releases,
            a_lease_ends_with_its_time,
            renewal_prolongs,
            of_many_takers_one_wins,
        );
    };
}

/// Who comes second is told so.
pub async fn a_lease_has_one_holder(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    assert!(fixture.leases.acquire(&name, "a", LONG).await.expect("acquire"));
    assert!(!fixture.leases.acquire(&name, "b", LONG).await.expect("acquire"));
}

/// The holder may take it again.
pub async fn the_holder_renews(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    for _ in 0..3 {
        assert!(fixture.leases.acquire(&name, "a", LONG).await.expect("acquire"));
    }
}

/// After a release anybody may take it.
pub async fn release_frees_the_name(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    assert!(fixture.leases.acquire(&name, "a", LONG).await.expect("acquire"));
    fixture.leases.release(&name, "a").await.expect("release");
    assert!(fixture.leases.acquire(&name, "b", LONG).await.expect("acquire"));
}

/// Others cannot give it back, and giving back what is not there is fine.
pub async fn only_the_holder_releases(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    fixture.leases.release(&name, "a").await.expect("release of nothing");
    assert!(fixture.leases.acquire(&name, "a", LONG).await.expect("acquire"));
    fixture.leases.release(&name, "b").await.expect("release");
    assert!(!fixture.leases.acquire(&name, "b", LONG).await.expect("acquire"));
}

/// Nobody holds a lease for ever.
pub async fn a_lease_ends_with_its_time(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    let short = Duration::from_millis(20);
    assert!(fixture.leases.acquire(&name, "a", short).await.expect("acquire"));
    eventually("the lease ends", || async {
        fixture.leases.acquire(&name, "b", LONG).await.expect("acquire")
    })
    .await;
    assert!(!fixture.leases.acquire(&name, "a", LONG).await.expect("acquire"));
}

/// A renewal counts from its own time.
pub async fn renewal_prolongs(fixture: &Fixture) {
    let scene = Scene::new();
    let (kept, probe) = (scene.name("kept"), scene.name("probe"));
    let short = Duration::from_millis(50);
    assert!(fixture.leases.acquire(&kept, "a", short).await.expect("acquire"));
    // Fails only if the machine stalled for longer than the lease; then it is simply taken anew.
    assert!(fixture.leases.acquire(&kept, "a", LONG).await.expect("renew"));
    assert!(fixture.leases.acquire(&probe, "a", short).await.expect("acquire"));
    eventually("a lease of the first length ends", || async {
        fixture.leases.acquire(&probe, "b", LONG).await.expect("acquire")
    })
    .await;
    assert!(!fixture.leases.acquire(&kept, "b", LONG).await.expect("acquire"));
}

/// However many ask at once.
pub async fn of_many_takers_one_wins(fixture: &Fixture) {
    let name = Scene::new().name("lease");
    let tries = (0..32).map(|i| {
        let (name, leases) = (&name, &fixture.leases);
        async move { leases.acquire(name, &format!("t{i}"), LONG).await.expect("acquire") }
    });
    let won = futures::future::join_all(tries).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}
