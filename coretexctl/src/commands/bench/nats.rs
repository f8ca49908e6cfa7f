//! The bus, as the bench uses it.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options};
use coretex_core::bus::{Bus, Message, SubscribeOptions};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{JobPriority, JobRequest};
use coretex_core::protocol::{decode_packet, encode_packet, packet, subjects};
use coretex_core::time::Clock;
use coretex_core::workflow::TimelineEvent;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::workflow::Ended;
use crate::failure::{Failure, Kind};

/// Who we are on the bus.
const SENDER: &str = "coretexctl-bench";

/// A connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Nats {
    bus: Arc<NatsBus>,
    jetstream: bool,
    clock: Clock,
}

impl Nats {
    pub(super) async fn connect(url: &str, jetstream: bool) -> Result<Self, Failure> {
        let mut options = Options::new(url).with_connect_timeout(Duration::from_secs(5));
        if jetstream {
            options = options.with_jetstream(JetStreamOptions::default());
        }
        let bus = NatsBus::connect(options).await.map_err(|error| {
            Failure::of(Kind::Unreachable, "cannot use the bus")
                .because(&error)
                .hint("is that the address of a NATS server? --nats nats://localhost:4222")
        })?;
        Ok(Self {
            bus: Arc::new(bus),
            jetstream,
            clock: Clock::system(),
        })
    }

    /// Publishes one request per id, and waits until the server has them.
    pub(super) async fn submit(&self, ids: &[String], topic: &str) -> Result<(), Failure> {
        let messages = ids
            .iter()
            .map(|id| {
                let request = JobRequest {
                    job_id: id.clone(),
                    topic: topic.to_owned(),
                    priority: JobPriority::Interactive.into(),
                    tenant_id: "default".to_owned(),
                    ..JobRequest::default()
                };
                Message {
                    subject: subjects::SUBMIT.to_owned(),
                    payload: encode_packet(&packet(id, SENDER, self.clock.now(), Payload::JobRequest(request))),
                    message_id: self.jetstream.then(|| format!("jobreq:{id}")),
                }
            })
            .collect();
        for outcome in self.bus.publish_all(messages).await {
            outcome.map_err(|error| Failure::new("the bus did not take a job").because(&error))?;
        }
        Ok(())
    }

    /// Notes when results arrive, until the set is dropped.
    pub(super) async fn listen(&self, ledger: Arc<Ledger>) -> Result<JoinSet<()>, Failure> {
        let mut results = self
            .bus
            .subscribe(subjects::RESULT, SubscribeOptions::tap())
            .await
            .map_err(|error| Failure::new("cannot listen to results").because(&error))?;
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Some(delivery) = results.next().await {
                if let Ok(packet) = decode_packet(&delivery.payload)
                    && let Some(Payload::JobResult(result)) = packet.payload
                {
                    ledger.result(&result.job_id);
                }
            }
        });
        Ok(listening)
    }

    /// Notes which runs of a workflow end, until the set is dropped.
    pub(super) async fn listen_to_runs(&self, workflow: String, ended: Arc<Ended>) -> Result<JoinSet<()>, Failure> {
        let mut entries = self
            .bus
            .subscribe(subjects::WORKFLOW_TIMELINE, SubscribeOptions::tap())
            .await
            .map_err(|error| Failure::new("cannot listen to runs").because(&error))?;
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Some(delivery) = entries.next().await {
                let entries: Vec<TimelineEvent> = serde_json::from_slice(&delivery.payload).unwrap_or_default();
                for entry in entries {
                    if entry.event_type == "run_status" && entry.workflow_id == workflow {
                        ended.note(&entry.run_id, &entry.status);
                    }
                }
            }
        });
        Ok(listening)
    }

    pub(super) async fn close(self) {
        self.bus.drain().await;
    }
}
