//! `coretexctl policy diff`

use std::path::PathBuf;

use coretex_core::jobs::Decision;
use coretex_core::policy::cases::judge;
use coretex_core::policy::{CompiledPolicy, PolicyDiff, RuleRef, diff};
use coretex_core::protocol::agent::PolicyCheckRequest;
use coretex_core::protocol::json::{Unknown, from_json_value};
use coretex_core::time::Clock;
use serde::Serialize;
use serde_json::{Value, json};

use super::files::{self, Fragment};
use super::lint;
use crate::commands::Context;
use crate::doc::{Doc, scalar};
use crate::failure::Failure;
use crate::output::note;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The last decisions that the server keeps are judged again by both files, each exactly as it was asked; every one that
would be decided otherwise is listed.

Examples:
  coretexctl policy diff config/safety.yaml new.yaml
  coretexctl policy diff config/safety.yaml new.yaml --last 10000 --fail-on-change
  coretexctl policy diff old.yaml new.yaml --decisions decisions.json
  coretexctl policy diff old.yaml new.yaml --offline -o json | jq .rules.removed")]
pub(crate) struct Args {
    /// The policy as it is
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The policy as it would be
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// A fragment that is judged with both; repeat for several
    #[arg(long = "fragment", value_name = "ID=FILE", value_parser = files::fragment)]
    fragments: Vec<Fragment>,
    /// How many of the last decisions are judged again
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    last: u32,
    /// Judge the decisions of this file again, as `coretexctl decision list -o json` prints them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["last", "offline"])]
    decisions: Option<PathBuf>,
    /// Only compare the files
    #[arg(long, conflicts_with = "last")]
    offline: bool,
    /// Exit with 1 if a decision would be another
    #[arg(long)]
    fail_on_change: bool,
}

/// A decision that would be another.
#[derive(Debug, Clone, Serialize)]
struct Changed {
    job_id: String,
    topic: String,
    tenant: String,
    old: &'static str,
    old_rule: String,
    new: &'static str,
    new_rule: String,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let old = files::parts(Some(&args.old), &args.fragments)?;
    let new = files::parts(Some(&args.new), &args.fragments)?;
    let rules = diff(&old, &new);
    let (old, new) = (files::compile(old), files::compile(new));
    let items = if args.offline {
        Vec::new()
    } else if let Some(file) = &args.decisions {
        let document: Value = serde_json::from_str(&files::text(file)?)
            .map_err(|error| Failure::new(format!("{} is no JSON", file.display())).because(&error))?;
        let items = if document.is_array() {
            &document
        } else {
            &document["items"]
        };
        items.as_array().cloned().ok_or_else(|| {
            Failure::new(format!("{} holds no list of decisions", file.display()))
                .hint("coretexctl decision list --limit 1000 -o json > decisions.json")
        })?
    } else {
        last(args.last as usize, context).await?
    };
    let (changed, judged, skipped) = judge_again(&items, &old, &new);
    let document = json!({
        "rules": rules,
        "decisions": { "judged": judged, "skipped": skipped, "changed": changed },
    });
    context
        .out
        .print(&document, || show(&rules, &changed, judged, args.offline))?;
    if skipped > 0 {
        note(&format!(
            "{skipped} decisions do not say what was asked, and were not judged again"
        ));
    }
    if args.fail_on_change && !changed.is_empty() {
        return Err(Failure::new(format!("{} decisions would be others", changed.len())));
    }
    Ok(())
}

/// The last decisions that the server keeps, newest first.
async fn last(wanted: usize, context: &Context) -> Result<Vec<Value>, Failure> {
    const PAGE: usize = 500;
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    while items.len() < wanted {
        let mut query = vec![("limit", PAGE.min(wanted - items.len()).to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = context
            .api
            .get(&["decisions"], &query)
            .await
            .map_err(|failure| match failure.kind() {
                crate::failure::Kind::Unreachable => failure.hint("compare only the files with --offline"),
                _ => failure,
            })?;
        if let Value::Array(more) = page["items"].take() {
            items.extend(more);
        }
        match &page["next_cursor"] {
            Value::Null => break,
            next => cursor = Some(scalar(next)),
        }
        if !context.out.is_json() && items.len() >= PAGE {
            note(&format!("read {} decisions", items.len()));
        }
    }
    Ok(items)
}

fn judge_again(items: &[Value], old: &CompiledPolicy, new: &CompiledPolicy) -> (Vec<Changed>, usize, usize) {
    let now = Clock::system().now();
    let mut changed = Vec::new();
    let mut judged = 0;
    for item in items {
        let Ok(request) = from_json_value::<PolicyCheckRequest>(&item["input"], Unknown::Ignore) else {
            continue;
        };
        if request.topic.is_empty() {
            continue;
        }
        judged += 1;
        let (was, _) = judge(&request, old, now);
        let (is, _) = judge(&request, new, now);
        if was.decision != is.decision {
            changed.push(Changed {
                job_id: Doc(item).text("job_id").to_owned(),
                topic: request.topic,
                tenant: request.tenant,
                old: was.decision.as_str(),
                old_rule: was.rule_id,
                new: is.decision.as_str(),
                new_rule: is.rule_id,
            });
        }
    }
    // What hurts comes first: what would be forbidden, then what would be let through.
    changed.sort_by_key(|changed| {
        (
            changed.new != Decision::Deny.as_str(),
            changed.old != Decision::Deny.as_str(),
        )
    });
    let skipped = items.len() - judged;
    (changed, judged, skipped)
}

fn show(rules: &PolicyDiff, changed: &[Changed], judged: usize, offline: bool) -> String {
    let name = |rule: &RuleRef| match rule.id.as_str() {
        "" => format!("number {} in {}", rule.number, rule.origin),
        id => format!("`{id}` in {}", rule.origin),
    };
    let mut lines = Vec::new();
    lines.extend(rules.added.iter().map(|rule| format!("+ rule {}", name(rule))));
    lines.extend(rules.removed.iter().map(|rule| format!("- rule {}", name(rule))));
    lines.extend(
        rules
            .changed
            .iter()
            .map(|change| format!("~ rule {}: {}", name(&change.rule), change.keys.join(", "))),
    );
    lines.extend(
        rules
            .moved
            .iter()
            .map(|rule| format!("~ rule {} has moved", name(rule))),
    );
    if let Some((was, is)) = &rules.default_decision {
        lines.push(format!("~ default_decision: {was} -> {is}"));
    }
    lines.extend(rules.tenants.iter().map(|tenant| format!("~ tenant `{tenant}`")));
    lines.extend(rules.covered.iter().map(lint::line));
    if rules.is_empty() {
        lines.push("the files say the same".to_owned());
    }
    for changed in changed {
        lines.push(format!(
            "{} -> {}: job {} ({}, tenant {}): rule `{}` -> `{}`",
            changed.old, changed.new, changed.job_id, changed.topic, changed.tenant, changed.old_rule, changed.new_rule
        ));
    }
    if !offline {
        lines.push(format!(
            "{judged} decisions judged again, {} would be others",
            changed.len()
        ));
    }
    lines.join("\n")
}
