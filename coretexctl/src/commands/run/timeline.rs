//! `coretexctl run timeline`

use std::io::IsTerminal as _;

use serde_json::Value;

use super::show;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::line;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lines for people on a terminal; elsewhere, and with -o json, the entries as JSON.

Examples:
  coretexctl run timeline 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl run timeline 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --newest --limit 20
  coretexctl run timeline 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 | jq -r '.[] | select(.step_id == \"deploy\") | .type'")]
pub(crate) struct Args {
    /// Which run
    #[arg(value_name = "RUN")]
    id: String,
    /// The newest entries, and those first
    #[arg(long)]
    newest: bool,
    /// Leave out so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u32,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut query = vec![("limit", args.limit.to_string()), ("skip", args.skip.to_string())];
    if args.newest {
        query.push(("order", "desc".to_owned()));
    }
    let entries: Value = context
        .api
        .get(&["workflow-runs", &args.id, "timeline"], &query)
        .await?;
    // Scripts have always had JSON here.
    if context.out.is_json() || !std::io::stdout().is_terminal() {
        return line(&format!("{entries:#}"));
    }
    let lines: Vec<String> = Doc(&entries).items().map(show::entry).collect();
    line(&lines.join("\n"))
}
