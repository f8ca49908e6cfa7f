//! `coretexctl job list`

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, age};
use crate::failure::Failure;
use crate::output::{note, render, table, verdict};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job list
  coretexctl job list --state FAILED --topic job.default --since 1h
  coretexctl job list --limit 1000 -o json | jq -r '.items[].id'")]
pub(crate) struct Args {
    #[arg(
        long,
        value_name = "STATE",
        help = "Only jobs in this state, such as PENDING, APPROVAL_REQUIRED, RUNNING, SUCCEEDED, FAILED, DENIED"
    )]
    state: Option<String>,
    /// Only jobs of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only jobs of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only jobs of this team
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Only jobs of this trace
    #[arg(long, value_name = "TRACE")]
    trace: Option<String>,
    /// Only jobs that changed within this time
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    since: Option<std::time::Duration>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Where the list goes on: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let now = Timestamp::now();
    let since = args.since.map(|since| {
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        now.as_microsecond().saturating_sub(micros).max(1).to_string()
    });
    let filters = [
        ("state", args.state.map(|state| state.to_uppercase())),
        ("topic", args.topic),
        ("tenant", args.tenant),
        ("team", args.team),
        ("trace_id", args.trace),
        ("updated_after", since),
        ("cursor", args.cursor),
    ];
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(
        filters
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value))),
    );
    let page = context.api.get(&["jobs"], &query).await?;
    if !context.out.is_json() {
        if Doc(&page).get("items").items().next().is_none() {
            note("no jobs");
            return Ok(());
        }
        context.out.print(&page, || show(&page, now))?;
        if !page["next_cursor"].is_null() {
            let cursor = crate::doc::scalar(&page["next_cursor"]);
            note(&format!("there are more: --cursor {cursor}"));
        }
        return Ok(());
    }
    context.out.print(&page, String::new)
}

fn show(page: &Value, now: Timestamp) -> String {
    let mut table = table(&[
        "job", "state", "topic", "tenant", "decision", "rule", "tries", "changed",
    ]);
    for job in Doc(page).get("items").items() {
        table.add_row(vec![
            job.text("id").into(),
            verdict(job.text("state")),
            job.text("topic").into(),
            job.text("tenant").into(),
            verdict(job.text("safety_decision")),
            job.text("safety_rule_id").into(),
            job.int("attempts").into(),
            age(job.int("updated_at"), now).into(),
        ]);
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_per_job() {
        let page = json!({"items": [
            {"id": "j1", "state": "DENIED", "topic": "job.a", "safety_decision": "DENY", "safety_rule_id": "no-a",
             "updated_at": 1_000_000},
            {"id": "j2", "state": "PENDING", "attempts": 2}
        ], "next_cursor": null});
        let now = Timestamp::from_microsecond(61_000_000).expect("in range");
        assert_eq!(
            show(&page, now),
            "JOB  STATE    TOPIC  TENANT  DECISION  RULE  TRIES  CHANGED\n\
             j1   DENIED   job.a          DENY      no-a  0      1m\n\
             j2   PENDING                                 2"
        );
    }
}
