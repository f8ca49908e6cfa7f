//! The workers as the scheduler sees them: what they said, and what it gave them since. See `docs/spec/scheduler.md` §3.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::protocol::WorkerId;
use crate::protocol::agent::Heartbeat;
use crate::protocol::labels::{WORKER_CONFIRMS, WORKER_DIRECT};
use crate::time::Timestamp;
use crate::workers::LIVENESS;

/// The heartbeat label of a worker that finishes what it has and wants no more.
pub const LABEL_DRAINING: &str = "coretex.draining";

/// One live worker.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a worker")]
pub struct Worker {
    id: Option<WorkerId>,
    heartbeat: Arc<Heartbeat>,
    seen: Timestamp,
    /// Jobs that this process placed there and that are not over.
    mine: u32,
    /// Jobs that it had, by its own word, beside ours.
    others: u32,
    /// Whether it listens on its own subject.
    pub direct: bool,
    /// Whether it confirms acceptance.
    pub confirms: bool,
    draining: bool,
    /// Jobs sent to its topic reached nobody, so that it must listen on its own subject if anywhere.
    learned_direct: bool,
    /// Nobody listened: nothing is placed here until its next heartbeat.
    suspended: bool,
}

impl Worker {
    /// Its id, unless it has none.
    pub fn id(&self) -> Option<&WorkerId> {
        self.id.as_ref()
    }

    /// Its pool; may be empty.
    pub fn pool(&self) -> &str {
        &self.heartbeat.pool
    }

    /// What it said last.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// When it was last heard of.
    pub fn seen(&self) -> Timestamp {
        self.seen
    }

    /// How many jobs it has, as far as is known.
    pub fn load(&self) -> u32 {
        self.mine.saturating_add(self.others)
    }

    /// The load, for people: `3/8`, or `3` without a limit.
    pub fn load_text(&self) -> String {
        match self.heartbeat.max_parallel_jobs {
            max if max > 0 => format!("{}/{max}", self.load()),
            _ => self.load().to_string(),
        }
    }

    /// Whether it takes no more: nine tenths of its places are taken, or it says that it is busy.
    pub fn is_full(&self) -> bool {
        let max = self.heartbeat.max_parallel_jobs;
        #[expect(clippy::cast_precision_loss, reason = "a ratio of small counts")]
        let full = max > 0 && self.load() as f32 / max as f32 >= 0.9;
        full || self.draining
            || self.suspended
            || self.heartbeat.cpu_load >= 90.0
            || self.heartbeat.gpu_utilization >= 90.0
    }

    /// Lower is better.
    pub fn score(&self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let load = self.load() as f32;
        load + self.heartbeat.cpu_load / 100.0 + self.heartbeat.gpu_utilization / 100.0
    }

    /// Whether its label `name` is exactly `value`; a missing label counts as empty.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        !self.heartbeat.labels.is_empty() && self.heartbeat.labels.get(name).map_or("", String::as_str) == value
    }

    /// Whether it has all of these labels.
    pub fn matches(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.has_label(name, value))
    }
}

/// All live workers, by id and by pool.
#[derive(Debug, Default)]
pub struct Fleet {
    workers: BTreeMap<String, Worker>,
    pools: HashMap<String, Vec<String>>,
    /// Jobs placed by this process on workers that have not been heard of yet, kept for when they are.
    unseen: HashMap<String, Unseen>,
}

#[derive(Debug, Default)]
struct Unseen {
    jobs: u32,
    /// When it was last heard of, if it ever was.
    last: Option<Timestamp>,
}

impl Fleet {
    /// Takes a heartbeat. Returns whether the worker may have room that it had not before.
    pub fn observe(&mut self, heartbeat: Arc<Heartbeat>, now: Timestamp) -> bool {
        let key = heartbeat.worker_id.clone();
        // An id that is no single token cannot be a subject: its jobs go by topic.
        let id = WorkerId::try_new(&key).ok().filter(WorkerId::is_token);
        let flag = |name: &str| heartbeat.labels.get(name).is_some_and(|value| value == "1");
        let reported = u32::try_from(heartbeat.active_jobs).unwrap_or(0);
        let previous = self.workers.get(&key);
        let mine = previous
            .map(|worker| worker.mine)
            .or_else(|| self.unseen.remove(&key).map(|unseen| unseen.jobs))
            .unwrap_or(0);
        let was_full = previous.is_none_or(|worker| worker.is_full() || worker.load() > reported.max(mine));
        let moved = previous.is_none_or(|worker| {
            worker.pool() != heartbeat.pool
                || worker.heartbeat.labels != heartbeat.labels
                || worker.heartbeat.max_parallel_jobs != heartbeat.max_parallel_jobs
        });
        let learned_direct = previous.is_some_and(|worker| worker.learned_direct);
        if previous.is_none_or(|worker| worker.pool() != heartbeat.pool) {
            self.unlist(&key);
            self.pools.entry(heartbeat.pool.clone()).or_default().push(key.clone());
        }
        let worker = Worker {
            direct: id.is_some() && (flag(WORKER_DIRECT) || learned_direct),
            learned_direct,
            suspended: false,
            confirms: id.is_some() && flag(WORKER_CONFIRMS),
            draining: flag(LABEL_DRAINING),
            id,
            seen: now,
            mine,
            others: reported.saturating_sub(mine),
            heartbeat,
        };
        let room = (was_full || moved) && !worker.is_full();
        self.workers.insert(key, worker);
        room
    }

    fn unlist(&mut self, key: &str) {
        for members in self.pools.values_mut() {
            members.retain(|member| member != key);
        }
        self.pools.retain(|_, members| !members.is_empty());
    }

    /// Drops workers that have been silent for too long.
    pub fn purge(&mut self, now: Timestamp) {
        let gone: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, worker)| now.since(worker.seen) >= LIVENESS)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(worker) = self.workers.remove(&key)
                && worker.mine > 0
            {
                let (jobs, last) = (worker.mine, Some(worker.seen));
                self.unseen.insert(key.clone(), Unseen { jobs, last });
            }
            self.unlist(&key);
        }
    }

    /// One worker, by id.
    pub fn get(&self, id: &str) -> Option<&Worker> {
        self.workers.get(id)
    }

    /// The worker listens on its own subject, though it does not say so.
    pub fn learn_direct(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id.as_str()) {
            worker.direct = true;
            worker.learned_direct = true;
        }
    }

    /// Nothing is placed on the worker until its next heartbeat.
    pub fn suspend(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id.as_str()) {
            worker.suspended = true;
            worker.learned_direct = false;
        }
    }

    /// The workers of a pool.
    pub fn in_pool(&self, pool: &str) -> impl Iterator<Item = &Worker> {
        self.pools
            .get(pool)
            .into_iter()
            .flatten()
            .filter_map(|key| self.workers.get(key))
    }

    /// Whether any worker takes more at present.
    pub fn has_room(&self) -> bool {
        self.workers.values().any(|worker| !worker.is_full())
    }

    /// All workers.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// Counts one job more on a worker.
    pub fn reserve(&mut self, id: Option<&WorkerId>) {
        let key = id.map_or("", WorkerId::as_str);
        match self.workers.get_mut(key) {
            Some(worker) => worker.mine += 1,
            None => self.unseen.entry(key.to_owned()).or_default().jobs += 1,
        }
    }

    /// Counts one job less on a worker. Returns the pool that has more room now.
    pub fn release(&mut self, id: Option<&WorkerId>) -> Option<String> {
        let key = id.map_or("", WorkerId::as_str);
        if let Some(worker) = self.workers.get_mut(key) {
            worker.mine = worker.mine.saturating_sub(1);
            return Some(worker.pool().to_owned());
        }
        if let Some(unseen) = self.unseen.get_mut(key) {
            unseen.jobs = unseen.jobs.saturating_sub(1);
            if unseen.jobs == 0 {
                self.unseen.remove(key);
            }
        }
        None
    }

    /// Whether this worker has jobs of ours and is silent, or was never heard of.
    pub fn misses(&self, id: &str) -> bool {
        self.unseen.contains_key(id)
    }

    /// When a worker that has jobs of ours and is silent was last heard of; `None` if it never was.
    pub fn last_heard(&self, id: &str) -> Option<Timestamp> {
        self.unseen.get(id)?.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The grace of a lost worker counts from its last word, not from when its job was placed.
    #[test]
    fn a_silent_worker_with_jobs_is_remembered() {
        let mut fleet = Fleet::default();
        let id = WorkerId::try_new("w1").unwrap();
        let heartbeat = Arc::new(Heartbeat {
            worker_id: "w1".to_owned(),
            pool: "p".to_owned(),
            ..Heartbeat::default()
        });
        let start = Timestamp::from_secs(1_000);
        fleet.observe(Arc::clone(&heartbeat), start);
        fleet.reserve(Some(&id));
        let heard = start.plus(Duration::from_secs(600));
        fleet.observe(Arc::clone(&heartbeat), heard);
        assert_eq!(fleet.last_heard("w1"), None, "it is alive");
        fleet.purge(heard.plus(LIVENESS));
        assert!(fleet.get("w1").is_none());
        assert_eq!(fleet.last_heard("w1"), Some(heard));
        // It comes back, with its job.
        let back = heard.plus(LIVENESS * 2);
        fleet.observe(heartbeat, back);
        assert_eq!(fleet.get("w1").map(Worker::load), Some(1));
        fleet.release(Some(&id));
        fleet.purge(back.plus(LIVENESS));
        assert_eq!(fleet.last_heard("w1"), None, "nothing is left of it");
    }
}
