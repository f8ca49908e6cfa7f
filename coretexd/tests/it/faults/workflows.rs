//! The workflow engine, in a process of its own, is killed again and again while runs are on their way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coretex_core::audit::Actor;
use coretex_core::backend::Stores;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::Bus;
use coretex_core::platform::Platform;
use coretex_core::policy::LocalKernel;
use coretex_core::test_util::servers::{self, Daemon, NatsServer, Probe, RedisServer, free_address};
use coretex_core::test_util::wait::until_within;
use coretex_core::time::{Clock, Timestamp};
use coretex_core::workflow::service::{Definition, Start, Workflows};
use coretex_core::workflow::{Run, RunId, RunStatus};
use coretex_sdk::{Running, Worker};
use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::KILLS;
use super::system::Backend;

/// How many runs are started for each kill.
const RUNS: usize = 4;
/// How long the tests wait for the last run to end, on any machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// What each run does: jobs in a row, jobs side by side, a wait, another workflow.
fn definitions() -> [Value; 2] {
    [
        json!({"id": "child", "steps": {"work": {"topic": "job.default"}}}),
        json!({"id": "everything", "steps": {
            "a": {"topic": "job.default"},
            "b": {"topic": "job.default", "depends_on": ["a"]},
            "fan": {"topic": "job.default", "for_each": "[1, 2, 3]", "max_parallel": 2, "depends_on": ["a"]},
            "wait": {"type": "delay", "delay_ms": 60, "depends_on": ["b"]},
            "sub": {"type": "subworkflow", "workflow": "child", "depends_on": ["wait", "fan"]},
            "last": {"topic": "job.default", "depends_on": ["sub"]},
        }, "output": "done"}),
    ]
}

/// The jobs of one run and its child.
const JOBS: usize = 7;

fn daemon(name: &str, roles: &str, nats: &NatsServer, redis: &RedisServer, folder: &std::path::Path) -> Daemon {
    let metrics: SocketAddr = free_address();
    Daemon::new(name, env!("CARGO_BIN_EXE_coretexd"))
        .clear_env()
        .args(["--role", roles])
        .env("GATEWAY_HTTP_ADDR", free_address().to_string())
        .env("GATEWAY_METRICS_ADDR", metrics.to_string())
        .env("WORKFLOW_ENGINE_HTTP_ADDR", free_address().to_string())
        .env("NATS_URL", nats.url())
        .env("REDIS_URL", redis.url())
        .current_dir(folder)
        .ready(Probe::Http {
            address: metrics,
            path: "/ready".to_owned(),
            status: 200,
        })
}

async fn worker(nats: &NatsServer, redis: &RedisServer, ran: Arc<Mutex<HashMap<String, usize>>>) -> Running {
    Worker::builder()
        .id("w1")
        .pool("default")
        .nats(nats.url())
        .redis(redis.url())
        .max_parallel_jobs(256)
        .heartbeat_interval(Duration::from_millis(500))
        .handle("job.default", move |ctx, _: Value| {
            let ran = Arc::clone(&ran);
            async move {
                *ran.lock().entry(ctx.job_id().to_string()).or_default() += 1;
                Ok(json!({"job": ctx.job_id().to_string()}))
            }
        })
        .start()
        .await
        .expect("the worker starts")
}

async fn define(workflows: &Workflows) {
    for document in definitions() {
        let definition = Definition {
            given: document.as_object().expect("an object").keys().cloned().collect(),
            workflow: serde_json::from_value(document).expect("a definition"),
            ..Definition::default()
        };
        workflows
            .save(definition, None, &Actor::default())
            .await
            .expect("saved");
    }
}

/// Kills the engine while runs are started and go on; a moment is 10 to 300 ms after it was ready.
pub(super) async fn engine_killed_again_and_again(backend: Backend, mut dice: StdRng) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let jetstream = backend == Backend::JetStream;
    let mut options = servers::NatsOptions::default();
    options.jetstream = jetstream;
    let nats = NatsServer::start_with(options).await;
    let redis = RedisServer::start_with(servers::RedisOptions::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let setting = |daemon: Daemon| {
        if jetstream {
            daemon.env("NATS_USE_JETSTREAM", "1")
        } else {
            daemon
        }
    };
    let mut scheduler = setting(daemon("scheduler", "scheduler", &nats, &redis, folder.path()));
    let mut engine = setting(daemon("engine", "workflow-engine", &nats, &redis, folder.path()));
    scheduler.start().await;
    engine.start().await;
    let ran = Arc::default();
    let mut worker = worker(&nats, &redis, Arc::clone(&ran)).await;

    // What a gateway has: it starts runs, and does nothing for them afterwards.
    let mut options = NatsOptions::new(&nats.url());
    if jetstream {
        options = options.with_jetstream(JetStreamOptions::default());
    }
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(options).await.expect("nats"));
    let stores: Stores = RedisStores::connect(&redis.url(), RedisOptions::default())
        .await
        .expect("redis");
    let kernel = LocalKernel::from_document("version: '1'\ndefault_decision: allow\n", "test.yaml").expect("a policy");
    let gateway = Platform::builder(bus, stores, Arc::new(kernel))
        .without_scheduler()
        .without_workflow_engine()
        .start()
        .await
        .expect("started");
    define(&gateway.workflows).await;

    let clock = Clock::system();
    let mut runs = Vec::new();
    let mut outages: Vec<(Timestamp, Timestamp)> = Vec::new();
    for _ in 0..KILLS {
        for _ in 0..RUNS {
            let start = Start {
                workflow_id: "everything".to_owned(),
                org_id: "acme".to_owned(),
                ..Start::default()
            };
            runs.push(gateway.workflows.start(start).await.expect("started").run);
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(10..300))).await;
        let since = clock.now();
        engine.kill();
        engine.start().await;
        outages.push((since, clock.now()));
    }
    let ended = all_end(&gateway.workflows, &runs, &mut engine).await;

    let mut longest = Duration::ZERO;
    for run in &ended {
        assert_eq!(run.head.status, RunStatus::Succeeded, "{:#?}", run.head);
        assert_eq!(run.head.output.as_deref(), Some(&json!("done")));
        let (from, to) = (run.head.created_at, run.head.completed_at.expect("ended"));
        let down: Duration = outages
            .iter()
            .map(|(since, until)| to.min(*until).since(from.max(*since)))
            .sum();
        longest = longest.max(to.since(from).saturating_sub(down));
    }
    eprintln!(
        "{} runs ended; the longest took {longest:?} beside the time in which there was no engine",
        ended.len()
    );
    worker.stop().await.expect("the worker stops");
    let ran = ran.lock().clone();
    let twice: Vec<_> = ran.iter().filter(|(_, times)| **times > 1).collect();
    assert!(
        twice.is_empty(),
        "the worker was never lost, and still these ran more than once: {twice:?}"
    );
    assert_eq!(ran.len(), runs.len() * JOBS, "every job ran");
    assert!(gateway.shutdown(Duration::from_secs(30)).await);
    for daemon in [&mut engine, &mut scheduler] {
        let status = daemon.stop().await;
        assert!(status.success(), "it stops well: {status}\n{}", daemon.log_tail());
    }
}

async fn all_end(workflows: &Workflows, runs: &[RunId], engine: &mut Daemon) -> Vec<Run> {
    let open: Mutex<Vec<RunId>> = Mutex::new(runs.to_vec());
    let ended = Mutex::new(Vec::new());
    let waiting = until_within(PATIENCE, "every run ends", || async {
        let next = open.lock().first().cloned();
        let Some(next) = next else { return Some(()) };
        let run = workflows.run(&next).await.ok()?;
        if run.head.status.is_terminal() {
            open.lock().remove(0);
            ended.lock().push(run);
            let all = open.lock().is_empty();
            return all.then_some(());
        }
        None
    });
    if tokio::time::timeout(PATIENCE.mul_f32(0.95), waiting).await.is_err() {
        let first = open.lock().first().cloned().expect("one is open");
        let run = workflows.run(&first).await.expect("a run");
        panic!(
            "{} of {} runs are not over: {run:#?}\n{}",
            open.lock().len(),
            runs.len(),
            engine.log_tail()
        );
    }
    ended.into_inner()
}
