//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    approval, audit, bench, completions, config, decision, job, key, pause, policy, run, status, worker, workflow,
};
use crate::output::Format;
use crate::settings::parse_duration;

/// Submit jobs to a coretexOS control plane, follow them, and see why they did what they did.
#[derive(Debug, Parser)]
#[command(
    name = "coretexctl",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    after_help = "\
Examples:
  coretexctl status
  coretexctl job submit 'Summarise the report' --topic job.default --wait
  coretexctl job list --state PENDING
  coretexctl workflow apply --file triage.yaml
  coretexctl run start triage --input @ticket.json --watch
  coretexctl job explain 2c1f0c1e-8f0a-4b52-9a6f-2f7f8c0a9d11
  coretexctl job list -o json | jq -r '.items[].id'

Exit codes:
  0  done
  1  the server answered with an error, or something failed here
  2  wrong usage
  3  not found
  4  refused: missing or wrong key, not allowed, or not in a state for it
  5  no answer from the server
  6  the job or run that was waited for ended other than well
  7  the wait was over before the job or run was"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    // Several variables may name it, so clap does not read them: `Settings::resolve` does.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        alias = "gateway",
        help = "The server's address [env: CORETEX_API_BASE, CORETEX_GATEWAY] [default: http://localhost:8081]"
    )]
    pub(crate) api: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        help = "The API key [env: CORETEX_API_KEY, CORETEX_SUPER_SECRET_API_TOKEN, API_KEY]"
    )]
    pub(crate) api_key: Option<String>,
    #[arg(
        long = "as",
        global = true,
        value_name = "PRINCIPAL",
        help = "Who you are, if your key does not say so [env: CORETEX_PRINCIPAL_ID]"
    )]
    pub(crate) as_principal: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "ROLE",
        help = "In which role, if your key does not say so [env: CORETEX_PRINCIPAL_ROLE]"
    )]
    pub(crate) as_role: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Format,
    #[arg(long, global = true, help = "Print without colours [env: NO_COLOR]")]
    pub(crate) no_color: bool,
    /// How long one request may take
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit, find, follow, stop and explain jobs
    #[command(subcommand, visible_alias = "jobs")]
    Job(job::Command),
    /// Write, check, draw and schedule workflows
    #[command(subcommand, visible_alias = "workflows")]
    Workflow(workflow::Command),
    /// Start, follow, steer and repeat runs of workflows
    #[command(subcommand, visible_alias = "runs")]
    Run(run::Command),
    /// See the workers
    #[command(subcommand, visible_alias = "workers")]
    Worker(worker::Command),
    /// See whether the control plane is well
    Status(status::Args),
    /// Decide about jobs and steps that wait for people
    #[command(subcommand, visible_alias = "approvals")]
    Approval(approval::Command),
    /// See who did what, and prove it
    #[command(subcommand)]
    Audit(audit::Command),
    /// Read and write configuration documents
    #[command(subcommand)]
    Config(config::Command),
    /// See what policy decided, and on what
    #[command(subcommand, visible_alias = "decisions")]
    Decision(decision::Command),
    /// Write, try, publish and explain policy
    #[command(subcommand)]
    Policy(policy::Command),
    /// Hold back a topic, a pool or a workflow, or see what is held back
    Pause(pause::PauseArgs),
    /// Let a topic, a pool or a workflow go on
    Resume(pause::ResumeArgs),
    /// Make API keys
    #[command(subcommand, visible_alias = "keys")]
    Key(key::Command),
    /// Measure a running system
    Bench(Box<bench::Args>),
    /// Print a completion script for your shell
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "`{path}` has no examples in its help");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
