//! Jobs that have to stop before they are done.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::protocol::JobId;
use coretex_core::protocol::agent::{Budget, JobStatus};
use coretex_sdk::testing::ControlPlane;
use coretex_sdk::{JobError, StopReason};
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_handler_that_listens() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.x", |ctx, (): ()| async move {
            ctx.cancelled().await;
            let reason = "not needed".to_owned();
            assert_eq!(ctx.stop_reason(), Some(&StopReason::Cancelled { reason }));
            assert!(ctx.cancellation_token().is_cancelled());
            Err::<(), _>(JobError::new("stopped", "by hand"))
        })
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.x", &()).await;
    plane.progress(&job, 1).await;
    let asked = Instant::now();
    plane.cancel(&JobId::random(), "somebody else's").await;
    plane.cancel(&job, "not needed").await;
    plane.cancel(&job, "again").await;
    let ended = plane.ended(&job).await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(ended.status(), JobStatus::Cancelled);
    assert_eq!(ended.result.error_code, "cancelled");
    assert_eq!(ended.result.error_message, "the job was cancelled: not needed");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_listen_is_dropped_after_the_grace() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .cancel_grace(Duration::from_secs(2))
        .handle("job.x", |_ctx, (): ()| std::future::pending::<Result<(), JobError>>())
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.x", &()).await;
    plane.progress(&job, 1).await;
    let asked = Instant::now();
    plane.cancel(&job, "").await;
    let ended = plane.ended(&job).await;
    assert_eq!(asked.elapsed().as_secs(), 2);
    assert_eq!(ended.status(), JobStatus::Cancelled);
    assert_eq!(ended.result.error_message, "the job was cancelled");
}

#[tokio::test(start_paused = true)]
async fn work_that_is_done_all_the_same_is_reported_as_done() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.x", |ctx, (): ()| async move {
            ctx.cancelled().await;
            Ok("too late")
        })
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.x", &()).await;
    plane.progress(&job, 1).await;
    plane.cancel(&job, "").await;
    assert_eq!(plane.ended(&job).await.output::<String>(), "too late");
}

#[tokio::test(start_paused = true)]
async fn waiting_jobs_are_cancelled_without_ever_running() {
    let plane = ControlPlane::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let worker = plane
        .worker()
        .max_parallel_jobs(1)
        .handle("job.x", move |_ctx, may_run: bool| {
            let gate = Arc::clone(&inside);
            async move {
                assert!(may_run);
                let _permit = gate.acquire().await?;
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let first = plane.submit("job.x", &true).await;
    plane.progress(&first, 1).await;
    let waiting = plane.submit("job.x", &false).await;
    // Waiting is having it: it is confirmed, too.
    plane.progress(&waiting, 1).await;
    plane.cancel(&waiting, "").await;
    let ended = plane.ended(&waiting).await;
    assert_eq!(ended.status(), JobStatus::Cancelled);
    assert_eq!(ended.result.execution_ms, 0);
    assert_eq!(worker.active_jobs(), 1);

    // A cancel may even overtake its job.
    let late = JobId::random();
    plane.cancel(&late, "").await;
    plane.cancel(&first, "").await;
    gate.add_permits(1);
    plane.ended(&first).await;
    let request = plane.request(&late, "job.x", &false).await;
    plane.dispatch("job.x", request).await;
    assert_eq!(plane.ended(&late).await.status(), JobStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_from_receipt() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .max_parallel_jobs(1)
        .handle("job.x", |ctx, (): ()| async move {
            ctx.cancelled().await;
            assert_eq!(ctx.stop_reason(), Some(&StopReason::Deadline));
            Err::<(), _>(JobError::new("stopped", ""))
        })
        .start()
        .await
        .unwrap();
    let sent = Instant::now();
    let mut jobs = Vec::new();
    // The second one waits for a slot until its own deadline.
    for ms in [700, 500] {
        let job = JobId::random();
        let mut request = plane.request(&job, "job.x", &()).await;
        request.budget = Some(Budget {
            deadline_ms: ms,
            ..Budget::default()
        });
        plane.dispatch("job.x", request).await;
        jobs.push((job, ms));
    }
    for (job, ms) in jobs.into_iter().rev() {
        let ended = plane.ended(&job).await;
        assert_eq!(i64::try_from(sent.elapsed().as_millis()).unwrap() / 100, ms / 100);
        assert_eq!(ended.status(), JobStatus::Timeout);
        assert_eq!(ended.result.error_code, "deadline_exceeded");
        assert!(ended.result.error_message.contains(&format!("{ms} ms")));
    }
}

#[tokio::test(start_paused = true)]
async fn absurd_deadlines_are_no_deadlines() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.x", |ctx, (): ()| async move { Ok(ctx.deadline().is_some()) })
        .start()
        .await
        .unwrap();
    for (deadline_ms, has_one) in [(-5, false), (0, false), (60_000, true)] {
        let job = JobId::random();
        let mut request = plane.request(&job, "job.x", &()).await;
        request.budget = Some(Budget {
            deadline_ms,
            ..Budget::default()
        });
        plane.dispatch("job.x", request).await;
        assert_eq!(plane.ended(&job).await.output::<bool>(), has_one, "{deadline_ms}");
    }
    let job = JobId::random();
    let mut request = plane.request(&job, "job.x", &()).await;
    request.budget = Some(Budget {
        deadline_ms: i64::MAX,
        ..Budget::default()
    });
    plane.dispatch("job.x", request).await;
    assert_eq!(plane.ended(&job).await.status(), JobStatus::Succeeded);
}
