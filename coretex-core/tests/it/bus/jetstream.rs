//! JetStream.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options};
use coretex_core::bus::{Bus, Error, Message, SubscribeOptions};
use coretex_core::protocol::subjects::{DLQ, RESULT, SUBMIT};
use coretex_core::test_util::conformance::bus::Fixture;
use coretex_core::test_util::servers::{NatsOptions, NatsServer};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::{core_bus, message, soon};

const ACK_WAIT: Duration = Duration::from_secs(1);

async fn server() -> NatsServer {
    NatsServer::start_with(NatsOptions::jetstream()).await
}

fn options(server: &NatsServer) -> Options {
    let mut streams = JetStreamOptions::default();
    streams.ack_wait = ACK_WAIT;
    Options::new(&server.url()).with_jetstream(streams)
}

async fn bus(server: &NatsServer) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(options(server)).await.expect("connected"))
}

async fn fixture() -> Fixture {
    let server = server().await;
    Fixture {
        here: bus(&server).await,
        there: bus(&server).await,
        keeps: true,
        deduplicates: true,
        tells: false,
        guard: Box::new(server),
    }
}

coretex_core::bus_conformance!(fixture);

/// Somebody else's connection.
async fn foreign(server: &NatsServer) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("connected"))
}

async fn api(context: &Context, subject: &str, body: Value) -> Value {
    let answer: Value = context.request(subject.to_owned(), &body).await.expect("answered");
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}

#[tokio::test]
async fn streams_and_consumers_are_as_documented() {
    let server = server().await;
    let bus = bus(&server).await;
    let _submit = bus
        .subscribe(SUBMIT, SubscribeOptions::queue("coretex-scheduler"))
        .await
        .unwrap();
    let _dlq = bus.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    let context = foreign(&server).await;
    for (name, subjects) in [
        ("CORETEX_SYS", json!(["sys.>"])),
        ("CORETEX_JOBS", json!(["job.>", "worker.*.jobs"])),
    ] {
        let info = api(&context, &format!("STREAM.INFO.{name}"), json!({})).await;
        let config = &info["config"];
        assert_eq!(config["subjects"], subjects);
        assert_eq!(config["storage"], "file");
        assert_eq!(config["retention"], "limits");
        assert_eq!(config["max_age"], 168 * 3_600 * 1_000_000_000_u64);
        assert_eq!(config["duplicate_window"], 120 * 1_000_000_000_u64);
    }
    let path = "CORETEX_SYS.dur_coretex-scheduler__sys_job_submit";
    let info = api(&context, &format!("CONSUMER.INFO.{path}"), json!({})).await;
    let config = &info["config"];
    assert_eq!(config["filter_subject"], SUBMIT);
    assert_eq!(config["deliver_group"], "coretex-scheduler");
    assert_eq!(config["deliver_policy"], "all");
    assert_eq!(config["replay_policy"], "instant");
    assert_eq!(config["ack_policy"], "explicit");
    assert_eq!(config["ack_wait"], 1_000_000_000);
    assert_eq!(config["max_deliver"], -1);
    assert_eq!(config["max_ack_pending"], 2_048);
    let info = api(&context, "CONSUMER.INFO.CORETEX_SYS.dur_sys_job_dlq", json!({})).await;
    assert!(info["config"]["deliver_group"].is_null());
}

/// What another implementation left behind, with other settings, and with work in it.
#[tokio::test]
async fn what_others_made_is_adopted_and_updated_in_place() {
    let server = server().await;
    let context = foreign(&server).await;
    let stream = json!({
        "name": "CORETEX_SYS", "subjects": ["sys.>"], "retention": "limits", "storage": "file", "num_replicas": 1,
        "max_consumers": -1, "max_msgs": -1, "max_bytes": 1_000_000_000, "discard": "old", "description": "by hand",
        "max_age": 3_600_000_000_000_u64, "duplicate_window": 120_000_000_000_u64,
    });
    api(&context, "STREAM.CREATE.CORETEX_SYS", stream).await;
    let path = "CORETEX_SYS.dur_coretex-scheduler__sys_job_submit";
    let consumer = json!({ "stream_name": "CORETEX_SYS", "config": {
        "durable_name": "dur_coretex-scheduler__sys_job_submit", "filter_subject": SUBMIT,
        "deliver_subject": "_INBOX.xyz", "deliver_group": "coretex-scheduler", "deliver_policy": "all",
        "replay_policy": "instant", "ack_policy": "explicit", "ack_wait": 600_000_000_000_u64, "max_deliver": -1,
        "max_ack_pending": 100,
    }});
    api(&context, &format!("CONSUMER.DURABLE.CREATE.{path}"), consumer).await;
    let waiting = context.publish(SUBMIT, "waiting".into()).await.expect("sent");
    waiting.await.expect("stored");

    let bus = bus(&server).await;
    let mut subscription = bus
        .subscribe(SUBMIT, SubscribeOptions::queue("coretex-scheduler"))
        .await
        .unwrap();
    let delivery = soon("the old message", subscription.next()).await.unwrap();
    assert_eq!(&delivery.payload[..], b"waiting");
    delivery.ack().await.unwrap();

    let info = api(&context, "STREAM.INFO.CORETEX_SYS", json!({})).await;
    assert_eq!(info["config"]["max_age"], 168 * 3_600 * 1_000_000_000_u64);
    assert_eq!(info["config"]["max_bytes"], 1_000_000_000);
    assert_eq!(info["config"]["description"], "by hand");
    let info = api(&context, &format!("CONSUMER.INFO.{path}"), json!({})).await;
    assert_eq!(info["config"]["ack_wait"], 1_000_000_000);
    assert_eq!(info["config"]["max_ack_pending"], 2_048);
    assert_eq!(info["config"]["deliver_subject"], "_INBOX.xyz");
}

#[tokio::test]
async fn a_consumer_that_cannot_serve_is_refused_by_name() {
    let server = server().await;
    let bus = bus(&server).await;
    let context = foreign(&server).await;
    let pull = json!({ "stream_name": "CORETEX_SYS", "config": {
        "durable_name": "dur_q__sys_job_submit", "filter_subject": SUBMIT, "ack_policy": "explicit",
        "deliver_policy": "all", "replay_policy": "instant",
    }});
    let path = "CORETEX_SYS.dur_q__sys_job_submit";
    api(&context, &format!("CONSUMER.DURABLE.CREATE.{path}"), pull).await;
    let error = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { subject, .. } if subject == path),
        "{error:?}"
    );
}

#[tokio::test]
async fn limits_per_subject_are_set_and_a_short_age_is_possible() {
    let server = server().await;
    let mut streams = JetStreamOptions::default();
    streams.max_age = Duration::from_secs(60);
    streams.max_messages_per_subject = Some(3);
    let bus = NatsBus::connect(Options::new(&server.url()).with_jetstream(streams))
        .await
        .unwrap();
    for number in 0..5 {
        bus.publish(message(SUBMIT, &number.to_string())).await.unwrap();
    }
    let mut subscription = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    let first = soon("a message", subscription.next()).await.unwrap();
    assert_eq!(&first.payload[..], b"2");
}

#[tokio::test]
async fn message_ids_are_in_the_header() {
    let server = server().await;
    let bus = bus(&server).await;
    let with_id = Message {
        message_id: Some("jobreq:42".to_owned()),
        ..message(SUBMIT, "x")
    };
    bus.publish(with_id).await.unwrap();
    let context = foreign(&server).await;
    let stream = context.get_stream("CORETEX_SYS").await.unwrap();
    let stored = stream.get_raw_message(1).await.unwrap();
    assert_eq!(
        stored.headers.get("Nats-Msg-Id").map(ToString::to_string).as_deref(),
        Some("jobreq:42")
    );
}

/// Results of existing workers are plain publishes; the stream takes them all the same.
#[tokio::test]
async fn plain_publishes_of_workers_are_durable_too() {
    let server = server().await;
    let bus = bus(&server).await;
    let mut results = bus.subscribe(RESULT, SubscribeOptions::queue("q")).await.unwrap();
    core_bus(&server).await.publish(message(RESULT, "done")).await.unwrap();
    let delivery = soon("the result", results.next()).await.unwrap();
    drop(delivery);
    let again = soon("the result once more", results.next()).await.unwrap();
    assert_eq!(&again.payload[..], b"done");
    again.ack().await.unwrap();
}

/// Every replica without a queue group gets its copy, and one acknowledgement is enough.
#[tokio::test]
async fn two_replicas_share_a_consumer_without_a_group() {
    let server = server().await;
    let (one, two) = (bus(&server).await, bus(&server).await);
    let mut first = one.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    let mut second = two.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    one.publish(message(DLQ, "x")).await.unwrap();
    let delivery = soon("the first copy", first.next()).await.unwrap();
    soon("the second copy", second.next())
        .await
        .unwrap()
        .ack()
        .await
        .unwrap();
    delivery.ack().await.unwrap();
}

/// A slow handler is not handed a second copy of what it is still working on.
#[tokio::test]
async fn what_is_still_held_is_not_delivered_twice() {
    let server = server().await;
    let bus = bus(&server).await;
    let mut subscription = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    bus.publish(message(SUBMIT, "slow")).await.unwrap();
    let slow = soon("the message", subscription.next()).await.unwrap();
    // The broker delivers again after the ack wait, as its own counter shows.
    let context = foreign(&server).await;
    soon("a redelivery", async {
        loop {
            let info = api(&context, "CONSUMER.INFO.CORETEX_SYS.dur_q__sys_job_submit", json!({})).await;
            if info["num_redelivered"].as_u64() > Some(0) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(subscription.next().now_or_never().is_none());
    slow.ack().await.unwrap();
    bus.publish(message(SUBMIT, "next")).await.unwrap();
    let next = soon("the next message", subscription.next()).await.unwrap();
    assert_eq!(&next.payload[..], b"next");
}

/// The broker sent a copy just before the acknowledgement reached it: nobody sees it, and the broker is told again.
#[tokio::test]
async fn what_was_acknowledged_is_not_delivered_again() {
    let server = server().await;
    let bus = bus(&server).await;
    let broker = async_nats::connect(server.url()).await.expect("connected");
    let mut copies = broker.subscribe("_INBOX.coretex.dur_q__sys_job_submit").await.unwrap();
    let answers = broker.subscribe("$JS.ACK.CORETEX_SYS.>").await.unwrap();
    // Answered after the broker has read what came before it.
    api(&jetstream::new(broker.clone()), "STREAM.INFO.CORETEX_SYS", json!({})).await;
    let mut subscription = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    bus.publish(message(SUBMIT, "once")).await.unwrap();
    let held = soon("the message", subscription.next()).await.unwrap();

    let receipt = |copy: Option<async_nats::Message>| copy.and_then(|copy| copy.reply).expect("to be settled");
    let first = receipt(soon("the message", copies.next()).await);
    broker.publish(first, "-NAK".into()).await.unwrap();
    let second = receipt(soon("a copy", copies.next()).await);
    held.ack().await.unwrap();

    let mut answers = answers.filter(|answer| ready(answer.subject == second));
    let answering = async {
        let answer = answers.next().await.expect("the connection is open");
        assert_eq!(&answer.payload[..], b"+ACK");
        bus.publish(message(SUBMIT, "next")).await.unwrap();
    };
    let (next, ()) = soon("the next message", async {
        tokio::join!(subscription.next(), answering)
    })
    .await;
    assert_eq!(&next.unwrap().payload[..], b"next");
}

/// The server crashes and returns while messages are published and consumed.
#[tokio::test]
async fn a_server_restart_loses_nothing() {
    let mut server = server().await;
    let publisher = bus(&server).await;
    let consumer = bus(&server).await;
    let mut subscription = consumer.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    let expected: BTreeSet<String> = (0..300).map(|number| number.to_string()).collect();
    let publishing = async {
        for payload in &expected {
            let message = Message {
                message_id: Some(format!("jobreq:{payload}")),
                ..message(SUBMIT, payload)
            };
            while let Err(error) = publisher.publish(message.clone()).await {
                assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            }
        }
    };
    let consuming = async {
        let mut seen = BTreeSet::new();
        while seen.len() < expected.len() {
            let delivery = subscription.next().await.expect("the bus is open");
            seen.insert(String::from_utf8(delivery.payload.to_vec()).unwrap());
            delivery.ack().await.expect("acknowledged");
            if seen.len() == 100 {
                server.restart().await;
            }
        }
        seen
    };
    let ((), seen) = soon("everything", async { tokio::join!(publishing, consuming) }).await;
    assert_eq!(seen, expected);
}

/// Streams and consumers are made again when a server returns without them.
#[tokio::test]
async fn lost_streams_are_restored() {
    let mut server = server().await;
    let bus = bus(&server).await;
    let mut subscription = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    let context = foreign(&server).await;
    api(&context, "STREAM.DELETE.CORETEX_SYS", json!({})).await;
    server.restart().await;
    soon("publishing", async {
        while bus.publish(message(SUBMIT, "x")).await.is_err() {}
    })
    .await;
    let delivery = soon("the message", subscription.next()).await.unwrap();
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn publishing_into_nothing_fails_in_bounded_time() {
    let mut server = server().await;
    let bus = bus(&server).await;
    server.kill();
    let error = soon("the failure", bus.publish(message(SUBMIT, "x")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let server = NatsServer::start().await;
    let error = NatsBus::connect(options(&server)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(
        coretex_core::error::chain(&error).contains("does not offer it"),
        "{error:?}"
    );
}
