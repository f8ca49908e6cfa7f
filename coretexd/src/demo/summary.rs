//! What became of the jobs: a table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use coretex_core::jobs::service::JobService;
use coretex_core::jobs::{Decision, DecisionRecord, JobRecord, JobState};
use coretex_core::platform::Platform;
use coretex_core::pointers::Pointer;
use coretex_core::protocol::JobId;

use super::digest::Digest;
use super::workers::Receipt;
use super::{DIGEST, PUBLISH};

/// How many digests are shown one by one.
const SHOWN: usize = 15;
/// How many decisions of one job are looked at.
const DECISIONS: usize = 10;

/// One job at its end.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    topic: String,
    state: JobState,
    verdict: String,
    worker: String,
    took: Option<Duration>,
    result: String,
}

/// All jobs at their end.
#[derive(Debug, Default)]
pub(super) struct Summary {
    rows: Vec<Row>,
    findings: Vec<String>,
    published: Option<String>,
}

impl Summary {
    /// Collects what the stores know of these jobs.
    pub(super) async fn gather(jobs: &JobService, platform: &Platform, ids: &[JobId]) -> anyhow::Result<Self> {
        let mut summary = Self::default();
        for id in ids {
            let Some(record) = jobs.record(id).await? else { continue };
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
            let result = summary.result(&record, result.as_deref());
            summary.rows.push(Row {
                id: id.to_string(),
                topic: record.topic.clone(),
                state: record.state,
                verdict: verdict(&record, &decisions),
                worker: record
                    .worker_id
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                took,
                result,
            });
        }
        Ok(summary)
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
            .set_header(["JOB", "TOPIC", "VERDICT AND RULE", "WORKER", "TIME", "RESULT"]);
        let digests = self.rows.iter().filter(|row| row.topic == DIGEST).count();
        let mut left = SHOWN;
        for row in &self.rows {
            // Digests that went well are many and alike; whatever went otherwise is always shown.
            if row.topic == DIGEST && row.state == JobState::Succeeded {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            table.add_row([
                row.id.clone(),
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
            .filter(|row| row.topic == DIGEST && row.state == JobState::Succeeded)
            .count()
            .saturating_sub(SHOWN)
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

    fn row(topic: &str, state: JobState, result: &str) -> Row {
        Row {
            id: "id".to_owned(),
            topic: topic.to_owned(),
            state,
            verdict: "ALLOW demo-digest".to_owned(),
            worker: "reader-1".to_owned(),
            took: Some(Duration::from_micros(1_250)),
            result: result.to_owned(),
        }
    }

    #[test]
    fn many_digests_are_cut_short_but_failures_are_not() {
        let mut rows: Vec<Row> = (0..40).map(|_| row(DIGEST, JobState::Succeeded, "fine")).collect();
        rows.push(row(DIGEST, JobState::Failed, "FAILED: cannot read"));
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
