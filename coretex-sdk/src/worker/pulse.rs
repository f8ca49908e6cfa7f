//! Signs of life: heartbeats, and acceptances of jobs that take their time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coretex_core::bus::{Health, Message, Subscription};
use coretex_core::error::chain;
use coretex_core::protocol::agent::{Heartbeat, bus_packet::Payload};
use coretex_core::protocol::{encode_packet, labels, packet, subjects};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::core::Core;
use super::intake::acceptance;
use super::outbox::Outgoing;

/// How often the worker looks whether there is something to say, so also: how long a job runs before its acceptance is
/// sent, and how close together heartbeats may be. The scheduler waits 1.5 s before it sends a job again.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// After a reconnect, results that are this much older than the last good moment are sent again: they may have been on
/// the wire. Repeats are harmless.
const IN_DOUBT: Duration = Duration::from_secs(5);
/// How many roll calls are taken at once.
const MAX_CALLS: usize = 64;

/// Label of workers that finish what they have and take no more.
const DRAINING: &str = "coretex.draining";

/// What a heartbeat says that can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    active: usize,
    draining: bool,
}

impl State {
    fn of(core: &Core) -> Self {
        Self {
            active: core.ledger.active(),
            draining: core.draining.load(Ordering::Relaxed),
        }
    }
}

/// Why there may be something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Health,
    RollCall,
    Tick,
}

/// Waits for a roll call; calls that came together are one. For ever, where none can come.
async fn roll_call(roll: &mut Option<Subscription>) {
    if let Some(calls) = roll
        && !calls.next_batch(MAX_CALLS).await.is_empty()
    {
        return;
    }
    // The bus is closed, if there was one to listen on: its health says so.
    *roll = None;
    std::future::pending::<()>().await;
}

/// Beats until `stop`.
pub(crate) async fn run(core: Arc<Core>, mut roll: Option<Subscription>, stop: CancellationToken) {
    let mut health = core.bus.health();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = State::of(&core);
    let mut beat_at = Instant::now();
    // The last moment at which the connection was known to be good.
    let mut good_at = Instant::now();
    let mut connected = true;
    // A scheduler called, and was not answered yet.
    let mut called = false;
    loop {
        let wake = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
                Wake::Health
            }
            () = roll_call(&mut roll) => Wake::RollCall,
            _ = tick.tick() => Wake::Tick,
        };
        let now = Instant::now();
        if wake == Wake::RollCall {
            called = true;
            if now.duration_since(beat_at) < TICK {
                // With the next tick: however many call, heartbeats keep their distance.
                continue;
            }
        }
        if wake == Wake::Health {
            let was = std::mem::replace(
                &mut connected,
                matches!(*health.borrow_and_update(), Health::Connected { .. }),
            );
            if connected && !was {
                info!("connected again");
                said = beat(&core).await;
                beat_at = now;
                called = false;
                for result in core
                    .ledger
                    .finished_since(good_at.checked_sub(IN_DOUBT).unwrap_or(good_at))
                {
                    core.outbox.send(Outgoing::Result(result)).await;
                }
            } else if was && !connected {
                info!("lost the connection to the bus; trying again for ever");
            }
        }
        if connected {
            good_at = now;
        }
        for (job, trace_id) in core.ledger.take_silent(now - TICK) {
            core.outbox.send(acceptance(&core, &job, &trace_id)).await;
        }
        let due = called || now.duration_since(beat_at) >= core.settings.heartbeat_interval;
        if connected && (due || State::of(&core) != said) {
            said = beat(&core).await;
            beat_at = now;
            called = false;
        }
    }
}

/// Sends one heartbeat, and returns what it said. The next one makes good for one that is lost.
pub(crate) async fn beat(core: &Core) -> State {
    let state = State::of(core);
    let payload = Payload::Heartbeat(heartbeat(core, state));
    let sender = core.settings.id.as_str();
    let message = Message {
        subject: subjects::HEARTBEAT.to_owned(),
        payload: encode_packet(&packet(sender, sender, core.clock.now(), payload)),
        message_id: None,
    };
    if let Err(error) = core.bus.publish(message).await {
        debug!(error = %chain(&error), "could not send a heartbeat");
    }
    state
}

fn heartbeat(core: &Core, state: State) -> Heartbeat {
    let settings = &core.settings;
    let active = i32::try_from(state.active).unwrap_or(i32::MAX);
    let mut own = settings.labels.clone();
    own.insert(labels::WORKER_DIRECT.to_owned(), "1".to_owned());
    own.insert(labels::WORKER_CONFIRMS.to_owned(), "1".to_owned());
    let load = settings.load.as_ref().map(|probe| probe()).unwrap_or_default();
    let mut heartbeat = Heartbeat {
        worker_id: settings.id.to_string(),
        region: settings.region.clone(),
        r#type: settings.kind.clone(),
        cpu_load: load.cpu,
        gpu_utilization: load.gpu,
        active_jobs: active,
        capabilities: settings.capabilities.clone(),
        pool: settings.pool.clone(),
        max_parallel_jobs: i32::try_from(settings.max_parallel_jobs).unwrap_or(i32::MAX),
        labels: own,
    };
    if state.draining {
        heartbeat.labels.insert(DRAINING.to_owned(), "1".to_owned());
        // For schedulers that do not know the label: exactly full.
        heartbeat.active_jobs = active.max(1);
        heartbeat.max_parallel_jobs = active.max(1);
    }
    heartbeat
}
