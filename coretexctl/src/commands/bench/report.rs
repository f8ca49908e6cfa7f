//! What was measured, for people and for programs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::observer::Final;
use super::redis::{Counters, Seen};
use super::{Args, Driven};
use crate::failure::{Failure, Kind};
use crate::output::{facts, render, table};

/// Latencies up to here are told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The result of one bench.
pub(super) struct Report {
    jobs: u32,
    mode: String,
    states: BTreeMap<String, u64>,
    submitted: Duration,
    elapsed: Duration,
    latencies: Vec<(&'static str, Latency)>,
    /// What the store did, where that could be counted.
    pub(super) store: Option<StoreUse>,
}

/// One latency, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Latency {
    /// The distribution of some durations; `None` of none.
    fn of(durations: impl Iterator<Item = Duration>) -> Option<Self> {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let mut histogram = Histogram::<u64>::new_with_bounds(1, longest, 3).ok()?;
        for duration in durations {
            histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1));
        }
        if histogram.is_empty() {
            return None;
        }
        Some(Self {
            count: histogram.len(),
            mean_us: (histogram.mean() * 10.0).round() / 10.0,
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        })
    }
}

impl Report {
    pub(super) fn new(args: &Args, driven: &Driven, ledger: &Ledger, finals: &HashMap<String, Final>) -> Self {
        let mut states = BTreeMap::new();
        for id in &driven.ids {
            let state = finals.get(id).map_or("NOT LISTED", |job| job.state.as_str());
            *states.entry(state.to_owned()).or_default() += 1;
        }
        let times: Vec<_> = driven.ids.iter().map(|id| (ledger.get(id), finals.get(id))).collect();
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let latencies = [
            (
                "submit to accepted",
                Latency::of(times.iter().filter_map(|(times, _)| between(times.due, times.accepted))),
            ),
            (
                "submit to worker",
                Latency::of(times.iter().filter_map(|(times, _)| between(times.due, times.worker))),
            ),
            (
                "submit to result on the bus",
                Latency::of(times.iter().filter_map(|(times, _)| between(times.due, times.result))),
            ),
            (
                "submit to terminal in the store",
                Latency::of(times.iter().filter_map(|(times, job)| {
                    let at = job.as_ref().filter(|job| crate::follow::is_terminal(&job.state))?.at;
                    times.due.map(|_| at.since(times.due_at))
                })),
            ),
        ];
        let how = match (args.mode, args.jetstream) {
            (super::Mode::Http, _) => "HTTP",
            (super::Mode::Nats, false) => "core NATS",
            (super::Mode::Nats, true) => "JetStream",
        };
        let pace = args.rate.map_or_else(
            || format!("{} at once", args.concurrency),
            |rate| format!("{rate} a second"),
        );
        Self {
            jobs: args.jobs,
            mode: format!("{how}, {pace}"),
            states,
            submitted: driven.submitted,
            elapsed: driven.elapsed,
            latencies: latencies
                .into_iter()
                .filter_map(|(name, latency)| Some((name, latency?)))
                .collect(),
            store: None,
        }
    }

    fn succeeded(&self) -> u64 {
        self.states.get("SUCCEEDED").copied().unwrap_or_default()
    }

    pub(super) fn to_json(&self) -> Value {
        let latencies: BTreeMap<String, &Latency> = self
            .latencies
            .iter()
            .map(|(name, latency)| (name.replace(' ', "_"), latency))
            .collect();
        json!({
            "jobs": self.jobs,
            "mode": self.mode,
            "states": self.states,
            "submit_seconds": self.submitted.as_secs_f64(),
            "seconds": self.elapsed.as_secs_f64(),
            "submits_per_second": rate(self.jobs, self.submitted),
            "jobs_per_second": rate(self.jobs, self.elapsed),
            "latency": latencies,
            "store": self.store,
        })
    }

    pub(super) fn to_text(&self) -> String {
        let states: Vec<String> = self
            .states
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let mut text = facts(&[
            ("jobs", format!("{} over {}", self.jobs, self.mode)),
            ("ended", states.join(", ")),
            (
                "submits",
                format!(
                    "{:.0} a second ({:.3} s)",
                    rate(self.jobs, self.submitted),
                    self.submitted.as_secs_f64()
                ),
            ),
            (
                "end to end",
                format!(
                    "{:.0} jobs a second ({:.3} s)",
                    rate(self.jobs, self.elapsed),
                    self.elapsed.as_secs_f64()
                ),
            ),
        ]);
        if !self.latencies.is_empty() {
            let mut latencies = table(&["latency", "p50", "p90", "p99", "p99.9", "max", "mean"]);
            for (name, latency) in &self.latencies {
                let mut row = vec![(*name).to_owned()];
                row.extend(
                    [
                        latency.p50_us,
                        latency.p90_us,
                        latency.p99_us,
                        latency.p999_us,
                        latency.max_us,
                    ]
                    .map(|micros| millis(Duration::from_micros(micros))),
                );
                row.push(millis(Duration::from_secs_f64(latency.mean_us / 1e6)));
                latencies.add_row(row);
            }
            text.push_str("\n\n");
            text.push_str(&render(&latencies));
        }
        if let Some(store) = &self.store {
            text.push_str("\n\n");
            text.push_str(&store.to_text());
        }
        text
    }

    /// A bench whose jobs did not all succeed has failed.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let listed = u64::from(self.jobs) - self.states.get("NOT LISTED").copied().unwrap_or_default();
        if self.succeeded() == listed {
            return Ok(());
        }
        Err(Failure::of(
            Kind::JobNotSucceeded,
            format!("only {} of {} jobs SUCCEEDED", self.succeeded(), self.jobs),
        )
        .hint("coretexctl job list --state FAILED, then coretexctl job explain"))
    }
}

/// What the store did per job.
#[derive(Debug, Serialize)]
pub(super) struct StoreUse {
    /// Commands that clients sent, from the sample: each one is a round trip, unless it shares one with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_per_job: Option<f64>,
    /// The same by command.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sent_by_command: BTreeMap<String, f64>,
    /// Times that the server read from a socket.
    reads_per_job: f64,
    /// All commands, those inside scripts included.
    commands_per_job: f64,
    /// The same by command.
    commands_by_command: BTreeMap<String, f64>,
}

impl StoreUse {
    pub(super) fn between(before: &Counters, after: &Counters, jobs: u32) -> Self {
        let by_command: BTreeMap<String, f64> = after
            .calls
            .iter()
            .map(|(name, count)| {
                let earlier = before.calls.get(name).copied().unwrap_or_default();
                (name.clone(), per_job(count.saturating_sub(earlier), jobs))
            })
            .filter(|(_, count)| *count > 0.0)
            .collect();
        let total = after
            .calls
            .values()
            .sum::<u64>()
            .saturating_sub(before.calls.values().sum());
        Self {
            sent_per_job: None,
            sent_by_command: BTreeMap::new(),
            reads_per_job: per_job(after.reads.saturating_sub(before.reads), jobs),
            commands_per_job: per_job(total, jobs),
            commands_by_command: by_command,
        }
    }

    /// Adds what the sample showed.
    pub(super) fn add_sample(&mut self, seen: &Seen, jobs: u32) {
        self.sent_per_job = Some(per_job(seen.sent.values().sum(), jobs));
        self.sent_by_command = seen
            .sent
            .iter()
            .map(|(name, count)| (name.clone(), per_job(*count, jobs)))
            .collect();
    }

    pub(super) fn to_text(&self) -> String {
        let list = |counts: &BTreeMap<String, f64>| {
            let mut counts: Vec<(&String, &f64)> = counts.iter().filter(|(_, count)| **count >= 0.05).collect();
            counts.sort_by(|a, b| b.1.total_cmp(a.1));
            counts
                .iter()
                .map(|(name, count)| format!("{name} {count:.2}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let sent = self
            .sent_per_job
            .map(|sent| format!("{sent:.2} ({})", list(&self.sent_by_command)))
            .unwrap_or_default();
        facts(&[
            ("store commands sent per job", sent),
            ("store reads of a socket per job", format!("{:.2}", self.reads_per_job)),
            (
                "store commands per job, those in scripts included",
                format!("{:.1} ({})", self.commands_per_job, list(&self.commands_by_command)),
            ),
        ])
    }
}

fn rate(jobs: u32, time: Duration) -> f64 {
    f64::from(jobs) / time.as_secs_f64().max(1e-9)
}

#[expect(clippy::cast_precision_loss, reason = "counts of commands are far below 2^52")]
fn per_job(count: u64, jobs: u32) -> f64 {
    (count as f64 / f64::from(jobs.max(1)) * 1e3).round() / 1e3
}

/// Milliseconds with three digits that matter.
fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.2} ms"),
        10.0..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let latency = Latency::of((1..=1_000).map(Duration::from_millis)).expect("not empty");
        let close = |micros: u64, millis: u64| micros.abs_diff(millis * 1_000) <= millis;
        assert!(close(latency.p50_us, 500) && close(latency.p99_us, 990) && close(latency.max_us, 1_000));
        assert_eq!(latency.count, 1_000);
        assert!(Latency::of(std::iter::empty()).is_none());
    }

    #[test]
    fn commands_are_differences_per_job() {
        let counters = |get, set, reads| Counters {
            calls: BTreeMap::from([("get".to_owned(), get), ("set".to_owned(), set)]),
            reads,
        };
        let mut store = StoreUse::between(&counters(10, 5, 7), &counters(30, 5, 27), 10);
        assert_eq!(store.commands_by_command, BTreeMap::from([("get".to_owned(), 2.0)]));
        assert!((store.commands_per_job - 2.0).abs() < 1e-9 && (store.reads_per_job - 2.0).abs() < 1e-9);
        let sent = BTreeMap::from([("evalsha".to_owned(), 15)]);
        store.add_sample(&Seen { sent, in_scripts: 40 }, 10);
        assert_eq!(store.sent_per_job, Some(1.5));
        assert!(store.to_text().contains("1.50 (evalsha 1.50)"), "{}", store.to_text());
    }

    #[test]
    fn durations_for_people() {
        let check = |micros, text: &str| assert_eq!(millis(Duration::from_micros(micros)), text);
        check(850, "0.85 ms");
        check(12_345, "12.3 ms");
        check(1_234_567, "1235 ms");
    }
}
