//! The settings file: all of it optional, none of it tolerant of typos.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{LogFormat, Role, Span, WorkerLostAction};

/// `config/system.yaml`. Every key may be left out; docs/configuration.md §3 explains each.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileSettings {
    /// Roles of the process.
    pub roles: Option<Vec<Role>>,
    /// The data folder of embedded mode, or `:memory:`.
    pub data_dir: Option<String>,
    /// The tenant of requests that name none.
    pub tenant: Option<String>,
    /// How long to keep trying to reach NATS and Redis at start.
    pub connect_timeout: Option<Span>,
    /// How long a graceful stop may take.
    pub shutdown_timeout: Option<Span>,
    /// HTTP.
    pub http: HttpSection,
    /// NATS.
    pub nats: NatsSection,
    /// Redis.
    pub redis: RedisSection,
    /// Where other files are.
    pub paths: PathsSection,
    /// Policy.
    pub policy: PolicySection,
    /// Scheduler.
    pub scheduler: SchedulerSection,
    /// Safety kernel.
    pub kernel: KernelSection,
    /// The workflow engine.
    pub workflows: WorkflowsSection,
    /// Logs.
    pub log: LogSection,
}

/// `http:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Where HTTP listens.
    pub addr: Option<String>,
    /// Where metrics are served.
    pub metrics_addr: Option<String>,
    /// Origins that browsers may call from; `["*"]` for any.
    pub allowed_origins: Option<Vec<String>>,
    /// Requests per second and client; 0 for no limit.
    pub rate_limit_rps: Option<u32>,
    /// Requests that a client may send at once.
    pub rate_limit_burst: Option<u32>,
    /// The file of keys that belong to somebody.
    pub keys_file: Option<PathBuf>,
    /// Whether to serve other machines without an API key.
    pub insecure_open: Option<bool>,
    /// Who may approve their own jobs.
    pub self_approval: Option<super::SelfApproval>,
}

/// `nats:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsSection {
    /// The servers.
    pub url: Option<String>,
    /// Whether durable subjects go through JetStream.
    pub jetstream: Option<bool>,
    /// How long JetStream waits for an acknowledgement.
    pub ack_wait: Option<Span>,
    /// How long JetStream keeps messages.
    pub max_age: Option<Span>,
}

/// `redis:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSection {
    /// The server.
    pub url: Option<String>,
    /// How long job metadata is kept.
    pub job_meta_ttl: Option<Span>,
    /// How long payloads are kept.
    pub data_ttl: Option<Span>,
}

/// `paths:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathsSection {
    /// Which topics go to which pools.
    pub pools: Option<PathBuf>,
    /// How long jobs may take.
    pub timeouts: Option<PathBuf>,
    /// The base policy: a file, or an address that starts with `http://` or `https://`.
    pub policy: Option<PathBuf>,
}

/// `policy:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// The key that the base policy must be signed with.
    pub public_key: Option<String>,
    /// Its signature.
    pub signature: Option<String>,
    /// The file that its signature is in.
    pub signature_path: Option<PathBuf>,
    /// How often policy is read again.
    pub reload_interval: Option<Span>,
    /// Whether fragments from the configuration store count.
    pub fragments: Option<bool>,
    /// The scope of their document.
    pub scope: Option<String>,
    /// The id of their document.
    pub id: Option<String>,
    /// The member of the document that holds them.
    pub key: Option<String>,
}

/// `scheduler:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerSection {
    /// How often the worker snapshot is written.
    pub worker_snapshot_interval: Option<Span>,
    /// How often configuration is read again.
    pub config_reload_interval: Option<Span>,
    /// What happens while policy cannot be asked.
    pub safety_fail_mode: Option<super::SafetyFailMode>,
    /// What happens to a job whose worker is lost.
    pub worker_lost_action: Option<WorkerLostAction>,
}

/// `kernel:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelSection {
    /// Where it listens, or where it is asked.
    pub addr: Option<String>,
    /// The certificate that it shows.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate.
    pub tls_key: Option<PathBuf>,
    /// The authorities that those who ask it trust.
    pub tls_ca: Option<PathBuf>,
}

/// `workflows:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkflowsSection {
    /// Where a process that was started to be a workflow engine says that it is well.
    pub addr: Option<String>,
    /// After this time without success, what has to be done outside a run is tried again.
    pub scan_interval: Option<Span>,
    /// How many runs are taken at once whose time has come.
    pub scan_limit: Option<u32>,
    /// How many entries of each timeline are kept.
    pub timeline_limit: Option<u32>,
    /// Runs that ended longer ago are deleted.
    pub run_ttl: Option<Span>,
}

/// `log:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `text` or `json`.
    pub format: Option<LogFormat>,
    /// Which lines are written.
    pub filter: Option<String>,
}

/// Parses the text of a settings file.
///
/// # Errors
/// What is wrong, with file, line, column and key.
pub(super) fn parse(path: &Path, text: &str) -> Result<FileSettings, String> {
    if text.trim().is_empty() {
        return Ok(FileSettings::default());
    }
    // The outer option: a file of comments only is an empty document.
    serde_saphyr::from_str::<Option<FileSettings>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|error| {
            let error = error.without_snippet();
            let place = error
                .location()
                .map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
            format!("{}{place}: {error}", path.display())
        })
}
