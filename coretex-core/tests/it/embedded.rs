//! The embedded stores: what every store does, and what only this one promises.

use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::test_util::conformance::Fixture;

fn open(location: &Location) -> EmbeddedStores {
    EmbeddedStores::open(location, &Options::default()).expect("the database opens")
}

mod in_memory {
    use super::{Fixture, Location, Options, open};

    #[expect(clippy::unused_async, reason = "the suites await their fixture")]
    async fn fixture() -> Fixture {
        Fixture::new(open(&Location::Memory).stores(), Options::default().meta_ttl)
    }

    coretex_core::job_store_conformance!(fixture);
    coretex_core::pointer_store_conformance!(fixture);
    coretex_core::dlq_store_conformance!(fixture);
    coretex_core::lease_store_conformance!(fixture);
    coretex_core::cluster_conformance!(fixture);
    coretex_core::config_store_conformance!(fixture);
    coretex_core::audit_store_conformance!(fixture);
    coretex_core::decision_log_conformance!(fixture);
    coretex_core::workflow_store_conformance!(fixture);
}

mod on_disk {
    use super::{Fixture, Location, Options, open};

    #[expect(clippy::unused_async, reason = "the suites await their fixture")]
    async fn fixture() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = open(&Location::Disk(folder.path().to_owned()));
        Fixture::new(stores.stores(), Options::default().meta_ttl).guarded_by((stores, folder))
    }

    coretex_core::job_store_conformance!(fixture);
    coretex_core::pointer_store_conformance!(fixture);
    coretex_core::dlq_store_conformance!(fixture);
    coretex_core::lease_store_conformance!(fixture);
    coretex_core::cluster_conformance!(fixture);
    coretex_core::config_store_conformance!(fixture);
    coretex_core::audit_store_conformance!(fixture);
    coretex_core::decision_log_conformance!(fixture);
    coretex_core::workflow_store_conformance!(fixture);
}

mod crash;
mod model;
mod opening;
