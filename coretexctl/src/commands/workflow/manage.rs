//! `coretexctl workflow delete`, `pause` and `resume`

use serde_json::json;

use crate::commands::Context;
use crate::failure::Failure;
use crate::output::note;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A definition with open runs is not deleted (code 4) unless --force says so; its runs go on as they began.

Examples:
  coretexctl workflow delete triage
  coretexctl workflow delete triage --force")]
pub(crate) struct DeleteArgs {
    /// Which workflows
    #[arg(value_name = "WORKFLOW", required = true)]
    ids: Vec<String>,
    /// Also if it has open runs
    #[arg(long)]
    force: bool,
}

pub(crate) async fn delete(args: &DeleteArgs, context: &Context) -> Result<(), Failure> {
    let query: &[(&str, String)] = if args.force {
        &[("force", "true".to_owned())]
    } else {
        &[]
    };
    for id in &args.ids {
        context.api.delete(&["workflows", id], query).await?;
        note(&format!("deleted {id}"));
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow pause triage --reason 'until the new model is there'")]
pub(crate) struct PauseArgs {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    id: String,
    /// Why, for others to read
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(crate) async fn pause(args: &PauseArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({"reason": args.reason});
    context.api.post(&["workflows", &args.id, "pause"], Some(&body)).await?;
    note(&format!(
        "paused {}\n  next: coretexctl workflow resume {}",
        args.id, args.id
    ));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow resume triage")]
pub(crate) struct ResumeArgs {
    /// Which workflow
    #[arg(value_name = "WORKFLOW")]
    id: String,
}

pub(crate) async fn resume(args: &ResumeArgs, context: &Context) -> Result<(), Failure> {
    context.api.post(&["workflows", &args.id, "resume"], None).await?;
    note(&format!("resumed {}", args.id));
    Ok(())
}
