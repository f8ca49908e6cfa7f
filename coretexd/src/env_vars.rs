//! Every environment variable that the daemon reads, in one place. An empty variable counts as unset.
//!
//! `docs/configuration.md` is checked against [`ALL`] by a test.

macro_rules! env_vars {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// All of them, with what they mean.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),+))),+];
    };
}

env_vars! {
    /// The settings file (default `config/system.yaml`, read only if it is there).
    CONFIG = "CORETEX_CONFIG";
    /// Roles of this process, comma separated: `gateway`, `scheduler`, `safety-kernel`, `workflow-engine`, `all`
    /// (default).
    ROLES = "CORETEX_ROLES";
    /// Embedded mode: the data folder (default `./coretex-data`), or `:memory:` to keep nothing.
    DATA_DIR = "CORETEX_DATA_DIR";
    /// The NATS servers, comma separated. With `REDIS_URL`, switches from embedded to distributed mode.
    NATS_URL = "NATS_URL";
    /// Whether durable subjects go through JetStream: `1`, `true`, `yes`, `y` or `on`.
    NATS_USE_JETSTREAM = "NATS_USE_JETSTREAM";
    /// How long JetStream waits for an acknowledgement before it delivers again (default `2s`).
    NATS_JS_ACK_WAIT = "NATS_JS_ACK_WAIT";
    /// How long JetStream keeps messages (default `168h`).
    NATS_JS_MAX_AGE = "NATS_JS_MAX_AGE";
    /// The Redis server. With `NATS_URL`, switches from embedded to distributed mode.
    REDIS_URL = "REDIS_URL";
    /// How long job metadata is kept (default `168h`).
    JOB_META_TTL = "JOB_META_TTL";
    /// The same in seconds; `JOB_META_TTL` wins.
    JOB_META_TTL_SECONDS = "JOB_META_TTL_SECONDS";
    /// How long payloads are kept (default `24h`).
    REDIS_DATA_TTL = "REDIS_DATA_TTL";
    /// The same in seconds; `REDIS_DATA_TTL` wins.
    REDIS_DATA_TTL_SECONDS = "REDIS_DATA_TTL_SECONDS";
    /// How long to keep trying to reach NATS and Redis at start (default `30s`).
    CONNECT_TIMEOUT = "CORETEX_CONNECT_TIMEOUT";
    /// How long a graceful stop may take (default `30s`).
    SHUTDOWN_TIMEOUT = "CORETEX_SHUTDOWN_TIMEOUT";
    /// Where HTTP listens (default `:8081`).
    HTTP_ADDR = "GATEWAY_HTTP_ADDR";
    /// Where metrics, liveness and readiness are served without a key (default `:9092`).
    METRICS_ADDR = "GATEWAY_METRICS_ADDR";
    /// The API key that clients must send. First of the three that is set.
    SUPER_SECRET_API_TOKEN = "CORETEX_SUPER_SECRET_API_TOKEN";
    /// The API key that clients must send. Second of the three.
    CORETEX_API_KEY = "CORETEX_API_KEY";
    /// The API key that clients must send. Third of the three.
    API_KEY = "API_KEY";
    /// The file of API keys that belong to somebody: principal and roles. See docs/configuration.md §5.
    API_KEYS_FILE = "CORETEX_API_KEYS_FILE";
    /// Requests per second and client (default `50`); `0` disables the limit.
    RATE_LIMIT_RPS = "API_RATE_LIMIT_RPS";
    /// Requests that a client may send at once (default `100`).
    RATE_LIMIT_BURST = "API_RATE_LIMIT_BURST";
    /// Origins that browsers may call from, comma separated, or `*`. First of the three that is not blank.
    ALLOWED_ORIGINS = "CORETEX_ALLOWED_ORIGINS";
    /// Origins that browsers may call from. Second of the three.
    CORS_ALLOW_ORIGINS_CORETEX = "CORETEX_CORS_ALLOW_ORIGINS";
    /// Origins that browsers may call from. Third of the three.
    CORS_ALLOW_ORIGINS = "CORS_ALLOW_ORIGINS";
    /// Who may approve their own jobs: `unverified` (default: callers whose key does not say who they are), `never`, `always`.
    APPROVAL_SELF = "APPROVAL_SELF";
    /// The tenant of requests that name none (default `default`).
    TENANT_ID = "TENANT_ID";
    /// Which topics go to which pools (default `config/pools.yaml`).
    POOL_CONFIG_PATH = "POOL_CONFIG_PATH";
    /// How long jobs may take (default `config/timeouts.yaml`).
    TIMEOUT_CONFIG_PATH = "TIMEOUT_CONFIG_PATH";
    /// The base policy (default `config/safety.yaml`); blanks alone for none.
    SAFETY_POLICY_PATH = "SAFETY_POLICY_PATH";
    /// Where the base policy is fetched from, instead of `SAFETY_POLICY_PATH`; without `http://` or `https://`, a path.
    SAFETY_POLICY_URL = "SAFETY_POLICY_URL";
    /// The Ed25519 key that the base policy must be signed with, in hex or base64. Unset, no signature is asked for.
    SAFETY_POLICY_PUBLIC_KEY = "SAFETY_POLICY_PUBLIC_KEY";
    /// The signature of the base policy, in hex or base64.
    SAFETY_POLICY_SIGNATURE = "SAFETY_POLICY_SIGNATURE";
    /// The file that holds the signature, raw or as text (default: the policy's name with `.sig` added).
    SAFETY_POLICY_SIGNATURE_PATH = "SAFETY_POLICY_SIGNATURE_PATH";
    /// How often policy is read again (default `30s`).
    SAFETY_POLICY_RELOAD_INTERVAL = "SAFETY_POLICY_RELOAD_INTERVAL";
    /// Any value at all, even `0`: policy fragments in the configuration store do not count.
    SAFETY_POLICY_CONFIG_DISABLE = "SAFETY_POLICY_CONFIG_DISABLE";
    /// The scope of the document that holds the fragments (default `system`).
    SAFETY_POLICY_CONFIG_SCOPE = "SAFETY_POLICY_CONFIG_SCOPE";
    /// The id of the document that holds the fragments (default `policy`).
    SAFETY_POLICY_CONFIG_ID = "SAFETY_POLICY_CONFIG_ID";
    /// The member of that document that holds the fragments (default `bundles`).
    SAFETY_POLICY_CONFIG_KEY = "SAFETY_POLICY_CONFIG_KEY";
    /// Where the safety kernel listens for gRPC (default `localhost:50051` if the role `safety-kernel` is named); in a process
    /// without that role, where it is asked.
    SAFETY_KERNEL_ADDR = "SAFETY_KERNEL_ADDR";
    /// The certificate that the safety kernel shows, PEM. With `SAFETY_KERNEL_TLS_KEY`, switches to TLS.
    SAFETY_KERNEL_TLS_CERT = "SAFETY_KERNEL_TLS_CERT";
    /// The key of that certificate, PEM.
    SAFETY_KERNEL_TLS_KEY = "SAFETY_KERNEL_TLS_KEY";
    /// The authorities that those who ask the safety kernel trust, PEM; switches to TLS.
    SAFETY_KERNEL_TLS_CA = "SAFETY_KERNEL_TLS_CA";
    /// Without effect: TLS is spoken exactly when its files are named.
    SAFETY_KERNEL_INSECURE = "SAFETY_KERNEL_INSECURE";
    /// `retry` (default): a job waits while policy cannot be asked; `deny`: it is denied for good.
    SAFETY_FAIL_MODE = "SAFETY_FAIL_MODE";
    /// What happens to a job whose worker is lost after it accepted: `fail`, `wait` or `redispatch`. Unset: it fails, unless
    /// it carries the label `coretex.idempotent=true`.
    WORKER_LOST_ACTION = "WORKER_LOST_ACTION";
    /// How often the worker snapshot is written (default `5s`).
    WORKER_SNAPSHOT_INTERVAL = "WORKER_SNAPSHOT_INTERVAL";
    /// How often configuration is read again (default `30s`).
    CONFIG_RELOAD_INTERVAL = "SCHEDULER_CONFIG_RELOAD_INTERVAL";
    /// Where the workflow engine serves health, readiness and metrics (default `:9093` if the role `workflow-engine` is named).
    WORKFLOW_ENGINE_HTTP_ADDR = "WORKFLOW_ENGINE_HTTP_ADDR";
    /// After this time, what a run has to have done outside is tried again (default `5s`).
    WORKFLOW_ENGINE_SCAN_INTERVAL = "WORKFLOW_ENGINE_SCAN_INTERVAL";
    /// How many runs are taken at once whose time has come (default `200`).
    WORKFLOW_ENGINE_RUN_SCAN_LIMIT = "WORKFLOW_ENGINE_RUN_SCAN_LIMIT";
    /// How many entries of each run's timeline are kept (default `10000`).
    WORKFLOW_TIMELINE_LIMIT = "WORKFLOW_TIMELINE_LIMIT";
    /// Runs that ended longer ago are deleted. Unset, they are kept.
    WORKFLOW_RUN_TTL = "WORKFLOW_RUN_TTL";
    /// `text` (default) or `json`.
    LOG_FORMAT = "CORETEX_LOG_FORMAT";
    /// Which log lines are written, as `info,coretex_core=debug` (default `info`).
    LOG = "RUST_LOG";
}
