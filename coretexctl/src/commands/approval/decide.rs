//! `coretexctl approval approve` and `reject`

use serde_json::{Map, Value};

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which job, or which step as RUN:STEP
    #[arg(value_name = "JOB")]
    id: String,
    /// Why; kept with the job
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Anything else worth keeping
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(crate) async fn run(args: Args, verb: &str, context: &Context) -> Result<(), Failure> {
    let body: Map<String, Value> = [("reason", args.reason), ("note", args.note)]
        .into_iter()
        .filter_map(|(name, text)| text.map(|text| (name.to_owned(), text.into())))
        .collect();
    let body = Value::Object(body);
    let answer = context
        .api
        .post(&["approvals", &args.id, verb], Some(&body))
        .await
        .map_err(|failure| match failure.kind() {
            crate::failure::Kind::Refused => failure.hint(format!("coretexctl job explain {}", args.id)),
            _ => failure,
        })?;
    let doc = Doc(&answer);
    // A step is followed by its run.
    let next = match args.id.rsplit_once(':') {
        Some((run, step)) if !step.contains('@') => format!("run watch {run}"),
        _ => format!("job watch {}", args.id),
    };
    context.out.print(&answer, || match (verb, doc.text("state")) {
        ("approve", "APPROVAL_REQUIRED" | "WAITING") => format!(
            "counted for {}: {} approvals\n  next: coretexctl approval show {}",
            args.id,
            super::progress(doc),
            args.id
        ),
        ("approve", _) => format!("approved {}\n  next: coretexctl {next}", args.id),
        _ => format!("rejected {}\n  next: coretexctl {next}", args.id),
    })
}
