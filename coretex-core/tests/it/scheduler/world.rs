//! A control plane with everything that a scenario needs to poke it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coretex_core::approvals::Approvals;
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{Bus, Message, SubscribeOptions, Subscription};
use coretex_core::jobs::service::JobService;
use coretex_core::jobs::{ApprovalTerms, DecisionRecord, JobRecord, JobState, JobStoreExt, OnExpiry};
use coretex_core::platform::Platform;
use coretex_core::policy::{Drafts, ExplainError, Explanation, Kernel, KernelStatus, LocalKernel, Unavailable};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{
    BusPacket, Heartbeat, JobProgress, JobRequest, JobResult, JobStatus, PolicyCheckRequest,
};
use coretex_core::protocol::{JobId, TenantId, decode_packet, encode_packet, packet, subjects};
use coretex_core::routing::Routing;
use coretex_core::scheduler::Options;
use coretex_core::test_util::servers::{self, NatsServer, RedisServer};
use coretex_core::test_util::wait::{PATIENCE, until};
use coretex_core::time::{Clock, Timestamp};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Embedded,
    Nats,
    JetStream,
}

const POLICY: &str = r#"
version: "1"
default_decision: allow
rules:
  - {id: no-danger, decision: deny, reason: too dangerous, match: {topics: ["job.danger"]}}
  - {id: ask, decision: require_approval, reason: ask first, match: {topics: ["job.careful"]}}
  - {id: pair, decision: require_approval, reason: ask two, match: {topics: ["job.pair"]}}
  - {id: lapse, decision: require_approval, reason: ask soon, match: {topics: ["job.lapse"]}}
  - {id: lapse-run, decision: require_approval, reason: ask soon, match: {topics: ["job.lapse-run"]}}
  - id: two-at-a-time
    decision: allow
    match: {tenants: [small]}
    constraints: {budgets: {max_concurrent_jobs: 2}}
  - id: one-retry
    decision: allow
    match: {tenants: [impatient]}
    constraints: {budgets: {max_retries: 1}}
  - id: limits
    decision: allow
    match: {tenants: [limited]}
    constraints: {budgets: {max_runtime_ms: 60000, max_artifact_bytes: 10}, redaction_level: strict}
"#;

/// Policy that can be switched off and exchanged.
#[derive(Debug)]
struct Switch {
    on: AtomicBool,
    kernel: Mutex<Arc<LocalKernel>>,
}

impl Switch {
    fn kernel(&self) -> Arc<LocalKernel> {
        Arc::clone(&self.kernel.lock())
    }
}

/// On which terms people approve, by the rule that asks them.
fn terms(rule_id: &str) -> Option<ApprovalTerms> {
    let soon = |on_expiry| ApprovalTerms {
        quorum: 2,
        expires_after: Some(Duration::from_millis(300)),
        on_expiry,
    };
    match rule_id {
        "pair" => Some(ApprovalTerms {
            quorum: 2,
            ..ApprovalTerms::default()
        }),
        "lapse" => Some(soon(OnExpiry::Deny)),
        "lapse-run" => Some(soon(OnExpiry::Allow)),
        _ => None,
    }
}

#[async_trait]
impl Kernel for Switch {
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable> {
        if self.on.load(Ordering::SeqCst) {
            let mut decision = self.kernel().check(request, now).await?;
            decision.terms = terms(&decision.rule_id);
            Ok(decision)
        } else {
            Err(Unavailable {
                what: "switched off".to_owned(),
                source: None,
            })
        }
    }

    async fn snapshots(&self) -> Result<Vec<String>, Unavailable> {
        self.kernel().snapshots().await
    }

    async fn explain(
        &self,
        request: &PolicyCheckRequest,
        drafts: &Drafts,
        now: Timestamp,
    ) -> Result<(DecisionRecord, Explanation), ExplainError> {
        self.kernel().explain(request, drafts, now).await
    }

    async fn status(&self) -> KernelStatus {
        self.kernel().status()
    }
}

pub(crate) struct World {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) stores: Stores,
    pub(crate) platforms: Vec<Platform>,
    switch: Arc<Switch>,
    backend: Backend,
    servers: Option<(NatsServer, RedisServer)>,
}

impl World {
    /// Buses, stores and policy, and no scheduler yet.
    pub(crate) async fn idle(backend: Backend) -> Self {
        let switch = Arc::new(Switch {
            on: AtomicBool::new(true),
            kernel: Mutex::new(Arc::new(
                LocalKernel::from_document(POLICY, "test.yaml").expect("a policy"),
            )),
        });
        let servers = match backend {
            Backend::Embedded => None,
            Backend::Nats => Some((NatsServer::start().await, RedisServer::start().await)),
            Backend::JetStream => Some((
                NatsServer::start_with(servers::NatsOptions::jetstream()).await,
                RedisServer::start().await,
            )),
        };
        let stores = match &servers {
            None => EmbeddedStores::open(&Location::Memory, &embedded::Options::default())
                .expect("stores")
                .stores(),
            Some((_, redis)) => RedisStores::connect(&redis.url(), RedisOptions::default())
                .await
                .expect("redis"),
        };
        let mut world = Self {
            bus: Arc::new(InProcessBus::new()),
            stores,
            platforms: Vec::new(),
            switch,
            backend,
            servers,
        };
        world.bus = world.connect().await;
        world
    }

    pub(crate) async fn new(backend: Backend) -> Self {
        let mut world = Self::idle(backend).await;
        world.start_scheduler().await;
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

    pub(crate) async fn start_scheduler(&mut self) {
        self.start_scheduler_with(|_| {}).await;
    }

    pub(crate) async fn start_scheduler_with(&mut self, tune: impl FnOnce(&mut Options)) {
        let routing = [
            "job.default",
            "job.danger",
            "job.careful",
            "job.pair",
            "job.lapse",
            "job.lapse-run",
        ]
        .into_iter()
        .fold(Routing::default(), |routing, topic| {
            routing.with_topic(topic, ["default"])
        });
        let mut options = Options::default();
        options.ask_again = Duration::from_millis(200);
        tune(&mut options);
        let kernel: Arc<dyn Kernel> = Arc::clone(&self.switch) as Arc<dyn Kernel>;
        let platform = Platform::builder(self.connect().await, self.stores.clone(), kernel)
            .routing(routing)
            .scheduler(options)
            .start()
            .await
            .expect("started");
        self.platforms.push(platform);
    }

    pub(crate) fn policy(&self, on: bool) {
        self.switch.on.store(on, Ordering::SeqCst);
    }

    /// Another policy from now on: the first one with some text replaced.
    pub(crate) fn change_policy(&self, from: &str, to: &str) {
        let text = POLICY.replace(from, to);
        assert_ne!(text, POLICY);
        *self.switch.kernel.lock() = Arc::new(LocalKernel::from_document(&text, "test.yaml").expect("a policy"));
    }

    /// The approvals of this world's jobs, as a gateway offers them.
    pub(crate) fn approvals(&self) -> Approvals {
        let (stores, clock) = (self.stores.clone(), Clock::system());
        let service = JobService::new(
            Arc::clone(&stores.jobs),
            Arc::clone(&stores.payloads),
            Arc::clone(&stores.dlq),
            Arc::clone(&self.bus),
            clock.clone(),
            TenantId::fallback(),
        );
        let kernel: Arc<dyn Kernel> = Arc::clone(&self.switch) as Arc<dyn Kernel>;
        Approvals::new(stores.jobs, service, kernel, clock)
    }

    /// Whether the bus can say that nobody listens.
    pub(crate) fn tells(&self) -> bool {
        self.backend != Backend::JetStream
    }

    pub(crate) async fn publish(&self, subject: &str, sender: &str, payload: Payload) {
        let packet = packet("trace-1", sender, Clock::system().now(), payload);
        let message = Message {
            subject: subject.to_owned(),
            payload: encode_packet(&packet),
            message_id: None,
        };
        self.bus.publish(message).await.expect("published");
    }

    pub(crate) async fn submit(&self, request: &JobRequest) {
        self.publish(subjects::SUBMIT, "client", Payload::JobRequest(request.clone()))
            .await;
    }

    pub(crate) async fn result(&self, id: &JobId, status: JobStatus) {
        self.finish(JobResult {
            job_id: id.to_string(),
            status: status.into(),
            ..JobResult::default()
        })
        .await;
    }

    pub(crate) async fn finish(&self, result: JobResult) {
        self.publish(subjects::RESULT, "w1", Payload::JobResult(result)).await;
    }

    pub(crate) async fn heartbeat(&self, heartbeat: &Heartbeat) {
        self.publish(
            subjects::HEARTBEAT,
            &heartbeat.worker_id,
            Payload::Heartbeat(heartbeat.clone()),
        )
        .await;
    }

    pub(crate) async fn confirm(&self, worker: &str, id: &JobId) {
        let progress = JobProgress {
            job_id: id.to_string(),
            status: JobStatus::Running.into(),
            ..Default::default()
        };
        self.publish(subjects::PROGRESS, worker, Payload::JobProgress(progress))
            .await;
    }

    /// A worker that listens on its own subject and says so.
    pub(crate) async fn worker(&self, id: &str, max: i32) -> Inbox {
        let inbox = self.listen(&format!("worker.{id}.jobs")).await;
        self.heartbeat(&direct(id, max)).await;
        inbox
    }

    /// One that also says that it confirms.
    pub(crate) async fn worker_that_confirms(&self, id: &str) -> Inbox {
        let inbox = self.listen(&format!("worker.{id}.jobs")).await;
        self.heartbeat(&confirming(id, 4)).await;
        inbox
    }

    pub(crate) async fn listen(&self, subject: &str) -> Inbox {
        let subscription = self
            .bus
            .subscribe(subject, SubscribeOptions::tap())
            .await
            .expect("subscribed");
        // A subscription is known to the broker once a message of ours has gone round.
        Inbox { subscription }
    }

    pub(crate) async fn record(&self, id: &JobId) -> Option<JobRecord> {
        self.stores.jobs.get(id).await.expect("the store answers")
    }

    pub(crate) async fn reaches(&self, id: &JobId, state: JobState) -> JobRecord {
        let found = Mutex::new(None);
        let waiting = until_state(self, id, state, &found);
        let Ok(record) = tokio::time::timeout(PATIENCE.mul_f32(0.95), waiting).await else {
            panic!("job {id} never got {state}; it is {:?}", found.lock());
        };
        record
    }

    /// Waits until a note about why the job waits is written down.
    pub(crate) async fn waits_because(&self, id: &JobId, reason: &str) -> String {
        until(&format!("{id} waits because of {reason}"), || async {
            let pending = self.record(id).await?.pending?;
            (pending.reason.as_str() == reason).then_some(pending.detail)
        })
        .await
    }
}

async fn until_state(world: &World, id: &JobId, state: JobState, found: &Mutex<Option<JobRecord>>) -> JobRecord {
    until(&format!("job {id} is {state}"), || async {
        let record = world.record(id).await;
        found.lock().clone_from(&record);
        record.filter(|record| record.state == state)
    })
    .await
}

/// What arrives on a subject.
pub(crate) struct Inbox {
    subscription: Subscription,
}

impl Inbox {
    pub(crate) async fn packet(&mut self) -> BusPacket {
        let delivery = tokio::time::timeout(PATIENCE, self.subscription.next())
            .await
            .expect("a packet arrives")
            .expect("the bus is open");
        let packet = decode_packet(&delivery.payload).expect("a packet");
        delivery.ack().await.expect("acknowledged");
        packet
    }

    pub(crate) async fn job(&mut self) -> JobRequest {
        match self.packet().await.payload {
            Some(Payload::JobRequest(request)) => request,
            other => panic!("not a job: {other:?}"),
        }
    }

    /// The job's id.
    pub(crate) async fn id(&mut self) -> JobId {
        JobId::try_new(&self.job().await.job_id).expect("an id")
    }
}

pub(crate) fn job(id: &str) -> (JobId, JobRequest) {
    let id = JobId::try_new(&format!("{id}-{}", JobId::random())).expect("an id");
    let request = JobRequest {
        job_id: id.to_string(),
        topic: "job.default".to_owned(),
        ..JobRequest::default()
    };
    (id, request)
}

pub(crate) fn direct(id: &str, max: i32) -> Heartbeat {
    Heartbeat {
        labels: BTreeMap::from([("coretex.direct".to_owned(), "1".to_owned())]),
        ..plain(id, max)
    }
}

pub(crate) fn confirming(id: &str, max: i32) -> Heartbeat {
    let mut heartbeat = direct(id, max);
    heartbeat.labels.insert("coretex.confirms".to_owned(), "1".to_owned());
    heartbeat
}

pub(crate) fn plain(id: &str, max: i32) -> Heartbeat {
    Heartbeat {
        worker_id: id.to_owned(),
        pool: "default".to_owned(),
        max_parallel_jobs: max,
        ..Heartbeat::default()
    }
}
