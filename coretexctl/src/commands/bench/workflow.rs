//! `coretexctl bench workflow`: drives runs of a workflow through a running system.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coretex_sdk::{Running, Worker};
use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::nats::Nats;
use super::progress_bar;
use super::redis::Store;
use super::report::StoreUse;
use crate::commands::Context;
use crate::failure::{Failure, Kind};

/// How long nothing may be heard before runs are asked for one by one.
const QUIET: Duration = Duration::from_millis(500);
/// How many runs are asked for at once.
const ASKED: usize = 32;

/// What the runs look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shape {
    /// Jobs one after the other.
    Chain,
    /// One job for each item of a list.
    FanOut,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A workflow is made, runs of it are started over HTTP, and a worker in this process answers every job at once with a small
result. A run counts when the engine has said that it ended; what was not heard is asked for.

Examples:
  coretexctl bench workflow --nats nats://localhost:4222 --redis redis://localhost:6379
      1 000 runs of three jobs each, one after the other
  coretexctl bench workflow --shape fan-out --size 500 --runs 1 --nats nats://localhost:4222 --redis redis://localhost:6379
      one run of 500 jobs side by side
  coretexctl bench workflow --shape fan-out --size 500 --runs 1 --whole-input --nats … --redis …
      the same where every job gets all items")]
pub(crate) struct Args {
    /// What the runs look like
    #[arg(long, value_enum, value_name = "SHAPE", default_value = "chain")]
    shape: Shape,
    /// How many jobs a run has
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    size: u32,
    /// How many runs
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// How many starts may be under way at once
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    concurrency: u32,
    /// The items of a fan-out have no input of their own: every job gets the run's
    #[arg(long)]
    whole_input: bool,
    /// The topic of the jobs
    #[arg(long, value_name = "TOPIC", default_value = "job.default")]
    topic: String,
    /// The pool of the worker
    #[arg(long, value_name = "POOL", default_value = "default")]
    pool: String,
    /// How many jobs the worker runs at once
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    parallel: u32,
    /// The bus
    #[arg(long, value_name = "URL")]
    nats: String,
    /// The store
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Runs before the measurement
    #[arg(long, value_name = "N", default_value_t = 20)]
    warm_up: u32,
    /// Give up when no run has ended for this time
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::settings::parse_duration)]
    patience: Duration,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    runs: u32,
    jobs: u64,
    ended_otherwise: u64,
    seconds: f64,
    runs_per_second: f64,
    jobs_per_second: f64,
    /// What the store had to do for each job, its part of the run included.
    store: StoreUse,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let nats = Nats::connect(&args.nats, false).await?;
    let mut store = Store::connect(&args.redis).await?;
    let workflow = format!("bench-{}", uuid::Uuid::new_v4().simple());
    context
        .api
        .post(&["workflows"], Some(&definition(&workflow, &args)))
        .await?;
    let ended = Arc::new(Ended::default());
    let listener = nats.listen_to_runs(workflow.clone(), Arc::clone(&ended)).await?;
    let worker = worker(&args).await?;

    let bench = Bench {
        args: &args,
        context,
        workflow,
        ended,
    };
    let report = bench.measure(&mut store).await;
    stop(worker).await;
    drop(listener);
    nats.close().await;
    let report = report?;
    context
        .out
        .print(&serde_json::to_value(&report).unwrap_or_default(), || report.to_text())?;
    if report.ended_otherwise > 0 {
        return Err(Failure::new(format!("{} runs did not succeed", report.ended_otherwise)));
    }
    Ok(())
}

/// The runs that ended, as far as was heard.
#[derive(Debug, Default)]
pub(super) struct Ended {
    runs: Mutex<HashSet<String>>,
    failed: Mutex<HashSet<String>>,
    news: Notify,
}

impl Ended {
    /// A run ended.
    pub(super) fn note(&self, run: &str, status: &str) {
        match status {
            "succeeded" => {}
            "failed" | "cancelled" | "timed_out" => {
                locked(&self.failed).insert(run.to_owned());
            }
            _ => return,
        }
        if locked(&self.runs).insert(run.to_owned()) {
            self.news.notify_one();
        }
    }
}

/// The set itself; nobody panics while holding it.
fn locked(set: &Mutex<HashSet<String>>) -> std::sync::MutexGuard<'_, HashSet<String>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Bench<'a> {
    args: &'a Args,
    context: &'a Context,
    workflow: String,
    ended: Arc<Ended>,
}

impl Bench<'_> {
    async fn measure(&self, store: &mut Store) -> Result<Report, Failure> {
        if self.args.warm_up > 0 {
            self.drive("warm-up", self.args.warm_up).await?;
        }
        let before = store.counters().await?;
        let elapsed = self.drive("runs", self.args.runs).await?;
        let after = store.counters().await?;
        let jobs = u64::from(self.args.runs) * u64::from(self.args.size);
        let per_second = |n: f64| n / elapsed.as_secs_f64();
        Ok(Report {
            runs: self.args.runs,
            jobs,
            ended_otherwise: locked(&self.ended.failed).len() as u64,
            seconds: elapsed.as_secs_f64(),
            runs_per_second: per_second(f64::from(self.args.runs)),
            jobs_per_second: per_second(f64::from(self.args.runs) * f64::from(self.args.size)),
            store: StoreUse::between(&before, &after, u32::try_from(jobs).unwrap_or(u32::MAX)),
        })
    }

    /// Starts `count` runs and waits until all have ended.
    async fn drive(&self, name: &str, count: u32) -> Result<Duration, Failure> {
        let bar = progress_bar(name, count);
        let begun = Instant::now();
        let input = match self.args.shape {
            Shape::Chain => json!({"n": 1}),
            Shape::FanOut => json!({"items": (0..self.args.size).collect::<Vec<_>>()}),
        };
        let starts = stream::iter(0..count).map(|_| async {
            let path = ["workflows", &self.workflow, "runs"];
            let answer = self.context.api.post(&path, Some(&input)).await?;
            let run = answer.get("run_id").and_then(Value::as_str).unwrap_or_default();
            Ok::<_, Failure>(run.to_owned())
        });
        let mut starts = std::pin::pin!(starts.buffer_unordered(self.args.concurrency as usize));
        let mut open = HashSet::new();
        while let Some(run) = starts.next().await {
            open.insert(run?);
        }
        let mut moved = Instant::now();
        loop {
            let left = open.len();
            {
                let mut ended = locked(&self.ended.runs);
                open.retain(|run| !ended.remove(run));
            }
            bar.set_position((count as usize - open.len()) as u64);
            if open.is_empty() {
                break;
            }
            if open.len() != left {
                moved = Instant::now();
            }
            if moved.elapsed() > self.args.patience {
                bar.finish_and_clear();
                return Err(
                    Failure::of(Kind::WaitOver, format!("{} of {count} runs have not ended", open.len()))
                        .hint(format!("coretexctl run list --workflow {}", self.workflow)),
                );
            }
            if tokio::time::timeout(QUIET, self.ended.news.notified()).await.is_err() {
                self.ask(&open).await?;
            }
        }
        bar.finish_and_clear();
        Ok(begun.elapsed())
    }

    /// Asks how some of these runs are: what was said about them may have been lost.
    async fn ask(&self, open: &HashSet<String>) -> Result<(), Failure> {
        for run in open.iter().take(ASKED) {
            let found = self.context.api.get(&["workflow-runs", run], &[]).await?;
            let status = found.get("status").and_then(Value::as_str).unwrap_or_default();
            self.ended.note(run, status);
        }
        Ok(())
    }
}

fn definition(id: &str, args: &Args) -> Value {
    let step = |n: u32| format!("s{n}");
    let steps: serde_json::Map<String, Value> = match args.shape {
        Shape::Chain => (1..=args.size)
            .map(|n| {
                let after: Vec<String> = (n > 1).then(|| step(n - 1)).into_iter().collect();
                (
                    step(n),
                    json!({"topic": args.topic, "depends_on": after, "input": {"n": "${input.n}"}}),
                )
            })
            .collect(),
        Shape::FanOut => {
            let mut fan = json!({"topic": args.topic, "for_each": "input.items", "max_items": args.size});
            if !args.whole_input {
                fan["input"] = json!({"n": "${item}"});
            }
            [("fan".to_owned(), fan)].into_iter().collect()
        }
    };
    json!({"id": id, "name": "bench", "steps": steps})
}

async fn worker(args: &Args) -> Result<Running, Failure> {
    Worker::builder()
        .id(format!("bench-{}", uuid::Uuid::new_v4().simple()))
        .pool(&args.pool)
        .max_parallel_jobs(args.parallel)
        .nats(&args.nats)
        .redis(&args.redis)
        .handle_bytes(&args.topic, |_, _| async { Ok(Bytes::from_static(b"{\"ok\":true}")) })
        .start()
        .await
        .map_err(|error| Failure::new("the bench's own worker cannot start").because(&error))
}

async fn stop(mut worker: Running) {
    if let Err(error) = worker.stop().await {
        crate::output::note(&format!("the bench's own worker did not stop cleanly: {error}"));
    }
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{} runs of {} jobs in {:.3} s: {:.0} runs/s, {:.0} jobs/s",
            self.runs,
            self.jobs / u64::from(self.runs.max(1)),
            self.seconds,
            self.runs_per_second,
            self.jobs_per_second
        );
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}", self.store.to_text());
        text
    }
}
