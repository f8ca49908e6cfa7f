//! `coretexctl run …`

mod act;
mod get;
pub(crate) mod input;
mod list;
mod rerun;
mod show;
mod start;
mod timeline;
mod watch;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Start a run, and wait for it or watch it if you like
    Start(Box<start::Args>),
    /// Show one run with its steps
    Get(get::Args),
    /// Show runs, newest change first
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Follow a run until it is over
    Watch(watch::Args),
    /// Show what happened in a run
    Timeline(timeline::Args),
    /// Stop runs
    Cancel(act::CancelArgs),
    /// Do a run again, whole or from a step on
    Rerun(rerun::Args),
    /// Tell a run that something happened
    Signal(act::SignalArgs),
    /// Fill in the form that a step of a run waits for
    Input(act::InputArgs),
    /// Have a run begin nothing new
    #[command(after_help = "\
What is on its way is finished; the deadline of the run goes on.

Examples:
  coretexctl run pause 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11")]
    Pause(act::IdArgs),
    /// Let a run go on
    #[command(after_help = "\
Examples:
  coretexctl run resume 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11")]
    Resume(act::IdArgs),
    /// Delete runs that are over
    Delete(act::DeleteArgs),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Start(args) => start::run(&args, context).await,
        Command::Get(args) => get::run(&args, context).await,
        Command::List(args) => list::run(&args, context).await,
        Command::Watch(args) => watch::run(&args, context).await,
        Command::Timeline(args) => timeline::run(&args, context).await,
        Command::Cancel(args) => act::cancel(&args, context).await,
        Command::Rerun(args) => rerun::run(&args, context).await,
        Command::Signal(args) => act::signal(&args, context).await,
        Command::Input(args) => act::input(&args, context).await,
        Command::Pause(args) => act::pause(&args, context).await,
        Command::Resume(args) => act::resume(&args, context).await,
        Command::Delete(args) => act::delete(&args, context).await,
    }
}
