//! Dispatches: where to, how often, how many at once; and what ends with time.

use super::support::{apply, change, create, dispatch, new_job, outcome, reach, record, state, worker};
use crate::jobs::{Applied, Change, JobEvent, JobState, JobStoreExt, NewJob, Outcome, Slot};
use crate::protocol::{JobId, TenantId};
use crate::test_util::conformance::{Fixture, Scene};
use crate::time::Timestamp;

/// In the answer and in the record.
pub async fn dispatch_says_where(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let change = Change {
        owner: Some(scene.instance("me")),
        trace_id: Some(scene.trace("trace")),
        ..dispatch(&id, scene.at(50))
    };
    let applied = apply(fixture, change).await;
    let expected = Applied {
        revision: applied.revision,
        previous: Some(JobState::Pending),
        attempts: 1,
        topic: "job.tests".to_owned(),
        tenant: String::new(),
        trace_id: Some(scene.trace("trace")),
        worker_id: Some(worker("worker-1")),
    };
    assert_eq!(applied, expected);
    let record = record(fixture, &id).await;
    assert_eq!(record.worker_id, Some(worker("worker-1")));
    assert_eq!(record.placement, "least loaded of 3");
    assert_eq!(record.owner, Some(scene.instance("me")));
    let dispatched_at = record.dispatched_at.expect("it was dispatched");
    assert!(dispatched_at >= scene.at(50) && dispatched_at <= applied.revision.0);

    // The ending knows where it was, and so do its readers; nobody looks after it any more.
    let finish = super::support::change(&id, JobEvent::Finish(JobState::Succeeded), scene.at(90));
    assert_eq!(apply(fixture, finish).await.worker_id, Some(worker("worker-1")));
    let record = super::support::record(fixture, &id).await;
    assert_eq!((record.worker_id, record.owner), (Some(worker("worker-1")), None));
}

/// The limit is on dispatches in all.
pub async fn attempts_are_counted_and_limited(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let limited = |at: u64, limit: u32| Change {
        attempt_limit: Some(limit),
        ..dispatch(&id, scene.at(at))
    };
    for attempt in 1..=2 {
        let applied = apply(fixture, limited(u64::from(attempt) * 100, 2)).await;
        assert_eq!(applied.attempts, attempt);
        let requeue = change(&id, JobEvent::Requeue, scene.at(u64::from(attempt) * 100 + 50));
        assert_eq!(apply(fixture, requeue).await.attempts, attempt);
    }
    let before = record(fixture, &id).await;
    assert_eq!(
        outcome(fixture, limited(300, 2)).await,
        Outcome::AttemptsExhausted { attempts: 2 }
    );
    assert_eq!(record(fixture, &id).await, before);
    assert_eq!(before.attempts, 2);
    assert_eq!(apply(fixture, limited(400, 3)).await.attempts, 3);
}

fn slotted(id: &JobId, tenant: &TenantId, limit: u32, at: Timestamp) -> Change {
    Change {
        slot: Some(Slot {
            tenant: tenant.clone(),
            limit,
        }),
        ..dispatch(id, at)
    }
}

/// And the next one is refused until one of them is free.
pub async fn a_tenant_has_so_many_slots(fixture: &Fixture) {
    let scene = Scene::new();
    let tenant = scene.tenant("tenant: a/b");
    let ids: Vec<JobId> = (0..3).map(|i| scene.job(&i.to_string())).collect();
    for id in &ids {
        create(fixture, id, scene.at(0)).await;
    }
    for id in &ids[..2] {
        apply(fixture, slotted(id, &tenant, 2, scene.at(10))).await;
    }
    let before = record(fixture, &ids[2]).await;
    let refused = outcome(fixture, slotted(&ids[2], &tenant, 2, scene.at(20))).await;
    assert_eq!(refused, Outcome::LimitReached);
    assert_eq!(record(fixture, &ids[2]).await, before);

    // Another tenant's jobs do not count.
    let elsewhere = scene.job("elsewhere");
    create(fixture, &elsewhere, scene.at(0)).await;
    apply(fixture, slotted(&elsewhere, &scene.tenant("other"), 1, scene.at(20))).await;

    let finish = JobEvent::Finish(JobState::Failed);
    apply(fixture, change(&ids[0], finish, scene.at(30))).await;
    apply(fixture, slotted(&ids[2], &tenant, 2, scene.at(40))).await;
}

/// Thirty-two jobs want three places.
pub async fn slots_are_exact_under_a_race(fixture: &Fixture) {
    let scene = Scene::new();
    let tenant = scene.tenant("tenant");
    let ids: Vec<JobId> = (0..32).map(|i| scene.job(&i.to_string())).collect();
    for id in &ids {
        create(fixture, id, scene.at(0)).await;
    }
    for round in 1..=2 {
        let at = scene.secs(round);
        let tries = ids.iter().map(|id| outcome(fixture, slotted(id, &tenant, 3, at)));
        let outcomes = futures::future::join_all(tries).await;
        let mut placed = vec![];
        for (id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Outcome::Applied(_) => placed.push(id),
                other => assert_eq!(other, Outcome::LimitReached),
            }
        }
        assert_eq!(placed.len(), 3);
        let requeues = placed
            .into_iter()
            .map(|id| apply(fixture, change(id, JobEvent::Requeue, at)));
        futures::future::join_all(requeues).await;
    }
}

/// Success, failure, requeue, cancel, time-out.
pub async fn slots_are_freed_by_every_way_out(fixture: &Fixture) {
    let scene = Scene::new();
    let tenant = scene.tenant("tenant");
    let ways = [
        JobEvent::Finish(JobState::Succeeded),
        JobEvent::Finish(JobState::Failed),
        JobEvent::Finish(JobState::Denied),
        JobEvent::Requeue,
        JobEvent::Cancel,
        JobEvent::Expire,
    ];
    for (i, event) in ways.into_iter().enumerate() {
        let id = scene.job(&i.to_string());
        create(fixture, &id, scene.at(0)).await;
        apply(fixture, slotted(&id, &tenant, 1, scene.at(10))).await;
        apply(fixture, change(&id, event, scene.at(20))).await;
    }
    let last = scene.job("last");
    create(fixture, &last, scene.at(0)).await;
    apply(fixture, slotted(&last, &tenant, 1, scene.at(30))).await;
}

/// A tenant without a limit today may have one tomorrow.
pub async fn no_limit_still_counts(fixture: &Fixture) {
    let scene = Scene::new();
    let tenant = scene.tenant("tenant");
    for i in 0..5 {
        let id = scene.job(&i.to_string());
        create(fixture, &id, scene.at(0)).await;
        apply(fixture, slotted(&id, &tenant, 0, scene.at(10))).await;
    }
    let id = scene.job("limited");
    create(fixture, &id, scene.at(0)).await;
    let refused = outcome(fixture, slotted(&id, &tenant, 5, scene.at(20))).await;
    assert_eq!(refused, Outcome::LimitReached);
    apply(fixture, slotted(&id, &tenant, 6, scene.at(30))).await;
}

/// Set the first time, later only made earlier.
pub async fn a_deadline_is_only_tightened(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let steps = [
        (None, None),
        (Some(90), Some(90)),
        (Some(95), Some(90)),
        (None, Some(90)),
        (Some(60), Some(60)),
    ];
    for (i, (given, expected)) in (1_u64..).zip(steps) {
        let park = Change {
            deadline: given.map(|secs| scene.secs(secs)),
            ..change(&id, JobEvent::Park, scene.at(i))
        };
        apply(fixture, park).await;
        let deadline = record(fixture, &id).await.deadline;
        assert_eq!(deadline, expected.map(|secs| scene.secs(secs)), "step {i}");
    }
    assert!(!due(fixture, &scene, 59).await.contains(&id));
    assert!(due(fixture, &scene, 60).await.contains(&id));
}

async fn due(fixture: &Fixture, scene: &Scene, secs: u64) -> Vec<JobId> {
    let mut due = fixture.jobs.due(scene.secs(secs), 100_000).await.expect("due");
    due.retain(|id| scene.owns(id.as_str()));
    due
}

/// In any open state, and the limit is kept.
pub async fn due_jobs_come_earliest_first(fixture: &Fixture) {
    let scene = Scene::new();
    for secs in [30_u64, 10, 50, 20, 40] {
        let id = scene.job(&secs.to_string());
        let job = NewJob {
            deadline: Some(scene.secs(secs)),
            ..new_job(&id, scene.at(0))
        };
        fixture.jobs.create(job).await.expect("create");
    }
    apply(fixture, dispatch(&scene.job("10"), scene.at(5))).await;
    apply(
        fixture,
        change(&scene.job("20"), JobEvent::RequireApproval, scene.at(5)),
    )
    .await;
    let expected: Vec<JobId> = ["10", "20", "30", "40"].map(|name| scene.job(name)).into();
    assert_eq!(due(fixture, &scene, 40).await, expected);
    assert!(due(fixture, &scene, 9).await.is_empty());
    assert!(fixture.jobs.due(scene.secs(90), 2).await.expect("due").len() <= 2);
    assert!(fixture.jobs.due(scene.secs(90), 0).await.expect("due").is_empty());
}

/// And shows no deadline any more.
pub async fn an_ended_job_is_not_due(fixture: &Fixture) {
    let scene = Scene::new();
    for (i, event) in [JobEvent::Cancel, JobEvent::Expire, JobEvent::Fail, JobEvent::Deny]
        .into_iter()
        .enumerate()
    {
        let id = scene.job(&i.to_string());
        let job = NewJob {
            deadline: Some(scene.secs(10)),
            ..new_job(&id, scene.at(0))
        };
        fixture.jobs.create(job).await.expect("create");
        // A deadline that comes with the ending is none either.
        let ending = Change {
            deadline: Some(scene.secs(5)),
            ..change(&id, event, scene.at(5))
        };
        apply(fixture, ending).await;
        assert_eq!(record(fixture, &id).await.deadline, None);
    }
    let finished = scene.job("finished");
    reach(fixture, &finished, JobState::Succeeded, scene.at(0)).await;
    assert!(due(fixture, &scene, 90).await.is_empty());
    assert_eq!(state(fixture, &finished).await, Some(JobState::Succeeded));
    assert!(fixture.jobs.get(&scene.job("none")).await.expect("get").is_none());
}
