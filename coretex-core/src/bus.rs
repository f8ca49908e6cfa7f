//! The bus: how packets travel. See `docs/spec/protocol.md` §1 and `docs/spec/bus.md`.

pub mod subject;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::{BoxError, Retry};
use crate::protocol::JobId;

/// What can go wrong on a bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker did not answer in time, or there is no connection.
    #[error("{backend} did not answer `{op}` on `{subject}`")]
    Unavailable {
        /// Which bus, for people.
        backend: &'static str,
        /// What was attempted.
        op: &'static str,
        /// On which subject.
        subject: String,
        /// What the driver said.
        #[source]
        source: BoxError,
    },
    /// The broker refused, and would again: a bad subject, a message too large, a stream that cannot be adopted.
    #[error("{backend} refused `{op}` on `{subject}`")]
    Refused {
        /// Which bus, for people.
        backend: &'static str,
        /// What was attempted.
        op: &'static str,
        /// On which subject.
        subject: String,
        /// What the driver said.
        #[source]
        source: BoxError,
    },
    /// The bus is draining or closed.
    #[error("the bus is closed")]
    Closed,
}

impl Error {
    /// Whether trying again can help. Publishing is idempotent by message id or by job state, so a repeat is harmless.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::MaybeApplied,
            Self::Refused { .. } | Self::Closed => Retry::Never,
        }
    }
}

/// One message on its way out.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it goes. See [`subjects`](crate::protocol::subjects).
    pub subject: String,
    /// An encoded packet.
    pub payload: Bytes,
    /// De-duplicates durable messages within the broker's window (docs/spec/bus.md §4).
    pub message_id: Option<String>,
}

/// What a subscription wants.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Share the messages with every other subscriber of this queue group; without one, get every message.
    pub queue: Option<String>,
    /// Whether a durable subject is consumed from its stream (the default) or only tapped live.
    pub tap: bool,
    /// How many messages may be delivered and neither acknowledged nor dropped yet.
    pub max_in_flight: usize,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            queue: None,
            tap: false,
            max_in_flight: 2_048,
        }
    }
}

impl SubscribeOptions {
    /// Shares the messages with the other members of `queue`.
    pub fn queue(queue: &str) -> Self {
        Self {
            queue: Some(queue.to_owned()),
            ..Self::default()
        }
    }

    /// Only listens in: live messages, never from a stream, nothing to acknowledge.
    pub fn tap() -> Self {
        Self {
            tap: true,
            ..Self::default()
        }
    }
}

/// How a bus is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Messages flow. `server` names the broker without credentials; it is empty in process.
    Connected {
        /// The broker's address.
        server: String,
    },
    /// Reconnecting, for ever.
    Reconnecting,
    /// Drained and closed.
    Closed,
}

/// Settles one delivery. Backends implement it; callers use the methods of [`Delivery`].
#[async_trait]
pub trait Settle: Send + Sync + fmt::Debug {
    /// Handled: never deliver it again.
    async fn ack(self: Box<Self>) -> Result<(), Error>;
    /// Not handled: deliver it again after `delay`.
    async fn retry_after(self: Box<Self>, delay: Duration) -> Result<(), Error>;
}

/// One message that arrived.
///
/// Dropping it without settling means the same as a crash: a durable message comes back after the ack wait, any other is
/// gone.
#[derive(Debug)]
pub struct Delivery {
    /// Where it was published.
    pub subject: String,
    /// An encoded packet, or whatever somebody published.
    pub payload: Bytes,
    settle: Option<Box<dyn Settle>>,
}

impl Delivery {
    /// For backends. `settle` is absent where there is nothing to acknowledge and no way to redeliver.
    pub fn new(subject: String, payload: Bytes, settle: Option<Box<dyn Settle>>) -> Self {
        Self {
            subject,
            payload,
            settle,
        }
    }

    /// Handled, or never to be handled: do not deliver it again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker could not be told; the message may come again.
    pub async fn ack(self) -> Result<(), Error> {
        match self.settle {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    /// Deliver it again after `delay`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker could not be told; a durable message comes again after the ack wait.
    pub async fn retry_after(self, delay: Duration) -> Result<(), Error> {
        match self.settle {
            Some(settle) => settle.retry_after(delay).await,
            None => Ok(()),
        }
    }
}

/// A live subscription: pulled, never pushed. Dropping it unsubscribes; a durable consumer stays with the broker.
pub struct Subscription {
    stream: Pin<Box<dyn Stream<Item = Delivery> + Send>>,
    close: CancellationToken,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    /// For backends. The stream ends after `close`, once it has given out what was delivered before.
    pub fn new(stream: impl Stream<Item = Delivery> + Send + 'static, close: CancellationToken) -> Self {
        Self {
            stream: Box::pin(stream),
            close,
        }
    }

    /// Takes no new messages. Those that have been delivered to this process still come, then the end: nothing that only
    /// this subscription was given is lost.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// The next message; `None` once the bus or the subscription is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.stream.next().await
    }

    /// Waits for one message, then takes what is there already, up to `max`. Empty once the bus is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next_batch(&mut self, max: usize) -> Vec<Delivery> {
        let Some(first) = self.stream.next().await else {
            return Vec::new();
        };
        let mut batch = vec![first];
        while batch.len() < max {
            // `now_or_never` polls once: it takes a message that is ready, and waits for none.
            match futures::FutureExt::now_or_never(self.stream.next()) {
                Some(Some(delivery)) => batch.push(delivery),
                Some(None) | None => break,
            }
        }
        batch
    }
}

/// How packets travel between the parts of the system.
///
/// # Contract
/// - A message on a durable subject ([`is_durable`](crate::protocol::subjects::is_durable)) is stored by the broker when
///   `publish` returns, where the broker can store; a subscriber without `tap` sees it at least once, until it settles it.
/// - Any other message reaches the subscribers of the moment, at most once each.
/// - A queue group gets each message once per delivery, in one of its members.
/// - Messages of one publisher on one subject arrive in order, except for redeliveries.
/// - At most `max_in_flight` messages of a subscription are unsettled; more wait in the broker or block the publisher.
/// - Connections are re-established for ever; subscriptions survive that.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug + 'static {
    /// Publishes one message.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker did not take it in time, [`Error::Refused`] if it never will.
    async fn publish(&self, message: Message) -> Result<(), Error>;

    /// Publishes several messages at the price of one wait; results in the same order.
    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), Error>>;

    /// Hands jobs to workers: each message live to whoever listens, at most once. Where the broker can tell that nobody
    /// listens, the job's id appears on [`undelivered`](Self::undelivered).
    async fn dispatch(&self, messages: Vec<(JobId, Message)>) -> Vec<Result<(), Error>>;

    /// Takes the receiver of jobs that [`dispatch`](Self::dispatch) could deliver to nobody. There is one: `None` if it
    /// was taken before, or if the broker cannot tell whether anybody listens.
    fn undelivered(&self) -> Option<mpsc::Receiver<JobId>>;

    /// Subscribes to a subject, which may hold the wildcards `*` and `>`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker did not answer, [`Error::Refused`] if it never will.
    async fn subscribe(&self, subject: &str, options: SubscribeOptions) -> Result<Subscription, Error>;

    /// How the bus is doing, now and from now on.
    fn health(&self) -> watch::Receiver<Health>;

    /// Flushes what was published, ends all subscriptions, and closes.
    async fn drain(&self);
}
