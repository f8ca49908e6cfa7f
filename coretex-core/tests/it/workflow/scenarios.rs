//! What runs do. Sections are those of `docs/spec/workflows.md`.

use std::sync::Arc;

use coretex_core::bus::SubscribeOptions;
use coretex_core::config::{ConfigService, Pausable, PauseService};
use coretex_core::jobs::{JobState, JobStoreExt};
use coretex_core::protocol::{JobId, subjects};
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;
use coretex_core::workflow::event::Event;
use coretex_core::workflow::run::StepVote;
use coretex_core::workflow::service::{Error, Rerun, Start};
use coretex_core::workflow::store::TimelineOrder;
use coretex_core::workflow::{RunStatus, StepKey, TimelineEvent};
use serde_json::{Value, json};

use super::world::{Answer, Backend, World, somebody};

/// §2.3, §3.5, §4.4.
pub(crate) async fn a_chain_hands_its_outputs_on(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.echo().await;
    let workflow = world
        .define(json!({"id": "chain", "steps": {
            "a": {"topic": "job.default", "input": {"name": "${input.name}"}},
            "b": {"topic": "job.default", "depends_on": ["a"], "input": {"from": "${steps.a.output.job}"}},
            "c": {"topic": "job.default", "depends_on": ["b"], "output_path": "last"},
        }}))
        .await;
    let run = world.begin(&workflow, json!({"name": "ada"})).await;
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    assert_eq!(seen.steps(), ["a@1", "b@1", "c@1"]);
    assert_eq!(
        ended.head.output.as_deref(),
        Some(&json!({"job": format!("{run}:c@1")}))
    );
    assert_eq!(ended.context["last"], json!({"job": format!("{run}:c@1")}));
    assert_eq!(ended.steps["a"].input.as_deref(), Some(&json!({"name": "ada"})));
    assert_eq!(
        ended.steps["b"].input.as_deref(),
        Some(&json!({"from": format!("{run}:a@1")}))
    );
    let request = &seen.jobs.lock()[0];
    assert_eq!(request.tenant_id, "acme");
    assert_eq!(request.workflow_id, "chain");
    assert_eq!(request.context_ptr, format!("redis://ctx:{run}:a@1"));
}

/// §2.2, §2.3.
pub(crate) async fn a_fan_out_collects_its_outputs_in_order(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world
        .worker(|request| Answer::Output(json!(request.env["foreach_index"])))
        .await;
    let workflow = world
        .define(json!({"id": "fan", "steps": {
            "fan": {"topic": "job.default", "for_each": "input.items", "max_parallel": 7},
            "sum": {"type": "transform", "depends_on": ["fan"], "expression": "steps.fan.output"},
        }}))
        .await;
    let items: Vec<u32> = (0..40).collect();
    let run = world.begin(&workflow, json!({"items": items})).await;
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    let expected: Vec<String> = (0..40).map(|n: u32| n.to_string()).collect();
    assert_eq!(ended.head.output.as_deref(), Some(&json!(expected)));
    let mut ids = seen.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    assert_eq!(seen.ids().len(), 40, "each once");
}

/// §5.
pub(crate) async fn an_attempt_that_failed_is_made_again(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world
        .worker(|request| {
            if request.job_id.ends_with("@3") {
                Answer::Output(json!("at last"))
            } else {
                Answer::Fail("flaky", "not yet")
            }
        })
        .await;
    let workflow = world
        .define(json!({"id": "again", "steps": {"a": {
            "topic": "job.default", "retry": {"max_retries": 2, "initial_backoff_ms": 20},
        }}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    assert_eq!(seen.steps(), ["a@1", "a@2", "a@3"]);
    assert_eq!(ended.steps["a"].attempts, 3);
    let timeline = timeline(&world, &run).await;
    let retries = timeline
        .iter()
        .filter(|entry| entry.event_type == "step_retry_scheduled");
    assert_eq!(retries.count(), 2);
}

/// §3.3.
pub(crate) async fn a_failure_cancels_what_is_in_flight(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world
        .worker(|request| match request.topic.as_str() {
            "job.other" => Answer::Silence,
            _ => Answer::Fail("broken", "it broke"),
        })
        .await;
    let workflow = world
        .define(json!({"id": "siblings", "steps": {
            "slow": {"topic": "job.other"},
            "bad": {"topic": "job.default", "type": "worker"},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    let ended = world.ends(&run, RunStatus::Failed).await;
    let error = ended.head.error.expect("an error");
    assert_eq!(
        (error.code.as_str(), error.message.as_str(), error.step_id.as_str()),
        ("broken", "it broke", "bad")
    );
    assert_eq!(ended.steps["slow"].status, RunStatus::Cancelled);
    let slow = JobId::try_new(&format!("{run}:slow@1")).expect("an id");
    until("the job is cancelled", || async {
        let record = world.stores.jobs.get(&slow).await.expect("the store answers")?;
        (record.state == JobState::Cancelled).then_some(())
    })
    .await;
    until("the worker is told", || async {
        seen.cancels.lock().contains(&slow.to_string()).then_some(())
    })
    .await;
}

/// §2.2.
pub(crate) async fn an_approval_waits_for_people(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.echo().await;
    let workflow = world
        .define(json!({"id": "ask", "steps": {
            "ask": {"type": "approval", "approval": {"quorum": 2}, "prompt": "Ship ${input.what}?"},
            "ship": {"topic": "job.default", "depends_on": ["ask"]},
            "beside": {"topic": "job.default"},
        }}))
        .await;
    let run = world.begin(&workflow, json!({"what": "it"})).await;
    world.reaches(&run, RunStatus::Waiting).await;
    let waiting = world.workflows().waiting_steps(None, 10).await.expect("a list");
    assert_eq!(waiting.len(), 1);
    let (step, found) = &waiting[0];
    assert_eq!((&step.run, step.step.as_str()), (&run, "ask"));
    assert_eq!(found.steps["ask"].prompt, "Ship it?");
    // The other branch goes on meanwhile.
    until("the other branch ends", || async {
        (world.run(&run).await.steps.get("beside")?.status == RunStatus::Succeeded).then_some(())
    })
    .await;

    let vote = |by: &str| Event::Vote {
        step: StepKey::new("ask"),
        vote: StepVote {
            by: by.to_owned(),
            approved: true,
            at: Clock::system().now(),
            ..StepVote::default()
        },
    };
    let apply = |workflow: &'static str, event: Event| {
        let (workflows, run) = (world.workflows(), run.clone());
        async move { workflows.apply(&run, Some(workflow), event).await }
    };
    assert!(matches!(apply("other", vote("ada")).await, Err(Error::UnknownRun)));
    apply("ask", vote("ada")).await.expect("heard");
    assert!(matches!(apply("ask", vote("ada")).await, Err(Error::Refused(_))));
    assert_eq!(world.run(&run).await.head.status, RunStatus::Waiting);
    apply("ask", vote("bob")).await.expect("heard");
    world.ends(&run, RunStatus::Succeeded).await;
    assert!(matches!(apply("ask", vote("cyd")).await, Err(Error::Refused(_))));
    assert!(
        world
            .workflows()
            .waiting_steps(None, 10)
            .await
            .expect("a list")
            .is_empty()
    );
    let mut steps = seen.steps();
    steps.sort();
    assert_eq!(steps, ["beside@1", "ship@1"]);
}

/// §2.2.
pub(crate) async fn forms_and_signals_are_waited_for(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "people", "steps": {
            "form": {"type": "input", "output_schema": {"type": "object", "required": ["name"]}},
            "paid": {"type": "signal", "depends_on": ["form"]},
        }, "output": {"name": "${steps.form.output.name}", "paid": "${steps.paid.output}"}}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    world.reaches(&run, RunStatus::Waiting).await;
    let form = |value: Value| Event::Form {
        step: StepKey::new("form"),
        value: Arc::new(value),
        by: "ada".to_owned(),
        role: String::new(),
    };
    let refused = world.workflows().apply(&run, None, form(json!({}))).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    world
        .workflows()
        .apply(&run, None, form(json!({"name": "x"})))
        .await
        .expect("taken");
    let signal = |name: &str| Event::Signal {
        name: name.to_owned(),
        payload: Arc::new(json!(42)),
        id: "s1".to_owned(),
        by: "shop".to_owned(),
    };
    world
        .workflows()
        .apply(&run, None, signal("paid"))
        .await
        .expect("taken");
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    assert_eq!(ended.head.output.as_deref(), Some(&json!({"name": "x", "paid": 42})));
}

/// §2.2.
pub(crate) async fn a_subworkflow_is_a_run_of_its_own(backend: Backend) {
    let world = World::new(backend).await;
    world
        .worker(|request| Answer::Output(json!({"item": request.labels["step_id"], "cost": 0.5})))
        .await;
    world
        .define(json!({"id": "child", "steps": {"work": {"topic": "job.default"}}, "output": "${input.item}"}))
        .await;
    let workflow = world
        .define(json!({"id": "parent", "steps": {
            "each": {"type": "subworkflow", "workflow": "child", "for_each": "input.items"},
            "gone": {"type": "subworkflow", "workflow": "nobody", "continue_on_error": true},
        }, "output": "${steps.each.output}"}))
        .await;
    let run = world.begin(&workflow, json!({"items": ["x", "y", "z"]})).await;
    let ended = world.ends(&run, RunStatus::Succeeded).await;
    assert_eq!(ended.head.output.as_deref(), Some(&json!(["x", "y", "z"])));
    assert!((ended.head.total_cost - 1.5).abs() < 1e-9, "{}", ended.head.total_cost);
    assert_eq!(
        ended.steps["gone"].error.as_ref().map(|error| error.code.as_str()),
        Some("unknown_workflow")
    );
    let child = ended.steps["each[1]"].child_run.clone().expect("a child");
    let child = world.run(&child).await;
    assert_eq!(child.head.status, RunStatus::Succeeded);
    assert_eq!(child.head.parent.as_ref().map(|parent| &parent.run), Some(&run));
    until("nothing is left to do", || async {
        world.run(&child.id).await.outbox.is_empty().then_some(())
    })
    .await;
}

/// §3.4.
pub(crate) async fn cancelling_reaches_children_and_jobs(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.worker(|_| Answer::Silence).await;
    world
        .define(json!({"id": "child", "steps": {"work": {"topic": "job.default"}}}))
        .await;
    let workflow = world
        .define(json!({"id": "parent", "steps": {
            "sub": {"type": "subworkflow", "workflow": "child"},
            "own": {"topic": "job.default"},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    until("both jobs are with the worker", || async {
        (seen.ids().len() == 2).then_some(())
    })
    .await;
    let cancel = || Event::Cancel {
        by: "ada".to_owned(),
        reason: "enough".to_owned(),
    };
    world.workflows().apply(&run, None, cancel()).await.expect("cancelled");
    let ended = world.ends(&run, RunStatus::Cancelled).await;
    let child = ended.steps["sub"].child_run.clone().expect("a child");
    world.ends(&child, RunStatus::Cancelled).await;
    for job in seen.ids() {
        let job = JobId::try_new(&job).expect("an id");
        until("the job is cancelled", || async {
            let record = world.stores.jobs.get(&job).await.expect("the store answers")?;
            (record.state == JobState::Cancelled).then_some(())
        })
        .await;
    }
    world
        .workflows()
        .apply(&run, None, cancel())
        .await
        .expect("once more changes nothing");
}

/// §8.
pub(crate) async fn a_start_with_a_key_happens_once(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "w", "steps": {"ask": {"type": "approval"}}}))
        .await;
    let start = |n: u32| {
        let workflows = world.workflows();
        let Value::Object(input) = json!({"n": n}) else {
            panic!("an object")
        };
        let start = Start {
            workflow_id: workflow.clone(),
            input,
            idempotency_key: "key".to_owned(),
            ..Start::default()
        };
        async move { workflows.start(start).await }
    };
    let started = futures::future::join_all((0..8).map(|_| start(1))).await;
    let started: Vec<_> = started.into_iter().map(|started| started.expect("started")).collect();
    assert!(started.iter().all(|each| each.run == started[0].run));
    assert_eq!(started.iter().filter(|each| !each.replayed).count(), 1);
    assert!(matches!(start(2).await, Err(Error::IdempotencyMismatch(run)) if run == started[0].run));
}

/// §8.
pub(crate) async fn no_more_runs_are_open_than_may_be(backend: Backend) {
    let world = World::new(backend).await;
    let workflow = world
        .define(json!({"id": "few", "max_concurrent_runs": 3, "steps": {"ask": {"type": "approval"}}}))
        .await;
    let start = || {
        let workflows = world.workflows();
        let start = Start {
            workflow_id: workflow.clone(),
            org_id: "acme".to_owned(),
            ..Start::default()
        };
        async move { workflows.start(start).await }
    };
    let all = futures::future::join_all((0..20).map(|_| start())).await;
    let runs: Vec<_> = all.iter().filter_map(|started| started.as_ref().ok()).collect();
    assert_eq!(runs.len(), 3, "{all:?}");
    assert!(
        all.iter()
            .all(|started| matches!(started, Ok(_) | Err(Error::Limit(3)))),
        "{all:?}"
    );
    let cancel = Event::Cancel {
        by: "ada".to_owned(),
        reason: String::new(),
    };
    world
        .workflows()
        .apply(&runs[0].run, None, cancel)
        .await
        .expect("cancelled");
    start().await.expect("there is room again");
}

/// §3.6.
pub(crate) async fn a_run_is_done_again_from_a_step(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world
        .worker(|request| {
            if request.topic == "job.other" && !request.labels.contains_key("dry_run") {
                Answer::Fail("broken", "")
            } else {
                Answer::Output(json!(request.job_id))
            }
        })
        .await;
    let workflow = world
        .define(json!({"id": "twice", "steps": {
            "a": {"topic": "job.default"},
            "b": {"topic": "job.other", "depends_on": ["a"]},
            "c": {"type": "transform", "depends_on": ["b"], "expression": "steps.a.output"},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    world.ends(&run, RunStatus::Failed).await;
    let rerun = |from: &str| {
        let rerun = Rerun {
            from_step: from.to_owned(),
            by: somebody(),
            ..Rerun::default()
        };
        let (workflows, run) = (world.workflows(), run.clone());
        async move { workflows.rerun(&run, rerun).await }
    };
    assert!(matches!(rerun("nothing").await, Err(Error::StepNotFound)));
    assert!(matches!(rerun("c").await, Err(Error::DependencyNotSucceeded(step)) if step == "b"));
    let again = rerun("b").await.expect("started").run;
    let ended = world.ends(&again, RunStatus::Failed).await;
    assert_eq!(ended.head.rerun_of, run.as_str());
    assert_eq!(seen.steps(), ["a@1", "b@1", "b@1"], "what succeeded is not done again");
    let whole = rerun("").await.expect("started").run;
    world.ends(&whole, RunStatus::Failed).await;
    assert_eq!(seen.steps().len(), 5);
}

/// §3.4.
pub(crate) async fn a_paused_workflow_begins_nothing(backend: Backend) {
    let world = World::new(backend).await;
    let seen = world.echo().await;
    let workflow = world
        .define(json!({"id": "stop", "steps": {
            "ask": {"type": "signal"},
            "work": {"topic": "job.default", "depends_on": ["ask"]},
        }}))
        .await;
    let early = world.begin(&workflow, json!({})).await;
    let config = ConfigService::new(
        Arc::clone(&world.stores.config),
        Arc::clone(&world.bus),
        Clock::system(),
    );
    let pauses = PauseService::new(config, Clock::system());
    pauses
        .pause(Pausable::Workflow, &workflow, "", &somebody())
        .await
        .expect("paused");
    until("the open run is paused", || async {
        world.run(&early).await.head.paused.then_some(())
    })
    .await;
    let late = world.begin(&workflow, json!({})).await;
    assert!(world.run(&late).await.head.paused);
    let signal = || Event::Signal {
        name: "ask".to_owned(),
        payload: Arc::new(Value::Null),
        id: String::new(),
        by: String::new(),
    };
    world.workflows().apply(&early, None, signal()).await.expect("taken");
    let resume = Event::Resume { by: "ada".to_owned() };
    let refused = world.workflows().apply(&early, None, resume).await;
    assert!(matches!(refused, Err(Error::WorkflowPaused)), "{refused:?}");
    assert!(seen.ids().is_empty());
    pauses
        .resume(Pausable::Workflow, &workflow, &somebody())
        .await
        .expect("resumed");
    world.ends(&early, RunStatus::Succeeded).await;
    until("the late run goes on", || async {
        let late = world.run(&late).await;
        (!late.head.paused && late.steps.contains_key("ask")).then_some(())
    })
    .await;
    world.workflows().apply(&late, None, signal()).await.expect("taken");
    world.ends(&late, RunStatus::Succeeded).await;
}

/// §7.
pub(crate) async fn what_happens_is_told(backend: Backend) {
    let world = World::new(backend).await;
    world.echo().await;
    let mut told = world
        .bus
        .subscribe(subjects::WORKFLOW_TIMELINE, SubscribeOptions::tap())
        .await
        .expect("subscribed");
    let workflow = world
        .define(json!({"id": "two", "steps": {
            "a": {"topic": "job.default"},
            "b": {"topic": "job.default", "depends_on": ["a"]},
        }}))
        .await;
    let run = world.begin(&workflow, json!({})).await;
    world.ends(&run, RunStatus::Succeeded).await;
    let mut heard: Vec<TimelineEvent> = Vec::new();
    while heard
        .last()
        .is_none_or(|entry| entry.status != "succeeded" || entry.event_type != "run_status")
    {
        let delivery = tokio::time::timeout(coretex_core::test_util::wait::PATIENCE, told.next())
            .await
            .expect("news")
            .expect("the bus is open");
        let entries: Vec<TimelineEvent> = serde_json::from_slice(&delivery.payload).expect("entries");
        heard.extend(entries.into_iter().filter(|entry| entry.run_id == run.as_str()));
    }
    let kinds = |entries: &[TimelineEvent]| -> Vec<String> {
        entries
            .iter()
            .map(|entry| format!("{} {}", entry.event_type, entry.step_id).trim().to_owned())
            .collect()
    };
    let stored = timeline(&world, &run).await;
    assert_eq!(
        kinds(&stored),
        [
            "run_created",
            "step_dispatched a",
            "run_status",
            "step_completed a",
            "step_dispatched b",
            "step_completed b",
            "run_status"
        ]
    );
    assert_eq!(kinds(&heard), kinds(&stored));
}

async fn timeline(world: &World, run: &coretex_core::workflow::RunId) -> Vec<TimelineEvent> {
    let timeline = world.workflows().timeline(run, TimelineOrder::Oldest, 0, 1_000).await;
    timeline.expect("a timeline")
}
