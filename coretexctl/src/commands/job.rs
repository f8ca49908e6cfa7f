//! `coretexctl job …`

mod cancel;
mod explain;
mod get;
mod list;
mod remediate;
mod submit;
mod watch;

pub(crate) use submit::parse_pair;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Submit a job, and wait for it if you like
    Submit(Box<submit::Args>),
    /// Show one job with its input and its result
    Get(get::Args),
    /// Show jobs, newest change first
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Follow a job until it is over
    Watch(watch::Args),
    /// Stop a job
    Cancel(cancel::Args),
    /// Ask again for a refused job in a safer way that policy offers
    Remediate(remediate::Args),
    /// Say why a job was allowed, denied, placed where it was, or still waits
    #[command(visible_alias = "why")]
    Explain(explain::Args),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Submit(args) => submit::run(*args, context).await,
        Command::Get(args) => get::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Watch(args) => watch::run(args, context).await,
        Command::Cancel(args) => cancel::run(args, context).await,
        Command::Remediate(args) => remediate::run(args, context).await,
        Command::Explain(args) => explain::run(args, context).await,
    }
}
