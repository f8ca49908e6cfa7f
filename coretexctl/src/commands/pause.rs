//! `coretexctl pause …` and `coretexctl resume …`

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::commands::Context;
use crate::failure::Failure;

/// What can be paused.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Its jobs wait
    Topic,
    /// Its workers get no jobs
    Pool,
    /// Its runs begin nothing
    Workflow,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::Pool => "pools",
            Self::Workflow => "workflows",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Pool => "pool",
            Self::Workflow => "workflow",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is on its way is finished; nothing new is begun until `coretexctl resume`. Without arguments, what is paused is listed.

Examples:
  coretexctl pause
  coretexctl pause topic job.payments --reason 'bank is down'
  coretexctl pause pool gpu
  coretexctl pause workflow triage
  coretexctl resume topic job.payments")]
pub(crate) struct PauseArgs {
    /// What to pause
    #[arg(value_enum, requires = "name")]
    kind: Option<Kind>,
    /// Which one
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Why, for others to read
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl resume topic job.payments
  coretexctl resume pool gpu")]
pub(crate) struct ResumeArgs {
    /// What to resume
    #[arg(value_enum)]
    kind: Kind,
    /// Which one
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) async fn pause(args: PauseArgs, context: &Context) -> Result<(), Failure> {
    let (Some(kind), Some(name)) = (args.kind, args.name) else {
        return list(context).await;
    };
    let body = json!({"reason": args.reason});
    context.api.post(&[kind.path(), &name, "pause"], Some(&body)).await?;
    let done = json!({"paused": {"kind": kind.word(), "name": name}});
    context.out.print(&done, || format!("paused {} {name}", kind.word()))
}

pub(crate) async fn resume(args: ResumeArgs, context: &Context) -> Result<(), Failure> {
    let ResumeArgs { kind, name } = args;
    context.api.post(&[kind.path(), &name, "resume"], None).await?;
    let done = json!({"resumed": {"kind": kind.word(), "name": name}});
    context.out.print(&done, || format!("resumed {} {name}", kind.word()))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let answer = context.api.get(&["pauses"], &[]).await?;
    context.out.print(&answer, || table(&answer))
}

fn table(answer: &Value) -> String {
    let mut lines = Vec::new();
    for kind in [Kind::Topic, Kind::Pool, Kind::Workflow] {
        for (name, pause) in answer.get(kind.path()).and_then(Value::as_object).into_iter().flatten() {
            let text = |member: &str| pause.get(member).and_then(Value::as_str).unwrap_or_default();
            let mut line = format!("{:9} {name}  since {}", kind.word(), text("at"));
            for (word, value) in [("by", text("by")), ("because", text("reason"))] {
                if !value.is_empty() {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "  {word} {value}");
                }
            }
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return "nothing is paused".to_owned();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_is_listed_by_kind() {
        let answer = json!({
            "topics": {"job.a": {"by": "ada", "at": "2026-01-01T00:00:00Z", "reason": "bank is down"}},
            "pools": {"gpu": {"at": "2026-01-02T00:00:00Z"}},
        });
        assert_eq!(
            table(&answer),
            "topic     job.a  since 2026-01-01T00:00:00Z  by ada  because bank is down\n\
             pool      gpu  since 2026-01-02T00:00:00Z"
        );
        assert_eq!(table(&json!({})), "nothing is paused");
    }
}
