//! `coretexctl run rerun`

use serde_json::json;

use super::watch;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{line, note};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints the id of the new run. It has the input and the definition of the first one; with --latest, the definition as it is
now. With --from-step, steps that succeeded and do not come after that step are not done again.

Examples:
  coretexctl run rerun 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl run rerun 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --from-step deploy --watch")]
pub(crate) struct Args {
    /// Which run
    #[arg(value_name = "RUN")]
    id: String,
    /// Only from this step on
    #[arg(long, value_name = "STEP")]
    from_step: Option<String>,
    /// Jobs are told to change nothing
    #[arg(long)]
    dry_run: bool,
    /// By the definition as it is now
    #[arg(long)]
    latest: bool,
    /// Show what happens until it is over
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let body = json!({
        "from_step": args.from_step.as_deref().unwrap_or_default(),
        "dry_run": args.dry_run,
        "latest": args.latest,
    });
    let answer = context
        .api
        .post(&["workflow-runs", &args.id, "rerun"], Some(&body))
        .await?;
    let id = Doc(&answer).text("run_id").to_owned();
    if args.watch {
        if !context.out.is_json() {
            line(&id)?;
        }
        return watch::follow(&id, None, watch::Show::Live, context).await;
    }
    if context.out.is_json() {
        return context.out.print(&answer, String::new);
    }
    line(&id)?;
    note(&format!("  next: coretexctl run watch {id}"));
    Ok(())
}
