//! How jobs move.

use std::time::Duration;

use super::support::{
    EVENTS, REACHABLE, apply, change, constraints, create, decision, dispatch, outcome, reach, record, state,
};
use crate::jobs::{
    Change, Decision, JobEvent, JobState, JobStoreExt, Outcome, PendingNote, PendingReason, Revision, TerminalDetail,
};
use crate::protocol::JobId;
use crate::test_util::conformance::{Fixture, Scene};

/// The state machine, whole: what [`Change::guard`] allows happens, and nothing else.
pub async fn every_event_in_every_state(fixture: &Fixture) {
    let scene = Scene::new();
    for from in [None].into_iter().chain(REACHABLE.map(Some)) {
        for (i, event) in EVENTS.into_iter().enumerate() {
            let id = scene.job(&format!("{from:?}-{i}"));
            if let Some(from) = from {
                reach(fixture, &id, from, scene.at(0)).await;
            }
            let before = fixture.jobs.get(&id).await.expect("get");
            let change = change(&id, event, scene.secs(1));
            let allowed = change.guard(from, before.as_ref().map_or(0, |record| record.attempts));
            let outcome = outcome(fixture, change).await;
            let after = fixture.jobs.get(&id).await.expect("get");
            if allowed {
                let Outcome::Applied(applied) = outcome else {
                    panic!("{event:?} from {from:?}: {outcome:?}");
                };
                assert_eq!(applied.previous, from, "{event:?}");
                assert_eq!(
                    after.map(|record| record.state),
                    Some(event.target()),
                    "{event:?} from {from:?}"
                );
            } else {
                let revision = before.as_ref().map(|record| record.revision);
                let state = from;
                assert_eq!(
                    outcome,
                    Outcome::Conflict { state, revision },
                    "{event:?} from {from:?}"
                );
                assert_eq!(after, before, "{event:?} from {from:?}");
            }
        }
    }
}

/// A late result of a worker given up for lost counts; one of a job that never ran does not.
pub async fn finish_from_pending_needs_a_dispatch(fixture: &Fixture) {
    let scene = Scene::new();
    let finish = JobEvent::Finish(JobState::Succeeded);
    let (never, given_up) = (scene.job("never"), scene.job("given-up"));
    let revision = Some(create(fixture, &never, scene.at(0)).await);
    let state = Some(JobState::Pending);
    let refused = outcome(fixture, change(&never, finish, scene.at(9))).await;
    assert_eq!(refused, Outcome::Conflict { state, revision });

    reach(fixture, &given_up, JobState::Running, scene.at(0)).await;
    apply(fixture, change(&given_up, JobEvent::Requeue, scene.at(20))).await;
    let applied = apply(fixture, change(&given_up, finish, scene.at(30))).await;
    assert_eq!((applied.previous, applied.attempts), (state, 1));
}

/// Also when its first change leads elsewhere.
pub async fn a_new_job_passes_through_pending(fixture: &Fixture) {
    let scene = Scene::new();
    for (i, event) in EVENTS.into_iter().enumerate() {
        let id = scene.job(&i.to_string());
        let change = change(&id, event, scene.at(3));
        if !change.guard(None, 0) {
            continue;
        }
        let applied = apply(fixture, change).await;
        assert_eq!(applied.previous, None);
        let events = fixture.jobs.events(&id).await.expect("events");
        let states: Vec<JobState> = events.iter().map(|(_, state)| *state).collect();
        let mut expected = vec![JobState::Pending];
        expected.extend(event.path().iter().copied().filter(|state| *state != JobState::Pending));
        assert_eq!(states, expected, "{event:?}");
    }
}

/// Each state has its own entry and its own time; the last one is the revision.
pub async fn times_grow_along_the_way(fixture: &Fixture) {
    use JobState::{Dispatched, Pending, Running, Scheduled, Succeeded};
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.secs(1)).await;
    let dispatched = apply(fixture, dispatch(&id, scene.secs(2))).await.revision;
    let requeued = apply(fixture, change(&id, JobEvent::Requeue, scene.secs(3)))
        .await
        .revision;
    apply(fixture, dispatch(&id, scene.secs(4))).await;
    let finish = JobEvent::Finish(Succeeded);
    let finished = apply(fixture, change(&id, finish, scene.secs(5))).await.revision;

    let events = fixture.jobs.events(&id).await.expect("events");
    let states: Vec<JobState> = events.iter().map(|(_, state)| *state).collect();
    assert_eq!(
        states,
        [
            Pending, Scheduled, Dispatched, Running, Pending, Scheduled, Dispatched, Running, Succeeded
        ]
    );
    assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0), "{events:?}");
    assert_eq!(events[0].0, scene.secs(1));
    assert_eq!(Revision(events[3].0), dispatched);
    assert_eq!(Revision(events[4].0), requeued);
    assert_eq!(Revision(events[8].0), finished);
    // Times are those of the changes, but for the microseconds that keep them apart.
    for (revision, secs) in [(dispatched, 2), (requeued, 3), (finished, 5)] {
        assert!(revision.0 >= scene.secs(secs));
        assert!(revision.0.since(scene.secs(secs)) < Duration::from_micros(10));
    }
}

/// And when it goes backwards.
pub async fn revisions_grow_when_the_clock_stands_still(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let mut last = create(fixture, &id, scene.secs(5)).await;
    for at in [scene.secs(5), scene.secs(4), scene.secs(5)] {
        for event in [JobEvent::Dispatch, JobEvent::Requeue] {
            let revision = apply(fixture, change(&id, event, at)).await.revision;
            assert!(revision > last);
            assert_eq!(record(fixture, &id).await.revision, revision);
            last = revision;
        }
    }
    assert!(last.0.since(scene.secs(5)) < Duration::from_millis(1));
}

/// The revision is compared exactly, also with a job that is not there.
pub async fn an_unexpected_revision_is_a_conflict(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let created = create(fixture, &id, scene.at(5)).await;
    let at = |revision: Revision, event| Change {
        expected: Some(revision),
        ..change(&id, event, scene.at(50))
    };
    for wrong in [scene.at(4), scene.at(6)] {
        let outcome = outcome(fixture, at(Revision(wrong), JobEvent::Dispatch)).await;
        let state = Some(JobState::Pending);
        let revision = Some(created);
        assert_eq!(outcome, Outcome::Conflict { state, revision });
    }
    let dispatched = apply(fixture, at(created, JobEvent::Dispatch)).await.revision;
    apply(fixture, at(dispatched, JobEvent::Cancel)).await;

    let absent = scene.job("absent");
    let change = Change {
        expected: Some(created),
        ..change(&absent, JobEvent::Park, scene.at(50))
    };
    let nowhere = Outcome::Conflict {
        state: None,
        revision: None,
    };
    assert_eq!(outcome(fixture, change).await, nowhere);
    assert_eq!(state(fixture, &absent).await, None);
}

/// The same answer, and nothing happens twice.
pub async fn a_repeated_token_is_answered_again(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let created = create(fixture, &id, scene.at(0)).await;
    let mut dispatch = dispatch(&id, scene.at(10));
    dispatch.expected = Some(created);
    dispatch.attempt_limit = Some(1);
    dispatch.decision = Some(decision(Decision::Allow, scene.at(10)));
    dispatch.slot = Some(crate::jobs::Slot {
        tenant: scene.tenant("t"),
        limit: 1,
    });
    let fail = Change {
        outcome: Some(TerminalDetail::default()),
        dead_letter: true,
        ..change(&id, JobEvent::Finish(JobState::Failed), scene.at(20))
    };
    let park = change(&scene.job("parked"), JobEvent::Park, scene.at(0));
    for change in [dispatch, fail, park] {
        let first = apply(fixture, change.clone()).await;
        let (record, events) = snapshot(fixture, &change.id).await;
        for _ in 0..3 {
            let later = Change {
                at: scene.secs(9),
                ..change.clone()
            };
            assert_eq!(apply(fixture, later).await, first);
        }
        assert_eq!(snapshot(fixture, &change.id).await, (record, events));
    }
    assert_eq!(fixture.jobs.decisions(&id, 9).await.expect("decisions").len(), 1);
}

async fn snapshot(fixture: &Fixture, id: &JobId) -> (crate::jobs::JobRecord, Vec<(crate::time::Timestamp, JobState)>) {
    (
        record(fixture, id).await,
        fixture.jobs.events(id).await.expect("events"),
    )
}

/// Only the last change is remembered.
pub async fn an_old_token_is_a_new_change(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let first = dispatch(&id, scene.at(10));
    apply(fixture, first.clone()).await;
    let revision = Some(
        apply(fixture, change(&id, JobEvent::Cancel, scene.at(20)))
            .await
            .revision,
    );
    let state = Some(JobState::Cancelled);
    assert_eq!(outcome(fixture, first).await, Outcome::Conflict { state, revision });
}

/// Thirty-two want to dispatch it.
pub async fn of_many_changes_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let tries = (0..32).map(|i| outcome(fixture, dispatch(&id, scene.at(10 + i))));
    let outcomes = futures::future::join_all(tries).await;
    let mut applied = vec![];
    let mut conflicts = vec![];
    for outcome in outcomes {
        match outcome {
            Outcome::Applied(it) => applied.push(it.revision),
            Outcome::Conflict { state, revision } => conflicts.push((state, revision)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(applied.len(), 1);
    let seen = (Some(JobState::Running), Some(applied[0]));
    assert_eq!(conflicts, vec![seen; 31]);
    let record = record(fixture, &id).await;
    assert_eq!((record.attempts, record.revision), (1, applied[0]));
    assert_eq!(fixture.jobs.events(&id).await.expect("events").len(), 4);
}

/// Success, failure, cancel and time-out at once.
pub async fn of_many_endings_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    reach(fixture, &id, JobState::Running, scene.at(0)).await;
    let endings = [
        JobEvent::Finish(JobState::Succeeded),
        JobEvent::Finish(JobState::Failed),
        JobEvent::Cancel,
        JobEvent::Expire,
    ];
    let tries = (0..32).map(|i| {
        let event = endings[i % endings.len()];
        let id = &id;
        let at = scene.at(100);
        async move { (event, outcome(fixture, change(id, event, at)).await) }
    });
    let outcomes = futures::future::join_all(tries).await;
    let winners: Vec<JobEvent> = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Applied(_)))
        .map(|(event, _)| *event)
        .collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(state(fixture, &id).await, Some(winners[0].target()));
    assert_eq!(fixture.jobs.events(&id).await.expect("events").len(), 5);
}

/// However many people say yes at once.
pub async fn an_approval_releases_once(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let revision = reach(fixture, &id, JobState::ApprovalRequired, scene.at(0)).await;
    let tries = (0..8).map(|_| {
        let change = Change {
            expected: Some(revision),
            ..change(&id, JobEvent::Approve, scene.at(10))
        };
        outcome(fixture, change)
    });
    let outcomes = futures::future::join_all(tries).await;
    let applied = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Applied(_)))
        .count();
    assert_eq!(applied, 1);
    assert_eq!(state(fixture, &id).await, Some(JobState::Pending));
}

/// A change to the state it is in writes its fields, but is no transition.
pub async fn parking_keeps_the_place(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("parked");
    let created = create(fixture, &id, scene.at(0)).await;
    let park = Change {
        pending: Some(PendingNote {
            reason: PendingReason::PoolOverloaded,
            detail: "pool full (3 workers)".to_owned(),
        }),
        owner: Some(scene.instance("me")),
        decision: Some(crate::jobs::DecisionRecord {
            constraints: Some(constraints()),
            ..decision(Decision::AllowWithConstraints, scene.at(10))
        }),
        ..change(&id, JobEvent::Park, scene.at(10))
    };
    let applied = apply(fixture, park.clone()).await;
    assert_eq!((applied.revision, applied.previous), (created, Some(JobState::Pending)));
    let record = record(fixture, &id).await;
    assert_eq!(record.revision, created);
    assert_eq!((record.pending, record.owner), (park.pending, park.owner));
    assert_eq!(record.decision, park.decision);
    assert_eq!(fixture.jobs.events(&id).await.expect("events").len(), 1);
}

/// Several changes of one job in one call.
pub async fn one_call_keeps_the_order(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.job("a"), scene.job("b"));
    let finish = JobEvent::Finish(JobState::Succeeded);
    let changes = [
        change(&a, JobEvent::Submit, scene.at(0)),
        dispatch(&a, scene.at(0)),
        change(&b, JobEvent::Park, scene.at(0)),
        change(&a, finish, scene.at(0)),
        change(&a, JobEvent::Cancel, scene.at(0)),
    ];
    let outcomes: Vec<Outcome> = fixture
        .jobs
        .apply_many(&changes)
        .await
        .into_iter()
        .map(|outcome| outcome.expect("apply"))
        .collect();
    assert_eq!(outcomes.len(), 5);
    assert!(
        outcomes[..4]
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Applied(_))),
        "{outcomes:?}"
    );
    let Outcome::Applied(finished) = &outcomes[3] else {
        panic!("{:?}", outcomes[3]);
    };
    assert_eq!(
        outcomes[4],
        Outcome::Conflict {
            state: Some(JobState::Succeeded),
            revision: Some(finished.revision)
        }
    );
    assert_eq!(state(fixture, &b).await, Some(JobState::Pending));
    assert!(fixture.jobs.apply_many(&[]).await.is_empty());
}

/// A hundred changes in one call, every third of which cannot happen.
pub async fn a_call_with_losers_applies_the_others(fixture: &Fixture) {
    let scene = Scene::new();
    let ids: Vec<JobId> = (0..100).map(|i| scene.job(&i.to_string())).collect();
    let submits: Vec<Change> = ids.iter().map(|id| change(id, JobEvent::Submit, scene.at(0))).collect();
    for outcome in fixture.jobs.apply_many(&submits).await {
        assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
    }
    let changes: Vec<Change> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| {
            let event = if i % 3 == 0 {
                JobEvent::Approve
            } else {
                JobEvent::Dispatch
            };
            change(id, event, scene.at(10))
        })
        .collect();
    let outcomes = fixture.jobs.apply_many(&changes).await;
    assert_eq!(outcomes.len(), 100);
    let records = fixture.jobs.get_many(&ids).await.expect("get");
    for (i, (outcome, record)) in outcomes.into_iter().zip(records).enumerate() {
        let lost = i % 3 == 0;
        let expected = if lost { JobState::Pending } else { JobState::Running };
        assert_eq!(
            matches!(outcome, Ok(Outcome::Conflict { .. })),
            lost,
            "{i}: {outcome:?}"
        );
        assert_eq!(record.map(|record| record.state), Some(expected), "{i}");
    }
}

/// Not the decision, not the dead letter, not the request.
pub async fn nothing_is_written_by_a_lost_change(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    reach(fixture, &id, JobState::Succeeded, scene.at(0)).await;
    let before = snapshot(fixture, &id).await;
    let mut other = super::support::request(&id);
    other.topic.push_str(".other");
    let lost = Change {
        request: crate::jobs::RequestWrite::Replace(std::sync::Arc::new(other)),
        trace_id: Some(scene.trace("trace")),
        decision: Some(decision(Decision::Deny, scene.at(99))),
        approval: Some(crate::jobs::ApprovalRecord::default()),
        deadline: Some(scene.secs(3)),
        outcome: Some(TerminalDetail {
            error_code: "late".to_owned(),
            ..TerminalDetail::default()
        }),
        dead_letter: true,
        ..change(&id, JobEvent::Expire, scene.at(99))
    };
    assert!(matches!(outcome(fixture, lost).await, Outcome::Conflict { .. }));
    assert_eq!(snapshot(fixture, &id).await, before);
    assert_eq!(
        fixture.jobs.request(&id).await.expect("request"),
        Some(super::support::request(&id))
    );
    assert!(fixture.jobs.decisions(&id, 9).await.expect("decisions").is_empty());
    assert_eq!(fixture.dlq.get(&id).await.expect("get"), None);
    assert!(
        fixture
            .jobs
            .trace(&scene.trace("trace"), 9)
            .await
            .expect("trace")
            .is_empty()
    );
}
