//! `coretexctl job explain`: why a job is where it is.

use serde_json::{Value, json};

use crate::commands::Context;
use crate::doc::{Doc, shorten};
use crate::failure::Failure;
use crate::output::facts;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job explain 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job explain 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq '.decisions[0]'")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    id: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let job = context.api.get(&["jobs", &args.id], &[]).await?;
    let decisions = context.api.get(&["jobs", &args.id, "decisions"], &[]).await?;
    let both = json!({"job": job, "decisions": decisions});
    context.out.print(&both, || render(&both["job"], &both["decisions"]))
}

fn render(job: &Value, decisions: &Value) -> String {
    let doc = Doc(job);
    let latest = Doc(decisions.get(0).unwrap_or(&Value::Null));
    let mut text = format!("job {} on {}\n\n", doc.text("id"), doc.text("topic"));
    text.push_str(&facts(&[
        ("state", doc.text("state").to_owned()),
        ("because", because(doc)),
        ("decision", decision(doc, latest)),
        ("reason", doc.text("safety_reason").to_owned()),
        ("matched", matched(latest)),
        ("policy", doc.text("safety_snapshot").to_owned()),
        ("decided", latest.time("checked_at")),
        ("limits", doc.compact("safety_constraints")),
        ("approval", approval(doc)),
        ("waits", waits(doc)),
        ("placed", placed(doc)),
        ("dispatched", doc.time("dispatched_at")),
        ("accepted", doc.time("accepted_at")),
        ("tries", doc.int("attempts").to_string()),
        ("error", error(doc)),
    ]));
    let earlier: Vec<String> = Doc(decisions)
        .items()
        .skip(1)
        .map(|decision| {
            format!(
                "  {}  {}  {}  {}",
                decision.time("checked_at"),
                decision.text("decision"),
                decision.text("rule_id"),
                shorten(decision.text("reason"), 100)
            )
        })
        .collect();
    if !earlier.is_empty() {
        text.push_str("\n\nearlier decisions, newest first\n");
        text.push_str(&earlier.join("\n"));
    }
    if let Some(next) = next(doc) {
        text.push_str("\n\nnext: ");
        text.push_str(&next);
    }
    text
}

/// The state in words.
fn because(doc: Doc<'_>) -> String {
    match doc.text("state") {
        "PENDING" if doc.text("pending_reason").is_empty() => "it waits for a decision or for a worker",
        "PENDING" => "it waits, see below",
        "APPROVAL_REQUIRED" => "policy wants people to decide",
        "SCHEDULED" | "DISPATCHED" => "it is on its way to a worker",
        "RUNNING" => "a worker has it",
        "SUCCEEDED" => "its worker finished it",
        "FAILED" => "it failed, see below",
        "CANCELLED" => "somebody stopped it",
        "TIMEOUT" => "it took too long, or its worker was lost",
        "DENIED" if !doc.time("approval_at").is_empty() => "people said no",
        "DENIED" => "policy said no",
        _ => "",
    }
    .to_owned()
}

fn decision(doc: Doc<'_>, latest: Doc<'_>) -> String {
    let word = [doc.text("safety_decision"), latest.text("decision")]
        .into_iter()
        .find(|word| !word.is_empty())
        .unwrap_or("none yet");
    let rule = [doc.text("safety_rule_id"), latest.text("rule_id")]
        .into_iter()
        .find(|rule| !rule.is_empty());
    match rule {
        Some(rule) => format!("{word} by rule {rule}"),
        None if word == "none yet" => word.to_owned(),
        None => format!("{word} by default: no rule matched"),
    }
}

fn matched(decision: Doc<'_>) -> String {
    decision
        .get("matched")
        .items()
        .filter_map(|item| item.0.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn approval(doc: Doc<'_>) -> String {
    // Whoever decided may not have said who they are; that they decided is on record all the same.
    if doc.time("approval_at").is_empty() {
        return String::new();
    }
    let by = Some(doc.text("approval_by")).filter(|by| !by.is_empty());
    let mut text = format!("by {}", by.unwrap_or("somebody unnamed"));
    for (before, part) in [
        (" as ", doc.text("approval_role").to_owned()),
        (" at ", doc.time("approval_at")),
        (": ", doc.text("approval_reason").to_owned()),
    ] {
        if !part.is_empty() {
            text.push_str(before);
            text.push_str(&part);
        }
    }
    text
}

fn waits(doc: Doc<'_>) -> String {
    match (doc.text("pending_reason"), doc.text("pending_detail")) {
        (reason, "") => reason.to_owned(),
        ("", detail) => detail.to_owned(),
        (reason, detail) => format!("{reason}: {detail}"),
    }
}

fn placed(doc: Doc<'_>) -> String {
    match (doc.text("worker_id"), doc.text("placement")) {
        (worker, "") => worker.to_owned(),
        ("", why) => why.to_owned(),
        (worker, why) => format!("{worker}: {why}"),
    }
}

fn error(doc: Doc<'_>) -> String {
    match (doc.text("error_code"), doc.text("error_message")) {
        (code, "") => code.to_owned(),
        ("", text) => text.to_owned(),
        (code, text) => format!("{text} ({code})"),
    }
}

/// What to do about it.
fn next(doc: Doc<'_>) -> Option<String> {
    let id = doc.text("id");
    match doc.text("state") {
        "APPROVAL_REQUIRED" => Some(format!("coretexctl approval approve {id}   (or: reject)")),
        "PENDING" => Some("coretexctl worker list".to_owned()),
        "SUCCEEDED" => Some(format!("coretexctl job get {id} --result")),
        "SCHEDULED" | "DISPATCHED" | "RUNNING" => Some(format!("coretexctl job watch {id}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(job: &Value, decisions: &Value, parts: &[&str]) {
        let text = render(job, decisions);
        for part in parts {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }

    #[test]
    fn a_denied_job_names_its_rule_and_what_matched() {
        check(
            &json!({"id": "j", "topic": "job.x", "state": "DENIED", "safety_decision": "DENY",
                    "safety_rule_id": "no-x", "safety_reason": "never x"}),
            &json!([
                {"decision": "DENY", "rule_id": "no-x", "checked_at": 1_000_000,
                 "matched": ["topics: job.* matches job.x", "tenants: default"]},
                {"decision": "THROTTLE", "rule_id": "slow", "checked_at": 500_000}
            ]),
            &[
                "policy said no",
                "DENY by rule no-x",
                "never x",
                "topics: job.* matches job.x",
                "tenants: default",
                "earlier decisions",
                "THROTTLE",
            ],
        );
    }

    #[test]
    fn a_waiting_job_says_for_what() {
        check(
            &json!({"id": "j", "topic": "job.x", "state": "PENDING", "pending_reason": "no_workers",
                    "pending_detail": "no live worker in pool gpu", "safety_decision": "ALLOW"}),
            &json!([]),
            &[
                "no_workers: no live worker in pool gpu",
                "ALLOW by default: no rule matched",
                "coretexctl worker list",
            ],
        );
    }

    #[test]
    fn an_older_server_that_tells_less_is_fine() {
        check(
            &json!({"id": "j", "state": "APPROVAL_REQUIRED"}),
            &Value::Null,
            &["none yet", "coretexctl approval approve j"],
        );
    }
}
