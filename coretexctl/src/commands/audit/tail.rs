//! `coretexctl audit tail`

use std::time::Duration;

use serde_json::Value;

use crate::commands::Context;
use crate::doc::{Doc, shorten, stamp};
use crate::failure::Failure;
use crate::output::line;

/// How long to wait before asking for more.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --output json every entry is one line: what `coretexctl audit verify --file` reads.

Examples:
  coretexctl audit tail
  coretexctl audit tail --limit 500 -o json
  coretexctl audit tail --from 1 --all -o json > audit.jsonl
  coretexctl audit tail --follow")]
pub(crate) struct Args {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// From this entry on, instead of the newest
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Go on to the end of the log
    #[arg(long)]
    all: bool,
    /// Wait for more
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let limit = if args.all { 1_000 } else { args.limit };
    let mut from = args.from.or(args.all.then_some(1));
    loop {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(from.map(|from| ("from", from.to_string())));
        let page = context.api.get(&["audit"], &query).await?;
        let doc = Doc(&page);
        for item in doc.get("items").items() {
            line(&if context.out.is_json() {
                item.0.to_string()
            } else {
                show(item)
            })?;
            from = Some(u64::try_from(item.int("seq")).unwrap_or_default().saturating_add(1));
        }
        let more = !doc.get("next").0.is_null();
        if more && (args.all || args.follow) {
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        // An empty log has no last entry to go on from.
        from = from.or(Some(1));
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(entry: Doc<'_>) -> String {
    let who = match (entry.text("actor"), entry.text("role")) {
        ("", "") => "-".to_owned(),
        (actor, "") => actor.to_owned(),
        (actor, role) => format!("{actor} ({role})"),
    };
    let detail = match entry.get("detail").0 {
        Value::Object(_) => format!("  {}", shorten(&entry.pairs("detail"), 200)),
        _ => String::new(),
    };
    format!(
        "{:>6}  {}  {}  {}  {}{detail}",
        entry.int("seq"),
        stamp(entry.int("at")),
        who,
        entry.text("action"),
        entry.text("target"),
    )
}
