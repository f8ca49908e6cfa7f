//! The configuration service as its callers see it, on every backend. See `docs/spec/config.md`.

mod scenarios;

use std::sync::Arc;

use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::Bus;
use coretex_core::config::ConfigService;
use coretex_core::test_util::servers::RedisServer;
use coretex_core::time::{Clock, Timestamp};

#[derive(Debug, Clone, Copy)]
enum Backend {
    Embedded,
    Redis,
}

/// A service and what is around it.
struct World {
    stores: Stores,
    bus: Arc<dyn Bus>,
    clock: Clock,
    config: ConfigService,
    _server: Option<RedisServer>,
}

impl World {
    async fn new(backend: Backend) -> Self {
        let (stores, server) = match backend {
            Backend::Embedded => {
                let stores = EmbeddedStores::open(&Location::Memory, &Options::default()).expect("stores");
                (stores.stores(), None)
            }
            Backend::Redis => {
                let server = RedisServer::start().await;
                let stores = RedisStores::connect(&server.url(), RedisOptions::default()).await;
                (stores.expect("connects"), Some(server))
            }
        };
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
        // 2026-01-05T10:00:00Z
        let clock = Clock::manual(Timestamp::from_secs(1_767_607_200));
        let config = ConfigService::new(Arc::clone(&stores.config), Arc::clone(&bus), clock.clone());
        Self {
            stores,
            bus,
            clock,
            config,
            _server: server,
        }
    }

    /// The same store, seen by another process.
    fn neighbour(&self) -> ConfigService {
        ConfigService::new(
            Arc::clone(&self.stores.config),
            Arc::clone(&self.bus),
            self.clock.clone(),
        )
    }
}

macro_rules! on_backend {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::{Backend, scenarios};

            super::on_backend!(@tests $backend,
                what_is_set_is_read_with_the_next_revision,
                what_is_no_document_is_refused,
                a_writer_that_missed_a_change_is_told,
                updates_of_two_writers_are_never_lost,
                an_edit_that_gives_up_writes_nothing,
                an_edit_that_changes_nothing_writes_nothing,
                what_holds_is_merged_from_all_scopes,
                everybody_is_told_of_a_change,
            );
        }
    };
    (@tests $backend:expr, $($scenario:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                scenarios::$scenario($backend).await;
            }
        )*
    };
}
use on_backend;

on_backend!(on_embedded, Backend::Embedded);
on_backend!(on_redis, Backend::Redis);
