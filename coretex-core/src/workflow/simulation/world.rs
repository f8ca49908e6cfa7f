//! A store, a bus, workers and people around the engine, all of them unreliable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::random::{Random, roll};
use crate::jobs::JobState;
use crate::protocol::JobId;
use crate::protocol::agent::JobRequest;
use crate::time::Timestamp;
use crate::workflow::advance::SENDER;
use crate::workflow::advance::tests::harness::{check_counters, store};
use crate::workflow::event::{Effect, Event, Fetched, JobEnded, Refusal, Transition};
use crate::workflow::model::{StepKind, Workflow};
use crate::workflow::plan::Plan;
use crate::workflow::run::{Failure, ParentStep, Run, RunHead, RunId, RunStatus, StepKey, StepStatus, StepVote};
use crate::workflow::schema::SchemaSet;
use crate::workflow::{advance, job_request};

/// A job as the scheduler and the job store know it.
struct Job {
    request: JobRequest,
    ended: Option<JobEnded>,
    ends_at: Timestamp,
    told: bool,
}

/// What happens at a time.
enum Item {
    Event(RunId, Event),
    /// A replica carries out what it committed.
    Effects(Box<Run>, Vec<(u64, Effect)>),
}

pub(super) struct World {
    seed: u64,
    random: Random,
    /// People and the machinery do what cannot be foreseen.
    pub(super) chaos: bool,
    /// How often workers fail, in a hundred.
    failures: u64,
    now: Timestamp,
    plans: BTreeMap<String, Plan>,
    runs: BTreeMap<RunId, Run>,
    /// When a run was committed last, for what is left in its outbox.
    committed: BTreeMap<RunId, Timestamp>,
    /// Until when somebody who came to a run keeps others from it.
    claimed: BTreeMap<RunId, Timestamp>,
    replicas: Vec<BTreeMap<RunId, Run>>,
    queue: BTreeMap<(Timestamp, u64), Item>,
    number: u64,
    jobs: BTreeMap<String, Job>,
    payloads: BTreeMap<String, Vec<u8>>,
    alerts: BTreeMap<String, Effect>,
}

impl World {
    pub(super) fn new(seed: u64, definitions: &Value, order: u64) -> Self {
        let plans = definitions
            .as_object()
            .unwrap()
            .iter()
            .map(|(id, definition)| {
                let mut workflow: Workflow = serde_json::from_value(definition.clone()).unwrap();
                workflow.id.clone_from(id);
                let plan = Plan::compile(Arc::new(workflow), format!("hash-{id}"), &SchemaSet::new());
                (id.clone(), plan)
            })
            .collect();
        Self {
            seed,
            random: Random::new(order),
            chaos: seed.is_multiple_of(4),
            failures: failures(seed),
            now: Timestamp::from_secs(1_700_000_000),
            plans,
            runs: BTreeMap::new(),
            committed: BTreeMap::new(),
            claimed: BTreeMap::new(),
            replicas: vec![BTreeMap::new(); 3],
            queue: BTreeMap::new(),
            number: 0,
            jobs: BTreeMap::new(),
            payloads: BTreeMap::new(),
            alerts: BTreeMap::new(),
        }
    }

    /// Runs `main` until nothing is left to do, and gives its last state.
    pub(super) fn run_to_the_end(&mut self) -> Run {
        let id = RunId::new("main");
        self.create(&id, "main", json!({"x": 1}), None);
        if self.chaos {
            self.mischief(&id);
        }
        for _ in 0..20_000 {
            let due = self
                .runs
                .iter()
                .filter_map(|(id, run)| Some((self.due(run)?, id.clone())))
                .min();
            let next = self.queue.keys().next().copied();
            let (at, run) = match (due, next) {
                (Some((at, run)), Some((time, _))) if at <= time => (at, Some(run)),
                (Some((at, run)), None) => (at, Some(run)),
                (_, Some((time, _))) => (time, None),
                (None, None) => {
                    self.check_end();
                    return self.runs[&id].clone();
                }
            };
            self.now = self.now.max(at);
            match run {
                Some(run) => self.come_to(&run),
                None => match self.queue.pop_first() {
                    Some((_, Item::Event(run, event))) => self.deliver(&run, event),
                    Some((_, Item::Effects(run, effects))) => self.perform(&run, &effects),
                    None => {}
                },
            }
        }
        let runs = self.runs.values();
        let open: Vec<_> = runs
            .map(|run| (&run.id, &run.head, run.due(), &run.outbox, &run.timers))
            .collect();
        panic!("it does not end: {open:?}");
    }

    fn later(&mut self, millis: u64, item: Item) {
        self.number += 1;
        let at = self.now.plus(Duration::from_millis(self.random.below(millis)));
        self.queue.insert((at, self.number), item);
    }

    /// A message: late, out of order, sometimes twice.
    fn send(&mut self, millis: u64, run: &RunId, event: &Event) {
        for _ in 0..if self.random.chance(15) { 2 } else { 1 } {
            self.later(millis, Item::Event(run.clone(), event.clone()));
        }
    }

    fn create(&mut self, id: &RunId, workflow: &str, input: Value, parent: Option<ParentStep>) {
        if self.runs.contains_key(id) {
            return;
        }
        let head = RunHead {
            workflow_id: workflow.to_owned(),
            definition: self.plans[workflow].hash.clone(),
            org_id: "acme".to_owned(),
            created_at: self.now,
            parent,
            ..RunHead::default()
        };
        self.runs.insert(id.clone(), Run::new(id.clone(), head, input));
        self.deliver(id, Event::Wake);
    }

    /// When somebody comes to look at a run.
    fn due(&self, run: &Run) -> Option<Timestamp> {
        let outbox = (!run.outbox.is_empty())
            .then(|| self.committed.get(&run.id).map(|at| at.plus(Duration::from_secs(10))))
            .flatten();
        let claimed = self.claimed.get(&run.id).copied().unwrap_or_default();
        [outbox, run.due()]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(claimed))
    }

    /// A replica comes to a run that is due.
    fn come_to(&mut self, id: &RunId) {
        let run = self.runs[id].clone();
        self.claimed.insert(id.clone(), self.now.plus(Duration::from_secs(10)));
        let again = self
            .committed
            .get(id)
            .is_some_and(|at| at.plus(Duration::from_secs(10)) <= self.now);
        if !run.outbox.is_empty() && again {
            self.committed.insert(id.clone(), self.now);
            let effects: Vec<_> = run.outbox.clone().into_iter().collect();
            self.perform(&run, &effects);
        }
        if run.head.check_at.is_some_and(|at| at <= self.now) {
            self.compare(&run);
        }
        self.deliver(id, Event::Wake);
    }

    /// Jobs in flight are compared with the job store.
    fn compare(&mut self, run: &Run) {
        for (key, record) in run.steps.iter().filter(|(_, record)| record.in_flight()) {
            if let Some(job) = &record.job_id {
                let known = self.jobs.get(job.as_str());
                let pending = run
                    .outbox
                    .values()
                    .any(|effect| matches!(effect, Effect::Submit { job: other, .. } if other == job));
                match known.map(|known| known.ended.clone().filter(|_| known.ends_at <= self.now)) {
                    None if !pending => self.deliver(&run.id, Event::JobLost { job: job.clone() }),
                    Some(Some(ended)) => self.deliver(
                        &run.id,
                        Event::JobEnded {
                            job: job.clone(),
                            ended,
                        },
                    ),
                    _ => {}
                }
            }
            if let Some(child) = &record.child_run
                && let Some(ended) = self.runs.get(child).and_then(|child| child_ended(child, key))
            {
                self.deliver(&run.id, ended);
            }
        }
        self.deliver(&run.id, Event::Checked);
    }

    /// A replica handles an event, as the shell does.
    fn deliver(&mut self, id: &RunId, event: Event) {
        let replica = usize::try_from(self.random.below(3)).unwrap();
        let mut wake = false;
        for _ in 0..100 {
            let event = if wake { Event::Wake } else { event.clone() };
            let workflow = self.runs[id].head.workflow_id.clone();
            let stored = &self.runs[id];
            let mut run = match self.replicas[replica].remove(id) {
                Some(run) => run,
                None => {
                    let mut run = stored.clone();
                    run.index_timers();
                    run
                }
            };
            let plan = &self.plans[&workflow];
            let before = run.clone();
            let made = match advance(plan, &mut run, &event, self.now) {
                Ok(made) => made,
                Err(refusal) => {
                    assert_eq!(before, run);
                    // It may be that only the copy is old.
                    if before.revision != stored.revision {
                        continue;
                    }
                    assert!(!matches!(refusal, Refusal::TooManySignals(_)), "{refusal}");
                    return;
                }
            };
            // The same again comes to the same.
            let mut twin = before.clone();
            assert_eq!(Ok(&made), advance(plan, &mut twin, &event, self.now).as_ref());
            assert_eq!(twin, run);
            if !made.changed {
                if before.revision != stored.revision {
                    continue;
                }
                self.replicas[replica].insert(id.clone(), run);
                return;
            }
            if self.random.chance(2) {
                // It dies before the commit; the bus says it again.
                self.replicas[replica].clear();
                self.later(3_000, Item::Event(id.clone(), event));
                return;
            }
            if stored.revision != before.revision {
                // Somebody else was faster.
                continue;
            }
            self.commit(id, &mut run, &made);
            let effects: Vec<_> = made.effects.clone().into_iter().collect();
            if self.random.chance(3) {
                // It dies after the commit: others find what is to be done.
                self.replicas[replica].clear();
            } else if !effects.is_empty() {
                self.later(50, Item::Effects(Box::new(run.clone()), effects));
            }
            if self.random.chance(70) {
                self.replicas[replica].insert(id.clone(), run);
            }
            wake = made.more;
            if !wake {
                return;
            }
        }
        panic!("no commit comes through");
    }

    fn commit(&mut self, id: &RunId, run: &mut Run, made: &Transition) {
        let stored = self.runs.get_mut(id).unwrap();
        assert!(
            !stored.head.status.is_terminal() || made.steps.values().all(|record| record.late),
            "a run that is over stays so"
        );
        store(stored, run, made);
        run.revision += 1;
        let mut copy = run.clone();
        copy.index_timers();
        assert_eq!(*stored, copy, "what is stored is what was decided");
        check_counters(run);
        self.committed.insert(id.clone(), self.now);
        self.claimed.remove(id);
        for (job, payload) in &made.payloads {
            let old = self.payloads.insert(job.to_string(), payload.to_vec());
            assert!(old.is_none_or(|old| old == payload.to_vec()), "{job} has one input");
        }
        self.check_limits(run, made);
        self.answer_people(run, made);
    }

    /// What holds after every commit.
    fn check_limits(&self, run: &Run, made: &Transition) {
        let plan = &self.plans[&run.head.workflow_id];
        for key in made.steps.keys() {
            let Some(step) = plan.step(key) else {
                panic!("{key} is no step");
            };
            let retries = step.step.retry.as_ref().map_or(0, |retry| retry.max_retries.max(0));
            assert!(
                i64::from(run.steps[key].attempts) <= retries + 1,
                "{key} was tried too often"
            );
            let Some(group) = &run.steps[key].group else {
                continue;
            };
            let running = (0..group.total)
                .filter_map(|n| run.steps.get(&key.child(usize::try_from(n).unwrap())))
                .filter(|child| matches!(child.status, StepStatus::Running | StepStatus::Waiting))
                .count();
            assert_eq!(running, usize::try_from(group.running).unwrap(), "{key}");
            let most = step.step.max_parallel;
            assert!(
                most <= 0 || i64::try_from(running).unwrap() <= most,
                "{key} has too many children"
            );
        }
    }

    /// People see what waits for them; signals come when somebody waits, or before.
    fn answer_people(&mut self, run: &Run, made: &Transition) {
        for (key, record) in &made.steps {
            let spec = self.plans[&run.head.workflow_id].step(key).unwrap();
            match (record.status, spec.kind) {
                (StepStatus::Waiting, StepKind::Approval) if record.votes.is_empty() => {
                    let quorum = spec.step.approval.as_ref().map_or(1, |rule| rule.quorum.max(1));
                    let approved = approves(self.seed, self.failures, &run.head.workflow_id, key);
                    for n in 0..quorum {
                        let vote = StepVote {
                            by: format!("p{n}"),
                            approved,
                            at: self.now,
                            ..StepVote::default()
                        };
                        self.send(
                            10_000,
                            &run.id,
                            &Event::Vote {
                                step: key.clone(),
                                vote,
                            },
                        );
                    }
                }
                (StepStatus::Waiting, StepKind::Input) => {
                    for value in [json!("no form"), json!({"form": 1})] {
                        let value = Arc::new(value);
                        let form = Event::Form {
                            step: key.clone(),
                            value,
                            by: "p".to_owned(),
                            role: String::new(),
                        };
                        self.send(10_000, &run.id, &form);
                    }
                }
                (StepStatus::Running, StepKind::Signal) if record.group.is_none() => {
                    let signal = Event::Signal {
                        name: spec.signal.clone(),
                        payload: Arc::new(json!({"signal": 1})),
                        id: key.to_string(),
                        by: String::new(),
                    };
                    self.send(10_000, &run.id, &signal);
                }
                _ => {}
            }
        }
    }

    /// Carries effects out, from a copy of the run that may be old.
    fn perform(&mut self, run: &Run, effects: &[(u64, Effect)]) {
        let mut done = Vec::new();
        for (id, effect) in effects {
            if self.random.chance(3) {
                // The bus does not answer: it stays in the outbox.
                continue;
            }
            done.push(*id);
            match effect {
                Effect::Submit { step, job } => self.submit(run, step, job),
                Effect::CancelJob { job, .. } => {
                    if let Some(known) = self.jobs.get_mut(job.as_str())
                        && known.ends_at > self.now
                        && roll(self.seed, job.as_str()).is_multiple_of(2)
                    {
                        known.ended = Some(ended(JobState::Cancelled, job, Fetched::Nothing));
                    }
                }
                Effect::StartChild {
                    step,
                    run: child,
                    workflow,
                    input,
                } => {
                    let current = self.runs[&run.id].steps.get(step);
                    if !current.is_some_and(|record| record.in_flight() && record.child_run.as_ref() == Some(child)) {
                        continue;
                    }
                    let depth = run.head.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
                    let parent = ParentStep {
                        run: run.id.clone(),
                        step: step.clone(),
                        depth,
                    };
                    if self.plans.contains_key(workflow) {
                        self.create(child, workflow, Value::clone(input), Some(parent));
                    } else {
                        let error = Failure {
                            code: "unknown_workflow".to_owned(),
                            ..Failure::default()
                        };
                        self.send(
                            100,
                            &run.id,
                            &Event::ChildRefused {
                                step: step.clone(),
                                run: child.clone(),
                                error,
                            },
                        );
                    }
                }
                Effect::CancelChild { run: child, reason } => {
                    if self.runs.contains_key(child) {
                        let cancel = Event::Cancel {
                            by: SENDER.to_owned(),
                            reason: reason.clone(),
                        };
                        self.send(100, child, &cancel);
                    }
                }
                Effect::TellParent => {
                    let parent = run.head.parent.clone().unwrap();
                    let ended = child_ended(run, &parent.step).expect("it has ended");
                    self.send(1_000, &parent.run, &ended);
                }
                Effect::Alert { step, .. } => {
                    let old = self.alerts.insert(format!("{}:{step}", run.id), effect.clone());
                    assert!(old.is_none_or(|old| old == *effect), "{step} says one thing");
                }
            }
        }
        if !done.is_empty() && !self.random.chance(5) {
            self.later(100, Item::Event(run.id.clone(), Event::Done(done)));
        }
    }

    /// The scheduler takes a job, once; workers end it at some time, in one way.
    fn submit(&mut self, run: &Run, step: &StepKey, job: &JobId) {
        let plan = &self.plans[&run.head.workflow_id];
        let Some(request) = job_request(plan, run, step).filter(|request| request.job_id == job.as_str()) else {
            return;
        };
        let payload = self
            .payloads
            .get(job.as_str())
            .expect("the input is there before the job");
        assert!(payload.starts_with(b"{"));
        if let Some(known) = self.jobs.get(job.as_str()) {
            assert_eq!(known.request, request, "{job} is one job");
            return;
        }
        if self.random.chance(3) {
            // Lost on its way.
            return;
        }
        let attempt = run.steps[step].attempts;
        let state = outcome(self.seed, self.failures, &run.head.workflow_id, step, attempt);
        let output = match state {
            JobState::Succeeded => Fetched::Value(Arc::new(job_output(step))),
            _ => Fetched::Nothing,
        };
        let ended = ended(state, job, output);
        let ends_at = self.now.plus(Duration::from_millis(self.random.below(8_000)));
        let lost = self.random.chance(10);
        let known = Job {
            request,
            ended: Some(ended.clone()),
            ends_at,
            told: lost,
        };
        self.jobs.insert(job.to_string(), known);
        if !lost {
            self.now_or_later(
                ends_at,
                &run.id,
                &Event::JobEnded {
                    job: job.clone(),
                    ended,
                },
            );
        }
    }

    fn now_or_later(&mut self, at: Timestamp, run: &RunId, event: &Event) {
        for _ in 0..if self.random.chance(15) { 2 } else { 1 } {
            self.number += 1;
            let late = Duration::from_millis(self.random.below(500));
            self.queue
                .insert((at.plus(late), self.number), Item::Event(run.clone(), event.clone()));
        }
    }

    /// Somebody cancels, pauses, sends nonsense.
    fn mischief(&mut self, id: &RunId) {
        let by = "ann".to_owned();
        for _ in 0..self.random.below(3) {
            self.send(20_000, id, &Event::Pause { by: by.clone() });
        }
        // The last thing is that it goes on.
        self.number += 1;
        let late = self.now.plus(Duration::from_secs(60));
        self.queue.insert(
            (late, self.number),
            Item::Event(id.clone(), Event::Resume { by: by.clone() }),
        );
        if self.random.chance(50) {
            let reason = String::new();
            self.send(30_000, id, &Event::Cancel { by, reason });
        }
        let job = JobId::try_new("main:a0@9").unwrap();
        let ended = ended(JobState::Succeeded, &job, Fetched::Nothing);
        self.send(30_000, id, &Event::JobEnded { job, ended });
    }

    /// What holds when nothing is left to do.
    fn check_end(&self) {
        for run in self.runs.values() {
            let head = &run.head;
            let open: Vec<_> = run
                .steps
                .iter()
                .filter(|(_, record)| !record.status.is_terminal())
                .collect();
            assert!(
                head.status.is_terminal(),
                "{} hangs in {:?}: {open:#?}",
                run.id,
                head.phase
            );
            assert!(run.outbox.is_empty() && run.timers.is_empty());
            assert_eq!((head.open, head.waiting, head.in_flight), (0, 0, 0));
            let plan = &self.plans[&head.workflow_id];
            for step in plan.steps().iter().filter(|step| step.compensate.is_some()) {
                let done = run
                    .steps
                    .get(step.id())
                    .is_some_and(|record| record.status == StepStatus::Succeeded && record.skipped.is_none());
                let undone = run.steps.contains_key(&step.key.compensation());
                match head.status {
                    RunStatus::Succeeded => assert!(!undone, "{} was undone for nothing", step.id()),
                    // Cancelled twice it stops where it is, and cancelled during its last steps it has succeeded so far.
                    RunStatus::Cancelled => {}
                    // A run whose last steps fail has succeeded so far.
                    _ if head.error.as_ref().is_some_and(|error| {
                        plan.index(&error.step_id).is_some_and(|index| plan[index].step.finally)
                    }) => {}
                    _ => assert_eq!(done, undone, "{}", step.id()),
                }
            }
        }
        assert!(self.jobs.values().all(|job| job.told || job.ends_at <= self.now));
    }
}

fn ended(state: JobState, job: &JobId, output: Fetched) -> JobEnded {
    JobEnded {
        state,
        result_ptr: match output {
            Fetched::Nothing => String::new(),
            _ => format!("redis://res:{job}"),
        },
        output,
        error_code: if state == JobState::Failed {
            "E1".to_owned()
        } else {
            String::new()
        },
        error_message: String::new(),
    }
}

fn child_ended(child: &Run, step: &StepKey) -> Option<Event> {
    child.head.status.is_terminal().then(|| Event::ChildEnded {
        step: step.clone(),
        run: child.id.clone(),
        status: child.head.status,
        output: child.head.output.clone(),
        error: child.head.error.clone(),
        cost: child.head.total_cost,
    })
}

/// What a worker returns for a step.
pub(super) fn job_output(step: &StepKey) -> Value {
    json!({"done": step.as_str()})
}

/// How an attempt of a step ends in a world.
pub(super) fn outcome(seed: u64, failures: u64, workflow: &str, step: &StepKey, attempt: u32) -> JobState {
    let roll = roll(seed, &format!("{workflow}:{step}@{attempt}"));
    if roll % 100 >= failures {
        return JobState::Succeeded;
    }
    match (roll / 100) % 4 {
        0 => JobState::Timeout,
        1 => JobState::Denied,
        _ => JobState::Failed,
    }
}

/// Whether people approve of a step in a world.
pub(super) fn approves(seed: u64, failures: u64, workflow: &str, step: &StepKey) -> bool {
    roll(seed, &format!("{workflow}:{step}")) % 100 >= failures
}

/// How often workers fail in a world, in a hundred.
pub(super) fn failures(seed: u64) -> u64 {
    [0, 4, 25][usize::try_from(seed % 3).unwrap()]
}
