//! Core NATS.

use coretex_core::test_util::conformance::bus::Fixture;
use coretex_core::test_util::servers::NatsServer;

use super::core_bus;

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
