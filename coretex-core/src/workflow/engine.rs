//! What runs workflows: events in, commits, effects out. See `docs/spec/workflows.md` §6.
//!
//! Every run belongs to one shard of each process, a task that takes events in batches, carries runs through them, commits
//! all of the batch at once, and then does what was committed. Any number of engines may work on one store: a commit is a
//! compare-and-set, and whoever loses reads the run again.

mod cache;
mod effects;
mod intake;
mod labels;
mod lanes;
mod merge;
mod missing;
mod pauses;
mod plans;
mod schedules;
mod shard;
mod start;
mod timers;
mod upkeep;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::labels::Labels;
use self::lanes::Errand;
use self::pauses::Paused;
use self::plans::Plans;
use self::shard::{Input, Shard};
use self::timers::Nudge;
use super::event::Event;
use super::run::RunId;
use super::service::Error;
use super::store::WorkflowStore;
use crate::bus::{self, Bus, Subscription};
use crate::config::ConfigStore;
use crate::jobs::JobStore;
use crate::pointers::PointerStore;
use crate::time::Clock;
pub(super) use schedules::start_of;

/// What an engine works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// How it hears and speaks.
    pub bus: Arc<dyn Bus>,
    /// Definitions, runs and schedules.
    pub store: Arc<dyn WorkflowStore>,
    /// Jobs.
    pub jobs: Arc<dyn JobStore>,
    /// What jobs leave behind.
    pub payloads: Arc<dyn PointerStore>,
    /// Limits and pauses.
    pub config: Arc<dyn ConfigStore>,
    /// Wall time.
    pub clock: Clock,
}

/// How an engine behaves. Every field has a default that suits production.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many tasks share the runs.
    pub shards: usize,
    /// How many events a shard takes at once.
    pub batch: usize,
    /// How many events wait for a shard; more wait where they come from.
    pub queue: usize,
    /// How many records of steps are kept in memory.
    pub cached_records: usize,
    /// About how many bytes of runs are kept in memory.
    pub cached_bytes: usize,
    /// How often an event is tried that other processes are faster with.
    pub attempts: u32,
    /// After this time without success, what has to be done outside is tried again.
    pub retry: Duration,
    /// How many runs are taken at once whose time has come.
    pub due_batch: usize,
    /// Runs that ended longer ago than this are deleted; `None` keeps them.
    pub run_ttl: Option<Duration>,
    /// How often old runs are deleted, and runs of the reference looked for.
    pub upkeep: Duration,
    /// How long a key makes a start repeatable.
    pub idempotency_ttl: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 4,
            batch: 256,
            queue: 4_096,
            cached_records: 100_000,
            cached_bytes: 256 * 1024 * 1024,
            attempts: 64,
            retry: Duration::from_secs(5),
            due_batch: 200,
            run_ttl: None,
            upkeep: Duration::from_secs(300),
            idempotency_ttl: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// One engine. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    options: Options,
    plans: Plans,
    paused: Paused,
    labels: Labels,
    shards: Vec<mpsc::Sender<Input>>,
    lanes: Vec<mpsc::Sender<Errand>>,
    /// What [`Engine::run`] takes.
    ends: Mutex<Option<Ends>>,
    /// The next time that a run is due.
    nudge: Nudge,
    /// A schedule was written.
    schedules: Notify,
}

/// The other ends of the channels.
#[derive(Debug)]
struct Ends {
    shards: Vec<mpsc::Receiver<Input>>,
    lanes: Vec<mpsc::Receiver<Errand>>,
}

/// How many errands to other runs are on their way at once.
const LANES: usize = 8;
/// How many errands wait for each of them.
const LANE_QUEUE: usize = 2_048;

/// What an engine listens to that takes part in running workflows.
#[derive(Debug)]
pub struct Ears {
    results: Subscription,
    letters: Subscription,
    config: Subscription,
}

impl Engine {
    /// Makes one; it does nothing until [`run`](Self::run).
    pub fn new(parts: Parts, options: Options) -> Self {
        let (shards, shard_ends) = channels(options.shards.max(1), options.queue.max(1));
        let (lanes, lane_ends) = channels(LANES, LANE_QUEUE);
        Self(Arc::new(Inner {
            plans: Plans::new(Arc::clone(&parts.store)),
            paused: Paused::new(Arc::clone(&parts.config)),
            labels: Labels::default(),
            shards,
            lanes,
            ends: Mutex::new(Some(Ends {
                shards: shard_ends,
                lanes: lane_ends,
            })),
            nudge: Nudge::default(),
            schedules: Notify::new(),
            parts,
            options,
        }))
    }

    /// Subscribes to what an engine listens to that is to run workflows by itself, and not only on request.
    ///
    /// # Errors
    /// [`bus::Error`] if it cannot subscribe.
    pub async fn listen(&self) -> Result<Ears, bus::Error> {
        self.0.listen().await
    }

    /// The work: it ends after `stop`, when what was taken is finished. Without `ears` it serves the callers of this process
    /// and leaves results, timers and schedules to others. Only the first call does anything.
    pub fn run(&self, ears: Option<Ears>, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.0);
        let ends = inner.ends.lock().take();
        async move {
            if let Some(ends) = ends {
                inner.run(ends, ears, stop).await;
            }
        }
    }

    /// Tells a run what happened; it has happened when this returns.
    pub(super) async fn apply(&self, run: &RunId, workflow: Option<&str>, event: Event) -> Result<(), Error> {
        self.0.apply(run, workflow, event).await
    }

    /// A schedule was written.
    pub(super) fn schedules_changed(&self) {
        self.0.schedules.notify_one();
    }
}

fn channels<T>(count: usize, room: usize) -> (Vec<mpsc::Sender<T>>, Vec<mpsc::Receiver<T>>) {
    (0..count).map(|_| mpsc::channel(room)).unzip()
}

fn hash(id: &RunId) -> usize {
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    usize::try_from(hasher.finish() & 0xffff_ffff).unwrap_or(0)
}

impl Inner {
    async fn run(self: Arc<Self>, ends: Ends, ears: Option<Ears>, stop: CancellationToken) {
        let works = ears.is_some();
        info!(shards = self.shards.len(), works, "workflow engine runs");
        // What feeds the others stops first.
        let [feeding, lanes, shards] = [(); 3].map(|()| (TaskTracker::new(), CancellationToken::new()));
        self.paused.reload().await;
        for (number, inputs) in ends.shards.into_iter().enumerate() {
            let shard = Shard::new(Arc::clone(&self), number);
            shards.0.spawn(shard.run(inputs, shards.1.clone()));
        }
        for errands in ends.lanes {
            lanes.0.spawn(Arc::clone(&self).run_errands(errands, lanes.1.clone()));
        }
        if let Some(ears) = ears {
            feeding
                .0
                .spawn(Arc::clone(&self).take_results(ears.results, feeding.1.clone()));
            feeding
                .0
                .spawn(Arc::clone(&self).take_results(ears.letters, feeding.1.clone()));
            feeding
                .0
                .spawn(Arc::clone(&self).watch_pauses(ears.config, feeding.1.clone()));
            feeding.0.spawn(Arc::clone(&self).run_timers(feeding.1.clone()));
            feeding.0.spawn(Arc::clone(&self).run_schedules(feeding.1.clone()));
            feeding.0.spawn(Arc::clone(&self).run_upkeep(feeding.1.clone()));
        } else {
            feeding.0.spawn(Arc::clone(&self).keep_pauses(feeding.1.clone()));
        }
        stop.cancelled().await;
        for (tasks, halt) in [feeding, lanes, shards] {
            halt.cancel();
            tasks.close();
            tasks.wait().await;
        }
        info!("workflow engine stopped");
    }

    fn shard(&self, run: &RunId) -> &mpsc::Sender<Input> {
        &self.shards[hash(run) % self.shards.len()]
    }

    /// Hands an input to the shard of its run; waits for room there.
    async fn send(&self, run: &RunId, input: Input) -> Result<(), Error> {
        self.shard(run).send(input).await.map_err(|_| Error::Stopping)
    }

    async fn apply(&self, run: &RunId, workflow: Option<&str>, event: Event) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Event {
            run: run.clone(),
            event: Box::new(event),
            workflow: workflow.map(str::to_owned),
            reply: Some(reply),
            delivery: None,
        };
        self.send(run, input).await?;
        answer.await.unwrap_or(Err(Error::Stopping))
    }
}
