//! `coretexd demo`: a real workflow on real files, with every verdict, in one command and without any server.
//!
//! `demo/workflow.yaml` is what runs: workers in this process digest documents (policy allows it), one is to be deleted (policy
//! denies it), the digests are gathered, a person reviews them (the workflow asks for it) and agrees that their index is
//! published (policy asks for it). The platform beneath is the embedded one, with the policy of `config/safety.yaml`.

mod digest;
mod embedded;
mod files;
mod keywords;
mod secrets;
mod summary;
mod terminal;
mod text;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use coretex_core::approvals::{Approvals, Verdict};
use coretex_core::audit::Actor;
use coretex_core::jobs::JobState;
use coretex_core::jobs::service::JobService;
use coretex_core::platform::Platform;
use coretex_core::protocol::{JobId, TenantId};
use coretex_core::workflow::model::Object;
use coretex_core::workflow::run::StepVote;
use coretex_core::workflow::service::{Start, Workflows};
use coretex_core::workflow::{Event, Run, RunId, RunStatus, StepKey, decode};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::{self, Gateway, Server, Services};
use crate::settings::HttpSettings;

use self::digest::Corpus;
use self::embedded::Home;
use self::terminal::{Answer, Terminal};

/// The topic of jobs that digest one document.
const DIGEST: &str = "job.demo.digest";
/// The topic of jobs that would delete one. Nobody serves it: policy never lets such a job through.
const DELETE: &str = "job.demo.delete";
/// The topic of jobs that publish the index.
const PUBLISH: &str = "job.demo.publish";
/// The workflow.
const WORKFLOW: &str = include_str!("demo/workflow.yaml");
/// Its id.
const WORKFLOW_ID: &str = "demo";

/// How often the run is looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// How long nothing may happen before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the platform may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Run a real workflow on real files: digest documents, be denied a deletion, approve a publication.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Without a PATH the README and the docs folder of the repository around are read. Nothing but the output folder is written.

Examples:
  coretexd demo
  coretexd demo ~/notes --yes
  coretexd demo --yes --stay      then, elsewhere: coretexctl run list")]
pub struct Args {
    /// Files and folders to digest
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Say yes to the review and to the publication without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Keep serving HTTP afterwards, until stopped
    #[arg(long)]
    pub stay: bool,
    /// Where index.json goes; data too, unless --data-dir says otherwise
    #[arg(long, value_name = "DIR", default_value = "coretex-demo")]
    pub out: PathBuf,
}

/// Runs the demo from beginning to end. With `--stay`, the jobs can be looked at over HTTP until `stop` is cancelled.
/// `data_dir` is the daemon's setting, if it is set: a folder or `:memory:`.
///
/// # Errors
/// If there is nothing to read, the data cannot be opened, the port is taken, or jobs do not end.
pub async fn run(
    args: Args,
    data_dir: Option<&str>,
    http: &HttpSettings,
    stop: Option<CancellationToken>,
) -> anyhow::Result<()> {
    // A port that is taken is told before anything is done.
    let port = match &stop {
        Some(_) => Some(
            gateway::bind(http.addr)
                .await
                .with_context(|| format!("cannot listen on {}; --http-addr names another address", http.addr))?,
        ),
        None => None,
    };
    let demo = Demo::start(args, data_dir).await?;
    let outcome = demo.run().await;
    if outcome.is_ok()
        && let (Some(port), Some(stop)) = (port, stop)
    {
        let services = Services::new(&demo.platform, TenantId::fallback(), "embedded");
        let draining = CancellationToken::new();
        let gateway = Gateway::new(services, http, draining.clone());
        terminal::note(&format!("serving http://{}; Ctrl-C stops it", port.local_addr()?));
        Server::new(port, gateway.router()).run(stop).await;
        draining.cancel();
        gateway.finish_writes().await;
    }
    demo.stop().await;
    outcome
}

/// A demo under way.
#[derive(Debug)]
struct Demo {
    args: Args,
    home: Home,
    platform: Platform,
    jobs: JobService,
    approvals: Approvals,
    workflows: Workflows,
    terminal: Terminal,
}

impl Demo {
    /// Starts an embedded platform for the demo.
    async fn start(args: Args, data_dir: Option<&str>) -> anyhow::Result<Self> {
        let home = Home::new(data_dir, &args.out);
        let platform = home.start().await?;
        let jobs = embedded::job_service(&platform);
        let approvals = Approvals::new(
            Arc::clone(&platform.stores.jobs),
            jobs.clone(),
            Arc::clone(&platform.kernel),
            platform.clock.clone(),
        );
        let workflows = platform.workflows.clone();
        Ok(Self {
            args,
            home,
            platform,
            jobs,
            approvals,
            workflows,
            terminal: Terminal::new(),
        })
    }

    /// Does all steps and prints what became of each.
    async fn run(&self) -> anyhow::Result<()> {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let paths = self.args.paths.clone();
        let found = tokio::task::spawn_blocking(move || files::find(&paths, &here)).await??;
        terminal::note(&format!("{} documents found", found.files.len()));
        for skipped in &found.skipped {
            terminal::note(&format!("left out: {skipped}"));
        }
        let corpus = Arc::new(tokio::task::spawn_blocking(move || Corpus::read(found.files)).await?);
        let mut crew = workers::start(&self.platform, Arc::clone(&corpus), &self.args.out).await?;

        let outcome = self.workflow_on(&corpus).await;
        if self.args.stay && outcome.is_ok() {
            // An approval may come later; the workers stay as long as the platform.
            self.platform.spawn(|stop| async move {
                stop.cancelled().await;
                crew.stop().await;
            });
        } else {
            crew.stop().await;
        }
        let run = self.workflows.run(&outcome?).await?;
        let summary = summary::Summary::gather(&self.jobs, &self.platform, &run).await?;
        terminal::print(&summary.render(&self.args.out))?;
        terminal::print(&self.what_now(&run.id))?;
        Ok(())
    }

    /// Stops the platform. What is in its data folder stays.
    async fn stop(&self) {
        self.platform.shutdown(GRACE).await;
        self.home.close().await;
    }

    /// Runs the workflow, until it ended or waits for somebody who is not here.
    async fn workflow_on(&self, corpus: &Corpus) -> anyhow::Result<RunId> {
        let definition = decode::yaml(WORKFLOW).context("the demo's workflow cannot be read")?;
        self.workflows.save(definition, None, &actor()).await?;
        let mut input = Object::new();
        input.insert("documents".to_owned(), corpus.names().collect());
        let file = self.args.out.join("index.json").display().to_string();
        input.insert("file".to_owned(), Value::String(file));
        let start = Start {
            workflow_id: WORKFLOW_ID.to_owned(),
            input,
            org_id: TenantId::fallback().to_string(),
            by: actor(),
            ..Start::default()
        };
        let id = self.workflows.start(start).await?.run;
        self.follow(&id, corpus.names().count()).await?;
        Ok(id)
    }

    /// Shows how far a run is, and asks what it and policy want to be asked.
    async fn follow(&self, id: &RunId, documents: usize) -> anyhow::Result<()> {
        let bar = terminal::bar(documents);
        let (mut reviewed, mut published) = (false, false);
        let (mut revision, mut changed) = (0, Instant::now());
        loop {
            let run = self.workflows.run(id).await?;
            bar.set_position(digested(&run));
            if run.head.status.is_terminal() {
                bar.finish_and_clear();
                return Ok(());
            }
            let step = |id: &str| run.steps.get(id);
            if !reviewed && let Some(review) = step("review").filter(|step| step.status == RunStatus::Waiting) {
                bar.finish_and_clear();
                reviewed = true;
                if !self.review(id, &review.prompt).await? {
                    return Ok(());
                }
                changed = Instant::now();
            }
            if !published
                && let Some(job) = step("publish").and_then(|step| step.job_id.as_ref())
                && self.jobs.record(job).await?.map(|job| job.state) == Some(JobState::ApprovalRequired)
            {
                published = true;
                if !self.decide(job).await? {
                    return Ok(());
                }
                changed = Instant::now();
            }
            if run.revision != revision {
                (revision, changed) = (run.revision, Instant::now());
            }
            if changed.elapsed() > PATIENCE {
                bail!("run {id} does not move: {}", stuck(&run));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Answers the approval step. False if it waits for somebody who is not here.
    async fn review(&self, run: &RunId, prompt: &str) -> anyhow::Result<bool> {
        let (approved, reason) = match self.ask(prompt).await {
            Answer::Yes => (true, self.yes()),
            Answer::No => (false, "said no on the terminal"),
            Answer::Nobody if self.args.stay => {
                terminal::note(&format!(
                    "there is no terminal to ask on; the review waits for: coretexctl approval step {WORKFLOW_ID} {run} review --approve"
                ));
                return Ok(false);
            }
            Answer::Nobody => {
                terminal::note(
                    "there is no terminal to ask on, so the review is not approved; --yes approves it without asking",
                );
                (false, NOBODY)
            }
        };
        let vote = Event::Vote {
            step: StepKey::new("review"),
            vote: StepVote {
                by: whoami(),
                approved,
                reason: reason.to_owned(),
                ..StepVote::default()
            },
        };
        self.workflows.apply(run, Some(WORKFLOW_ID), vote).await?;
        Ok(true)
    }

    /// Answers what policy asks. False if it waits for somebody who is not here.
    async fn decide(&self, job: &JobId) -> anyhow::Result<bool> {
        let verdict = |reason: &str| Verdict {
            by: whoami(),
            reason: reason.to_owned(),
            ..Verdict::default()
        };
        match self.ask("Policy wants a person to agree as well: publish it?").await {
            Answer::Yes => drop(self.approvals.approve(job, &verdict(self.yes())).await?),
            Answer::No => self.approvals.reject(job, &verdict("said no on the terminal")).await?,
            Answer::Nobody if self.args.stay => {
                terminal::note(&format!(
                    "there is no terminal to ask on; the publication waits for: coretexctl approval approve {job}"
                ));
                return Ok(false);
            }
            Answer::Nobody => self.approvals.reject(job, &verdict(NOBODY)).await?,
        }
        Ok(true)
    }

    async fn ask(&self, question: &str) -> Answer {
        if self.args.yes {
            return Answer::Yes;
        }
        self.terminal.ask(question).await
    }

    /// Why it is a yes.
    fn yes(&self) -> &'static str {
        if self.args.yes {
            "demo --yes"
        } else {
            "asked on the terminal"
        }
    }

    /// How to go on from here.
    fn what_now(&self, run: &RunId) -> String {
        let look = format!("coretexctl run get {run}\n  coretexctl run timeline {run}");
        let job = format!("coretexctl job explain '{run}:publish@1'");
        match (self.args.stay, self.home.folder()) {
            (true, _) => format!("Look closer:\n  {look}\n  {job}"),
            (false, Some(folder)) => format!(
                "Look closer:\n  coretexd --data-dir {} &\n  {look}\n  {job}",
                folder.display()
            ),
            (false, None) => format!("Look closer: run it again with --stay, then\n  {look}\n  {job}"),
        }
    }
}

/// Why nobody said yes.
const NOBODY: &str = "nobody to ask; --yes approves without asking";

/// How many documents are done.
fn digested(run: &Run) -> u64 {
    let group = run.steps.get("digest").and_then(|step| step.group.as_ref());
    group.map_or(0, |group| u64::from(group.succeeded + group.failed))
}

/// The steps that are open, for people.
fn stuck(run: &Run) -> String {
    let open = run.steps.iter().filter(|(_, step)| !step.status.is_terminal());
    open.map(|(key, step)| format!("{key} is {}", step.status.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn actor() -> Actor {
    Actor::new(whoami(), "")
}

/// Who sits here, as far as the environment says.
fn whoami() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "operator".to_owned())
}
