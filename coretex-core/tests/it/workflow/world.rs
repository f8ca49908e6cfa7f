//! A control plane that runs workflows, with workers that do as they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coretex_core::approvals::Approvals;
use coretex_core::audit::Actor;
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{self, Bus, Health, Message, SubscribeOptions, Subscription};
use coretex_core::jobs::service::JobService;
use coretex_core::platform::Platform;
use coretex_core::pointers::Pointer;
use coretex_core::policy::{Kernel, LocalKernel};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{Heartbeat, JobCancel, JobRequest, JobResult, JobStatus};
use coretex_core::protocol::{JobId, TenantId, decode_packet, encode_packet, packet, subjects};
use coretex_core::routing::Routing;
use coretex_core::test_util::servers::{self, NatsServer, RedisServer};
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;
use coretex_core::workflow::service::{Definition, Start, Workflows};
use coretex_core::workflow::{Run, RunId, RunStatus, Workflow};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Disk,
    Nats,
    JetStream,
}

const POLICY: &str = r#"
version: "1"
default_decision: allow
rules:
  - {id: no-danger, decision: deny, reason: too dangerous, match: {topics: ["job.danger"]}}
  - {id: ask, decision: require_approval, reason: ask first, match: {topics: ["job.careful"]}}
"#;

/// What a worker does with a job.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// It succeeds with this output.
    Output(Value),
    /// It succeeds and says that its output is there.
    Pointer(String),
    /// It fails with a code and a message.
    Fail(&'static str, &'static str),
    /// It says nothing.
    Silence,
}

/// Loses the first submissions of jobs, and says that it did not.
#[derive(Debug)]
struct Lossy {
    bus: Arc<dyn Bus>,
    lose: AtomicUsize,
}

impl Lossy {
    fn loses(&self, message: &Message) -> bool {
        message.subject == subjects::SUBMIT
            && self
                .lose
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
    }
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, message: Message) -> Result<(), bus::Error> {
        if self.loses(&message) {
            return Ok(());
        }
        self.bus.publish(message).await
    }

    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), bus::Error>> {
        let mut results = Vec::new();
        for message in messages {
            results.push(self.publish(message).await);
        }
        results
    }

    async fn dispatch(&self, messages: Vec<(JobId, Message)>) -> Vec<Result<(), bus::Error>> {
        self.bus.dispatch(messages).await
    }

    fn undelivered(&self) -> Option<mpsc::Receiver<JobId>> {
        self.bus.undelivered()
    }

    async fn subscribe(&self, subject: &str, options: SubscribeOptions) -> Result<Subscription, bus::Error> {
        self.bus.subscribe(subject, options).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.bus.health()
    }

    async fn drain(&self) {
        self.bus.drain().await;
    }
}

/// What workers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The jobs that were asked for, in order.
    pub(crate) jobs: Mutex<Vec<JobRequest>>,
    /// The jobs that are to be stopped.
    pub(crate) cancels: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn ids(&self) -> Vec<String> {
        self.jobs.lock().iter().map(|job| job.job_id.clone()).collect()
    }

    /// The steps that were asked for, in order.
    pub(crate) fn steps(&self) -> Vec<String> {
        let jobs = self.jobs.lock();
        jobs.iter()
            .filter_map(|job| job.job_id.rsplit_once(':').map(|(_, step)| step.to_owned()))
            .collect()
    }
}

pub(crate) struct World {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) stores: Stores,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) clock: Clock,
    pub(crate) lose: usize,
    backend: Backend,
    kernel: Arc<dyn Kernel>,
    servers: Option<(NatsServer, RedisServer)>,
    database: Option<EmbeddedStores>,
    folder: Option<tempfile::TempDir>,
    workers: TaskTracker,
    stop: CancellationToken,
}

impl World {
    /// Bus and stores, and nobody at work.
    pub(crate) async fn idle(backend: Backend) -> Self {
        let servers = match backend {
            Backend::Memory | Backend::Disk => None,
            Backend::Nats => Some((NatsServer::start().await, RedisServer::start().await)),
            Backend::JetStream => Some((
                NatsServer::start_with(servers::NatsOptions::jetstream()).await,
                RedisServer::start().await,
            )),
        };
        let folder = (backend == Backend::Disk).then(|| tempfile::tempdir().expect("a folder"));
        let (database, stores) = match &servers {
            None => {
                let database = open(folder.as_ref());
                let stores = database.stores();
                (Some(database), stores)
            }
            Some((_, redis)) => {
                let stores = RedisStores::connect(&redis.url(), RedisOptions::default())
                    .await
                    .expect("redis");
                (None, stores)
            }
        };
        let kernel = LocalKernel::from_document(POLICY, "test.yaml").expect("a policy");
        let mut world = Self {
            bus: Arc::new(InProcessBus::new()),
            stores,
            platforms: Vec::new(),
            clock: Clock::system(),
            lose: 0,
            backend,
            kernel: Arc::new(kernel),
            servers,
            database,
            folder,
            workers: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        world.bus = world.connect().await;
        world
    }

    pub(crate) async fn new(backend: Backend) -> Self {
        let mut world = Self::idle(backend).await;
        world.start().await;
        world
    }

    /// A connection of one's own to the same bus.
    async fn connect(&self) -> Arc<dyn Bus> {
        let Some((nats, _)) = &self.servers else {
            return Arc::clone(&self.bus);
        };
        let mut options = NatsOptions::new(&nats.url());
        if self.backend == Backend::JetStream {
            options = options.with_jetstream(JetStreamOptions::default());
        }
        Arc::new(NatsBus::connect(options).await.expect("nats"))
    }

    /// One more process that schedules jobs and runs workflows.
    pub(crate) async fn start(&mut self) {
        let routing = ["job.default", "job.danger", "job.careful", "job.other"]
            .into_iter()
            .fold(Routing::default(), |routing, topic| {
                routing.with_topic(topic, ["default"])
            });
        let bus: Arc<dyn Bus> = Arc::new(Lossy {
            bus: self.connect().await,
            lose: AtomicUsize::new(self.lose),
        });
        let platform = Platform::builder(bus, self.stores.clone(), Arc::clone(&self.kernel))
            .routing(routing)
            .clock(self.clock.clone())
            .start()
            .await
            .expect("started");
        self.platforms.push(platform);
    }

    /// All processes stop, and with them what is only in memory; a database on disk is opened again.
    pub(crate) async fn stop(&mut self) {
        for platform in self.platforms.drain(..) {
            assert!(platform.shutdown(Duration::from_secs(30)).await, "stopped");
        }
        if self.servers.is_none() {
            // It is closed by now, and with it the workers of this world.
            self.bus = Arc::new(InProcessBus::new());
        }
        if let (Some(_), Some(database)) = (&self.folder, self.database.take()) {
            database.close().await;
            drop(database);
            self.stores = placeholder();
            let database = open(self.folder.as_ref());
            self.stores = database.stores();
            self.database = Some(database);
        }
    }

    /// Workflows, as the gateway of the first process offers them.
    pub(crate) fn workflows(&self) -> Workflows {
        self.platforms[0].workflows.clone()
    }

    /// A worker that answers jobs by this function, for as long as the world stands.
    pub(crate) async fn worker(&self, answer: impl Fn(&JobRequest) -> Answer + Send + Sync + 'static) -> Arc<Seen> {
        let seen = Arc::new(Seen::default());
        let bus = self.connect().await;
        let mut jobs = bus
            .subscribe("worker.w1.jobs", SubscribeOptions::tap())
            .await
            .expect("subscribed");
        let mut cancels = bus
            .subscribe(subjects::CANCEL, SubscribeOptions::tap())
            .await
            .expect("subscribed");
        let (stop, payloads, notes) = (self.stop.clone(), Arc::clone(&self.stores.payloads), Arc::clone(&seen));
        heartbeat(&*bus).await;
        self.workers.spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(500));
            loop {
                let delivery = tokio::select! {
                    () = stop.cancelled() => return,
                    _ = beat.tick() => {
                        heartbeat(&*bus).await;
                        continue;
                    }
                    cancel = cancels.next() => {
                        let Some(delivery) = cancel else { return };
                        if let Some(Payload::JobCancel(JobCancel { job_id, .. })) =
                            decode_packet(&delivery.payload).expect("a packet").payload
                        {
                            notes.cancels.lock().push(job_id);
                        }
                        continue;
                    }
                    delivery = jobs.next() => delivery,
                };
                let Some(delivery) = delivery else { return };
                let Some(Payload::JobRequest(request)) = decode_packet(&delivery.payload).expect("a packet").payload
                else {
                    continue;
                };
                let answer = answer(&request);
                notes.jobs.lock().push(request.clone());
                let mut result = JobResult {
                    job_id: request.job_id.clone(),
                    worker_id: "w1".to_owned(),
                    ..JobResult::default()
                };
                match answer {
                    Answer::Silence => continue,
                    Answer::Output(output) => {
                        let id = JobId::try_new(&request.job_id).expect("an id");
                        let pointer = Pointer::result(&id);
                        payloads
                            .put(&pointer, Bytes::from(output.to_string()), None)
                            .await
                            .expect("put");
                        result.status = JobStatus::Succeeded.into();
                        result.result_ptr = pointer.to_string();
                    }
                    Answer::Pointer(pointer) => {
                        result.status = JobStatus::Succeeded.into();
                        result.result_ptr = pointer;
                    }
                    Answer::Fail(code, message) => {
                        result.status = JobStatus::Failed.into();
                        result.error_code = code.to_owned();
                        result.error_message = message.to_owned();
                    }
                }
                publish(&*bus, subjects::RESULT, Payload::JobResult(result)).await;
            }
        });
        seen
    }

    /// A worker whose output names the job.
    pub(crate) async fn echo(&self) -> Arc<Seen> {
        self.worker(|request| Answer::Output(json!({"job": request.job_id})))
            .await
    }

    /// Stores a definition.
    pub(crate) async fn define(&self, document: Value) -> String {
        let workflow: Workflow = serde_json::from_value(document.clone()).expect("a definition");
        let given = document
            .as_object()
            .expect("an object")
            .keys()
            .map(|name| name.to_lowercase())
            .collect();
        let definition = Definition {
            workflow,
            given,
            ..Definition::default()
        };
        let saved = self.workflows().save(definition, None, &somebody()).await;
        saved.expect("saved").id
    }

    pub(crate) async fn begin(&self, workflow: &str, input: Value) -> RunId {
        let Value::Object(input) = input else {
            panic!("an object")
        };
        let start = Start {
            workflow_id: workflow.to_owned(),
            input,
            org_id: "acme".to_owned(),
            by: somebody(),
            ..Start::default()
        };
        self.workflows().start(start).await.expect("started").run
    }

    pub(crate) async fn run(&self, run: &RunId) -> Run {
        self.workflows().run(run).await.expect("a run")
    }

    /// Waits until a run is over.
    pub(crate) async fn ends(&self, run: &RunId, status: RunStatus) -> Run {
        let found = until(&format!("run {run} ends"), || async {
            let found = self.run(run).await;
            found.head.status.is_terminal().then_some(found)
        })
        .await;
        assert_eq!(found.head.status, status, "{:#?}", found.head);
        found
    }

    /// Waits until a run is in this status, and not beyond it.
    pub(crate) async fn reaches(&self, run: &RunId, status: RunStatus) -> Run {
        until(&format!("run {run} is {}", status.as_str()), || async {
            let found = self.run(run).await;
            assert!(!found.head.status.is_terminal(), "{:#?}", found.head);
            (found.head.status == status).then_some(found)
        })
        .await
    }

    pub(crate) fn jobs(&self) -> JobService {
        JobService::new(
            Arc::clone(&self.stores.jobs),
            Arc::clone(&self.stores.payloads),
            Arc::clone(&self.stores.dlq),
            Arc::clone(&self.bus),
            Clock::system(),
            TenantId::fallback(),
        )
    }

    pub(crate) fn approvals(&self) -> Approvals {
        let jobs = Arc::clone(&self.stores.jobs);
        Approvals::new(jobs, self.jobs(), Arc::clone(&self.kernel), Clock::system())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn open(folder: Option<&tempfile::TempDir>) -> EmbeddedStores {
    let location = match folder {
        Some(folder) => Location::Disk(folder.path().to_owned()),
        None => Location::Memory,
    };
    EmbeddedStores::open(&location, &embedded::Options::default()).expect("stores")
}

/// Stores that nobody uses.
fn placeholder() -> Stores {
    open(None).stores()
}

async fn publish(bus: &dyn Bus, subject: &str, payload: Payload) {
    let packet = packet("trace-1", "w1", Clock::system().now(), payload);
    let message = Message {
        subject: subject.to_owned(),
        payload: encode_packet(&packet),
        message_id: None,
    };
    bus.publish(message).await.expect("published");
}

async fn heartbeat(bus: &dyn Bus) {
    let beat = Heartbeat {
        worker_id: "w1".to_owned(),
        pool: "default".to_owned(),
        max_parallel_jobs: 10_000,
        labels: BTreeMap::from([("coretex.direct".to_owned(), "1".to_owned())]),
        ..Heartbeat::default()
    };
    publish(bus, subjects::HEARTBEAT, Payload::Heartbeat(beat)).await;
}

pub(crate) fn somebody() -> Actor {
    Actor::new("ada", "operator")
}
