//! `coretexctl workflow list`, `get` and `versions`

use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, shorten};
use crate::failure::Failure;
use crate::output::{line, note, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow list
  coretexctl workflow list --org acme -o json | jq -r '.[].id'")]
pub(crate) struct ListArgs {
    /// Only of this organisation
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

pub(crate) async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.org.clone().map(|org| ("org_id", org)));
    let workflows = context.api.get(&["workflows"], &query).await?;
    if !context.out.is_json() && workflows.as_array().is_none_or(Vec::is_empty) {
        note("no workflows");
        return Ok(());
    }
    context.out.print(&workflows, || show(&workflows))
}

fn show(workflows: &Value) -> String {
    let mut table = table(&["workflow", "name", "version", "org", "steps", "saved"]);
    for workflow in Doc(workflows).items() {
        let steps = workflow.get("steps").0.as_object().map_or(0, serde_json::Map::len);
        table.add_row(vec![
            workflow.text("id").to_owned(),
            shorten(workflow.text("name"), 40),
            workflow.text("version").to_owned(),
            workflow.text("org_id").to_owned(),
            steps.to_string(),
            workflow.text("updated_at").to_owned(),
        ]);
    }
    render(&table)
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow get triage
  coretexctl workflow get triage --revision 4f1c… > before.json")]
pub(crate) struct GetArgs {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    id: String,
    /// As it was in this revision
    #[arg(long, value_name = "HASH")]
    revision: Option<String>,
}

pub(crate) async fn get(args: &GetArgs, context: &Context) -> Result<(), Failure> {
    let query: Vec<_> = args
        .revision
        .clone()
        .map(|hash| ("revision", hash))
        .into_iter()
        .collect();
    let workflow = context.api.get(&["workflows", &args.id], &query).await?;
    // A definition is a document, whoever reads it.
    line(&format!("{workflow:#}"))
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow versions triage
  coretexctl workflow versions triage -o json | jq -r '.items[0].hash'")]
pub(crate) struct VersionsArgs {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    id: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

pub(crate) async fn versions(args: &VersionsArgs, context: &Context) -> Result<(), Failure> {
    let query = [("limit", args.limit.to_string())];
    let versions = context.api.get(&["workflows", &args.id, "versions"], &query).await?;
    context.out.print(&versions, || {
        let mut table = table(&["revision", "saved", ""]);
        for version in Doc(&versions).get("items").items() {
            let current = version.get("current").0.as_bool() == Some(true);
            table.add_row(vec![
                version.text("hash").to_owned(),
                version.text("saved_at").to_owned(),
                if current { "current".to_owned() } else { String::new() },
            ]);
        }
        render(&table)
    })
}
