//! The bus on core NATS and JetStream. See `docs/spec/bus.md` §3 to §5.

mod connection;
mod durable;
mod jetstream;
mod live;
mod no_responders;
mod options;
mod source;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, PublishErrorKind, RequestErrorKind, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::durable::Durable;
use self::jetstream::JetStream;
use self::live::{Live, Tap};
use self::no_responders::ReplyInbox;
use self::options::Servers;
pub use self::options::{JetStreamOptions, Options};
use self::source::Source;
use crate::bus::{Bus, Error, Health, Message, SubscribeOptions, Subscription, subject};
use crate::error::{BoxError, chain};
use crate::protocol::JobId;
use crate::protocol::subjects::is_durable;

const BACKEND: &str = "NATS";
/// How long a message may wait for room in the client's buffer, which fills while there is no connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long draining waits for the broker.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between attempts to look after the streams.
const RESTORE_PAUSE: Duration = Duration::from_secs(1);
/// How many ids wait on [`Bus::undelivered`] before further ones are dropped.
const UNDELIVERED_LEN: usize = 65_536;

/// The bus on a NATS server. Dropping it ends its subscriptions; [`drain`](Bus::drain) also flushes.
#[derive(Debug)]
pub struct NatsBus {
    client: Client,
    mode: Mode,
    undelivered: Mutex<Option<mpsc::Receiver<JobId>>>,
    health: watch::Sender<Health>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the broker does for us.
#[derive(Debug)]
enum Mode {
    /// It passes messages on, and tells of dispatches to nobody.
    Core { replies: ReplyInbox },
    /// It keeps durable messages. It takes every dispatch into a stream, so it cannot tell whether a worker got it, too.
    JetStream { streams: Arc<JetStream> },
}

impl NatsBus {
    /// Connects, and keeps connected from then on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no connection within `options.connect_timeout`, [`Error::Refused`] if the address
    /// makes no sense, the server does not let us in, or it lacks `JetStream` although that is asked for.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let servers = Servers::parse(&options.url).map_err(|source| Error::Refused {
            backend: BACKEND,
            op: "connect",
            subject: String::new(),
            source,
        })?;
        let (health, _) = watch::channel(Health::Reconnecting);
        let client = connection::connect(&options, &servers, health.clone()).await?;
        // The event that says so may still be on its way.
        health.send_replace(Health::Connected {
            server: servers.to_string(),
        });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (mode, undelivered) = match options.jetstream {
            None => {
                let (undelivered, receiver) = mpsc::channel(UNDELIVERED_LEN);
                let (replies, subscription) = ReplyInbox::open(&client).await?;
                tasks.spawn(no_responders::watch(subscription, undelivered, stop.clone()));
                (Mode::Core { replies }, Some(receiver))
            }
            Some(wanted) => {
                let streams = Arc::new(JetStream::open(&client, wanted).await?);
                let restoring = restore_when_connected(Arc::clone(&streams), health.subscribe());
                tasks.spawn(stop.clone().run_until_cancelled_owned(restoring));
                // Its streams listen to every dispatch: nobody can tell whether a worker does.
                (Mode::JetStream { streams }, None)
            }
        };
        Ok(Self {
            client,
            mode,
            undelivered: Mutex::new(undelivered),
            health,
            stop,
            tasks,
        })
    }

    async fn send(&self, message: Message, reply: Option<String>) -> Result<(), Error> {
        self.check_open()?;
        if !subject::is_subject(&message.subject) {
            return Err(refused("publish", message.subject, "not a subject"));
        }
        let Message { subject, payload, .. } = message;
        let sending = async {
            match reply {
                Some(reply) => self.client.publish_with_reply(subject.clone(), reply, payload).await,
                None => self.client.publish(subject.clone(), payload).await,
            }
        };
        match tokio::time::timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                PublishErrorKind::Send => Error::Closed,
                _ => refused("publish", subject, error),
            }),
            Err(elapsed) => Err(unavailable("publish", subject, elapsed)),
        }
    }

    /// Subscribes at the broker. Once this returns, whatever is published anywhere arrives.
    async fn listen(&self, subject: &str, queue: Option<String>) -> Result<Subscriber, Error> {
        let subscribing = async {
            match queue {
                Some(queue) => self.client.queue_subscribe(subject.to_owned(), queue).await,
                None => self.client.subscribe(subject.to_owned()).await,
            }
        };
        let subscriber = tokio::time::timeout(SEND_TIMEOUT, subscribing)
            .await
            .map_err(|elapsed| unavailable("subscribe", subject.to_owned(), elapsed))?
            .map_err(|error| refused("subscribe", subject.to_owned(), error))?;
        self.confirm("subscribe", subject).await?;
        Ok(subscriber)
    }

    /// Waits until the server has read everything written so far, by asking a question that nobody answers.
    async fn confirm(&self, op: &'static str, subject: &str) -> Result<(), Error> {
        let question = self.client.new_inbox();
        match tokio::time::timeout(SEND_TIMEOUT, self.client.request(question, Bytes::new())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Ok(Err(error)) => Err(unavailable(op, subject.to_owned(), error)),
            Err(elapsed) => {
                if *self.health.borrow() == Health::Reconnecting {
                    return Err(unavailable(op, subject.to_owned(), elapsed));
                }
                // An account that may not publish to inboxes. What was written is on its way all the same.
                tracing::warn!(
                    op,
                    subject,
                    "NATS does not answer questions, cannot tell when it is ready"
                );
                Ok(())
            }
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.stop.cancel();
        self.health.send_replace(Health::Closed);
    }
}

/// Looks after the streams whenever the connection is back: a broker may return without them.
async fn restore_when_connected(streams: Arc<JetStream>, mut health: watch::Receiver<Health>) {
    while health.changed().await.is_ok() {
        while matches!(*health.borrow_and_update(), Health::Connected { .. }) {
            match streams.restore().await {
                Ok(()) => break,
                Err(error) => tracing::warn!(error = %chain(&error), "the streams are not ready yet"),
            }
            tokio::time::sleep(RESTORE_PAUSE).await;
        }
    }
}

fn unavailable(op: &'static str, subject: String, source: impl Into<BoxError>) -> Error {
    Error::Unavailable {
        backend: BACKEND,
        op,
        subject,
        source: source.into(),
    }
}

fn refused(op: &'static str, subject: String, source: impl Into<BoxError>) -> Error {
    Error::Refused {
        backend: BACKEND,
        op,
        subject,
        source: source.into(),
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, message: Message) -> Result<(), Error> {
        match &self.mode {
            Mode::JetStream { streams, .. } if is_durable(&message.subject) => {
                self.check_open()?;
                streams.store_all(&[message]).await.remove(0)
            }
            _ => self.send(message, None).await,
        }
    }

    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut durable = Vec::new();
        let mut durable_at = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            if matches!(self.mode, Mode::JetStream { .. }) && is_durable(&message.subject) {
                durable.push(message);
                durable_at.push(index);
                results.push(self.check_open());
            } else {
                results.push(self.send(message, None).await);
            }
        }
        if let Mode::JetStream { streams, .. } = &self.mode
            && !self.stop.is_cancelled()
        {
            let stored = streams.store_all(&durable).await;
            for (index, result) in durable_at.into_iter().zip(stored) {
                results[index] = result;
            }
        }
        results
    }

    async fn dispatch(&self, messages: Vec<(JobId, Message)>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(messages.len());
        for (job, message) in messages {
            let reply = match &self.mode {
                Mode::Core { replies } => Some(replies.reply_for(&job)),
                Mode::JetStream { .. } => None,
            };
            results.push(self.send(message, reply).await);
        }
        results
    }

    fn undelivered(&self) -> Option<mpsc::Receiver<JobId>> {
        self.undelivered.lock().take()
    }

    async fn subscribe(&self, filter: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        self.check_open()?;
        if !subject::is_filter(filter) {
            return Err(refused("subscribe", filter.to_owned(), "not a subject"));
        }
        let consumer = match &self.mode {
            Mode::JetStream { streams, .. } if !options.tap && is_durable(filter) => {
                Some(streams.consumer(filter, options.queue.as_deref()).await?)
            }
            _ => None,
        };
        let source = consumer.as_ref().map_or(filter, |consumer| &consumer.deliver_subject);
        let subscriber = self.listen(source, options.queue).await?;
        let stop = self.stop.clone().cancelled_owned();
        let max = options.max_in_flight;
        let close = CancellationToken::new();
        let source = Source::new(subscriber, close.clone());
        Ok(match consumer {
            Some(consumer) => {
                let durable = Durable::new(self.client.clone(), source, consumer, max, self.tasks.clone());
                Subscription::new(durable.take_until(stop), close)
            }
            None if options.tap => Subscription::new(Tap::new(source).take_until(stop), close),
            None => Subscription::new(Live::new(source, max).take_until(stop), close),
        })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        let mut health = self.health.subscribe();
        let draining = async {
            self.tasks.wait().await;
            // Both fail only if the client is gone already.
            if self.client.flush().await.is_ok() && self.client.drain().await.is_ok() {
                let closed = health.wait_for(|health| *health == Health::Closed).await;
                drop(closed);
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, draining).await.is_err() {
            counter!("coretex_bus_drain_timeouts_total").increment(1);
            tracing::warn!("NATS did not take the last messages in time");
        }
        self.health.send_replace(Health::Closed);
    }
}
