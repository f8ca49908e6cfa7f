//! Streams, consumers and durable publishing (docs/spec/bus.md §4).

mod api;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::api::{Api, ApiError};
use super::options::JetStreamOptions;
use super::{refused, unavailable};
use crate::bus::{Error, Message, subject};

/// How long the broker may take to confirm a message that can be repeated because it has an id.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a message is sent before its publisher is told that it failed.
const ATTEMPTS: usize = 3;
/// How long the broker may take to confirm a message that must not be repeated.
const ONLY_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the broker said that it has no stream (yet).
const NO_STREAM_PAUSE: Duration = Duration::from_millis(250);
/// How many messages of one call are sent before the first confirmation is waited for.
const WINDOW: usize = 1_024;
/// How many messages of all callers may be unconfirmed.
const MAX_UNCONFIRMED: usize = 65_536;
/// How long the broker may take to get `JetStream` ready.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that a consumer may have out and unsettled, over all its subscribers.
pub(super) const MAX_ACK_PENDING: usize = 2_048;
/// How long the streams remember message ids.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

struct StreamDefinition {
    name: &'static str,
    subjects: &'static [&'static str],
}

const SYS: StreamDefinition = StreamDefinition {
    name: "CORETEX_SYS",
    subjects: &["sys.>"],
};
const JOBS: StreamDefinition = StreamDefinition {
    name: "CORETEX_JOBS",
    subjects: &["job.>", "worker.*.jobs"],
};

/// The `JetStream` half of the bus.
#[derive(Debug)]
pub(super) struct JetStream {
    /// For messages with an id, and for those without.
    repeating: Context,
    once: Context,
    api: Api,
    options: JetStreamOptions,
    /// What has to exist for as long as somebody subscribes to it.
    consumers: Mutex<Vec<Weak<Consumer>>>,
}

/// A durable consumer that this process subscribes to.
#[derive(Debug)]
pub(super) struct Consumer {
    stream: &'static str,
    name: String,
    filter: String,
    pub(super) queue: Option<String>,
    pub(super) deliver_subject: String,
}

impl Consumer {
    fn path(&self) -> String {
        format!("{}.{}", self.stream, self.name)
    }

    fn config(&self, options: &JetStreamOptions) -> Value {
        let mut config = json!({
            "durable_name": self.name,
            "filter_subject": self.filter,
            "deliver_subject": self.deliver_subject,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": nanos(options.ack_wait),
            "max_deliver": -1,
            "max_ack_pending": MAX_ACK_PENDING,
        });
        if let Some(queue) = &self.queue {
            config["deliver_group"] = json!(queue);
        }
        config
    }
}

impl JetStream {
    /// Makes sure that the streams exist and are as we want them.
    pub(super) async fn open(client: &Client, options: JetStreamOptions) -> Result<Self, Error> {
        let context = |timeout| {
            jetstream::ContextBuilder::new()
                .timeout(timeout)
                .max_ack_inflight(MAX_UNCONFIRMED)
                .build(client.clone())
        };
        let once = context(ONLY_ATTEMPT_TIMEOUT);
        let opened = Self {
            repeating: context(ATTEMPT_TIMEOUT),
            api: Api::new(once.clone()),
            once,
            options,
            consumers: Mutex::default(),
        };
        let server = client.server_info();
        // In a cluster, another server may offer it.
        let hopeless = !server.jetstream && server.cluster.is_none();
        opened.await_account(hopeless).await?;
        opened.ensure_streams().await?;
        Ok(opened)
    }

    async fn await_account(&self, hopeless: bool) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let Err(error) = self.api.request("INFO", &json!({})).await else {
                return Ok(());
            };
            if hopeless || Instant::now() >= deadline {
                return Err(refused(
                    "use JetStream",
                    "$JS.API.INFO".to_owned(),
                    format!("it is asked for, but the server or the account does not offer it: {error}"),
                ));
            }
            tokio::time::sleep(NO_STREAM_PAUSE).await;
        }
    }

    async fn ensure_streams(&self) -> Result<(), Error> {
        for stream in [&SYS, &JOBS] {
            self.ensure_stream(stream)
                .await
                .map_err(|error| error.into_bus_error("create the stream", stream.name))?;
        }
        Ok(())
    }

    async fn ensure_stream(&self, stream: &StreamDefinition) -> Result<(), ApiError> {
        let info = match self
            .api
            .request(&format!("STREAM.INFO.{}", stream.name), &json!({}))
            .await
        {
            Ok(info) => info,
            Err(error) if error.is_stream_not_found() => {
                let mut config = json!({
                    "name": stream.name,
                    "subjects": stream.subjects,
                    "retention": "limits",
                    "storage": "file",
                    "discard": "old",
                    "num_replicas": 1,
                    "max_consumers": -1,
                    "max_msgs": -1,
                    "max_bytes": -1,
                    "max_msg_size": -1,
                });
                self.set_limits(&mut config);
                match self
                    .api
                    .request(&format!("STREAM.CREATE.{}", stream.name), &config)
                    .await
                {
                    Ok(_) => {
                        tracing::info!(stream = stream.name, "stream created");
                        return Ok(());
                    }
                    // Another process was quicker.
                    Err(error) if error.is_stream_in_use() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let stored = info.get("config").cloned().unwrap_or_default();
        let mut wanted = stored.clone();
        self.set_limits(&mut wanted);
        let mut subjects = stored["subjects"].as_array().cloned().unwrap_or_default();
        for subject in stream.subjects {
            if !subjects
                .iter()
                .any(|have| have.as_str().is_some_and(|have| covers(have, subject)))
            {
                subjects.push(json!(subject));
            }
        }
        wanted["subjects"] = Value::Array(subjects);
        if wanted != stored {
            match self
                .api
                .request(&format!("STREAM.UPDATE.{}", stream.name), &wanted)
                .await
            {
                Ok(_) => tracing::info!(stream = stream.name, "stream updated"),
                // It exists and works; whoever runs the broker may not want it changed.
                Err(error) => tracing::warn!(stream = stream.name, %error, "the stream stays as it is"),
            }
        }
        Ok(())
    }

    fn set_limits(&self, config: &mut Value) {
        let max_age = nanos(self.options.max_age);
        config["max_age"] = json!(max_age);
        if let Some(limit) = self.options.max_messages_per_subject {
            config["max_msgs_per_subject"] = json!(limit);
        } else if config["max_msgs_per_subject"].is_null() {
            config["max_msgs_per_subject"] = json!(-1);
        }
        // The broker refuses to remember ids for longer than messages.
        let window = config["duplicate_window"].as_u64().unwrap_or(nanos(DUPLICATE_WINDOW));
        config["duplicate_window"] = json!(if max_age == 0 { window } else { window.min(max_age) });
    }

    /// The durable consumer of `filter` for `queue`: the one that exists, or a new one.
    pub(super) async fn consumer(&self, filter: &str, queue: Option<&str>) -> Result<Arc<Consumer>, Error> {
        let name = durable_name(filter, queue);
        let wanted = Consumer {
            stream: if filter.starts_with("sys.") {
                SYS.name
            } else {
                JOBS.name
            },
            filter: filter.to_owned(),
            queue: queue.map(str::to_owned),
            // The same in every process, so that it does not matter who creates the consumer, and how often.
            deliver_subject: format!("_INBOX.coretex.{name}"),
            name,
        };
        let deliver_subject = self
            .ensure_consumer(&wanted)
            .await
            .map_err(|error| error.into_bus_error("create the consumer", &wanted.path()))?;
        let consumer = Arc::new(Consumer {
            deliver_subject,
            ..wanted
        });
        let mut consumers = self.consumers.lock();
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(Arc::downgrade(&consumer));
        Ok(consumer)
    }

    /// Creates a consumer or adopts the one that is there, and says where that delivers.
    async fn ensure_consumer(&self, wanted: &Consumer) -> Result<String, ApiError> {
        let path = wanted.path();
        let info = match self.api.request(&format!("CONSUMER.INFO.{path}"), &json!({})).await {
            Ok(info) => info,
            Err(error) if error.is_consumer_not_found() => {
                let config = wanted.config(&self.options);
                self.put_consumer(wanted, &config).await?
            }
            Err(error) => return Err(error),
        };
        let stored = &info["config"];
        let Some(deliver_subject) = stored["deliver_subject"].as_str() else {
            return Err(ApiError::unsuitable("it is a pull consumer; delete it"));
        };
        if stored["deliver_group"].as_str() != wanted.queue.as_deref() {
            return Err(ApiError::unsuitable("it has another deliver group; delete it"));
        }
        if stored["filter_subject"].as_str() != Some(&wanted.filter) {
            return Err(ApiError::unsuitable("it has another filter subject; delete it"));
        }
        let mut updated = stored.clone();
        updated["ack_wait"] = json!(nanos(self.options.ack_wait));
        updated["max_ack_pending"] = json!(MAX_ACK_PENDING);
        if updated != *stored {
            match self.put_consumer(wanted, &updated).await {
                Ok(_) => tracing::info!(consumer = %path, "consumer updated"),
                Err(error) => tracing::warn!(consumer = %path, %error, "the consumer stays as it is"),
            }
        }
        Ok(deliver_subject.to_owned())
    }

    async fn put_consumer(&self, wanted: &Consumer, config: &Value) -> Result<Value, ApiError> {
        let request = json!({ "stream_name": wanted.stream, "config": config });
        self.api
            .request(&format!("CONSUMER.DURABLE.CREATE.{}", wanted.path()), &request)
            .await
    }

    /// Creates what the broker may have lost while it was away.
    pub(super) async fn restore(&self) -> Result<(), Error> {
        self.ensure_streams().await?;
        let consumers: Vec<Arc<Consumer>> = self.consumers.lock().iter().filter_map(Weak::upgrade).collect();
        for consumer in consumers {
            let deliver_subject = self
                .ensure_consumer(&consumer)
                .await
                .map_err(|error| error.into_bus_error("create the consumer", &consumer.path()))?;
            if deliver_subject != consumer.deliver_subject {
                tracing::error!(consumer = %consumer.path(), "the consumer delivers elsewhere now; restart this process");
            }
        }
        Ok(())
    }

    /// Publishes messages and waits until the streams have them.
    pub(super) async fn store_all(&self, messages: &[Message]) -> Vec<Result<(), Error>> {
        let mut results: Vec<Result<(), Error>> = Vec::with_capacity(messages.len());
        let mut open: Vec<usize> = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            if subject::is_subject(&message.subject) {
                open.push(index);
                results.push(Ok(()));
            } else {
                results.push(Err(refused("publish", message.subject.clone(), "not a subject")));
            }
        }
        for attempt in 1..=ATTEMPTS {
            let failures = self.store_once(messages, &open).await;
            open.clear();
            let mut no_stream = false;
            for (index, error) in failures {
                no_stream |= error.kind() == PublishErrorKind::StreamNotFound;
                if attempt < ATTEMPTS && repeatable(&messages[index], error.kind()) {
                    open.push(index);
                }
                results[index] = Err(into_bus_error(&messages[index], error));
            }
            if open.is_empty() {
                break;
            }
            for &index in &open {
                results[index] = Ok(());
            }
            if no_stream {
                tokio::time::sleep(NO_STREAM_PAUSE).await;
            }
        }
        results
    }

    /// Sends the chosen messages, in order, without waiting for each, and returns what went wrong.
    async fn store_once(&self, messages: &[Message], chosen: &[usize]) -> Vec<(usize, PublishError)> {
        let mut failures = Vec::new();
        let mut flying: VecDeque<(usize, PublishAckFuture)> = VecDeque::new();
        for &index in chosen {
            if flying.len() == WINDOW
                && let Some((index, confirmation)) = flying.pop_front()
                && let Err(error) = confirmation.await
            {
                failures.push((index, error));
            }
            match self.start(&messages[index]).await {
                Ok(confirmation) => flying.push_back((index, confirmation)),
                Err(error) => failures.push((index, error)),
            }
        }
        for (index, confirmation) in flying {
            if let Err(error) = confirmation.await {
                failures.push((index, error));
            }
        }
        failures
    }

    async fn start(&self, message: &Message) -> Result<PublishAckFuture, PublishError> {
        let outgoing = PublishMessage::build().payload(message.payload.clone());
        let subject = message.subject.clone();
        match &message.message_id {
            Some(id) => self.repeating.send_publish(subject, outgoing.message_id(id)).await,
            None => self.once.send_publish(subject, outgoing).await,
        }
    }
}

/// Whether sending it once more is harmless and may help.
fn repeatable(message: &Message, failure: PublishErrorKind) -> bool {
    match failure {
        // Nothing took it.
        PublishErrorKind::StreamNotFound => true,
        PublishErrorKind::TimedOut => message.message_id.is_some(),
        _ => false,
    }
}

fn into_bus_error(message: &Message, error: PublishError) -> Error {
    let subject = message.subject.clone();
    match error.kind() {
        PublishErrorKind::BrokenPipe => Error::Closed,
        PublishErrorKind::MaxPayloadExceeded => refused("publish", subject, error),
        PublishErrorKind::Other => {
            let answer = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
            // The broker's own words: it is short of something, or it objects.
            match answer.map(jetstream::Error::code) {
                Some(code) if code < 500 => refused("publish", subject, error),
                _ => unavailable("publish", subject, error),
            }
        }
        _ => unavailable("publish", subject, error),
    }
}

/// The name that the reference gives to the consumer of `filter` for `queue`.
fn durable_name(filter: &str, queue: Option<&str>) -> String {
    let token = |text: &str| text.replace('.', "_").replace('*', "STAR").replace('>', "GT");
    match queue {
        Some(queue) => format!("dur_{}__{}", token(queue), token(filter)),
        None => format!("dur_{}", token(filter)),
    }
}

/// Whether every subject that `narrow` matches is matched by `wide`.
fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = narrow.split('.');
    for wide in wide.split('.') {
        match (wide, narrow.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (wide, Some(token)) if wide == token => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durables_are_named_like_the_reference_names_them() {
        for (filter, queue, name) in [
            (
                "sys.job.submit",
                Some("coretex-scheduler"),
                "dur_coretex-scheduler__sys_job_submit",
            ),
            (
                "sys.job.result",
                Some("coretex-workflow-engine"),
                "dur_coretex-workflow-engine__sys_job_result",
            ),
            ("sys.job.dlq", None, "dur_sys_job_dlq"),
            ("job.>", Some("a.*"), "dur_a_STAR__job_GT"),
        ] {
            assert_eq!(durable_name(filter, queue), name);
        }
    }

    #[test]
    fn covering() {
        for (wide, narrow, expected) in [
            ("sys.>", "sys.>", true),
            (">", "sys.>", true),
            ("sys.*", "sys.>", false),
            ("worker.>", "worker.*.jobs", true),
            ("worker.*.*", "worker.*.jobs", true),
            ("worker.a.jobs", "worker.*.jobs", false),
            ("job", "job.>", false),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }
}
