//! How many messages per second a bus carries, and how long one takes.
//!
//! In process, and on a NATS server with `JetStream` if its URL is given:
//! `cargo run --release -p coretex-core --example bus_throughput -- nats://127.0.0.1:4222`
#![expect(clippy::print_stdout, reason = "the output is what this is for")]
#![expect(clippy::expect_used, reason = "nothing to recover from")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::nats::{JetStreamOptions, NatsBus, Options};
use coretex_core::bus::{Bus, Message, SubscribeOptions};
use coretex_core::protocol::JobId;
use coretex_core::protocol::subjects::{HEARTBEAT, SUBMIT};

const PAYLOAD: &[u8] = &[7; 256];
const BATCH: usize = 512;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
    measure("in process", &bus, &bus, 1_000_000).await;
    let Some(url) = std::env::args().nth(1) else { return };
    let core = connect(Options::new(&url)).await;
    measure("core NATS", &core, &connect(Options::new(&url)).await, 500_000).await;
    let streams = || Options::new(&url).with_jetstream(JetStreamOptions::default());
    measure(
        "JetStream",
        &connect(streams()).await,
        &connect(streams()).await,
        200_000,
    )
    .await;
}

async fn connect(options: Options) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(options).await.expect("connected"))
}

async fn measure(name: &str, from: &Arc<dyn Bus>, to: &Arc<dyn Bus>, count: usize) {
    let live = flow(from, to, HEARTBEAT, SubscribeOptions::default(), count).await;
    let durable = flow(from, to, SUBMIT, SubscribeOptions::queue("throughput"), count).await;
    let mut times = latencies(from, to).await;
    times.sort();
    let percentile = |percent: usize| times[times.len() * percent / 100 - 1];
    println!(
        "{name}: plain {live:.0}/s, durable in batches and acknowledged {durable:.0}/s, dispatch p50 {:?} p99 {:?}",
        percentile(50),
        percentile(99)
    );
}

/// Messages per second from publisher to subscriber, each acknowledged.
async fn flow(from: &Arc<dyn Bus>, to: &Arc<dyn Bus>, subject: &str, options: SubscribeOptions, count: usize) -> f64 {
    let mut subscription = to.subscribe(subject, options).await.expect("subscribed");
    let start = Instant::now();
    let publishing = async {
        for batch in 0..count / BATCH {
            let messages = (0..BATCH).map(|index| Message {
                subject: subject.to_owned(),
                payload: PAYLOAD.into(),
                message_id: Some(format!("{start:?}:{batch}:{index}")),
            });
            for result in from.publish_all(messages.collect()).await {
                result.expect("published");
            }
        }
    };
    let consuming = async {
        let mut received = 0;
        while received < count / BATCH * BATCH {
            for delivery in subscription.next_batch(BATCH).await {
                delivery.ack().await.expect("acknowledged");
                received += 1;
            }
        }
        received
    };
    let ((), received) = tokio::join!(publishing, consuming);
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let received = received as f64;
    received / start.elapsed().as_secs_f64()
}

/// How long one dispatch takes to its worker on an idle bus.
async fn latencies(from: &Arc<dyn Bus>, to: &Arc<dyn Bus>) -> Vec<Duration> {
    let job = JobId::try_new("42").expect("an id");
    let mut worker = to
        .subscribe("worker.w1.jobs", SubscribeOptions::tap())
        .await
        .expect("subscribed");
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let message = Message {
            subject: "worker.w1.jobs".to_owned(),
            payload: PAYLOAD.into(),
            message_id: None,
        };
        let start = Instant::now();
        from.dispatch(vec![(job.clone(), message)]).await;
        worker.next().await.expect("delivered");
        times.push(start.elapsed());
    }
    times
}
