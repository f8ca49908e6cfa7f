//! From settings and handlers to a worker.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coretex_core::bus::Bus;
use coretex_core::error::BoxError;
use coretex_core::pointers::PointerStore;
use coretex_core::protocol::WorkerId;
use coretex_core::time::Clock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::Worker;
use super::core::{Core, Load, Settings};
use super::outbox::Outbox;
use crate::connect::{self, Servers};
use crate::context::JobContext;
use crate::error::{Error, JobError};
use crate::handler::{self, HandlerService, Job};

/// How many jobs run at once unless the worker says otherwise.
const PARALLEL_JOBS: u32 = 8;
/// How many jobs run at once when there is "no limit".
const UNLIMITED: usize = 1_024;
/// How large a result may be unless the worker says otherwise.
const RESULT_LIMIT: usize = 8 << 20;
/// How many capabilities and labels a worker may have; they travel in each heartbeat.
const MAX_WORDS: usize = 256;

/// Settings and handlers of a [`Worker`]. Every setting has a default; at least one handler is needed.
#[must_use]
pub struct Builder {
    id: Option<String>,
    pool: String,
    region: String,
    kind: String,
    capabilities: Vec<String>,
    labels: BTreeMap<String, String>,
    max_parallel_jobs: u32,
    max_waiting_jobs: usize,
    heartbeat_interval: Duration,
    drain_timeout: Duration,
    cancel_grace: Duration,
    payload_timeout: Duration,
    result_limit: usize,
    retries: u32,
    data_ttl: Option<Duration>,
    load: Option<super::core::LoadProbe>,
    clock: Clock,
    handlers: Vec<(String, HandlerService)>,
    servers: Servers,
    bus: Option<Arc<dyn Bus>>,
    payloads: Option<Arc<dyn PointerStore>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The addresses may hold passwords.
        f.debug_struct("Builder")
            .field("id", &self.id)
            .field("pool", &self.pool)
            .field(
                "topics",
                &self.handlers.iter().map(|(topic, _)| topic).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            id: None,
            pool: "default".to_owned(),
            region: String::new(),
            kind: "rust".to_owned(),
            capabilities: Vec::new(),
            labels: BTreeMap::new(),
            max_parallel_jobs: PARALLEL_JOBS,
            max_waiting_jobs: 4_096,
            heartbeat_interval: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            payload_timeout: Duration::from_secs(30),
            result_limit: RESULT_LIMIT,
            retries: 0,
            data_ttl: None,
            load: None,
            clock: Clock::system(),
            handlers: Vec::new(),
            servers: Servers::default(),
            bus: None,
            payloads: None,
        }
    }
}

impl Builder {
    /// Handles the jobs of a topic with an async function from the job's payload to its result, both JSON.
    ///
    /// The input is read from the whole document behind the job's pointer ([`Prompt`](crate::Prompt) for jobs that
    /// clients submitted to the gateway); no pointer reads as `null`. The output is stored at `res:<job_id>`.
    pub fn handle<I, O, F, Fut>(self, topic: impl Into<String>, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(JobContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, JobError>> + Send + 'static,
    {
        self.handle_service(topic, handler::typed(handler))
    }

    /// Handles the jobs of a topic with an async function from bytes to bytes, for payloads that are not JSON.
    ///
    /// No pointer reads as no bytes, and no bytes are no result.
    pub fn handle_bytes<F, Fut>(self, topic: impl Into<String>, handler: F) -> Self
    where
        F: Fn(JobContext, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, JobError>> + Send + 'static,
    {
        self.handle_service(topic, handler::raw(handler))
    }

    /// Handles the jobs of a topic with any tower service from a [`Job`] to the bytes of its result.
    pub fn handle_service<S>(mut self, topic: impl Into<String>, service: S) -> Self
    where
        S: Service<Job, Response = Bytes> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let service = BoxCloneSyncService::new(service.map_err(JobError::from_source));
        self.handlers.push((topic.into(), service));
        self
    }

    /// Wraps the handlers that were added *before* in a tower layer: logging, limits, timeouts, ….
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<HandlerService>,
        L::Service: Service<Job, Response = Bytes> + Clone + Send + Sync + 'static,
        <L::Service as Service<Job>>::Error: Into<BoxError>,
        <L::Service as Service<Job>>::Future: Send + 'static,
    {
        self.handlers = self
            .handlers
            .into_iter()
            .map(|(topic, service)| {
                let service = layer.layer(service).map_err(JobError::from_source);
                (topic, BoxCloneSyncService::new(service))
            })
            .collect();
        self
    }

    /// Names the worker: one NATS token, so no dots, spaces, `*` or `>`. A random one by default.
    ///
    /// A worker that keeps its name over restarts gets the jobs again that it had not reported.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The pool that the worker belongs to; topics are mapped to pools. `default` by default.
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = pool.into();
        self
    }

    /// Where the worker is, for people.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// What kind of worker it is, for people. `rust` by default.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Adds something that the worker can do, for people.
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Adds a label. A job with labels runs only on workers that have the same ones.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// How many jobs run at once: 8 by default, 0 for no limit (which means 1 024).
    pub fn max_parallel_jobs(mut self, jobs: u32) -> Self {
        self.max_parallel_jobs = jobs;
        self
    }

    /// How many more jobs may wait here for a slot: 4 096 by default. Beyond that they stay in the broker.
    pub fn max_waiting_jobs(mut self, jobs: usize) -> Self {
        self.max_waiting_jobs = jobs;
        self
    }

    /// How often the worker says that it is alive when nothing changes: 5 s by default, 20 s at most.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// How long a worker that was asked to stop lets its jobs run: 30 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long a handler has to return after its job was cancelled, before it is dropped: 5 s by default.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long the worker tries to read an input or to write a result while the store does not answer: 30 s by default.
    pub fn payload_timeout(mut self, timeout: Duration) -> Self {
        self.payload_timeout = timeout;
        self
    }

    /// How large a result may be, in bytes: 8 MiB by default. A larger one fails the job with `result_too_large`.
    pub fn result_limit(mut self, bytes: usize) -> Self {
        self.result_limit = bytes;
        self
    }

    /// How often the worker itself tries a job again whose error is [retryable](JobError::retryable): never by default,
    /// and never more often than policy allows.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long results and artifacts are kept. By default as long as the store keeps payloads: `REDIS_DATA_TTL`, or a
    /// day.
    pub fn data_ttl(mut self, ttl: Duration) -> Self {
        self.data_ttl = Some(ttl);
        self
    }

    /// Measures the load that heartbeats report; it is called at most ten times per second, and must not block. Without
    /// it the load is reported as zero, and only the number of jobs limits the worker.
    pub fn load(mut self, probe: impl Fn() -> Load + Send + Sync + 'static) -> Self {
        self.load = Some(Arc::new(probe));
        self
    }

    /// Where wall time comes from, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The address of NATS. By default `NATS_URL`, or `nats://127.0.0.1:4222`.
    pub fn nats(mut self, url: impl Into<String>) -> Self {
        self.servers.nats = Some(url.into());
        self
    }

    /// The address of Redis. By default `REDIS_URL`, or `redis://127.0.0.1:6379`.
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.servers.redis = Some(url.into());
        self
    }

    /// How long to wait for NATS and Redis at the start before giving up; for ever by default. A connection that is lost
    /// later is made again for ever, in any case.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.servers.patience = Some(timeout);
        self
    }

    /// Uses a bus that is there already, for a worker in the same process as the control plane. It is not closed when
    /// the worker stops.
    pub fn bus(mut self, bus: Arc<dyn Bus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Uses a payload store that is there already, for a worker in the same process as the control plane.
    pub fn payloads(mut self, payloads: Arc<dyn PointerStore>) -> Self {
        self.payloads = Some(payloads);
        self
    }

    /// Checks the settings and connects; waits for NATS and Redis for as long as the
    /// [`connect_timeout`](Self::connect_timeout).
    ///
    /// # Errors
    /// [`Error::Setting`] names the setting that is wrong, [`Error::Connect`] what did not let the worker in, or was not
    /// there in time.
    pub async fn build(self) -> Result<Worker, Error> {
        let settings = self.settings()?;
        let handlers = checked_handlers(self.handlers)?;
        let owns_bus = self.bus.is_none();
        let bus = match self.bus {
            Some(bus) => bus,
            None => connect::bus(&self.servers).await?,
        };
        let payloads = match self.payloads {
            Some(payloads) => payloads,
            None => connect::payloads(&self.servers).await?,
        };
        let (outbox, sender) = Outbox::new();
        let slots = match usize::try_from(settings.max_parallel_jobs) {
            Ok(0) | Err(_) => UNLIMITED,
            Ok(jobs) => jobs,
        };
        let room = slots + settings.max_waiting_jobs;
        let core = Core {
            settings,
            handlers,
            bus,
            payloads,
            ledger: super::ledger::Ledger::default(),
            outbox,
            slots: Semaphore::new(slots),
            room: Arc::new(Semaphore::new(room)),
            jobs: TaskTracker::new(),
            complaints: super::complaints::Complaints::default(),
            draining: false.into(),
            clock: self.clock,
        };
        Ok(Worker {
            core: Arc::new(core),
            sender,
            owns_bus,
        })
    }

    /// Builds the worker and runs it: [`build`](Self::build), then [`Worker::run`].
    ///
    /// # Errors
    /// As these two.
    pub async fn run(self) -> Result<(), Error> {
        self.build().await?.run().await
    }

    /// Builds the worker and starts it: [`build`](Self::build), then [`Worker::start`].
    ///
    /// # Errors
    /// As these two.
    pub async fn start(self) -> Result<super::Running, Error> {
        self.build().await?.start().await
    }

    fn settings(&self) -> Result<Settings, Error> {
        let id = match &self.id {
            Some(id) => WorkerId::try_new(id).map_err(|error| invalid("id", error.to_string()))?,
            None => WorkerId::try_new(&uuid::Uuid::new_v4().to_string())
                .map_err(|error| invalid("id", error.to_string()))?,
        };
        if !id.is_token() {
            return Err(invalid("id", format!("`{id}` holds a dot, a space, `*` or `>`")));
        }
        if self.pool.trim().is_empty() {
            return Err(invalid("pool", "is empty"));
        }
        if self.handlers.is_empty() {
            return Err(invalid("handle", "the worker has no handler"));
        }
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval > Duration::from_secs(20) {
            let reason = format!("{:?} is not between 1 ms and 20 s", self.heartbeat_interval);
            return Err(invalid("heartbeat_interval", reason));
        }
        if self.capabilities.len() > MAX_WORDS {
            return Err(invalid("capability", format!("more than {MAX_WORDS}")));
        }
        if self.labels.len() > MAX_WORDS {
            return Err(invalid("label", format!("more than {MAX_WORDS}")));
        }
        if let Some(name) = self.labels.keys().find(|name| name.starts_with("coretex.")) {
            return Err(invalid("label", format!("`{name}`: names in `coretex.` are reserved")));
        }
        if self.max_parallel_jobs > 100_000 {
            let reason = format!("{} is more than 100000; use 0 for no limit", self.max_parallel_jobs);
            return Err(invalid("max_parallel_jobs", reason));
        }
        if self.max_waiting_jobs > 1_000_000 {
            return Err(invalid(
                "max_waiting_jobs",
                format!("{} is more than 1000000", self.max_waiting_jobs),
            ));
        }
        if self.data_ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            return Err(invalid("data_ttl", "is less than a second"));
        }
        Ok(Settings {
            id,
            pool: self.pool.trim().to_owned(),
            region: self.region.clone(),
            kind: self.kind.clone(),
            capabilities: self.capabilities.clone(),
            labels: self.labels.clone(),
            max_parallel_jobs: self.max_parallel_jobs,
            max_waiting_jobs: self.max_waiting_jobs,
            heartbeat_interval: self.heartbeat_interval,
            drain_timeout: self.drain_timeout,
            cancel_grace: self.cancel_grace,
            payload_timeout: self.payload_timeout,
            result_limit: self.result_limit,
            retries: self.retries,
            data_ttl: self.data_ttl,
            load: self.load.clone(),
        })
    }
}

fn invalid(setting: &'static str, reason: impl Into<String>) -> Error {
    Error::Setting {
        setting,
        reason: reason.into(),
    }
}

fn checked_handlers(handlers: Vec<(String, HandlerService)>) -> Result<HashMap<String, HandlerService>, Error> {
    let mut checked = HashMap::with_capacity(handlers.len());
    for (topic, handler) in handlers {
        if let Some(problem) = topic_problem(&topic) {
            return Err(invalid("handle", format!("topic `{topic}` {problem}")));
        }
        if checked.insert(topic.clone(), handler).is_some() {
            return Err(invalid("handle", format!("topic `{topic}` has two handlers")));
        }
    }
    Ok(checked)
}

/// A topic is a subject of the bus, and none of those that the control plane uses itself.
fn topic_problem(topic: &str) -> Option<&'static str> {
    if topic.len() > 256 {
        Some("is longer than 256 bytes")
    } else if topic.split('.').any(str::is_empty) {
        Some("has an empty part")
    } else if topic.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Some("holds a space or a control character")
    } else if topic.contains(['*', '>']) {
        Some("holds a wildcard; a handler has one topic")
    } else if topic.starts_with("sys.") || topic.starts_with("worker.") {
        Some("belongs to the control plane")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Builder {
        Worker::builder().handle("job.echo", |_, input: String| async { Ok(input) })
    }

    #[track_caller]
    fn refused(builder: Builder, expected: &str) {
        let result = builder
            .settings()
            .map(drop)
            .and_then(|()| checked_handlers(builder.handlers).map(drop));
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        refused(Worker::builder(), "handle: the worker has no handler");
        refused(echo().id("a.b"), "id: `a.b`");
        refused(echo().id(" "), "id: worker_id is empty");
        refused(echo().pool(" "), "pool: is empty");
        refused(echo().heartbeat_interval(Duration::ZERO), "heartbeat_interval");
        refused(echo().heartbeat_interval(Duration::from_secs(31)), "heartbeat_interval");
        refused(echo().label("coretex.direct", "0"), "label: `coretex.direct`");
        refused(echo().max_parallel_jobs(u32::MAX), "max_parallel_jobs");
        refused(echo().data_ttl(Duration::ZERO), "data_ttl");
        refused(
            echo().handle("job.echo", |_, (): ()| async { Ok(()) }),
            "topic `job.echo` has two handlers",
        );
        for (topic, problem) in [
            ("", "empty part"),
            ("job..x", "empty part"),
            ("job. x", "space"),
            ("job.*", "wildcard"),
            ("sys.job.submit", "belongs to the control plane"),
        ] {
            refused(Worker::builder().handle(topic, |_, (): ()| async { Ok(()) }), problem);
        }
    }

    #[test]
    fn ids_are_random_unless_given() {
        let (a, b) = (echo().settings().unwrap(), echo().settings().unwrap());
        assert_ne!(a.id, b.id);
        assert_eq!(echo().id("w1").settings().unwrap().id.as_str(), "w1");
    }
}
