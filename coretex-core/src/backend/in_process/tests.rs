use futures::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::bus::Delivery;
use crate::protocol::subjects::{DLQ, HEARTBEAT, RESULT, SUBMIT};

fn message(subject: &str, payload: &str) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: payload.to_owned().into(),
        message_id: None,
    }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.payload).expect("tests publish text")
}

async fn send(bus: &InProcessBus, subject: &str, payload: &str) {
    bus.publish(message(subject, payload)).await.expect("published");
}

#[tokio::test(start_paused = true)]
async fn a_full_member_is_skipped() {
    let bus = InProcessBus::new();
    let narrow = SubscribeOptions {
        max_in_flight: 1,
        ..SubscribeOptions::queue("q")
    };
    let mut first = bus.subscribe(SUBMIT, narrow.clone()).await.unwrap();
    let mut second = bus.subscribe(SUBMIT, narrow).await.unwrap();
    for payload in ["1", "2", "3"] {
        send(&bus, SUBMIT, payload).await;
    }
    let one = first.next().await.unwrap();
    assert!(first.next().now_or_never().is_none());
    let two = second.next().await.unwrap();
    assert_eq!((text(&one), text(&two)), ("1", "2"));
    let pending = tokio::join!(first.next(), async {
        one.ack().await.unwrap();
    });
    assert_eq!(text(&pending.0.unwrap()), "3");
    two.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_when_it_is_due_and_to_whoever_is_there() {
    let bus = InProcessBus::new();
    let mut first = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    send(&bus, SUBMIT, "1").await;
    let start = Instant::now();
    let delivery = first.next().await.unwrap();
    delivery.retry_after(Duration::from_secs(3)).await.unwrap();
    drop(first);
    let mut second = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    send(&bus, SUBMIT, "2").await;
    assert_eq!(text(&second.next().await.unwrap()), "2");
    let dropped = second.next().await.unwrap();
    assert_eq!((text(&dropped), start.elapsed().as_secs()), ("2", 1));
    dropped.ack().await.unwrap();
    let again = second.next().await.unwrap();
    assert_eq!(text(&again), "1");
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn durable_messages_wait_for_their_first_consumer() {
    let bus = InProcessBus::new();
    let mut tap = bus.subscribe("sys.job.>", SubscribeOptions::tap()).await.unwrap();
    send(&bus, RESULT, "1").await;
    send(&bus, HEARTBEAT, "gone").await;
    assert_eq!(text(&tap.next().await.unwrap()), "1");
    let mut consumer = bus.subscribe(RESULT, SubscribeOptions::queue("q")).await.unwrap();
    consumer.next().await.unwrap().ack().await.unwrap();
    let mut heartbeats = bus.subscribe(HEARTBEAT, SubscribeOptions::default()).await.unwrap();
    assert!(heartbeats.next().now_or_never().is_none());
    assert!(consumer.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_lone_consumer_did_not_settle_waits_for_the_next() {
    let bus = InProcessBus::new();
    let mut first = bus.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    send(&bus, DLQ, "1").await;
    send(&bus, DLQ, "2").await;
    let held = first.next().await.unwrap();
    drop(first);
    drop(held);
    let mut second = bus.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..2 {
        let delivery = second.next().await.unwrap();
        seen.push(text(&delivery).to_owned());
        delivery.ack().await.unwrap();
    }
    seen.sort();
    assert_eq!(seen, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_holds_the_publisher_up_and_a_slow_tap_does_not() {
    let bus = InProcessBus::new();
    let tap = bus.subscribe("sys.>", SubscribeOptions::tap()).await.unwrap();
    let mut consumer = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    for _ in 0..group::QUEUE_LEN {
        send(&bus, SUBMIT, "x").await;
    }
    let error = bus.publish(message(SUBMIT, "too much")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let (sent, received) = tokio::join!(bus.publish(message(SUBMIT, "y")), consumer.next());
    sent.unwrap();
    received.unwrap().ack().await.unwrap();
    send(&bus, HEARTBEAT, "still fine").await;
    drop(tap);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_for_a_consumer_that_leaves_is_heard_by_the_next() {
    let bus = InProcessBus::new();
    let consumer = bus.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    for _ in 0..group::QUEUE_LEN {
        send(&bus, DLQ, "x").await;
    }
    let (sent, ()) = tokio::join!(bus.publish(message(DLQ, "last")), async { drop(consumer) });
    sent.unwrap();
    let mut next = bus.subscribe(DLQ, SubscribeOptions::default()).await.unwrap();
    let mut last = String::new();
    while let Some(Some(delivery)) = next.next().now_or_never() {
        text(&delivery).clone_into(&mut last);
        delivery.ack().await.unwrap();
    }
    assert_eq!(last, "last");
}

#[tokio::test(start_paused = true)]
async fn dispatches_to_nobody_are_told() {
    let bus = InProcessBus::new();
    let mut undelivered = bus.undelivered().unwrap();
    assert!(bus.undelivered().is_none());
    let job = |id: &str| (JobId::try_new(id).unwrap(), message("worker.w1.jobs", id));
    let results = bus.dispatch(vec![job("a")]).await;
    assert!(results[0].is_ok());
    assert_eq!(undelivered.recv().await.unwrap().as_str(), "a");

    let mut worker = bus.subscribe("worker.w1.jobs", SubscribeOptions::tap()).await.unwrap();
    bus.dispatch(vec![job("b"), job("c")]).await;
    assert_eq!(text(&worker.next().await.unwrap()), "b");
    drop(worker);
    assert_eq!(undelivered.recv().await.unwrap().as_str(), "c");
}

#[tokio::test(start_paused = true)]
async fn one_queue_group_over_two_filters_gets_one_copy() {
    let bus = InProcessBus::new();
    let pool = SubscribeOptions {
        tap: true,
        ..SubscribeOptions::queue("pool")
    };
    let mut exact = bus.subscribe("job.a", pool.clone()).await.unwrap();
    let mut wild = bus.subscribe("job.*", pool).await.unwrap();
    send(&bus, "job.a", "1").await;
    let got = [
        exact.next().now_or_never().is_some(),
        wild.next().now_or_never().is_some(),
    ];
    assert_eq!(got.iter().filter(|got| **got).count(), 1);
}

#[tokio::test]
async fn draining_ends_everything() {
    let bus = InProcessBus::new();
    let mut subscription = bus.subscribe(SUBMIT, SubscribeOptions::queue("q")).await.unwrap();
    let mut health = bus.health();
    assert_eq!(*health.borrow_and_update(), Health::Connected { server: String::new() });
    let (end, ()) = tokio::join!(subscription.next(), bus.drain());
    assert!(end.is_none());
    assert_eq!(*health.borrow(), Health::Closed);
    assert!(matches!(bus.publish(message(SUBMIT, "x")).await, Err(Error::Closed)));
    assert!(matches!(
        bus.subscribe(SUBMIT, SubscribeOptions::default()).await,
        Err(Error::Closed)
    ));
}
