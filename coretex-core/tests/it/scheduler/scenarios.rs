//! What happens to jobs, told once for every backend. Sections are those of `docs/spec/scheduler.md`.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::approvals::{Approvals, Verdict};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::jobs::service::JobService;
use coretex_core::jobs::{Change, Decision, JobEvent, JobState, JobStoreExt, NewJob};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{Budget, JobCancel, JobPriority, JobResult, JobStatus};
use coretex_core::protocol::{InstanceId, JobId, TenantId, WorkerId, job_hash, subjects};
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;

use super::world::{Backend, World, confirming, direct, job, plain};

/// §1, §3, §6.
pub(crate) async fn a_job_lives_from_submit_to_success(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("life");
    world.submit(&request).await;

    let packet = worker.packet().await;
    assert_eq!(packet.sender_id, "coretex-scheduler");
    assert_eq!(packet.trace_id, "trace-1");
    assert_eq!(packet.protocol_version, 1);
    let Some(Payload::JobRequest(received)) = packet.payload else {
        panic!("not a job")
    };
    assert_eq!(received.job_id, request.job_id);

    let record = world.reaches(&id, JobState::Running).await;
    assert_eq!(record.attempts, 1);
    assert_eq!(record.worker_id.as_ref().map(WorkerId::as_str), Some("w1"));
    assert_eq!(record.placement, "only worker of pool default, load 0/4");
    let decision = record.decision.expect("a decision is stored before the job runs");
    assert_eq!(decision.decision, Decision::Allow);
    assert!(!decision.policy_snapshot.is_empty());

    world
        .finish(JobResult {
            job_id: id.to_string(),
            status: JobStatus::Succeeded.into(),
            result_ptr: format!("redis://res:{id}"),
            worker_id: "w1".to_owned(),
            execution_ms: 42,
            artifact_ptrs: vec!["redis://art:1".to_owned()],
            ..JobResult::default()
        })
        .await;
    let record = world.reaches(&id, JobState::Succeeded).await;
    assert_eq!(record.outcome.result_ptr, format!("redis://res:{id}"));
    assert_eq!(
        (record.outcome.worker_id.as_str(), record.outcome.execution_ms),
        ("w1", 42)
    );
    assert_eq!(record.outcome.artifact_ptrs, ["redis://art:1"]);
    let events = world.stores.jobs.events(&id).await.expect("events");
    let states: Vec<_> = events.iter().map(|(_, state)| *state).collect();
    assert_eq!(
        states,
        [
            JobState::Pending,
            JobState::Scheduled,
            JobState::Dispatched,
            JobState::Running,
            JobState::Succeeded
        ]
    );
    assert!(
        events.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "times grow: {events:?}"
    );
    until("nothing is in flight", || async {
        (world.platforms[0].scheduler.as_ref()?.load().in_flight == 0).then_some(())
    })
    .await;
}

/// §2.
pub(crate) async fn a_denied_job_is_a_dead_letter(backend: Backend) {
    let world = World::new(backend).await;
    let mut letters = world.listen(subjects::DLQ).await;
    let (id, mut request) = job("denied");
    request.topic = "job.danger".to_owned();
    world.submit(&request).await;
    let record = world.reaches(&id, JobState::Denied).await;
    let decision = record.decision.expect("a decision");
    assert_eq!(
        (decision.decision, decision.rule_id.as_str()),
        (Decision::Deny, "no-danger")
    );
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(letter.status, "JOB_STATUS_DENIED");
    assert_eq!(
        (letter.reason.as_str(), letter.reason_code.as_str()),
        ("too dangerous", "safety_denied")
    );
    let packet = letters.packet().await;
    assert_eq!(packet.trace_id, id.as_str());
    let Some(Payload::JobResult(result)) = packet.payload else {
        panic!("not a result")
    };
    assert_eq!(result.status(), JobStatus::Denied);
    assert_eq!(
        (result.error_code.as_str(), result.error_message.as_str()),
        ("safety_denied", "too dangerous")
    );
}

/// §2, docs/spec/jobs.md §4.
pub(crate) async fn a_job_that_needs_approval_waits_for_people(backend: Backend) {
    let world = World::new(backend).await;
    let (id, mut request) = job("careful");
    request.topic = "job.careful".to_owned();
    world.submit(&request).await;
    let record = world.reaches(&id, JobState::ApprovalRequired).await;
    let decision = record.decision.expect("a decision");
    assert!(decision.approval_required);
    assert_eq!(decision.approval_ref, id.as_str());
    assert_eq!(decision.job_hash, job_hash(&request));
    assert!(!decision.policy_snapshot.is_empty());
}

/// §3.
pub(crate) async fn an_unmapped_topic_is_a_dead_letter(backend: Backend) {
    let world = World::new(backend).await;
    let (id, mut request) = job("lost");
    request.topic = "job.nowhere".to_owned();
    world.submit(&request).await;
    world.reaches(&id, JobState::Failed).await;
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(letter.reason_code, "no_pool_mapping");
    assert_eq!(letter.reason, "no_pool_mapping: topic \"job.nowhere\"");
    assert_eq!(letter.topic, "job.nowhere");
}

/// §1.
pub(crate) async fn a_job_without_a_topic_fails(backend: Backend) {
    let world = World::new(backend).await;
    let (id, mut request) = job("topicless");
    request.topic = "  ".to_owned();
    world.submit(&request).await;
    let record = world.reaches(&id, JobState::Failed).await;
    assert_eq!(record.outcome.error_code, "missing_topic");
}

/// §4.
pub(crate) async fn jobs_wait_for_a_worker_and_are_woken_by_its_heartbeat(backend: Backend) {
    let world = World::new(backend).await;
    let (id, request) = job("early");
    world.submit(&request).await;
    let why = world.waits_because(&id, "no_workers").await;
    assert_eq!(why, "not placed because: no live worker in pool default");
    let mut worker = world.worker("w1", 4).await;
    assert_eq!(worker.id().await, id);
    let record = world.reaches(&id, JobState::Running).await;
    assert_eq!(record.pending, None, "it does not wait any more");
}

/// §4.
pub(crate) async fn the_more_urgent_job_gets_the_room(backend: Backend) {
    let world = World::new(backend).await;
    let mut ids = Vec::new();
    for priority in [JobPriority::Batch, JobPriority::Interactive, JobPriority::Critical] {
        let (id, mut request) = job(priority.as_str_name());
        request.priority = priority.into();
        world.submit(&request).await;
        world.waits_because(&id, "no_workers").await;
        ids.push(id);
    }
    let mut worker = world.worker("w1", 1).await;
    for expected in ids.iter().rev() {
        let id = worker.id().await;
        assert_eq!(id, *expected);
        world.result(&id, JobStatus::Succeeded).await;
    }
}

/// §1.
pub(crate) async fn a_repeated_submission_runs_once(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 0).await;
    let (first, request) = job("again");
    let (last, last_request) = job("last");
    for _ in 0..5 {
        world.submit(&request).await;
    }
    world.submit(&last_request).await;
    // Lanes work side by side, so either may come first; nothing else comes.
    let mut came = [worker.id().await, worker.id().await];
    came.sort();
    assert_eq!(came, [first.clone(), last.clone()]);
    assert_eq!(world.reaches(&first, JobState::Running).await.attempts, 1);
    world.result(&first, JobStatus::Succeeded).await;
    world.reaches(&first, JobState::Succeeded).await;
    world.submit(&request).await;
    let (third, third_request) = job("third");
    world.submit(&third_request).await;
    assert_eq!(worker.id().await, third, "a job that is over does not run again");
}

/// §6.
pub(crate) async fn results_that_say_nothing_new_change_nothing(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("repeat");
    let unknown = JobId::random();
    world.result(&unknown, JobStatus::Succeeded).await;
    world.submit(&request).await;
    worker.id().await;
    world.result(&id, JobStatus::Running).await;
    world.result(&id, JobStatus::Succeeded).await;
    let first = world.reaches(&id, JobState::Succeeded).await;
    for status in [JobStatus::Succeeded, JobStatus::Failed, JobStatus::Cancelled] {
        world.result(&id, status).await;
    }
    // What comes after them has been handled, so they have been as well.
    let (next, next_request) = job("next");
    world.submit(&next_request).await;
    worker.id().await;
    world.result(&next, JobStatus::Succeeded).await;
    world.reaches(&next, JobState::Succeeded).await;
    assert_eq!(world.record(&id).await.expect("there").revision, first.revision);
    assert_eq!(world.record(&unknown).await, None, "a result makes no job");
}

/// §6.
pub(crate) async fn a_result_without_a_status_is_a_failure(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("silent");
    world.submit(&request).await;
    worker.id().await;
    world.result(&id, JobStatus::Unspecified).await;
    let record = world.reaches(&id, JobState::Failed).await;
    assert_eq!(record.outcome.error_code, "missing_status");
}

/// §6.
pub(crate) async fn a_failure_is_a_dead_letter_with_the_workers_words(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("broken");
    world.submit(&request).await;
    worker.id().await;
    world
        .finish(JobResult {
            job_id: format!(" {id} "),
            status: JobStatus::Failed.into(),
            error_code: "E42".to_owned(),
            error_message: "it broke".to_owned(),
            ..JobResult::default()
        })
        .await;
    let record = world.reaches(&id, JobState::Failed).await;
    assert_eq!(record.outcome.error_message, "it broke");
    assert_eq!(
        record.outcome.result_ptr,
        format!("redis://res:{id}"),
        "an error document stands in for the result"
    );
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(
        (letter.reason.as_str(), letter.reason_code.as_str()),
        ("it broke", "E42")
    );
    assert_eq!((letter.last_state.as_str(), letter.attempts), ("FAILED", 1));
}

/// §5.
pub(crate) async fn a_cancelled_job_stays_cancelled(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, request) = job("stop");
    world.submit(&request).await;
    worker.id().await;
    let cancel = JobCancel {
        job_id: id.to_string(),
        reason: "enough".to_owned(),
        requested_by: "me".to_owned(),
    };
    world
        .publish(subjects::CANCEL, "client", Payload::JobCancel(cancel))
        .await;
    let cancelled = world.reaches(&id, JobState::Cancelled).await;
    world.result(&id, JobStatus::Succeeded).await;
    let (next, next_request) = job("next");
    world.submit(&next_request).await;
    worker.id().await;
    world.result(&next, JobStatus::Succeeded).await;
    world.reaches(&next, JobState::Succeeded).await;
    assert_eq!(world.record(&id).await.expect("there").revision, cancelled.revision);
}

/// docs/spec/jobs.md §2.
pub(crate) async fn a_tenant_never_has_more_than_its_limit(backend: Backend) {
    let mut world = World::new(backend).await;
    if backend != Backend::Embedded {
        world.start_scheduler().await;
    }
    let mut worker = world.worker("w1", 0).await;
    let mut open = Vec::new();
    for i in 0..7 {
        let (id, mut request) = job(&format!("limited{i}"));
        request.tenant_id = "small".to_owned();
        world.submit(&request).await;
        open.push(id);
    }
    let mut placed = vec![worker.id().await, worker.id().await];
    for done in 0..7 {
        let running = {
            let records = world.stores.jobs.get_many(&open).await.expect("records");
            records
                .into_iter()
                .flatten()
                .filter(|record| record.state == JobState::Running)
                .count()
        };
        assert!(running <= 2, "{running} run at once");
        let id = placed.remove(0);
        world.result(&id, JobStatus::Succeeded).await;
        world.reaches(&id, JobState::Succeeded).await;
        if done < 5 {
            placed.push(worker.id().await);
        }
    }
}

/// §7.
pub(crate) async fn a_deadline_ends_a_job_and_tells_the_worker(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let mut cancels = world.listen(subjects::CANCEL).await;
    let (id, mut request) = job("slow");
    request.budget = Some(Budget {
        deadline_ms: 1,
        ..Budget::default()
    });
    world.submit(&request).await;
    worker.id().await;
    let record = world.reaches(&id, JobState::Timeout).await;
    assert_eq!(record.outcome.error_code, "deadline_exceeded");
    let Some(Payload::JobCancel(cancel)) = cancels.packet().await.payload else {
        panic!("not a cancel")
    };
    assert_eq!(cancel.job_id, id.as_str());
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(letter.status, "JOB_STATUS_TIMEOUT");
}

/// §2.
pub(crate) async fn without_policy_a_job_waits_and_is_not_denied(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    world.policy(false);
    let (id, request) = job("unjudged");
    world.submit(&request).await;
    let why = world.waits_because(&id, "safety_unavailable").await;
    assert!(why.contains("switched off"), "{why}");
    assert_eq!(world.record(&id).await.expect("there").state, JobState::Pending);
    world.policy(true);
    assert_eq!(worker.id().await, id);
}

/// docs/spec/protocol.md §10.
pub(crate) async fn constraints_travel_with_the_job(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, mut request) = job("limits");
    request.tenant_id = "limited".to_owned();
    world.submit(&request).await;
    let received = worker.job().await;
    assert_eq!(received.env["CORETEX_REDACTION_LEVEL"], "strict");
    assert_eq!(received.env["CORETEX_MAX_ARTIFACT_BYTES"], "10");
    assert!(received.env["CORETEX_POLICY_CONSTRAINTS"].contains("\"maxRuntimeMs\":\"60000\""));
    assert_eq!(received.budget.expect("a budget").deadline_ms, 60_000);
    let record = world.reaches(&id, JobState::Running).await;
    assert_eq!(
        record.decision.expect("a decision").decision,
        Decision::AllowWithConstraints
    );
    assert!(record.deadline.is_some());
    let stored = world
        .stores
        .jobs
        .requests(&[id])
        .await
        .expect("requests")
        .remove(0)
        .expect("a request");
    assert!(stored.env.is_empty(), "what is stored is what was asked for");
}

/// §8.
pub(crate) async fn a_worker_that_confirms_is_asked_again(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker_that_confirms("w1").await;
    let (id, request) = job("ask");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    // It says nothing, so the same job comes again, to it alone.
    assert_eq!(worker.id().await, id);
    world.confirm("w1", &id).await;
    let record = until("the confirmation is on record", || async {
        world.record(&id).await.filter(|record| record.accepted_at.is_some())
    })
    .await;
    assert_eq!(record.attempts, 1, "asking again is no further attempt");
    world.result(&id, JobStatus::Succeeded).await;
    world.reaches(&id, JobState::Succeeded).await;
}

/// §3.
pub(crate) async fn a_worker_that_only_listens_on_its_own_subject_gets_its_jobs(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.listen("worker.old.jobs").await;
    world.heartbeat(&plain("old", 4)).await;
    for name in ["one", "two"] {
        let (id, request) = job(name);
        world.submit(&request).await;
        assert_eq!(worker.id().await, id);
        world.result(&id, JobStatus::Succeeded).await;
        world.reaches(&id, JobState::Succeeded).await;
    }
    if world.tells() {
        // And one that listens nowhere leaves the job waiting, with a reason.
        drop(worker);
        let (id, request) = job("three");
        world.submit(&request).await;
        world.waits_because(&id, "no_listener").await;
        let mut worker = world.listen("job.default").await;
        world.heartbeat(&plain("old", 4)).await;
        assert_eq!(worker.id().await, id, "the topic is tried as well");
    }
}

/// §3.
pub(crate) async fn a_worker_without_an_id_gets_its_jobs_by_topic(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.listen("job.default").await;
    world.heartbeat(&plain("", 0)).await;
    let (id, request) = job("anonymous");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    assert_eq!(world.reaches(&id, JobState::Running).await.worker_id, None);
}

/// §8.
pub(crate) async fn jobs_in_the_store_that_nobody_looks_after_are_adopted(backend: Backend) {
    let mut world = World::idle(backend).await;
    let store = async |name: &str| {
        let (id, request) = job(name);
        let new = NewJob {
            id: id.clone(),
            request: request.into(),
            trace_id: None,
            payload: None,
            idempotency: None,
            deadline: None,
            at: Clock::system().now(),
        };
        world.stores.jobs.create(new).await.expect("created");
        id
    };
    // Stored by a gateway that died before it could publish: one before the scheduler starts, one after.
    let before = store("before").await;
    let mut worker = world.worker("w1", 4).await;
    world.start_scheduler().await;
    world.heartbeat(&direct("w1", 4)).await;
    assert_eq!(worker.id().await, before);
    let (after, request) = job("after");
    let new = NewJob {
        id: after.clone(),
        request: request.into(),
        trace_id: None,
        payload: None,
        idempotency: None,
        deadline: None,
        at: Clock::system().now(),
    };
    world.stores.jobs.create(new).await.expect("created");
    assert_eq!(worker.id().await, after);
}

/// docs/spec/jobs.md §4.
pub(crate) async fn a_forged_approval_lets_nothing_run(backend: Backend) {
    let world = World::new(backend).await;
    let _worker = world.worker("w1", 4).await;
    let (id, mut request) = job("forged");
    request.topic = "job.careful".to_owned();
    request.labels.insert("approval_granted".to_owned(), "true".to_owned());
    world.submit(&request).await;
    let asked = world.reaches(&id, JobState::ApprovalRequired).await;
    // The same again, now that a decision with the right hash is on record.
    world.submit(&request).await;
    let (next, next_request) = job("next");
    world.submit(&next_request).await;
    world.reaches(&next, JobState::Running).await;
    let record = world.record(&id).await.expect("there");
    assert_eq!(record.state, JobState::ApprovalRequired);
    assert_eq!(record.revision, asked.revision);
}

/// §1.
pub(crate) async fn undecodable_packets_harm_nobody(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    for subject in [
        subjects::SUBMIT,
        subjects::RESULT,
        subjects::HEARTBEAT,
        subjects::PROGRESS,
        subjects::CANCEL,
    ] {
        let message = coretex_core::bus::Message {
            subject: subject.to_owned(),
            payload: bytes::Bytes::from_static(b"\xff\xff not a packet"),
            message_id: None,
        };
        world.bus.publish(message).await.expect("published");
    }
    for id in ["", "\u{7}bell", &"x".repeat(257)] {
        let (_, mut request) = job("x");
        request.job_id = id.to_owned();
        world.submit(&request).await;
        world
            .finish(JobResult {
                job_id: id.to_owned(),
                ..JobResult::default()
            })
            .await;
    }
    let (id, request) = job("fine");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    world.result(&id, JobStatus::Succeeded).await;
    world.reaches(&id, JobState::Succeeded).await;
}

/// §8.
pub(crate) async fn two_schedulers_share_the_work_and_one_takes_over(backend: Backend) {
    const JOBS: usize = 120;
    let mut world = World::new(backend).await;
    world.start_scheduler().await;
    let mut worker = world.worker("w1", 0).await;
    let mut ids = Vec::new();
    for i in 0..JOBS {
        let (id, request) = job(&format!("shared{i}"));
        world.submit(&request).await;
        ids.push(id);
    }
    let mut seen = std::collections::HashSet::new();
    for i in 0..JOBS {
        let id = worker.id().await;
        assert!(seen.insert(id.clone()), "{id} ran twice");
        // In one process the two share one bus, which the first would close.
        if i == JOBS / 2 && backend != Backend::Embedded {
            let first = world.platforms.remove(0);
            first.shutdown(Duration::from_secs(10)).await;
        }
        world.result(&id, JobStatus::Succeeded).await;
    }
    for id in &ids {
        let record = world.reaches(id, JobState::Succeeded).await;
        assert_eq!(record.attempts, 1);
    }
}

/// docs/spec/jobs.md §2.
pub(crate) async fn retries_are_limited(backend: Backend) {
    let world = World::new(backend).await;
    if !world.tells() {
        // Without word that nobody listens nothing sends a job round again quickly; the store's suite has the rule.
        return;
    }
    let (id, mut request) = job("nobody");
    request.tenant_id = "impatient".to_owned();
    // A worker that says that it is there and listens nowhere.
    world.heartbeat(&direct("ghost", 4)).await;
    world.submit(&request).await;
    world.waits_because(&id, "no_listener").await;
    world.heartbeat(&direct("ghost", 4)).await;
    until("it was tried twice", || async {
        world.record(&id).await.filter(|record| record.attempts == 2)
    })
    .await;
    world.waits_because(&id, "no_listener").await;
    world.heartbeat(&direct("ghost", 4)).await;
    let record = world.reaches(&id, JobState::Failed).await;
    assert_eq!(record.outcome.error_code, "max_retries_exceeded");
    assert_eq!(
        record.outcome.error_message,
        "max retries exceeded (attempts=2, max_retries=1)"
    );
}

/// §8.
pub(crate) async fn two_schedulers_free_each_others_places(backend: Backend) {
    const JOBS: usize = 80;
    let mut world = World::new(backend).await;
    world.start_scheduler().await;
    // One that cannot be asked: only the end of a job says that its place is free, and either of the two may hear that.
    let mut worker = world.worker("w1", 10).await;
    let mut ids = Vec::new();
    for i in 0..JOBS {
        let (id, request) = job(&format!("mixed{i}"));
        world.submit(&request).await;
        ids.push(id);
    }
    for _ in 0..JOBS {
        let id = worker.id().await;
        world.result(&id, JobStatus::Succeeded).await;
    }
    for id in &ids {
        world.reaches(id, JobState::Succeeded).await;
    }
    until("nothing is left in flight", || async {
        world
            .platforms
            .iter()
            .filter_map(|platform| platform.scheduler.as_ref())
            .all(|scheduler| scheduler.load().in_flight == 0)
            .then_some(())
    })
    .await;
}

/// §4.
pub(crate) async fn jobs_turned_away_are_taken_when_there_is_room(backend: Backend) {
    let mut world = World::idle(backend).await;
    world.start_scheduler_with(|options| options.max_parked = 2).await;
    let mut waiting = std::collections::HashSet::new();
    for i in 0..6 {
        let (id, request) = job(&format!("crowd{i}"));
        world.submit(&request).await;
        world.reaches(&id, JobState::Pending).await;
        waiting.insert(id);
    }
    let mut worker = world.worker("w1", 0).await;
    while !waiting.is_empty() {
        let id = worker.id().await;
        assert!(waiting.remove(&id), "{id} came twice");
        world.result(&id, JobStatus::Succeeded).await;
    }
}

/// docs/spec/jobs.md §4.
pub(crate) async fn an_approval_that_nobody_heard_of_takes_effect(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 0).await;
    let (id, mut request) = job("unheard");
    request.topic = "job.careful".to_owned();
    world.submit(&request).await;
    world.reaches(&id, JobState::ApprovalRequired).await;
    let (stores, clock) = (world.stores.clone(), Clock::system());
    // What is published on this bus reaches nobody.
    let service = JobService::new(
        Arc::clone(&stores.jobs),
        Arc::clone(&stores.payloads),
        Arc::clone(&stores.dlq),
        Arc::new(InProcessBus::new()),
        clock.clone(),
        TenantId::fallback(),
    );
    let kernel = Arc::clone(&world.platforms[0].kernel);
    Approvals::new(stores.jobs, service, kernel, clock)
        .approve(&id, &Verdict::default())
        .await
        .expect("approved");
    assert_eq!(worker.id().await, id);
}

/// §4.
pub(crate) async fn a_job_that_ended_does_not_wait(backend: Backend) {
    let mut world = World::idle(backend).await;
    world
        .start_scheduler_with(|options| options.look_over = Duration::from_millis(1))
        .await;
    let scheduler = world.platforms[0].scheduler.clone().expect("a scheduler");
    let (gone, request) = job("gone");
    world.submit(&request).await;
    let (stays, request) = job("stays");
    world.submit(&request).await;
    until("both wait", || async { (scheduler.load().parked == 2).then_some(()) }).await;
    let cancel = Change::new(gone, JobEvent::Cancel, Clock::system().now());
    world.stores.jobs.apply(cancel).await.expect("cancelled");
    until("one waits", || async { (scheduler.load().parked == 1).then_some(()) }).await;
    let mut worker = world.worker("w1", 0).await;
    assert_eq!(worker.id().await, stays);
}

/// §8.
pub(crate) async fn a_job_without_a_request_is_a_dead_letter(backend: Backend) {
    let mut world = World::idle(backend).await;
    let (id, _) = job("hollow");
    let long_ago = Clock::system().now().minus(Duration::from_secs(120));
    let hollow = Change::new(id.clone(), JobEvent::Park, long_ago);
    world.stores.jobs.apply(hollow).await.expect("stored");
    world.start_scheduler().await;
    let record = world.reaches(&id, JobState::Failed).await;
    assert_eq!(record.outcome.error_code, "request_missing");
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(letter.reason_code, "request_missing");
}

/// §1.
pub(crate) async fn one_lane_serves_waiting_jobs_too(backend: Backend) {
    let mut world = World::idle(backend).await;
    world.start_scheduler_with(|options| options.lanes = 1).await;
    let (id, request) = job("narrow");
    world.submit(&request).await;
    world.waits_because(&id, "no_workers").await;
    let mut worker = world.worker("w1", 1).await;
    assert_eq!(worker.id().await, id);
}

/// §8. On a bus that keeps nothing, a result may go to a replica that dies with it.
pub(crate) async fn a_result_that_a_dead_replica_took_is_asked_for(backend: Backend) {
    let mut world = World::idle(backend).await;
    // Never by itself.
    world
        .start_scheduler_with(|options| options.ask_running = Duration::from_secs(24 * 3600))
        .await;
    let mut worker = world.worker_that_confirms("w1").await;
    let (id, request) = job("swallowed");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    world.confirm("w1", &id).await;
    until("the confirmation is on record", || async {
        world.record(&id).await.filter(|record| record.accepted_at.is_some())
    })
    .await;
    // The worker has finished, and nobody who lives has heard that. A replica comes, is seen, and is gone.
    let mut asked = None;
    for _ in 0..10 {
        let replica = InstanceId::random();
        let cluster = &world.stores.cluster;
        cluster.beat(&replica, Duration::from_secs(1)).await.expect("a beat");
        // On a slow machine it may have come and gone unseen: then so does another.
        asked = tokio::time::timeout(Duration::from_secs(2), worker.id()).await.ok();
        if asked.is_some() {
            break;
        }
    }
    assert_eq!(asked.as_ref(), Some(&id), "the worker is asked");
    world.result(&id, JobStatus::Succeeded).await;
    assert_eq!(world.reaches(&id, JobState::Succeeded).await.attempts, 1);
}

/// §8.
pub(crate) async fn a_new_scheduler_calls_the_roll(backend: Backend) {
    let mut world = World::idle(backend).await;
    // An idle worker that said all it had to say before anybody listened.
    let mut calls = world.listen(subjects::STARTED).await;
    let mut worker = world.worker("w1", 4).await;
    world.start_scheduler().await;
    let call = calls.packet().await;
    assert_eq!(
        (call.sender_id.as_str(), call.payload),
        (subjects::SCHEDULER, None),
        "a call says nothing but that it is one"
    );
    world.heartbeat(&direct("w1", 4)).await;
    let (id, request) = job("rolled");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
}

/// §8.
pub(crate) async fn a_worker_that_was_not_known_yet_is_asked_when_it_is_heard_of(backend: Backend) {
    if backend == Backend::Embedded {
        // In one process the two share one bus, which the first would close.
        return;
    }
    let mut world = World::new(backend).await;
    let mut worker = world.worker_that_confirms("w1").await;
    let (id, request) = job("inherited");
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    world.confirm("w1", &id).await;
    until("the confirmation is on record", || async {
        world.record(&id).await.filter(|record| record.accepted_at.is_some())
    })
    .await;
    let first = world.platforms.remove(0);
    assert!(first.shutdown(Duration::from_secs(10)).await);
    world
        .start_scheduler_with(|options| options.ask_running = Duration::from_secs(24 * 3600))
        .await;
    let scheduler = world.platforms[0].scheduler.clone().expect("there is one");
    until("the job is taken over", || async {
        (scheduler.load().in_flight == 1).then_some(())
    })
    .await;
    world.heartbeat(&confirming("w1", 4)).await;
    assert_eq!(worker.id().await, id, "it is asked");
    world.result(&id, JobStatus::Succeeded).await;
    assert_eq!(world.reaches(&id, JobState::Succeeded).await.attempts, 1);
}
