//! `coretexctl workflow schedule …`

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::commands::Context;
use crate::commands::run::input;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{facts, line, note, render, table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the schedules
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one schedule
    #[command(after_help = "\
Examples:
  coretexctl workflow schedule get nightly")]
    Get(IdArgs),
    /// Write a schedule: a new one, or another in the place of the one there is
    Put(Box<PutArgs>),
    /// Delete a schedule; the runs it started stay
    #[command(after_help = "\
Examples:
  coretexctl workflow schedule delete nightly")]
    Delete(IdArgs),
    /// Stop a schedule for a while
    #[command(after_help = "\
Examples:
  coretexctl workflow schedule pause nightly")]
    Pause(IdArgs),
    /// Let a schedule go on; what it missed is not made up for
    #[command(after_help = "\
Examples:
  coretexctl workflow schedule resume nightly")]
    Resume(IdArgs),
    /// Start a run of a schedule now
    #[command(after_help = "\
Examples:
  coretexctl workflow schedule trigger nightly")]
    Trigger(IdArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow schedule list
  coretexctl workflow schedule list --workflow triage")]
pub(crate) struct ListArgs {
    /// Only of this workflow
    #[arg(long, value_name = "WORKFLOW")]
    workflow: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IdArgs {
    /// Which schedule
    #[arg(value_name = "SCHEDULE")]
    id: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Overlap {
    /// Let this time pass
    Skip,
    /// Start one when the last run ends
    BufferOne,
    /// Start one all the same
    Allow,
    /// Cancel the last run, and start one
    CancelOther,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times have five fields (minute, hour, day of the month, month, day of the week), six with seconds first, or a nickname such
as @hourly.

Examples:
  coretexctl workflow schedule put nightly --workflow report --cron '0 2 * * *' --timezone Europe/Berlin
  coretexctl workflow schedule put poll --workflow poll --cron '*/30 * * * * *' --overlap skip --input '{\"depth\": 2}'
  coretexctl workflow schedule put nightly --workflow report --cron @daily --start-at 2026-02-01T00:00:00Z")]
pub(crate) struct PutArgs {
    /// Its name
    #[arg(value_name = "SCHEDULE")]
    id: String,
    /// Which workflow it starts
    #[arg(long, value_name = "WORKFLOW")]
    workflow: String,
    /// When
    #[arg(long, value_name = "TIMES")]
    cron: String,
    /// In which time zone; UTC if it is left out
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// The input of each run: JSON, a file, or `-` for standard input
    #[arg(long, value_name = "JSON|FILE|-")]
    input: Option<String>,
    /// What if the last run is still open
    #[arg(long, value_enum, value_name = "WHAT", default_value = "skip")]
    overlap: Overlap,
    /// How long after its time a start that was missed is made up for
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    catch_up: Option<std::time::Duration>,
    /// Whose runs they are
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Whose runs they are, for people
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Not before this time, such as 2026-02-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME")]
    end_at: Option<String>,
    /// Written, but stopped
    #[arg(long)]
    paused: bool,
}

const PATH: &str = "workflow-schedules";

pub(super) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Get(args) => {
            let schedule = context.api.get(&[PATH, &args.id], &[]).await?;
            context.out.print(&schedule, || show(&schedule))
        }
        Command::Put(args) => put(&args, context).await,
        Command::Delete(args) => {
            context.api.delete(&[PATH, &args.id], &[]).await?;
            note(&format!("deleted {}", args.id));
            Ok(())
        }
        Command::Pause(args) => change(&args.id, "pause", context).await,
        Command::Resume(args) => change(&args.id, "resume", context).await,
        Command::Trigger(args) => {
            let answer = context.api.post(&[PATH, &args.id, "trigger"], None).await?;
            let run = Doc(&answer).text("run_id").to_owned();
            if context.out.is_json() {
                return context.out.print(&answer, String::new);
            }
            line(&run)?;
            note(&format!("  next: coretexctl run watch {run}"));
            Ok(())
        }
    }
}

async fn change(id: &str, verb: &str, context: &Context) -> Result<(), Failure> {
    let schedule = context.api.post(&[PATH, id, verb], None).await?;
    context.out.print(&schedule, || show(&schedule))
}

async fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let query: Vec<_> = args.workflow.map(|id| ("workflow_id", id)).into_iter().collect();
    let schedules = context.api.get(&[PATH], &query).await?;
    if !context.out.is_json() && Doc(&schedules).get("items").items().next().is_none() {
        note("no schedules");
        return Ok(());
    }
    context.out.print(&schedules, || {
        let mut table = table(&[
            "schedule",
            "workflow",
            "times",
            "zone",
            "next",
            "last run",
            "what became of it",
        ]);
        for schedule in Doc(&schedules).get("items").items() {
            table.add_row(vec![
                schedule.text("id").to_owned(),
                schedule.text("workflow_id").to_owned(),
                schedule.text("cron").to_owned(),
                schedule.text("timezone").to_owned(),
                next(schedule),
                schedule.text("last_run").to_owned(),
                schedule.text("last_result").to_owned(),
            ]);
        }
        render(&table)
    })
}

fn next(schedule: Doc<'_>) -> String {
    if schedule.get("paused").0.as_bool() == Some(true) {
        "paused".to_owned()
    } else {
        schedule.text("next_at").to_owned()
    }
}

fn show(schedule: &Value) -> String {
    let doc = Doc(schedule);
    facts(&[
        ("schedule", doc.text("id").to_owned()),
        ("workflow", doc.text("workflow_id").to_owned()),
        ("times", doc.text("cron").to_owned()),
        ("zone", doc.text("timezone").to_owned()),
        ("next", next(doc)),
        ("if still open", doc.text("overlap").to_owned()),
        ("input", doc.compact("input")),
        ("not before", doc.text("start_at").to_owned()),
        ("not after", doc.text("end_at").to_owned()),
        ("last run", doc.text("last_run").to_owned()),
        ("last time", doc.text("last_at").to_owned()),
        ("what became of it", doc.text("last_result").to_owned()),
    ])
}

async fn put(args: &PutArgs, context: &Context) -> Result<(), Failure> {
    let overlap = args
        .overlap
        .to_possible_value()
        .map(|value| value.get_name().replace('-', "_"));
    let mut body = Map::new();
    for (name, value) in [
        ("workflow_id", Some(args.workflow.as_str())),
        ("cron", Some(args.cron.as_str())),
        ("timezone", args.timezone.as_deref()),
        ("overlap", overlap.as_deref()),
        ("org_id", args.org.as_deref()),
        ("team_id", args.team.as_deref()),
        ("start_at", args.start_at.as_deref()),
        ("end_at", args.end_at.as_deref()),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    if let Some(text) = &args.input {
        body.insert("input".to_owned(), Value::Object(input::object(text)?));
    }
    if let Some(time) = args.catch_up {
        body.insert("catch_up_sec".to_owned(), time.as_secs().max(1).into());
    }
    body.insert("paused".to_owned(), json!(args.paused));
    let schedule = context.api.put(&[PATH, &args.id], &Value::Object(body)).await?;
    context.out.print(&schedule, || show(&schedule))
}
