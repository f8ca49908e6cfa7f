//! The kernel on real stores and buses. See `docs/spec/policy.md` §8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coretex_core::audit::{Actor, AuditRecord};
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{Bus, Message};
use coretex_core::config::{ConfigService, ConfigStore, Document, Write};
use coretex_core::error::StoreError;
use coretex_core::jobs::{Decision, JobState, JobStoreExt as _};
use coretex_core::platform::Platform;
use coretex_core::policy::{Fragments, Kernel, LocalKernel};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{JobRequest, PolicyCheckRequest};
use coretex_core::protocol::{JobId, encode_packet, packet, subjects};
use coretex_core::routing::Routing;
use coretex_core::scheduler;
use coretex_core::test_util::servers::RedisServer;
use coretex_core::test_util::wait::until;
use coretex_core::time::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longer than any test: what happens within it happens because of a notice.
const NEVER: Duration = Duration::from_secs(3_600);

fn embedded() -> (Stores, Option<RedisServer>) {
    let stores = EmbeddedStores::open(&Location::Memory, &Options::default()).expect("stores");
    (stores.stores(), None)
}

async fn redis() -> (Stores, Option<RedisServer>) {
    let server = RedisServer::start().await;
    let stores = RedisStores::connect(&server.url(), RedisOptions::default()).await;
    (stores.expect("connects"), Some(server))
}

async fn write(config: &ConfigService, bundles: Value) {
    let data = json!({ "bundles": bundles });
    let write = Write {
        scope: "system".to_owned(),
        scope_id: "policy".to_owned(),
        data: data.as_object().cloned().expect("an object"),
        ..Write::default()
    };
    config.set(write, &Actor::new("ada", "secops")).await.expect("set");
}

fn deny(topic: &str) -> String {
    format!("rules: [{{id: no, decision: deny, match: {{topics: [{topic}]}}}}]")
}

async fn decides(kernel: &LocalKernel, topic: &str, decision: Decision) {
    let request = PolicyCheckRequest {
        topic: topic.to_owned(),
        ..PolicyCheckRequest::default()
    };
    until(&format!("{topic} is {decision}"), || async {
        let record = kernel.check(&request, Timestamp::ZERO).await.ok()?;
        (record.decision == decision).then_some(())
    })
    .await;
}

async fn changes_reach_every_kernel((stores, _server): (Stores, Option<RedisServer>)) {
    let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
    let config = ConfigService::new(Arc::clone(&stores.config), Arc::clone(&bus), Clock::system());
    write(&config, json!({"secops/a": deny("job.a")})).await;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let kernels: Vec<Arc<LocalKernel>> = (0..2)
        .map(|_| {
            let kernel = LocalKernel::new(None, NEVER).with_fragments(Fragments::new(Arc::clone(&stores.config)));
            let kernel = Arc::new(kernel);
            tasks.spawn(Arc::clone(&kernel).run(Arc::clone(&bus), stop.clone()));
            kernel
        })
        .collect();
    for kernel in &kernels {
        decides(kernel, "job.a", Decision::Deny).await;
        decides(kernel, "job.b", Decision::Allow).await;
    }

    write(
        &config,
        json!({"secops/a": deny("job.a"), "secops/b": {"content": deny("job.b")}}),
    )
    .await;
    for kernel in &kernels {
        decides(kernel, "job.b", Decision::Deny).await;
    }
    let ids: Vec<_> = kernels.iter().map(|kernel| kernel.status().snapshot).collect();
    assert_eq!(ids[0], ids[1]);

    // One is broken, one changes, in the same write.
    write(
        &config,
        json!({"secops/a": "rules: [{decision: x}]", "secops/b": deny("job.c")}),
    )
    .await;
    for kernel in &kernels {
        decides(kernel, "job.c", Decision::Deny).await;
        decides(kernel, "job.b", Decision::Allow).await;
        decides(kernel, "job.a", Decision::Deny).await;
        let quarantined = kernel.status().quarantined;
        assert_eq!(quarantined.len(), 1);
        assert!(quarantined[0].fragment == "secops/a" && quarantined[0].last_good);
    }

    write(&config, json!({})).await;
    for kernel in &kernels {
        decides(kernel, "job.a", Decision::Allow).await;
        assert!(kernel.status().is_ready());
    }
    stop.cancel();
    while let Some(task) = tasks.join_next().await {
        task.expect("ends well");
    }
}

#[tokio::test]
async fn changes_reach_every_kernel_on_embedded() {
    changes_reach_every_kernel(embedded()).await;
}

#[tokio::test]
async fn changes_reach_every_kernel_on_redis() {
    changes_reach_every_kernel(redis().await).await;
}

/// A store that can be down.
#[derive(Debug)]
struct Flaky {
    down: AtomicBool,
    store: Arc<dyn ConfigStore>,
}

#[async_trait]
impl ConfigStore for Flaky {
    async fn get_many(&self, names: &[(String, String)]) -> Result<Vec<Option<Document>>, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                backend: "test",
                op: "get",
                sent: false,
                source: "down".into(),
            });
        }
        self.store.get_many(names).await
    }

    async fn put(&self, document: &Document, expected: u64, audit: Option<&AuditRecord>) -> Result<bool, StoreError> {
        self.store.put(document, expected, audit).await
    }
}

#[tokio::test]
async fn jobs_wait_until_the_fragments_are_read() {
    let (stores, _) = embedded();
    let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
    let config = ConfigService::new(Arc::clone(&stores.config), Arc::clone(&bus), Clock::system());
    write(&config, json!({"secops/a": deny("job.default")})).await;
    let flaky = Arc::new(Flaky {
        down: AtomicBool::new(true),
        store: Arc::clone(&stores.config),
    });
    let store = Arc::clone(&flaky) as Arc<dyn ConfigStore>;
    let kernel = LocalKernel::from_document("version: v1", "base.yaml").expect("a policy");
    let kernel = Arc::new(kernel.with_fragments(Fragments::new(store)));
    let mut options = scheduler::Options::default();
    options.ask_again = Duration::from_millis(200);
    let platform = Platform::builder(Arc::clone(&bus), stores.clone(), Arc::clone(&kernel) as Arc<dyn Kernel>)
        .routing(Routing::default().with_topic("job.default", ["default"]))
        .scheduler(options)
        .start()
        .await
        .expect("started");
    platform.spawn(|stop| Arc::clone(&kernel).run(Arc::clone(&bus), stop));

    let id = JobId::random();
    let request = JobRequest {
        job_id: id.to_string(),
        topic: "job.default".to_owned(),
        ..JobRequest::default()
    };
    let packet = packet("trace-1", "client", Clock::system().now(), Payload::JobRequest(request));
    let message = Message {
        subject: subjects::SUBMIT.to_owned(),
        payload: encode_packet(&packet),
        message_id: None,
    };
    bus.publish(message).await.expect("published");
    let why = until("the job waits for policy", || async {
        let record = stores.jobs.get(&id).await.expect("the store answers")?;
        Some(record.pending?.detail)
    })
    .await;
    assert!(why.contains("cfg:system:policy"), "{why}");

    flaky.down.store(false, Ordering::SeqCst);
    until("the job is denied by the fragment", || async {
        let record = stores.jobs.get(&id).await.expect("the store answers")?;
        (record.state == JobState::Denied).then_some(())
    })
    .await;
    assert!(platform.shutdown(Duration::from_secs(30)).await);
}
