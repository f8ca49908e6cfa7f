//! The coretexd binary: reads settings, runs the daemon, and listens for signals.

use std::process::ExitCode;

use clap::Parser as _;
use coretexd::roles::Documents;
use coretexd::settings::{self, Cli, Command, Settings};
use coretexd::{Failure, env_vars, logging, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Both fail only if a provider is there already, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let settings = match settings::load(&cli.flags, &|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(problem) => return fail(&problem.into()),
    };
    if cli.flags.print_config {
        return print(&settings);
    }
    let command = cli.command.unwrap_or(Command::Serve);
    let quiet = !matches!(command, Command::Serve) && std::env::var(env_vars::LOG).is_err();
    // Beside a demo or a bench, the lifecycle of a platform is noise.
    logging::init(settings.log_format, if quiet { "warn" } else { &settings.log_filter });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => return fail(&Failure::Start(format!("cannot start threads: {problem}"))),
    };
    let result = runtime.block_on(async {
        if cli.flags.check_config {
            return Documents::load(&settings).await.map(|_| {
                tracing::info!("settings and files are fine");
            });
        }
        let data_dir = cli.flags.data_dir.clone().or_else(|| {
            let set = std::env::var(env_vars::DATA_DIR).ok();
            set.filter(|folder| !folder.trim().is_empty())
        });
        match command {
            Command::Serve => run(&settings, stop_on_signals()?).await,
            Command::Demo(args) => demo(args, data_dir.as_deref(), &settings).await,
            Command::Bench(args) => coretexd::bench::run(&args, data_dir.as_deref())
                .await
                .map_err(|problem| Failure::Start(format!("{problem:#}"))),
            // Commands beside these are listed in `settings::Command`.
            _ => Err(Failure::Start("unknown command".to_owned())),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    anstream::eprintln!("coretexd: {failure}");
    failure.exit_code()
}

fn print(settings: &Settings) -> ExitCode {
    use std::io::Write as _;
    match serde_json::to_string_pretty(settings) {
        Ok(json) => {
            // A closed pipe is no error.
            drop(writeln!(std::io::stdout(), "{json}"));
            ExitCode::SUCCESS
        }
        Err(problem) => fail(&Failure::Start(problem.to_string())),
    }
}

/// Runs the demo; one that stays goes on until it is told to stop.
async fn demo(args: coretexd::demo::Args, data_dir: Option<&str>, settings: &Settings) -> Result<(), Failure> {
    let stop = if args.stay { Some(stop_on_signals()?) } else { None };
    coretexd::demo::run(args, data_dir, &settings.http, stop)
        .await
        .map_err(|problem| Failure::Start(format!("{problem:#}")))
}

/// A token that is cancelled by SIGTERM or SIGINT; a second one ends the process at once.
fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let no_signals = |problem: std::io::Error| Failure::Start(format!("cannot listen for signals: {problem}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let signals = TaskTracker::new();
    let stopping = stop.clone();
    signals.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        error!("second signal: leaving at once");
        warn!("what was acknowledged is kept; what was running is taken up at the next start");
        #[expect(clippy::exit, reason = "the operator insists")]
        std::process::exit(130);
    });
    Ok(stop)
}
