//! Processes are killed at random moments, and nothing that was acknowledged is lost.
//!
//! Every acknowledged job reaches exactly one terminal state, and none waits much longer than the outages that it met: the
//! aim is five seconds more. A failure prints the seed; `CORETEX_TEST_SEED` sets it.

mod system;
mod workflows;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use self::system::{Backend, System};

/// How often the daemon is killed in a row.
const KILLS: usize = 50;

/// A random generator whose seed is printed with a failure.
fn dice() -> StdRng {
    let seed = std::env::var("CORETEX_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("CORETEX_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Kills the daemon again and again while clients submit; a moment is 10 to 1 000 ms after it was ready.
async fn killed_again_and_again(backend: Backend) {
    let mut dice = dice();
    let mut system = System::start(backend, 1).await;
    let load = system.load(4);
    for _ in 0..KILLS {
        system.pass(Duration::from_millis(dice.random_range(10..1_000))).await;
        system.kill_daemon(0);
        system.start_daemon(0).await;
    }
    system.pass(Duration::from_millis(300)).await;
    let accepted = load.stop().await;
    assert!(accepted.len() > KILLS, "only {} jobs were accepted", accepted.len());
    system.check(accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_daemon_killed_50_times() {
    killed_again_and_again(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_on_core_nats_killed_50_times() {
    killed_again_and_again(Backend::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_on_jetstream_killed_50_times() {
    killed_again_and_again(Backend::JetStream).await;
}

/// Two replicas under load, one of them killed for good half-way.
async fn one_of_two_killed(backend: Backend) {
    let mut dice = dice();
    let mut system = System::start(backend, 2).await;
    let load = system.load(4);
    system.pass(Duration::from_millis(dice.random_range(300..900))).await;
    system.kill_daemon(1);
    system.pass(Duration::from_millis(700)).await;
    let accepted = load.stop().await;
    system.check(accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_replicas_killed_on_core_nats() {
    one_of_two_killed(Backend::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_replicas_killed_on_jetstream() {
    one_of_two_killed(Backend::JetStream).await;
}

/// Redis and NATS restart under load.
async fn servers_restart(backend: Backend) {
    let mut system = System::start(backend, 1).await;
    let load = system.load(4);
    for _ in 0..3 {
        system.pass(Duration::from_millis(400)).await;
        system.restart_redis().await;
        system.pass(Duration::from_millis(400)).await;
        system.restart_nats().await;
    }
    system.pass(Duration::from_millis(500)).await;
    let accepted = load.stop().await;
    system.check(accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_core_nats_restart_under_load() {
    servers_restart(Backend::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_jetstream_restart_under_load() {
    servers_restart(Backend::JetStream).await;
}

/// The safety kernel, in a process of its own, is killed three times under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn safety_kernel_killed_under_load() {
    crate::safety_kernel::killed_under_load().await;
}

/// Every run ends as it should, and no job runs twice, however often the engine dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_engine_on_core_nats_killed_50_times() {
    workflows::engine_killed_again_and_again(Backend::Nats, dice()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_engine_on_jetstream_killed_50_times() {
    workflows::engine_killed_again_and_again(Backend::JetStream, dice()).await;
}
