//! A daemon, its servers, a worker and clients, and the books on what each of them was told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{Bus, Message};
use coretex_core::jobs::{JobRecord, JobState, JobStoreExt};
use coretex_core::protocol::agent::JobRequest;
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::{JobId, encode_packet, packet, subjects};
use coretex_core::test_util::servers::{self, Daemon, NatsServer, Probe, RedisServer, free_address};
use coretex_core::test_util::wait::until_within;
use coretex_core::time::{Clock, Timestamp};
use coretex_sdk::{Running, Worker};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How much longer than the outages that it met a job may wait for its end. The aim is five seconds, and each test prints
/// what it was. On a slow machine that proves nothing: a daemon that is killed as soon as it is up may not get to anything,
/// and what it was given then waits for the ack wait, or for the daemon to be known as dead, before the next one has it.
const SLACK: Duration = Duration::from_secs(60);
/// How long the tests wait for the last job to end: for thousands of jobs, on any machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Embedded,
    Nats,
    JetStream,
}

/// When something was down, as far as clients and jobs can tell.
type Outages = Arc<Mutex<Vec<(Timestamp, Timestamp)>>>;

pub(super) struct System {
    backend: Backend,
    daemons: Vec<(Daemon, SocketAddr)>,
    worker: Option<Running>,
    /// How often each job was run.
    runs: Arc<Mutex<HashMap<String, usize>>>,
    nats: Option<NatsServer>,
    redis: Option<RedisServer>,
    outages: Outages,
    down_since: Option<Timestamp>,
    clock: Clock,
    folder: tempfile::TempDir,
}

impl System {
    pub(super) async fn start(backend: Backend, replicas: usize) -> Self {
        // A provider that is there already is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let (nats, redis) = match backend {
            Backend::Embedded => (None, None),
            Backend::Nats | Backend::JetStream => {
                let mut options = servers::NatsOptions::default();
                options.jetstream = backend == Backend::JetStream;
                let mut durable = servers::RedisOptions::default();
                durable.durable = true;
                (
                    Some(NatsServer::start_with(options).await),
                    Some(RedisServer::start_with(durable).await),
                )
            }
        };
        let mut system = Self {
            backend,
            daemons: Vec::new(),
            worker: None,
            runs: Arc::default(),
            nats,
            redis,
            outages: Arc::default(),
            down_since: None,
            clock: Clock::system(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        for i in 0..replicas {
            let daemon = system.daemon(i);
            system.daemons.push(daemon);
            system.start_daemon(i).await;
        }
        if let (Some(nats), Some(redis)) = (&system.nats, &system.redis) {
            system.worker = Some(start_worker(&nats.url(), &redis.url(), Arc::clone(&system.runs)).await);
        }
        system
    }

    fn daemon(&self, i: usize) -> (Daemon, SocketAddr) {
        let (http, metrics) = (free_address(), free_address());
        let mut daemon = Daemon::new(&format!("coretexd-{i}"), env!("CARGO_BIN_EXE_coretexd"))
            .clear_env()
            .env("GATEWAY_HTTP_ADDR", http.to_string())
            .env("GATEWAY_METRICS_ADDR", metrics.to_string())
            .env("API_RATE_LIMIT_RPS", "0")
            .current_dir(self.folder.path())
            .ready(Probe::Http {
                address: http,
                path: "/ready".to_owned(),
                status: 200,
            });
        daemon = match (&self.nats, &self.redis) {
            (Some(nats), Some(redis)) => daemon.env("NATS_URL", nats.url()).env("REDIS_URL", redis.url()),
            _ => daemon.args(["--echo-worker"]).env("CORETEX_DATA_DIR", self.data()),
        };
        if self.backend == Backend::JetStream {
            daemon = daemon.env("NATS_USE_JETSTREAM", "1");
        }
        (daemon, http)
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Lets the load go on for a while; nothing is waited for.
    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(super) fn kill_daemon(&mut self, i: usize) {
        self.down();
        self.daemons[i].0.kill();
    }

    pub(super) async fn start_daemon(&mut self, i: usize) {
        self.daemons[i].0.start().await;
        self.up();
    }

    pub(super) async fn restart_redis(&mut self) {
        self.down();
        self.redis.as_mut().expect("there is one").restart().await;
        self.up();
    }

    pub(super) async fn restart_nats(&mut self) {
        self.down();
        self.nats.as_mut().expect("there is one").restart().await;
        self.up();
    }

    fn down(&mut self) {
        self.down_since = Some(self.clock.now());
    }

    fn up(&mut self) {
        if let Some(since) = self.down_since.take() {
            self.outages.lock().push((since, self.clock.now()));
        }
    }

    /// Clients that submit until they are stopped, each a job every few milliseconds, to any replica; on JetStream, one of
    /// them on the bus.
    pub(super) fn load(&self, clients: usize) -> Load {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let addresses: Vec<SocketAddr> = self.daemons.iter().map(|(_, http)| *http).collect();
        let sent = Arc::new(AtomicUsize::new(0));
        for client in 0..clients {
            let (stop, sent, addresses) = (stop.clone(), Arc::clone(&sent), addresses.clone());
            let bus_url = (client == 0 && self.backend == Backend::JetStream)
                .then(|| self.nats.as_ref().expect("there is one").url());
            tasks.spawn(async move {
                let mut accepted = Vec::new();
                let clock = Clock::system();
                let http = reqwest::Client::builder()
                    .timeout(Duration::from_secs(5))
                    .build()
                    .expect("a client");
                let bus = match bus_url {
                    Some(url) => Some(connect(&url).await),
                    None => None,
                };
                while !stop.is_cancelled() {
                    let n = sent.fetch_add(1, Ordering::Relaxed);
                    let id = match &bus {
                        Some(bus) => publish(bus, n).await,
                        None => post(&http, addresses[n % addresses.len()], n).await,
                    };
                    if let Some(id) = id {
                        accepted.push((id, clock.now()));
                    }
                    // The pace of the load.
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                accepted
            });
        }
        Load { stop, tasks }
    }

    /// Waits for the end of every accepted job, and checks what the store says of each.
    pub(super) async fn check(mut self, accepted: Vec<(JobId, Timestamp)>) {
        let count = accepted.len();
        match self.backend {
            Backend::Embedded => self.wait_over_http(&accepted).await,
            Backend::Nats | Backend::JetStream => self.wait_in_redis(&accepted).await,
        }
        if let Some(mut worker) = self.worker.take() {
            worker.stop().await.expect("the worker stops");
        }
        for (daemon, _) in &mut self.daemons {
            if daemon.is_running() {
                let status = daemon.stop().await;
                assert!(
                    status.success(),
                    "the daemon stops well: {status}\n{}",
                    daemon.log_tail()
                );
            }
        }
        let stores = self.stores().await;
        let mut ends: HashMap<JobState, usize> = HashMap::new();
        let mut longest = Duration::ZERO;
        let mut slowest = None;
        for (id, at) in &accepted {
            let record = stores
                .jobs
                .get(id)
                .await
                .expect("the store answers")
                .expect("the job is there");
            *ends.entry(record.state).or_default() += 1;
            let ended = self.ended_once(&stores, id).await;
            let waited = self.waited(*at, ended);
            if waited >= longest {
                longest = waited;
                slowest = Some(record.clone());
            }
            self.judge(&record);
        }
        eprintln!("{count} jobs accepted, ended {ends:?}; longest wait beyond outages {longest:?}");
        assert!(
            longest <= SLACK,
            "a job waited {longest:?} longer than the outages: {slowest:?}"
        );
        let twice: Vec<_> = self
            .runs
            .lock()
            .iter()
            .filter(|(_, runs)| **runs > 1)
            .map(|(id, runs)| (id.clone(), *runs))
            .collect();
        assert!(
            twice.is_empty(),
            "the worker was never lost, and still these ran more than once: {twice:?}"
        );
    }

    fn judge(&self, record: &JobRecord) {
        let (state, code) = (record.state, record.outcome.error_code.as_str());
        match self.backend {
            // The worker lives in the process that is killed: what it had confirmed is lost with it.
            Backend::Embedded => {
                assert!(
                    state == JobState::Succeeded || (state == JobState::Timeout && code == "worker_lost"),
                    "{record:?}"
                );
            }
            Backend::Nats | Backend::JetStream => assert_eq!(state, JobState::Succeeded, "{record:?}"),
        }
    }

    /// When the job ended: there is exactly one end in its history.
    async fn ended_once(&self, stores: &Stores, id: &JobId) -> Timestamp {
        let events = stores.jobs.events(id).await.expect("the store answers");
        let ends: Vec<_> = events.iter().filter(|(_, state)| state.is_terminal()).collect();
        assert_eq!(ends.len(), 1, "{id}: {events:?}");
        ends[0].0
    }

    /// How long a job took, without the time in which something was down.
    fn waited(&self, from: Timestamp, to: Timestamp) -> Duration {
        let down: Duration = self
            .outages
            .lock()
            .iter()
            .map(|(since, until)| to.min(*until).since(from.max(*since)))
            .sum();
        to.since(from).saturating_sub(down)
    }

    async fn wait_in_redis(&self, accepted: &[(JobId, Timestamp)]) {
        let stores = self.stores().await;
        let open: Mutex<Vec<(JobId, Option<JobRecord>)>> =
            Mutex::new(accepted.iter().map(|(id, _)| (id.clone(), None)).collect());
        let waiting = until_within(PATIENCE, "every accepted job ends", || async {
            let ids: Vec<JobId> = open.lock().iter().map(|(id, _)| id.clone()).collect();
            let records = stores.jobs.get_many(&ids).await.ok()?;
            let over = |record: &Option<JobRecord>| record.as_ref().is_some_and(|record| record.state.is_terminal());
            let still: Vec<_> = ids
                .into_iter()
                .zip(records)
                .filter(|(_, record)| !over(record))
                .collect();
            let done = still.is_empty();
            *open.lock() = still;
            done.then_some(())
        });
        if tokio::time::timeout(PATIENCE.mul_f32(0.95), waiting).await.is_err() {
            let open = open.lock();
            let logs: String = self.daemons.iter().map(|(daemon, _)| daemon.log_tail()).collect();
            panic!(
                "{} of {} jobs are not over: {:#?}\n{logs}",
                open.len(),
                accepted.len(),
                open.iter().take(5).collect::<Vec<_>>()
            );
        }
    }

    async fn wait_over_http(&self, accepted: &[(JobId, Timestamp)]) {
        let http = reqwest::Client::new();
        for (id, _) in accepted {
            let url = format!("http://{}/api/v1/jobs/{id}", self.daemons[0].1);
            until_within(PATIENCE, &format!("job {id} ends"), || async {
                let body = http.get(&url).send().await.ok()?.text().await.ok()?;
                let job: Value = serde_json::from_str(&body).ok()?;
                job["state"]
                    .as_str()?
                    .parse::<JobState>()
                    .ok()?
                    .is_terminal()
                    .then_some(())
            })
            .await;
        }
    }

    async fn stores(&self) -> Stores {
        match &self.redis {
            Some(redis) => RedisStores::connect(&redis.url(), RedisOptions::default())
                .await
                .expect("redis"),
            None => EmbeddedStores::open(&Location::Disk(self.data()), &embedded::Options::default())
                .expect("the daemon has let go of its file")
                .stores(),
        }
    }
}

/// Clients at work.
pub(super) struct Load {
    stop: CancellationToken,
    tasks: JoinSet<Vec<(JobId, Timestamp)>>,
}

impl Load {
    /// Stops them; returns the jobs that were acknowledged, and when.
    pub(super) async fn stop(self) -> Vec<(JobId, Timestamp)> {
        self.stop.cancel();
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn connect(url: &str) -> NatsBus {
    NatsBus::connect(NatsOptions::new(url).with_jetstream(JetStreamOptions::default()))
        .await
        .expect("nats")
}

async fn post(http: &reqwest::Client, address: SocketAddr, n: usize) -> Option<JobId> {
    let body = json!({"prompt": format!("job {n}"), "topic": "job.default"});
    let answer = http
        .post(format!("http://{address}/api/v1/jobs"))
        .json(&body)
        .send()
        .await
        .ok()?;
    if answer.status() != 200 {
        return None;
    }
    let answer: Value = answer.json().await.ok()?;
    JobId::try_new(answer["job_id"].as_str()?).ok()
}

async fn publish(bus: &NatsBus, n: usize) -> Option<JobId> {
    let id = JobId::try_new(&format!("bus-{n}-{}", JobId::random())).ok()?;
    let request = JobRequest {
        job_id: id.to_string(),
        topic: "job.default".to_owned(),
        ..JobRequest::default()
    };
    let message = Message {
        subject: subjects::SUBMIT.to_owned(),
        payload: encode_packet(&packet(
            "trace",
            "client",
            Clock::system().now(),
            Payload::JobRequest(request),
        )),
        message_id: Some(format!("jobreq:{id}")),
    };
    bus.publish(message).await.ok()?;
    Some(id)
}

async fn start_worker(nats: &str, redis: &str, runs: Arc<Mutex<HashMap<String, usize>>>) -> Running {
    let worker = Worker::builder()
        .id("w1")
        .pool("default")
        .nats(nats)
        .redis(redis)
        .max_parallel_jobs(64)
        .heartbeat_interval(Duration::from_millis(500))
        .handle("job.default", move |ctx, _: Value| {
            let runs = Arc::clone(&runs);
            async move {
                *runs.lock().entry(ctx.job_id().to_string()).or_default() += 1;
                // Some take a while, so that a kill finds them running.
                if ctx.job_id().as_str().ends_with(['0', '8']) {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
                Ok(json!({"ok": true}))
            }
        });
    worker.start().await.expect("the worker starts")
}
