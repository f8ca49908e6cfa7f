//! What is kept while people are asked, and the log of decisions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::support::{apply, change, constraints, create, decision, dispatch, outcome, reach, record, state};
use crate::jobs::{
    ApprovalRecord, ApprovalTerms, Change, Cursor, Decision, DecisionPage, DecisionQuery, DecisionRecord, JobEvent,
    JobState, LoggedDecision, OnExpiry, Outcome, Revision,
};
use crate::protocol::JobId;
use crate::protocol::agent::{PolicyCheckRequest, PolicyRemediation};
use crate::test_util::conformance::{Fixture, Scene};
use crate::time::Timestamp;

fn vote(by: &str, at: Timestamp) -> ApprovalRecord {
    ApprovalRecord {
        by: by.to_owned(),
        role: "secops".to_owned(),
        at,
        reason: "looks \"good\", größer".to_owned(),
        note: String::new(),
        policy_snapshot: "v1:abc".to_owned(),
        job_hash: "f".repeat(64),
    }
}

fn terms(expires_after: Option<Duration>) -> ApprovalTerms {
    ApprovalTerms {
        quorum: 3,
        expires_after,
        on_expiry: OnExpiry::Allow,
    }
}

fn asks(id: &JobId, at: Timestamp, expires_after: Option<Duration>) -> Change {
    Change {
        decision: Some(DecisionRecord {
            approval_required: true,
            terms: Some(terms(expires_after)),
            ..decision(Decision::RequireApproval, at)
        }),
        ..change(id, JobEvent::RequireApproval, at)
    }
}

fn votes(id: &JobId, by: &str, at: Timestamp) -> Change {
    Change {
        vote: Some(vote(by, at)),
        ..Change::new(id.clone(), JobEvent::Vote, at)
    }
}

/// In order, until a new decision asks again.
pub async fn votes_are_kept_until_asked_again(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    apply(fixture, asks(&id, scene.secs(1), None)).await;
    assert!(record(fixture, &id).await.votes.is_empty());
    apply(fixture, votes(&id, "anna", scene.secs(2))).await;
    apply(fixture, votes(&id, "bert \"ü\"", scene.secs(3))).await;
    let both = [vote("anna", scene.secs(2)), vote("bert \"ü\"", scene.secs(3))];
    assert_eq!(record(fixture, &id).await.votes, both);

    // Asking twice is no change.
    let again = outcome(fixture, asks(&id, scene.secs(4), None)).await;
    assert!(matches!(again, Outcome::Conflict { .. }), "{again:?}");
    assert_eq!(record(fixture, &id).await.votes, both);
    let last = Change {
        vote: Some(vote("carl", scene.secs(5))),
        approval: Some(vote("carl", scene.secs(5))),
        ..Change::new(id.clone(), JobEvent::Approve, scene.secs(5))
    };
    apply(fixture, last).await;
    let seen = record(fixture, &id).await;
    assert_eq!((seen.state, seen.votes.len()), (JobState::Pending, 3));

    apply(fixture, asks(&id, scene.secs(6), None)).await;
    assert!(record(fixture, &id).await.votes.is_empty());
    apply(fixture, votes(&id, "dora", scene.secs(7))).await;
    apply(fixture, change(&id, JobEvent::Rejudge, scene.secs(7))).await;
    // Asked again with a vote in the same change: forgotten first.
    let again = Change {
        vote: Some(vote("emil", scene.secs(8))),
        ..asks(&id, scene.secs(8), None)
    };
    apply(fixture, again).await;
    assert_eq!(record(fixture, &id).await.votes, [vote("emil", scene.secs(8))]);
}

/// So that of two votes on one revision one is applied; but it makes no event.
pub async fn a_vote_makes_a_revision_and_no_event(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let asked = reach(fixture, &id, JobState::ApprovalRequired, scene.secs(1)).await;
    let events = fixture.jobs.events(&id).await.expect("events");
    let changes: Vec<Change> = (0..8)
        .map(|i| Change {
            expected: Some(asked),
            ..votes(&id, &format!("voter-{i}"), scene.secs(1))
        })
        .collect();
    let outcomes = futures::future::join_all(changes.into_iter().map(|change| outcome(fixture, change))).await;
    let applied: Vec<Revision> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Applied(applied) => Some(applied.revision),
            _ => None,
        })
        .collect();
    assert_eq!(applied.len(), 1, "{outcomes:?}");
    let seen = record(fixture, &id).await;
    assert_eq!((seen.revision, seen.votes.len()), (applied[0], 1));
    assert!(applied[0] > asked);
    assert_eq!(fixture.jobs.events(&id).await.expect("events"), events);

    // The scan finds it at its new revision, once.
    let until = scene.secs(9);
    let found: Vec<_> = fixture
        .jobs
        .scan(JobState::ApprovalRequired, until, None, 10_000)
        .await
        .expect("scan")
        .into_iter()
        .filter(|item| item.id == id)
        .map(|item| item.revision)
        .collect();
    assert_eq!(found, [applied[0]]);
}

/// Terms, safer ways and input come back; the record of the job may lack the input.
pub async fn decisions_are_kept_whole(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let whole = DecisionRecord {
        constraints: Some(constraints()),
        approval_required: true,
        approval_ref: id.as_str().to_owned(),
        terms: Some(terms(Some(Duration::from_millis(1_500)))),
        remediations: vec![
            PolicyRemediation {
                id: "read-only".to_owned(),
                title: "ask to \"read\", größer".to_owned(),
                ..PolicyRemediation::default()
            },
            PolicyRemediation::default(),
        ],
        input: Some(Arc::new(PolicyCheckRequest {
            job_id: id.as_str().to_owned(),
            topic: "job.tests".to_owned(),
            effective_config: vec![0, 255, 7],
            ..PolicyCheckRequest::default()
        })),
        ..decision(Decision::RequireApproval, scene.secs(1))
    };
    let ask = Change {
        decision: Some(whole.clone()),
        ..change(&id, JobEvent::RequireApproval, scene.secs(1))
    };
    apply(fixture, ask).await;
    let mut seen = record(fixture, &id).await.decision.expect("a decision");
    seen.input.clone_from(&whole.input);
    assert_eq!(seen, whole);
    assert_eq!(
        fixture.jobs.decisions(&id, 9).await.expect("decisions"),
        std::slice::from_ref(&whole)
    );

    // A later decision leaves nothing of it.
    apply(fixture, change(&id, JobEvent::Rejudge, scene.secs(2))).await;
    let bare = DecisionRecord::new(Decision::Allow, scene.secs(3));
    let run = Change {
        decision: Some(bare.clone()),
        ..dispatch(&id, scene.secs(3))
    };
    apply(fixture, run).await;
    assert_eq!(record(fixture, &id).await.decision, Some(bare.clone()));
    assert_eq!(fixture.jobs.decisions(&id, 9).await.expect("decisions"), [bare, whole]);
}

async fn due(fixture: &Fixture, scene: &Scene, now: Timestamp) -> Vec<JobId> {
    let mut due = fixture.jobs.approvals_due(now, 10_000).await.expect("due");
    due.retain(|id| scene.owns(id.as_str()));
    due
}

/// Earliest first, from the decision's time on, and only while the job waits.
pub async fn approvals_are_due(fixture: &Fixture) {
    let scene = Scene::new();
    let (late, early, never) = (scene.job("a-late"), scene.job("b-early"), scene.job("c-never"));
    for (id, after) in [(&late, Some(40)), (&early, Some(20)), (&never, None)] {
        create(fixture, id, scene.at(0)).await;
        apply(fixture, asks(id, scene.secs(1), after.map(Duration::from_secs))).await;
    }
    assert_eq!(
        due(fixture, &scene, scene.secs(21).minus(Duration::from_micros(1))).await,
        []
    );
    assert_eq!(due(fixture, &scene, scene.secs(21)).await, std::slice::from_ref(&early));
    assert_eq!(
        due(fixture, &scene, scene.secs(41)).await,
        [early.clone(), late.clone()]
    );
    assert_eq!(fixture.jobs.approvals_due(scene.secs(41), 0).await.expect("due"), []);

    // A vote does not put it off; a new decision does.
    apply(fixture, votes(&early, "anna", scene.secs(5))).await;
    assert_eq!(due(fixture, &scene, scene.secs(21)).await, std::slice::from_ref(&early));
    apply(fixture, change(&early, JobEvent::Rejudge, scene.secs(9))).await;
    apply(fixture, asks(&early, scene.secs(10), Some(Duration::from_secs(50)))).await;
    assert_eq!(due(fixture, &scene, scene.secs(59)).await, std::slice::from_ref(&late));
    assert_eq!(
        due(fixture, &scene, scene.secs(60)).await,
        [late.clone(), early.clone()]
    );
    apply(fixture, change(&early, JobEvent::Rejudge, scene.secs(9))).await;
    apply(fixture, asks(&early, scene.secs(11), None)).await;
    assert_eq!(due(fixture, &scene, scene.secs(99)).await, std::slice::from_ref(&late));
}

/// By every way out.
pub async fn what_left_approval_is_not_due(fixture: &Fixture) {
    let scene = Scene::new();
    let ways = [
        JobEvent::Approve,
        JobEvent::Rejudge,
        JobEvent::Deny,
        JobEvent::Fail,
        JobEvent::Cancel,
        JobEvent::Expire,
    ];
    for (i, event) in ways.into_iter().enumerate() {
        let id = scene.job(&i.to_string());
        create(fixture, &id, scene.at(0)).await;
        apply(fixture, asks(&id, scene.secs(1), Some(Duration::from_secs(1)))).await;
        assert_eq!(due(fixture, &scene, scene.secs(9)).await, std::slice::from_ref(&id));
        apply(fixture, change(&id, event, scene.secs(3))).await;
        assert_eq!(state(fixture, &id).await, Some(event.target()));
        assert!(due(fixture, &scene, scene.secs(9)).await.is_empty(), "{event:?}");
    }
}

async fn log(fixture: &Fixture, query: &DecisionQuery) -> DecisionPage {
    fixture.jobs.decision_log(query).await.expect("decision log")
}

/// All pages of the case's own decisions.
async fn logged(fixture: &Fixture, scene: &Scene, mut query: DecisionQuery) -> Vec<LoggedDecision> {
    let mut all = Vec::new();
    loop {
        let page = log(fixture, &query).await;
        assert!(page.items.len() <= query.limit);
        all.extend(
            page.items
                .into_iter()
                .filter(|logged| scene.owns(logged.job_id.as_str())),
        );
        match page.next {
            Some(next) => query.after = Some(next.to_string().parse::<Cursor>().expect("a cursor")),
            None => return all,
        }
    }
}

/// Every decision of every job once, newest first, within its times.
pub async fn the_log_has_every_decision_once(fixture: &Fixture) {
    let scene = Scene::new();
    let mut expected = Vec::new();
    for i in 0..7_u64 {
        let id = scene.job(&i.to_string());
        create(fixture, &id, scene.at(0)).await;
        for n in 0..3 {
            // Some at the same time.
            let at = scene.secs(10 * n + i / 2);
            let decision = DecisionRecord {
                input: Some(Arc::new(PolicyCheckRequest {
                    job_id: id.as_str().to_owned(),
                    ..PolicyCheckRequest::default()
                })),
                ..decision(Decision::Throttle, at)
            };
            let park = Change {
                decision: Some(decision.clone()),
                ..change(&id, JobEvent::Park, at)
            };
            apply(fixture, park).await;
            expected.push((at, id.clone(), decision));
        }
    }
    let range = DecisionQuery {
        from: Some(scene.at(0)),
        until: Some(scene.secs(100)),
        after: None,
        limit: 4,
    };
    let all = logged(fixture, &scene, range.clone()).await;
    assert_eq!(all.len(), expected.len());
    assert!(
        all.windows(2)
            .all(|pair| pair[0].decision.checked_at >= pair[1].decision.checked_at)
    );
    for (_, id, decision) in &expected {
        let same = |logged: &&LoggedDecision| logged.job_id == *id && logged.decision == *decision;
        assert_eq!(all.iter().filter(same).count(), 1);
    }
    let whole = logged(
        fixture,
        &scene,
        DecisionQuery {
            limit: 500,
            ..range.clone()
        },
    )
    .await;
    assert_eq!(whole, all);

    // From is in, until is not.
    let part = DecisionQuery {
        from: Some(scene.secs(10)),
        until: Some(scene.secs(12)),
        ..range.clone()
    };
    let times: BTreeSet<Timestamp> = logged(fixture, &scene, part)
        .await
        .iter()
        .map(|logged| logged.decision.checked_at)
        .collect();
    assert_eq!(times, BTreeSet::from([scene.secs(10), scene.secs(11)]));

    // A bare time begins with the decisions of exactly that time.
    let bare = DecisionQuery {
        after: Some(Cursor {
            at: scene.secs(11),
            id: String::new(),
        }),
        ..range.clone()
    };
    let found = logged(fixture, &scene, bare).await;
    assert_eq!(found[0].decision.checked_at, scene.secs(11));
    assert!(
        log(fixture, &DecisionQuery { limit: 0, ..range })
            .await
            .items
            .is_empty()
    );
}

/// A change that is not applied decides nothing; one that is repeated decides once.
pub async fn the_log_has_what_was_applied(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let with = |event, at: Timestamp| Change {
        decision: Some(decision(Decision::Allow, at)),
        ..change(&id, event, at)
    };
    assert!(matches!(
        outcome(fixture, with(JobEvent::Approve, scene.secs(1))).await,
        Outcome::Conflict { .. }
    ));
    let run = with(JobEvent::Dispatch, scene.secs(2));
    apply(fixture, run.clone()).await;
    apply(fixture, run).await;
    let query = DecisionQuery {
        from: Some(scene.at(0)),
        until: Some(scene.secs(9)),
        after: None,
        limit: 100,
    };
    let found = logged(fixture, &scene, query).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].decision.checked_at, scene.secs(2));
}

/// With the metadata of jobs.
pub async fn the_sweep_shortens_the_log(fixture: &Fixture) {
    let scene = Scene::new();
    let (old, young) = (scene.job("old"), scene.job("young"));
    for (id, at) in [(&old, scene.secs(1)), (&young, scene.secs(3))] {
        create(fixture, id, scene.at(0)).await;
        let park = Change {
            decision: Some(decision(Decision::Throttle, at)),
            ..change(id, JobEvent::Park, at)
        };
        apply(fixture, park).await;
    }
    let query = DecisionQuery {
        from: Some(scene.at(0)),
        until: Some(scene.secs(9)),
        after: None,
        limit: 100,
    };
    while fixture
        .jobs
        .sweep(scene.secs(2).plus(fixture.meta_ttl()))
        .await
        .expect("sweep")
        > 0
    {}
    let found: Vec<JobId> = logged(fixture, &scene, query)
        .await
        .into_iter()
        .map(|logged| logged.job_id)
        .collect();
    assert_eq!(found, [young]);
    // The job itself waits on, with its decisions.
    assert_eq!(fixture.jobs.decisions(&old, 9).await.expect("decisions").len(), 1);
}
