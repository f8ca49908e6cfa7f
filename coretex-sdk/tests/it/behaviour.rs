//! What a worker does with jobs that go well, and what it says meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coretex_core::pointers::Pointer;
use coretex_core::protocol::agent::JobStatus;
use coretex_core::protocol::{JobId, WorkerId, subjects};
use coretex_sdk::testing::{ControlPlane, MemoryPayloads};
use coretex_sdk::{JobError, Load, Prompt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Barrier, Semaphore};

#[derive(Deserialize)]
struct Input {
    text: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Output {
    words: usize,
}

#[tokio::test(start_paused = true)]
async fn a_typed_job_goes_from_pointer_to_pointer() {
    let plane = ControlPlane::start().await;
    let worker = plane
        .worker()
        .id("w1")
        .handle("job.count", |_ctx, input: Input| async move {
            Ok(Output {
                words: input.text.split_whitespace().count(),
            })
        })
        .start()
        .await
        .unwrap();

    let job = plane.submit("job.count", &json!({"text": "one two three"})).await;
    let ended = plane.ended(&job).await;
    assert_eq!(ended.output::<Output>(), Output { words: 3 });
    assert_eq!(ended.result.result_ptr, format!("redis://res:{job}"));
    assert_eq!(ended.result.worker_id, "w1");
    assert_eq!(ended.result.error_code, "");
    assert_eq!(ended.trace_id, format!("trace-{job}"));

    let direct = JobId::random();
    let request = plane.request(&direct, "job.count", &json!({"text": "x"})).await;
    plane.dispatch_to(worker.id(), request).await;
    assert_eq!(plane.ended(&direct).await.output::<Output>(), Output { words: 1 });
}

#[tokio::test(start_paused = true)]
async fn handlers_see_their_job() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.look", |ctx, input: Prompt<BTreeMap<String, u32>>| async move {
            #[derive(Deserialize)]
            struct Config {
                model: String,
            }
            let constraints = ctx.constraints()?;
            let config: Option<Config> = ctx.config()?;
            assert!(ctx.time_left().unwrap() <= Duration::from_secs(60));
            assert!(!ctx.is_cancelled() && ctx.stop_reason().is_none());
            assert_eq!(ctx.request().priority, 3);
            Ok(json!({
                "job": ctx.job_id(), "topic": ctx.topic(), "trace": ctx.trace_id(), "tenant": ctx.tenant_id(),
                "attempt": ctx.attempt(), "env": ctx.env("run_id"), "label": ctx.label("team"),
                "files": constraints.diff.max_files, "model": config.unwrap().model,
                "prompt": input.prompt, "n": input.context.unwrap()["n"],
            }))
        })
        .start()
        .await
        .unwrap();

    let job = JobId::random();
    let input = json!({"prompt": "hello", "context": {"n": 7}, "created_at": "2026-01-01T00:00:00Z", "new": []});
    let mut request = plane.request(&job, "job.look", &input).await;
    request.tenant_id = "acme".to_owned();
    request.priority = 3;
    request.env = BTreeMap::from([
        ("run_id".to_owned(), "r1".to_owned()),
        (
            "CORETEX_POLICY_CONSTRAINTS".to_owned(),
            r#"{"diff":{"maxFiles":3}}"#.to_owned(),
        ),
        ("CORETEX_EFFECTIVE_CONFIG".to_owned(), r#"{"model":"small"}"#.to_owned()),
    ]);
    request.labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    request.budget = Some(coretex_core::protocol::agent::Budget {
        deadline_ms: 60_000,
        ..Default::default()
    });
    plane.dispatch("job.look", request).await;
    assert_eq!(
        plane.ended(&job).await.output::<serde_json::Value>(),
        json!({
            "job": job, "topic": "job.look", "trace": format!("trace-{job}"), "tenant": "acme", "attempt": 1,
            "env": "r1", "label": "red", "files": 3, "model": "small", "prompt": "hello", "n": 7,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_services_and_layers() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle_bytes("job.upper", |_ctx, input: Bytes| async move {
            Ok(Bytes::from(input.to_ascii_uppercase()))
        })
        .handle_service(
            "job.service",
            tower::service_fn(|job: coretex_sdk::Job| async move { Ok::<_, std::io::Error>(job.input) }),
        )
        .handle("job.slow", |_ctx, (): ()| {
            std::future::pending::<Result<(), JobError>>()
        })
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(3)))
        .handle("job.patient", |_ctx, (): ()| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(())
        })
        .start()
        .await
        .unwrap();

    let job = plane.submit("job.upper", &"abc").await;
    assert_eq!(plane.ended(&job).await.stored.unwrap(), "\"ABC\"");
    let job = plane.submit("job.service", &1).await;
    assert_eq!(plane.ended(&job).await.stored.unwrap(), "1");
    let job = plane.submit("job.slow", &()).await;
    let ended = plane.ended(&job).await;
    assert_eq!(ended.status(), JobStatus::Failed);
    assert_eq!(ended.result.error_code, "handler_failed");
    assert!(ended.result.error_message.contains("timed out"), "{:?}", ended.result);
    let job = plane.submit("job.patient", &()).await;
    plane.ended(&job).await.output::<()>();
}

#[tokio::test(start_paused = true)]
async fn no_pointer_costs_no_read_and_no_bytes_no_write() {
    let payloads = Arc::new(MemoryPayloads::default());
    let plane = ControlPlane::on(
        Arc::new(coretex_core::backend::in_process::InProcessBus::new()),
        Arc::<MemoryPayloads>::clone(&payloads),
    )
    .await;
    let _worker = plane
        .worker()
        .handle_bytes("job.nop", |_ctx, input| async move { Ok(input) })
        .data_ttl(Duration::from_secs(60))
        .handle("job.null", |_ctx, input: Option<u8>| async move { Ok(input) })
        .start()
        .await
        .unwrap();
    let job = JobId::random();
    let mut request = plane.request(&job, "job.nop", &0).await;
    request.context_ptr.clear();
    let before = payloads.calls();
    plane.dispatch("job.nop", request.clone()).await;
    let ended = plane.ended(&job).await;
    assert_eq!(ended.status(), JobStatus::Succeeded);
    assert_eq!(ended.result.result_ptr, "");
    assert_eq!(payloads.calls(), before);

    let job = JobId::random();
    request.job_id = job.to_string();
    request.topic = "job.null".to_owned();
    plane.dispatch("job.null", request).await;
    assert_eq!(plane.ended(&job).await.output::<Option<u8>>(), None);
    assert_eq!(payloads.ttl(&Pointer::result(&job)), Some(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn as_many_jobs_at_once_as_allowed_and_no_more() {
    let plane = ControlPlane::start().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let together = Arc::new(Barrier::new(3));
    let seen = Arc::clone(&most);
    let _worker = plane
        .worker()
        .max_parallel_jobs(3)
        .handle("job.meet", move |_ctx, (): ()| {
            let (now, most, together) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&together));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Nobody gets past unless three are here at once.
                together.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let mut jobs = Vec::new();
    for _ in 0..9 {
        jobs.push(plane.submit("job.meet", &()).await);
    }
    for job in &jobs {
        plane.ended(job).await.output::<()>();
    }
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

/// docs/spec/scheduler.md §8.
#[tokio::test(start_paused = true)]
async fn roll_calls_are_answered_at_once_and_a_burst_once() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .heartbeat_interval(Duration::from_secs(20))
        .handle("job.x", |_ctx, (): ()| async move { Ok(()) })
        .start()
        .await
        .unwrap();
    plane.heartbeat(|_| true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = plane.heartbeats().len();
    for _ in 0..100 {
        plane.publish_bytes(subjects::STARTED, "anything").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answers = plane.heartbeats().len() - before;
    assert!((1..=2).contains(&answers), "{answers} answers");
    plane.publish_bytes(subjects::STARTED, "").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(plane.heartbeats().len() - before, answers + 1);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_at_once_on_change_and_at_intervals() {
    let plane = ControlPlane::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let worker = plane
        .worker()
        .id("w1")
        .pool("gpu")
        .region("eu")
        .kind("llm")
        .capability("summarise")
        .label("team", "red")
        .max_parallel_jobs(4)
        .heartbeat_interval(Duration::from_secs(5))
        .load(|| Load { cpu: 12.5, gpu: 50.0 })
        .handle("job.wait", move |_ctx, (): ()| {
            let gate = Arc::clone(&inside);
            async move {
                let _permit = gate.acquire().await?;
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    let beat = plane.heartbeat(|_| true).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(
        (
            beat.worker_id.as_str(),
            beat.pool.as_str(),
            beat.region.as_str(),
            beat.r#type.as_str()
        ),
        ("w1", "gpu", "eu", "llm")
    );
    assert_eq!((beat.max_parallel_jobs, beat.active_jobs), (4, 0));
    assert_eq!((beat.cpu_load, beat.gpu_utilization), (12.5, 50.0));
    assert_eq!(beat.capabilities, ["summarise"]);
    let labels: Vec<_> = beat.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["coretex.confirms=1", "coretex.direct=1", "team=red"]);

    for _ in 0..6 {
        plane.submit("job.wait", &()).await;
    }
    plane.heartbeat(|beat| beat.active_jobs == 6).await;
    assert!(
        started.elapsed() <= Duration::from_millis(200),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(worker.active_jobs(), 6);
    gate.add_permits(1);
    plane.heartbeat(|beat| beat.active_jobs == 0).await;

    let count = plane.heartbeats().len();
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert_eq!(plane.heartbeats().len() - count, 5);
}

#[tokio::test(start_paused = true)]
async fn only_a_job_that_takes_time_is_confirmed() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.sleep", |_ctx, ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let long = plane.submit("job.sleep", &1_000).await;
    let sent = tokio::time::Instant::now();
    let note = plane.progress(&long, 1).await.swap_remove(0);
    assert!(sent.elapsed() <= Duration::from_millis(200), "{:?}", sent.elapsed());
    assert_eq!((note.status(), note.percent), (JobStatus::Running, 0));

    let short = plane.submit("job.sleep", &5).await;
    plane.ended(&short).await;
    plane.ended(&long).await;
    assert_eq!(plane.progress_so_far(&short), 0);
    assert_eq!(plane.progress_so_far(&long), 1);
}

#[tokio::test(start_paused = true)]
async fn progress_travels_in_order_and_before_the_result() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.steps", |ctx, (): ()| async move {
            for step in 1..=4 {
                ctx.progress(step * 50, format!("step {step}")).await;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.steps", &()).await;
    plane.ended(&job).await;
    let notes = plane.progress(&job, 4).await;
    let seen: Vec<_> = notes.iter().map(|note| (note.percent, note.message.as_str())).collect();
    assert_eq!(
        seen,
        [(50, "step 1"), (100, "step 2"), (100, "step 3"), (100, "step 4")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeat_runs_nothing_twice() {
    let plane = ControlPlane::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (counter, inside) = (Arc::clone(&runs), Arc::clone(&gate));
    let worker = plane
        .worker()
        .handle("job.once", move |_ctx, (): ()| {
            let (runs, gate) = (Arc::clone(&counter), Arc::clone(&inside));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                let _permit = gate.acquire().await?;
                Ok("done")
            }
        })
        .start()
        .await
        .unwrap();
    let job = JobId::random();
    let request = plane.request(&job, "job.once", &()).await;
    plane.dispatch("job.once", request.clone()).await;
    plane.progress(&job, 1).await;
    // A repeat of a running job is confirmed, on whichever subject it comes.
    plane.dispatch("job.once", request.clone()).await;
    plane.dispatch_to(worker.id(), request.clone()).await;
    plane.progress(&job, 3).await;
    gate.add_permits(1);
    let first = plane.ended(&job).await;
    // A repeat of a finished job is answered by the same result.
    plane.dispatch_to(worker.id(), request.clone()).await;
    let both = plane.results(&job, 2).await;
    assert_eq!(both[1].result, first.result);
    assert_eq!(both[1].trace_id, first.trace_id);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(worker.active_jobs(), 0);

    // Long after, it is a new job.
    tokio::time::sleep(Duration::from_secs(601)).await;
    let other = plane.submit("job.once", &()).await;
    plane.ended(&other).await;
    plane.dispatch("job.once", request).await;
    plane.results(&job, 3).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_a_topic() {
    let plane = ControlPlane::start().await;
    let start = async |id: &str| {
        let name = id.to_owned();
        plane
            .worker()
            .id(id)
            .pool(id)
            .handle("job.who", move |_ctx, (): ()| {
                let name = name.clone();
                async move { Ok(name) }
            })
            .start()
            .await
            .unwrap()
    };
    let _workers = [start("a").await, start("b").await];
    let mut jobs = Vec::new();
    for _ in 0..50 {
        jobs.push(plane.submit("job.who", &()).await);
    }
    for job in &jobs {
        plane.ended(job).await.output::<String>();
    }
    assert!(plane.result_counts().values().all(|count| *count == 1));
    let id: WorkerId = "b".parse().unwrap();
    let job = JobId::random();
    let request = plane.request(&job, "job.who", &()).await;
    plane.dispatch_to(&id, request).await;
    assert_eq!(plane.ended(&job).await.output::<String>(), "b");
}

#[tokio::test(start_paused = true)]
async fn artifacts_are_stored_and_attached() {
    let plane = ControlPlane::start().await;
    let _worker = plane
        .worker()
        .handle("job.draw", |ctx, (): ()| async move {
            ctx.attach_artifact(Bytes::from_static(b"<svg/>")).await?;
            let error = ctx.attach_artifact(Bytes::from(vec![0; 11])).await.unwrap_err();
            Ok(error.message())
        })
        .start()
        .await
        .unwrap();
    let job = JobId::random();
    let mut request = plane.request(&job, "job.draw", &()).await;
    request
        .env
        .insert("CORETEX_MAX_ARTIFACT_BYTES".to_owned(), "10".to_owned());
    plane.dispatch("job.draw", request).await;
    let ended = plane.ended(&job).await;
    assert!(ended.output::<String>().contains("10 bytes"));
    let [pointer] = ended.result.artifact_ptrs.as_slice() else {
        panic!("one artifact, not {:?}", ended.result.artifact_ptrs);
    };
    let pointer: Pointer = pointer.parse().unwrap();
    assert!(pointer.key().starts_with("art:"));
    assert_eq!(plane.payloads().get(&pointer).await.unwrap().unwrap(), "<svg/>");
}
