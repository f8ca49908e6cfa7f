//! The same worker over real NATS and Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coretex_core::backend::nats::{NatsBus, Options};
use coretex_core::backend::redis::{RedisOptions, RedisPayloads};
use coretex_core::protocol::JobId;
use coretex_core::test_util::servers::{NatsOptions, NatsServer, RedisServer};
use coretex_sdk::testing::ControlPlane;
use coretex_sdk::{Builder, Error, Worker};
use tokio::sync::Semaphore;

use crate::until;

async fn plane(nats: &NatsServer, redis: &RedisServer) -> ControlPlane {
    let bus = NatsBus::connect(Options::new(&nats.url())).await.unwrap();
    let payloads = RedisPayloads::connect(&redis.url(), &RedisOptions::default())
        .await
        .unwrap();
    ControlPlane::on(Arc::new(bus), payloads).await
}

/// A worker with connections of its own.
fn worker(nats: &NatsServer, redis: &RedisServer) -> Builder {
    Worker::builder().nats(nats.url()).redis(redis.url())
}

async fn runs_jobs(nats: NatsServer) {
    let redis = RedisServer::start().await;
    let plane = plane(&nats, &redis).await;
    let mut workers = Vec::new();
    for pool in ["a", "b"] {
        let worker = worker(&nats, &redis)
            .pool(pool)
            .handle("job.double", |_ctx, number: u64| async move { Ok(number * 2) })
            .start()
            .await
            .unwrap();
        workers.push(worker);
    }
    let mut jobs = Vec::new();
    for number in 0..500_u64 {
        let job = if number % 2 == 0 {
            plane.submit("job.double", &number).await
        } else {
            let job = JobId::random();
            let request = plane.request(&job, "job.double", &number).await;
            let at = usize::try_from(number / 2 % 2).unwrap();
            plane.dispatch_to(workers[at].id(), request).await;
            job
        };
        jobs.push((job, number));
    }
    for (job, number) in &jobs {
        assert_eq!(plane.ended(job).await.output::<u64>(), number * 2);
    }
    assert!(plane.result_counts().values().all(|count| *count == 1));
    for mut worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn jobs_over_core_nats() {
    runs_jobs(NatsServer::start().await).await;
}

#[tokio::test]
async fn jobs_where_the_broker_has_streams() {
    runs_jobs(NatsServer::start_with(NatsOptions::jetstream()).await).await;
}

#[tokio::test]
async fn a_restart_of_the_broker_loses_no_result() {
    let mut nats = NatsServer::start().await;
    let redis = RedisServer::start().await;
    let plane = plane(&nats, &redis).await;
    let gate = Arc::new(Semaphore::new(0));
    let runs = Arc::new(AtomicUsize::new(0));
    let (inside, counter) = (Arc::clone(&gate), Arc::clone(&runs));
    let worker = worker(&nats, &redis)
        .handle("job.wait", move |_ctx, (): ()| {
            let (gate, runs) = (Arc::clone(&inside), Arc::clone(&counter));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                Ok("done")
            }
        })
        .start()
        .await
        .unwrap();
    let during = JobId::random();
    let request = plane.request(&during, "job.wait", &()).await;
    plane.dispatch_to(worker.id(), request.clone()).await;
    plane.progress(&during, 1).await;

    nats.kill();
    gate.add_permits(1);
    until("the end of the job", || worker.active_jobs() == 0).await;
    let beats = plane.heartbeats().len();
    nats.start_again().await;
    // Whoever is back last asks or tells the other: the scheduler sends its jobs again, the worker its results.
    loop {
        plane.dispatch_to(worker.id(), request.clone()).await;
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(500), plane.ended(&during)).await {
            ended.output::<String>();
            break;
        }
    }
    // It says at once that it is back, and works on.
    until("a heartbeat", || plane.heartbeats().len() > beats).await;
    gate.add_permits(1);
    let after = JobId::random();
    let request = plane.request(&after, "job.wait", &()).await;
    plane.dispatch_to(worker.id(), request).await;
    plane.ended(&after).await.output::<String>();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_restart_of_the_store_is_waited_out() {
    let nats = NatsServer::start().await;
    let mut redis = RedisServer::start().await;
    let plane = plane(&nats, &redis).await;
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let _worker = worker(&nats, &redis)
        .handle("job.wait", move |_ctx, input: u32| {
            let gate = Arc::clone(&inside);
            async move {
                gate.acquire().await?.forget();
                Ok(input)
            }
        })
        .start()
        .await
        .unwrap();
    let job = plane.submit("job.wait", &5).await;
    plane.progress(&job, 1).await;
    redis.kill();
    gate.add_permits(1);
    redis.start_again().await;
    assert_eq!(plane.ended(&job).await.output::<u32>(), 5);
}

#[tokio::test]
async fn servers_that_are_not_there_are_waited_for_as_long_as_asked() {
    let mut nats = NatsServer::start().await;
    let redis = RedisServer::start().await;
    nats.kill();
    let builder = || worker(&nats, &redis).handle("job.x", |_ctx, (): ()| async { Ok(()) });
    let refused = builder().connect_timeout(Duration::from_millis(100)).build().await;
    assert!(
        matches!(refused, Err(Error::Connect { what: "NATS", .. })),
        "{refused:?}"
    );

    let builder = builder();
    let (worker, ()) = tokio::join!(builder.start(), nats.start_again());
    worker.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_not_tried_again() {
    let nats = NatsServer::start().await;
    let build = |nats: &str, redis: &str| {
        let builder = Worker::builder().handle("job.x", |_ctx, (): ()| async { Ok(()) });
        builder.nats(nats).redis(redis).build()
    };
    let refused = build("http://x", "redis://x").await;
    assert!(
        matches!(refused, Err(Error::Connect { what: "NATS", .. })),
        "{refused:?}"
    );
    let refused = build(&nats.url(), "http://x").await;
    assert!(
        matches!(refused, Err(Error::Connect { what: "Redis", .. })),
        "{refused:?}"
    );
}
