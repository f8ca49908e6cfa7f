//! Which worker gets a job, or why none does. Pure. See `docs/spec/scheduler.md` §3.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::fleet::{Fleet, Worker};
use crate::jobs::PendingReason;
use crate::protocol::WorkerId;
use crate::protocol::agent::JobRequest;
use crate::protocol::labels::is_placement_label;
use crate::routing::Routing;

/// What placement looks at: jobs of equal demand are placed alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Demand {
    /// The topic, exactly as mapped.
    pub topic: String,
    /// Label `preferred_pool`: no other pool will do. Empty for any.
    pub pool: String,
    /// Label `preferred_worker_id`: this worker first. Empty for any.
    pub worker: String,
    /// What the pool must offer.
    pub requires: Vec<String>,
    /// What the worker's labels must say.
    pub labels: BTreeMap<String, String>,
}

impl Demand {
    /// The demand of a request.
    pub fn of(request: &JobRequest) -> Self {
        let label = |name: &str| {
            request
                .labels
                .get(name)
                .map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        let requires = request
            .meta
            .as_ref()
            .map(|meta| meta.requires.as_slice())
            .unwrap_or_default();
        Self {
            topic: request.topic.clone(),
            pool: label("preferred_pool"),
            worker: label("preferred_worker_id"),
            requires: requires
                .iter()
                .map(|need| need.trim().to_lowercase())
                .filter(|need| !need.is_empty())
                .collect(),
            labels: request
                .labels
                .iter()
                .filter(|(name, _)| is_placement_label(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }
    }
}

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To this worker.
    On {
        /// Its id; `None` for workers that have none, which share their topic.
        worker: Option<WorkerId>,
        /// Whether it listens on its own subject.
        direct: bool,
        /// Whether it confirms acceptance and suppresses repeats.
        confirms: bool,
        /// Why it, for people.
        why: String,
    },
    /// Nowhere at present.
    Wait {
        /// For programs.
        reason: PendingReason,
        /// For people.
        why: String,
    },
    /// Nowhere, ever, as things are configured.
    Impossible {
        /// For people.
        why: String,
    },
}

/// The pools that may serve a demand.
///
/// # Errors
/// Why there is none, for people, beginning with `no_pool_mapping`.
pub fn eligible_pools<'a>(demand: &Demand, routing: &'a Routing) -> Result<Vec<&'a str>, String> {
    let topic = &demand.topic;
    let mapped = routing.pools_of(topic);
    if mapped.is_empty() {
        return Err(format!("no_pool_mapping: topic \"{topic}\""));
    }
    let mut pools: Vec<&str> = mapped.iter().map(String::as_str).collect();
    if !demand.pool.is_empty() {
        pools.retain(|pool| *pool == demand.pool);
        if pools.is_empty() {
            return Err(format!(
                "no_pool_mapping: preferred pool \"{}\" not mapped for topic \"{topic}\"",
                demand.pool
            ));
        }
    }
    if !demand.requires.is_empty() {
        pools.retain(|pool| {
            let offers = routing.requires_of(pool);
            demand
                .requires
                .iter()
                .all(|need| offers.iter().any(|offer| offer.trim().to_lowercase() == *need))
        });
        if pools.is_empty() {
            return Err("no_pool_mapping: no pool satisfies requires".to_owned());
        }
    }
    Ok(pools)
}

/// Chooses the least loaded worker that fits. Does not reserve its place: [`Fleet::reserve`] does.
pub fn place(demand: &Demand, routing: &Routing, fleet: &Fleet) -> Placement {
    let mut pools = match eligible_pools(demand, routing) {
        Ok(pools) => pools,
        Err(why) => return Placement::Impossible { why },
    };
    if routing.is_topic_paused(&demand.topic) {
        return paused(&format!("topic {}", demand.topic));
    }
    if pools.iter().all(|pool| routing.is_pool_paused(pool)) {
        return paused(&format!("pool {}", pools.join(",")));
    }
    pools.retain(|pool| !routing.is_pool_paused(pool));
    if !demand.worker.is_empty()
        && let Some(worker) = fleet.get(&demand.worker)
        && pools.contains(&worker.pool())
        && worker.matches(&demand.labels)
        && !worker.is_full()
    {
        return on(
            worker,
            &format!(
                "preferred worker of pool {}, load {}",
                worker.pool(),
                worker.load_text()
            ),
        );
    }

    let mut best: Option<(&Worker, f32)> = None;
    let mut census = Census::default();
    for pool in &pools {
        for worker in fleet.in_pool(pool) {
            census.live += 1;
            if !worker.matches(&demand.labels) {
                census.mismatched(worker, &demand.labels);
            } else if worker.is_full() {
                census.full += 1;
            } else {
                let score = worker.score();
                if best.is_none_or(|(_, lowest)| score < lowest) {
                    best = Some((worker, score));
                }
            }
        }
    }
    match best {
        Some((worker, _)) if census.live == 1 => on(
            worker,
            &format!("only worker of pool {}, load {}", worker.pool(), worker.load_text()),
        ),
        Some((worker, _)) => on(
            worker,
            &format!(
                "least loaded of {} in pool {}, load {}",
                census.live,
                worker.pool(),
                worker.load_text()
            ),
        ),
        None => census.wait(&pools),
    }
}

fn paused(what: &str) -> Placement {
    Placement::Wait {
        reason: PendingReason::Paused,
        why: format!("not placed because: {what} is paused"),
    }
}

fn on(worker: &Worker, why: &str) -> Placement {
    Placement::On {
        worker: worker.id().cloned(),
        direct: worker.direct,
        confirms: worker.confirms,
        why: why.to_owned(),
    }
}

/// Counts why workers were passed over.
#[derive(Debug, Default)]
struct Census {
    live: usize,
    full: usize,
    missing: BTreeMap<String, usize>,
}

impl Census {
    fn mismatched(&mut self, worker: &Worker, wanted: &BTreeMap<String, String>) {
        for (name, value) in wanted {
            if !worker.has_label(name, value) {
                *self.missing.entry(format!("{name}={value}")).or_default() += 1;
            }
        }
    }

    fn wait(self, pools: &[&str]) -> Placement {
        let pools = pools.join(",");
        let mut why = String::from("not placed because: ");
        if self.live == 0 {
            let _ = write!(why, "no live worker in pool {pools}");
        } else {
            let mut parts = Vec::new();
            if self.full > 0 {
                parts.push(format!(
                    "pool {pools} full ({} worker{})",
                    self.full,
                    if self.full == 1 { "" } else { "s" }
                ));
            }
            parts.extend(
                self.missing
                    .iter()
                    .map(|(label, count)| format!("label {label} missing on {count}")),
            );
            why.push_str(&parts.join(", "));
        }
        let reason = if self.full > 0 {
            PendingReason::PoolOverloaded
        } else {
            PendingReason::NoWorkers
        };
        Placement::Wait { reason, why }
    }
}

#[cfg(test)]
mod tests;
