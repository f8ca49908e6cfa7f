//! From settings to a running control plane: documents, backend, platform.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options as NatsOptions};
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{self, Bus};
use coretex_core::error::{StoreError, chain};
use coretex_core::platform::Platform;
use coretex_core::policy::remote::{KernelServer, RemoteKernel, RemoteOptions};
use coretex_core::policy::{Base, Fragments, Kernel, LocalKernel};
use coretex_core::protocol::TenantId;
use coretex_core::routing::{Routing, Timeouts};
use coretex_core::scheduler::{Options as SchedulerOptions, WorkerLost};
use coretex_core::workflow::engine::Options as EngineOptions;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::gateway::Services;
use crate::policy_fetch::HttpFetch;
use crate::settings::{
    Backend, DEFAULT_POLICY, DataDir, PolicyPlace, PolicySettings, RemoteSettings, Role, SafetyFailMode, ServeSettings,
    ServerUrl, Settings, WorkerLostAction,
};
use crate::{Failure, env_vars};

/// What holds the files that are shipped, so that the daemon runs from any folder.
const POOLS: &str = include_str!("../../config/pools.yaml");
const TIMEOUTS: &str = include_str!("../../config/timeouts.yaml");
const POLICY: &str = include_str!("../../config/safety.yaml");

/// The documents that say what runs where, for how long, and whether at all.
#[derive(Debug)]
pub struct Documents {
    /// Which topics go to which pools.
    pub routing: Routing,
    /// How long jobs may take.
    pub timeouts: Timeouts,
    /// Who decides.
    pub kernel: Source,
}

/// Who decides.
#[derive(Debug)]
pub enum Source {
    /// This process, once the fragments are read too.
    Local(Box<LocalKernel>),
    /// Another.
    Remote(Arc<RemoteKernel>),
}

impl Documents {
    /// Reads the files that the settings name. A file at its default place may be missing; then what is shipped counts.
    ///
    /// # Errors
    /// [`Failure::Settings`] names file, line and key.
    pub async fn load(all: &Settings) -> Result<Self, Failure> {
        let settings = &all.scheduler;
        let shipped = |path: &Path, default: &str| path == Path::new(default) && !path.exists();
        let routing = if shipped(&settings.pools, "config/pools.yaml") {
            Routing::from_yaml("built-in pools.yaml", POOLS)
        } else {
            Routing::load(&settings.pools)
        };
        let timeouts = if shipped(&settings.timeouts, "config/timeouts.yaml") {
            Timeouts::from_yaml("built-in timeouts.yaml", TIMEOUTS)
        } else {
            Timeouts::load(&settings.timeouts)
        };
        let kernel = match &all.kernel.ask {
            Some(remote) => dial(remote).map(|kernel| Source::Remote(Arc::new(kernel))),
            None => kernel(&settings.policy)
                .await
                .map(|kernel| Source::Local(Box::new(kernel))),
        };
        let mut problems = Vec::new();
        let mut keep = |problem: String| problems.push(problem);
        let routing = routing.map_err(|error| keep(chain(&error))).ok();
        let timeouts = timeouts.map_err(|error| keep(chain(&error))).ok();
        let kernel = kernel.map_err(keep).ok();
        match (routing, timeouts, kernel) {
            (Some(routing), Some(timeouts), Some(kernel)) => Ok(Self {
                routing,
                timeouts,
                kernel,
            }),
            _ => Err(Failure::Settings(crate::settings::Invalid(problems))),
        }
    }
}

/// A kernel that has read its base policy.
async fn kernel(settings: &PolicySettings) -> Result<LocalKernel, String> {
    let base = match &settings.base {
        None => None,
        Some(PolicyPlace::File(path))
            if path == Path::new(DEFAULT_POLICY) && settings.signed.is_none() && !path.exists() =>
        {
            info!("no config/safety.yaml here: the built-in policy is in force");
            Some(Base::text("built-in safety.yaml", POLICY))
        }
        Some(PolicyPlace::File(path)) => Some(Base::file(path)),
        Some(PolicyPlace::Url(url)) => {
            let fetch = HttpFetch::new().map_err(|error| chain(&error))?;
            Some(Base::address(url.expose(), Arc::new(fetch)))
        }
    };
    let base = match (base, &settings.signed) {
        (Some(base), Some(signed)) => Some(base.signed(signed.clone())),
        (base, _) => base,
    };
    let kernel = LocalKernel::new(base, settings.reload_interval.0);
    match kernel.reload().await {
        Ok(_) => Ok(kernel),
        Err(error) => Err(chain(&error)),
    }
}

/// A kernel in another process; it is not reached yet.
fn dial(remote: &RemoteSettings) -> Result<RemoteKernel, String> {
    let authorities = remote.authorities()?;
    RemoteKernel::dial(&remote.addr, authorities.as_ref(), &RemoteOptions::default())
        .inspect(|_| {
            info!(
                kernel = remote.addr,
                tls = authorities.is_some(),
                "decisions come from a kernel elsewhere"
            );
        })
        .map_err(|error| format!("{}: {}", env_vars::SAFETY_KERNEL_ADDR, chain(&error)))
}

/// The kernel of this process, for others, on a bound port.
///
/// # Errors
/// [`Failure::Settings`] if certificate or key are of no use.
pub fn kernel_server(
    settings: &ServeSettings,
    kernel: Arc<dyn Kernel>,
    listener: TcpListener,
) -> Result<KernelServer, Failure> {
    let identity = settings
        .identity()
        .map_err(|problem| Failure::Settings(crate::settings::Invalid(vec![problem])))?;
    if identity.is_none() && !settings.addr.ip().is_loopback() {
        warn!(addr = %settings.addr, "the safety kernel serves other machines in plain text");
    }
    KernelServer::new(kernel, listener, identity.as_ref()).map_err(|error| Failure::Start(chain(&error)))
}

/// Bus and stores, connected.
#[derive(Debug, Clone)]
pub struct Connected {
    /// How packets travel.
    pub bus: Arc<dyn Bus>,
    /// Where everything is kept.
    pub stores: Stores,
    /// The database of embedded mode, to be closed at the end.
    pub database: Option<EmbeddedStores>,
    /// `embedded` or `distributed`.
    pub mode: &'static str,
}

impl Connected {
    /// Opens the database, or connects to the servers, for at most the connect timeout.
    ///
    /// # Errors
    /// [`Failure::Connect`] if a server was not reached, [`Failure::Start`] if the database cannot be opened.
    pub async fn open(settings: &Settings) -> Result<Self, Failure> {
        match &settings.backend {
            Backend::Embedded { data_dir } => Self::embedded(settings, data_dir).await,
            Backend::Distributed { nats_url, redis_url } => {
                let deadline = Instant::now() + settings.connect_timeout.0;
                let mut nats = NatsOptions::new(nats_url.expose()).with_connect_timeout(settings.connect_timeout.0);
                if settings.jetstream {
                    let mut jetstream = JetStreamOptions::default();
                    jetstream.ack_wait = settings.ack_wait.0;
                    jetstream.max_age = settings.max_age.0;
                    nats = nats.with_jetstream(jetstream);
                }
                let mut redis = RedisOptions::default();
                redis.meta_ttl = settings.job_meta_ttl.0;
                redis.data_ttl = settings.data_ttl.0;
                redis.timeline_limit = timeline_limit(settings);
                info!(nats = %nats_url, redis = %redis_url, "connecting");
                let (bus, stores) = tokio::try_join!(
                    async {
                        NatsBus::connect(nats).await.map_err(|error| {
                            Failure::connect("NATS", &nats_url.redacted(), &settings.connect_timeout, &error)
                        })
                    },
                    redis_within(settings, redis_url, redis, deadline),
                )?;
                Ok(Self {
                    bus: Arc::new(bus),
                    stores,
                    database: None,
                    mode: "distributed",
                })
            }
        }
    }

    async fn embedded(settings: &Settings, data_dir: &DataDir) -> Result<Self, Failure> {
        let location = match data_dir {
            DataDir::Memory => Location::Memory,
            DataDir::Folder(path) => Location::Disk(path.clone()),
        };
        let mut options = embedded::Options::default();
        options.meta_ttl = settings.job_meta_ttl.0;
        options.data_ttl = settings.data_ttl.0;
        options.timeline_limit = timeline_limit(settings);
        // Opening may repair a file that was not closed.
        let database = tokio::task::spawn_blocking(move || EmbeddedStores::open(&location, &options))
            .await
            .map_err(|error| Failure::Start(chain(&error)))?
            .map_err(|error| Failure::Start(chain(&error)))?;
        Ok(Self {
            bus: Arc::new(InProcessBus::new()),
            stores: database.stores(),
            database: Some(database),
            mode: "embedded",
        })
    }
}

fn timeline_limit(settings: &Settings) -> usize {
    usize::try_from(settings.workflows.timeline_limit).unwrap_or(usize::MAX)
}

/// Connects to Redis, again and again until the deadline, and says so.
async fn redis_within(
    settings: &Settings,
    url: &ServerUrl,
    options: RedisOptions,
    deadline: Instant,
) -> Result<Stores, Failure> {
    let mut pause = Duration::from_millis(100);
    loop {
        let error = match RedisStores::connect(url.expose(), options.clone()).await {
            Ok(stores) => return Ok(stores),
            Err(error) => error,
        };
        let hopeless = !matches!(error, StoreError::Unavailable { .. });
        if hopeless || Instant::now() + pause >= deadline {
            return Err(Failure::connect(
                "Redis",
                &url.redacted(),
                &settings.connect_timeout,
                &error,
            ));
        }
        warn!(redis = %url, error = %chain(&error), "Redis is not there yet; trying again");
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Adds the fragments of policy.
async fn complete(kernel: LocalKernel, settings: &Settings, connected: &Connected) -> LocalKernel {
    let kernel = match &settings.scheduler.policy.fragments {
        Some(place) => kernel.with_fragments(Fragments::at(
            Arc::clone(&connected.stores.config),
            &place.scope,
            &place.id,
            &place.key,
        )),
        None => kernel,
    };
    // What cannot be read now is tried again while jobs wait; the base policy was read before.
    if let Err(error) = kernel.reload().await {
        error!(error = %chain(&error), "policy is not complete; until it is, there are no decisions");
    }
    kernel
}

/// Starts the roles of this process on what is connected.
///
/// # Errors
/// [`bus::Error`] if the bus cannot be subscribed to.
pub async fn start(settings: &Settings, documents: Documents, connected: &Connected) -> Result<Platform, bus::Error> {
    let (kernel, local) = match documents.kernel {
        Source::Local(kernel) => {
            let kernel = Arc::new(complete(*kernel, settings, connected).await);
            (Arc::clone(&kernel) as Arc<dyn Kernel>, Some(kernel))
        }
        Source::Remote(kernel) => (kernel as Arc<dyn Kernel>, None),
    };
    let builder = Platform::builder(Arc::clone(&connected.bus), connected.stores.clone(), kernel)
        .routing(documents.routing)
        .timeouts(documents.timeouts);
    let builder = if settings.has(Role::Scheduler) {
        let mut options = SchedulerOptions::default();
        options.worker_lost = match settings.scheduler.worker_lost_action {
            None => WorkerLost::Judge,
            Some(WorkerLostAction::Fail) => WorkerLost::Fail,
            Some(WorkerLostAction::Wait) => WorkerLost::Wait,
            Some(WorkerLostAction::Redispatch) => WorkerLost::Redispatch,
        };
        options.workers_in_process = connected.database.is_some();
        options.deny_without_policy = settings.scheduler.safety_fail_mode == SafetyFailMode::Deny;
        options.snapshot_interval = settings.scheduler.worker_snapshot_interval.0;
        options.reload_interval = settings.scheduler.config_reload_interval.0;
        builder.scheduler(options)
    } else {
        builder.without_scheduler()
    };
    let mut options = EngineOptions::default();
    options.retry = settings.workflows.scan_interval.0;
    options.due_batch = usize::try_from(settings.workflows.scan_limit).unwrap_or(usize::MAX);
    options.run_ttl = settings.workflows.run_ttl.map(|ttl| ttl.0);
    let builder = builder.workflows(options);
    let builder = if settings.has(Role::WorkflowEngine) {
        builder
    } else {
        builder.without_workflow_engine()
    };
    let platform = builder.start().await?;
    if let Some(policy) = local {
        let bus = Arc::clone(&connected.bus);
        platform.spawn(|stop| policy.run(bus, stop));
    }
    Ok(platform)
}

/// The services of a platform, for the gateway.
///
/// # Errors
/// [`Failure::Start`] if the default tenant is no id; settings check that before.
pub fn services(settings: &Settings, platform: &Platform, mode: &'static str) -> Result<Services, Failure> {
    let tenant = TenantId::try_new(&settings.tenant).map_err(|error| Failure::Start(error.to_string()))?;
    Ok(Services::new(platform, tenant, mode))
}
