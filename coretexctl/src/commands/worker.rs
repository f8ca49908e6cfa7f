//! `coretexctl worker …`

mod list;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the workers that sent a heartbeat
    #[command(visible_alias = "ls")]
    List(list::Args),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list::run(args, context).await,
    }
}
