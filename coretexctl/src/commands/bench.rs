//! `coretexctl bench`: drives jobs through a running system and says what it did.

mod ledger;
mod load;
mod nats;
mod observer;
mod redis;
mod report;
mod worker;
mod workflow;

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use self::ledger::Ledger;
use self::load::Load;
use self::nats::Nats;
use self::observer::Observer;
use self::redis::Store;
use self::report::{Report, StoreUse};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::output::note;

/// How jobs are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Over the HTTP API.
    Http,
    /// Straight on the bus, as packets on `sys.job.submit`.
    Nats,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Drive runs of a workflow through a running system
    Workflow(workflow::Args),
}

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  coretexctl bench --jobs 1000 --concurrency 32
      over HTTP; some worker must serve the topic
  coretexctl bench --jobs 20000 --mode nats --nats nats://localhost:4222 --redis redis://localhost:6379 --worker
      on the bus, with a worker in this process, and with the store's commands counted
  coretexctl bench --jobs 20000 --mode nats --jetstream --nats nats://localhost:4222 --redis redis://localhost:6379 --worker
      the same on JetStream
  coretexctl bench --jobs 3000 --rate 100 --nats nats://localhost:4222 --redis redis://localhost:6379 --worker
      latencies of a system that is not busy; a submit counts from the moment at which it was due

What is measured, and how, is in docs/cli.md. With a daemon that limits its clients' rate, set API_RATE_LIMIT_RPS=0 there."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How many jobs
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// How many submits may be under way at once
    #[arg(long, value_name = "C", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    concurrency: u32,
    /// How jobs are submitted
    #[arg(long, value_enum, value_name = "MODE", default_value = "http")]
    mode: Mode,
    /// Jobs a second; without it, as fast as they are taken
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Which topic
    #[arg(long, value_name = "TOPIC", default_value = "job.default")]
    topic: String,
    /// How many bytes of prompt each job has, over HTTP
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    prompt_bytes: u32,
    /// The bus: needed for --mode nats and --worker; also measures when results arrive
    #[arg(long, value_name = "URL", required_if_eq("mode", "nats"))]
    nats: Option<String>,
    /// Publish to a stream, and wait for the acknowledgement
    #[arg(long)]
    jetstream: bool,
    /// The store: jobs are seen to end there, and its commands are counted
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Run a worker in this process that answers at once
    #[arg(long, requires = "nats", requires = "redis")]
    worker: bool,
    /// The pool of that worker
    #[arg(long, value_name = "POOL", default_value = "default")]
    pool: String,
    /// How many jobs that worker runs at once
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    parallel: u32,
    /// Jobs before the measurement, so that connections and caches are there
    #[arg(long, value_name = "N", default_value_t = 100)]
    warm_up: u32,
    /// Jobs after it, for which the store reports every single command
    #[arg(long, value_name = "N", default_value_t = 200)]
    sample: u32,
    /// Give up when no job has ended for this time
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::settings::parse_duration)]
    patience: Duration,
}

/// Everything that takes part.
struct Bench<'a> {
    args: &'a Args,
    load: Load,
    observer: Observer,
    ledger: Arc<Ledger>,
    run: String,
}

pub(crate) async fn run(mut args: Args, context: &Context) -> Result<(), Failure> {
    if let Some(What::Workflow(args)) = args.what.take() {
        return workflow::run(args, context).await;
    }
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(Failure::usage("--rate must be greater than zero"));
    }
    let ledger = Arc::new(Ledger::default());
    let nats = match &args.nats {
        Some(url) => Some(Nats::connect(url, args.jetstream).await?),
        None => None,
    };
    let store = match &args.redis {
        Some(url) => Some(Store::connect(url).await?),
        None => None,
    };
    let listener = match &nats {
        Some(nats) => Some(nats.listen(Arc::clone(&ledger)).await?),
        None => None,
    };
    let worker = match (&args.nats, &args.redis) {
        (Some(nats), Some(redis)) if args.worker => Some(worker::start(nats, redis, &args, Arc::clone(&ledger)).await?),
        _ => None,
    };
    let load = match (args.mode, &nats) {
        (Mode::Nats, Some(nats)) => Load::bus(nats.clone(), &args),
        _ => Load::http(context.api.clone(), &args),
    };
    let observer = match store {
        Some(store) => Observer::Store(Box::new(store)),
        None => Observer::Api(context.api.clone()),
    };
    let mut bench = Bench {
        args: &args,
        load,
        observer,
        ledger,
        run: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
    };
    let report = bench.measure().await;
    if let Some(worker) = worker {
        worker.stop().await;
    }
    drop(listener);
    if let Some(nats) = nats {
        nats.close().await;
    }
    let report = report?;
    context.out.print(&report.to_json(), || report.to_text())?;
    report.verdict()
}

impl Bench<'_> {
    async fn measure(&mut self) -> Result<Report, Failure> {
        if self.args.warm_up > 0 {
            self.drive("warm-up", self.args.warm_up, None, false).await?;
        }
        let before = self.observer.counters().await?;
        let driven = self.drive("jobs", self.args.jobs, self.args.rate, true).await?;
        let after = self.observer.counters().await?;
        let finals = self.observer.finals(&driven.ids, driven.begun).await?;
        let mut report = Report::new(self.args, &driven, &self.ledger, &finals);
        if let (Some(before), Some(after)) = (before, after) {
            report.store = Some(StoreUse::between(&before, &after, self.args.jobs));
        }
        if self.args.sample > 0
            && let Observer::Store(store) = &self.observer
        {
            let monitor = store.monitor().await?;
            self.drive("counted", self.args.sample, None, true).await?;
            let seen = monitor.stop().await;
            if let Some(store) = &mut report.store {
                store.add_sample(&seen, self.args.sample);
            }
        }
        Ok(report)
    }

    /// Submits `count` jobs and waits until all of them have ended.
    async fn drive(&mut self, name: &str, count: u32, rate: Option<f64>, strict: bool) -> Result<Driven, Failure> {
        let baseline = self.observer.baseline().await?;
        let bar = progress_bar(name, count);
        let begun = coretex_core::time::Clock::system().now();
        let start = tokio::time::Instant::now();
        let prefix = format!("bench-{}-{name}", self.run);
        let ids = self.load.submit(&prefix, count, rate, &self.ledger, &bar).await?;
        let submitted = start.elapsed();
        bar.set_message("waiting for the last ones");
        let waited = self
            .observer
            .until_all_ended(baseline, &ids, self.args.patience, |ended| bar.set_position(ended))
            .await;
        let elapsed = start.elapsed();
        bar.finish_and_clear();
        match waited {
            Ok(()) => {}
            // A system that loses jobs is worth a report, not just an error.
            Err(failure) if failure.kind() == Kind::WaitOver && strict => {
                failure.report();
            }
            Err(failure) => {
                return Err(failure.hint(format!(
                    "does a worker serve {}? `coretexctl worker list` shows; --worker brings one",
                    self.args.topic
                )));
            }
        }
        Ok(Driven {
            ids,
            begun,
            submitted,
            elapsed,
        })
    }
}

/// What one round did.
struct Driven {
    /// The jobs, in order of submission.
    ids: Vec<String>,
    /// When it began, by the wall clock.
    begun: coretex_core::time::Timestamp,
    /// How long it took to submit all.
    submitted: Duration,
    /// How long until all had ended.
    elapsed: Duration,
}

fn progress_bar(name: &str, count: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(count));
    if let Ok(style) = ProgressStyle::with_template("{prefix:>8} [{bar:40}] {pos}/{len} {per_sec} {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(name.to_owned());
    if bar.is_hidden() {
        note(&format!("{name}: {count} jobs"));
    }
    bar
}
