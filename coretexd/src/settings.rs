//! What the daemon is told: flags before environment before file before defaults. See `docs/configuration.md`.

mod duration;
mod file;
mod flags;
mod kernel;
mod keys;
mod policy;
mod secret;
#[cfg(test)]
mod tests;
mod workflows;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use duration::{InvalidSpan, Span};
pub use file::FileSettings;
pub use flags::{Cli, Command, Flags};
pub use kernel::{IdentityFiles, KernelSettings, RemoteSettings, ServeSettings};
pub use keys::{KeyEntry, KeyHash, KeyRole};
pub use policy::{DEFAULT_POLICY, FragmentsPlace, PolicyPlace, PolicySettings};
pub use secret::{Secret, ServerUrl, normalize, redact};
pub use workflows::WorkflowSettings;

use crate::env_vars;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves HTTP.
    Gateway,
    /// Judges, places and follows jobs.
    Scheduler,
    /// Answers the schedulers and gateways of other processes, over gRPC.
    #[serde(rename = "safety-kernel")]
    #[value(name = "safety-kernel", alias = "kernel")]
    SafetyKernel,
    /// Carries runs of workflows on: takes results, watches the clock.
    #[serde(rename = "workflow-engine")]
    #[value(name = "workflow-engine", alias = "workflows")]
    WorkflowEngine,
    /// Everything.
    All,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What happens while policy cannot be asked. It never means "allow".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SafetyFailMode {
    /// The job waits, and is judged later.
    #[default]
    Retry,
    /// The job is denied for good.
    Deny,
}

/// What happens to an accepted job whose worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WorkerLostAction {
    /// It times out.
    Fail,
    /// It waits for its time limit.
    Wait,
    /// It is placed again.
    Redispatch,
}

/// Who may approve their own jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SelfApproval {
    /// Only callers whose key does not say who they are.
    #[default]
    Unverified,
    /// Nobody.
    Never,
    /// Everybody.
    Always,
}

impl From<SelfApproval> for coretex_core::approvals::SelfApproval {
    fn from(setting: SelfApproval) -> Self {
        match setting {
            SelfApproval::Unverified => Self::Unverified,
            SelfApproval::Never => Self::Never,
            SelfApproval::Always => Self::Always,
        }
    }
}

/// Where embedded mode keeps its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum DataDir {
    /// In a folder.
    Folder(PathBuf),
    /// Nowhere: gone when the process stops.
    #[serde(serialize_with = "memory")]
    Memory,
}

fn memory<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(DataDir::MEMORY)
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Memory => f.write_str(Self::MEMORY),
        }
    }
}

impl DataDir {
    /// The name of no folder.
    pub const MEMORY: &str = ":memory:";

    fn parse(text: &str) -> Self {
        if text == Self::MEMORY {
            Self::Memory
        } else {
            Self::Folder(text.into())
        }
    }
}

/// Which servers hold the state and carry the messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Backend {
    /// None: all in this process.
    Embedded {
        /// Where.
        data_dir: DataDir,
    },
    /// NATS and Redis.
    Distributed {
        /// The NATS servers.
        nats_url: ServerUrl,
        /// The Redis server.
        redis_url: ServerUrl,
    },
}

/// Which browser origins may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origins {
    /// Only pages served from this host or from the local machine.
    SameHost,
    /// Any.
    Any,
    /// Exactly these.
    List(Vec<String>),
}

impl Origins {
    /// Reads a comma-separated list. A list without entries means the same host; only a lone `*` means any.
    pub fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        let list: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
            .map(str::to_owned)
            .collect();
        if list.is_empty() {
            Self::SameHost
        } else {
            Self::List(list)
        }
    }
}

/// How fast one client may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// Requests per second.
    pub rps: u32,
    /// Requests at once.
    pub burst: u32,
}

/// The gateway's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpSettings {
    /// Where HTTP listens.
    pub addr: SocketAddr,
    /// Where metrics are served.
    pub metrics_addr: SocketAddr,
    /// The key that clients must send; without one, everybody who reaches the port is served.
    pub api_key: Option<Secret>,
    /// Keys that belong to somebody, and say who is calling.
    pub keys: Vec<KeyEntry>,
    /// Whether serving other machines without a key is intended.
    pub insecure_open: bool,
    /// How fast one client may go; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// Which browser origins may call.
    pub origins: Origins,
    /// Who may approve their own jobs.
    pub self_approval: SelfApproval,
}

/// The scheduler's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchedulerSettings {
    /// Which topics go to which pools.
    pub pools: PathBuf,
    /// How long jobs may take.
    pub timeouts: PathBuf,
    /// Where policy comes from.
    pub policy: PolicySettings,
    /// How often the worker snapshot is written.
    pub worker_snapshot_interval: Span,
    /// How often configuration is read again.
    pub config_reload_interval: Span,
    /// What happens while policy cannot be asked.
    pub safety_fail_mode: SafetyFailMode,
    /// What happens to a job whose worker is lost; unset, it times out unless it says that it is idempotent.
    pub worker_lost_action: Option<WorkerLostAction>,
}

/// Everything, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// What this process does; never [`Role::All`].
    pub roles: BTreeSet<Role>,
    /// Which servers hold the state.
    pub backend: Backend,
    /// Whether durable subjects go through JetStream.
    pub jetstream: bool,
    /// How long JetStream waits for an acknowledgement.
    pub ack_wait: Span,
    /// How long JetStream keeps messages.
    pub max_age: Span,
    /// How long job metadata is kept.
    pub job_meta_ttl: Span,
    /// How long payloads are kept.
    pub data_ttl: Span,
    /// How long to keep trying to reach the servers at start.
    pub connect_timeout: Span,
    /// How long a graceful stop may take.
    pub shutdown_timeout: Span,
    /// The tenant of requests that name none.
    pub tenant: String,
    /// The gateway's part.
    pub http: HttpSettings,
    /// The scheduler's part.
    pub scheduler: SchedulerSettings,
    /// The kernel's part.
    pub kernel: KernelSettings,
    /// The workflow engine's part.
    pub workflows: WorkflowSettings,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which lines are written.
    pub log_filter: String,
    /// Whether a worker that echoes its input runs in this process.
    pub echo_worker: bool,
}

impl Settings {
    /// Whether this process has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// All that is wrong with the settings, not only the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid settings")?;
        for problem in &self.0 {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

/// Looks an environment variable up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The settings file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "config/system.yaml";

/// Reads the file, and lays flags over environment over file over defaults.
///
/// # Errors
/// [`Invalid`] lists every problem, each with the flag, the variable, or the file with line and key it is about.
pub fn load(flags: &Flags, env: Env<'_>) -> Result<Settings, Invalid> {
    let named = flags
        .config
        .clone()
        .or_else(|| Reader { env }.text(env_vars::CONFIG).map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => file::parse(&path, &text).map_err(|problem| Invalid(vec![problem]))?,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => FileSettings::default(),
        Err(error) => return Err(Invalid(vec![format!("{}: {error}", path.display())])),
    };
    resolve(flags, env, file, &path)
}

struct Reader<'a> {
    env: Env<'a>,
}

impl Reader<'_> {
    /// An empty variable is an unset one.
    fn text(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.trim().is_empty())
    }
}

/// Collects problems while values are looked up.
struct Layers<'a> {
    env: Reader<'a>,
    problems: Vec<String>,
}

impl Layers<'_> {
    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.env.text(name)?;
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(format!("{name}: {problem}"));
                None
            }
        }
    }

    fn span(&mut self, name: &str) -> Option<Span> {
        let span = self.parsed(name, |text| Span::parse(text).map_err(|error| error.to_string()))?;
        self.positive(name, span)
    }

    fn positive(&mut self, name: &str, span: Span) -> Option<Span> {
        if span.0.is_zero() {
            self.problems.push(format!("{name}: must be more than zero"));
            return None;
        }
        Some(span)
    }

    fn seconds(&mut self, name: &str) -> Option<Span> {
        let seconds = self.parsed(name, |text| {
            text.parse::<u32>()
                .map_err(|_| format!("`{text}` is not a whole number of seconds"))
        })?;
        self.positive(name, Span(Duration::from_secs(seconds.into())))
    }

    fn count(&mut self, name: &str) -> Option<u32> {
        self.parsed(name, |text| {
            text.parse()
                .map_err(|_| format!("`{text}` is not a whole number from 0 on"))
        })
    }

    fn choice<T: ValueEnum>(&mut self, name: &str) -> Option<T> {
        self.parsed(name, |text| {
            T::from_str(text, true).map_err(|_| {
                let known: Vec<_> = T::value_variants()
                    .iter()
                    .filter_map(|value| value.to_possible_value().map(|value| value.get_name().to_owned()))
                    .collect();
                format!("`{text}` is none of {}", known.join(", "))
            })
        })
    }
}

/// `:8081` and `host:8081`. The port alone means every address, or only the local machine where there is no key.
fn listen_addr(text: &str, open: bool) -> Result<SocketAddr, String> {
    let bad = || format!("`{text}` is not an address such as :8081 or 127.0.0.1:8081");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let any = if open { "0.0.0.0" } else { "127.0.0.1" };
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "" => any,
        "localhost" => "127.0.0.1",
        "0.0.0.0" | "::" if !open => any,
        host => host,
    };
    let ip: std::net::IpAddr = host.parse().map_err(|_| bad())?;
    if !open && !ip.is_loopback() {
        return Err(format!(
            "listening on {ip} without an API key: set {} or pass --insecure-open",
            env_vars::CORETEX_API_KEY
        ));
    }
    Ok(SocketAddr::new(ip, port))
}

fn truthy(text: &str) -> bool {
    ["1", "true", "yes", "y", "on"].contains(&text.trim().to_ascii_lowercase().as_str())
}

fn resolve(flags: &Flags, env: Env<'_>, file: FileSettings, path: &Path) -> Result<Settings, Invalid> {
    let mut layers = Layers {
        env: Reader { env },
        problems: Vec::new(),
    };

    let env_roles = layers.parsed(env_vars::ROLES, |text| {
        text.split(',')
            .map(|role| Role::from_str(role.trim(), true).map_err(|_| format!("`{role}` is no role")))
            .collect::<Result<Vec<_>, _>>()
    });
    let named = Some(flags.role.clone())
        .filter(|roles| !roles.is_empty())
        .or(env_roles)
        .or(file.roles);
    let engine_named = named
        .as_ref()
        .is_some_and(|roles| roles.contains(&Role::WorkflowEngine));
    let kernel_named = named.as_ref().is_some_and(|roles| roles.contains(&Role::SafetyKernel));
    let roles = roles(named);
    let kernel = kernel::resolve(&mut layers, &roles, kernel_named, file.kernel);

    let data_dir = flags
        .data_dir
        .clone()
        .or_else(|| layers.env.text(env_vars::DATA_DIR))
        .or(file.data_dir);
    let nats = layers.env.text(env_vars::NATS_URL).or(file.nats.url);
    let redis = layers.env.text(env_vars::REDIS_URL).or(file.redis.url);
    let backend = match (nats, redis) {
        (None, None) => Some(Backend::Embedded {
            data_dir: DataDir::parse(data_dir.as_deref().unwrap_or("./coretex-data")),
        }),
        (Some(nats), Some(redis)) => Some(Backend::Distributed {
            nats_url: ServerUrl::new(&nats),
            redis_url: ServerUrl::new(&redis),
        }),
        (Some(_), None) => {
            layers.problems.push(format!(
                "{} is set but {} is not: set both for distributed mode, or neither for embedded mode",
                env_vars::NATS_URL,
                env_vars::REDIS_URL
            ));
            None
        }
        (None, Some(_)) => {
            layers.problems.push(format!(
                "{} is set but {} is not: set both for distributed mode, or neither for embedded mode",
                env_vars::REDIS_URL,
                env_vars::NATS_URL
            ));
            None
        }
    };
    if matches!(backend, Some(Backend::Embedded { .. }))
        && ![Role::Gateway, Role::Scheduler, Role::WorkflowEngine]
            .iter()
            .all(|role| roles.contains(role))
    {
        layers.problems.push(format!(
            "--role: embedded mode keeps everything in one process, so it has all roles; set {} and {} to split them",
            env_vars::NATS_URL,
            env_vars::REDIS_URL
        ));
    }

    let http = http(flags, &mut layers, file.http);
    let open = http
        .as_ref()
        .is_some_and(|http| http.api_key.is_some() || !http.keys.is_empty() || http.insecure_open);
    let here = roles.contains(&Role::WorkflowEngine);
    let workflows = workflows::resolve(&mut layers, here, engine_named, open, file.workflows);
    let log_format = flags
        .log_format
        .or_else(|| layers.choice(env_vars::LOG_FORMAT))
        .or(file.log.format)
        .unwrap_or_default();
    let pick = |flag: &Option<PathBuf>, name: &str, file: Option<PathBuf>, default: &str, layers: &Layers<'_>| {
        flag.clone()
            .or_else(|| layers.env.text(name).map(PathBuf::from))
            .or(file)
            .unwrap_or_else(|| default.into())
    };
    let policy = policy::resolve(flags, &mut layers, &file.paths, file.policy);
    let scheduler = SchedulerSettings {
        pools: pick(
            &flags.pools,
            env_vars::POOL_CONFIG_PATH,
            file.paths.pools,
            "config/pools.yaml",
            &layers,
        ),
        timeouts: pick(
            &flags.timeouts,
            env_vars::TIMEOUT_CONFIG_PATH,
            file.paths.timeouts,
            "config/timeouts.yaml",
            &layers,
        ),
        policy,
        worker_snapshot_interval: layers
            .span(env_vars::WORKER_SNAPSHOT_INTERVAL)
            .or(file.scheduler.worker_snapshot_interval)
            .unwrap_or(Span(Duration::from_secs(5))),
        config_reload_interval: layers
            .span(env_vars::CONFIG_RELOAD_INTERVAL)
            .or(file.scheduler.config_reload_interval)
            .unwrap_or(Span(Duration::from_secs(30))),
        safety_fail_mode: layers
            .choice(env_vars::SAFETY_FAIL_MODE)
            .or(file.scheduler.safety_fail_mode)
            .unwrap_or_default(),
        worker_lost_action: layers
            .choice(env_vars::WORKER_LOST_ACTION)
            .or(file.scheduler.worker_lost_action),
    };

    let jetstream = layers
        .env
        .text(env_vars::NATS_USE_JETSTREAM)
        .map(|text| truthy(&text))
        .or(file.nats.jetstream)
        .unwrap_or(false);
    let ack_wait = layers.span(env_vars::NATS_JS_ACK_WAIT).or(file.nats.ack_wait);
    let max_age = layers.span(env_vars::NATS_JS_MAX_AGE).or(file.nats.max_age);
    let job_meta_ttl = layers
        .span(env_vars::JOB_META_TTL)
        .or_else(|| layers.seconds(env_vars::JOB_META_TTL_SECONDS))
        .or(file.redis.job_meta_ttl);
    let data_ttl = layers
        .span(env_vars::REDIS_DATA_TTL)
        .or_else(|| layers.seconds(env_vars::REDIS_DATA_TTL_SECONDS))
        .or(file.redis.data_ttl);
    let connect_timeout = flags
        .connect_timeout
        .or_else(|| layers.span(env_vars::CONNECT_TIMEOUT))
        .or(file.connect_timeout);
    let shutdown_timeout = flags
        .shutdown_timeout
        .or_else(|| layers.span(env_vars::SHUTDOWN_TIMEOUT))
        .or(file.shutdown_timeout);
    let tenant = layers
        .env
        .text(env_vars::TENANT_ID)
        .or(file.tenant)
        .map_or_else(|| "default".to_owned(), |tenant| tenant.trim().to_owned());
    if let Err(error) = coretex_core::protocol::TenantId::try_new(&tenant) {
        layers.problems.push(format!(
            "{} (or `tenant` in {}): {error}",
            env_vars::TENANT_ID,
            path.display()
        ));
    }
    let log_filter = layers
        .env
        .text(env_vars::LOG)
        .or(file.log.filter)
        .unwrap_or_else(|| "info".to_owned());
    if let Err(error) = log_filter.parse::<tracing_subscriber::EnvFilter>() {
        layers.problems.push(format!(
            "{} (or `log.filter` in {}): {error}",
            env_vars::LOG,
            path.display()
        ));
    }

    match (backend, http) {
        (Some(backend), Some(http)) if layers.problems.is_empty() => Ok(Settings {
            roles,
            backend,
            jetstream,
            ack_wait: ack_wait.unwrap_or(Span(Duration::from_secs(2))),
            max_age: max_age.unwrap_or(Span(Duration::from_secs(168 * 3600))),
            job_meta_ttl: job_meta_ttl.unwrap_or(Span(Duration::from_secs(168 * 3600))),
            data_ttl: data_ttl.unwrap_or(Span(Duration::from_secs(24 * 3600))),
            connect_timeout: connect_timeout.unwrap_or(Span(Duration::from_secs(30))),
            shutdown_timeout: shutdown_timeout.unwrap_or(Span(Duration::from_secs(30))),
            tenant,
            http,
            scheduler,
            kernel,
            workflows,
            log_format,
            log_filter,
            echo_worker: flags.echo_worker,
        }),
        _ => Err(Invalid(layers.problems)),
    }
}

fn roles(named: Option<Vec<Role>>) -> BTreeSet<Role> {
    let named = named.unwrap_or_else(|| vec![Role::All]);
    if named.is_empty() || named.contains(&Role::All) {
        BTreeSet::from([Role::Gateway, Role::Scheduler, Role::SafetyKernel, Role::WorkflowEngine])
    } else {
        named.into_iter().collect()
    }
}

fn http(flags: &Flags, layers: &mut Layers<'_>, file: file::HttpSection) -> Option<HttpSettings> {
    let api_key = [
        env_vars::SUPER_SECRET_API_TOKEN,
        env_vars::CORETEX_API_KEY,
        env_vars::API_KEY,
    ]
    .into_iter()
    .find_map(|name| layers.env.text(name).and_then(|text| Secret::normalized(&text)));
    let insecure_open = flags.insecure_open || file.insecure_open.unwrap_or(false);
    let keys_file = layers
        .env
        .text(env_vars::API_KEYS_FILE)
        .map(PathBuf::from)
        .or(file.keys_file);
    let keys = keys_file
        .map(|path| keys::load(&path))
        .transpose()
        .unwrap_or_else(|problem| {
            layers
                .problems
                .push(format!("{} (or `http.keys_file`): {problem}", env_vars::API_KEYS_FILE));
            None
        })
        .unwrap_or_default();
    let open = api_key.is_some() || !keys.is_empty() || insecure_open;

    let mut addr = |flag: &Option<String>, name: &str, file: Option<String>, default: &str| {
        let text = flag
            .clone()
            .or_else(|| layers.env.text(name))
            .or(file)
            .unwrap_or_else(|| default.to_owned());
        listen_addr(text.trim(), open)
            .map_err(|problem| layers.problems.push(format!("{name}: {problem}")))
            .ok()
    };
    let http_addr = addr(&flags.http_addr, env_vars::HTTP_ADDR, file.addr, ":8081");
    let metrics_addr = addr(&flags.metrics_addr, env_vars::METRICS_ADDR, file.metrics_addr, ":9092");

    let rps = layers
        .count(env_vars::RATE_LIMIT_RPS)
        .or(file.rate_limit_rps)
        .unwrap_or(50);
    let burst = layers
        .count(env_vars::RATE_LIMIT_BURST)
        .or(file.rate_limit_burst)
        .unwrap_or(100);
    let origins = [
        env_vars::ALLOWED_ORIGINS,
        env_vars::CORS_ALLOW_ORIGINS_CORETEX,
        env_vars::CORS_ALLOW_ORIGINS,
    ]
    .into_iter()
    .find_map(|name| layers.env.text(name))
    .or_else(|| file.allowed_origins.map(|list| list.join(",")))
    .map_or(Origins::SameHost, |text| Origins::parse(&text));

    let self_approval = layers
        .choice(env_vars::APPROVAL_SELF)
        .or(file.self_approval)
        .unwrap_or_default();
    Some(HttpSettings {
        addr: http_addr?,
        metrics_addr: metrics_addr?,
        api_key,
        keys,
        insecure_open,
        rate_limit: (rps > 0 && burst > 0).then_some(RateLimit { rps, burst }),
        origins,
        self_approval,
    })
}
