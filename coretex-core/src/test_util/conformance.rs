//! One suite per trait, run against every backend.
//!
//! Every case is a public async function over a [`Fixture`]; a macro per suite makes one test of each case:
//!
//! ```ignore
//! async fn fixture() -> Fixture { .. }
//! coretex_core::job_store_conformance!(fixture);
//! ```
//!
//! Cases use fresh random names and look only at what they wrote themselves, so that any number of them can share one
//! server. The times they write lie within the last three days.

pub mod audit;
pub mod bus;
pub mod cluster;
pub mod config;
#[cfg(feature = "server")]
pub mod decisions;
pub mod dlq;
pub mod jobs;
pub mod leases;
pub mod pointers;
#[cfg(feature = "server")]
pub mod workflows;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use crate::backend::Stores;
use crate::protocol::{InstanceId, JobId, TenantId, TraceId};
use crate::test_util::wait::until;
use crate::time::{Clock, Timestamp};

/// What a case runs on.
pub struct Fixture {
    stores: Stores,
    meta_ttl: Duration,
    guard: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    /// The stores, and how long they keep the metadata of jobs (at least four days).
    pub fn new(stores: Stores, meta_ttl: Duration) -> Self {
        Self {
            stores,
            meta_ttl,
            guard: Box::new(()),
        }
    }

    /// Keeps `guard` (a server, a folder) until the case is over.
    #[must_use]
    pub fn guarded_by(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Box::new(guard);
        self
    }

    /// How long the stores keep the metadata of jobs.
    pub fn meta_ttl(&self) -> Duration {
        self.meta_ttl
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

impl Deref for Fixture {
    type Target = Stores;

    fn deref(&self) -> &Stores {
        &self.stores
    }
}

/// Names and times of one case, which no other case uses.
#[derive(Debug)]
pub(crate) struct Scene {
    tag: String,
    start: Timestamp,
}

impl Scene {
    pub(crate) fn new() -> Self {
        const THREE_DAYS_SECS: u64 = 3 * 24 * 3600;
        let back = Duration::from_secs(3600 + rand::random::<u64>() % THREE_DAYS_SECS);
        let start = Clock::system().now().minus(back);
        Self {
            tag: uuid::Uuid::new_v4().simple().to_string(),
            // A whole second, so that cases can speak of seconds.
            start: Timestamp::from_secs(start.secs()),
        }
    }

    /// So many microseconds after the start of the case.
    pub(crate) fn at(&self, micros: u64) -> Timestamp {
        self.start.plus(Duration::from_micros(micros))
    }

    /// So many seconds after the start of the case.
    pub(crate) fn secs(&self, secs: u64) -> Timestamp {
        self.start.plus(Duration::from_secs(secs))
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }

    pub(crate) fn job(&self, name: &str) -> JobId {
        JobId::try_new(&self.name(name)).expect("case names are ids")
    }

    pub(crate) fn tenant(&self, name: &str) -> TenantId {
        TenantId::try_new(&self.name(name)).expect("case names are ids")
    }

    pub(crate) fn trace(&self, name: &str) -> TraceId {
        TraceId::try_new(&self.name(name)).expect("case names are ids")
    }

    pub(crate) fn instance(&self, name: &str) -> InstanceId {
        InstanceId::try_new(&self.name(name)).expect("case names are ids")
    }

    pub(crate) fn owns(&self, id: &str) -> bool {
        id.contains(&self.tag)
    }
}

/// Waits until `check` says yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    until(what, || {
        let checking = check();
        async move { checking.await.then_some(()) }
    })
    .await;
}

/// Makes one test of each case of a suite.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($make:path, $suite:ident: $($case:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let fixture = $make().await;
            $crate::test_util::conformance::$suite::$case(&fixture).await;
        }
    )+};
}
