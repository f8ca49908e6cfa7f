//! The service and its client, over real sockets in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::tls::{Authorities, ServerIdentity, TlsFile};
use super::{DialError, KernelServer, RemoteKernel, RemoteOptions, SERVICE_NAME};
use crate::jobs::{Decision, DecisionRecord};
use crate::policy::{
    BASE, Drafts, ExplainError, Explanation, Kernel, KernelStatus, LocalKernel, SourceStatus, Unavailable,
};
use crate::protocol::agent::PolicyCheckRequest;
use crate::test_util::wait::until;
use crate::time::{Clock, Timestamp};

const POLICY: &str = "
version: v1
default_decision: deny
rules:
- id: people
  decision: require_approval
  reason: production write
  match: {topics: [job.prod.*]}
- id: small
  decision: allow
  match: {topics: [job.small]}
  constraints: {budgets: {max_runtime_ms: 1000, max_retries: 2}, redaction_level: strict}
- {id: later, decision: throttle, reason: not now, match: {topics: [job.later]}}
";

fn kernel() -> LocalKernel {
    LocalKernel::from_document(POLICY, "policy").expect("a good policy")
}

fn question(topic: &str) -> PolicyCheckRequest {
    PolicyCheckRequest {
        job_id: "j1".to_owned(),
        topic: topic.to_owned(),
        tenant: "acme".to_owned(),
        ..PolicyCheckRequest::default()
    }
}

/// As many calls as it takes; a machine under load needs its time.
fn patient() -> RemoteOptions {
    RemoteOptions {
        deadline: Duration::from_secs(30),
        ..RemoteOptions::default()
    }
}

fn hasty() -> RemoteOptions {
    RemoteOptions {
        deadline: Duration::from_millis(60),
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_millis(400),
        ..RemoteOptions::default()
    }
}

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(kernel: Arc<dyn Kernel>) -> Self {
        Self::start_at(kernel, "127.0.0.1:0", None).await
    }

    async fn start_at(kernel: Arc<dyn Kernel>, at: &str, identity: Option<ServerIdentity>) -> Self {
        // A provider that is there already is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let listener = TcpListener::bind(at).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let server = KernelServer::new(kernel, listener, identity.as_ref()).expect("it can be served");
        let serving = server.run(stop.clone());
        let task = tokio::spawn(async move { serving.await.expect("it serves") });
        Self { address, stop, task }
    }

    fn client(&self, options: &RemoteOptions) -> RemoteKernel {
        RemoteKernel::dial(&self.address.to_string(), None, options).expect("an address")
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("it stops well");
    }
}

#[tokio::test]
async fn a_remote_kernel_decides_as_the_local_one() {
    let local = Arc::new(kernel());
    let served = Served::start(Arc::clone(&local) as Arc<dyn Kernel>).await;
    let remote = served.client(&patient());
    let now = Timestamp::from_secs(1_000);
    for topic in ["job.prod.x", "job.small", "job.later", "job.other", "", "strange"] {
        let request = question(topic);
        let there = remote.check(&request, now).await.expect("an answer");
        let here = local.check(&request, now).await.expect("an answer");
        assert_eq!(there, here, "{topic}");
        let none = Drafts::new();
        let there = remote.explain(&request, &none, now).await.expect("an answer");
        let here = local.explain(&request, &none, now).await.expect("an answer");
        assert_eq!(there, here, "{topic}");
    }
    assert_eq!(
        remote.snapshots().await.expect("an answer"),
        local.snapshots().await.expect("an answer")
    );
    served.stop().await;
}

#[tokio::test]
async fn drafts_are_judged_by_and_refused_there() {
    let served = Served::start(Arc::new(kernel())).await;
    let remote = served.client(&patient());
    let draft = |text: &str| Drafts::from([(BASE.to_owned(), text.to_owned())]);
    let open = draft("default_decision: allow\nrules: []\n");
    let (decision, _) = remote
        .explain(&question("job.other"), &open, Timestamp::ZERO)
        .await
        .expect("an answer");
    assert_eq!(decision.decision, Decision::Allow);

    let broken = draft("rules:\n- {id: a, decision: alow}\n- {id: b, decision: dney}\n");
    let refused = remote.explain(&question("job.other"), &broken, Timestamp::ZERO).await;
    let Err(ExplainError::Draft(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.problems.len(), 2, "{error}");
    assert_eq!(error.problems[0].rule.as_deref(), Some("a"));
    assert!(error.problems[0].line > 0, "{error}");

    let now = remote
        .check(&question("job.other"), Timestamp::ZERO)
        .await
        .expect("an answer");
    assert_eq!(now.decision, Decision::Deny, "a draft changes nothing");
    served.stop().await;
}

/// Has a policy or has none, as the test says.
#[derive(Debug)]
struct Switch {
    inner: LocalKernel,
    there: AtomicBool,
    asked: AtomicUsize,
}

impl Switch {
    fn new(there: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: kernel(),
            there: AtomicBool::new(there),
            asked: AtomicUsize::new(0),
        })
    }

    fn set(&self, there: bool) {
        self.there.store(there, Ordering::SeqCst);
    }

    fn open(&self) -> Result<(), Unavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.there.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Unavailable {
            what: "no policy is loaded yet".to_owned(),
            source: None,
        })
    }
}

#[async_trait]
impl Kernel for Switch {
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable> {
        self.open()?;
        self.inner.check(request, now).await
    }

    async fn snapshots(&self) -> Result<Vec<String>, Unavailable> {
        self.open()?;
        self.inner.snapshots().await
    }

    async fn explain(
        &self,
        request: &PolicyCheckRequest,
        drafts: &Drafts,
        now: Timestamp,
    ) -> Result<(DecisionRecord, Explanation), ExplainError> {
        self.open()?;
        self.inner.explain(request, drafts, now).await
    }

    async fn status(&self) -> KernelStatus {
        let ok = self.there.load(Ordering::SeqCst);
        KernelStatus {
            sources: vec![SourceStatus {
                name: "switch".to_owned(),
                ok,
                detail: String::new(),
            }],
            ..self.inner.status()
        }
    }
}

#[tokio::test]
async fn a_kernel_without_a_policy_is_unavailable_and_not_serving() {
    let switch = Switch::new(false);
    let served = Served::start(Arc::clone(&switch) as Arc<dyn Kernel>).await;
    let remote = served.client(&hasty());
    until("the kernel says why it has no decision", || async {
        let error = remote
            .check(&question("job.small"), Timestamp::ZERO)
            .await
            .expect_err("no decision");
        error.to_string().contains("no policy is loaded yet").then_some(())
    })
    .await;
    let explained = remote
        .explain(&question("job.small"), &Drafts::new(), Timestamp::ZERO)
        .await;
    assert!(matches!(explained, Err(ExplainError::Unavailable(_))), "{explained:?}");
    assert!(remote.snapshots().await.is_err());
    assert!(!remote.status().await.is_ready());

    let health = health(served.address).await;
    for service in ["", SERVICE_NAME] {
        assert_eq!(check(&health, service).await, Some("NotServing".to_owned()));
    }
    switch.set(true);
    until("health follows the kernel", || async {
        let serving = Some("Serving".to_owned());
        (check(&health, "").await == serving && check(&health, SERVICE_NAME).await == serving).then_some(())
    })
    .await;
    until("the client asks again", || async {
        remote.check(&question("job.small"), Timestamp::ZERO).await.ok()
    })
    .await;
    drop(health);
    served.stop().await;
}

async fn health(address: SocketAddr) -> HealthClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    HealthClient::new(endpoint.connect().await.expect("connected"))
}

async fn check(client: &HealthClient<tonic::transport::Channel>, service: &str) -> Option<String> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client.clone().check(request).await.ok()?;
    Some(format!("{:?}", answer.into_inner().status()))
}

#[tokio::test]
async fn an_outage_is_no_decision_and_ends_by_itself() {
    let served = Served::start(Arc::new(kernel())).await;
    let at = served.address.to_string();
    let remote = served.client(&hasty());
    until("an answer", || async {
        remote.check(&question("job.small"), Timestamp::ZERO).await.ok()
    })
    .await;
    until("a status", || async { remote.status().await.is_ready().then_some(()) }).await;
    served.stop().await;

    until("the circuit opens", || async {
        let error = remote
            .check(&question("job.small"), Timestamp::ZERO)
            .await
            .expect_err("nobody is there");
        error.to_string().contains("next try in").then_some(())
    })
    .await;
    until("the status is too old", || async {
        let status = remote.status().await;
        (!status.is_ready() && status.snapshot.is_some() && status.last_error.is_some()).then_some(())
    })
    .await;

    let served = Served::start_at(Arc::new(kernel()), &at, None).await;
    let decision = until("it is asked again", || async {
        remote.check(&question("job.small"), Timestamp::ZERO).await.ok()
    })
    .await;
    assert_eq!(decision.decision, Decision::AllowWithConstraints);
    served.stop().await;
}

#[tokio::test]
async fn one_call_outlasts_a_short_outage() {
    let switch = Switch::new(false);
    let served = Served::start(Arc::clone(&switch) as Arc<dyn Kernel>).await;
    let remote = Arc::new(served.client(&patient()));
    let call = tokio::spawn({
        let remote = Arc::clone(&remote);
        async move { remote.check(&question("job.small"), Timestamp::ZERO).await }
    });
    until("it was asked twice", || async {
        (switch.asked.load(Ordering::SeqCst) >= 2).then_some(())
    })
    .await;
    switch.set(true);
    let decision = call.await.expect("no panic").expect("an answer");
    assert_eq!(decision.rule_id, "small");
    served.stop().await;
}

#[tokio::test]
async fn a_question_that_is_too_large_stops_only_itself() {
    let served = Served::start(Arc::new(kernel())).await;
    let remote = served.client(&patient());
    let large = PolicyCheckRequest {
        effective_config: vec![b' '; super::MAX_MESSAGE_BYTES + 1],
        ..question("job.small")
    };
    for _ in 0..5 {
        let error = remote.check(&large, Timestamp::ZERO).await.expect_err("too large");
        assert!(error.to_string().contains("refused the question"), "{error}");
    }
    remote
        .check(&question("job.small"), Timestamp::ZERO)
        .await
        .expect("others are answered");
    served.stop().await;
}

/// PEM files for one test.
struct Files {
    folder: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Self {
            folder,
            ca: Issuer::new(params, key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }

    /// A certificate for this machine and its key, good between two years.
    fn issue(&self, name: &str, from: i32, until: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        self.write(&format!("{name}.pem"), certificate.pem());
        self.write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test]
async fn tls_is_spoken_with_those_who_trust_the_authority() {
    let files = Files::new();
    files.issue("good", 2_020, 2_090);
    let now = Clock::system().now();
    let identity = ServerIdentity::load(&files.path("good.pem"), &files.path("good.key"), now).expect("good files");
    let served = Served::start_at(Arc::new(kernel()), "127.0.0.1:0", Some(identity)).await;
    let target = format!("localhost:{}", served.address.port());
    let trust = Authorities::load(&files.path("ca.pem"), now).expect("a good file");
    let remote = RemoteKernel::dial(&target, Some(&trust), &patient()).expect("an address");
    let decision = remote.check(&question("job.small"), now).await.expect("an answer");
    assert_eq!(decision.rule_id, "small");

    let other = Files::new();
    let stranger = Authorities::load(&other.path("ca.pem"), now).expect("a good file");
    let quick = RemoteOptions {
        deadline: Duration::from_secs(1),
        ..RemoteOptions::default()
    };
    let distrustful = RemoteKernel::dial(&target, Some(&stranger), &quick).expect("an address");
    let error = distrustful
        .check(&question("job.small"), now)
        .await
        .expect_err("no trust");
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = RemoteKernel::dial(&target, None, &quick).expect("an address");
    plain.check(&question("job.small"), now).await.expect_err("plain text");
    served.stop().await;
}

#[test]
fn bad_tls_files_are_named_with_the_reason() {
    use TlsFile::{Authorities as Ca, Certificate as Cert, Key};
    let files = Files::new();
    files.issue("good", 2_020, 2_090);
    files.issue("other", 2_020, 2_090);
    files.issue("old", 2_020, 2_021);
    files.issue("early", 2_080, 2_090);
    let read = |name: &str| std::fs::read_to_string(files.path(name)).expect("a file");
    files.write("empty.pem", "");
    files.write("text.pem", "hello");
    files.write("binary.pem", [0_u8, 159, 146, 150]);
    files.write("cut.pem", &read("good.pem")[..200]);
    files.write(
        "rubbish.pem",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    );
    files.write(
        "rubbish.key",
        "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n",
    );
    files.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.write("chain.pem", read("good.pem") + &read("old.pem"));
    let now = Clock::system().now();
    let rows: &[(&str, &str, TlsFile, &str)] = &[
        ("none.pem", "good.key", Cert, "No such file"),
        ("good.pem", "none.key", Key, "No such file"),
        ("empty.pem", "good.key", Cert, "holds no PEM; expected a certificate"),
        ("text.pem", "good.key", Cert, "holds no PEM; expected a certificate"),
        ("binary.pem", "good.key", Cert, "holds no PEM; expected a certificate"),
        ("cut.pem", "good.key", Cert, "broken PEM"),
        ("rubbish.pem", "good.key", Cert, "certificate cannot be read"),
        (
            "good.key",
            "good.key",
            Cert,
            "holds a private key; expected a certificate",
        ),
        (
            "good.pem",
            "good.pem",
            Key,
            "holds a certificate; expected a private key",
        ),
        ("good.pem", "text.pem", Key, "holds no PEM; expected a private key"),
        ("good.pem", "rubbish.key", Key, "private key cannot be used"),
        ("good.pem", "locked.key", Key, "holds an encrypted private key"),
        ("good.pem", "other.key", Key, "is not the key of the certificate in"),
        (
            "old.pem",
            "old.key",
            Cert,
            "certificate expired at 2021-01-01T00:00:00Z",
        ),
        (
            "early.pem",
            "early.key",
            Cert,
            "certificate is not valid before 2080-01-01T00:00:00Z",
        ),
        ("chain.pem", "good.key", Cert, "certificate expired at"),
    ];
    for (certificate, key, file, reason) in rows {
        let error = ServerIdentity::load(&files.path(certificate), &files.path(key), now)
            .expect_err(&format!("{certificate} {key}"));
        assert_eq!(error.file, *file, "{error}");
        assert!(error.reason.contains(reason), "{certificate} {key}: {error}");
        let path = if *file == Cert { certificate } else { key };
        assert!(error.to_string().contains(path), "{error}");
    }
    for (name, reason) in [
        ("none.pem", "No such file"),
        ("good.key", "holds a private key; expected a certificate"),
        ("text.pem", "holds no PEM"),
        ("rubbish.pem", "certificate cannot be read"),
        ("old.pem", "certificate expired at"),
        ("early.pem", "certificate is not valid before"),
    ] {
        let error = Authorities::load(&files.path(name), now).expect_err(name);
        assert_eq!(error.file, Ca, "{error}");
        assert!(error.reason.contains(reason), "{name}: {error}");
    }
    let bundle = files.write("bundle.pem", read("old.pem") + &read("ca.pem"));
    Authorities::load(&bundle, now).expect("one of the authorities is in date");
}

#[tokio::test]
async fn contradictions_are_refused_before_anything_is_dialled() {
    let files = Files::new();
    let trust = Authorities::load(&files.path("ca.pem"), Clock::system().now()).expect("a good file");
    let dial = |target: &str, trust: Option<&Authorities>| RemoteKernel::dial(target, trust, &patient()).map(drop);
    assert!(matches!(
        dial("http://localhost:1", Some(&trust)),
        Err(DialError::Plain { .. })
    ));
    assert!(matches!(
        dial("https://localhost:1", None),
        Err(DialError::NoAuthority { .. })
    ));
    assert!(matches!(dial("nowhere", None), Err(DialError::Address { .. })));
}
