//! `coretexd demo`: real jobs on real files, with every verdict, in one command and without any server.
//!
//! Workers in this process digest documents (allowed), somebody asks to delete one (denied), and the index of all digests is
//! published once a person agrees. The platform beneath is the embedded one, with the policy of `config/safety.yaml`.

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
use coretex_core::jobs::service::{JobService, SubmitRequest};
use coretex_core::jobs::{JobRecord, JobState};
use coretex_core::platform::Platform;
use coretex_core::protocol::{JobId, TenantId};
use serde::Serialize;
use serde_json::value::RawValue;
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
/// Who asks in this demo.
const PRINCIPAL: &str = "demo";

/// How often open jobs are looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// How long nothing may happen before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the platform may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Run real jobs on real files: digest documents, be denied a deletion, approve a publication.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Without a PATH the README and the docs folder of the repository around are read. Nothing but the output folder is written.

Examples:
  coretexd demo
  coretexd demo ~/notes --yes
  coretexd demo --yes --stay      then, elsewhere: coretexctl job list")]
pub struct Args {
    /// Files and folders to digest
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Approve the publication without asking
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
        Ok(Self {
            args,
            home,
            platform,
            jobs,
            approvals,
            terminal: Terminal::new(),
        })
    }

    /// Does all jobs and prints what became of each.
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

        let outcome = self.jobs_of(&corpus).await;
        if self.args.stay && outcome.is_ok() {
            // An approval may come later; the workers stay as long as the platform.
            self.platform.spawn(|stop| async move {
                stop.cancelled().await;
                crew.stop().await;
            });
        } else {
            crew.stop().await;
        }
        let ids = outcome?;
        let summary = summary::Summary::gather(&self.jobs, &self.platform, &ids).await?;
        terminal::print(&summary.render(&self.args.out))?;
        terminal::print(&self.what_now(&ids))?;
        Ok(())
    }

    /// Stops the platform. What is in its data folder stays.
    async fn stop(&self) {
        self.platform.shutdown(GRACE).await;
        self.home.close().await;
    }

    /// Submits everything and waits until it is over; the jobs in the order of the summary.
    async fn jobs_of(&self, corpus: &Corpus) -> anyhow::Result<Vec<JobId>> {
        let mut digests = Vec::new();
        for name in corpus.names() {
            let input = workers::Document { path: name.to_owned() };
            let id = self
                .submit(DIGEST, &format!("Digest {name}"), &input, &["read"])
                .await?;
            digests.push((name.to_owned(), id));
        }
        let Some((victim, _)) = digests.first() else {
            bail!("there is no document");
        };
        let input = workers::Document { path: victim.clone() };
        let delete = self
            .submit(
                DELETE,
                &format!("Delete {victim}, now that it is digested"),
                &input,
                &["write", "delete"],
            )
            .await?;

        let mut open: Vec<JobId> = digests.iter().map(|(_, id)| id.clone()).collect();
        open.push(delete);
        let bar = terminal::bar(open.len());
        let ended = self
            .until(
                &open,
                |job| job.state.is_terminal(),
                |done| bar.set_position(done as u64),
            )
            .await;
        bar.finish_and_clear();
        ended?;

        let index = workers::Publication {
            digests: digests
                .iter()
                .map(|(path, id)| workers::Published {
                    path: path.clone(),
                    result: coretex_core::pointers::Pointer::result(id).to_string(),
                })
                .collect(),
        };
        let prompt = format!("Publish the index of {} digests", digests.len());
        let publish = self.submit(PUBLISH, &prompt, &index, &["publish"]).await?;
        self.decide(&publish).await?;
        open.push(publish);
        Ok(open)
    }

    /// Asks for the approval of a job, and waits for its end; a job that nobody may approve here stays as it is.
    async fn decide(&self, id: &JobId) -> anyhow::Result<()> {
        let one = std::slice::from_ref(id);
        let waits = |job: &JobRecord| job.state.is_terminal() || job.state == JobState::ApprovalRequired;
        self.until(one, waits, |_| ()).await?;
        let state = self.jobs.record(id).await?.map(|job| job.state);
        if state == Some(JobState::ApprovalRequired) {
            let file = self.args.out.join("index.json");
            let question = format!(
                "Policy wants a person to decide: publish the index to {}?",
                file.display()
            );
            let answer = if self.args.yes {
                Answer::Yes
            } else {
                self.terminal.ask(&question).await
            };
            let verdict = |reason: &str| Verdict {
                by: whoami(),
                reason: reason.to_owned(),
                ..Verdict::default()
            };
            match answer {
                Answer::Yes if self.args.yes => drop(self.approvals.approve(id, &verdict("demo --yes")).await?),
                Answer::Yes => drop(self.approvals.approve(id, &verdict("asked on the terminal")).await?),
                Answer::No => self.approvals.reject(id, &verdict("said no on the terminal")).await?,
                Answer::Nobody if self.args.stay => {
                    terminal::note(&format!(
                        "there is no terminal to ask on; the publication waits for: coretexctl approval approve {id}"
                    ));
                    return Ok(());
                }
                Answer::Nobody => {
                    terminal::note(
                        "there is no terminal to ask on, so the publication is not approved; --yes approves it without asking",
                    );
                    self.approvals
                        .reject(id, &verdict("nobody to ask; --yes approves without asking"))
                        .await?;
                }
            }
        }
        self.until(one, |job| job.state.is_terminal(), |_| ()).await
    }

    async fn submit(
        &self,
        topic: &str,
        prompt: &str,
        input: &(impl Serialize + Sync),
        risk_tags: &[&str],
    ) -> anyhow::Result<JobId> {
        let context: Box<RawValue> = serde_json::value::to_raw_value(input)?;
        let request = SubmitRequest {
            prompt: prompt.to_owned(),
            topic: Some(topic.to_owned()),
            context: Some(context),
            principal_id: PRINCIPAL.to_owned(),
            actor_type: "service".to_owned(),
            risk_tags: risk_tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..SubmitRequest::default()
        };
        Ok(self.jobs.submit(request).await?.job_id)
    }

    /// Waits until all these jobs are as `done` wants them; `progress` gets how many are.
    async fn until(
        &self,
        ids: &[JobId],
        done: impl Fn(&JobRecord) -> bool,
        progress: impl Fn(usize),
    ) -> anyhow::Result<()> {
        let (mut last, mut changed) = (0, Instant::now());
        loop {
            let records = self.platform.stores.jobs.get_many(ids).await?;
            let count = records.iter().flatten().filter(|job| done(job)).count();
            progress(count);
            if count == ids.len() {
                return Ok(());
            }
            if count != last {
                (last, changed) = (count, Instant::now());
            }
            if changed.elapsed() > PATIENCE {
                let stuck = records.iter().flatten().find(|job| !done(job));
                bail!(
                    "{} of {} jobs do not move; the first one is {}",
                    ids.len() - count,
                    ids.len(),
                    stuck.map_or_else(|| "gone".to_owned(), describe)
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How to go on from here.
    fn what_now(&self, ids: &[JobId]) -> String {
        let Some(last) = ids.last() else { return String::new() };
        let look = format!("coretexctl job explain {last}");
        match (self.args.stay, self.home.folder()) {
            (true, _) => format!("Look closer:\n  {look}\n  coretexctl job list"),
            (false, Some(folder)) => format!("Look closer:\n  coretexd --data-dir {} &\n  {look}", folder.display()),
            (false, None) => format!("Look closer: run it again with --stay, then\n  {look}"),
        }
    }
}

fn describe(job: &JobRecord) -> String {
    let why = job
        .pending
        .as_ref()
        .map(|note| format!(" ({})", note.detail))
        .unwrap_or_default();
    format!("{} on {}, {}{why}", job.id, job.topic, job.state)
}

/// Who sits here, as far as the environment says.
fn whoami() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "operator".to_owned())
}
