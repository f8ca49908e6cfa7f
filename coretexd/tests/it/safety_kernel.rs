//! The safety kernel as a process: a client written from the `.proto` files alone asks it, a scheduler asks it, it is killed
//! under load, and files that are no good for TLS stop it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coretex_core::test_util::servers::{Daemon, NatsServer, Probe, RedisServer, free_address};
use coretex_core::test_util::wait::{until, until_within};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::interop::python;

/// How long the tests wait for the last job to end, on any machine.
const PATIENCE: Duration = Duration::from_secs(90);

const POLICY: &str = "
version: v1
default_decision: deny
rules:
- {id: people, decision: require_approval, reason: production write, match: {topics: [job.prod.*]}}
- id: small
  decision: allow
  match: {topics: [job.small]}
  constraints: {budgets: {max_runtime_ms: 1000, max_retries: 2}}
- {id: default, decision: allow, match: {topics: [job.default]}}
- {id: never, decision: deny, reason: forbidden, match: {topics: [job.never]}}
";

const POOLS: &str = "
topics: {job.default: default, job.never: default}
pools: {default: {requires: []}}
";

/// Certificates for this machine, made for one test.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Not the name that certificates have by default: one signed by its namesake looks self-signed to OpenSSL.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("written");
        Self(Issuer::new(params, key))
    }

    /// Writes `name.pem` and `name.key`, good until a year.
    fn issue(&self, folder: &Path, name: &str, until: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        params.not_before = date_time_ymd(2_020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

/// Servers, a kernel and whoever asks it, each a process.
struct Split {
    asking: Option<Daemon>,
    kernel: Daemon,
    kernel_at: SocketAddr,
    http: SocketAddr,
    tls: bool,
    nats: NatsServer,
    redis: RedisServer,
    folder: TempDir,
}

impl Split {
    /// A kernel alone.
    async fn kernel(tls: bool) -> Self {
        // A provider that is there already is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let (nats, redis) = (NatsServer::start().await, RedisServer::start().await);
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("safety.yaml", POLICY),
            ("pools.yaml", POOLS),
            ("timeouts.yaml", "topics: {}\n"),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        Authority::new(folder.path()).issue(folder.path(), "kernel", 2_090);
        let (kernel_at, http, metrics) = (free_address(), free_address(), free_address());
        let mut kernel = daemon("kernel", folder.path(), &nats, &redis)
            .args(["--role", "safety-kernel"])
            .env("SAFETY_POLICY_PATH", folder.path().join("safety.yaml"))
            .env("SAFETY_KERNEL_ADDR", kernel_at.to_string())
            .env("GATEWAY_METRICS_ADDR", metrics.to_string())
            .ready(Probe::Http {
                address: metrics,
                path: "/ready".to_owned(),
                status: 200,
            });
        if tls {
            kernel = kernel
                .env("SAFETY_KERNEL_TLS_CERT", folder.path().join("kernel.pem"))
                .env("SAFETY_KERNEL_TLS_KEY", folder.path().join("kernel.key"));
        }
        kernel.start().await;
        Self {
            asking: None,
            kernel,
            kernel_at,
            http,
            tls,
            nats,
            redis,
            folder,
        }
    }

    /// A kernel, and a gateway with a scheduler and a worker that have no policy of their own.
    async fn whole(tls: bool) -> Self {
        let mut split = Self::kernel(tls).await;
        let metrics = free_address();
        let mut asking = daemon("asking", split.path(), &split.nats, &split.redis)
            .args(["--role", "gateway,scheduler", "--echo-worker"])
            .env("SAFETY_POLICY_PATH", split.path().join("there is none"))
            .env("SAFETY_KERNEL_ADDR", split.target())
            .env("API_RATE_LIMIT_RPS", "0")
            .env("GATEWAY_HTTP_ADDR", split.http.to_string())
            .env("GATEWAY_METRICS_ADDR", metrics.to_string())
            .ready(Probe::Http {
                address: split.http,
                path: "/ready".to_owned(),
                status: 200,
            });
        if tls {
            asking = asking.env("SAFETY_KERNEL_TLS_CA", split.path().join("ca.pem"));
        }
        asking.start().await;
        split.asking = Some(asking);
        split
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn target(&self) -> String {
        format!("localhost:{}", self.kernel_at.port())
    }

    /// What the client written from the `.proto` files heard.
    async fn heard(&self) -> Value {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = tokio::process::Command::new(python());
        command
            .arg(here.join("../tests/interop/kernel_client.py"))
            .arg(self.target())
            .arg(here.join("../proto"));
        if self.tls {
            command.arg(self.path().join("ca.pem"));
        }
        let output = command.output().await.expect("Python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}\n{}", self.kernel.log_tail());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    async fn submit(&self, client: &Client, topic: &str) -> Option<String> {
        let url = format!("http://{}/api/v1/jobs", self.http);
        submit(client, &url, topic).await
    }

    async fn job(&self, client: &Client, id: &str) -> Option<Value> {
        let url = format!("http://{}/api/v1/jobs/{id}", self.http);
        client.get(url).send().await.ok()?.json().await.ok()
    }

    async fn ended(&self, client: &Client, id: &str) -> Value {
        until_within(PATIENCE, &format!("job {id} ends"), || async {
            let job = self.job(client, id).await?;
            let over = ["SUCCEEDED", "FAILED", "DENIED", "TIMEOUT", "CANCELLED"];
            over.contains(&job["state"].as_str()?).then_some(job)
        })
        .await
    }
}

async fn submit(client: &Client, url: &str, topic: &str) -> Option<String> {
    let body = json!({"prompt": "hello", "topic": topic});
    let answer = client.post(url).json(&body).send().await.ok()?;
    let answer: Value = answer.error_for_status().ok()?.json().await.ok()?;
    Some(answer["job_id"].as_str()?.to_owned())
}

fn daemon(name: &str, folder: &Path, nats: &NatsServer, redis: &RedisServer) -> Daemon {
    Daemon::new(name, env!("CARGO_BIN_EXE_coretexd"))
        .clear_env()
        .env("NATS_URL", nats.url())
        .env("REDIS_URL", redis.url())
        .env("POOL_CONFIG_PATH", folder.join("pools.yaml"))
        .env("TIMEOUT_CONFIG_PATH", folder.join("timeouts.yaml"))
        .current_dir(folder)
}

async fn a_client_from_the_proto_alone(tls: bool) {
    let mut split = Split::kernel(tls).await;
    let heard = split.heard().await;
    let small = &heard["check"];
    assert_eq!(small["decision"], "DECISION_TYPE_ALLOW_WITH_CONSTRAINTS", "{heard:#}");
    assert_eq!(small["rule_id"], "small");
    assert_eq!(small["constraints"]["budgets"]["max_runtime_ms"], "1000");
    assert!(
        small["policy_snapshot"]
            .as_str()
            .is_some_and(|id| id.starts_with("v1:")),
        "{heard:#}"
    );
    assert_eq!(&heard["evaluate"], small);
    let people = &heard["people"];
    assert_eq!(people["decision"], "DECISION_TYPE_REQUIRE_HUMAN");
    assert_eq!(people["reason"], "production write");
    assert_eq!(people["approval_required"], true);
    assert_eq!(people["approval_ref"], "j1");
    assert_eq!(heard["denied"]["decision"], "DECISION_TYPE_DENY");
    assert_eq!(heard["no_topic"]["decision"], "DECISION_TYPE_DENY");
    assert_eq!(heard["no_topic"]["reason"], "missing topic");
    let explained = heard["explain"]["explanation"].as_str().expect("an explanation");
    let explained: Value = serde_json::from_str(explained).expect("JSON");
    assert_eq!(explained["rule"]["id"], "people", "{explained:#}");
    assert_eq!(heard["simulate"]["decision"], "DECISION_TYPE_ALLOW");
    assert_eq!(heard["refused"]["error"], "INVALID_ARGUMENT");
    let refused = heard["refused"]["message"].as_str().expect("a message");
    assert!(refused.contains("alow"), "{refused}");
    assert_eq!(heard["large"]["error"], "OUT_OF_RANGE");
    assert_eq!(heard["snapshots"][0], small["policy_snapshot"]);
    assert_eq!(heard["status"]["snapshot"], small["policy_snapshot"]);
    assert_eq!(heard["health"], json!({"": "SERVING", "kernel": "SERVING"}));
    for version in ["v1", "v1alpha"] {
        assert_eq!(
            heard[version]["methods"],
            json!(["Check", "Evaluate", "Explain", "Simulate", "ListSnapshots"]),
            "{heard:#}"
        );
        let services = heard[version]["services"].as_array().expect("services");
        for service in ["coretex.agent.v1.SafetyKernel", "grpc.health.v1.Health"] {
            assert!(services.contains(&json!(service)), "{services:?}");
        }
    }
    let status = split.kernel.stop().await;
    assert!(status.success(), "{}", split.kernel.log_tail());
}

#[tokio::test]
async fn a_python_client_asks_the_kernel() {
    a_client_from_the_proto_alone(false).await;
}

#[tokio::test]
async fn a_python_client_asks_the_kernel_over_tls() {
    a_client_from_the_proto_alone(true).await;
}

#[tokio::test]
async fn jobs_are_judged_by_a_kernel_elsewhere() {
    let split = Split::whole(true).await;
    let client = Client::new();
    let good = split.submit(&client, "job.default").await.expect("accepted");
    let bad = split.submit(&client, "job.never").await.expect("accepted");
    assert_eq!(split.ended(&client, &good).await["state"], "SUCCEEDED");
    let denied = split.ended(&client, &bad).await;
    assert_eq!(denied["state"], "DENIED", "{denied}");
    assert!(denied.to_string().contains("forbidden"), "{denied}");
}

/// What the tests and their clients say is what the kernel said: nothing was allowed or denied while it was gone.
pub(crate) async fn killed_under_load() {
    let mut split = Split::whole(false).await;
    let client = Client::new();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    let url = format!("http://{}/api/v1/jobs", split.http);
    for i in 0..4 {
        let topic = if i == 0 { "job.never" } else { "job.default" };
        let (client, stop, url, accepted) = (client.clone(), stop.clone(), url.clone(), Arc::clone(&accepted));
        clients.spawn(async move {
            while !stop.is_cancelled() {
                if let Some(id) = submit(&client, &url, topic).await {
                    accepted.lock().push((id, topic));
                }
                // The pace of the load.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let count = || accepted.lock().len();
    let more = |than: usize| async move { (count() >= than).then_some(()) };
    for _ in 0..3 {
        let before = count();
        until_within(PATIENCE, "jobs flow", || more(before + 20)).await;
        split.kernel.kill();
        // From here on there is nobody to decide.
        let waiting = until_within(PATIENCE, "a job is accepted", || async {
            split.submit(&client, "job.default").await
        })
        .await;
        until_within(PATIENCE, "a job waits for the kernel", || async {
            let job = split.job(&client, &waiting).await?;
            assert!(
                matches!(job["state"].as_str(), Some("PENDING")),
                "decided without a kernel: {job}"
            );
            job.to_string().contains("safety_unavailable").then_some(())
        })
        .await;
        accepted.lock().push((waiting, "job.default"));
        let before = count();
        until_within(PATIENCE, "jobs are accepted meanwhile", || more(before + 20)).await;
        split.kernel.start().await;
    }
    stop.cancel();
    clients.join_all().await;
    let accepted = std::mem::take(&mut *accepted.lock());
    for (id, topic) in &accepted {
        let job = split.ended(&client, id).await;
        let expected = if *topic == "job.never" { "DENIED" } else { "SUCCEEDED" };
        assert_eq!(job["state"], expected, "{job}");
        if expected == "DENIED" {
            assert!(
                job.to_string().contains("forbidden"),
                "denied for another reason: {job}"
            );
        }
    }
    eprintln!("{} jobs ended as the kernel said", accepted.len());
}

#[tokio::test]
async fn the_gateway_is_not_ready_without_its_kernel() {
    let mut split = Split::whole(false).await;
    let client = Client::new();
    let ready = || async {
        let answer = client.get(format!("http://{}/ready", split.http)).send().await.ok()?;
        Some(answer.status().as_u16())
    };
    assert_eq!(ready().await, Some(200));
    split.kernel.kill();
    until("it is not ready", || async {
        (ready().await == Some(503)).then_some(())
    })
    .await;
    split.kernel.start().await;
    until("it is ready", || async { (ready().await == Some(200)).then_some(()) }).await;
}

#[test]
fn files_that_are_no_good_for_tls_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path());
    authority.issue(folder.path(), "good", 2_090);
    authority.issue(folder.path(), "other", 2_090);
    authority.issue(folder.path(), "old", 2_021);
    std::fs::write(folder.path().join("text.pem"), "hello").expect("written");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let (cert, key, ca) = (
        "SAFETY_KERNEL_TLS_CERT",
        "SAFETY_KERNEL_TLS_KEY",
        "SAFETY_KERNEL_TLS_CA",
    );
    let kernel: &[&str] = &["--role", "all"];
    let asking: &[&str] = &["--role", "gateway,scheduler,workflow-engine"];
    for (role, files, expected) in [
        (kernel, vec![(cert, "good.pem")], vec!["SAFETY_KERNEL_TLS_KEY: not set"]),
        (kernel, vec![(key, "good.key")], vec!["SAFETY_KERNEL_TLS_CERT: not set"]),
        (
            kernel,
            vec![(cert, "none.pem"), (key, "good.key")],
            vec![cert, "none.pem", "No such file"],
        ),
        (
            kernel,
            vec![(cert, "good.pem"), (key, "none.key")],
            vec![key, "none.key", "No such file"],
        ),
        (
            kernel,
            vec![(cert, "text.pem"), (key, "good.key")],
            vec![cert, "text.pem", "holds no PEM"],
        ),
        (
            kernel,
            vec![(cert, "good.key"), (key, "good.key")],
            vec![cert, "holds a private key"],
        ),
        (
            kernel,
            vec![(cert, "good.pem"), (key, "ca.pem")],
            vec![key, "holds a certificate"],
        ),
        (
            kernel,
            vec![(cert, "good.pem"), (key, "other.key")],
            vec![key, "is not the key"],
        ),
        (
            kernel,
            vec![(cert, "old.pem"), (key, "old.key")],
            vec![cert, "expired at 2021-01-01"],
        ),
        (asking, vec![(ca, "none.pem")], vec![ca, "none.pem", "No such file"]),
        (asking, vec![(ca, "good.key")], vec![ca, "holds a private key"]),
        (asking, vec![(ca, "old.pem")], vec![ca, "expired at"]),
        (asking, vec![], vec![]),
        (kernel, vec![(cert, "good.pem"), (key, "good.key")], vec![]),
        (asking, vec![(ca, "ca.pem")], vec![]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_coretexd"))
            .env_clear()
            .env("SAFETY_KERNEL_ADDR", "localhost:50051")
            .envs(files.iter().map(|(variable, name)| (variable, path(name))))
            .args(role)
            .arg("--check-config")
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        let code = if expected.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{files:?}: {text}");
        for part in expected {
            assert!(text.contains(part), "{files:?} {part}: {text}");
        }
    }
}
