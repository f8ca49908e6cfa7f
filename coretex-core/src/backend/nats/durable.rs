//! Subscriptions to what a stream keeps: push consumers of `JetStream` (docs/spec/bus.md §4).

use std::collections::{HashMap, VecDeque};
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

use super::jetstream::{Consumer, MAX_ACK_PENDING};
use super::source::Source;
use super::{SEND_TIMEOUT, unavailable};
use crate::bus::{Delivery, Error, Settle};

const ACK: &[u8] = b"+ACK";
/// How many acknowledged messages a subscription remembers. A copy of one of them may still be on its way here. When the
/// broker sent it, at most [`MAX_ACK_PENDING`] messages were unsettled; only these can be acknowledged between the message
/// and its copy, and those that were held here at the time.
const REMEMBERED: usize = 2 * MAX_ACK_PENDING;

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
    known: HashMap<MessageKey, Known>,
    /// How many of them are held.
    held: usize,
    /// The others, oldest first.
    acknowledged: VecDeque<MessageKey>,
    waker: Option<Waker>,
}

/// What a message is known by. The position alone is not enough: a stream that was lost and made again starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MessageKey {
    sequence: u64,
    /// When the stream took it, in nanoseconds.
    taken: u64,
}

/// What became of a message that was delivered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Held,
    Acknowledged,
}

impl State {
    /// Notes that a message is delivered; says what is known of it if it was before.
    fn hold(&mut self, key: MessageKey) -> Option<Known> {
        let known = self.known.get(&key).copied();
        if known.is_none() {
            self.known.insert(key, Known::Held);
            self.held += 1;
        }
        known
    }

    /// Notes that a held message is settled.
    fn settle(&mut self, key: MessageKey, acknowledged: bool) {
        self.held -= 1;
        if !acknowledged {
            self.known.remove(&key);
            return;
        }
        self.known.insert(key, Known::Acknowledged);
        self.acknowledged.push_back(key);
        if self.acknowledged.len() > REMEMBERED
            && let Some(oldest) = self.acknowledged.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
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

    /// Answers a message that is not delivered.
    fn answer(&self, reply: Subject, answer: &'static [u8]) {
        let client = self.window.client.clone();
        self.tasks.spawn(async move {
            let answer = client.publish(reply, Bytes::from_static(answer));
            if !matches!(tokio::time::timeout(SEND_TIMEOUT, answer).await, Ok(Ok(()))) {
                tracing::debug!("a copy or a flow control message was not answered");
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
                if state.held >= self.window.max_in_flight {
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
                // A consumer with flow control, made by others, waits for an answer.
                if let Some(reply) = message.reply {
                    self.answer(reply, b"");
                }
                continue;
            }
            let subject = message.subject.into_string();
            let Some(reply) = message.reply else {
                // Not from the consumer, so there is nobody to tell.
                return Poll::Ready(Some(Delivery::new(subject, message.payload, None)));
            };
            let key = message_key(&reply);
            let known = key.and_then(|key| self.window.state.lock().hold(key));
            match known {
                None => {}
                // The ack wait is over, but the first copy is still being handled here.
                Some(Known::Held) => continue,
                // It was on its way when the first copy was acknowledged, or that acknowledgement was lost.
                Some(Known::Acknowledged) => {
                    self.answer(reply, ACK);
                    continue;
                }
            }
            let receipt = Receipt {
                window: Arc::clone(&self.window),
                reply,
                key,
            };
            return Poll::Ready(Some(Delivery::new(subject, message.payload, Some(Box::new(receipt)))));
        }
    }
}

/// What a message is known by, from a subject like `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<of consumer>.<taken>.<left>`;
/// newer servers put domain and account after the second token.
fn message_key(reply: &str) -> Option<MessageKey> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let at = if rest.split('.').count() <= 7 { 3 } else { 5 };
    let mut tokens = rest.split('.').skip(at);
    Some(MessageKey {
        sequence: tokens.next()?.parse().ok()?,
        taken: tokens.nth(1)?.parse().ok()?,
    })
}

/// What is owed for one delivery.
#[derive(Debug)]
struct Receipt {
    window: Arc<Window>,
    reply: Subject,
    key: Option<MessageKey>,
}

impl Receipt {
    /// Makes room for the next message and, unless it was acknowledged, for this one should it come again.
    fn release(&mut self, acknowledged: bool) {
        let Some(key) = self.key.take() else { return };
        let waker = {
            let mut state = self.window.state.lock();
            state.settle(key, acknowledged);
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
    async fn ack(mut self: Box<Self>) -> Result<(), Error> {
        self.answer("ack", Bytes::from_static(ACK)).await?;
        self.release(true);
        Ok(())
    }

    async fn retry_after(mut self: Box<Self>, delay: Duration) -> Result<(), Error> {
        // First, because the message may be back before the next line of this function runs.
        self.release(false);
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
        self.release(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sequence: u64) -> MessageKey {
        MessageKey { sequence, taken: 7 }
    }

    #[test]
    fn messages_are_known_by_both_forms() {
        let known = Some(MessageKey {
            sequence: 42,
            taken: 1_700_000_000,
        });
        for (reply, expected) in [
            ("$JS.ACK.CORETEX_SYS.dur_x.1.42.7.1700000000.0", known),
            ("$JS.ACK.hub.acc.CORETEX_SYS.dur_x.1.42.7.1700000000.0", known),
            ("$JS.ACK.hub.acc.CORETEX_SYS.dur_x.1.42.7.1700000000.0.token", known),
            ("_INBOX.x", None),
            ("$JS.ACK.x", None),
        ] {
            assert_eq!(message_key(reply), expected, "{reply}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_remembered_and_what_was_not_is_welcome_again() {
        let mut state = State::default();
        assert_eq!(state.hold(key(1)), None);
        assert_eq!(state.hold(key(1)), Some(Known::Held));
        state.settle(key(1), false);
        assert_eq!(state.hold(key(1)), None);
        state.settle(key(1), true);
        assert_eq!(state.hold(key(1)), Some(Known::Acknowledged));
        // The same place in another stream of that name.
        assert_eq!(state.hold(MessageKey { sequence: 1, taken: 8 }), None);
        assert_eq!(state.held, 1);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut state = State::default();
        for sequence in 0..2 * REMEMBERED as u64 {
            assert_eq!(state.hold(key(sequence)), None);
            state.settle(key(sequence), true);
        }
        assert_eq!((state.known.len(), state.acknowledged.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(state.hold(key(REMEMBERED as u64)), Some(Known::Acknowledged));
        assert_eq!(state.hold(key(0)), None);
    }
}
