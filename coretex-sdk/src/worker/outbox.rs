//! What the worker says on the bus: in order, in batches, and again until the bus takes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coretex_core::bus::{self, Bus, Message};
use coretex_core::error::{Retry, chain};
use coretex_core::protocol::subjects;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;

/// How many messages wait for the bus. When they do not get through, finished jobs keep their slots, and no new ones
/// are taken.
const CAPACITY: usize = 1_024;
/// How many are published at the price of one wait.
const BATCH: usize = 256;

/// One message, an encoded packet.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    /// A result: repeated until the bus has it.
    Result(Bytes),
    /// An acceptance or a progress note: lost if the bus does not take it.
    Progress(Bytes),
}

impl Outgoing {
    fn message(&self) -> Message {
        let (subject, payload) = match self {
            Self::Result(payload) => (subjects::RESULT, payload),
            Self::Progress(payload) => (subjects::PROGRESS, payload),
        };
        Message {
            subject: subject.to_owned(),
            payload: payload.clone(),
            // The control plane tells repeats apart by the job's state (docs/spec/protocol.md §3).
            message_id: None,
        }
    }
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(mpsc::Sender<Outgoing>);

impl Outbox {
    pub(crate) fn new() -> (Self, Sender) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(sender), Sender(receiver))
    }

    /// Waits for room. Says nothing once the worker has stopped: there is nobody left to say it to.
    pub(crate) async fn send(&self, outgoing: Outgoing) {
        let _ = self.0.send(outgoing).await;
    }
}

/// The way out.
#[derive(Debug)]
pub(crate) struct Sender(mpsc::Receiver<Outgoing>);

impl Sender {
    /// Publishes until `stop`, then what is left, then returns.
    pub(crate) async fn run(mut self, bus: Arc<dyn Bus>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let count = tokio::select! {
                biased;
                count = self.0.recv_many(&mut batch, BATCH) => count,
                // Cancelled only when all jobs are done: nothing is added after it.
                () = stop.cancelled() => {
                    self.0.close();
                    self.0.recv_many(&mut batch, BATCH).await
                }
            };
            if count == 0 {
                return;
            }
            publish(&*bus, &mut batch).await;
        }
    }
}

/// Publishes the batch; what is a result, until it is taken or can never be.
async fn publish(bus: &dyn Bus, batch: &mut Vec<Outgoing>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut told = false;
    while !batch.is_empty() {
        let outcomes = bus.publish_all(batch.iter().map(Outgoing::message).collect()).await;
        let mut outcomes = outcomes.into_iter();
        batch.retain(|outgoing| match outcomes.next() {
            None | Some(Ok(())) => false,
            Some(Err(error)) => keep(outgoing, &error, &mut told),
        });
        if !batch.is_empty() {
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn keep(outgoing: &Outgoing, error: &bus::Error, told: &mut bool) -> bool {
    let again = matches!(outgoing, Outgoing::Result(_)) && error.retry() != Retry::Never;
    if !std::mem::replace(told, true) {
        warn!(error = %chain(error), again, "could not publish");
    }
    again
}
