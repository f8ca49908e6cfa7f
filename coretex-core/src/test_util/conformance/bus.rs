//! The suite of the [`Bus`] trait: what docs/spec/bus.md §1 promises of every bus.

use std::any::Any;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::bus::{Bus, Delivery, Error, Health, Message, SubscribeOptions, Subscription};
use crate::protocol::JobId;
use crate::protocol::subjects::{DLQ, HEARTBEAT, RESULT, SUBMIT};
use crate::test_util::wait::PATIENCE;

/// One bus, seen by two processes, or by one twice.
#[derive(Debug)]
pub struct Fixture {
    /// The bus as one process sees it.
    pub here: Arc<dyn Bus>,
    /// The same bus as another one does; the same object where there is only one process.
    pub there: Arc<dyn Bus>,
    /// Durable messages wait for their first subscriber, and come back when a delivery is dropped.
    pub keeps: bool,
    /// Messages are de-duplicated by id.
    pub deduplicates: bool,
    /// Dispatches to nobody are told.
    pub tells: bool,
    /// What has to live as long as the bus.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// Makes one test of every case. The argument is the path of an async function that makes a
/// [`Fixture`](crate::test_util::conformance::bus::Fixture).
#[macro_export]
macro_rules! bus_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, bus:
            everybody_gets_a_plain_message_in_order,
            a_queue_group_gets_each_message_once,
            the_rest_of_a_group_takes_over,
            wildcards_match_whole_tokens,
            taps_see_durable_messages,
            what_is_acknowledged_does_not_come_again,
            what_is_put_off_comes_again_and_not_sooner,
            a_plain_message_can_be_put_off,
            only_so_many_are_in_flight,
            a_durable_message_waits_for_its_subscriber,
            a_dropped_delivery_comes_again,
            a_repeated_id_is_delivered_once,
            dispatches_reach_workers,
            dispatches_to_nobody_are_told,
            publishing_many_reports_on_each,
            batches_take_what_is_there,
            large_payloads_arrive_whole,
            bad_subjects_are_refused,
            closing_gives_out_what_has_arrived,
            draining_ends_everything,
        );
    };
}

/// Long enough for any machine; a test that needs it fails.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("{what} did not happen");
    };
    value
}

fn message(subject: &str, payload: impl Into<String>) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: payload.into().into(),
        message_id: None,
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.payload.to_vec()).expect("the suite publishes text")
}

async fn send(bus: &Arc<dyn Bus>, subject: &str, payload: impl Into<String>) {
    soon("publishing", bus.publish(message(subject, payload)))
        .await
        .expect("published");
}

async fn subscribe(bus: &Arc<dyn Bus>, subject: &str, options: SubscribeOptions) -> Subscription {
    soon("subscribing", bus.subscribe(subject, options))
        .await
        .expect("subscribed")
}

async fn next(subscription: &mut Subscription) -> Delivery {
    soon("a delivery", subscription.next()).await.expect("the bus is open")
}

/// Takes one, acknowledges it, and says what it was.
async fn take(subscription: &mut Subscription) -> String {
    let delivery = next(subscription).await;
    let payload = text(&delivery);
    delivery.ack().await.expect("acknowledged");
    payload
}

fn queue_tap(queue: &str) -> SubscribeOptions {
    SubscribeOptions {
        tap: true,
        ..SubscribeOptions::queue(queue)
    }
}

/// Every subscriber without a queue group sees every message, in order.
pub async fn everybody_gets_a_plain_message_in_order(fixture: &Fixture) {
    let mut here = subscribe(&fixture.here, HEARTBEAT, SubscribeOptions::default()).await;
    let mut there = subscribe(&fixture.there, HEARTBEAT, SubscribeOptions::default()).await;
    for number in 0..100 {
        send(&fixture.here, HEARTBEAT, number.to_string()).await;
    }
    for number in 0..100 {
        assert_eq!(take(&mut here).await, number.to_string());
        assert_eq!(take(&mut there).await, number.to_string());
    }
}

/// Two members of a group share, another group gets its own copies.
pub async fn a_queue_group_gets_each_message_once(fixture: &Fixture) {
    let mut one = subscribe(&fixture.here, RESULT, SubscribeOptions::queue("a")).await;
    let mut two = subscribe(&fixture.there, RESULT, SubscribeOptions::queue("a")).await;
    let mut other = subscribe(&fixture.there, RESULT, SubscribeOptions::queue("b")).await;
    let expected: BTreeSet<String> = (0..50).map(|number| number.to_string()).collect();
    for payload in &expected {
        send(&fixture.here, RESULT, payload).await;
    }
    let mut shared = BTreeSet::new();
    for _ in 0..50 {
        let payload = soon("a delivery", async {
            tokio::select! {
                delivery = one.next() => delivery,
                delivery = two.next() => delivery,
            }
        })
        .await
        .expect("the bus is open");
        assert!(shared.insert(text(&payload)), "{} came twice", text(&payload));
        payload.ack().await.expect("acknowledged");
    }
    assert_eq!(shared, expected);
    let mut others = BTreeSet::new();
    for _ in 0..50 {
        others.insert(take(&mut other).await);
    }
    assert_eq!(others, expected);
}

/// A member that unsubscribes leaves its share to the others.
pub async fn the_rest_of_a_group_takes_over(fixture: &Fixture) {
    let one = subscribe(&fixture.there, "job.a", queue_tap("pool")).await;
    let mut two = subscribe(&fixture.there, "job.a", queue_tap("pool")).await;
    drop(one);
    // Subscribing waits until the broker has seen everything before.
    let _after = subscribe(&fixture.there, "job.b", queue_tap("pool")).await;
    for number in 0..20 {
        send(&fixture.here, "job.a", number.to_string()).await;
    }
    for number in 0..20 {
        assert_eq!(take(&mut two).await, number.to_string());
    }
}

/// `*` stands for one token, `>` for all that follow.
pub async fn wildcards_match_whole_tokens(fixture: &Fixture) {
    let mut star = subscribe(&fixture.there, "worker.*.jobs", SubscribeOptions::tap()).await;
    let mut rest = subscribe(&fixture.there, "sys.job.>", SubscribeOptions::tap()).await;
    send(&fixture.here, "worker.w1.other", "no").await;
    send(&fixture.here, "worker.jobs", "no").await;
    send(&fixture.here, "worker.w1.jobs", "yes").await;
    assert_eq!(take(&mut star).await, "yes");
    send(&fixture.here, HEARTBEAT, "no").await;
    send(&fixture.here, "sys.job.progress", "yes").await;
    let delivery = next(&mut rest).await;
    assert_eq!(
        (delivery.subject.as_str(), text(&delivery).as_str()),
        ("sys.job.progress", "yes")
    );
}

/// Who only taps sees durable messages too, and takes them from nobody.
pub async fn taps_see_durable_messages(fixture: &Fixture) {
    let mut tap = subscribe(&fixture.there, "sys.job.>", SubscribeOptions::tap()).await;
    let mut consumer = subscribe(&fixture.here, RESULT, SubscribeOptions::queue("q")).await;
    send(&fixture.here, RESULT, "1").await;
    assert_eq!(take(&mut tap).await, "1");
    assert_eq!(take(&mut consumer).await, "1");
}

/// Acknowledging ends it: the next subscriber of the group sees only what is new.
pub async fn what_is_acknowledged_does_not_come_again(fixture: &Fixture) {
    let mut first = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    send(&fixture.here, SUBMIT, "old").await;
    assert_eq!(take(&mut first).await, "old");
    // An acknowledgement is on its way before whatever the same process does next.
    let mut second = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    drop(first);
    let _after = subscribe(&fixture.there, HEARTBEAT, SubscribeOptions::tap()).await;
    send(&fixture.here, SUBMIT, "new").await;
    assert_eq!(take(&mut second).await, "new");
}

/// A delivery that is put off comes again after its delay.
pub async fn what_is_put_off_comes_again_and_not_sooner(fixture: &Fixture) {
    put_off(fixture, SUBMIT).await;
}

/// So does one on a subject that is not durable.
pub async fn a_plain_message_can_be_put_off(fixture: &Fixture) {
    put_off(fixture, "sys.job.cancel").await;
}

async fn put_off(fixture: &Fixture, subject: &str) {
    let delay = Duration::from_millis(300);
    let mut subscription = subscribe(&fixture.there, subject, SubscribeOptions::queue("q")).await;
    send(&fixture.here, subject, "later").await;
    let delivery = next(&mut subscription).await;
    let start = Instant::now();
    delivery.retry_after(delay).await.expect("put off");
    send(&fixture.here, subject, "now").await;
    // The one that is not put off comes first, unless this machine takes as long as the delay.
    let mut waited = None;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let text = take(&mut subscription).await;
        if text == "later" {
            waited = Some(start.elapsed());
        }
        seen.push(text);
    }
    seen.sort();
    assert_eq!(seen, ["later", "now"]);
    // Brokers round, downwards.
    assert!(
        waited.is_some_and(|waited| waited + Duration::from_millis(20) >= delay),
        "after {waited:?}"
    );
}

/// No more than `max_in_flight` are out at once, and settling one lets the next one in.
pub async fn only_so_many_are_in_flight(fixture: &Fixture) {
    let options = SubscribeOptions {
        max_in_flight: 2,
        ..SubscribeOptions::queue("q")
    };
    let mut narrow = subscribe(&fixture.there, SUBMIT, options).await;
    let mut tap = subscribe(&fixture.there, SUBMIT, SubscribeOptions::tap()).await;
    for number in 0..4 {
        send(&fixture.here, SUBMIT, number.to_string()).await;
    }
    for _ in 0..4 {
        take(&mut tap).await;
    }
    let first = next(&mut narrow).await;
    let second = next(&mut narrow).await;
    assert!(narrow.next().now_or_never().is_none());
    let (third, acknowledged) = soon("room", async { tokio::join!(narrow.next(), first.ack()) }).await;
    acknowledged.expect("acknowledged");
    assert_eq!(text(&third.expect("the bus is open")), "2");
    second.ack().await.expect("acknowledged");
}

/// What is published on a durable subject before anybody subscribes is delivered.
pub async fn a_durable_message_waits_for_its_subscriber(fixture: &Fixture) {
    if !fixture.keeps {
        return;
    }
    send(&fixture.here, SUBMIT, "1").await;
    send(&fixture.here, DLQ, "2").await;
    let mut queue = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    let mut single = subscribe(&fixture.there, DLQ, SubscribeOptions::default()).await;
    assert_eq!(take(&mut queue).await, "1");
    assert_eq!(take(&mut single).await, "2");
}

/// A durable delivery that is dropped, as in a crash, comes again, to any member of the group.
pub async fn a_dropped_delivery_comes_again(fixture: &Fixture) {
    if !fixture.keeps {
        return;
    }
    let mut first = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    send(&fixture.here, SUBMIT, "1").await;
    let delivery = next(&mut first).await;
    drop(first);
    drop(delivery);
    let mut second = subscribe(&fixture.here, SUBMIT, SubscribeOptions::queue("q")).await;
    assert_eq!(take(&mut second).await, "1");
}

/// A repeat of a message id is a success for the publisher and nothing for the subscriber.
pub async fn a_repeated_id_is_delivered_once(fixture: &Fixture) {
    if !fixture.deduplicates {
        return;
    }
    let mut subscription = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    for id in ["jobreq:1", "jobreq:1", "jobreq:2"] {
        let message = Message {
            message_id: Some(id.to_owned()),
            ..message(SUBMIT, id)
        };
        soon("publishing", fixture.here.publish(message))
            .await
            .expect("published");
    }
    assert_eq!(take(&mut subscription).await, "jobreq:1");
    assert_eq!(take(&mut subscription).await, "jobreq:2");
}

/// A dispatch reaches the worker on its own subject, and one worker of a pool.
pub async fn dispatches_reach_workers(fixture: &Fixture) {
    let mut direct = subscribe(&fixture.there, "worker.w1.jobs", SubscribeOptions::tap()).await;
    let mut pool = subscribe(&fixture.there, "job.a.b", queue_tap("pool")).await;
    let jobs = vec![
        (job("1"), message("worker.w1.jobs", "1")),
        (job("2"), message("job.a.b", "2")),
        (job("3"), message("worker.w1.jobs", "3")),
    ];
    for result in soon("dispatching", fixture.here.dispatch(jobs)).await {
        result.expect("dispatched");
    }
    assert_eq!(take(&mut direct).await, "1");
    assert_eq!(take(&mut pool).await, "2");
    assert_eq!(take(&mut direct).await, "3");
}

/// A dispatch that nobody listens for is told, others are not; the receiver is given out once, and only by a bus that can
/// tell.
pub async fn dispatches_to_nobody_are_told(fixture: &Fixture) {
    let mut undelivered = fixture.here.undelivered();
    assert_eq!(undelivered.is_some(), fixture.tells);
    assert!(fixture.here.undelivered().is_none());
    let mut worker = subscribe(&fixture.there, "worker.w1.jobs", SubscribeOptions::tap()).await;
    let jobs = vec![
        (job("lost.1 *"), message("worker.nobody.jobs", "x")),
        (job("fine"), message("worker.w1.jobs", "fine")),
        (job("lost-2"), message("job.nobody", "x")),
    ];
    for result in soon("dispatching", fixture.here.dispatch(jobs)).await {
        result.expect("dispatched");
    }
    assert_eq!(take(&mut worker).await, "fine");
    if let Some(undelivered) = &mut undelivered {
        assert_eq!(soon("the report", undelivered.recv()).await, Some(job("lost.1 *")));
        assert_eq!(soon("the report", undelivered.recv()).await, Some(job("lost-2")));
        assert!(undelivered.recv().now_or_never().is_none());
    }
}

fn job(id: &str) -> JobId {
    JobId::try_new(id).expect("an id")
}

/// Each message has its own result, in the order given, and the good ones arrive in that order.
pub async fn publishing_many_reports_on_each(fixture: &Fixture) {
    let mut subscription = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    let mut messages: Vec<Message> = (0..500).map(|number| message(SUBMIT, number.to_string())).collect();
    messages.insert(250, message("not a subject", "x"));
    let results = soon("publishing", fixture.here.publish_all(messages)).await;
    assert_eq!(results.len(), 501);
    for (index, result) in results.into_iter().enumerate() {
        assert_eq!(result.is_ok(), index != 250, "{index}: {result:?}");
    }
    for number in 0..500 {
        assert_eq!(take(&mut subscription).await, number.to_string());
    }
}

/// A batch waits for one message, takes what else is there, and no more than asked for.
pub async fn batches_take_what_is_there(fixture: &Fixture) {
    let mut subscription = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    for number in 0..10 {
        send(&fixture.here, SUBMIT, number.to_string()).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let batch = soon("a batch", subscription.next_batch(4)).await;
        assert!((1..=4).contains(&batch.len()));
        for delivery in batch {
            seen.push(text(&delivery));
            delivery.ack().await.expect("acknowledged");
        }
    }
    assert_eq!(seen, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Half a megabyte is no trouble, nor is nothing.
pub async fn large_payloads_arrive_whole(fixture: &Fixture) {
    let mut subscription = subscribe(&fixture.there, SUBMIT, SubscribeOptions::queue("q")).await;
    let large = "x".repeat(500_000);
    send(&fixture.here, SUBMIT, large.clone()).await;
    send(&fixture.here, SUBMIT, "").await;
    assert!(take(&mut subscription).await == large);
    assert_eq!(take(&mut subscription).await, "");
}

/// Subjects that no broker would route are refused, and repeating that is pointless.
pub async fn bad_subjects_are_refused(fixture: &Fixture) {
    for subject in ["", "a b", "a..b", "a.", "job.*", "sys.>", "a\r\nb"] {
        let error = fixture.here.publish(message(subject, "x")).await.expect_err(subject);
        assert!(matches!(error, Error::Refused { .. }), "{subject:?}: {error:?}");
    }
    for filter in ["", "a b", "a..b", ">.a"] {
        let result = fixture.here.subscribe(filter, SubscribeOptions::default()).await;
        assert!(matches!(result, Err(Error::Refused { .. })), "{filter:?}: {result:?}");
    }
}

/// A closed subscription ends, and before that gives out, in order and without a gap, what it was delivered.
pub async fn closing_gives_out_what_has_arrived(fixture: &Fixture) {
    let mut subscription = subscribe(&fixture.there, RESULT, SubscribeOptions::queue("closing")).await;
    for i in 0..50 {
        send(&fixture.here, RESULT, i.to_string()).await;
    }
    assert_eq!(take(&mut subscription).await, "0");
    subscription.close();
    let mut expected = 1;
    while let Some(delivery) = soon("the end", subscription.next()).await {
        assert_eq!(text(&delivery), expected.to_string());
        expected += 1;
        delivery.ack().await.expect("acknowledged");
    }
    assert!(soon("the end", subscription.next_batch(10)).await.is_empty());
}

/// After draining: what was published before has arrived, subscriptions have ended, and nothing more is taken.
pub async fn draining_ends_everything(fixture: &Fixture) {
    let mut health = fixture.here.health();
    assert!(matches!(*health.borrow_and_update(), Health::Connected { .. }));
    let mut ended = subscribe(&fixture.here, HEARTBEAT, SubscribeOptions::default()).await;
    let mut witness = subscribe(&fixture.there, RESULT, SubscribeOptions::queue("q")).await;
    for number in 0..100 {
        send(&fixture.here, RESULT, number.to_string()).await;
    }
    soon("draining", fixture.here.drain()).await;
    assert!(soon("the end", ended.next()).await.is_none());
    assert_eq!(*health.borrow(), Health::Closed);
    assert!(matches!(
        fixture.here.publish(message(HEARTBEAT, "x")).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        fixture.here.subscribe(HEARTBEAT, SubscribeOptions::default()).await,
        Err(Error::Closed)
    ));
    if !Arc::ptr_eq(&fixture.here, &fixture.there) {
        for number in 0..100 {
            assert_eq!(take(&mut witness).await, number.to_string());
        }
    }
}
