//! Jobs that wait for room, in the order in which they will get it. Pure. See `docs/spec/scheduler.md` §4.
//!
//! Jobs of equal [`Demand`] wait together: when one cannot be placed, none of its group can, so a wake-up costs as much as
//! there are demands, not jobs. Within a group: urgency first, tenants in turn, oldest first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::placement::Demand;
use crate::jobs::PendingReason;
use crate::protocol::agent::JobPriority;
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// After such a wait a batch job counts as interactive, after two any job as critical, so that nothing starves.
pub const AGEING: Duration = Duration::from_secs(5 * 60);

/// How exactly that is kept.
const AGEING_STEP: Duration = Duration::from_secs(10);

/// How urgent a job is; lower is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(usize);

impl Class {
    const COUNT: usize = 3;

    /// The class of a priority; an unset one counts as interactive.
    pub fn of(priority: i32) -> Self {
        match JobPriority::try_from(priority) {
            Ok(JobPriority::Critical) => Self(0),
            Ok(JobPriority::Batch) => Self(2),
            Ok(JobPriority::Interactive | JobPriority::Unspecified) | Err(_) => Self(1),
        }
    }
}

/// One waiting job.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub id: JobId,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its encoded request, if it is small enough to keep; otherwise it is read again from the store.
    pub request: Option<Bytes>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// How urgent.
    pub class: Class,
    /// Since when it waits.
    pub since: Timestamp,
    /// What it was last held for by judgement, if it was: on record already, so that the same again need not be written.
    pub held: Option<PendingReason>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Whose turn it is, first to last.
    turns: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, BTreeMap<(Timestamp, u64), Entry>>,
}

impl Lane {
    fn push(&mut self, key: (Timestamp, u64), entry: Entry) {
        let tenant = Arc::clone(&entry.tenant);
        let queue = self.queues.entry(Arc::clone(&tenant)).or_default();
        if queue.is_empty() {
            self.turns.push_back(tenant);
        }
        queue.insert(key, entry);
    }

    /// The oldest job of the tenant whose turn it is.
    fn head(&self) -> Option<Timestamp> {
        let tenant = self.turns.front()?;
        self.queues.get(tenant)?.keys().next().map(|(since, _)| *since)
    }

    fn pop(&mut self) -> Option<Entry> {
        let tenant = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&tenant)?;
        let (_, entry) = queue.pop_first()?;
        if queue.is_empty() {
            self.queues.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(entry)
    }

    fn retain(&mut self, keep: &mut impl FnMut(&Entry) -> bool) {
        self.queues.retain(|_, queue| {
            queue.retain(|_, entry| keep(entry));
            !queue.is_empty()
        });
        let queues = &self.queues;
        self.turns.retain(|tenant| queues.contains_key(tenant));
    }

    /// Takes out what has waited since before `limit`.
    fn split_older(&mut self, limit: Timestamp) -> Vec<((Timestamp, u64), Entry)> {
        let mut older = Vec::new();
        self.queues.retain(|_, queue| {
            while let Some(first) = queue.first_entry() {
                if first.key().0 > limit {
                    break;
                }
                older.push(first.remove_entry());
            }
            !queue.is_empty()
        });
        let queues = &self.queues;
        self.turns.retain(|tenant| queues.contains_key(tenant));
        older
    }
}

#[derive(Debug, Default)]
struct Group {
    lanes: [Lane; Class::COUNT],
}

impl Group {
    fn head(&self) -> Option<(usize, Timestamp)> {
        self.lanes
            .iter()
            .enumerate()
            .find_map(|(class, lane)| lane.head().map(|since| (class, since)))
    }
}

/// A group among all groups: the urgency and the age of its first job.
type Rank = (usize, Timestamp, Arc<Demand>);

/// How many demands may be refused in one call of [`Parked::take`], so that very many of them hold up nobody for long.
const MAX_REFUSALS: usize = 4_096;

/// All waiting jobs.
#[derive(Debug, Default)]
pub struct Parked {
    groups: BTreeMap<Arc<Demand>, Group>,
    /// All groups, in the order in which they are offered room.
    order: BTreeSet<Rank>,
    /// Where the last call ended that met too many refusals.
    resume: Option<Rank>,
    ids: HashSet<JobId>,
    sequence: u64,
    aged: Option<Timestamp>,
}

/// Moves a group to where its first job belongs.
fn rerank(
    order: &mut BTreeSet<Rank>,
    demand: &Arc<Demand>,
    before: Option<(usize, Timestamp)>,
    after: Option<(usize, Timestamp)>,
) {
    if before == after {
        return;
    }
    if let Some((class, since)) = before {
        order.remove(&(class, since, Arc::clone(demand)));
    }
    if let Some((class, since)) = after {
        order.insert((class, since, Arc::clone(demand)));
    }
}

impl Parked {
    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether this job waits here.
    pub fn contains(&self, id: &JobId) -> bool {
        self.ids.contains(id)
    }

    /// Whether jobs of this demand wait already, so that a new one has to queue behind them.
    pub fn has_waiting(&self, demand: &Demand) -> bool {
        self.groups.contains_key(demand)
    }

    /// Adds a job; nothing happens if it waits already.
    pub fn push(&mut self, demand: Demand, entry: Entry) {
        if !self.ids.insert(entry.id.clone()) {
            return;
        }
        self.sequence += 1;
        let key = (entry.since, self.sequence);
        let class = entry.class.0;
        let demand = match self.groups.get_key_value(&demand) {
            Some((demand, _)) => Arc::clone(demand),
            None => Arc::new(demand),
        };
        let group = self.groups.entry(Arc::clone(&demand)).or_default();
        let before = group.head();
        group.lanes[class].push(key, entry);
        rerank(&mut self.order, &demand, before, group.head());
    }

    /// Lets jobs that have waited long count as more urgent. Looks at every group, so it does that only now and then.
    pub fn age(&mut self, now: Timestamp) {
        if self
            .aged
            .is_some_and(|aged| aged <= now && now.since(aged) < AGEING_STEP)
        {
            return;
        }
        self.aged = Some(now);
        for (demand, group) in &mut self.groups {
            let before = group.head();
            // From batch to interactive after one period, from interactive to critical after two: both are waits in all,
            // whatever class a job began in.
            for (class, periods) in [(2, 1), (1, 2)] {
                for (key, mut entry) in group.lanes[class].split_older(now.minus(AGEING * periods)) {
                    entry.class = Class(class - 1);
                    group.lanes[class - 1].push(key, entry);
                }
            }
            rerank(&mut self.order, demand, before, group.head());
        }
    }

    /// Takes up to `max` jobs that `place` accepts, most urgent first. `place` is asked once per job to take, and once more
    /// per demand that has no room; a demand it refuses is passed over. After very many refusals it stops, and the next
    /// call looks there as well.
    pub fn take<P>(&mut self, max: usize, mut place: impl FnMut(&Demand) -> Option<P>) -> Vec<(Entry, P)> {
        let mut taken = Vec::new();
        let mut resume = self.resume.take();
        let mut refused: Option<Rank> = None;
        let mut refusals = 0;
        while taken.len() < max {
            if refusals == MAX_REFUSALS {
                self.resume = refused;
                break;
            }
            // The most urgent are always looked at, then those that were not reached the last time.
            if refusals == MAX_REFUSALS / 2
                && let Some(further) = resume.take()
                && refused.as_ref() < Some(&further)
            {
                refused = Some(further);
            }
            let rest = (
                refused.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
                Bound::Unbounded,
            );
            let Some(rank) = self.order.range::<Rank, _>(rest).next().cloned() else {
                break;
            };
            let demand = &rank.2;
            let Some(placed) = place(demand) else {
                refusals += 1;
                refused = Some(rank);
                continue;
            };
            let Some(group) = self.groups.get_mut(demand) else {
                break;
            };
            let before = group.head();
            let Some(entry) = group.lanes.iter_mut().find_map(Lane::pop) else {
                break;
            };
            let after = group.head();
            rerank(&mut self.order, demand, before, after);
            if after.is_none() {
                self.groups.remove(demand);
            }
            self.ids.remove(&entry.id);
            taken.push((entry, placed));
        }
        taken
    }

    /// Forgets the jobs that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let ids = &mut self.ids;
        let mut keep = |entry: &Entry| {
            let kept = keep(entry);
            if !kept {
                ids.remove(&entry.id);
            }
            kept
        };
        let order = &mut self.order;
        self.groups.retain(|demand, group| {
            let before = group.head();
            for lane in &mut group.lanes {
                lane.retain(&mut keep);
            }
            let after = group.head();
            rerank(order, demand, before, after);
            after.is_some()
        });
    }

    /// Takes everything, for a change of routing that may make the impossible possible or the reverse.
    pub fn drain(&mut self) -> Vec<Entry> {
        self.ids.clear();
        self.order.clear();
        std::mem::take(&mut self.groups)
            .into_values()
            .flat_map(|group| group.lanes.into_iter().flat_map(|lane| lane.queues.into_values()))
            .flat_map(BTreeMap::into_values)
            .collect()
    }

    /// The demands that jobs wait with.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.groups.keys().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests;
