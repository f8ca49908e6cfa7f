//! Stopping a worker.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::backend::in_process::InProcessBus;
use coretex_core::bus::Bus;
use coretex_core::protocol::JobId;
use coretex_core::protocol::agent::JobStatus;
use coretex_sdk::testing::{ControlPlane, MemoryPayloads};
use coretex_sdk::{Error, JobError};
use tokio::sync::Semaphore;

#[tokio::test(start_paused = true)]
async fn a_stopping_worker_finishes_what_it_has_and_takes_no_more() {
    let plane = ControlPlane::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let mut worker = plane
        .worker()
        .max_parallel_jobs(1)
        .handle("job.x", move |_ctx, (): ()| {
            let gate = Arc::clone(&inside);
            async move {
                gate.acquire().await?.forget();
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let id = worker.id().clone();
    let jobs = [plane.submit("job.x", &()).await, plane.submit("job.x", &()).await];
    plane.heartbeat(|beat| beat.active_jobs == 2).await;

    let stopping = worker.stop();
    let script = async {
        let beat = plane
            .heartbeat(|beat| beat.labels.get("coretex.draining").is_some_and(|v| v == "1"))
            .await;
        // Full, for whoever does not know the label.
        assert_eq!((beat.active_jobs, beat.max_parallel_jobs), (2, 2));
        // Sent before the scheduler could know: taken.
        let late = plane.submit("job.x", &()).await;
        plane.progress(&late, 1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let too_late = JobId::random();
        let request = plane.request(&too_late, "job.x", &()).await;
        plane.dispatch_to(&id, request).await;
        gate.add_permits(3);
        (late, too_late)
    };
    let (stopped, (late, too_late)) = tokio::join!(stopping, script);
    stopped.unwrap();
    for job in jobs.iter().chain([&late]) {
        assert_eq!(plane.ended(job).await.status(), JobStatus::Succeeded);
    }
    assert_eq!(plane.result_counts().get(too_late.as_str()), None);
    worker.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_is_stopped_and_reported() {
    let plane = ControlPlane::start().await;
    let mut worker = plane
        .worker()
        .max_parallel_jobs(1)
        .drain_timeout(Duration::from_secs(3))
        .cancel_grace(Duration::from_secs(1))
        .handle("job.x", |_ctx, (): ()| std::future::pending::<Result<(), JobError>>())
        .start()
        .await
        .unwrap();
    let jobs = [plane.submit("job.x", &()).await, plane.submit("job.x", &()).await];
    plane.heartbeat(|beat| beat.active_jobs == 2).await;
    worker.stop().await.unwrap();
    for job in &jobs {
        let ended = plane.ended(job).await;
        assert_eq!(ended.status(), JobStatus::Failed);
        assert_eq!(ended.result.error_code, "worker_stopped");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_stops_the_worker() {
    let plane = ControlPlane::start().await;
    let worker = plane
        .worker()
        .handle("job.x", |_ctx, (): ()| async { Ok(()) })
        .start()
        .await
        .unwrap();
    drop(worker);
    plane
        .heartbeat(|beat| beat.labels.contains_key("coretex.draining"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_bus_ends_the_worker_with_an_error() {
    let bus = Arc::new(InProcessBus::new());
    let plane = ControlPlane::on(Arc::<InProcessBus>::clone(&bus), Arc::new(MemoryPayloads::default())).await;
    let mut worker = plane
        .worker()
        .handle("job.x", |_ctx, (): ()| async { Ok(()) })
        .start()
        .await
        .unwrap();
    bus.drain().await;
    assert!(matches!(worker.ended().await, Err(Error::BusClosed)));
    worker.ended().await.unwrap();
}
