//! `coretexctl approval step` and `job`: the forms that scripts use

use serde_json::{Map, Value};

use crate::commands::Context;
use crate::failure::Failure;
use crate::output::note;

#[derive(Debug, clap::Args)]
#[group(id = "verdict", required = true, multiple = false)]
pub(crate) struct Verdict {
    /// Say yes
    #[arg(long)]
    approve: bool,
    /// Say no
    #[arg(long)]
    reject: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl approval step deploy 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 release --approve --as ann
  coretexctl approval step deploy 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 release --reject --reason 'not today'")]
pub(crate) struct StepArgs {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// Which run
    #[arg(value_name = "RUN")]
    run: String,
    /// Which step
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    verdict: Verdict,
    /// Why; kept with the run
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Anything else worth keeping
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(crate) async fn step(args: &StepArgs, context: &Context) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("approved".to_owned(), args.verdict.approve.into());
    for (name, text) in [("reason", &args.reason), ("note", &args.note)] {
        if let Some(text) = text {
            body.insert(name.to_owned(), text.as_str().into());
        }
    }
    let path = [
        "workflows",
        &args.workflow,
        "runs",
        &args.run,
        "steps",
        &args.step,
        "approve",
    ];
    context.api.post(&path, Some(&Value::Object(body))).await?;
    let verb = if args.verdict.approve { "approved" } else { "rejected" };
    note(&format!(
        "{verb} {} of {}\n  next: coretexctl run watch {}",
        args.step, args.run, args.run
    ));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same as `approve` and `reject`.

Examples:
  coretexctl approval job 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --approve")]
pub(crate) struct JobArgs {
    /// Which job
    #[arg(value_name = "JOB")]
    id: String,
    #[command(flatten)]
    verdict: Verdict,
}

pub(crate) async fn job(args: &JobArgs, context: &Context) -> Result<(), Failure> {
    let (verb, done) = if args.verdict.approve {
        ("approve", "approved")
    } else {
        ("reject", "rejected")
    };
    context.api.post(&["approvals", &args.id, verb], None).await?;
    note(&format!("{done} {}", args.id));
    Ok(())
}
