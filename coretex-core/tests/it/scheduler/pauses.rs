//! Topics and pools that somebody holds back. docs/spec/config.md §5.

use std::sync::Arc;

use coretex_core::audit::Actor;
use coretex_core::config::{ConfigService, Pausable, PauseService};
use coretex_core::jobs::JobState;
use coretex_core::protocol::agent::JobStatus;
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;

use super::world::{Backend, World, job};

fn pauses(world: &World) -> PauseService {
    let clock = Clock::system();
    let config = ConfigService::new(Arc::clone(&world.stores.config), Arc::clone(&world.bus), clock.clone());
    PauseService::new(config, clock)
}

/// What runs goes on; what comes waits, says why, and runs when the pause is over. Also where the scheduler starts later.
pub(crate) async fn jobs_of_a_paused_topic_wait(backend: Backend) {
    held_back(
        backend,
        Pausable::Topic,
        "job.default",
        "not placed because: topic job.default is paused",
    )
    .await;
}

/// The same for a pool.
pub(crate) async fn jobs_of_a_paused_pool_wait(backend: Backend) {
    held_back(
        backend,
        Pausable::Pool,
        "default",
        "not placed because: pool default is paused",
    )
    .await;
}

async fn held_back(backend: Backend, kind: Pausable, name: &str, why: &str) {
    let mut world = World::idle(backend).await;
    let by = Actor::new("ada", "operator");
    let pauses = pauses(&world);
    assert!(pauses.pause(kind, name, "bank is down", &by).await.expect("paused"));
    assert!(
        !pauses
            .pause(kind, name, "again", &by)
            .await
            .expect("it is paused already")
    );
    world.start_scheduler().await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("held");
    world.submit(&request).await;
    assert_eq!(world.waits_because(&id, "paused").await, why);

    assert!(pauses.resume(kind, name, &by).await.expect("resumed"));
    assert_eq!(worker.id().await, id);
    assert!(
        pauses
            .pause(kind, name, "", &by)
            .await
            .expect("paused while a job runs")
    );
    // Schedulers hear of it a moment later: what comes before that is dispatched.
    let later = loop {
        let (next, request) = job("later");
        world.submit(&request).await;
        let dispatched = until("the job runs or waits", || async {
            let record = world.record(&next).await?;
            let waits = record
                .pending
                .is_some_and(|pending| pending.reason.as_str() == "paused");
            (waits || record.state == JobState::Running).then_some(!waits)
        })
        .await;
        if !dispatched {
            break next;
        }
        assert_eq!(worker.id().await, next);
        world.result(&next, JobStatus::Succeeded).await;
    };
    world.result(&id, JobStatus::Succeeded).await;
    world.reaches(&id, JobState::Succeeded).await;
    assert!(
        world
            .record(&later)
            .await
            .is_some_and(|job| job.state == JobState::Pending)
    );
    assert!(pauses.resume(kind, name, &by).await.expect("resumed"));
    assert_eq!(worker.id().await, later);
    assert!(!pauses.resume(kind, name, &by).await.expect("it is not paused"));
}
