//! `coretexctl job get`

use serde_json::Value;

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::facts;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --result | jq .
  coretexctl job get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq -r .state")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    id: String,
    /// Print only the result, as JSON
    #[arg(long)]
    result: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let job = context.api.get(&["jobs", &args.id], &[]).await?;
    if !args.result {
        return context.out.print(&job, || render(&job));
    }
    match Doc(&job).get("result").0 {
        Value::Null => Err(Failure::new(format!(
            "job {} has no JSON result (state {})",
            args.id,
            Doc(&job).text("state")
        ))
        .hint(format!("coretexctl job explain {}", args.id))),
        result => crate::output::line(&format!("{result:#}")),
    }
}

/// A job, for people.
pub(super) fn render(job: &Value) -> String {
    let doc = Doc(job);
    let error = match (doc.text("error_code"), doc.text("error_message")) {
        ("", text) => text.to_owned(),
        (code, text) => format!("{text} ({code})"),
    };
    let decision = match (doc.text("safety_decision"), doc.text("safety_rule_id")) {
        (decision, "") => decision.to_owned(),
        (decision, rule) => format!("{decision} by rule {rule}"),
    };
    let waits = crate::follow::waiting_for(job);
    let mut text = facts(&[
        ("job", doc.text("id").to_owned()),
        ("state", format!("{}{waits}", doc.text("state"))),
        ("error", error),
        ("topic", doc.text("topic").to_owned()),
        ("tenant", doc.text("tenant").to_owned()),
        ("decision", decision),
        ("reason", doc.text("safety_reason").to_owned()),
        ("worker", doc.text("worker_id").to_owned()),
        ("attempts", nonzero(doc.int("attempts"))),
        ("created", doc.time("created_at")),
        ("dispatched", doc.time("dispatched_at")),
        ("accepted", doc.time("accepted_at")),
        ("updated", doc.time("updated_at")),
        ("actor", doc.text("actor_id").to_owned()),
        ("capability", doc.text("capability").to_owned()),
        ("risk tags", doc.joined("risk_tags")),
        ("requires", doc.joined("requires")),
        ("pack", doc.text("pack_id").to_owned()),
        ("labels", doc.pairs("labels")),
        ("idempotency key", doc.text("idempotency_key").to_owned()),
        ("workflow", doc.text("workflow_id").to_owned()),
        ("run", doc.text("run_id").to_owned()),
        ("step", doc.text("step_id").to_owned()),
        ("trace", doc.text("trace_id").to_owned()),
        ("approved by", approver(doc)),
        ("result at", doc.text("result_ptr").to_owned()),
    ]);
    for (name, key) in [("input", "context"), ("result", "result")] {
        if !doc.get(key).0.is_null() {
            text.push_str("\n\n");
            text.push_str(name);
            text.push('\n');
            text.push_str(&excerpt(doc.get(key).0));
        }
    }
    text
}

/// Pretty JSON, but not endlessly: large payloads are for `--result` and `-o json`.
fn excerpt(value: &Value) -> String {
    const MOST_LINES: usize = 60;
    let pretty = format!("{value:#}");
    let mut lines: Vec<String> = pretty
        .lines()
        .take(MOST_LINES)
        .map(|line| format!("  {}", cut(line)))
        .collect();
    let more = pretty.lines().count().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.push(format!("  … {more} more lines; see them with -o json"));
    }
    lines.join("\n")
}

/// A line without its far end; leading blanks stay.
fn cut(line: &str) -> String {
    const MOST_CHARS: usize = 240;
    if line.chars().nth(MOST_CHARS).is_none() {
        return line.to_owned();
    }
    line.chars().take(MOST_CHARS).chain(['…']).collect()
}

fn approver(doc: Doc<'_>) -> String {
    match (doc.text("approval_by"), doc.text("approval_reason")) {
        (by, "") => by.to_owned(),
        (by, reason) => format!("{by}: {reason}"),
    }
}

fn nonzero(number: i64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}
