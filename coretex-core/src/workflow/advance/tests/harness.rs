//! One run, its commits, and hands to push it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::jobs::JobState;
use crate::protocol::JobId;
use crate::time::Timestamp;
use crate::workflow::event::{Effect, Event, Fetched, JobEnded, Refusal, TimelineEvent, Transition};
use crate::workflow::model::Workflow;
use crate::workflow::plan::Plan;
use crate::workflow::run::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord, StepStatus, StepVote};
use crate::workflow::schema::SchemaSet;

/// A run as a store would have it: only what transitions say is written.
pub(crate) fn store(stored: &mut Run, run: &Run, made: &Transition) {
    stored.revision += 1;
    stored.head = run.head.clone();
    if made.context {
        stored.context = run.context.clone();
    }
    for (key, record) in &made.steps {
        // As it comes back from disk.
        let text = serde_json::to_string(record).unwrap();
        assert_eq!(*record, serde_json::from_str::<StepRecord>(&text).unwrap());
        stored.steps.insert(key.clone(), record.clone());
    }
    for key in &made.items {
        stored.items.insert(key.clone(), Arc::clone(&run.items[key]));
    }
    for (id, effect) in &made.effects {
        stored.outbox.insert(*id, effect.clone());
    }
    for id in &made.done {
        stored.outbox.remove(id);
    }
    stored.index_timers();
}

/// What the counters in the head say has to be so.
pub(crate) fn check_counters(run: &Run) {
    let count = |test: fn(&StepRecord) -> bool| {
        u32::try_from(run.steps.values().filter(|record| test(record)).count()).unwrap()
    };
    assert_eq!(run.head.open, count(|record| !record.status.is_terminal()), "open");
    assert_eq!(
        run.head.waiting,
        count(|record| record.status == StepStatus::Waiting),
        "waiting"
    );
    assert_eq!(run.head.in_flight, count(StepRecord::in_flight), "in flight");
}

pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) run: Run,
    pub(crate) stored: Run,
    pub(crate) now: Timestamp,
    pub(crate) timeline: Vec<TimelineEvent>,
    /// Payloads by job.
    pub(crate) payloads: BTreeMap<String, Value>,
    /// Jobs that were submitted and are not known to have ended, in order.
    pub(crate) submitted: Vec<String>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) audit: Vec<crate::audit::AuditRecord>,
}

impl Bench {
    /// A run that has not begun.
    pub(crate) fn idle(workflow: Value, input: Value) -> Self {
        let mut workflow: Workflow = serde_json::from_value(workflow).unwrap();
        if workflow.id.is_empty() {
            workflow.id = "w".to_owned();
        }
        for (id, step) in &mut workflow.steps {
            step.id.clone_from(id);
        }
        let now = Timestamp::from_secs(1_700_000_000);
        let head = RunHead {
            workflow_id: workflow.id.clone(),
            definition: "hash".to_owned(),
            org_id: "acme".to_owned(),
            created_at: now,
            ..RunHead::default()
        };
        let plan = Plan::compile(Arc::new(workflow), "hash".to_owned(), &SchemaSet::new());
        let run = Run::new(RunId::new("r1"), head, input);
        Self {
            plan,
            stored: run.clone(),
            run,
            now,
            timeline: Vec::new(),
            payloads: BTreeMap::new(),
            submitted: Vec::new(),
            effects: Vec::new(),
            audit: Vec::new(),
        }
    }

    fn check(&self, before: &Run, made: &Transition) {
        let mut run = self.run.clone();
        if made.changed {
            run.index_timers();
            assert_eq!(self.stored, run, "what is stored is what was decided");
        } else {
            (run.timers, run.blocked) = (before.timers.clone(), before.blocked.clone());
            assert_eq!(*before, run, "nothing changed, and so nothing is written");
        }
        check_counters(&self.run);
    }

    /// A run that was woken.
    pub(crate) fn start(workflow: Value, input: Value) -> Self {
        let mut bench = Self::idle(workflow, input);
        bench.wake();
        bench
    }

    /// A run of these steps.
    pub(crate) fn of(steps: Value) -> Self {
        Self::start(json!({"steps": steps}), json!({}))
    }

    pub(crate) fn send(&mut self, event: &Event) -> Result<Transition, Refusal> {
        let before = self.run.clone();
        let made = match crate::workflow::advance(&self.plan, &mut self.run, event, self.now) {
            Ok(made) => made,
            Err(refusal) => {
                assert_eq!(before, self.run, "a refusal changes nothing");
                return Err(refusal);
            }
        };
        if made.changed {
            self.run.revision += 1;
            store(&mut self.stored, &self.run, &made);
        }
        // All of it every time would take long for large runs.
        if self.run.steps.len() < 100 || self.run.revision.is_multiple_of(100) {
            self.check(&before, &made);
        }
        self.timeline.extend(made.timeline.iter().cloned());
        self.audit.extend(made.audit.iter().cloned());
        for (job, payload) in &made.payloads {
            let payload = serde_json::from_slice(payload).unwrap();
            self.payloads.insert(job.to_string(), payload);
        }
        for effect in made.effects.values() {
            if let Effect::Submit { job, .. } = effect {
                self.submitted.push(job.to_string());
            }
            self.effects.push(effect.clone());
        }
        if made.more {
            self.wake();
        }
        Ok(made)
    }

    pub(crate) fn wake(&mut self) -> Transition {
        self.send(&Event::Wake).unwrap()
    }

    /// Lets time pass, and wakes the run.
    pub(crate) fn after(&mut self, millis: u64) -> Transition {
        self.now = self.now.plus(Duration::from_millis(millis));
        self.wake()
    }

    pub(crate) fn ended(&mut self, job: &str, state: JobState, code: &str, output: Fetched) -> Transition {
        let ended = JobEnded {
            state,
            result_ptr: match output {
                Fetched::Nothing => String::new(),
                _ => format!("redis://res:{job}"),
            },
            output,
            error_code: code.to_owned(),
            error_message: if state == JobState::Succeeded {
                String::new()
            } else {
                "boom".to_owned()
            },
        };
        let job = JobId::try_new(job).unwrap();
        self.send(&Event::JobEnded { job, ended }).unwrap()
    }

    /// The current attempt of a step ends well.
    pub(crate) fn succeed(&mut self, step: &str, output: Value) -> Transition {
        let job = self.job(step);
        self.ended(&job, JobState::Succeeded, "", Fetched::Value(Arc::new(output)))
    }

    /// The current attempt of a step fails.
    pub(crate) fn fail(&mut self, step: &str) -> Transition {
        let job = self.job(step);
        self.ended(&job, JobState::Failed, "", Fetched::Nothing)
    }

    pub(crate) fn job(&self, step: &str) -> String {
        self.run.steps[step].job_id.as_ref().unwrap().to_string()
    }

    /// The jobs that were submitted since this was asked last.
    pub(crate) fn jobs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.submitted)
            .into_iter()
            .map(|job| job.trim_start_matches("r1:").to_owned())
            .collect()
    }

    pub(crate) fn status(&self) -> RunStatus {
        self.run.head.status
    }

    pub(crate) fn step(&self, key: &str) -> &StepRecord {
        &self.run.steps[key]
    }

    pub(crate) fn is(&self, key: &str) -> Option<StepStatus> {
        self.run.steps.get(key).map(|record| record.status)
    }

    pub(crate) fn code(&self, key: &str) -> String {
        self.step(key).error.clone().unwrap_or_default().code
    }

    pub(crate) fn output(&self, key: &str) -> Value {
        self.step(key).output.as_deref().cloned().unwrap_or_default()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.timeline
            .iter()
            .map(|entry| match (entry.event_type.as_str(), entry.step_id.as_str()) {
                ("run_status", _) => format!("run_status {}", entry.status),
                (told, "") => told.to_owned(),
                (told, step) => format!("{told} {step}"),
            })
            .collect()
    }

    pub(crate) fn vote(&mut self, step: &str, by: &str, role: &str, approved: bool) -> Result<Transition, Refusal> {
        let vote = StepVote {
            by: by.to_owned(),
            role: role.to_owned(),
            approved,
            at: self.now,
            ..StepVote::default()
        };
        let step = StepKey::new(step);
        self.send(&Event::Vote { step, vote })
    }

    pub(crate) fn cancel(&mut self) -> Result<Transition, Refusal> {
        self.send(&Event::Cancel {
            by: "ann".to_owned(),
            reason: String::new(),
        })
    }

    pub(crate) fn cancelled_jobs(&self) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::CancelJob { job, .. } => Some(job.as_str().trim_start_matches("r1:").to_owned()),
                _ => None,
            })
            .collect()
    }
}
