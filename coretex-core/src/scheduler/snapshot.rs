//! The worker snapshot: a document that tools outside read. See `docs/spec/storage.md` §8.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tracing::warn;

use super::Inner;
use super::fleet::Worker;
use crate::error::chain;
use crate::routing::Routing;
use crate::time::Timestamp;

#[derive(Debug, Default, Serialize)]
struct Pool {
    workers: u32,
    active_jobs: i64,
    capacity: i64,
}

#[derive(Debug, Serialize)]
struct TopicView {
    pool: String,
    workers: u32,
    capacity: i64,
    available: bool,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    worker_id: String,
    pool: String,
    active_jobs: i32,
    max_parallel_jobs: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capabilities: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    cpu_load: f32,
    #[serde(skip_serializing_if = "is_zero")]
    gpu_utilization: f32,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    captured_at: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pools: BTreeMap<String, Pool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    topics: BTreeMap<String, TopicView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workers: Vec<WorkerView>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &f32) -> bool {
    *n == 0.0
}

fn snapshot(workers: &[Worker], routing: &Routing, now: Timestamp) -> Snapshot {
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| !worker.pool().is_empty()) {
        let pool = pools.entry(worker.pool().to_owned()).or_default();
        pool.workers += 1;
        pool.active_jobs += i64::from(worker.heartbeat().active_jobs);
        pool.capacity += i64::from(worker.heartbeat().max_parallel_jobs.max(0));
    }
    let topics = routing
        .topics()
        .filter_map(|(topic, mapped)| {
            let name = mapped.first()?;
            let pool = pools.get(name);
            let workers = pool.map_or(0, |pool| pool.workers);
            Some((
                topic.to_owned(),
                TopicView {
                    pool: name.clone(),
                    workers,
                    capacity: pool.map_or(0, |pool| pool.capacity),
                    available: workers > 0,
                },
            ))
        })
        .collect();
    let workers = workers
        .iter()
        .map(|worker| {
            let heartbeat = worker.heartbeat();
            WorkerView {
                worker_id: heartbeat.worker_id.clone(),
                pool: heartbeat.pool.clone(),
                active_jobs: heartbeat.active_jobs,
                max_parallel_jobs: heartbeat.max_parallel_jobs,
                capabilities: heartbeat.capabilities.clone(),
                cpu_load: heartbeat.cpu_load,
                gpu_utilization: heartbeat.gpu_utilization,
            }
        })
        .collect();
    Snapshot {
        captured_at: now.rfc3339_secs(),
        pools,
        topics,
        workers,
    }
}

impl Inner {
    pub(super) async fn write_snapshots(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.options.snapshot_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let snapshot = snapshot(&self.live_workers(), &self.routing.load(), self.parts.clock.now());
            let Ok(json) = serde_json::to_string(&snapshot) else {
                continue;
            };
            if let Err(error) = self.parts.stores.cluster.put_worker_snapshot(&json).await {
                warn!(error = %chain(&error), "worker snapshot could not be written");
            }
        }
    }
}
