//! `coretexctl run start`

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};

use super::{input, watch};
use crate::api::Call;
use crate::commands::Context;
use crate::commands::job::parse_pair;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{line, note};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints the id of the run. With --wait or --watch the command ends with code 0 if the run succeeded, 6 if it ended otherwise,
7 if --wait-for was over first.

Examples:
  coretexctl run start triage --input '{\"ticket\": 7}' --watch
  coretexctl run start triage --input @ticket.json --label region=eu --wait -o json | jq .output
  jq -n '{ticket: 7}' | coretexctl run start triage --input -
  coretexctl run start nightly --idempotency-key 2026-01-31 --delay 10m
  coretexctl run start deploy --dry-run")]
pub(crate) struct Args {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// The input: a JSON object, a file with one, or `-` for standard input
    #[arg(long, value_name = "JSON|FILE|-")]
    input: Option<String>,
    /// Jobs are told to change nothing
    #[arg(long)]
    dry_run: bool,
    /// Start only once under this key: a repeat answers with the first run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Begin after this time
    #[arg(long, value_name = "DURATION", conflicts_with = "at", value_parser = crate::settings::parse_duration)]
    delay: Option<Duration>,
    /// Begin at this time, such as 2026-02-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// A label of the run; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// Whose run it is: the tenant of its jobs
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Whose run it is, for people
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Wait until it is over, and show it
    #[arg(long)]
    wait: bool,
    /// Wait at most this long; implies --wait
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    wait_for: Option<Duration>,
    /// Show what happens until it is over
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let body = match &args.input {
        Some(argument) => Value::Object(input::object(argument)?),
        None => Value::Object(Map::new()),
    };
    let path = ["workflows", args.workflow.as_str(), "runs"];
    let mut call = Call::new(Method::POST, &path);
    call.body = Some(&body);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_string();
    call.query = [
        ("dry_run", args.dry_run.then(|| "true".to_owned())),
        ("start_delay_ms", args.delay.map(millis)),
        ("start_at", args.at.clone()),
        ("org_id", args.org.clone()),
        ("team_id", args.team.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
    .chain(
        args.labels
            .iter()
            .map(|(name, value)| ("label", format!("{name}:{value}"))),
    )
    .collect();
    call.headers = args
        .idempotency_key
        .clone()
        .map(|key| ("idempotency-key", key))
        .into_iter()
        .collect();
    let answer = context.api.call(call).await?;
    let id = Doc(&answer.body).text("run_id").to_owned();
    if answer.header("idempotent-replayed") == "true" {
        note(&format!("{id} was started before with this key"));
    }
    if args.watch || args.wait || args.wait_for.is_some() {
        if !context.out.is_json() {
            line(&id)?;
        }
        let how = if args.watch {
            watch::Show::Live
        } else {
            watch::Show::End
        };
        return watch::follow(&id, args.wait_for, how, context).await;
    }
    if context.out.is_json() {
        return context.out.print(&answer.body, String::new);
    }
    line(&id)?;
    note(&format!("  next: coretexctl run watch {id}"));
    Ok(())
}
