//! Submitting: so many jobs, so many at once, at such a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::Args;
use super::ledger::Ledger;
use super::nats::Nats;
use crate::api::Api;
use crate::doc::Doc;
use crate::failure::Failure;

/// How many packets are published at once when there is no rate to keep.
const BATCH: u32 = 256;

/// Where jobs go, and how.
pub(super) struct Load {
    target: Target,
    topic: String,
    concurrency: u32,
}

enum Target {
    Http { api: Api, body: Value },
    Bus(Nats),
}

impl Load {
    pub(super) fn http(api: Api, args: &Args) -> Self {
        let prompt = "x".repeat(usize::try_from(args.prompt_bytes).unwrap_or(1));
        Self {
            target: Target::Http {
                api,
                body: json!({"prompt": prompt, "topic": args.topic}),
            },
            topic: args.topic.clone(),
            concurrency: args.concurrency,
        }
    }

    pub(super) fn bus(nats: Nats, args: &Args) -> Self {
        Self {
            target: Target::Bus(nats),
            topic: args.topic.clone(),
            concurrency: args.concurrency,
        }
    }

    /// Submits `count` jobs and returns their ids in order. Over HTTP the server makes the ids; on the bus they begin with
    /// `prefix`.
    pub(super) async fn submit(
        &self,
        prefix: &str,
        count: u32,
        rate: Option<f64>,
        ledger: &Arc<Ledger>,
        bar: &ProgressBar,
    ) -> Result<Vec<String>, Failure> {
        let schedule = Schedule {
            start: Instant::now(),
            rate,
        };
        let next = AtomicU32::new(0);
        // Without a rate the bus takes batches; with one, every job has a moment of its own.
        let step = match (&self.target, rate) {
            (Target::Bus(_), None) => BATCH,
            _ => 1,
        };
        let lanes = self.concurrency.min(count.div_ceil(step));
        let lane = || async {
            let mut done = Vec::new();
            loop {
                let first = next.fetch_add(step, Ordering::Relaxed);
                if first >= count {
                    return Ok::<_, Failure>(done);
                }
                let last = (first + step).min(count);
                let due = schedule.wait(first).await;
                match &self.target {
                    Target::Http { api, body } => {
                        let answer = api.post(&["jobs"], Some(body)).await?;
                        let id = Doc(&answer).text("job_id").to_owned();
                        if id.is_empty() {
                            return Err(Failure::new(format!(
                                "the submit was answered without a job_id: {answer}"
                            )));
                        }
                        ledger.accepted(&id, due);
                        done.push((first, id));
                    }
                    Target::Bus(nats) => {
                        let ids: Vec<String> = (first..last).map(|index| format!("{prefix}-{index}")).collect();
                        for id in &ids {
                            ledger.submitted(id, due);
                        }
                        nats.submit(&ids, &self.topic).await?;
                        for id in &ids {
                            ledger.accepted(id, due);
                        }
                        done.extend((first..last).zip(ids));
                    }
                }
                bar.set_message(format!("{last} submitted"));
            }
        };
        let mut jobs: Vec<(u32, String)> = try_join_all((0..lanes).map(|_| lane())).await?.concat();
        jobs.sort_unstable_by_key(|(index, _)| *index);
        Ok(jobs.into_iter().map(|(_, id)| id).collect())
    }
}

/// When which job is due.
struct Schedule {
    start: Instant,
    rate: Option<f64>,
}

impl Schedule {
    /// Waits until job `index` is due, and returns from when its times count: from the moment at which it was due if it
    /// starts late because those before it took long, otherwise from its start, so that the grain of our own timer does not.
    async fn wait(&self, index: u32) -> Instant {
        match self.rate {
            None => Instant::now(),
            Some(rate) => {
                let due = self.start + Duration::from_secs_f64(f64::from(index) / rate);
                let in_time = Instant::now() < due;
                sleep_until(due).await;
                if in_time { Instant::now() } else { due }
            }
        }
    }
}
