//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{LogFormat, Role, Span};

/// The coretexOS daemon: takes jobs for AI workers, judges, places and follows them.
#[derive(Debug, Parser)]
#[command(name = "coretexd", version, max_term_width = 120, after_help = AFTER)]
pub struct Cli {
    /// Options of the daemon.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const AFTER: &str = "Flags come before environment variables, those before the settings file. \
All of them are listed in docs/configuration.md.\n\n\
Exit codes: 0 stopped on request, 1 failed while running, 2 wrong command line, 3 invalid settings, \
4 a port is taken, 5 NATS or Redis not reached in time, 6 stopped before all work was finished.";

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Serve until stopped (the default).
    Serve,
    /// Run real jobs on real files: digest documents, be denied a deletion, approve a publication.
    Demo(crate::demo::Args),
    /// Measure the embedded platform: jobs a second, and latencies.
    Bench(crate::bench::Args),
}

/// Options of the daemon.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
#[allow(clippy::doc_markdown, reason = "these comments are the help text")]
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Settings file [env: CORETEX_CONFIG, default: config/system.yaml if there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Role of this process; repeat for several [env: CORETEX_ROLES, default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub role: Vec<Role>,
    /// Embedded mode: data folder, or `:memory:` [env: CORETEX_DATA_DIR, default: ./coretex-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where HTTP listens [env: GATEWAY_HTTP_ADDR, default: :8081]
    #[arg(long, global = true, value_name = "ADDR")]
    pub http_addr: Option<String>,
    /// Where metrics and health are served without a key [env: GATEWAY_METRICS_ADDR, default: :9092]
    #[arg(long, global = true, value_name = "ADDR")]
    pub metrics_addr: Option<String>,
    /// Topics and pools [env: POOL_CONFIG_PATH, default: config/pools.yaml]
    #[arg(long, value_name = "FILE")]
    pub pools: Option<PathBuf>,
    /// Time limits [env: TIMEOUT_CONFIG_PATH, default: config/timeouts.yaml]
    #[arg(long, value_name = "FILE")]
    pub timeouts: Option<PathBuf>,
    /// Base policy [env: SAFETY_POLICY_URL, SAFETY_POLICY_PATH, default: config/safety.yaml]
    #[arg(long, value_name = "FILE|URL")]
    pub policy: Option<PathBuf>,
    /// How long to try to reach NATS and Redis at start [env: CORETEX_CONNECT_TIMEOUT, default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub connect_timeout: Option<Span>,
    /// How long a graceful stop may take [env: CORETEX_SHUTDOWN_TIMEOUT, default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub shutdown_timeout: Option<Span>,
    /// How log lines look [env: CORETEX_LOG_FORMAT, default: text]
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Serve other machines although no API key is set
    #[arg(long)]
    pub insecure_open: bool,
    /// Also run a worker on `job.default` that answers each job with its input, to try an installation
    #[arg(long)]
    pub echo_worker: bool,
    /// Print the settings in force as JSON, secrets masked, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Check all settings and files, and exit
    #[arg(long)]
    pub check_config: bool,
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string()).and_then(|span| {
        if span.0.is_zero() {
            Err("must be more than zero".to_owned())
        } else {
            Ok(span)
        }
    })
}
