//! What became of the steps: a table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use coretex_core::jobs::service::JobService;
use coretex_core::jobs::{Decision, DecisionRecord, JobRecord, JobState};
use coretex_core::platform::Platform;
use coretex_core::pointers::Pointer;
use coretex_core::workflow::{Run, StepKey, StepRecord};

use super::digest::Digest;
use super::workers::Receipt;
use super::{DIGEST, PUBLISH};

/// How many digests are shown one by one.
const SHOWN: usize = 15;
/// How many decisions of one job are looked at.
const DECISIONS: usize = 10;

/// The steps of the workflow that no worker does, in the order of the table.
const NATIVE: [(&str, &str); 2] = [("gather", "transform"), ("review", "approval")];

/// One step at its end.
#[derive(Debug, Clone)]
struct Row {
    step: String,
    topic: String,
    /// Whether it ended well.
    fine: bool,
    verdict: String,
    worker: String,
    took: Option<Duration>,
    result: String,
}

/// All steps at their end.
#[derive(Debug, Default)]
pub(super) struct Summary {
    rows: Vec<Row>,
    findings: Vec<String>,
    published: Option<String>,
}

impl Summary {
    /// Collects what the stores know of a run and its jobs.
    pub(super) async fn gather(jobs: &JobService, platform: &Platform, run: &Run) -> anyhow::Result<Self> {
        let mut summary = Self::default();
        for (key, step) in in_order(run) {
            match NATIVE.iter().find(|(id, _)| *id == key.as_str()) {
                Some((_, kind)) => summary.rows.push(native(key, kind, step)),
                None => summary.job(jobs, platform, key, step).await?,
            }
        }
        Ok(summary)
    }

    async fn job(
        &mut self,
        jobs: &JobService,
        platform: &Platform,
        key: &StepKey,
        step: &StepRecord,
    ) -> anyhow::Result<()> {
        let Some(id) = &step.job_id else { return Ok(()) };
        let Some(record) = jobs.record(id).await? else {
            return Ok(());
        };
        let decisions = jobs.decisions(id, DECISIONS).await?;
        let events = platform.stores.jobs.events(id).await?;
        let took = match (events.first(), events.last()) {
            (Some((begun, _)), Some((ended, _))) => Some(ended.since(*begun)),
            _ => None,
        };
        let result = match record.outcome.result_ptr.parse::<Pointer>() {
            Ok(pointer) if record.state == JobState::Succeeded => platform.stores.payloads.get(&pointer).await?,
            _ => None,
        };
        let result = self.result(&record, result.as_deref());
        self.rows.push(Row {
            step: key.to_string(),
            topic: record.topic.clone(),
            fine: record.state == JobState::Succeeded,
            verdict: verdict(&record, &decisions),
            worker: record
                .worker_id
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            took,
            result,
        });
        Ok(())
    }

    /// The result of a job in a few words; remembers what is worth a line of its own.
    fn result(&mut self, record: &JobRecord, payload: Option<&[u8]>) -> String {
        if record.topic == DIGEST
            && let Some(Ok(digest)) = payload.map(serde_json::from_slice::<Digest>)
        {
            self.findings.extend(digest.findings.iter().map(|finding| {
                format!(
                    "{}:{}  {}  {}",
                    digest.path, finding.line, finding.kind, finding.excerpt
                )
            }));
            let keywords: Vec<&str> = digest
                .keywords
                .iter()
                .take(3)
                .map(|keyword| keyword.term.as_str())
                .collect();
            return format!(
                "{}: {} words, {}; {}",
                digest.path,
                digest.words,
                reading_time(digest.reading_seconds),
                keywords.join(", ")
            );
        }
        if record.topic == PUBLISH
            && let Some(Ok(receipt)) = payload.map(serde_json::from_slice::<Receipt>)
        {
            let text = format!(
                "{}: {} documents, {} words, {} findings",
                receipt.file, receipt.documents, receipt.words, receipt.findings
            );
            self.published = Some(receipt.file);
            return text;
        }
        let reason = record
            .decision
            .as_ref()
            .map(|decision| decision.reason.as_str())
            .unwrap_or_default();
        match (record.state, record.outcome.error_message.as_str()) {
            (JobState::Succeeded, _) => String::new(),
            (JobState::Denied, _) if record.approval.is_none() => format!("DENIED: {reason}"),
            (state, "") => state.to_string(),
            (state, message) => format!("{state}: {message}"),
        }
    }

    /// The table and what is worth a line of its own.
    pub(super) fn render(&self, out: &Path) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["STEP", "TOPIC OR TYPE", "VERDICT AND RULE", "WORKER", "TIME", "RESULT"]);
        let digests = self.rows.iter().filter(|row| row.topic == DIGEST).count();
        let mut left = SHOWN;
        for row in &self.rows {
            // Digests that went well are many and alike; whatever went otherwise is always shown.
            if row.topic == DIGEST && row.fine {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            table.add_row([
                row.step.clone(),
                row.topic.clone(),
                row.verdict.clone(),
                row.worker.clone(),
                row.took.map(millis).unwrap_or_default(),
                row.result.clone(),
            ]);
        }
        // The left padding of the first column would only indent everything by one.
        let text = table.trim_fmt();
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        let mut text = lines.join("\n");
        let hidden = self.hidden();
        if hidden > 0 {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n… and {hidden} more digests that SUCCEEDED, of {digests} in all"
            );
        }
        text.push('\n');
        if !self.findings.is_empty() {
            text.push_str("\nSecrets that may have leaked:\n  ");
            text.push_str(&self.findings.join("\n  "));
            text.push('\n');
        }
        match &self.published {
            Some(file) => drop(writeln!(text, "\nPublished: {file}")),
            None => drop(writeln!(text, "\nNothing was published to {}.", out.display())),
        }
        text
    }

    /// How many digests the table leaves out.
    fn hidden(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.topic == DIGEST && row.fine)
            .count()
            .saturating_sub(SHOWN)
    }
}

/// The steps as the workflow goes through them; without those that only have children.
fn in_order(run: &Run) -> Vec<(&StepKey, &StepRecord)> {
    const ORDER: [&str; 5] = ["digest", "delete", "gather", "review", "publish"];
    let mut steps: Vec<_> = run.steps.iter().filter(|(_, step)| step.group.is_none()).collect();
    steps.sort_by_key(|(key, _)| {
        let (id, index) = key.parent().unwrap_or((key.as_str(), 0));
        (ORDER.iter().position(|step| *step == id), index)
    });
    steps
}

/// A step that no worker does.
fn native(key: &StepKey, kind: &str, step: &StepRecord) -> Row {
    let verdict = match step.votes.last() {
        Some(vote) if vote.approved => format!("approved by {}", vote.by),
        Some(vote) => format!("rejected by {}", vote.by),
        None if kind == "approval" => "waits".to_owned(),
        None => "-".to_owned(),
    };
    let result = match (&step.error, &step.output) {
        (Some(error), _) => error.message.clone(),
        (None, Some(output)) if output.is_object() => {
            let number = |name: &str| output.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
            format!(
                "{} documents, {} words, {} findings",
                number("documents"),
                number("words"),
                number("findings")
            )
        }
        (None, _) => String::new(),
    };
    Row {
        step: key.to_string(),
        topic: kind.to_owned(),
        fine: step.error.is_none(),
        verdict,
        worker: "-".to_owned(),
        took: step
            .started_at
            .zip(step.completed_at)
            .map(|(begun, ended)| ended.since(begun)),
        result,
    }
}

/// What policy said, by which rule, and what people added.
fn verdict(record: &JobRecord, decisions: &[DecisionRecord]) -> String {
    // After an approval the job was judged again; what matters is that people were asked.
    let asked = decisions
        .iter()
        .find(|decision| decision.decision == Decision::RequireApproval);
    let Some(decision) = asked.or(record.decision.as_ref()) else {
        return "none".to_owned();
    };
    let rule = match decision.rule_id.as_str() {
        "" => "by default",
        rule => rule,
    };
    let people = match (&record.approval, record.state) {
        (Some(approval), JobState::Denied) => format!(", rejected by {}", approval.by),
        (Some(approval), _) => format!(", approved by {}", approval.by),
        (None, JobState::ApprovalRequired) => ", waits".to_owned(),
        (None, _) => String::new(),
    };
    format!("{} {rule}{people}", decision.decision)
}

fn reading_time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => format!("{} min", seconds.div_ceil(60)),
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topic: &str, fine: bool, result: &str) -> Row {
        Row {
            step: "digest[0]".to_owned(),
            topic: topic.to_owned(),
            fine,
            verdict: "ALLOW demo-digest".to_owned(),
            worker: "reader-1".to_owned(),
            took: Some(Duration::from_micros(1_250)),
            result: result.to_owned(),
        }
    }

    #[test]
    fn many_digests_are_cut_short_but_failures_are_not() {
        let mut rows: Vec<Row> = (0..40).map(|_| row(DIGEST, true, "fine")).collect();
        rows.push(row(DIGEST, false, "FAILED: cannot read"));
        let text = Summary {
            rows,
            ..Summary::default()
        }
        .render(Path::new("out"));
        assert_eq!(text.matches("fine").count(), SHOWN);
        assert!(
            text.contains("cannot read") && text.contains("and 25 more digests"),
            "{text}"
        );
        assert!(text.contains("1.2 ms") || text.contains("1.3 ms"), "{text}");
        assert!(text.contains("Nothing was published"), "{text}");
    }

    #[test]
    fn reading_times() {
        assert_eq!(reading_time(59), "59 s");
        assert_eq!(reading_time(61), "2 min");
    }
}
