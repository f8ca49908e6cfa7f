//! What all tasks of one worker share.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use coretex_core::bus::Bus;
use coretex_core::pointers::PointerStore;
use coretex_core::protocol::WorkerId;
use coretex_core::time::Clock;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::complaints::Complaints;
use super::ledger::Ledger;
use super::outbox::Outbox;
use crate::handler::HandlerService;

/// What a worker reports as its load; each in percent. A worker at 90 or more gets no jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// How busy the processors are.
    pub cpu: f32,
    /// How busy the graphics processors are.
    pub gpu: f32,
}

pub(crate) type LoadProbe = Arc<dyn Fn() -> Load + Send + Sync>;

/// The checked settings of a worker.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) id: WorkerId,
    pub(crate) pool: String,
    pub(crate) region: String,
    pub(crate) kind: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Zero: no limit.
    pub(crate) max_parallel_jobs: u32,
    pub(crate) max_waiting_jobs: usize,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) payload_timeout: Duration,
    pub(crate) result_limit: usize,
    pub(crate) retries: u32,
    pub(crate) data_ttl: Option<Duration>,
    pub(crate) load: Option<LoadProbe>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("id", &self.id)
            .field("pool", &self.pool)
            .field("max_parallel_jobs", &self.max_parallel_jobs)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) handlers: HashMap<String, HandlerService>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) payloads: Arc<dyn PointerStore>,
    pub(crate) ledger: Ledger,
    pub(crate) outbox: Outbox,
    /// One permit per job that may run at once.
    pub(crate) slots: Semaphore,
    /// One permit per job that may be here at once, running or waiting.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) jobs: TaskTracker,
    pub(crate) complaints: Complaints,
    pub(crate) draining: AtomicBool,
    pub(crate) clock: Clock,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
