//! `coretexd bench`: how fast the embedded platform is on this machine. No server, no HTTP: the library alone.

mod report;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::ValueEnum;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::jobs::service::{JobService, SubmitRequest};
use coretex_core::platform::Platform;
use coretex_core::policy::LocalKernel;
use coretex_core::protocol::{JobId, TenantId};
use coretex_core::routing::Routing;
use coretex_core::time::Timestamp;
use coretex_sdk::{Running, Worker};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::report::Report;

const TOPIC: &str = "job.bench";
const POOL: &str = "bench";
/// How often the store is asked how many jobs have ended.
const PAUSE: Duration = Duration::from_millis(2);
/// How many jobs are looked at in one call.
const CHUNK: usize = 1_000;
/// How long the platform may take to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long no job may end before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Measure the embedded platform: jobs a second, and latencies.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  coretexd bench                                every job durable before it is acknowledged
  coretexd bench --data-dir :memory:            the same without a disk
  coretexd bench --jobs 3000 --rate 100         latencies of a system that is not busy")]
pub struct Args {
    /// How many jobs
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub jobs: u32,
    /// How many submits may be under way at once
    #[arg(long, value_name = "C", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub concurrency: u32,
    /// Jobs a second; without it, as fast as they are taken
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// How many jobs the worker runs at once
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    pub parallel: u32,
    /// Jobs before the measurement
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub warm_up: u32,
    /// How the result is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// When one job was where.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    due: Option<Instant>,
    due_at: Timestamp,
    accepted: Option<Instant>,
    worker: Option<Instant>,
}

type Ledger = Arc<Mutex<HashMap<String, Times>>>;

/// Runs the bench and prints its result. `data_dir` is the daemon's setting, if it is set: a folder or `:memory:`; without
/// it, a folder is made here and removed again.
///
/// # Errors
/// If the data cannot be opened, or jobs do not end.
pub async fn run(args: &Args, data_dir: Option<&str>) -> anyhow::Result<()> {
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        bail!("--rate must be greater than zero");
    }
    let scratch = data_dir
        .is_none()
        .then(|| PathBuf::from(format!("coretex-bench-{}", std::process::id())));
    let location = match (data_dir, &scratch) {
        (Some(":memory:"), _) | (None, None) => Location::Memory,
        (Some(folder), _) => Location::Disk(PathBuf::from(folder)),
        (None, Some(folder)) => Location::Disk(folder.clone()),
    };
    let outcome = measure(args, location).await;
    if let Some(folder) = scratch {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let report = outcome?;
    report.print(args.output)?;
    report.verdict()
}

async fn measure(args: &Args, location: Location) -> anyhow::Result<Report> {
    let durable = location != Location::Memory;
    let stores = tokio::task::spawn_blocking(move || EmbeddedStores::open(&location, &Options::default())).await??;
    let platform = Platform::builder(
        Arc::new(InProcessBus::new()),
        stores.stores(),
        Arc::new(LocalKernel::allow_all()),
    )
    .routing(Routing::default().with_topic(TOPIC, [POOL]))
    .start()
    .await?;
    let mut bench = Bench {
        jobs: service(&platform),
        platform,
        ledger: Ledger::default(),
    };
    let mut worker = bench.worker(args.parallel).await?;
    let outcome = bench.rounds(args, durable).await;
    worker.stop().await?;
    bench.platform.shutdown(GRACE).await;
    stores.close().await;
    outcome
}

fn service(platform: &Platform) -> JobService {
    JobService::new(
        Arc::clone(&platform.stores.jobs),
        Arc::clone(&platform.stores.payloads),
        Arc::clone(&platform.stores.dlq),
        Arc::clone(&platform.bus),
        platform.clock.clone(),
        TenantId::fallback(),
    )
}

struct Bench {
    platform: Platform,
    jobs: JobService,
    ledger: Ledger,
}

/// What one round did.
struct Driven {
    ids: Vec<JobId>,
    submitted: Duration,
    elapsed: Duration,
}

impl Bench {
    /// A worker that answers at once.
    async fn worker(&self, parallel: u32) -> anyhow::Result<Running> {
        let ledger = Arc::clone(&self.ledger);
        let worker = Worker::builder()
            .id("bench")
            .pool(POOL)
            .max_parallel_jobs(parallel)
            .bus(Arc::clone(&self.platform.bus))
            .payloads(Arc::clone(&self.platform.stores.payloads))
            .handle_bytes(TOPIC, move |job, _input| {
                let now = Instant::now();
                ledger
                    .lock()
                    .entry(job.job_id().to_string())
                    .or_default()
                    .worker
                    .get_or_insert(now);
                async { Ok(Bytes::new()) }
            })
            .start()
            .await?;
        Ok(worker)
    }

    async fn rounds(&mut self, args: &Args, durable: bool) -> anyhow::Result<Report> {
        if args.warm_up > 0 {
            self.drive(args.warm_up, args.concurrency, None).await?;
        }
        let driven = self.drive(args.jobs, args.concurrency, args.rate).await?;
        let mut report = Report::new(args, durable, driven.submitted, driven.elapsed)?;
        for chunk in driven.ids.chunks(CHUNK) {
            for (id, record) in chunk.iter().zip(self.platform.stores.jobs.get_many(chunk).await?) {
                let times = self.ledger.lock().get(id.as_str()).copied().unwrap_or_default();
                report.add(&times, record.as_ref());
            }
        }
        Ok(report)
    }

    /// Submits `count` jobs and waits until all of them have ended in the store.
    async fn drive(&self, count: u32, concurrency: u32, rate: Option<f64>) -> anyhow::Result<Driven> {
        let before = self.ended().await?;
        let start = Instant::now();
        let next = Arc::new(AtomicU32::new(0));
        let mut lanes = JoinSet::new();
        for _ in 0..concurrency.min(count) {
            let lane = Lane {
                jobs: self.jobs.clone(),
                platform: self.platform.clone(),
                ledger: Arc::clone(&self.ledger),
                next: Arc::clone(&next),
            };
            lanes.spawn(lane.run(count, start, rate));
        }
        let mut ids = Vec::new();
        while let Some(lane) = lanes.join_next().await {
            ids.extend(lane??);
        }
        let submitted = start.elapsed();
        let all = u64::from(count);
        let (mut last, mut changed) = (0, Instant::now());
        loop {
            let ended = self.ended().await?.saturating_sub(before);
            if ended >= all {
                break;
            }
            if ended != last {
                (last, changed) = (ended, Instant::now());
            }
            if changed.elapsed() > PATIENCE {
                bail!("{ended} of {all} jobs have ended, and none for {PATIENCE:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Driven {
            ids,
            submitted,
            elapsed: start.elapsed(),
        })
    }

    async fn ended(&self) -> anyhow::Result<u64> {
        let counts = self.jobs.counts().await?;
        Ok(counts
            .into_iter()
            .filter(|(state, _)| state.is_terminal())
            .map(|(_, count)| count)
            .sum())
    }
}

/// One of the submitters.
struct Lane {
    jobs: JobService,
    platform: Platform,
    ledger: Ledger,
    next: Arc<AtomicU32>,
}

impl Lane {
    async fn run(self, count: u32, start: Instant, rate: Option<f64>) -> anyhow::Result<Vec<JobId>> {
        let mut ids = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(ids);
            }
            let due = match rate {
                None => Instant::now(),
                Some(rate) => {
                    let due = start + Duration::from_secs_f64(f64::from(index) / rate);
                    // What starts late because those before it took long counts from when it was due; the grain of our own
                    // timer does not.
                    let in_time = Instant::now() < due;
                    sleep_until(due).await;
                    if in_time { Instant::now() } else { due }
                }
            };
            let due_at = self.platform.clock.now().minus(due.elapsed());
            let request = SubmitRequest {
                prompt: "bench".to_owned(),
                topic: Some(TOPIC.to_owned()),
                ..SubmitRequest::default()
            };
            let id = self.jobs.submit(request).await?.job_id;
            let now = Instant::now();
            let mut ledger = self.ledger.lock();
            let times = ledger.entry(id.to_string()).or_default();
            times.due = Some(due);
            times.due_at = due_at;
            times.accepted = Some(now);
            drop(ledger);
            ids.push(id);
        }
    }
}
