//! `coretexctl policy rules` and `snapshots`

use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, shorten};
use crate::failure::Failure;
use crate::output::{note, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy rules
  coretexctl policy rules --all -o json | jq '.items[].source.fragment_id'")]
pub(crate) struct RulesArgs {
    /// Also those of disabled bundles
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy snapshots
  coretexctl policy snapshots -o json | jq -r '.snapshots[0]'")]
pub(crate) struct SnapshotsArgs {}

pub(crate) async fn rules(args: &RulesArgs, context: &Context) -> Result<(), Failure> {
    let query = [("include_disabled", args.all.to_string())];
    let rules = context.api.get(&["policy", "rules"], &query).await?;
    for error in Doc(&rules).get("errors").items() {
        note(&format!("{}: {}", error.text("fragment_id"), error.text("error")));
    }
    context.out.print(&rules, || show(&rules))
}

fn show(rules: &Value) -> String {
    let mut table = table(&["rule", "decision", "bundle", "topics", "why"]);
    for rule in Doc(rules).get("items").items() {
        table.add_row(vec![
            rule.text("id").to_owned(),
            rule.text("decision").to_owned(),
            rule.get("source").text("fragment_id").to_owned(),
            rule.get("match").joined("topics"),
            shorten(rule.text("reason"), 60),
        ]);
    }
    render(&table)
}

pub(crate) async fn snapshots(_: &SnapshotsArgs, context: &Context) -> Result<(), Failure> {
    let snapshots = context.api.get(&["policy", "snapshots"], &[]).await?;
    context.out.print(&snapshots, || {
        Doc(&snapshots)
            .get("snapshots")
            .items()
            .enumerate()
            .map(|(age, id)| {
                let mark = if age == 0 { "  (active)" } else { "" };
                format!("{}{mark}", id.0.as_str().unwrap_or_default())
            })
            .collect::<Vec<_>>()
            .join("\n")
    })
}
