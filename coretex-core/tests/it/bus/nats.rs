//! Core NATS.

use std::time::Duration;

use coretex_core::backend::nats::{NatsBus, Options};
use coretex_core::bus::{Bus, Error, Health, SubscribeOptions};
use coretex_core::error::chain;
use coretex_core::protocol::subjects::HEARTBEAT;
use coretex_core::test_util::conformance::bus::Fixture;
use coretex_core::test_util::servers::{NatsOptions, NatsServer, free_address};

use super::{core_bus, message, soon};

async fn fixture() -> Fixture {
    let server = NatsServer::start().await;
    Fixture {
        here: core_bus(&server).await,
        there: core_bus(&server).await,
        keeps: false,
        deduplicates: false,
        tells: true,
        guard: Box::new(server),
    }
}

coretex_core::bus_conformance!(fixture);

#[tokio::test]
async fn an_unreachable_server_is_an_error_after_the_timeout() {
    let url = format!("nats://user:s3cret@{}", free_address());
    let options = Options::new(&url).with_connect_timeout(Duration::from_millis(700));
    let error = soon("the failure", NatsBus::connect(options)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(!format!("{error:?} {}", chain(&error)).contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn an_address_that_makes_no_sense_is_refused() {
    for url in ["", "http://user:s3cret@host", "nats://user:s3cret@host:port"] {
        let error = NatsBus::connect(Options::new(url)).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{url}: {error:?}");
        assert!(!format!("{error:?} {}", chain(&error)).contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_starts_late_is_waited_for() {
    let mut server = NatsServer::start().await;
    server.kill();
    let connecting = NatsBus::connect(Options::new(&server.url()));
    let (bus, ()) = soon("connecting", async { tokio::join!(connecting, server.start_again()) }).await;
    assert!(matches!(*bus.unwrap().health().borrow(), Health::Connected { .. }));
}

#[tokio::test]
async fn credentials_are_used_and_never_shown() {
    let mut options = NatsOptions::default();
    options.args = ["--user", "ann", "--pass", "s3c:ret"].map(str::to_owned).to_vec();
    let server = NatsServer::start_with(options).await;
    let options = Options::new(&format!("nats://ann:s3c%3Aret@{}", server.address()));
    assert!(!format!("{options:?}").contains("s3c"), "{options:?}");
    let bus = NatsBus::connect(options).await.expect("let in");
    assert!(!format!("{bus:?} {:?}", bus.health().borrow()).contains("s3c"));
    // There is no point in trying again.
    let patient = Options::new(&server.url()).with_connect_timeout(Duration::from_secs(3_600));
    let error = soon("the refusal", NatsBus::connect(patient)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

/// The server crashes and returns: the subscription is still there, and so is what was published meanwhile.
#[tokio::test]
async fn subscriptions_survive_a_server_restart() {
    let mut server = NatsServer::start().await;
    let bus = core_bus(&server).await;
    let mut subscription = bus.subscribe(HEARTBEAT, SubscribeOptions::default()).await.unwrap();
    let mut health = bus.health();
    server.kill();
    soon(
        "losing the connection",
        health.wait_for(|health| *health == Health::Reconnecting),
    )
    .await
    .unwrap();
    bus.publish(message(HEARTBEAT, "meanwhile")).await.unwrap();
    server.start_again().await;
    let delivery = soon("the heartbeat", subscription.next()).await.unwrap();
    assert_eq!(&delivery.payload[..], b"meanwhile");
    assert!(matches!(*health.borrow(), Health::Connected { .. }));
}

/// While the connection is gone, publishers wait for a while once the buffer is full, and not for ever.
#[tokio::test]
async fn the_buffer_of_an_outage_is_bounded() {
    let mut server = NatsServer::start().await;
    let bus = core_bus(&server).await;
    let mut health = bus.health();
    server.kill();
    soon(
        "losing the connection",
        health.wait_for(|health| *health == Health::Reconnecting),
    )
    .await
    .unwrap();
    let error = soon("a full buffer", async {
        loop {
            if let Err(error) = bus.publish(message(HEARTBEAT, "x")).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}
