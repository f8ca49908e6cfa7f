//! `coretexctl run list`

use jiff::Timestamp;
use serde_json::Value;

use super::show;
use crate::commands::Context;
use crate::doc::{Doc, shorten};
use crate::failure::Failure;
use crate::output::{note, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl run list
  coretexctl run list --workflow triage --status failed --since 1h
  coretexctl run list --limit 200 --full -o json | jq '.items[].output'")]
pub(crate) struct Args {
    /// Only runs of this workflow
    #[arg(long, value_name = "WORKFLOW")]
    workflow: Option<String>,
    #[arg(
        long,
        value_name = "STATUS",
        help = "Only runs in this status: pending, running, waiting, succeeded, failed, cancelled, timed_out"
    )]
    status: Option<String>,
    /// Only runs of this organisation
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Only runs of this team
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Only runs that changed within this time
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    since: Option<std::time::Duration>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Where the list goes on: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Whole runs, with inputs, outputs and steps
    #[arg(long)]
    full: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let since = args.since.map(|since| {
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Timestamp::now()
            .as_microsecond()
            .saturating_sub(micros)
            .max(1)
            .to_string()
    });
    let filters = [
        ("workflow_id", args.workflow.clone()),
        ("status", args.status.clone().map(|status| status.to_lowercase())),
        ("org_id", args.org.clone()),
        ("team_id", args.team.clone()),
        ("updated_after", since),
        ("cursor", args.cursor.clone()),
        ("fields", (!args.full).then(|| "summary".to_owned())),
    ];
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(
        filters
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value))),
    );
    let page = context.api.get(&["workflow-runs"], &query).await?;
    if context.out.is_json() {
        return context.out.print(&page, String::new);
    }
    if Doc(&page).get("items").items().next().is_none() {
        note("no runs");
        return Ok(());
    }
    context.out.print(&page, || table_of(&page))?;
    if !page["next_cursor"].is_null() {
        note(&format!(
            "there are more: --cursor {}",
            crate::doc::scalar(&page["next_cursor"])
        ));
    }
    Ok(())
}

fn table_of(page: &Value) -> String {
    let mut table = table(&["run", "workflow", "status", "org", "started", "took", "error"]);
    for run in Doc(page).get("items").items() {
        table.add_row(vec![
            run.text("id").into(),
            run.text("workflow_id").into(),
            show::status_cell(run.text("status")),
            run.text("org_id").into(),
            run.text("started_at").into(),
            show::took(run, Timestamp::now()).into(),
            shorten(run.get("error").text("message"), 60).into(),
        ]);
    }
    render(&table)
}
