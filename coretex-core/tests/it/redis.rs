//! The stores on a real Redis.

mod faults;
mod layout;
mod legacy;
mod support;
mod workflows;

use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::test_util::conformance::Fixture;
use coretex_core::test_util::servers::RedisServer;

async fn fixture() -> Fixture {
    let server = RedisServer::start().await;
    let options = RedisOptions::default();
    let meta_ttl = options.meta_ttl;
    let stores = RedisStores::connect(&server.url(), options).await.expect("connects");
    Fixture::new(stores, meta_ttl).guarded_by(server)
}

mod conformance {
    mod jobs {
        coretex_core::job_store_conformance!(super::super::fixture);
    }
    mod pointers {
        coretex_core::pointer_store_conformance!(super::super::fixture);
    }
    mod dlq {
        coretex_core::dlq_store_conformance!(super::super::fixture);
    }
    mod leases {
        coretex_core::lease_store_conformance!(super::super::fixture);
    }
    mod cluster {
        coretex_core::cluster_conformance!(super::super::fixture);
    }
    mod audit {
        coretex_core::audit_store_conformance!(super::super::fixture);
    }
    mod decisions {
        coretex_core::decision_log_conformance!(super::super::fixture);
    }
    mod workflows {
        coretex_core::workflow_store_conformance!(super::super::fixture);
    }
    mod config {
        coretex_core::config_store_conformance!(super::super::fixture);
    }
}
