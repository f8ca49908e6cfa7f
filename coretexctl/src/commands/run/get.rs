//! `coretexctl run get`

use jiff::Timestamp;
use serde_json::Value;

use super::show;
use crate::commands::Context;
use crate::commands::workflow::graph::fetch;
use crate::commands::workflow::graph::layout::Layout;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::line;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl run get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl run get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --result | jq .
  coretexctl run get 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq '.steps | keys'")]
pub(crate) struct Args {
    /// Which run
    #[arg(value_name = "RUN")]
    id: String,
    /// Print only the output, as JSON
    #[arg(long)]
    result: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let run = context.api.get(&["workflow-runs", &args.id], &[]).await?;
    if !args.result {
        let layout = layout(&run, context).await;
        return context
            .out
            .print(&run, || show::whole(&run, layout.as_ref(), Timestamp::now()));
    }
    match Doc(&run).get("output").0 {
        Value::Null => Err(Failure::new(format!(
            "run {} has no output (status {})",
            args.id,
            Doc(&run).text("status")
        ))
        .hint(format!("coretexctl run get {}", args.id))),
        output => line(&format!("{output:#}")),
    }
}

/// Where the steps of a run stand; `None` if its definition cannot be had, and they are shown as a list.
pub(super) async fn layout(run: &Value, context: &Context) -> Option<Layout> {
    let doc = Doc(run);
    let revision = Some(doc.text("workflow_revision")).filter(|hash| !hash.is_empty());
    let workflow = fetch(context, doc.text("workflow_id"), revision).await.ok()?;
    Some(Layout::of(&workflow))
}
