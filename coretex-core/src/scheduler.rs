//! From requests to workers: takes submitted jobs, has them judged, places them, follows them to their end.
//! See `docs/spec/scheduler.md`.
//!
//! The decisions are pure ([`place`], [`Parked`]); this is the shell around them. Any number of schedulers may run on one
//! bus and one store: every change of a job is a compare-and-set, so that of two that try the same, one wins.

mod approvals;
mod decide;
mod desk;
mod effective;
pub mod fleet;
mod handover;
mod intake;
pub mod parked;
pub mod placement;
mod reconcile;
mod recover;
mod results;
mod signals;
mod snapshot;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use parked::Parked;
pub use placement::{Demand, Placement, place};

use self::desk::Desk;
use self::effective::EffectiveConfig;
use self::signals::Signals;
use crate::backend::Stores;
use crate::bus::{self, Bus, Delivery, Subscription};
use crate::error::chain;
use crate::jobs::{Change, Outcome};
use crate::metrics::{JOBS_IN_FLIGHT, JOBS_PARKED, STORE_RETRIES};
use crate::policy::Kernel;
use crate::protocol::InstanceId;
use crate::routing::{Routing, Timeouts};
use crate::time::Clock;
use crate::workers::Registry;

/// What to do with a job that its worker had confirmed before it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerLost {
    /// TIMEOUT with `worker_lost`, unless the job says `coretex.idempotent=true`: then it is placed again.
    #[default]
    Judge,
    /// Wait for the running timeout.
    Wait,
    /// TIMEOUT, whatever the job says.
    Fail,
    /// Place it again, whatever the job says.
    Redispatch,
}

/// How a scheduler behaves. Every field has a default that suits production.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Names this process among the replicas.
    pub instance: InstanceId,
    /// How many messages are taken from the bus at once.
    pub batch: usize,
    /// How many batches of submissions, and of results, are worked on at once.
    pub lanes: usize,
    /// How many jobs wait in this process at most. More stay PENDING in the store until there is room.
    pub max_parked: usize,
    /// Requests up to this many bytes are kept with a waiting job; larger ones are read again.
    pub keep_request_bytes: usize,
    /// After this long without a confirmation, a worker that confirms is asked again.
    pub ask_again: Duration,
    /// How often a worker that confirmed a job is asked whether it still has it: its result may have been lost on the way.
    pub ask_running: Duration,
    /// How often what waits here is compared with what is pending in the store. If that takes long it is done less often.
    pub look_over: Duration,
    /// How long a silent worker's jobs are left alone after it stopped to count as alive.
    pub lost_grace: Duration,
    /// What happens to confirmed jobs of a lost worker.
    pub worker_lost: WorkerLost,
    /// Whether all workers live in this process, so that none survived the last one.
    pub workers_in_process: bool,
    /// Whether a policy that cannot be asked denies jobs for good, as the reference did, instead of letting them wait.
    pub deny_without_policy: bool,
    /// How often the worker snapshot is written.
    pub snapshot_interval: Duration,
    /// How often configuration is read again.
    pub reload_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance: InstanceId::random(),
            batch: 128,
            lanes: 4,
            max_parked: 1_000_000,
            keep_request_bytes: 512,
            ask_again: Duration::from_millis(1_500),
            ask_running: Duration::from_secs(20),
            look_over: Duration::from_secs(30),
            lost_grace: Duration::from_secs(30),
            worker_lost: WorkerLost::default(),
            workers_in_process: false,
            deny_without_policy: false,
            snapshot_interval: Duration::from_secs(5),
            reload_interval: Duration::from_secs(30),
        }
    }
}

/// What a scheduler works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// How it hears and speaks.
    pub bus: Arc<dyn Bus>,
    /// Where jobs and all else are.
    pub stores: Stores,
    /// Who decides.
    pub kernel: Arc<dyn Kernel>,
    /// Where heartbeats are remembered for others to see.
    pub registry: Registry,
    /// Topics and pools, as configured.
    pub routing: Routing,
    /// Time limits, as configured.
    pub timeouts: Timeouts,
    /// Wall time.
    pub clock: Clock,
}

/// One scheduler. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Scheduler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    options: Options,
    routing: ArcSwap<Routing>,
    timeouts: ArcSwap<Timeouts>,
    effective: EffectiveConfig,
    desk: Mutex<Desk>,
    /// Something may fit now that did not fit before.
    room: Notify,
    /// Jobs in flight need looking after before the next tick.
    look: Notify,
    /// Pools and time limits may have changed before the next tick.
    reload: Notify,
    /// Limits the batches of submissions in work; waiting jobs that are woken count as well.
    intake: Arc<Semaphore>,
    /// Whether the bus says when a job reached nobody.
    told: AtomicBool,
    /// Whether policy did not answer the last time.
    unjudged: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How much a scheduler has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait for room in this process.
    pub parked: usize,
    /// Jobs placed by this process and not over.
    pub in_flight: usize,
}

impl Scheduler {
    /// Makes one; it does nothing until [`run`](Self::run).
    pub fn new(parts: Parts, options: Options) -> Self {
        let stop = CancellationToken::new();
        Self(Arc::new(Inner {
            routing: ArcSwap::from_pointee(parts.routing.clone()),
            timeouts: ArcSwap::from_pointee(parts.timeouts.clone()),
            effective: EffectiveConfig::new(Arc::clone(&parts.stores.config)),
            desk: Mutex::new(Desk::default()),
            room: Notify::new(),
            look: Notify::new(),
            reload: Notify::new(),
            // At least two: one is held by whoever waits for submissions, and waiting jobs need one as well.
            intake: Arc::new(Semaphore::new(options.lanes.max(2))),
            told: AtomicBool::new(false),
            unjudged: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop,
            parts,
            options,
        }))
    }

    /// How much it has to do.
    pub fn load(&self) -> Load {
        let desk = self.0.desk.lock();
        Load {
            parked: desk.waiting(),
            in_flight: desk.in_flight.len(),
        }
    }

    /// Subscribes, and returns the work to run: it ends after `stop`, when what was taken is finished. What waits stays
    /// PENDING in the store.
    ///
    /// # Errors
    /// [`bus::Error`] if it cannot subscribe.
    pub async fn start(
        &self,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static, bus::Error> {
        let inner = Arc::clone(&self.0);
        let signals = inner.subscribe_signals().await?;
        let results = inner.subscribe_results().await?;
        let intake = inner.subscribe_submit().await?;
        Ok(inner.run(signals, results, intake, stop))
    }
}

impl Inner {
    async fn run(
        self: Arc<Self>,
        signals: Signals,
        results: Subscription,
        intake: Subscription,
        stop: CancellationToken,
    ) {
        let inner = &self;
        info!(instance = %inner.options.instance, "scheduler runs");

        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(inner).take_heartbeats(signals.heartbeats));
        tasks.spawn(Arc::clone(inner).take_progress(signals.progress));
        tasks.spawn(Arc::clone(inner).take_cancels(signals.cancels));
        tasks.spawn(Arc::clone(inner).take_endings(signals.endings));
        tasks.spawn(Arc::clone(inner).take_config_notices(signals.config));
        if let Some(undelivered) = inner.parts.bus.undelivered() {
            inner.told.store(true, Ordering::Relaxed);
            tasks.spawn(Arc::clone(inner).take_undelivered(undelivered));
        }
        tasks.spawn(Arc::clone(inner).take_results(results));
        tasks.spawn(Arc::clone(inner).keep_membership());
        tasks.spawn(Arc::clone(inner).look_after_in_flight());
        tasks.spawn(Arc::clone(inner).reconcile());
        tasks.spawn(Arc::clone(inner).write_snapshots());
        let dispatching = Arc::clone(inner);
        tasks.spawn(async move {
            if dispatching.know_config().await {
                tokio::join!(
                    Arc::clone(&dispatching).take_submissions(intake),
                    Arc::clone(&dispatching).serve_waiting(),
                    dispatching.reload_config(),
                );
            }
        });
        let roll = Arc::clone(inner);
        tasks.spawn(async move { roll.call_roll().await });
        tasks.close();

        stop.cancelled().await;
        inner.stop.cancel();
        tasks.wait().await;
        inner.tasks.close();
        inner.tasks.wait().await;
        inner.flush_notes().await;
        if let Err(error) = inner.parts.stores.cluster.leave(&inner.options.instance).await {
            warn!(error = %chain(&error), "could not sign off from the cluster");
        }
        info!(instance = %inner.options.instance, "scheduler stopped");
    }
}

/// The pause before try number `attempt` (from 0) of something that failed: 20 ms, doubling, at most 1 s.
fn back_off(attempt: u32) -> Duration {
    Duration::from_millis(20_u64.saturating_mul(1 << attempt.min(6)).min(1_000))
}

impl Inner {
    /// The next messages; empty at the end. After `stop` no new ones are taken, and those that are here already, which
    /// nobody else would get, come first.
    async fn next_batch(&self, subscription: &mut Subscription) -> Vec<Delivery> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => subscription.close(),
            batch = subscription.next_batch(self.options.batch) => return batch,
        }
        subscription.next_batch(self.options.batch).await
    }

    fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Applies changes, trying again until the store answers. `None` where there is no answer: at shutdown, or when the
    /// store refuses for good.
    async fn commit(&self, changes: &[Change]) -> Vec<Option<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; changes.len()];
        let mut open: Vec<usize> = (0..changes.len()).collect();
        let mut attempt = 0;
        while !open.is_empty() {
            let results = if open.len() == changes.len() {
                self.parts.stores.jobs.apply_many(changes).await
            } else {
                let again: Vec<Change> = open.iter().filter_map(|i| changes.get(*i).cloned()).collect();
                self.parts.stores.jobs.apply_many(&again).await
            };
            let mut failed = Vec::new();
            for (i, result) in open.iter().zip(results) {
                match result {
                    Ok(outcome) => {
                        if let Some(slot) = outcomes.get_mut(*i) {
                            *slot = Some(outcome);
                        }
                    }
                    Err(error) if error.is_retryable() => {
                        if failed.is_empty() {
                            warn!(error = %chain(&error), attempt, "store does not answer, trying again");
                        }
                        failed.push(*i);
                    }
                    Err(error) => {
                        let id = changes.get(*i).map(|change| change.id.as_str());
                        tracing::error!(job_id = id, error = %chain(&error), "store refused a change");
                    }
                }
            }
            open = failed;
            if !open.is_empty() {
                counter!(STORE_RETRIES).increment(1);
                tokio::select! {
                    () = self.stop.cancelled() => break,
                    () = tokio::time::sleep(back_off(attempt)) => {}
                }
                attempt += 1;
            }
        }
        outcomes
    }

    /// Publishes what follows from a commit. The commit stands whatever happens here; what is lost is said.
    async fn publish_all(&self, messages: Vec<bus::Message>) {
        let mut open = messages;
        for attempt in 0..5 {
            if open.is_empty() {
                return;
            }
            let results = self.parts.bus.publish_all(open.clone()).await;
            open = open
                .into_iter()
                .zip(results)
                .filter_map(|(message, result)| match result {
                    Ok(()) => None,
                    Err(error) if error.retry() == crate::error::Retry::Never => {
                        warn!(subject = %message.subject, error = %chain(&error), "message not published");
                        None
                    }
                    Err(error) => {
                        warn!(subject = %message.subject, attempt, error = %chain(&error), "bus does not answer");
                        Some(message)
                    }
                })
                .collect();
            if !open.is_empty() {
                tokio::time::sleep(back_off(attempt)).await;
            }
        }
        for message in open {
            warn!(subject = %message.subject, "message given up");
        }
    }
}

/// Says how much there is to do.
fn gauge(desk: &Desk) {
    metrics::gauge!(JOBS_PARKED).set(count(desk.waiting()));
    metrics::gauge!(JOBS_IN_FLIGHT).set(count(desk.in_flight.len()));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
fn count(n: usize) -> f64 {
    n as f64
}
