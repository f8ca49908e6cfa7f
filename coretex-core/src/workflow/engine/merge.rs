//! Several transitions of one run become one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::cache::{Cached, waits_for_people};
use crate::audit::AuditRecord;
use crate::protocol::JobId;
use crate::time::Timestamp;
use crate::workflow::event::{Effect, EffectId, TimelineEvent, Transition};
use crate::workflow::run::{StepKey, StepRecord};
use crate::workflow::store::RunCommit;

/// What events changed together.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub changed: bool,
    pub more: bool,
    pub steps: BTreeMap<StepKey, StepRecord>,
    pub items: BTreeSet<StepKey>,
    pub context: bool,
    pub timeline: Vec<TimelineEvent>,
    pub effects: BTreeMap<EffectId, Effect>,
    pub done: Vec<EffectId>,
    pub payloads: BTreeMap<JobId, Bytes>,
    pub audit: Vec<AuditRecord>,
}

impl Merged {
    pub(super) fn add(&mut self, transition: Transition) {
        self.changed |= transition.changed;
        self.more |= transition.more;
        self.steps.extend(transition.steps);
        self.items.extend(transition.items);
        self.context |= transition.context;
        self.timeline.extend(transition.timeline);
        self.effects.extend(transition.effects);
        for id in transition.done {
            // What was never stored need not be removed.
            if self.effects.remove(&id).is_none() {
                self.done.push(id);
            }
        }
        self.payloads.extend(transition.payloads);
        self.audit.extend(transition.audit);
    }

    /// The commit that stores it. The run has been changed already.
    pub(super) fn commit(&self, cached: &mut Cached, due: Option<Timestamp>) -> RunCommit {
        let terminal = cached.run.head.status.is_terminal();
        let mut inbox_add = Vec::new();
        let mut inbox_remove = Vec::new();
        if let Some(plan) = &cached.plan {
            for (key, record) in &self.steps {
                let waits = waits_for_people(plan, key, record) && !terminal;
                if waits && cached.inbox.insert(key.clone()) {
                    inbox_add.push(key.clone());
                } else if !waits && cached.inbox.remove(key) {
                    inbox_remove.push(key.clone());
                }
            }
        }
        if terminal {
            inbox_remove.extend(std::mem::take(&mut cached.inbox));
        }
        let run = &cached.run;
        let new = run.revision == 0;
        let records = if new { &run.steps } else { &self.steps };
        RunCommit {
            run: run.id.clone(),
            expected: run.revision,
            token: rand::random(),
            head: run.head.clone(),
            context: (self.context || (new && !run.context.is_empty())).then(|| run.context.clone()),
            steps: records
                .iter()
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
            items: run
                .items
                .iter()
                .filter(|(key, _)| new || self.items.contains(*key))
                .map(|(key, items)| (key.clone(), Arc::clone(items)))
                .collect(),
            effects: self.effects.iter().map(|(id, effect)| (*id, effect.clone())).collect(),
            done: self.done.clone(),
            payloads: self
                .payloads
                .iter()
                .map(|(job, payload)| (job.clone(), payload.clone()))
                .collect(),
            timeline: self.timeline.clone(),
            due,
            inbox_add,
            inbox_remove,
            audit: self
                .audit
                .iter()
                .enumerate()
                .map(|(i, record)| AuditRecord {
                    // Each transition numbers its own from the start.
                    id: format!("wf:{}:{}:{i}", run.id, run.revision),
                    ..record.clone()
                })
                .collect(),
        }
    }
}
