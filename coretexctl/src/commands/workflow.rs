//! `coretexctl workflow …`

mod apply;
mod files;
pub(crate) mod graph;
mod manage;
mod read;
mod schedule;
mod validate;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Find mistakes in definitions, without a server
    #[command(visible_alias = "lint")]
    Validate(validate::Args),
    /// Store definitions: new ones, or new revisions of those there are
    #[command(visible_alias = "apply")]
    Create(apply::Args),
    /// Show the definitions, most recently saved first
    #[command(visible_alias = "ls")]
    List(read::ListArgs),
    /// Print a definition
    Get(read::GetArgs),
    /// Draw a definition as a tree, or for Mermaid
    Graph(graph::Args),
    /// Show the revisions of a definition, newest first
    Versions(read::VersionsArgs),
    /// Delete a definition
    Delete(manage::DeleteArgs),
    /// Have the runs of a workflow begin nothing new
    Pause(manage::PauseArgs),
    /// Let the runs of a workflow go on
    Resume(manage::ResumeArgs),
    /// Start workflows by the clock
    #[command(subcommand, visible_alias = "schedules")]
    Schedule(schedule::Command),
    /// Print the JSON Schema of definitions, for editors
    Schema(validate::SchemaArgs),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Validate(args) => validate::run(&args, context.out),
        Command::Schema(_) => validate::schema(),
        Command::Create(args) => apply::run(&args, context).await,
        Command::List(args) => read::list(&args, context).await,
        Command::Get(args) => read::get(&args, context).await,
        Command::Versions(args) => read::versions(&args, context).await,
        Command::Graph(args) => graph::run(&args, context).await,
        Command::Delete(args) => manage::delete(&args, context).await,
        Command::Pause(args) => manage::pause(&args, context).await,
        Command::Resume(args) => manage::resume(&args, context).await,
        Command::Schedule(command) => schedule::run(command, context).await,
    }
}
