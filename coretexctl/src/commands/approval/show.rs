//! `coretexctl approval show`

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, stamp};
use crate::failure::Failure;
use crate::output::{facts, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl approval show 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl approval show 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq .votes")]
pub(crate) struct Args {
    /// Which job, or which step as RUN:STEP
    #[arg(value_name = "JOB")]
    id: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let case = context.api.get(&["approvals", &args.id], &[]).await?;
    context.out.print(&case, || show(&case, Timestamp::now()))
}

fn show(case: &Value, now: Timestamp) -> String {
    let doc = Doc(case);
    let (job, request) = (doc.get("job"), doc.get("request"));
    let mut text = facts(&[
        ("job", job.text("id").to_owned()),
        ("state", job.text("state").to_owned()),
        ("asked", doc.text("prompt").to_owned()),
        ("form", doc.compact("schema")),
        ("approvals", super::progress(doc)),
        ("by", doc.joined("roles")),
        ("until", until(doc, now)),
        ("rule", doc.text("policy_rule_id").to_owned()),
        ("why", doc.text("policy_reason").to_owned()),
        ("matched", matched(doc)),
        ("policy", policy(doc)),
        ("limits", doc.compact("constraints")),
        ("topic", request.text("topic").to_owned()),
        ("tenant", job.text("tenant").to_owned()),
        ("principal", job.text("principal").to_owned()),
        ("actor", job.text("actor_id").to_owned()),
        ("capability", request.text("capability").to_owned()),
        ("risk tags", request.joined("risk_tags")),
        ("labels", request.pairs("labels")),
        ("input at", request.text("context_ptr").to_owned()),
        ("job hash", doc.text("job_hash").to_owned()),
    ]);
    let mut votes = table(&["when", "who", "role", "reason", "note"]);
    for vote in doc.get("votes").items() {
        votes.add_row(vec![
            vote.time("at"),
            vote.text("by").to_owned(),
            vote.text("role").to_owned(),
            vote.text("reason").to_owned(),
            vote.text("note").to_owned(),
        ]);
    }
    if !votes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&render(&votes));
    }
    for way in doc.get("remediations").items() {
        let (id, title) = (way.text("id"), way.text("title"));
        let lines = [
            format!("\n\ninstead: {title}"),
            way.text("summary").to_owned(),
            format!("coretexctl job remediate {} --remediation {id}", job.text("id")),
        ];
        text.push_str(&lines.join("\n  "));
    }
    text
}

fn until(doc: Doc<'_>, now: Timestamp) -> String {
    let end = doc.int("expires_at");
    let then = match doc.text("on_expiry") {
        "allow" => "runs then",
        "approve" => "counts as approved then",
        "reject" => "counts as rejected then",
        "fail" => "fails then",
        _ => "is denied then",
    };
    match end {
        0 => String::new(),
        end if end <= now.as_microsecond() => format!("{} (over)", stamp(end)),
        end => format!("{} ({then})", stamp(end)),
    }
}

fn policy(doc: Doc<'_>) -> String {
    let snapshot = doc.text("policy_snapshot");
    if doc.get("stale").0.as_bool() == Some(true) {
        format!("{snapshot} (not in force any more: approving has the job judged again)")
    } else {
        snapshot.to_owned()
    }
}

fn matched(doc: Doc<'_>) -> String {
    doc.get("matched")
        .items()
        .filter_map(|item| item.0.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}
