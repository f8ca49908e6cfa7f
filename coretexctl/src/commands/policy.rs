//! `coretexctl policy …`

mod bundle;
mod cases;
mod diff;
mod explain;
mod files;
mod lint;
mod release;
mod rules;

use crate::commands::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Find mistakes and oddities in policy files, without a server
    Lint(lint::Args),
    /// Run a file of cases against a policy file, without a server
    Test(cases::Args),
    /// Ask what policy says to a job that might be, and why
    Explain(Box<explain::Args>),
    /// Compare two policy files, and judge the last decisions again by both
    Diff(diff::Args),
    /// List the rules of all bundles
    Rules(rules::RulesArgs),
    /// List the policies that were active, the present one first
    Snapshots(rules::SnapshotsArgs),
    /// Read and write bundles
    #[command(subcommand, visible_alias = "bundles")]
    Bundle(bundle::Command),
    /// Enable bundles of secops
    Publish(release::PublishArgs),
    /// Go back to captured bundles
    Rollback(release::RollbackArgs),
    /// Print the JSON Schema of policy documents, for editors
    Schema(lint::SchemaArgs),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Lint(args) => lint::run(&args, context.out),
        Command::Schema(_) => lint::schema(),
        Command::Test(args) => cases::run(&args, context.out),
        Command::Explain(args) => explain::run(*args, context).await,
        Command::Diff(args) => diff::run(&args, context).await,
        Command::Rules(args) => rules::rules(&args, context).await,
        Command::Snapshots(args) => rules::snapshots(&args, context).await,
        Command::Bundle(command) => bundle::run(command, context).await,
        Command::Publish(args) => release::publish(args, context).await,
        Command::Rollback(args) => release::rollback(args, context).await,
    }
}
