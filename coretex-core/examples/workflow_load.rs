//! Runs workflows end to end and says how fast: chains, fan-outs, and what runs cost that only wait.
//!
//! `cargo run --release -p coretex-core --features test-util --example workflow_load -- [embedded|nats|jetstream] [chains] [items] [waiting]`
//! starts its own NATS and Redis; scheduler, workflow engine and worker are in this process.

#![expect(clippy::print_stdout, reason = "the output is what this is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use coretex_core::audit::Actor;
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{Bus, Message, SubscribeOptions};
use coretex_core::platform::Platform;
use coretex_core::pointers::{Pointer, PointerStore};
use coretex_core::policy::LocalKernel;
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{Heartbeat, JobResult, JobStatus};
use coretex_core::protocol::{JobId, decode_packet, encode_packet, packet, subjects};
use coretex_core::routing::Routing;
use coretex_core::test_util::servers::{self, NatsServer, RedisServer};
use coretex_core::time::Clock;
use coretex_core::workflow::RunId;
use coretex_core::workflow::service::{Definition, Start, Workflows};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// How many starts are under way at once.
const CONCURRENCY: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let backend = args.next().unwrap_or_else(|| "nats".to_owned());
    let mut count = |default: usize| args.next().map_or(Ok(default), |text| text.parse());
    let (chains, items, waiting) = (count(2_000)?, count(500)?, count(0)?);

    let jetstream = backend == "jetstream";
    let mut nats_options = servers::NatsOptions::default();
    nats_options.jetstream = jetstream;
    let servers = match backend.as_str() {
        "embedded" => None,
        _ => Some((NatsServer::start_with(nats_options).await, RedisServer::start().await)),
    };
    let in_process: Arc<dyn Bus> = Arc::new(InProcessBus::new());
    let connect = async || -> anyhow::Result<Arc<dyn Bus>> {
        let Some((nats, _)) = &servers else {
            return Ok(Arc::clone(&in_process));
        };
        let mut options = NatsOptions::new(&nats.url());
        if jetstream {
            options = options.with_jetstream(JetStreamOptions::default());
        }
        Ok(Arc::new(NatsBus::connect(options).await?))
    };
    let folder = tempfile::tempdir()?;
    let stores: Stores = match &servers {
        None => {
            let location = Location::Disk(folder.path().to_owned());
            EmbeddedStores::open(&location, &embedded::Options::default())?.stores()
        }
        Some((_, redis)) => RedisStores::connect(&redis.url(), RedisOptions::default()).await?,
    };
    let kernel = LocalKernel::from_document("version: '1'\ndefault_decision: allow\n", "bench.yaml")?;
    let platform = Platform::builder(connect().await?, stores, Arc::new(kernel))
        .routing(Routing::default().with_topic("job.default", ["default"]))
        .start()
        .await?;
    let payloads = Arc::clone(&platform.stores.payloads);
    let bus = connect().await?;
    platform.spawn(|stop| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            result = work(&*bus, payloads) => if let Err(error) = result {
                eprintln!("worker: {error:#}");
            }
        }
    });
    let workflows = platform.workflows.clone();
    define(&workflows).await?;

    run_all(&workflows, "chain", 100, json!({})).await?;
    let took = run_all(&workflows, "chain", chains, json!({})).await?;
    println!("{chains} chains of 3 jobs: {:.1} runs/s", rate(chains, took));
    let list: Vec<usize> = (0..items).collect();
    let took = run_all(&workflows, "fan", 1, json!({"items": list})).await?;
    println!("fan-out of {items} jobs: {:.2} s", took.as_secs_f64());
    if waiting > 0 {
        let begun = Instant::now();
        start_all(&workflows, "wait", waiting, &json!({})).await?;
        println!(
            "{waiting} waiting runs started: {:.1} runs/s",
            rate(waiting, begun.elapsed())
        );
        tokio::time::sleep(Duration::from_secs(15)).await;
        let (before, moment) = (cpu()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(20)).await;
        let share = (cpu()? - before) / moment.elapsed().as_secs_f64();
        println!("CPU of this process while {waiting} runs wait: {:.2} %", share * 100.0);
    }
    platform.shutdown(Duration::from_secs(30)).await;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Seconds of CPU that this process has used.
fn cpu() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a name")?.split_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("a field")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

async fn define(workflows: &Workflows) -> anyhow::Result<()> {
    let step = |after: &[&str]| json!({"topic": "job.default", "depends_on": after});
    let documents = [
        json!({"id": "chain", "steps": {"a": step(&[]), "b": step(&["a"]), "c": step(&["b"])}}),
        json!({"id": "fan", "steps": {"fan": {"topic": "job.default", "for_each": "input.items"}}, "output": "done"}),
        json!({"id": "wait", "steps": {"ask": {"type": "approval"}, "work": step(&["ask"])}}),
    ];
    for document in documents {
        let definition = Definition {
            given: document.as_object().context("an object")?.keys().cloned().collect(),
            workflow: serde_json::from_value(document)?,
            ..Definition::default()
        };
        workflows.save(definition, None, &Actor::default()).await?;
    }
    Ok(())
}

async fn start_all(workflows: &Workflows, workflow: &str, count: usize, input: &Value) -> anyhow::Result<Vec<RunId>> {
    let starts = (0..count).map(|_| {
        let start = Start {
            workflow_id: workflow.to_owned(),
            input: input.as_object().cloned().unwrap_or_default(),
            org_id: "bench".to_owned(),
            ..Start::default()
        };
        async move { workflows.start(start).await }
    });
    let mut runs = Vec::with_capacity(count);
    let mut starting = futures::stream::iter(starts).buffer_unordered(CONCURRENCY);
    while let Some(started) = starting.next().await {
        runs.push(started?.run);
    }
    Ok(runs)
}

/// Starts runs and waits for the end of each.
async fn run_all(workflows: &Workflows, workflow: &str, count: usize, input: Value) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    for run in start_all(workflows, workflow, count, &input).await? {
        loop {
            let found = workflows.run(&run).await?;
            if found.head.status.is_terminal() {
                anyhow::ensure!(found.head.error.is_none(), "{:?}", found.head.error);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(begun.elapsed())
}

/// A worker that answers at once.
async fn work(bus: &dyn Bus, payloads: Arc<dyn PointerStore>) -> anyhow::Result<()> {
    let mut jobs = bus.subscribe("worker.bench.jobs", SubscribeOptions::tap()).await?;
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    loop {
        let batch = tokio::select! {
            _ = beat.tick() => {
                let heartbeat = Heartbeat {
                    worker_id: "bench".to_owned(),
                    pool: "default".to_owned(),
                    max_parallel_jobs: 100_000,
                    labels: BTreeMap::from([("coretex.direct".to_owned(), "1".to_owned())]),
                    ..Heartbeat::default()
                };
                bus.publish(message(subjects::HEARTBEAT, Payload::Heartbeat(heartbeat))).await?;
                continue;
            }
            batch = jobs.next_batch(256) => batch,
        };
        if batch.is_empty() {
            return Ok(());
        }
        let mut pointers = Vec::new();
        let mut results = Vec::new();
        for delivery in batch {
            let Some(Payload::JobRequest(request)) = decode_packet(&delivery.payload)?.payload else {
                continue;
            };
            let pointer = Pointer::result(&JobId::try_new(&request.job_id)?);
            results.push(message(
                subjects::RESULT,
                Payload::JobResult(JobResult {
                    job_id: request.job_id,
                    status: JobStatus::Succeeded.into(),
                    result_ptr: pointer.to_string(),
                    worker_id: "bench".to_owned(),
                    ..JobResult::default()
                }),
            ));
            pointers.push(pointer);
        }
        let output = Bytes::from_static(br#"{"ok":true}"#);
        let puts = pointers
            .iter()
            .map(|pointer| payloads.put(pointer, output.clone(), None));
        futures::future::try_join_all(puts).await?;
        for result in bus.publish_all(results).await {
            result?;
        }
    }
}

fn message(subject: &str, payload: Payload) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: encode_packet(&packet("bench", "bench", Clock::system().now(), payload)),
        message_id: None,
    }
}
