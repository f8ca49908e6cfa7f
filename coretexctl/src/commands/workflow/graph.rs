//! `coretexctl workflow graph`

pub(crate) mod layout;
mod mermaid;
mod tree;

use coretex_core::workflow::Workflow;
use coretex_core::workflow::model::Step;

use self::layout::Layout;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::line;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every step stands below the last of those it waits for; what else it waits for is said beside it.

Examples:
  coretexctl workflow graph triage
  coretexctl workflow graph --file triage.yaml
  coretexctl workflow graph triage --mermaid > triage.mmd")]
pub(crate) struct Args {
    /// Which workflow of the server
    #[arg(value_name = "WORKFLOW", required_unless_present = "file", conflicts_with = "file")]
    id: Option<String>,
    /// A file instead; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// As it was in this revision
    #[arg(long, value_name = "HASH", requires = "id")]
    revision: Option<String>,
    /// As a Mermaid flowchart
    #[arg(long)]
    mermaid: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let workflow = match (&args.file, &args.id) {
        (Some(file), _) => super::files::definition(file)?.workflow,
        (None, Some(id)) => fetch(context, id, args.revision.as_deref()).await?,
        (None, None) => return Err(Failure::usage("name a workflow, or a file with --file")),
    };
    let layout = Layout::of(&workflow);
    if args.mermaid {
        line(&mermaid::render(&workflow, &layout))
    } else {
        line(&tree::render(&workflow, &layout))
    }
}

/// A definition of the server.
pub(crate) async fn fetch(context: &Context, id: &str, revision: Option<&str>) -> Result<Workflow, Failure> {
    let query: Vec<_> = revision.map(|hash| ("revision", hash.to_owned())).into_iter().collect();
    let document = context.api.get(&["workflows", id], &query).await?;
    serde_json::from_value(document).map_err(|error| Failure::new("the server's definition is none").because(&error))
}

/// What a step is, in a few words: its type, and where its jobs go.
fn what(step: &Step) -> String {
    let kind = match step.step_type.as_str() {
        "" => "job",
        kind => kind,
    };
    let target = [&step.topic, &step.worker_id, &step.workflow, &step.signal]
        .into_iter()
        .find(|text| !text.is_empty());
    match target {
        Some(target) => format!("{kind} {target}"),
        None => kind.to_owned(),
    }
}

/// What is special about a step, each in a few words.
fn notes(step: &Step) -> Vec<String> {
    use coretex_core::workflow::model::{DependencyPolicy, StepKind, WaitFor};

    let mut notes = Vec::new();
    if !step.condition.is_empty() {
        let word = if step.kind() == StepKind::Condition { "is" } else { "if" };
        notes.push(format!("{word} {}", step.condition));
    }
    if step.fans_out() {
        notes.push(format!("for each of {}", step.for_each));
    }
    if step.max_parallel > 0 {
        notes.push(format!("{} at once", step.max_parallel));
    }
    match step.wait_for {
        WaitFor::All => {}
        WaitFor::Any => notes.push("any of them".to_owned()),
        WaitFor::Count(count) => notes.push(format!("{count} of them")),
    }
    if !step.while_.is_empty() {
        notes.push(format!("while {}", step.while_));
    }
    if !step.until.is_empty() {
        notes.push(format!("until {}", step.until));
    }
    match step.dependency_policy {
        DependencyPolicy::AllSuccess => {}
        DependencyPolicy::AllDone => notes.push("however those before end".to_owned()),
        DependencyPolicy::AnySuccess => notes.push("once one before succeeded".to_owned()),
        DependencyPolicy::OnFailure => notes.push("if one before failed".to_owned()),
    }
    if let Some(rule) = &step.approval {
        if rule.quorum > 1 {
            notes.push(format!("{} approvals", rule.quorum));
        }
        if !rule.roles.is_empty() {
            notes.push(format!("by {}", rule.roles.join(" or ")));
        }
    }
    if let Some(retry) = step.retry.as_ref().filter(|retry| retry.max_retries > 0) {
        notes.push(format!("{} retries", retry.max_retries));
    }
    if let Some(timeout) = step.timeout() {
        notes.push(format!("within {timeout:?}"));
    }
    if step.continue_on_error {
        notes.push("may fail".to_owned());
    }
    notes
}
