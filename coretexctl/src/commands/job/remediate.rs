//! `coretexctl job remediate`

use serde_json::json;

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl approval show 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job remediate 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --remediation read-only")]
pub(crate) struct Args {
    /// Which job: one that was denied, or that waits for people
    #[arg(value_name = "JOB")]
    id: String,
    /// Which of the ways that policy offers; not needed if there is one
    #[arg(long, value_name = "ID")]
    remediation: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let body = json!({"remediation_id": args.remediation.unwrap_or_default()});
    let answer = context.api.post(&["jobs", &args.id, "remediate"], Some(&body)).await?;
    let doc = Doc(&answer);
    let id = doc.text("job_id");
    context.out.print(&answer, || {
        format!(
            "submitted {id} in place of {} ({})\n  next: coretexctl job watch {id}",
            args.id,
            doc.text("remediation_id")
        )
    })
}
