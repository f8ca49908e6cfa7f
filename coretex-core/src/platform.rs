//! Wires a bus, stores and services into a running control plane.
//!
//! One call for programs that embed coretexOS, and for the daemon, which is nothing more than settings around it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::audit::AuditLog;
use crate::backend::Stores;
use crate::bus::{self, Bus, SubscribeOptions};
use crate::error::chain;
use crate::policy::Kernel;
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::{decode_packet, subjects};
use crate::routing::{Routing, Timeouts};
use crate::scheduler::{Options, Parts, Scheduler};
use crate::time::Clock;
use crate::workers::Registry;
use crate::workflow::engine::{self, Engine};
use crate::workflow::service::Workflows;

/// Makes a [`Platform`].
#[derive(Debug)]
pub struct Builder {
    bus: Arc<dyn Bus>,
    stores: Stores,
    kernel: Arc<dyn Kernel>,
    routing: Routing,
    timeouts: Timeouts,
    clock: Clock,
    scheduler: Option<Options>,
    workflows: engine::Options,
    runs_workflows: bool,
}

impl Builder {
    /// Which topics are served by which pools. Without it, none is.
    #[must_use]
    pub fn routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// How long jobs may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Where wall time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How the scheduler behaves.
    #[must_use]
    pub fn scheduler(mut self, options: Options) -> Self {
        self.scheduler = Some(options);
        self
    }

    /// No scheduler in this process: others on the same bus and stores do that.
    #[must_use]
    pub fn without_scheduler(mut self) -> Self {
        self.scheduler = None;
        self
    }

    /// How the workflow engine behaves.
    #[must_use]
    pub fn workflows(mut self, options: engine::Options) -> Self {
        self.workflows = options;
        self
    }

    /// The workflow engine of this process only serves its own callers: others on the same bus and stores take results, and
    /// watch the clock.
    #[must_use]
    pub fn without_workflow_engine(mut self) -> Self {
        self.runs_workflows = false;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`bus::Error`] if the bus cannot be subscribed to.
    pub async fn start(self) -> Result<Platform, bus::Error> {
        let engine = Engine::new(
            engine::Parts {
                bus: Arc::clone(&self.bus),
                store: Arc::clone(&self.stores.workflows),
                jobs: Arc::clone(&self.stores.jobs),
                payloads: Arc::clone(&self.stores.payloads),
                config: Arc::clone(&self.stores.config),
                clock: self.clock.clone(),
            },
            self.workflows,
        );
        let ears = if self.runs_workflows {
            Some(engine.listen().await?)
        } else {
            None
        };
        let workflows = Workflows::new(Arc::clone(&self.stores.workflows), engine.clone(), self.clock.clone());
        let platform = Platform {
            workflows,
            bus: self.bus,
            stores: self.stores,
            kernel: self.kernel,
            registry: Registry::default(),
            clock: self.clock,
            scheduler: None,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        platform.spawn(|stop| engine.run(ears, stop));
        let audit = AuditLog::new(Arc::clone(&platform.stores.audit));
        platform.spawn(|stop| audit.run(stop));
        match self.scheduler {
            Some(options) => platform.with_scheduler(self.routing, self.timeouts, options).await,
            None => platform.with_registry().await,
        }
    }
}

/// A running control plane. Dropping it stops nothing: call [`shutdown`](Self::shutdown).
#[derive(Debug, Clone)]
pub struct Platform {
    /// How its parts talk.
    pub bus: Arc<dyn Bus>,
    /// Where everything is kept.
    pub stores: Stores,
    /// Who decides.
    pub kernel: Arc<dyn Kernel>,
    /// Which workers were heard of.
    pub registry: Registry,
    /// Wall time.
    pub clock: Clock,
    /// Workflows.
    pub workflows: Workflows,
    /// The scheduler, if it runs in this process.
    pub scheduler: Option<Scheduler>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Platform {
    /// Begins with what has no default: a bus, stores, and who decides.
    pub fn builder(bus: Arc<dyn Bus>, stores: Stores, kernel: Arc<dyn Kernel>) -> Builder {
        Builder {
            bus,
            stores,
            kernel,
            routing: Routing::default(),
            timeouts: Timeouts::default(),
            clock: Clock::system(),
            scheduler: Some(Options::default()),
            workflows: engine::Options::default(),
            runs_workflows: true,
        }
    }

    async fn with_scheduler(
        mut self,
        routing: Routing,
        timeouts: Timeouts,
        options: Options,
    ) -> Result<Self, bus::Error> {
        let scheduler = Scheduler::new(
            Parts {
                bus: Arc::clone(&self.bus),
                stores: self.stores.clone(),
                kernel: Arc::clone(&self.kernel),
                registry: self.registry.clone(),
                routing,
                timeouts,
                clock: self.clock.clone(),
            },
            options,
        );
        let running = scheduler.start(self.stop.clone()).await?;
        self.tasks.spawn(running);
        self.scheduler = Some(scheduler);
        Ok(self)
    }

    /// Without a scheduler somebody still has to remember the workers.
    async fn with_registry(self) -> Result<Self, bus::Error> {
        let mut heartbeats = self
            .bus
            .subscribe(subjects::HEARTBEAT, SubscribeOptions::default())
            .await?;
        let (registry, clock, stop) = (self.registry.clone(), self.clock.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            loop {
                let delivery = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    delivery = heartbeats.next() => delivery,
                };
                let Some(delivery) = delivery else { return };
                if let Ok(packet) = decode_packet(&delivery.payload)
                    && let Some(Payload::Heartbeat(heartbeat)) = packet.payload
                {
                    registry.observe(heartbeat, clock.now());
                }
                if let Err(error) = delivery.ack().await {
                    warn!(error = %chain(&error), "heartbeat not acknowledged");
                }
            }
        });
        Ok(self)
    }

    /// Runs something for as long as the platform runs; it has to end when the token says so.
    pub fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Stops taking work, finishes what was taken, signs off and closes the bus. Returns whether all of that happened
    /// within `grace`; nothing acknowledged is lost either way.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let finished = tokio::time::timeout(grace, async {
            self.tasks.wait().await;
            self.bus.drain().await;
        })
        .await
        .is_ok();
        if !finished {
            error!(
                ?grace,
                "shutdown took too long; what is left is taken up at the next start"
            );
        }
        finished
    }
}
