//! `coretexctl run watch`

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{get, show};
use crate::api::Api;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::{Failure, Kind};
use crate::output::line;

/// The first pause between two looks; each is half as long again as the one before while nothing happens.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How many entries of the timeline one look reads.
const ENTRIES: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
On a terminal the steps are drawn with their times and attempts until the run is over. Elsewhere each entry of the timeline
is a line, with -o json a JSON document. Ends with code 0 if the run succeeded, 6 if it ended otherwise, 7 if --for was over
first.

Examples:
  coretexctl run watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl run watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --for 5m && echo done
  coretexctl run watch 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 -o json | jq -r .type")]
pub(crate) struct Args {
    /// Which run
    #[arg(value_name = "RUN")]
    id: String,
    /// Give up after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    limit: Option<Duration>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    follow(&args.id, args.limit, Show::Live, context).await
}

/// What is shown of a run that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// What happens.
    Live,
    /// How it ended.
    End,
}

/// Follows a run to its end, which is that of the command.
pub(super) async fn follow(id: &str, limit: Option<Duration>, how: Show, context: &Context) -> Result<(), Failure> {
    let drawn = how == Show::Live && !context.out.is_json() && std::io::stdout().is_terminal();
    let lines = how == Show::Live && !drawn;
    let bar = if drawn { Some(canvas()) } else { None };
    let mut layout = None;
    let mut pace = Pace::new(limit);
    let mut seen = 0;
    let mut last = String::new();
    let run = loop {
        // First the run, then its timeline: what is over has told everything by then.
        let run = look(&context.api, id, lines).await?;
        let doc = Doc(&run);
        if lines {
            while print_new(id, &mut seen, context).await? {
                pace.news();
            }
        } else if doc.text("updated_at") != last {
            doc.text("updated_at").clone_into(&mut last);
            pace.news();
        }
        if let Some(bar) = &bar {
            if layout.is_none() {
                layout = get::layout(&run, context).await;
            }
            bar.set_message(show::live(&run, layout.as_ref(), Timestamp::now()));
        }
        if show::is_over(doc.text("status")) {
            break run;
        }
        if !pace.wait().await {
            if let Some(bar) = &bar {
                bar.finish();
            }
            let status = doc.text("status");
            return Err(Failure::of(Kind::WaitOver, format!("run {id} is still {status}"))
                .hint(format!("coretexctl run get {id}")));
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
        line(&show::live(&run, layout.as_ref(), Timestamp::now()))?;
    } else if how == Show::End {
        let run = look(&context.api, id, false).await?;
        let layout = get::layout(&run, context).await;
        context
            .out
            .print(&run, || show::whole(&run, layout.as_ref(), Timestamp::now()))?;
    }
    verdict(&run)
}

async fn look(api: &Api, id: &str, summary: bool) -> Result<Value, Failure> {
    let query: &[(&str, String)] = if summary {
        &[("fields", "summary".to_owned())]
    } else {
        &[]
    };
    api.get(&["workflow-runs", id], query).await
}

/// Prints what is new in the timeline. True if there may be more.
async fn print_new(id: &str, seen: &mut usize, context: &Context) -> Result<bool, Failure> {
    let query = [("cursor", seen.to_string()), ("limit", ENTRIES.to_string())];
    let entries = context.api.get(&["workflow-runs", id, "timeline"], &query).await?;
    let mut count = 0;
    for entry in Doc(&entries).items() {
        if context.out.is_json() {
            line(&entry.0.to_string())?;
        } else {
            line(&show::entry(entry))?;
        }
        count += 1;
    }
    *seen += count;
    Ok(count > 0)
}

/// A place on the terminal that is drawn again and again.
fn canvas() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}

/// When to look again: soon while things happen, later while nothing does.
struct Pace {
    begun: Instant,
    limit: Option<Duration>,
    pause: Duration,
}

impl Pace {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            begun: Instant::now(),
            limit,
            pause: FIRST_PAUSE,
        }
    }

    fn news(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// False if the time is over.
    async fn wait(&mut self) -> bool {
        let left = self.limit.map(|limit| limit.saturating_sub(self.begun.elapsed()));
        if left == Some(Duration::ZERO) {
            return false;
        }
        tokio::time::sleep(left.map_or(self.pause, |left| left.min(self.pause))).await;
        self.pause = (self.pause + self.pause / 2).min(LONGEST_PAUSE);
        true
    }
}

/// Turns the end of a run into the end of the command.
fn verdict(run: &Value) -> Result<(), Failure> {
    let doc = Doc(run);
    let (id, status) = (doc.text("id"), doc.text("status"));
    if status == "succeeded" {
        return Ok(());
    }
    let why = match doc.get("error").text("message") {
        "" => String::new(),
        message => format!(": {}", crate::doc::shorten(message, 300)),
    };
    Err(
        Failure::of(Kind::JobNotSucceeded, format!("run {id} ended {status}{why}"))
            .hint(format!("coretexctl run get {id}")),
    )
}
