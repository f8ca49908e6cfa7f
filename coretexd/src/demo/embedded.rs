//! The platform beneath the demo: embedded, with the repository's own policy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::jobs::service::JobService;
use coretex_core::platform::Platform;
use coretex_core::policy::LocalKernel;
use coretex_core::protocol::TenantId;
use coretex_core::routing::Routing;

use super::{DELETE, DIGEST, PUBLISH};

/// The policy, compiled in: the demo works from any folder.
const POLICY: &str = include_str!("../../../config/safety.yaml");
/// The pool of the workers that digest. A pool's workers are alike: any of them may be given any job of its topics.
pub(super) const READERS: &str = "demo-readers";
/// The pool of the worker that publishes.
pub(super) const PUBLISHERS: &str = "demo-publishers";

/// Where the demo keeps its jobs.
#[derive(Debug)]
pub(super) struct Home {
    location: Location,
    stores: OnceLock<EmbeddedStores>,
}

impl Home {
    /// What the daemon's setting says, or a folder in the output folder.
    pub(super) fn new(data_dir: Option<&str>, out: &Path) -> Self {
        let location = match data_dir {
            Some(":memory:") => Location::Memory,
            Some(folder) => Location::Disk(PathBuf::from(folder)),
            None => Location::Disk(out.join("data")),
        };
        Self {
            location,
            stores: OnceLock::new(),
        }
    }

    /// The folder, if there is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.location {
            Location::Disk(folder) => Some(folder),
            Location::Memory => None,
        }
    }

    /// Opens the stores and starts a platform on them.
    pub(super) async fn start(&self) -> anyhow::Result<Platform> {
        let location = self.location.clone();
        let stores =
            tokio::task::spawn_blocking(move || EmbeddedStores::open(&location, &Options::default())).await??;
        let stores = self.stores.get_or_init(|| stores);
        let kernel = LocalKernel::from_document(POLICY, "config/safety.yaml").context("the demo's policy is broken")?;
        let routing = Routing::default()
            .with_topic(DIGEST, [READERS])
            .with_topic(DELETE, [READERS])
            .with_topic(PUBLISH, [PUBLISHERS])
            .with_topic("job.default", ["default"]);
        let platform = Platform::builder(Arc::new(InProcessBus::new()), stores.stores(), Arc::new(kernel))
            .routing(routing)
            .start()
            .await?;
        Ok(platform)
    }

    /// Lets go of the data, so that a daemon can be started on it.
    pub(super) async fn close(&self) {
        if let Some(stores) = self.stores.get() {
            stores.close().await;
        }
    }
}

/// Jobs, as an application sees them.
pub(super) fn job_service(platform: &Platform) -> JobService {
    JobService::new(
        Arc::clone(&platform.stores.jobs),
        Arc::clone(&platform.stores.payloads),
        Arc::clone(&platform.stores.dlq),
        Arc::clone(&platform.bus),
        platform.clock.clone(),
        TenantId::fallback(),
    )
}
