//! Every bus against the suite of its trait, and what is particular to NATS.

mod jetstream;
mod nats;

use std::future::Future;
use std::sync::Arc;

use coretex_core::backend::nats::{NatsBus, Options};
use coretex_core::bus::{Bus, Message};
use coretex_core::test_util::servers::NatsServer;
use coretex_core::test_util::wait::PATIENCE;

mod in_process {
    use std::future::{Ready, ready};
    use std::sync::Arc;

    use coretex_core::backend::in_process::InProcessBus;
    use coretex_core::bus::Bus;
    use coretex_core::test_util::conformance::bus::Fixture;

    fn fixture() -> Ready<Fixture> {
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
        ready(Fixture {
            here: Arc::clone(&bus),
            there: bus,
            keeps: true,
            deduplicates: false,
            tells: true,
            guard: Box::new(()),
        })
    }

    coretex_core::bus_conformance!(fixture);
}

/// A bus of its own on a core NATS server.
async fn core_bus(server: &NatsServer) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(Options::new(&server.url())).await.expect("connected"))
}

fn message(subject: &str, payload: &str) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: payload.to_owned().into(),
        message_id: None,
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}
