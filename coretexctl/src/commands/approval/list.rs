//! `coretexctl approval list`

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, age, shorten};
use crate::failure::Failure;
use crate::output::{note, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl approval list
  coretexctl approval list -o json | jq -r '.items[].job.id'")]
pub(crate) struct Args {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Where the list goes on: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.cursor.map(|cursor| ("cursor", cursor)));
    let page = context.api.get(&["approvals"], &query).await?;
    if !context.out.is_json() && Doc(&page).get("items").items().next().is_none() {
        note("nothing waits for approval");
        return Ok(());
    }
    context.out.print(&page, || show(&page, Timestamp::now()))
}

fn show(page: &Value, now: Timestamp) -> String {
    let mut table = table(&["job", "topic", "tenant", "rule", "why", "approvals", "waits"]);
    for item in Doc(page).get("items").items() {
        let job = item.get("job");
        table.add_row(vec![
            job.text("id").to_owned(),
            job.text("topic").to_owned(),
            job.text("tenant").to_owned(),
            item.text("policy_rule_id").to_owned(),
            shorten(item.text("policy_reason"), 80),
            super::progress(item),
            age(job.int("updated_at"), now),
        ]);
    }
    render(&table)
}
