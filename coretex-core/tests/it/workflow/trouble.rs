//! What runs do when something goes wrong outside. Sections are those of `docs/spec/workflows.md`.

use std::collections::BTreeSet;

use coretex_core::approvals::Verdict;
use coretex_core::bus::SubscribeOptions;
use coretex_core::jobs::{Change, JobEvent, JobState, JobStoreExt, TerminalDetail};
use coretex_core::protocol::{JobId, subjects};
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;
use coretex_core::workflow::event::Event;
use coretex_core::workflow::run::RunHead;
use coretex_core::workflow::store::{Created, NewRun, RunCommit};
use coretex_core::workflow::{Run, RunId, RunStatus};
use serde_json::{Value, json};

use super::world::{Answer, Backend, World};

/// §4.1: a job that policy denies is over at once, with the reason.
pub(crate) async fn a_denied_job_fails_its_step_with_the_reason(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "danger", "steps": {
            "a": {"topic": "job.danger", "retry": {"max_retries": 3, "initial_backoff_ms": 1}},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::Failed).await;
    let error = ended.steps["a"].error.clone().expect("an error");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("safety_denied", "too dangerous")
    );
    assert_eq!(ended.steps["a"].attempts, 1, "a denial is not tried again");
}

/// §4.1: so is one that people reject.
pub(crate) async fn a_rejected_job_fails_its_step_with_the_reason(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "careful", "steps": {"a": {"topic": "job.careful"}}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let job = JobId::try_new(&format!("{run}:a@1")).expect("an id");
    until("the job waits for people", || async {
        let record = world.stores.jobs.get(&job).await.expect("the store answers")?;
        (record.state == JobState::ApprovalRequired).then_some(())
    })
    .await;
    let verdict = Verdict {
        by: "ada".to_owned(),
        reason: "not today".to_owned(),
        ..Verdict::default()
    };
    world.approvals().reject(&job, &verdict).await.expect("rejected");
    let ended = world.ends(&run, RunStatus::Failed).await;
    let error = ended.steps["a"].error.clone().expect("an error");
    assert!(error.message.contains("not today"), "{error:?}");
}

/// §4.1: and one that somebody cancels.
pub(crate) async fn a_cancelled_job_cancels_its_step(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.worker(|_| Answer::Silence).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"topic": "job.default"}}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    until("the job is with the worker", || async {
        (seen.ids().len() == 1).then_some(())
    })
    .await;
    let job = JobId::try_new(&format!("{run}:a@1")).expect("an id");
    world.jobs().cancel(&job).await.expect("cancelled");
    let ended = world.ends(&run, RunStatus::Failed).await;
    assert_eq!(ended.steps["a"].status, RunStatus::Cancelled);
}

/// §6: the job store knows how it ended.
pub(crate) async fn a_lost_result_is_found(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.worker(|_| Answer::Silence).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"topic": "job.default"}}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    until("the job is with the worker", || async {
        (seen.ids().len() == 1).then_some(())
    })
    .await;
    let job = JobId::try_new(&format!("{run}:a@1")).expect("an id");
    let mut change = Change::new(job.clone(), JobEvent::Finish(JobState::Failed), Clock::system().now());
    change.outcome = Some(TerminalDetail {
        error_code: "lost".to_owned(),
        error_message: "nobody heard it".to_owned(),
        ..TerminalDetail::default()
    });
    world.stores.jobs.apply(change).await.expect("applied");
    let ended = world.ends(&run, RunStatus::Failed).await;
    let error = ended.steps["a"].error.clone().expect("an error");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("lost", "nobody heard it")
    );
}

/// §6: what nobody knows is submitted again.
pub(crate) async fn a_lost_submission_is_made_again(backend: Backend) {
    let mut world = World::idle(backend).await;
    world.lose = 1;
    world.start().await;
    let seen = world.echo().await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"topic": "job.default", "input": {"x": "${1 + 1}"}}}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    world.ends(&run, RunStatus::Succeeded).await;
    assert_eq!(seen.steps(), ["a@1"]);
}

/// §4.4.
pub(crate) async fn foreign_pointers_are_not_followed(backend: Backend) {
    let world = World::new(backend).await;
    world
        .worker(|_| Answer::Pointer("redis://ctx:somebody-else".to_owned()))
        .await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"topic": "job.default"}}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::Failed).await;
    let error = ended.steps["a"].error.clone().expect("an error");
    assert_eq!(error.code, "foreign_pointer");
}

/// §5.3.
pub(crate) async fn a_run_without_a_definition_fails(backend: Backend) {
    let world = World::new(backend).await;
    let now = Clock::system().now();
    let head = RunHead {
        workflow_id: "gone".to_owned(),
        definition: "0".repeat(64),
        created_at: now,
        updated_at: now,
        ..RunHead::default()
    };
    let run = Run::new(RunId::random(), head, Value::Object(serde_json::Map::new()));
    let new = NewRun {
        commit: RunCommit {
            run: run.id.clone(),
            expected: 0,
            token: 1,
            head: run.head.clone(),
            context: None,
            steps: Vec::new(),
            items: Vec::new(),
            effects: Vec::new(),
            done: Vec::new(),
            payloads: Vec::new(),
            timeline: Vec::new(),
            due: Some(now),
            inbox_add: Vec::new(),
            inbox_remove: Vec::new(),
            audit: Vec::new(),
        },
        input: std::sync::Arc::clone(&run.input),
        idempotency: None,
        org_limit: None,
        workflow_limit: None,
    };
    let created = world.stores.workflows.create_runs(&[new]).await.pop();
    assert!(matches!(created, Some(Ok(Created::Created))), "{created:?}");
    let ended = world.ends(&run.id, RunStatus::Failed).await;
    assert_eq!(
        ended.head.error.map(|error| error.code).as_deref(),
        Some("definition_missing")
    );
}

/// §6: of two that try the same, one wins, and nothing happens twice.
pub(crate) async fn two_engines_share_the_runs(backend: Backend) {
    let mut world = World::new(backend).await;
    world.start().await;
    let seen = world.echo().await;
    let workflow = world
        .define(json!({"id": "w", "steps": {
            "fan": {"topic": "job.default", "for_each": "[1, 2, 3]"},
            "go": {"type": "signal"},
            "last": {"topic": "job.default", "depends_on": ["fan", "go"]},
        }}))
        .await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(world.begin(&workflow, json!({})).await);
    }
    let signals = runs.iter().enumerate().map(|(n, run)| {
        let workflows = world.platforms[n % 2].workflows.clone();
        let event = Event::Signal {
            name: "go".to_owned(),
            payload: std::sync::Arc::new(Value::Null),
            id: String::new(),
            by: String::new(),
        };
        async move { workflows.apply(run, None, event).await }
    });
    for answer in futures::future::join_all(signals).await {
        answer.expect("taken");
    }
    for run in &runs {
        world.ends(run, RunStatus::Succeeded).await;
    }
    let ids = seen.ids();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 80);
    assert_eq!(ids.len(), 80, "each job ran once");
}

/// §6: what one process committed, the next does; what waited then still waits.
pub(crate) async fn engines_follow_each_other(backend: Backend) {
    let mut world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {
            "wait": {"type": "delay", "delay_ms": 1500},
            "work": {"topic": "job.default"},
            "last": {"topic": "job.default", "depends_on": ["wait", "work"]},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let mut results = world
        .bus
        .subscribe(subjects::RESULT, SubscribeOptions::tap())
        .await
        .expect("subscribed");
    world.stop().await;
    results.close();
    while results.next().await.is_some() {}
    world.start().await;
    let seen = world.echo().await;
    world.ends(&run, RunStatus::Succeeded).await;
    let steps: BTreeSet<String> = seen.steps().into_iter().collect();
    assert_eq!(steps, ["last@1", "work@1"].map(str::to_owned).into());
}
