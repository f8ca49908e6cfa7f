//! The coretexOS command line.
//!
//! One module per command under `commands/`. Data goes to stdout, everything else to stderr; exit codes are listed in
//! [`failure::Kind`] and in `docs/cli.md`.

mod api;
mod cli;
mod commands;
mod doc;
mod failure;
mod follow;
mod output;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    // TLS needs exactly one crypto provider, installed before the first client is built. A second call would be an error,
    // and there is none before this line.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        output::complain("a TLS crypto provider was installed already");
    }
    let cli = Cli::parse();
    if cli.global.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Completions(args) = cli.command {
        return commands::completions::run(&args);
    }
    // Only the bench has work for more than one thread.
    let mut runtime = match cli.command {
        Command::Bench(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start the runtime").because(&error))?
        .block_on(commands::run(cli))
}
