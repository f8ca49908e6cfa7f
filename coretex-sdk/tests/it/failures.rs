//! What a worker does with jobs, handlers, packets and stores that are broken.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::protocol::agent::{JobRequest, JobStatus};
use coretex_core::protocol::{JobId, subjects};
use coretex_sdk::testing::{ControlPlane, Ended, MemoryPayloads};
use coretex_sdk::{Builder, JobError};

use crate::until;

async fn run(builder: Builder, plane: &ControlPlane, change: impl FnOnce(&mut JobRequest)) -> Ended {
    let worker = builder.start().await.unwrap();
    let job = JobId::random();
    let mut request = plane.request(&job, "job.x", &1).await;
    change(&mut request);
    plane.dispatch_to(worker.id(), request).await;
    plane.ended(&job).await
}

#[track_caller]
fn failed(ended: &Ended, code: &str, message: &str) {
    assert_eq!(ended.status(), JobStatus::Failed);
    assert_eq!(ended.result.error_code, code, "{:?}", ended.result);
    assert!(ended.result.error_message.contains(message), "{:?}", ended.result);
    assert_eq!(ended.result.result_ptr, "");
    assert!(!ended.result.worker_id.is_empty());
}

#[tokio::test(start_paused = true)]
async fn bad_inputs_fail_the_job_with_a_code() {
    let plane = ControlPlane::start().await;
    let worker = || {
        plane
            .worker()
            .handle("job.x", |_ctx, input: u32| async move { Ok(input) })
    };

    let ended = run(worker(), &plane, |job| job.context_ptr = "redis://ctx:gone".to_owned()).await;
    failed(&ended, "input_missing", "redis://ctx:gone");
    let ended = run(worker(), &plane, |job| job.context_ptr.clear()).await;
    failed(&ended, "input_invalid", "invalid type: null");
    let ended = run(worker(), &plane, |job| {
        job.context_ptr = "redis://job:meta:1".to_owned();
    })
    .await;
    failed(&ended, "invalid_pointer", "ctx:*");
    let ended = run(worker(), &plane, |job| {
        job.context_ptr = "https://example.com".to_owned();
    })
    .await;
    failed(&ended, "invalid_pointer", "context_ptr: invalid pointer prefix");
    let ended = run(worker(), &plane, |job| job.topic = "job.other".to_owned()).await;
    failed(&ended, "no_handler", "`job.other`");
}

#[tokio::test(start_paused = true)]
async fn handlers_name_their_errors() {
    let plane = ControlPlane::start().await;
    let own = plane.worker().handle("job.x", |_ctx, _: u32| async {
        Err::<(), _>(JobError::new("model_busy", "the model is busy"))
    });
    failed(&run(own, &plane, |_| {}).await, "model_busy", "the model is busy");

    let any = plane.worker().handle("job.x", |_ctx, _: u32| async {
        "x".parse::<u32>()?;
        Ok(())
    });
    failed(&run(any, &plane, |_| {}).await, "handler_failed", "invalid digit");

    let long = plane.worker().handle("job.x", |_ctx, _: u32| async {
        Err::<(), _>(JobError::new("long", "x".repeat(100_000)))
    });
    let ended = run(long, &plane, |_| {}).await;
    assert!(ended.result.error_message.len() <= 2_048);
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_job_and_nothing_else() {
    let plane = ControlPlane::start().await;
    let worker = plane
        .worker()
        .handle("job.x", |_ctx, divisor: u32| async move { Ok(10 / divisor) })
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.x", &0).await;
    failed(&plane.ended(&job).await, "handler_panicked", "divide by zero");
    let job = plane.submit("job.x", &2).await;
    assert_eq!(plane.ended(&job).await.output::<u32>(), 5);
    assert_eq!(worker.active_jobs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_result_of_100_mib_is_refused_with_the_limit_named() {
    let plane = ControlPlane::start().await;
    let json = plane
        .worker()
        .handle("job.x", |_ctx, _: u32| async { Ok("x".repeat(100 << 20)) });
    failed(
        &run(json, &plane, |_| {}).await,
        "result_too_large",
        "limit of 8388608 bytes",
    );

    let raw = plane
        .worker()
        .result_limit(1_000)
        .handle_bytes("job.x", |_ctx, _| async { Ok(Bytes::from(vec![0; 1_001])) });
    let ended = run(raw, &plane, |_| {}).await;
    failed(
        &ended,
        "result_too_large",
        "of 1001 bytes is larger than the worker's limit of 1000 bytes",
    );
}

#[tokio::test(start_paused = true)]
async fn retryable_errors_are_retried_as_often_as_worker_and_policy_allow() {
    let plane = ControlPlane::start().await;
    let flaky = || {
        plane
            .worker()
            .retries(2)
            .handle("job.x", |ctx, succeeds_at: u32| async move {
                if ctx.attempt() < succeeds_at {
                    return Err(JobError::new("flaky", format!("attempt {}", ctx.attempt())).retryable());
                }
                Ok(ctx.attempt())
            })
    };
    let _worker = flaky().start().await.unwrap();
    let job = plane.submit("job.x", &3).await;
    assert_eq!(plane.ended(&job).await.output::<u32>(), 3);
    let job = plane.submit("job.x", &4).await;
    failed(&plane.ended(&job).await, "flaky", "attempt 3");

    let job = JobId::random();
    let mut request = plane.request(&job, "job.x", &3).await;
    request.env.insert("CORETEX_MAX_RETRIES".to_owned(), "1".to_owned());
    plane.dispatch("job.x", request).await;
    failed(&plane.ended(&job).await, "flaky", "attempt 2");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_is_waited_out() {
    let payloads = Arc::new(MemoryPayloads::default());
    let plane = ControlPlane::on(Arc::new(InProcessBus::new()), Arc::<MemoryPayloads>::clone(&payloads)).await;
    let outage = Arc::clone(&payloads);
    let _worker = plane
        .worker()
        .payload_timeout(Duration::from_secs(10))
        .handle("job.x", move |_ctx, input: u32| {
            let outage = Arc::clone(&outage);
            async move {
                outage.set_down(true);
                Ok(input)
            }
        })
        .start()
        .await
        .unwrap();
    // While reading, and while writing; the handler itself begins the second outage.
    let job = JobId::random();
    let request = plane.request(&job, "job.x", &7).await;
    payloads.set_down(true);
    let calls = payloads.calls();
    plane.dispatch("job.x", request).await;
    until("some tries", || payloads.calls() >= calls + 3).await;
    payloads.set_down(false);
    let calls = payloads.calls();
    until("some tries", || payloads.calls() >= calls + 3).await;
    payloads.set_down(false);
    assert_eq!(plane.ended(&job).await.output::<u32>(), 7);

    // One that lasts too long fails the job.
    let job = plane.submit("job.x", &7).await;
    failed(
        &plane.ended(&job).await,
        "payload_unavailable",
        "an outage made to order",
    );
}

#[tokio::test(start_paused = true)]
async fn bad_packets_are_ignored() {
    let plane = ControlPlane::start().await;
    let worker = plane
        .worker()
        .handle("job.x", |_ctx, input: u32| async move { Ok(input) })
        .start()
        .await
        .unwrap();
    let direct = subjects::worker_jobs(worker.id());
    for subject in ["job.x", direct.as_str(), subjects::CANCEL] {
        plane.publish_bytes(subject, Bytes::from_static(b"\xff\xff\xff")).await;
        plane.publish_bytes(subject, Bytes::new()).await;
    }
    let nameless = plane.request(&JobId::random(), "job.x", &1).await;
    for id in ["", "  ", "a\u{7}b", &"x".repeat(257)] {
        let request = JobRequest {
            job_id: id.to_owned(),
            ..nameless.clone()
        };
        plane.dispatch("job.x", request.clone()).await;
        plane.dispatch(subjects::CANCEL, request).await;
    }
    let job = plane.submit("job.x", &1).await;
    plane.ended(&job).await.output::<u32>();
    assert_eq!(plane.result_counts().len(), 1);
}
