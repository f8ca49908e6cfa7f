//! `coretexctl config …`

mod effective;
mod get;
mod set;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show one document
    Get(get::Args),
    /// Write a whole document
    Set(set::Args),
    /// Show what holds for somebody: the documents of all scopes, merged
    Effective(effective::Args),
}

/// Which document.
#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    /// The scope: system, org, team, workflow or step
    #[arg(value_name = "SCOPE", default_value = "system")]
    pub(crate) scope: String,
    /// The id in the scope; the system has a default one
    #[arg(value_name = "ID", default_value = "")]
    pub(crate) id: String,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Get(args) => get::run(args, context).await,
        Command::Set(args) => set::run(args, context).await,
        Command::Effective(args) => effective::run(args, context).await,
    }
}

/// JSON for people.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
