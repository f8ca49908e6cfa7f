//! Runs in memory. Only a copy: dropping one costs a read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::workflow::event::{Effect, EffectId};
use crate::workflow::model::StepKind;
use crate::workflow::plan::Plan;
use crate::workflow::run::{Run, RunId, RunStatus, StepKey, StepRecord};

/// A run as it is stored, and what this process knows besides.
#[derive(Debug)]
pub(super) struct Cached {
    pub run: Run,
    /// What it is executed by. `None`: nobody knows its definition any more.
    pub plan: Option<Arc<Plan>>,
    /// Effects that were carried out, which the store has not been told yet.
    pub done: BTreeSet<EffectId>,
    /// Steps that wait for people, as the store has it.
    pub inbox: BTreeSet<StepKey>,
    /// How often a job was to be cancelled that nobody knows.
    pub cancel_tries: u32,
    bytes: usize,
}

impl Cached {
    pub(super) fn new(run: Run, plan: Option<Arc<Plan>>) -> Self {
        let bytes = 512
            + weigh(&run.input)
            + run.context.values().map(weigh).sum::<usize>()
            + run.steps.values().map(weigh_record).sum::<usize>()
            + run
                .items
                .values()
                .flat_map(|items| items.iter())
                .map(weigh)
                .sum::<usize>()
            + run.outbox.values().map(weigh_effect).sum::<usize>();
        let inbox = match &plan {
            Some(plan) if run.revision > 0 => run
                .steps
                .iter()
                .filter(|(key, record)| waits_for_people(plan, key, record))
                .map(|(key, _)| key.clone())
                .collect(),
            _ => BTreeSet::new(),
        };
        Self {
            run,
            plan,
            done: BTreeSet::new(),
            inbox,
            cancel_tries: 0,
            bytes,
        }
    }

    /// Records were written; what they replaced is not taken off, the next read puts that right.
    pub(super) fn grew(&mut self, records: &BTreeMap<StepKey, StepRecord>) {
        self.bytes = self
            .bytes
            .saturating_add(records.values().map(weigh_record).sum::<usize>());
    }

    fn records(&self) -> usize {
        1 + self.run.steps.len()
    }
}

/// Whether a step is in the inbox.
pub(super) fn waits_for_people(plan: &Plan, key: &StepKey, record: &StepRecord) -> bool {
    record.status == RunStatus::Waiting
        && record.group.is_none()
        && plan
            .step(key)
            .is_some_and(|step| matches!(step.kind, StepKind::Approval | StepKind::Input))
}

/// About how many bytes a value takes.
fn weigh(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 32,
        Value::String(text) => 32 + text.len(),
        Value::Array(items) => 32 + items.iter().map(weigh).sum::<usize>(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| 64 + name.len() + weigh(value))
            .sum::<usize>()
            .saturating_add(32),
    }
}

fn weigh_record(record: &StepRecord) -> usize {
    let value = |value: &Option<Arc<Value>>| value.as_ref().map_or(0, |value| weigh(value));
    640 + value(&record.input) + value(&record.output) + record.error.as_ref().map_or(0, |error| error.message.len())
}

fn weigh_effect(effect: &Effect) -> usize {
    match effect {
        Effect::StartChild { input, .. } => 128 + weigh(input),
        _ => 128,
    }
}

/// The runs that were used last.
#[derive(Debug)]
pub(super) struct Cache {
    max_records: usize,
    max_bytes: usize,
    runs: HashMap<RunId, (u64, Entry)>,
    used: BTreeMap<u64, RunId>,
    clock: u64,
    records: usize,
    bytes: usize,
}

/// A run, and what it counted for when it was put here.
#[derive(Debug)]
struct Entry {
    cached: Cached,
    records: usize,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        Self {
            max_records,
            max_bytes,
            runs: HashMap::new(),
            used: BTreeMap::new(),
            clock: 0,
            records: 0,
            bytes: 0,
        }
    }

    /// Takes a run out; whoever changes it puts it back when that is stored.
    pub(super) fn take(&mut self, id: &RunId) -> Option<Cached> {
        let (at, entry) = self.runs.remove(id)?;
        self.used.remove(&at);
        self.records -= entry.records;
        self.bytes -= entry.bytes;
        Some(entry.cached)
    }

    /// Keeps a run, and lets go of those that were used longest ago if there is no room. A run that is over and has nothing
    /// left to do is hardly ever asked for again: it is not kept.
    pub(super) fn put(&mut self, cached: Cached) {
        let id = cached.run.id.clone();
        self.take(&id);
        if cached.run.head.status.is_terminal() && cached.run.outbox.is_empty() {
            return;
        }
        self.clock += 1;
        let entry = Entry {
            records: cached.records(),
            bytes: cached.bytes,
            cached,
        };
        self.records += entry.records;
        self.bytes += entry.bytes;
        self.used.insert(self.clock, id.clone());
        self.runs.insert(id, (self.clock, entry));
        while self.records > self.max_records || self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.used.first_key_value() else {
                return;
            };
            let oldest = oldest.clone();
            self.take(&oldest);
        }
    }

    /// Effects of a run were carried out. The run, if it is here.
    pub(super) fn performed(&mut self, id: &RunId, effects: &[EffectId]) -> Option<&Cached> {
        let (_, entry) = self.runs.get_mut(id)?;
        entry.cached.done.extend(effects);
        Some(&entry.cached)
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::run::RunHead;

    fn cached(id: &str, steps: usize) -> Cached {
        let mut run = Run::new(RunId::new(id), RunHead::default(), Value::Null);
        for n in 0..steps {
            run.steps.insert(StepKey::new(&format!("s{n}")), StepRecord::default());
        }
        Cached::new(run, None)
    }

    #[test]
    fn the_runs_used_longest_ago_go_first() {
        let mut cache = Cache::new(10, usize::MAX);
        cache.put(cached("a", 3));
        cache.put(cached("b", 3));
        let a = cache.take(&RunId::new("a")).expect("kept");
        cache.put(a);
        cache.put(cached("c", 3));
        assert!(cache.take(&RunId::new("b")).is_none());
        assert!(cache.take(&RunId::new("a")).is_some());
        assert!(cache.take(&RunId::new("c")).is_some());
        assert_eq!((cache.records, cache.bytes), (0, 0));
    }

    #[test]
    fn a_run_that_is_over_is_kept_only_while_something_is_left_to_do() {
        let mut cache = Cache::new(10, usize::MAX);
        let mut over = cached("a", 3);
        over.run.head.status = RunStatus::Succeeded;
        over.run.outbox.insert(1, Effect::TellParent);
        cache.put(over);
        let mut told = cache.take(&RunId::new("a")).expect("kept");
        told.run.outbox.clear();
        cache.put(told);
        assert!(cache.take(&RunId::new("a")).is_none());
        assert_eq!((cache.records, cache.bytes), (0, 0));
    }

    #[test]
    fn a_run_larger_than_all_is_not_kept() {
        let mut cache = Cache::new(10, usize::MAX);
        cache.put(cached("a", 3));
        cache.put(cached("large", 100));
        assert!(cache.runs.is_empty() && cache.used.is_empty());
        let mut cache = Cache::new(1_000, 4_000);
        cache.put(cached("a", 3));
        cache.put(cached("b", 3));
        assert_eq!(cache.runs.len(), 1);
    }
}
