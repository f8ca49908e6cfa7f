//! Workers written with other SDKs, and with none, do jobs of a real daemon on real NATS and Redis.
//!
//! The workers are in `tests/interop`; `scripts/test` prepares the Python that runs them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coretex_core::test_util::servers::{Daemon, NatsServer, Probe, RedisServer, free_address};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long one step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

const POOLS: &str = "
topics:
  job.cap: cap
  job.bare: bare
pools:
  cap: {requires: []}
  bare: {requires: []}
";
const POLICY: &str = "
version: '1'
default_decision: allow
rules: []
";

/// The daemon and what it runs on. Fields are dropped in order: the daemon first.
struct System {
    _daemon: Daemon,
    http: SocketAddr,
    nats: NatsServer,
    redis: RedisServer,
    client: Client,
    _folder: tempfile::TempDir,
}

impl System {
    async fn start() -> Self {
        // A provider that is there already is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let (nats, redis) = (NatsServer::start().await, RedisServer::start().await);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (http, metrics) = (free_address(), free_address());
        let mut daemon = Daemon::new("coretexd", env!("CARGO_BIN_EXE_coretexd"))
            .clear_env()
            .env("NATS_URL", nats.url())
            .env("REDIS_URL", redis.url())
            .env("GATEWAY_HTTP_ADDR", http.to_string())
            .env("GATEWAY_METRICS_ADDR", metrics.to_string())
            .env("POOL_CONFIG_PATH", file("pools.yaml", POOLS))
            .env("SAFETY_POLICY_PATH", file("safety.yaml", POLICY))
            .env("TIMEOUT_CONFIG_PATH", file("timeouts.yaml", "topics: {}\n"))
            .current_dir(folder.path())
            .ready(Probe::Http {
                address: http,
                path: "/health".to_owned(),
                status: 200,
            });
        daemon.start().await;
        Self {
            _daemon: daemon,
            http,
            nats,
            redis,
            client: Client::new(),
            _folder: folder,
        }
    }

    /// Starts one of the workers in `tests/interop`, and waits until it listens.
    async fn worker(&self, script: &str, args: &[&str]) -> Daemon {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop");
        let mut worker = Daemon::new(script, python())
            .args([scripts.join(script).as_os_str()])
            .args([self.nats.url()])
            .args(args)
            .ready(Probe::Line("ready".to_owned()));
        worker.start().await;
        worker
    }

    async fn get(&self, path: &str) -> Value {
        let response = self
            .client
            .get(format!("http://{}/api/v1/{path}", self.http))
            .send()
            .await;
        response.expect("an answer").json().await.expect("JSON")
    }

    /// Waits until a worker's heartbeat was heard.
    async fn until_heard(&self, worker: &str) {
        let start = Instant::now();
        loop {
            let workers = self.get("workers").await;
            let heard = workers
                .as_array()
                .is_some_and(|list| list.iter().any(|seen| seen["worker_id"] == worker));
            if heard {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{worker} was never heard: {workers}");
            sleep(PAUSE).await;
        }
    }

    /// Submits a job and waits for its end.
    async fn run(&self, job: &Value) -> Value {
        let response = self
            .client
            .post(format!("http://{}/api/v1/jobs", self.http))
            .json(job)
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200, "{job}");
        let answer: Value = response.json().await.expect("JSON");
        let id = answer["job_id"].as_str().expect("an id").to_owned();
        let start = Instant::now();
        loop {
            let job = self.get(&format!("jobs/{id}")).await;
            if matches!(
                job["state"].as_str(),
                Some("SUCCEEDED" | "FAILED" | "DENIED" | "TIMEOUT" | "CANCELLED")
            ) {
                return job;
            }
            assert!(start.elapsed() < PATIENCE, "the job does not end: {job}");
            sleep(PAUSE).await;
        }
    }
}

/// The Python with the packages that the workers need.
pub(crate) fn python() -> PathBuf {
    let path = std::env::var_os("CORETEX_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python"),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run ./scripts/test once, which makes it, or set CORETEX_TEST_PYTHON to a Python that has \
         cap-sdk-python, nats-py, redis and grpcio-tools",
        path.display()
    );
    path
}

#[tokio::test]
async fn a_worker_with_the_python_sdk_does_jobs() {
    let system = System::start().await;
    let redis = format!("redis={}", system.redis.url());
    // The SDK listens on one subject; with this one it gets jobs that are placed on it by name.
    let _worker = system
        .worker("cap_worker.py", &["p1", "worker.p1.jobs", "pool=cap", &redis])
        .await;
    system.until_heard("p1").await;

    let job = system.run(&json!({"prompt": "hello", "topic": "job.cap"})).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");
    assert_eq!(job["result"], json!({"echo": "hello", "by": "p1"}), "{job}");

    let job = system
        .run(&json!({"prompt": "raise the disk is full", "topic": "job.cap"}))
        .await;
    assert_eq!(job["state"], "FAILED", "{job}");
    assert_eq!(job["error_message"], "the disk is full", "{job}");

    let job = system.run(&json!({"prompt": "nothing", "topic": "job.cap"})).await;
    assert_eq!(job["state"], "FAILED", "{job}");
    assert_eq!(job["error_message"], "handler returned null", "{job}");

    let job = system.run(&json!({"prompt": "unset", "topic": "job.cap"})).await;
    assert_eq!(job["state"], "FAILED", "{job}");
    assert_eq!(job["error_code"], "missing_status", "{job}");
}

#[tokio::test]
async fn a_python_sdk_worker_that_listens_on_its_topic_does_jobs_too() {
    let system = System::start().await;
    let redis = format!("redis={}", system.redis.url());
    let _worker = system
        .worker("cap_worker.py", &["p2", "job.cap", "pool=cap", &redis])
        .await;
    system.until_heard("p2").await;

    let job = system.run(&json!({"prompt": "hello", "topic": "job.cap"})).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");
    assert_eq!(job["result"], json!({"echo": "hello", "by": "p2"}), "{job}");
}

#[tokio::test]
async fn a_worker_without_any_sdk_does_jobs() {
    let system = System::start().await;
    let _worker = system.worker("nats_worker.py", &["bare-1", "bare"]).await;
    system.until_heard("bare-1").await;

    let job = system.run(&json!({"prompt": "hello", "topic": "job.bare"})).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");

    let labels = json!({"coretex.test.fail": "out of paper"});
    let job = system
        .run(&json!({"prompt": "hello", "topic": "job.bare", "labels": labels}))
        .await;
    assert_eq!(job["state"], "FAILED", "{job}");
    assert_eq!(job["error_message"], "out of paper", "{job}");
}
