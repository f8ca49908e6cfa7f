//! The worker: takes jobs from the bus, runs them, reports how they ended.

mod builder;
mod complaints;
pub(crate) mod core;
mod execute;
mod intake;
pub(crate) mod ledger;
pub(crate) mod outbox;
mod pulse;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coretex_core::bus::{self, Health, SubscribeOptions, Subscription};
use coretex_core::error::chain;
use coretex_core::protocol::{WorkerId, subjects};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use self::builder::Builder;
use self::core::Core;
pub use self::core::Load;
pub use self::ledger::StopReason;
use self::outbox::Sender;
use crate::error::Error;

/// How long a draining worker goes on listening: for jobs that were sent before the schedulers heard of it.
const SETTLE: Duration = Duration::from_millis(250);

/// A worker that is ready to start. Begin with [`Worker::builder`].
#[derive(Debug)]
pub struct Worker {
    core: Arc<Core>,
    sender: Sender,
    /// Whether the worker made the connection, and so closes it.
    owns_bus: bool,
}

impl Worker {
    /// A worker without handlers, with defaults for all settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The worker's id.
    pub fn id(&self) -> &WorkerId {
        &self.core.settings.id
    }

    /// Starts to listen and to work, in tasks of its own, and returns when the bus confirmed the subscriptions.
    ///
    /// # Errors
    /// [`Error::Subscribe`] if the bus refused a subscription.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<Running, Error> {
        let Self { core, sender, owns_bus } = self;
        let (tasks, intakes) = (TaskTracker::new(), TaskTracker::new());
        let stop = Stop::default();
        // Ends everything that was started if this future is dropped, or fails half-way.
        let guard = stop.clone().everything();

        let cancels = subscribe(&core, subjects::CANCEL, None).await?;
        tasks.spawn(intake::cancels(Arc::clone(&core), cancels, stop.end.clone()));
        tasks.spawn(sender.run(Arc::clone(&core.bus), stop.outbox.clone()));
        let direct = subjects::worker_jobs(&core.settings.id);
        let mut subscriptions = vec![subscribe(&core, &direct, None).await?];
        for topic in core.handlers.keys() {
            // All workers of a topic share it, whatever their pools: the group is named after it, as other SDKs do.
            subscriptions.push(subscribe(&core, topic, Some(topic)).await?);
        }
        for subscription in subscriptions {
            intakes.spawn(intake::jobs(Arc::clone(&core), subscription, stop.intake.clone()));
        }
        let roll = match subscribe(&core, subjects::STARTED, None).await {
            Ok(roll) => Some(roll),
            // Not every broker lets workers listen there: the regular heartbeats will do.
            Err(Error::Subscribe {
                source: source @ bus::Error::Refused { .. },
                ..
            }) => {
                debug!(error = %chain(&source), "no roll calls");
                None
            }
            Err(error) => return Err(error),
        };
        pulse::beat(&core).await;
        tasks.spawn(pulse::run(Arc::clone(&core), roll, stop.end.clone()));
        info!(worker_id = %core.settings.id, pool = core.settings.pool, topics = core.handlers.len(), "working");
        guard.disarm();

        let asked = CancellationToken::new();
        let supervisor = Supervisor {
            core: Arc::clone(&core),
            intakes,
            tasks,
            stop,
            asked: asked.clone(),
            owns_bus,
        };
        let mut supervision = JoinSet::new();
        supervision.spawn(supervisor.run());
        Ok(Running {
            supervision,
            asked,
            core,
        })
    }

    /// Works until the process is asked to stop (SIGINT, SIGTERM), then finishes what it has, for as long as the
    /// [`drain_timeout`](Builder::drain_timeout). A second signal ends that at once.
    ///
    /// # Errors
    /// [`Error::Subscribe`] if the worker cannot listen, [`Error::Signals`] if the signals cannot be watched,
    /// [`Error::BusClosed`] if the bus was closed under it.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = signals::Signals::try_new().map_err(Error::Signals)?;
        let mut running = self.start().await?;
        tokio::select! {
            () = signals.next() => {}
            ended = running.ended() => return ended,
        }
        tokio::select! {
            ended = running.stop() => ended,
            () = signals.next() => {
                warn!("stopped before all jobs were done");
                Ok(())
            }
        }
    }
}

async fn subscribe(core: &Core, subject: &str, queue: Option<&str>) -> Result<Subscription, Error> {
    let options = SubscribeOptions {
        queue: queue.map(str::to_owned),
        // Dispatches are live messages for whoever listens, also where the broker keeps a copy.
        ..SubscribeOptions::tap()
    };
    core.bus
        .subscribe(subject, options)
        .await
        .map_err(|source| Error::Subscribe {
            subject: subject.to_owned(),
            source,
        })
}

/// What can be told to stop, in this order.
#[derive(Debug, Clone, Default)]
struct Stop {
    intake: CancellationToken,
    end: CancellationToken,
    outbox: CancellationToken,
}

impl Stop {
    fn everything(self) -> StopGuard {
        StopGuard(Some(self))
    }

    fn now(&self) {
        self.intake.cancel();
        self.end.cancel();
        self.outbox.cancel();
    }
}

/// Stops everything when dropped.
struct StopGuard(Option<Stop>);

impl StopGuard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.now();
        }
    }
}

/// A worker at work. Dropping it makes it stop as [`stop`](Self::stop) does, but nobody waits for that.
#[derive(Debug)]
pub struct Running {
    supervision: JoinSet<Result<(), Error>>,
    asked: CancellationToken,
    core: Arc<Core>,
}

impl Running {
    /// The worker's id.
    pub fn id(&self) -> &WorkerId {
        &self.core.settings.id
    }

    /// How many jobs it has, running or waiting for a slot.
    pub fn active_jobs(&self) -> usize {
        self.core.ledger.active()
    }

    /// Takes no more jobs, finishes those it has, and reports their results. Jobs that are not done after the
    /// [`drain_timeout`](Builder::drain_timeout) are stopped and reported as failed with `worker_stopped`.
    ///
    /// # Errors
    /// [`Error::BusClosed`] if the bus was closed under the worker before.
    ///
    /// # Cancel safety
    /// The worker stops, whether the future is dropped or not.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.asked.cancel();
        self.ended().await
    }

    /// Waits until the worker has stopped, for whatever reason. An error is reported once.
    ///
    /// # Errors
    /// [`Error::BusClosed`] if the bus was closed under it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ended(&mut self) -> Result<(), Error> {
        // The supervisor does not panic, and nobody aborts it; if the runtime does, the worker has ended.
        match self.supervision.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) | None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.asked.cancel();
        // It drains, and ends by itself.
        self.supervision.detach_all();
    }
}

/// Waits for a reason to stop, then stops in order.
struct Supervisor {
    core: Arc<Core>,
    intakes: TaskTracker,
    tasks: TaskTracker,
    stop: Stop,
    asked: CancellationToken,
    owns_bus: bool,
}

impl Supervisor {
    async fn run(self) -> Result<(), Error> {
        let mut health = self.core.bus.health();
        let outcome = tokio::select! {
            biased;
            () = self.asked.cancelled() => Ok(()),
            // The sender of the health is gone together with the bus.
            _ = health.wait_for(|health| *health == Health::Closed) => Err(Error::BusClosed),
        };
        self.drain(outcome.is_ok()).await;
        outcome
    }

    async fn drain(&self, connected: bool) {
        let core = &self.core;
        info!(worker_id = %core.settings.id, jobs = core.ledger.active(), "stopping");
        core.draining.store(true, Ordering::Relaxed);
        if connected {
            pulse::beat(core).await;
            tokio::time::sleep(SETTLE).await;
        }
        self.stop.intake.cancel();
        let grace = core.settings.drain_timeout;
        if tokio::time::timeout(grace, self.jobs_done()).await.is_err() {
            warn!(
                jobs = core.ledger.active(),
                "jobs did not finish in time and are stopped"
            );
            // No more room: the intakes drop what they still hold, and the schedulers will find it missing.
            core.room.close();
            let patience = core.settings.cancel_grace + Duration::from_secs(1);
            let stopping = async {
                self.intakes.wait().await;
                core.ledger.stop_all(&StopReason::WorkerStopped);
                self.jobs_done().await;
            };
            let _ = tokio::time::timeout(patience, stopping).await;
        }
        self.stop.end.cancel();
        self.stop.outbox.cancel();
        self.tasks.close();
        if tokio::time::timeout(core.settings.drain_timeout, self.tasks.wait())
            .await
            .is_err()
        {
            warn!("the bus did not take all results");
        }
        if connected {
            pulse::beat(core).await;
        }
        if self.owns_bus {
            core.bus.drain().await;
        }
        info!(worker_id = %core.settings.id, "stopped");
    }

    /// Intakes hand over jobs until they end, so they go first.
    async fn jobs_done(&self) {
        self.intakes.close();
        self.intakes.wait().await;
        self.core.jobs.close();
        self.core.jobs.wait().await;
    }
}

/// The signals that ask a process to stop.
mod signals {
    use std::io;

    #[cfg(unix)]
    use tokio::signal::unix::{Signal, SignalKind, signal};

    #[cfg(unix)]
    pub(super) struct Signals {
        interrupt: Signal,
        terminate: Signal,
    }

    #[cfg(unix)]
    impl Signals {
        pub(super) fn try_new() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }

        pub(super) async fn next(&mut self) {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        }
    }

    #[cfg(not(unix))]
    pub(super) struct Signals;

    #[cfg(not(unix))]
    impl Signals {
        #[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
        pub(super) fn try_new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn next(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        }
    }
}
