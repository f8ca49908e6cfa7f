//! One shard: carries its runs through events, a batch at a time. See `docs/spec/workflows.md` §6.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::cache::{Cache, Cached};
use super::merge::Merged;
use super::pauses::Paused;
use super::{Inner, missing};
use crate::bus::Delivery;
use crate::error::{StoreError, chain};
use crate::jobs::{JobRecord, JobState};
use crate::metrics::{
    WORKFLOW_CACHED_RECORDS, WORKFLOW_COMMIT_CONFLICTS, WORKFLOW_DURATION, WORKFLOW_QUARANTINED, WORKFLOW_TIMER_LAG,
    WORKFLOWS_COMPLETED, WORKFLOWS_STARTED,
};
use crate::pointers::Pointer;
use crate::protocol::JobId;
use crate::time::Timestamp;
use crate::workflow::advance::advance;
use crate::workflow::event::{EffectId, Event, Fetched, JobEnded, Refusal};
use crate::workflow::plan::Plan;
use crate::workflow::results::{self, Source};
use crate::workflow::run::{Run, RunId, RunStatus};
use crate::workflow::service::Error;
use crate::workflow::store::{Committed, Created, Idempotency, NewRun, RunCommit};

/// How many results are read at once: each may be large.
const READ_AT_ONCE: usize = 64;
/// How many runs are read at once.
const LOAD_AT_ONCE: usize = 128;
/// How many jobs are looked up at once.
const LOOK_UP_AT_ONCE: usize = 1_000;
/// How often a commit is sent whose answer did not come.
const COMMIT_TRIES: u32 = 4;
/// How long a run is left alone that cannot be read or written; doubles, up to [`LONG_QUARANTINE`].
const QUARANTINE: Duration = Duration::from_secs(5);
const LONG_QUARANTINE: Duration = Duration::from_secs(600);
/// How many runs are in quarantine at most; the rest is tried again each time.
const MAX_QUARANTINED: usize = 10_000;
/// The earliest that a run is due again that was just looked at because it was due.
const SHORTEST: Duration = Duration::from_millis(200);
/// A run that waits for its workflow to go on is looked at this often, in case nobody says so.
const MARKED: Duration = Duration::from_secs(900);

/// Answers whoever asked for an event.
pub(super) type Reply = oneshot::Sender<Result<(), Error>>;

/// What a shard is given.
#[derive(Debug)]
pub(super) enum Input {
    /// Something happened to a run.
    Event {
        run: RunId,
        event: Box<Event>,
        /// The workflow that the run has to be of.
        workflow: Option<String>,
        reply: Option<Reply>,
        /// The message it came with.
        delivery: Option<Delivery>,
    },
    /// The time of a run has come.
    Due { run: RunId },
    /// Effects of a run were carried out.
    Performed { run: RunId, effects: Vec<EffectId> },
    /// A run is to be created.
    Create(Box<Creation>),
}

impl Input {
    /// An event that nobody waits for.
    pub(super) fn event(run: RunId, event: Event) -> Self {
        Self::Event {
            run,
            event: Box::new(event),
            workflow: None,
            reply: None,
            delivery: None,
        }
    }
}

/// A run to be created.
#[derive(Debug)]
pub(super) struct Creation {
    pub run: Run,
    pub plan: Arc<Plan>,
    pub idempotency: Option<Idempotency>,
    pub org_limit: Option<u64>,
    pub workflow_limit: Option<u64>,
    pub reply: oneshot::Sender<Result<Created, Error>>,
}

/// One run's part of a batch.
struct Turn {
    cached: Cached,
    inputs: Vec<Input>,
    /// What became of each input.
    outcomes: Vec<Result<(), Error>>,
    /// Its time has come.
    due: bool,
    /// What the job store said about jobs in flight.
    found: Vec<Event>,
    merged: Merged,
    before: RunStatus,
    /// It was just read, and not found in memory: what it does not know has not happened.
    fresh: bool,
}

/// The inputs of each run.
type Work = BTreeMap<RunId, Vec<Input>>;

/// A task that owns a part of the runs.
pub(super) struct Shard {
    pub(super) inner: Arc<Inner>,
    pub(super) cache: Cache,
    number: String,
    /// What follows from what was done here.
    pub(super) next: VecDeque<Input>,
    quarantine: HashMap<RunId, (Instant, u32)>,
    /// Effects that were carried out for runs that have to be read again.
    carried: HashMap<RunId, BTreeSet<EffectId>>,
}

impl Shard {
    pub(super) fn new(inner: Arc<Inner>, number: usize) -> Self {
        let options = &inner.options;
        let shards = inner.shards.len();
        Self {
            cache: Cache::new(options.cached_records / shards, options.cached_bytes / shards),
            number: number.to_string(),
            next: VecDeque::new(),
            quarantine: HashMap::new(),
            carried: HashMap::new(),
            inner,
        }
    }

    /// Works until `halt`, and then until nothing is left of what was taken.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, halt: CancellationToken) {
        let most = self.inner.options.batch.max(1);
        let mut batch = Vec::with_capacity(most);
        loop {
            let own = self.next.len().min(most);
            batch.extend(self.next.drain(..own));
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    () = halt.cancelled(), if !inputs.is_closed() => {
                        inputs.close();
                        continue;
                    }
                    taken = inputs.recv_many(&mut batch, most) => {
                        if taken == 0 {
                            return;
                        }
                    }
                }
            } else {
                while batch.len() < most
                    && let Ok(input) = inputs.try_recv()
                {
                    batch.push(input);
                }
            }
            self.batch(std::mem::take(&mut batch)).await;
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            gauge!(WORKFLOW_CACHED_RECORDS, "shard" => self.number.clone()).set(self.cache.records() as f64);
        }
    }

    async fn batch(&mut self, inputs: Vec<Input>) {
        let mut work = Work::new();
        let mut creations = Vec::new();
        for input in inputs {
            match &input {
                Input::Event { run, .. } | Input::Due { run } => {
                    let run = run.clone();
                    work.entry(run).or_default().push(input);
                }
                Input::Performed { .. } => {
                    if let Input::Performed { run, effects } = input {
                        self.performed(&run, &effects);
                    }
                }
                Input::Create(_) => {
                    if let Input::Create(creation) = input {
                        creations.push(*creation);
                    }
                }
            }
        }
        if !creations.is_empty() {
            self.create(creations).await;
        }
        for attempt in 0..self.inner.options.attempts.max(1) {
            if work.is_empty() {
                break;
            }
            if attempt > 1 {
                // Of those that run into each other one always gets through; a pause of random length parts the others.
                let pause = rand::rng().random_range(0..=u64::from(attempt.min(20)));
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            work = self.round(work).await;
        }
        for (run, inputs) in work {
            warn!(run_id = %run, "run is changed by others all the time");
            self.refuse(inputs, &Error::Busy, Some(Duration::from_secs(1))).await;
        }
        self.carried.clear();
    }

    /// Carries runs through their inputs; returns those that somebody else changed meanwhile.
    async fn round(&mut self, work: Work) -> Work {
        let mut turns = self.load(work).await;
        let now = self.inner.parts.clock.now();
        self.look_up_jobs(&mut turns, now).await;
        let turns = self.read_results(turns).await;
        let mut commits = Vec::new();
        let mut changed = Vec::new();
        let mut again = Work::new();
        for mut turn in turns {
            self.advance(&mut turn, now);
            if turn.merged.changed {
                let due = self.due(&turn, now);
                commits.push(turn.merged.commit(&mut turn.cached, due));
                changed.push(turn);
            } else if !turn.fresh {
                // Nothing came of it, perhaps only because another process has carried the run on since it was read.
                let id = turn.cached.run.id.clone();
                self.carried.insert(id.clone(), turn.cached.done);
                again.insert(id, turn.inputs);
            } else {
                self.settle(turn.inputs, turn.outcomes).await;
                self.cache.put(turn.cached);
            }
        }
        if commits.is_empty() {
            return again;
        }
        let answers = self.commit(&commits).await;
        let mut applied = Vec::new();
        for ((mut turn, commit), answer) in changed.into_iter().zip(commits).zip(answers) {
            let id = turn.cached.run.id.clone();
            match answer {
                Ok(Committed::Applied(revision)) => {
                    turn.cached.run.revision = revision;
                    self.quarantine.remove(&id);
                    self.inner.nudge.at(commit.due);
                    applied.push((turn, commit));
                }
                Ok(Committed::Conflict(_)) => {
                    counter!(WORKFLOW_COMMIT_CONFLICTS).increment(1);
                    self.carried.insert(id.clone(), turn.cached.done);
                    again.insert(id, turn.inputs);
                }
                Ok(Committed::Gone) => self.refuse(turn.inputs, &Error::UnknownRun, None).await,
                Err(problem) => self.failed(&id, turn.inputs, problem).await,
            }
        }
        self.follow_up(applied, now).await;
        again
    }

    /// The runs of these inputs. What cannot be read is answered.
    async fn load(&mut self, work: Work) -> Vec<Turn> {
        let mut turns = Vec::with_capacity(work.len());
        let mut unknown = Vec::new();
        let moment = Instant::now();
        for (id, inputs) in work {
            if self.quarantine.get(&id).is_some_and(|(until, _)| *until > moment) {
                // The comparison with the job store makes up for results when the run can be read again.
                self.refuse(inputs, &Error::Busy, None).await;
            } else if let Some(cached) = self.cache.take(&id) {
                turns.push((cached, inputs, false));
            } else {
                unknown.push((id, inputs));
            }
        }
        while !unknown.is_empty() {
            let part: Vec<_> = unknown.drain(..unknown.len().min(LOAD_AT_ONCE)).collect();
            let ids: Vec<RunId> = part.iter().map(|(id, _)| id.clone()).collect();
            for ((id, inputs), run) in part.into_iter().zip(self.inner.parts.store.load_runs(&ids).await) {
                let loaded = match run {
                    Ok(Some(mut run)) => match self.inner.plans.for_run(&mut run.head).await {
                        Ok(plan) => Ok(Some((run, plan))),
                        Err(problem) => Err(problem),
                    },
                    Ok(None) => Ok(None),
                    Err(problem) => Err(problem),
                };
                match loaded {
                    Ok(Some((run, plan))) => {
                        let mut cached = Cached::new(run, plan);
                        if let Some(done) = self.carried.remove(&id) {
                            cached.done = done;
                            cached.done.retain(|effect| cached.run.outbox.contains_key(effect));
                        }
                        turns.push((cached, inputs, true));
                    }
                    Ok(None) => self.refuse(inputs, &Error::UnknownRun, None).await,
                    Err(problem) => self.failed(&id, inputs, problem).await,
                }
            }
        }
        turns
            .into_iter()
            .map(|(cached, inputs, fresh)| Turn {
                fresh,
                due: inputs.iter().any(|input| matches!(input, Input::Due { .. })),
                before: cached.run.head.status,
                cached,
                inputs,
                outcomes: Vec::new(),
                found: Vec::new(),
                merged: Merged::default(),
            })
            .collect()
    }

    /// Compares the jobs in flight of runs whose time for that has come with the job store.
    async fn look_up_jobs(&self, turns: &mut [Turn], now: Timestamp) {
        let mut asked: Vec<(usize, JobId)> = Vec::new();
        for (i, turn) in turns.iter().enumerate() {
            let run = &turn.cached.run;
            if !turn.due || run.head.check_at.is_none_or(|at| at > now) {
                continue;
            }
            let waiting = turn.cached.unperformed();
            asked.extend(
                run.steps
                    .values()
                    .filter(|record| record.in_flight())
                    .filter_map(|record| record.job_id.clone())
                    // What was never submitted is about to be.
                    .filter(|job| !waiting.contains(job))
                    .map(|job| (i, job)),
            );
        }
        for part in asked.chunks(LOOK_UP_AT_ONCE) {
            let ids: Vec<JobId> = part.iter().map(|(_, job)| job.clone()).collect();
            match self.inner.parts.jobs.get_many(&ids).await {
                Ok(records) => {
                    for ((i, job), record) in part.iter().zip(records) {
                        if let Some(turn) = turns.get_mut(*i) {
                            turn.found.extend(news(job, record));
                        }
                    }
                }
                Err(problem) => {
                    warn!(error = %chain(&problem), "jobs in flight cannot be looked up; tried again later");
                    return;
                }
            }
        }
    }

    /// Reads what ended jobs left behind, for those that a run waits for.
    async fn read_results(&mut self, turns: Vec<Turn>) -> Vec<Turn> {
        let mut turns = turns;
        let mut wanted: Vec<(usize, JobId, Pointer, bool)> = Vec::new();
        for (i, turn) in turns.iter_mut().enumerate() {
            let Turn {
                cached, found, inputs, ..
            } = turn;
            let events = found
                .iter_mut()
                .chain(inputs.iter_mut().filter_map(|input| match input {
                    Input::Event { event, .. } => Some(&mut **event),
                    _ => None,
                }));
            for event in events {
                let Event::JobEnded { job, ended } = event else {
                    continue;
                };
                if ended.state != JobState::Succeeded || ended.output != Fetched::Nothing {
                    continue;
                }
                match results::source(job, &ended.result_ptr) {
                    Source::Known(known) => ended.output = known,
                    Source::Read(pointer) => {
                        let step = crate::workflow::run::parse_job_id(job.as_str()).map(|(_, step, _)| step);
                        let current = step
                            .as_ref()
                            .and_then(|step| cached.run.steps.get(step))
                            .is_some_and(|record| {
                                record.job_id.as_ref() == Some(job) && record.status == RunStatus::Running
                            });
                        if !current {
                            continue;
                        }
                        let needed = cached
                            .plan
                            .as_ref()
                            .zip(step.as_ref())
                            .and_then(|(plan, step)| plan.step(step))
                            .is_some_and(|step| step.output_schema.is_some());
                        wanted.push((i, job.clone(), pointer, needed));
                    }
                }
            }
        }
        let mut outputs: HashMap<JobId, Fetched> = HashMap::new();
        let mut unreadable: BTreeMap<usize, StoreError> = BTreeMap::new();
        for part in wanted.chunks(READ_AT_ONCE) {
            let pointers: Vec<Pointer> = part.iter().map(|(_, _, pointer, _)| pointer.clone()).collect();
            let payloads = self.inner.parts.payloads.get_many(&pointers).await;
            for ((i, job, _, needed), payload) in part.iter().zip(payloads) {
                match payload {
                    Ok(payload) => {
                        outputs.insert(job.clone(), results::read(payload, *needed));
                    }
                    Err(problem) if problem.is_retryable() => {
                        unreadable.insert(*i, problem);
                    }
                    // No payload at all: a list, or damaged.
                    Err(_) => {
                        outputs.insert(job.clone(), Fetched::Missing);
                    }
                }
            }
        }
        for turn in &mut turns {
            let Turn { found, inputs, .. } = turn;
            let events = found
                .iter_mut()
                .chain(inputs.iter_mut().filter_map(|input| match input {
                    Input::Event { event, .. } => Some(&mut **event),
                    _ => None,
                }));
            for event in events {
                if let Event::JobEnded { job, ended } = event
                    && let Some(output) = outputs.get(job)
                {
                    ended.output = output.clone();
                }
            }
        }
        if unreadable.is_empty() {
            return turns;
        }
        let mut readable = Vec::with_capacity(turns.len());
        for (i, turn) in turns.into_iter().enumerate() {
            match unreadable.remove(&i) {
                None => readable.push(turn),
                Some(problem) => {
                    let id = turn.cached.run.id.clone();
                    self.cache.put(turn.cached);
                    self.failed(&id, turn.inputs, problem).await;
                }
            }
        }
        readable
    }

    /// Carries a run through its events, in memory.
    fn advance(&self, turn: &mut Turn, now: Timestamp) {
        let Turn {
            cached,
            inputs,
            outcomes,
            due,
            found,
            merged,
            ..
        } = turn;
        if *due && let Some(at) = cached.run.due().filter(|at| *at <= now) {
            gauge!(WORKFLOW_TIMER_LAG).set(now.since(at).as_secs_f64());
        }
        let Some(plan) = cached.plan.clone() else {
            merged.add(missing::fail(&mut cached.run, now));
            merged.changed |= *due;
            let status = cached.run.head.status;
            outcomes.extend(inputs.iter().map(|input| match input {
                Input::Event { reply: Some(_), .. } => Err(Refusal::RunEnded(status).into()),
                _ => Ok(()),
            }));
            return;
        };
        if *due {
            // Before jobs are compared with the job store: what was done and got lost has to be done again.
            tell_done(cached, &plan, merged, now);
        }
        let run = &mut cached.run;
        let mut step = |run: &mut Run, event: &Event| -> Result<(), Error> {
            merged.add(advance(&plan, run, event, now)?);
            Ok(())
        };
        if let Some(first) = self.inner.paused.first(&mut run.head)
            && let Err(refusal) = step(run, &first)
        {
            debug!(run_id = %run.id, error = %refusal, "pause not taken");
        }
        for event in found.iter() {
            if let Err(refusal) = step(run, event) {
                debug!(run_id = %run.id, error = %refusal, "event not taken");
            }
        }
        for input in inputs.iter() {
            let outcome = match input {
                Input::Event { event, workflow, .. } => {
                    if workflow.as_ref().is_some_and(|id| *id != run.head.workflow_id) {
                        Err(Error::UnknownRun)
                    } else if matches!(**event, Event::Resume { .. })
                        && self.inner.paused.contains(&run.head.workflow_id)
                    {
                        Err(Error::WorkflowPaused)
                    } else {
                        step(run, event)
                    }
                }
                Input::Due { .. } => step(run, &Event::Wake),
                Input::Performed { .. } | Input::Create(_) => Ok(()),
            };
            outcomes.push(outcome);
        }
        if *due && run.head.check_at.is_some_and(|at| at <= now) {
            let _ = step(run, &Event::Checked);
        }
        if merged.changed && !*due {
            tell_done(cached, &plan, merged, now);
        }
        // Whoever claimed it has put it off; the store has to know when it is really due.
        merged.changed |= *due;
    }

    /// When somebody has to look at a run next.
    fn due(&self, turn: &Turn, now: Timestamp) -> Option<Timestamp> {
        let cached = &turn.cached;
        let retry = now.plus(self.inner.options.retry);
        let open = cached.run.outbox.keys().any(|id| !cached.done.contains(id));
        let marked = Paused::is_marked(&cached.run.head).then(|| now.plus(MARKED));
        // If this process dies before it did what it committed, another does it then.
        let again = (open || turn.merged.more).then_some(retry);
        let due = [cached.run.due(), again, marked].into_iter().flatten().min();
        due.map(|at| if turn.due { at.max(now.plus(SHORTEST)) } else { at })
    }

    /// Commits; what got no answer is sent again, which is harmless.
    async fn commit(&self, commits: &[RunCommit]) -> Vec<Result<Committed, StoreError>> {
        let store = &self.inner.parts.store;
        let mut answers = store.commit_runs(commits).await;
        for attempt in 1..COMMIT_TRIES {
            let open: Vec<usize> = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| matches!(answer, Err(problem) if problem.is_retryable()))
                .map(|(i, _)| i)
                .collect();
            if open.is_empty() {
                break;
            }
            counter!(crate::metrics::STORE_RETRIES).increment(1);
            tokio::time::sleep(Duration::from_millis(50 << attempt.min(4))).await;
            let part: Vec<RunCommit> = open.iter().filter_map(|i| commits.get(*i).cloned()).collect();
            for (i, answer) in open.into_iter().zip(store.commit_runs(&part).await) {
                if let Some(slot) = answers.get_mut(i) {
                    *slot = answer;
                }
            }
        }
        answers
    }

    /// Tells the callers, performs the effects, settles the messages.
    async fn follow_up(&mut self, applied: Vec<(Turn, RunCommit)>, now: Timestamp) {
        let mut todo = Vec::new();
        let mut news = Vec::new();
        for (turn, commit) in applied {
            let Turn {
                mut cached,
                inputs,
                outcomes,
                due,
                merged,
                before,
                ..
            } = turn;
            self.measure(&cached.run, before);
            news.extend(commit.timeline);
            if merged.more {
                self.next.push_back(Input::event(cached.run.id.clone(), Event::Wake));
            }
            cached.grew(&merged.steps);
            self.plan_effects(&mut cached, due.then_some(()), &merged.effects, &mut todo);
            self.cache.put(cached);
            self.settle(inputs, outcomes).await;
        }
        self.perform(todo, now).await;
        self.inner.tell_timeline(&news).await;
    }

    fn measure(&self, run: &Run, before: RunStatus) {
        if before.is_terminal() || !run.head.status.is_terminal() {
            return;
        }
        let workflow = self.inner.labels.of(&run.head.workflow_id);
        let status = run.head.status.as_str();
        counter!(WORKFLOWS_COMPLETED, "workflow" => workflow.clone(), "status" => status).increment(1);
        let ended = run.head.completed_at.unwrap_or(run.head.updated_at);
        let took = ended.since(run.head.started_at.unwrap_or(run.head.created_at));
        histogram!(WORKFLOW_DURATION, "workflow" => workflow).record(took.as_secs_f64());
    }

    /// Answers callers, and settles messages, of what is stored now.
    async fn settle(&self, inputs: Vec<Input>, outcomes: Vec<Result<(), Error>>) {
        for (input, outcome) in inputs.into_iter().zip(outcomes) {
            let Input::Event { reply, delivery, .. } = input else {
                continue;
            };
            if let Some(reply) = reply {
                // A caller that left does not mind.
                let _ = reply.send(outcome);
            }
            if let Some(delivery) = delivery {
                settle(delivery).await;
            }
        }
    }

    /// Answers inputs that did not happen. Messages come again after `again`; without it they are settled.
    async fn refuse(&self, inputs: Vec<Input>, why: &Error, again: Option<Duration>) {
        for input in inputs {
            let Input::Event { reply, delivery, .. } = input else {
                continue;
            };
            if let Some(reply) = reply {
                let _ = reply.send(Err(why.clone()));
            }
            match (delivery, again) {
                (Some(delivery), Some(after)) => {
                    if let Err(problem) = delivery.retry_after(after).await {
                        debug!(error = %chain(&problem), "message not put off");
                    }
                }
                (Some(delivery), None) => settle(delivery).await,
                (None, _) => {}
            }
        }
    }

    /// A run could not be read or written.
    async fn failed(&mut self, id: &RunId, inputs: Vec<Input>, problem: StoreError) {
        if problem.is_retryable() {
            warn!(run_id = %id, error = %chain(&problem), "store does not answer; tried again later");
            self.refuse(inputs, &problem.into(), Some(Duration::from_secs(1))).await;
            return;
        }
        let strikes = self.quarantine.get(id).map_or(0, |(_, strikes)| *strikes);
        let pause = (QUARANTINE * (1 << strikes.min(10))).min(LONG_QUARANTINE);
        error!(run_id = %id, error = %chain(&problem), ?pause, "run is left alone: it cannot be read or written");
        counter!(WORKFLOW_QUARANTINED).increment(1);
        if self.quarantine.len() >= MAX_QUARANTINED {
            let now = Instant::now();
            self.quarantine.retain(|_, (until, _)| *until > now);
        }
        if self.quarantine.len() < MAX_QUARANTINED {
            self.quarantine
                .insert(id.clone(), (Instant::now() + pause, strikes.saturating_add(1)));
        }
        self.refuse(inputs, &problem.into(), None).await;
    }

    async fn create(&mut self, creations: Vec<Creation>) {
        let now = self.inner.parts.clock.now();
        let mut new = Vec::with_capacity(creations.len());
        let mut turns = Vec::with_capacity(creations.len());
        for creation in creations {
            let Creation {
                mut run,
                plan,
                idempotency,
                org_limit,
                workflow_limit,
                reply,
            } = creation;
            let event = self.inner.paused.first(&mut run.head).unwrap_or(Event::Wake);
            let mut merged = Merged::default();
            match advance(&plan, &mut run, &event, now) {
                Ok(transition) => merged.add(transition),
                Err(refusal) => {
                    let _ = reply.send(Err(refusal.into()));
                    continue;
                }
            }
            let input = Arc::clone(&run.input);
            let turn = Turn {
                cached: Cached::new(run, Some(plan)),
                inputs: Vec::new(),
                outcomes: Vec::new(),
                due: false,
                found: Vec::new(),
                merged,
                before: RunStatus::Pending,
                fresh: true,
            };
            let due = self.due(&turn, now);
            let mut turn = turn;
            new.push(NewRun {
                commit: turn.merged.commit(&mut turn.cached, due),
                input,
                idempotency,
                org_limit,
                workflow_limit,
            });
            turns.push((turn, reply));
        }
        let answers = self.store_new(&new).await;
        let mut applied = Vec::new();
        for (((mut turn, reply), new), answer) in turns.into_iter().zip(new).zip(answers) {
            if let Ok(Created::Created) = &answer {
                turn.cached.run.revision = 1;
                self.inner.nudge.at(new.commit.due);
                let workflow = self.inner.labels.of(&turn.cached.run.head.workflow_id);
                counter!(WORKFLOWS_STARTED, "workflow" => workflow).increment(1);
                applied.push((turn, new.commit));
            }
            let _ = reply.send(answer.map_err(Error::from));
        }
        self.follow_up(applied, now).await;
    }

    async fn store_new(&self, new: &[NewRun]) -> Vec<Result<Created, StoreError>> {
        let store = &self.inner.parts.store;
        let mut answers = store.create_runs(new).await;
        for attempt in 1..COMMIT_TRIES {
            let open: Vec<usize> = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| matches!(answer, Err(problem) if problem.is_retryable()))
                .map(|(i, _)| i)
                .collect();
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt.min(4))).await;
            let part: Vec<NewRun> = open.iter().filter_map(|i| new.get(*i).cloned()).collect();
            for (i, answer) in open.into_iter().zip(store.create_runs(&part).await) {
                if let Some(slot) = answers.get_mut(i) {
                    *slot = answer;
                }
            }
        }
        answers
    }
}

/// Takes what was done out of the outbox.
fn tell_done(cached: &mut Cached, plan: &Plan, merged: &mut Merged, now: Timestamp) {
    if cached.done.is_empty() {
        return;
    }
    let done = Event::Done(cached.done.iter().copied().collect());
    if let Ok(transition) = advance(plan, &mut cached.run, &done, now) {
        merged.add(transition);
    }
    let outbox = &cached.run.outbox;
    cached.done.retain(|id| outbox.contains_key(id));
}

/// Handled: never again.
pub(super) async fn settle(delivery: Delivery) {
    if let Err(problem) = delivery.ack().await {
        debug!(error = %chain(&problem), "message not acknowledged");
    }
}

/// What the job store says about a job in flight that a run does not know.
fn news(job: &JobId, record: Option<JobRecord>) -> Option<Event> {
    let job = job.clone();
    let Some(record) = record else {
        return Some(Event::JobLost { job });
    };
    record.state.is_terminal().then(|| {
        let outcome = record.outcome;
        let unsaid = outcome.error_code.is_empty() && outcome.error_message.is_empty();
        let error_message = if unsaid && record.state != JobState::Succeeded {
            format!("job state: {}", record.state)
        } else {
            outcome.error_message
        };
        Event::JobEnded {
            job,
            ended: JobEnded {
                state: record.state,
                result_ptr: outcome.result_ptr,
                output: Fetched::Nothing,
                error_code: outcome.error_code,
                error_message,
            },
        }
    })
}
