//! `coretexctl decision list`

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::commands::Context;
use crate::doc::{Doc, age, scalar, shorten};
use crate::failure::Failure;
use crate::output::{note, render, table, verdict};

/// The longest page that the server gives.
const PAGE_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl decision list
  coretexctl decision list --decision DENY --since 1h
  coretexctl decision list --job 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq '.items[0].input'
  coretexctl decision list --rule prod-needs-review --topic job.deploy --limit 500")]
pub(crate) struct Args {
    /// Only about this job
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// Only by this rule
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Only about jobs of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only about jobs of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[arg(
        long,
        value_name = "DECISION",
        help = "Only ALLOW, ALLOW_WITH_CONSTRAINTS, DENY, REQUIRE_APPROVAL or THROTTLE"
    )]
    decision: Option<String>,
    /// Only decisions made within this time
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    since: Option<std::time::Duration>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Where the list goes on: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let now = Timestamp::now();
    let limit = args.limit as usize;
    let page = fetch(args, limit, now, context).await?;
    let Doc(items) = Doc(&page).get("items");
    if !context.out.is_json() && items.as_array().is_none_or(Vec::is_empty) {
        note("no decisions");
    } else {
        context.out.print(&page, || show(&page, now))?;
    }
    if !context.out.is_json() && !page["next_cursor"].is_null() {
        note(&format!("there are more: --cursor {}", scalar(&page["next_cursor"])));
    }
    Ok(())
}

/// Page after page, until there are enough or no more.
async fn fetch(args: Args, limit: usize, now: Timestamp, context: &Context) -> Result<Value, Failure> {
    let since = args.since.map(|since| {
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        now.as_microsecond().saturating_sub(micros).max(1).to_string()
    });
    let filters: Vec<(&str, String)> = [
        ("job_id", args.job),
        ("rule", args.rule),
        ("topic", args.topic),
        ("tenant", args.tenant),
        ("decision", args.decision.map(|decision| decision.to_uppercase())),
        ("from", since),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
    .collect();
    let mut items: Vec<Value> = Vec::new();
    let mut cursor = args.cursor;
    loop {
        let mut query = filters.clone();
        query.push(("limit", (limit - items.len()).min(PAGE_MAX).to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = context.api.get(&["decisions"], &query).await?;
        if let Some(Value::Array(more)) = page.get("items") {
            items.extend(more.iter().cloned());
        }
        let next = page.get("next_cursor").cloned().unwrap_or_default();
        if next.is_null() || items.len() >= limit {
            return Ok(json!({ "items": items, "next_cursor": next }));
        }
        cursor = Some(scalar(&next));
    }
}

fn show(page: &Value, now: Timestamp) -> String {
    let mut table = table(&["decision", "job", "topic", "tenant", "rule", "why", "policy", "age"]);
    for item in Doc(page).get("items").items() {
        table.add_row(vec![
            verdict(item.text("decision")),
            item.text("job_id").into(),
            item.text("topic").into(),
            item.text("tenant").into(),
            item.text("rule_id").into(),
            shorten(item.text("reason"), 60).into(),
            shorten(item.text("policy_snapshot"), 24).into(),
            age(item.int("checked_at"), now).into(),
        ]);
    }
    render(&table)
}
