//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::bail;
use comfy_table::{Table, presets};
use coretex_core::jobs::JobRecord;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Args, Format, Times};

/// The result of one bench.
#[derive(Debug)]
pub(super) struct Report {
    jobs: u32,
    how: String,
    submitted: Duration,
    elapsed: Duration,
    states: BTreeMap<String, u32>,
    latencies: [(&'static str, Histogram<u64>); 3],
}

impl Report {
    pub(super) fn new(args: &Args, durable: bool, submitted: Duration, elapsed: Duration) -> anyhow::Result<Self> {
        let medium = if durable {
            "embedded, on disk"
        } else {
            "embedded, in memory"
        };
        let pace = args.rate.map_or_else(
            || format!("{} at once", args.concurrency),
            |rate| format!("{rate} a second"),
        );
        Ok(Self {
            jobs: args.jobs,
            how: format!("{medium}, {pace}"),
            submitted,
            elapsed,
            states: BTreeMap::new(),
            latencies: [
                ("submit to accepted", histogram()?),
                ("submit to worker", histogram()?),
                ("submit to terminal in the store", histogram()?),
            ],
        })
    }

    /// Adds one job.
    pub(super) fn add(&mut self, times: &Times, record: Option<&JobRecord>) {
        let state = record.map_or_else(|| "GONE".to_owned(), |job| job.state.to_string());
        *self.states.entry(state).or_default() += 1;
        let since = |to: Option<Instant>| Some(to?.saturating_duration_since(times.due?));
        let ended = record.filter(|job| job.state.is_terminal());
        let durations = [
            since(times.accepted),
            since(times.worker),
            ended.map(|job| job.revision.0.since(times.due_at)),
        ];
        for ((_, histogram), duration) in self.latencies.iter_mut().zip(durations) {
            if let Some(duration) = duration {
                histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1));
            }
        }
    }

    /// Prints it to stdout. A reader that has seen enough is no error.
    pub(super) fn print(&self, format: Format) -> io::Result<()> {
        let text = match format {
            Format::Table => self.to_text(),
            Format::Json => format!("{:#}", self.to_json()),
        };
        match writeln!(anstream::stdout().lock(), "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    /// A bench whose jobs did not all succeed has failed.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let succeeded = self.states.get("SUCCEEDED").copied().unwrap_or_default();
        if succeeded != self.jobs {
            bail!("only {succeeded} of {} jobs SUCCEEDED", self.jobs);
        }
        Ok(())
    }

    fn per_second(&self, time: Duration) -> f64 {
        f64::from(self.jobs) / time.as_secs_f64().max(1e-9)
    }

    fn to_json(&self) -> Value {
        let latencies: BTreeMap<String, Value> = self
            .latencies
            .iter()
            .map(|(name, histogram)| {
                let percentiles = json!({
                    "count": histogram.len(),
                    "mean_us": histogram.mean(),
                    "p50_us": histogram.value_at_quantile(0.5),
                    "p90_us": histogram.value_at_quantile(0.9),
                    "p99_us": histogram.value_at_quantile(0.99),
                    "p999_us": histogram.value_at_quantile(0.999),
                    "max_us": histogram.max(),
                });
                (name.replace(' ', "_"), percentiles)
            })
            .collect();
        json!({
            "jobs": self.jobs,
            "mode": self.how,
            "states": self.states,
            "submit_seconds": self.submitted.as_secs_f64(),
            "seconds": self.elapsed.as_secs_f64(),
            "submits_per_second": self.per_second(self.submitted),
            "jobs_per_second": self.per_second(self.elapsed),
            "latency": latencies,
        })
    }

    fn to_text(&self) -> String {
        let states: Vec<String> = self
            .states
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let mut facts = Table::new();
        facts.load_style(presets::NOTHING);
        facts.add_row(["jobs".to_owned(), format!("{} {}", self.jobs, self.how)]);
        facts.add_row(["ended".to_owned(), states.join(", ")]);
        for (name, time) in [("submits", self.submitted), ("end to end", self.elapsed)] {
            let text = format!("{:.0} a second ({:.3} s)", self.per_second(time), time.as_secs_f64());
            facts.add_row([name.to_owned(), text]);
        }
        let mut latencies = Table::new();
        latencies
            .load_style(presets::NOTHING)
            .set_header(["LATENCY", "P50", "P90", "P99", "P99.9", "MAX"]);
        for (name, histogram) in &self.latencies {
            let mut row = vec![(*name).to_owned()];
            row.extend([0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| millis(histogram.value_at_quantile(quantile))));
            latencies.add_row(row);
        }
        format!("{}\n\n{}", facts.trim_fmt(), latencies.trim_fmt())
    }
}

/// Up to an hour, to three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(3_600_000_000, 3)?)
}

/// Milliseconds with three digits that matter.
fn millis(micros: u64) -> String {
    let millis = Duration::from_micros(micros).as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.2} ms"),
        10.0..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}
