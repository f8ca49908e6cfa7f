//! A gateway without sockets or scheduler: what it stores and publishes stays where the test can see it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::bus::Bus;
use coretex_core::jobs::{Change, Decision, DecisionRecord, JobEvent, JobStoreExt as _, Outcome};
use coretex_core::platform::Platform;
use coretex_core::policy::{Fragments, Kernel, LocalKernel};
use coretex_core::protocol::{JobId, TenantId, job_hash};
use coretexd::gateway::{Gateway, Server, Services, bind};
use coretexd::settings::{HttpSettings, Origins, RateLimit, Secret, SelfApproval};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the text, as tables have them.
    pub(crate) fn brief(&self) -> (u16, &str) {
        (self.status.as_u16(), self.text.trim_end_matches('\n'))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Rig {
    pub(crate) platform: Platform,
    pub(crate) draining: CancellationToken,
    router: Router,
}

pub(crate) fn settings() -> HttpSettings {
    HttpSettings {
        addr: ([127, 0, 0, 1], 0).into(),
        metrics_addr: ([127, 0, 0, 1], 0).into(),
        api_key: None,
        keys: Vec::new(),
        insecure_open: false,
        rate_limit: None,
        origins: Origins::SameHost,
        self_approval: SelfApproval::default(),
    }
}

pub(crate) fn with_key(key: &str) -> HttpSettings {
    HttpSettings {
        api_key: Secret::normalized(key),
        ..settings()
    }
}

pub(crate) fn with_limit(rps: u32, burst: u32) -> HttpSettings {
    HttpSettings {
        rate_limit: Some(RateLimit { rps, burst }),
        ..settings()
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(settings()).await
    }

    pub(crate) async fn with(settings: HttpSettings) -> Self {
        let stores = EmbeddedStores::open(&Location::Memory, &Options::default())
            .unwrap()
            .stores();
        let fragments = Fragments::new(Arc::clone(&stores.config));
        let kernel = Arc::new(LocalKernel::allow_all().with_fragments(fragments));
        kernel.reload().await.unwrap();
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
        let platform = Platform::builder(Arc::clone(&bus), stores, Arc::clone(&kernel) as Arc<dyn Kernel>)
            .without_scheduler()
            .start()
            .await
            .unwrap();
        platform.spawn(|stop| kernel.run(bus, stop));
        let services = Services::new(&platform, TenantId::fallback(), "embedded");
        let draining = CancellationToken::new();
        let router = Gateway::new(services, &settings, draining.clone()).router();
        Self {
            platform,
            draining,
            router,
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Serves the gateway on a port of this machine until the guard is dropped.
    pub(crate) async fn serve(&self) -> (SocketAddr, DropGuard) {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = Server::new(listener, self.router.clone());
        // The runtime of the test ends it at the latest.
        self.platform.spawn(|_| server.run(stop.clone()));
        (addr, stop.drop_guard())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], body.to_owned()).await
    }

    /// Submits a job and returns its id.
    pub(crate) async fn submit(&self, body: &str) -> JobId {
        let answer = self.post("/api/v1/jobs", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        JobId::try_new(answer.json()["job_id"].as_str().unwrap()).unwrap()
    }

    /// Has policy ask for people, as the scheduler would.
    pub(crate) async fn ask_people(&self, id: &JobId) {
        self.ask_people_with(id, |_| {}).await;
    }

    /// The same, with more in the decision.
    pub(crate) async fn ask_people_with(&self, id: &JobId, tune: impl FnOnce(&mut DecisionRecord)) {
        let request = self.platform.stores.jobs.request(id).await.unwrap().unwrap();
        let now = self.platform.clock.now();
        let mut change = Change::new(id.clone(), JobEvent::RequireApproval, now);
        let mut decision = DecisionRecord {
            reason: "ask first".to_owned(),
            rule_id: "r1".to_owned(),
            policy_snapshot: self.platform.kernel.snapshots().await.unwrap().remove(0),
            approval_required: true,
            approval_ref: id.to_string(),
            job_hash: job_hash(&request),
            ..DecisionRecord::new(Decision::RequireApproval, now)
        };
        tune(&mut decision);
        change.decision = Some(decision);
        self.apply(change).await;
    }

    pub(crate) async fn apply(&self, change: Change) {
        let outcome = self.platform.stores.jobs.apply(change).await.unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
}
