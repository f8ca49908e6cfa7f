//! `coretexctl approval …`

mod decide;
mod list;
mod show;
mod step;

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what waits for people: steps of runs, then jobs
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show what people are asked to approve, who has, and what else could be done
    Show(show::Args),
    /// Let a waiting job run, or a waiting step go on
    #[command(after_help = "\
Examples:
  coretexctl approval approve 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl approval approve 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --reason 'checked by hand' --note 'ticket 7'
  coretexctl approval approve 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --as ann --as-role secops")]
    Approve(decide::Args),
    /// Refuse a waiting job or step for good
    #[command(after_help = "\
Examples:
  coretexctl approval reject 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11 --reason 'wrong account'
  coretexctl approval reject 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11:release --reason 'not today'")]
    Reject(decide::Args),
    /// Say yes or no to a step of a run
    Step(step::StepArgs),
    /// Say yes or no to a job
    Job(step::JobArgs),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Approve(args) => decide::run(args, "approve", context).await,
        Command::Reject(args) => decide::run(args, "reject", context).await,
        Command::Step(args) => step::step(&args, context).await,
        Command::Job(args) => step::job(&args, context).await,
    }
}

/// How many have said yes, of how many that have to: `1 of 2`.
fn progress(doc: Doc<'_>) -> String {
    match doc.int("quorum") {
        0 => String::new(),
        quorum => format!("{} of {quorum}", doc.int("approvals")),
    }
}
