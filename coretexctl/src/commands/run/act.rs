//! `coretexctl run cancel`, `signal`, `input`, `pause`, `resume` and `delete`

use reqwest::Method;
use serde_json::{Value, json};

use super::input;
use crate::api::Call;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::note;

const PATH: &str = "workflow-runs";

#[derive(Debug, clap::Args)]
pub(crate) struct IdArgs {
    /// Which run
    #[arg(value_name = "RUN")]
    id: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the run has to undo, and its `finally` steps, are done before it ends; cancelling it again stops them too. A run that is
over otherwise is refused (code 4).

Examples:
  coretexctl run cancel 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --reason 'wrong account'")]
pub(crate) struct CancelArgs {
    /// Which runs
    #[arg(value_name = "RUN", required = true)]
    ids: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(crate) async fn cancel(args: &CancelArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({"reason": args.reason});
    for id in &args.ids {
        context.api.post(&[PATH, id, "cancel"], Some(&body)).await?;
        note(&format!("cancelled {id}"));
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A signal that no step waits for yet is kept for the one that will.

Examples:
  coretexctl run signal 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 paid --payload '{\"amount\": 12}'
  coretexctl run signal 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 paid --id payment-4711   # twice is like once")]
pub(crate) struct SignalArgs {
    /// Which run
    #[arg(value_name = "RUN")]
    run: String,
    /// The name of the signal
    #[arg(value_name = "NAME")]
    name: String,
    /// What comes with it: JSON, a file, or `-` for standard input
    #[arg(long, value_name = "JSON|FILE|-")]
    payload: Option<String>,
    /// The id of this signal: repeating it changes nothing
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

pub(crate) async fn signal(args: &SignalArgs, context: &Context) -> Result<(), Failure> {
    let payload = args.payload.as_deref().map(input::value).transpose()?;
    let path = [PATH, args.run.as_str(), "signals", args.name.as_str()];
    let mut call = Call::new(Method::POST, &path);
    call.body = payload.as_ref();
    call.headers = args.id.clone().map(|id| ("idempotency-key", id)).into_iter().collect();
    context.api.call(call).await?;
    note(&format!("signalled {} to {}", args.name, args.run));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What does not fit the form is listed, and the step goes on waiting.

Examples:
  coretexctl run input 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 details '{\"amount\": 12}'
  coretexctl run input 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 details @form.json --as ann")]
pub(crate) struct InputArgs {
    /// Which run
    #[arg(value_name = "RUN")]
    run: String,
    /// Which step
    #[arg(value_name = "STEP")]
    step: String,
    /// The form: JSON, a file, or `-` for standard input
    #[arg(value_name = "JSON|FILE|-")]
    form: String,
}

pub(crate) async fn input(args: &InputArgs, context: &Context) -> Result<(), Failure> {
    let form: Value = input::value(&args.form)?;
    let path = [PATH, args.run.as_str(), "steps", args.step.as_str(), "input"];
    context.api.post(&path, Some(&form)).await?;
    note(&format!("filled in {} of {}", args.step, args.run));
    Ok(())
}

pub(crate) async fn pause(args: &IdArgs, context: &Context) -> Result<(), Failure> {
    context.api.post(&[PATH, &args.id, "pause"], None).await?;
    note(&format!(
        "paused {}\n  next: coretexctl run resume {}",
        args.id, args.id
    ));
    Ok(())
}

pub(crate) async fn resume(args: &IdArgs, context: &Context) -> Result<(), Failure> {
    context.api.post(&[PATH, &args.id, "resume"], None).await?;
    note(&format!("resumed {}", args.id));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A run that is not over is refused (code 4): cancel it first.

Examples:
  coretexctl run delete 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl run list --status failed -o json | jq -r '.items[].id' | xargs coretexctl run delete")]
pub(crate) struct DeleteArgs {
    /// Which runs
    #[arg(value_name = "RUN", required = true)]
    ids: Vec<String>,
}

pub(crate) async fn delete(args: &DeleteArgs, context: &Context) -> Result<(), Failure> {
    for id in &args.ids {
        context.api.delete(&[PATH, id], &[]).await?;
        note(&format!("deleted {id}"));
    }
    Ok(())
}
