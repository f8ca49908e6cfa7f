//! What the clock does. Sections are those of `docs/spec/workflows.md`.

use std::collections::BTreeSet;

use coretex_core::test_util::wait::until;
use coretex_core::workflow::store::{RunQuery, Schedule};
use coretex_core::workflow::{RunId, RunStatus};
use serde_json::json;

use super::world::{Answer, Backend, World, somebody};

/// §2.2.
pub(crate) async fn a_delay_ends(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {
            "a": {"type": "delay", "delay_ms": 30},
            "b": {"type": "delay", "delay_ms": 30, "depends_on": ["a"]},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    let took = |step: &str| {
        let record = &ended.steps[step];
        record
            .completed_at
            .expect("ended")
            .since(record.started_at.expect("begun"))
    };
    assert!(took("a").as_millis() >= 30 && took("b").as_millis() >= 30);
}

/// §3.4.
pub(crate) async fn a_run_that_takes_too_long_is_stopped(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.worker(|_| Answer::Silence).await;
    world
        .define(json!({"id": "child", "steps": {"work": {"topic": "job.default"}}}))
        .await;
    let workflow = world
        .define(
            json!({"id": "slow", "timeout_ms": 700, "steps": {"sub": {"type": "subworkflow", "workflow": "child"}}}),
        )
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::TimedOut).await;
    let child = ended.steps["sub"].child_run.clone().expect("a child");
    world.ends(&child, RunStatus::Cancelled).await;
    for job in seen.ids() {
        until("the worker is told", || async {
            seen.cancels.lock().contains(&job).then_some(())
        })
        .await;
    }
}

fn every_second(workflow: &str) -> Schedule {
    Schedule {
        id: "often".to_owned(),
        workflow_id: workflow.to_owned(),
        org_id: "acme".to_owned(),
        cron: "* * * * * *".to_owned(),
        ..Schedule::default()
    }
}

async fn runs_of(world: &World, workflow: &str) -> Vec<coretex_core::workflow::Run> {
    let query = RunQuery {
        workflow_id: Some(workflow.to_owned()),
        limit: 100,
        ..RunQuery::default()
    };
    world.workflows().runs(&query).await.expect("a list").runs
}

/// §8.
pub(crate) async fn a_schedule_starts_runs(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"type": "transform", "expression": "1"}}}))
        .await;
    let saved = world
        .workflows()
        .save_schedule(every_second(&workflow), Some(0), &somebody())
        .await
        .expect("saved");
    assert!(saved.next_at.is_some());
    until("two runs were started", || async {
        (runs_of(&world, &workflow).await.len() >= 2).then_some(())
    })
    .await;
    let schedule = world.workflows().schedule("often").await.expect("a schedule");
    assert_eq!(schedule.last_result, "started");
    let last = schedule.last_run.expect("a run");
    world.ends(&last, RunStatus::Succeeded).await;
    world
        .workflows()
        .pause_schedule("often", true, &somebody())
        .await
        .expect("paused");
    let triggered = world
        .workflows()
        .trigger_schedule("often", &somebody())
        .await
        .expect("started");
    let run = world.ends(&triggered.run, RunStatus::Succeeded).await;
    assert_eq!(run.head.metadata.get("schedule").map(String::as_str), Some("often"));
    world
        .workflows()
        .delete_schedule("often", &somebody())
        .await
        .expect("deleted");
}

/// §8.
pub(crate) async fn replicas_start_one_run_for_each_time(backend: Backend) {
    let mut world = World::new(backend).await;
    world.start().await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"a": {"type": "transform", "expression": "1"}}}))
        .await;
    world
        .workflows()
        .save_schedule(every_second(&workflow), None, &somebody())
        .await
        .expect("saved");
    until("three runs were started", || async {
        (runs_of(&world, &workflow).await.len() >= 3).then_some(())
    })
    .await;
    let runs = runs_of(&world, &workflow).await;
    let seconds: BTreeSet<i64> = runs.iter().map(|run| run.head.created_at.secs()).collect();
    let ids: BTreeSet<&RunId> = runs.iter().map(|run| &run.id).collect();
    assert_eq!(ids.len(), runs.len());
    // A start may be late, and another in time: but there are never more than seconds.
    let (first, last) = (seconds.first().expect("one"), seconds.last().expect("one"));
    let passed = usize::try_from(last - first + 2).expect("a count");
    assert!(runs.len() <= passed, "{} runs in {passed} s", runs.len());
}
