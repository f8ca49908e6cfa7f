//! `coretexctl policy publish` and `rollback`

use serde_json::json;

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy publish --message 'change freeze' --as-role secops
  coretexctl policy publish secops/freeze secops/base --as-role secops")]
pub(crate) struct PublishArgs {
    /// Which bundles; without any, all of secops
    #[arg(value_name = "BUNDLE")]
    bundles: Vec<String>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Kept with the captured bundles
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Bundles of packs stay as they are unless --all is given.

Examples:
  coretexctl policy bundle captures
  coretexctl policy rollback 2026-01-02T03:04:05Z-0123456789 --message 'too strict' --as-role secops")]
pub(crate) struct RollbackArgs {
    /// Which capture
    #[arg(value_name = "CAPTURE")]
    snapshot: String,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Also bundles that are not of secops
    #[arg(long)]
    all: bool,
}

pub(crate) async fn publish(args: PublishArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({
        "bundle_ids": args.bundles,
        "message": args.message.unwrap_or_default(),
        "note": args.note.unwrap_or_default(),
    });
    let answer = context.api.post(&["policy", "publish"], Some(&body)).await?;
    context.out.print(&answer, || {
        let doc = Doc(&answer);
        format!(
            "published {}\n  back: coretexctl policy rollback {}",
            doc.joined("published"),
            doc.text("snapshot_before")
        )
    })
}

pub(crate) async fn rollback(args: RollbackArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({
        "snapshot_id": args.snapshot,
        "message": args.message.unwrap_or_default(),
        "all": args.all,
    });
    let answer = context.api.post(&["policy", "rollback"], Some(&body)).await?;
    context.out.print(&answer, || {
        let doc = Doc(&answer);
        format!(
            "rolled back to {}\n  back: coretexctl policy rollback {}",
            doc.text("rollback_to"),
            doc.text("snapshot_before")
        )
    })
}
