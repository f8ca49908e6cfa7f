//! The [`DecisionLog`] over every job store.

use std::sync::Arc;

use super::{Fixture, Scene};
use crate::decisions::{DecisionFilter, DecisionItem, DecisionLog};
use crate::jobs::{Change, Decision, DecisionRecord, JobEvent, JobStoreExt, NewJob, Outcome};
use crate::protocol::JobId;
use crate::protocol::agent::{JobRequest, PolicyCheckRequest};
use crate::time::Timestamp;

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! decision_log_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, decisions:
            filters_choose_decisions,
            pages_of_decisions_cover_everything_once,
            a_job_has_its_own_list,
            the_job_says_what_was_not_kept_with_the_decision,
        );
    };
}

async fn create(fixture: &Fixture, id: &JobId, topic: &str, at: Timestamp) {
    let request = JobRequest {
        job_id: id.as_str().to_owned(),
        topic: topic.to_owned(),
        tenant_id: "of-the-job".to_owned(),
        ..JobRequest::default()
    };
    let new = NewJob {
        id: id.clone(),
        request: Arc::new(request),
        trace_id: None,
        payload: None,
        idempotency: None,
        deadline: None,
        at,
    };
    fixture.jobs.create(new).await.expect("create");
}

async fn decide(fixture: &Fixture, id: &JobId, decision: DecisionRecord) {
    let at = decision.checked_at;
    let park = Change {
        decision: Some(decision),
        ..Change::new(id.clone(), JobEvent::Park, at)
    };
    let outcome = fixture.jobs.apply(park).await.expect("apply");
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

fn judged(scene: &Scene, verdict: Decision, rule: &str, topic: &str, at: Timestamp) -> DecisionRecord {
    DecisionRecord {
        rule_id: scene.name(rule),
        input: Some(Arc::new(PolicyCheckRequest {
            topic: scene.name(topic),
            tenant: scene.name("tenant"),
            ..PolicyCheckRequest::default()
        })),
        ..DecisionRecord::new(verdict, at)
    }
}

/// All pages.
async fn all(fixture: &Fixture, mut filter: DecisionFilter) -> Vec<DecisionItem> {
    let log = DecisionLog::new(Arc::clone(&fixture.jobs));
    let mut all = Vec::new();
    loop {
        let page = log.list(&filter).await.expect("list");
        assert!(page.items.len() <= filter.limit);
        all.extend(page.items);
        match page.next {
            Some(next) => filter.cursor = Some(next.to_string().parse().expect("a cursor")),
            None => return all,
        }
    }
}

fn times(items: &[DecisionItem]) -> Vec<Timestamp> {
    items.iter().map(|item| item.decision.checked_at).collect()
}

/// Each alone, and together.
pub async fn filters_choose_decisions(fixture: &Fixture) {
    let scene = Scene::new();
    let (one, two) = (scene.job("one"), scene.job("two"));
    for (id, at) in [(&one, scene.at(0)), (&two, scene.at(1))] {
        create(fixture, id, "job.tests", at).await;
    }
    decide(
        fixture,
        &one,
        judged(&scene, Decision::Throttle, "r1", "a", scene.secs(1)),
    )
    .await;
    decide(fixture, &two, judged(&scene, Decision::Deny, "r2", "b", scene.secs(2))).await;
    decide(fixture, &one, judged(&scene, Decision::Allow, "r2", "a", scene.secs(3))).await;
    let tenant = DecisionFilter {
        tenant: Some(scene.name("tenant")),
        limit: 2,
        ..DecisionFilter::default()
    };
    let check = async |filter: DecisionFilter, expected: &[u64]| {
        let expected: Vec<Timestamp> = expected.iter().map(|secs| scene.secs(*secs)).collect();
        assert_eq!(times(&all(fixture, filter.clone()).await), expected, "{filter:?}");
    };
    check(tenant.clone(), &[3, 2, 1]).await;
    let rule = DecisionFilter {
        rule: Some(scene.name("r2")),
        ..tenant.clone()
    };
    check(rule.clone(), &[3, 2]).await;
    let topic = DecisionFilter {
        topic: Some(scene.name("a")),
        ..tenant.clone()
    };
    check(topic.clone(), &[3, 1]).await;
    check(
        DecisionFilter {
            topic: topic.topic,
            ..rule
        },
        &[3],
    )
    .await;
    let verdict = DecisionFilter {
        decision: Some(Decision::Deny),
        ..tenant.clone()
    };
    check(verdict, &[2]).await;
    let range = DecisionFilter {
        from: Some(scene.secs(2)),
        until: Some(scene.secs(3)),
        ..tenant.clone()
    };
    check(range, &[2]).await;
    let job = DecisionFilter {
        job_id: Some(one.clone()),
        ..tenant.clone()
    };
    check(job, &[3, 1]).await;
    let nothing = DecisionFilter {
        rule: Some(scene.name("none")),
        ..tenant
    };
    check(nothing, &[]).await;
}

/// Also when many are made in one microsecond.
pub async fn pages_of_decisions_cover_everything_once(fixture: &Fixture) {
    let scene = Scene::new();
    for i in 0..11 {
        let id = scene.job(&i.to_string());
        create(fixture, &id, "job.tests", scene.at(0)).await;
        for at in [scene.secs(1), scene.secs(2 + i / 4)] {
            decide(fixture, &id, judged(&scene, Decision::Throttle, "r", "t", at)).await;
        }
    }
    let filter = |limit| DecisionFilter {
        from: Some(scene.at(0)),
        until: Some(scene.secs(60)),
        tenant: Some(scene.name("tenant")),
        limit,
        ..DecisionFilter::default()
    };
    let whole = all(fixture, filter(1_000)).await;
    assert_eq!(whole.len(), 22);
    for limit in [1, 3, 21, 22] {
        assert_eq!(all(fixture, filter(limit)).await, whole, "{limit}");
    }
    // Without a choice of its own.
    let bare = DecisionFilter {
        tenant: None,
        ..filter(4)
    };
    let mut seen = all(fixture, bare).await;
    seen.retain(|item| scene.owns(item.job_id.as_str()));
    assert_eq!(seen, whole);
}

/// Page by page, in the order of the log.
pub async fn a_job_has_its_own_list(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, "job.tests", scene.at(0)).await;
    for secs in [1, 2, 2, 2, 3] {
        decide(
            fixture,
            &id,
            judged(&scene, Decision::Throttle, "r", "t", scene.secs(secs)),
        )
        .await;
    }
    let filter = |limit| DecisionFilter {
        job_id: Some(id.clone()),
        limit,
        ..DecisionFilter::default()
    };
    let whole = all(fixture, filter(100)).await;
    assert_eq!(times(&whole), [3, 2, 2, 2, 1].map(|secs| scene.secs(secs)));
    for limit in [1, 2, 5] {
        assert_eq!(all(fixture, filter(limit)).await, whole, "{limit}");
    }
    let missing = DecisionFilter {
        job_id: Some(scene.job("missing")),
        ..filter(5)
    };
    assert!(all(fixture, missing).await.is_empty());
}

/// Decisions that were stored without their input.
pub async fn the_job_says_what_was_not_kept_with_the_decision(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, &scene.name("job.tests"), scene.at(0)).await;
    decide(fixture, &id, DecisionRecord::new(Decision::Throttle, scene.secs(1))).await;
    decide(fixture, &id, judged(&scene, Decision::Allow, "r", "t", scene.secs(2))).await;
    let filter = DecisionFilter {
        topic: Some(scene.name("job.tests")),
        limit: 5,
        ..DecisionFilter::default()
    };
    let found = all(fixture, filter).await;
    assert_eq!(times(&found), [scene.secs(1)]);
    assert_eq!(found[0].tenant, "of-the-job");
}
