//! `coretexctl audit …`

mod tail;
mod verify;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show who did what, newest last
    Tail(tail::Args),
    /// Prove that nothing in the log was changed, removed or inserted
    Verify(verify::Args),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Tail(args) => tail::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
    }
}
