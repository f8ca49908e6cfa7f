//! `coretexctl job cancel`

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::{Failure, Kind};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job cancel 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job list --state PENDING -o json | jq -r '.items[].id' | xargs -n1 coretexctl job cancel")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    id: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let answer = context.api.post(&["jobs", &args.id, "cancel"], None).await?;
    let state = Doc(&answer).text("state").to_owned();
    if state == "CANCELLED" {
        return context.out.print(&answer, || format!("cancelled {}", args.id));
    }
    if context.out.is_json() {
        context.out.print(&answer, String::new)?;
    }
    Err(
        Failure::of(Kind::Refused, format!("job {} is over already: {state}", args.id))
            .hint(format!("coretexctl job get {}", args.id)),
    )
}
