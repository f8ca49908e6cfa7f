//! The commands, one module each.

pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod decision;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod pause;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod worker;
pub(crate) mod workflow;

use crate::api::Api;
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) api: Api,
    pub(crate) out: Output,
}

/// Runs one command.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let settings = Settings::resolve(&cli.global, |name| std::env::var(name).ok())?;
    let context = Context {
        api: Api::new(&settings)?,
        out: Output::new(cli.global.output),
    };
    match cli.command {
        Command::Policy(command) => policy::run(command, &context).await,
        Command::Pause(args) => pause::pause(args, &context).await,
        Command::Resume(args) => pause::resume(args, &context).await,
        Command::Key(command) => key::run(&command, context.out),
        Command::Job(command) => job::run(command, &context).await,
        Command::Workflow(command) => workflow::run(command, &context).await,
        Command::Run(command) => run::run(command, &context).await,
        Command::Worker(command) => worker::run(command, &context).await,
        Command::Status(args) => status::run(&args, &context).await,
        Command::Approval(command) => approval::run(command, &context).await,
        Command::Audit(command) => audit::run(command, &context).await,
        Command::Config(command) => config::run(command, &context).await,
        Command::Decision(command) => decision::run(command, &context).await,
        Command::Bench(args) => bench::run(*args, &context).await,
        Command::Completions(args) => completions::run(&args),
    }
}
