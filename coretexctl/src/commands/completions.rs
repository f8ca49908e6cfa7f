//! `coretexctl completions`: shell completions.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl completions bash > ~/.local/share/bash-completion/completions/coretexctl
  coretexctl completions zsh > \"${fpath[1]}/_coretexctl\"
  coretexctl completions fish > ~/.config/fish/completions/coretexctl.fish")]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "coretexctl", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end())
}
