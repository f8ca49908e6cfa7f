//! `coretexctl config effective`

use super::pretty;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl config effective
  coretexctl config effective --org acme --team red
  coretexctl config effective --org acme --workflow nightly -o json | jq .data.limits")]
pub(crate) struct Args {
    /// For which tenant
    #[arg(long, value_name = "ID")]
    org: Option<String>,
    /// For which team
    #[arg(long, value_name = "ID")]
    team: Option<String>,
    /// For which workflow
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,
    /// For which step
    #[arg(long, value_name = "ID")]
    step: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let query: Vec<(&str, String)> = [
        ("org_id", args.org),
        ("team_id", args.team),
        ("workflow_id", args.workflow),
        ("step_id", args.step),
    ]
    .into_iter()
    .filter_map(|(name, id)| id.map(|id| (name, id)))
    .collect();
    let snapshot = context.api.get(&["config", "effective"], &query).await?;
    context.out.print(&snapshot, || {
        let doc = Doc(&snapshot);
        format!(
            "{}\n{}\n{}",
            doc.text("version"),
            doc.text("hash"),
            pretty(doc.get("data").0)
        )
    })
}
