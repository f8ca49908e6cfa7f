//! Subscriptions to what a stream keeps: push consumers of `JetStream` (docs/spec/bus.md §4).

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::{Client, Subject};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::jetstream::Consumer;
use super::source::Source;
use super::{SEND_TIMEOUT, unavailable};
use crate::bus::{Delivery, Error, Settle};

/// The messages that a push consumer sends to this process.
#[derive(Debug)]
pub(super) struct Durable {
    subscriber: Source,
    /// Kept alive so that it is created again should the broker lose it.
    _consumer: Arc<Consumer>,
    window: Arc<Window>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Window {
    client: Client,
    max_in_flight: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The stream sequences of the messages that were delivered and not settled.
    held: HashSet<u64>,
    waker: Option<Waker>,
}

impl Durable {
    pub(super) fn new(
        client: Client,
        subscriber: Source,
        consumer: Arc<Consumer>,
        max_in_flight: usize,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            subscriber,
            _consumer: consumer,
            window: Arc::new(Window {
                client,
                max_in_flight: max_in_flight.max(1),
                state: Mutex::default(),
            }),
            tasks,
        }
    }

    /// A consumer with flow control, made by others, waits for an answer.
    fn answer(&self, reply: Subject) {
        let client = self.window.client.clone();
        self.tasks.spawn(async move {
            let answer = client.publish(reply, Bytes::new());
            if !matches!(tokio::time::timeout(SEND_TIMEOUT, answer).await, Ok(Ok(()))) {
                tracing::debug!("a flow control message was not answered");
            }
        });
    }
}

impl Stream for Durable {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            {
                let mut state = self.window.state.lock();
                if state.held.len() >= self.window.max_in_flight {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
            let message = match self.subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => message,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            if message.status.is_some() {
                if let Some(reply) = message.reply {
                    self.answer(reply);
                }
                continue;
            }
            let subject = message.subject.into_string();
            let Some(reply) = message.reply else {
                // Not from the consumer, so there is nobody to tell.
                return Poll::Ready(Some(Delivery::new(subject, message.payload, None)));
            };
            let sequence = stream_sequence(&reply);
            if let Some(sequence) = sequence
                && !self.window.state.lock().held.insert(sequence)
            {
                // The ack wait is over, but the first copy is still being handled here.
                continue;
            }
            let receipt = Receipt {
                window: Arc::clone(&self.window),
                reply,
                sequence,
            };
            return Poll::Ready(Some(Delivery::new(subject, message.payload, Some(Box::new(receipt)))));
        }
    }
}

/// The position in the stream, from a subject like `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>...`; newer servers put
/// domain and account after the second token.
fn stream_sequence(reply: &str) -> Option<u64> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let at = if rest.split('.').count() <= 7 { 3 } else { 5 };
    rest.split('.').nth(at)?.parse().ok()
}

/// What is owed for one delivery.
#[derive(Debug)]
struct Receipt {
    window: Arc<Window>,
    reply: Subject,
    sequence: Option<u64>,
}

impl Receipt {
    /// Makes room for the next message, and for this one should it come again.
    fn release(&mut self) {
        let Some(sequence) = self.sequence.take() else { return };
        let waker = {
            let mut state = self.window.state.lock();
            state.held.remove(&sequence);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn answer(&self, op: &'static str, answer: Bytes) -> Result<(), Error> {
        let sending = self.window.client.publish(self.reply.clone(), answer);
        match tokio::time::timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            // Only a closed client refuses an acknowledgement.
            Ok(Err(_)) => Err(Error::Closed),
            Err(elapsed) => Err(unavailable(op, self.reply.to_string(), elapsed)),
        }
    }
}

#[async_trait]
impl Settle for Receipt {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        self.answer("ack", Bytes::from_static(b"+ACK")).await
    }

    async fn retry_after(mut self: Box<Self>, delay: Duration) -> Result<(), Error> {
        // First, because the message may be back before the next line of this function runs.
        self.release();
        let answer = if delay.is_zero() {
            Bytes::from_static(b"-NAK")
        } else {
            format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into()
        };
        self.answer("put off", answer).await
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read_from_both_forms() {
        for (reply, sequence) in [
            ("$JS.ACK.CORETEX_SYS.dur_x.1.42.7.1700000000.0", Some(42)),
            ("$JS.ACK.hub.acc.CORETEX_SYS.dur_x.1.42.7.1700000000.0", Some(42)),
            ("$JS.ACK.hub.acc.CORETEX_SYS.dur_x.1.42.7.1700000000.0.token", Some(42)),
            ("_INBOX.x", None),
            ("$JS.ACK.x", None),
        ] {
            assert_eq!(stream_sequence(reply), sequence, "{reply}");
        }
    }
}
