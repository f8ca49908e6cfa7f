//! `coretexctl policy bundle …`

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::files;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{line, render, table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the bundles
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  coretexctl policy bundle list
  coretexctl policy bundle list -o json | jq '.items[].id'"
    )]
    List,
    /// Print the text of a bundle
    Get(GetArgs),
    /// Write a bundle of secops; it is in force at once unless disabled
    Put(PutArgs),
    /// Keep the bundles as they are now, to roll back to
    Capture(CaptureArgs),
    /// List what was captured
    #[command(after_help = "\
Examples:
  coretexctl policy bundle captures")]
    Captures,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy bundle get secops/freeze > freeze.yaml")]
pub(crate) struct GetArgs {
    /// Which bundle
    #[arg(value_name = "BUNDLE")]
    id: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The text is checked here first, with every mistake named, then by the server.

Examples:
  coretexctl policy bundle put secops/freeze freeze.yaml --message 'change freeze' --as-role secops
  coretexctl policy bundle put secops/freeze - --disabled < freeze.yaml")]
pub(crate) struct PutArgs {
    /// Which bundle; starts with secops/
    #[arg(value_name = "BUNDLE")]
    id: String,
    /// The policy document; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Why; kept with the bundle
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Who wrote it; kept with the bundle
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Store it without putting it in force
    #[arg(long, conflicts_with = "enabled")]
    disabled: bool,
    /// Put it in force, also if it was disabled
    #[arg(long)]
    enabled: bool,
    /// Only if the bundles are still at this revision
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy bundle capture --note 'before the freeze' --as-role secops")]
pub(crate) struct CaptureArgs {
    /// Why; kept with it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Get(args) => get(&args, context).await,
        Command::Put(args) => put(args, context).await,
        Command::Capture(args) => capture(args, context).await,
        Command::Captures => captures(context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let bundles = context.api.get(&["policy", "bundles"], &[]).await?;
    context.out.print(&bundles, || {
        let mut table = table(&["bundle", "enabled", "source", "changed", "by", "message"]);
        for bundle in Doc(&bundles).get("items").items() {
            table.add_row(vec![
                bundle.text("id").to_owned(),
                bundle.get("enabled").0.to_string(),
                bundle.text("source").to_owned(),
                bundle.text("updated_at").to_owned(),
                bundle.text("author").to_owned(),
                bundle.text("message").to_owned(),
            ]);
        }
        render(&table)
    })
}

async fn get(args: &GetArgs, context: &Context) -> Result<(), Failure> {
    let bundle = context
        .api
        .get(&["policy", "bundles", &args.id.replace('/', "~")], &[])
        .await?;
    if context.out.is_json() {
        return context.out.print(&bundle, String::new);
    }
    line(Doc(&bundle).text("content"))
}

async fn put(args: PutArgs, context: &Context) -> Result<(), Failure> {
    let text = files::text(&args.file)?;
    if let Err(error) = coretex_core::policy::Document::parse(text.as_bytes(), &args.file.display().to_string()) {
        return Err(Failure::new(error.to_string()));
    }
    let mut body = Map::from_iter([("content".to_owned(), Value::from(text))]);
    for (name, value) in [("message", args.message), ("author", args.author)] {
        body.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    if args.disabled || args.enabled {
        body.insert("enabled".to_owned(), args.enabled.into());
    }
    body.extend(
        args.revision
            .map(|revision| ("revision".to_owned(), Value::from(revision))),
    );
    let answer = context
        .api
        .put(&["policy", "bundles", &args.id.replace('/', "~")], &Value::Object(body))
        .await?;
    context.out.print(&answer, || {
        format!(
            "stored {}\n  next: coretexctl policy explain <topic>, or coretexctl policy snapshots",
            args.id
        )
    })
}

async fn capture(args: CaptureArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({ "note": args.note.unwrap_or_default() });
    let answer = context
        .api
        .post(&["policy", "bundles", "snapshots"], Some(&body))
        .await?;
    context
        .out
        .print(&answer, || format!("captured {}", Doc(&answer).text("id")))
}

async fn captures(context: &Context) -> Result<(), Failure> {
    let answer = context.api.get(&["policy", "bundles", "snapshots"], &[]).await?;
    context.out.print(&answer, || {
        let mut table = table(&["capture", "made", "note"]);
        for item in Doc(&answer).get("items").items() {
            table.add_row(vec![item.text("id"), item.text("created_at"), item.text("note")]);
        }
        render(&table)
    })
}
