//! `coretexctl job watch`

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, stamp};
use crate::failure::Failure;
use crate::follow;
use crate::output::line;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --for 5m && echo done
  coretexctl job watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq -r .state

Prints a line for each change that it sees; short states may pass unseen. With -o json each line is the job as one JSON
document. Ends with code 0 if the job SUCCEEDED, 6 if it ended otherwise, 7 if --for was over first.")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    id: String,
    /// Give up after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    limit: Option<Duration>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let mut last = String::new();
    let job = follow::until_over(&context.api, &args.id, args.limit, |job| {
        let now = describe(job);
        if now == last {
            return Ok(());
        }
        if context.out.is_json() {
            line(&job.to_string())?;
        } else {
            line(&format!("{}  {now}", moment(job)))?;
        }
        last = now;
        Ok(())
    })
    .await?;
    follow::verdict(&job)
}

/// When the job came to be as it is, or now if the server does not say.
fn moment(job: &Value) -> String {
    match Doc(job).int("updated_at") {
        0 => stamp(Timestamp::now().as_microsecond()),
        micros => stamp(micros),
    }
}

/// What changes in the life of a job.
fn describe(job: &Value) -> String {
    let doc = Doc(job);
    let mut text = format!("{}{}", doc.text("state"), follow::waiting_for(job));
    for (name, value) in [
        ("worker", doc.text("worker_id").to_owned()),
        (
            "attempt",
            if doc.int("attempts") > 1 {
                doc.int("attempts").to_string()
            } else {
                String::new()
            },
        ),
        ("accepted", doc.time("accepted_at")),
        ("error", doc.text("error_message").to_owned()),
    ] {
        if !value.is_empty() {
            text.push_str("  ");
            text.push_str(name);
            text.push(' ');
            text.push_str(&value);
        }
    }
    text
}
