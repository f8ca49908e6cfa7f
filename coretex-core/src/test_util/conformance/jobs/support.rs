//! What the cases have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::jobs::{
    Admission, Applied, Change, Decision, DecisionRecord, JobEvent, JobRecord, JobState, JobStoreExt, NewJob, Outcome,
    RequestWrite, Revision,
};
use crate::protocol::agent::{BudgetConstraints, JobMetadata, JobRequest, PolicyConstraints};
use crate::protocol::{JobId, WorkerId};
use crate::test_util::conformance::{Fixture, Scene};
use crate::time::Timestamp;

pub(super) fn request(id: &JobId) -> JobRequest {
    JobRequest {
        job_id: id.as_str().to_owned(),
        topic: "job.tests".to_owned(),
        context_ptr: format!("redis://ctx:{id}"),
        ..JobRequest::default()
    }
}

/// A request that fills every descriptive field.
pub(super) fn full_request(scene: &Scene, id: &JobId) -> JobRequest {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    JobRequest {
        memory_id: "memory é".to_owned(),
        principal_id: "principal".to_owned(),
        env: pairs(&[("team_id", "team"), ("tenant_id", "not this one"), ("empty", "")]),
        labels: pairs(&[("a", "1"), ("shared", "of the request")]),
        meta: Some(JobMetadata {
            tenant_id: scene.tenant("tenant").as_str().to_owned(),
            actor_id: "actor".to_owned(),
            actor_type: crate::protocol::agent::ActorType::Human.into(),
            idempotency_key: String::new(),
            capability: "write \"code\"".to_owned(),
            risk_tags: vec!["prod".to_owned(), String::new(), "größe".to_owned()],
            requires: vec!["git".to_owned()],
            pack_id: "pack".to_owned(),
            labels: pairs(&[("b", "2"), ("shared", "of the metadata")]),
        }),
        ..request(id)
    }
}

pub(super) fn new_job(id: &JobId, at: Timestamp) -> NewJob {
    NewJob {
        id: id.clone(),
        request: Arc::new(request(id)),
        trace_id: None,
        payload: None,
        idempotency: None,
        deadline: None,
        at,
    }
}

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId::try_new(name).expect("case names are ids")
}

pub(super) fn decision(decision: Decision, at: Timestamp) -> DecisionRecord {
    DecisionRecord {
        reason: "because it is \"so\", größer".to_owned(),
        rule_id: "rule-1".to_owned(),
        policy_snapshot: "v1:abc".to_owned(),
        matched: vec!["topics: job.* matches job.tests".to_owned()],
        ..DecisionRecord::new(decision, at)
    }
}

pub(super) fn constraints() -> PolicyConstraints {
    PolicyConstraints {
        budgets: Some(BudgetConstraints {
            max_runtime_ms: 9_007_199_254_740_993,
            max_retries: 2,
            ..BudgetConstraints::default()
        }),
        redaction_level: "strict".to_owned(),
        ..PolicyConstraints::default()
    }
}

/// The change that makes `event` happen, with the request when the job may be new.
pub(super) fn change(id: &JobId, event: JobEvent, at: Timestamp) -> Change {
    Change {
        request: RequestWrite::IfAbsent(Arc::new(request(id))),
        ..Change::new(id.clone(), event, at)
    }
}

pub(super) fn dispatch(id: &JobId, at: Timestamp) -> Change {
    Change {
        worker_id: Some(worker("worker-1")),
        placement: "least loaded of 3".to_owned(),
        ..change(id, JobEvent::Dispatch, at)
    }
}

pub(super) async fn create(fixture: &Fixture, id: &JobId, at: Timestamp) -> Revision {
    match fixture.jobs.create(new_job(id, at)).await.expect("create") {
        Admission::Accepted(revision) => revision,
        other => panic!("{id} was not accepted: {other:?}"),
    }
}

pub(super) async fn outcome(fixture: &Fixture, change: Change) -> Outcome {
    fixture.jobs.apply(change).await.expect("apply")
}

pub(super) async fn apply(fixture: &Fixture, change: Change) -> Applied {
    let what = format!("{:?} of {}", change.event, change.id);
    match outcome(fixture, change).await {
        Outcome::Applied(applied) => applied,
        other => panic!("{what} was not applied: {other:?}"),
    }
}

pub(super) async fn record(fixture: &Fixture, id: &JobId) -> JobRecord {
    fixture.jobs.get(id).await.expect("get").expect("the job is there")
}

pub(super) async fn state(fixture: &Fixture, id: &JobId) -> Option<JobState> {
    fixture.jobs.get(id).await.expect("get").map(|record| record.state)
}

/// Every state that changes alone can bring a job to.
pub(super) const REACHABLE: [JobState; 8] = [
    JobState::Pending,
    JobState::ApprovalRequired,
    JobState::Running,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Timeout,
    JobState::Denied,
];

/// Every event there is.
pub(super) const EVENTS: [JobEvent; 17] = [
    JobEvent::Submit,
    JobEvent::Park,
    JobEvent::RequireApproval,
    JobEvent::Vote,
    JobEvent::Rejudge,
    JobEvent::Approve,
    JobEvent::Deny,
    JobEvent::Dispatch,
    JobEvent::Requeue,
    JobEvent::Fail,
    JobEvent::Finish(JobState::Succeeded),
    JobEvent::Finish(JobState::Failed),
    JobEvent::Finish(JobState::Cancelled),
    JobEvent::Finish(JobState::Timeout),
    JobEvent::Finish(JobState::Denied),
    JobEvent::Cancel,
    JobEvent::Expire,
];

/// Makes a job and brings it to `state`.
pub(super) async fn reach(fixture: &Fixture, id: &JobId, state: JobState, at: Timestamp) -> Revision {
    let created = create(fixture, id, at).await;
    let event = match state {
        JobState::ApprovalRequired => JobEvent::RequireApproval,
        JobState::Scheduled | JobState::Dispatched | JobState::Running => JobEvent::Dispatch,
        JobState::Succeeded => {
            apply(fixture, dispatch(id, at)).await;
            JobEvent::Finish(JobState::Succeeded)
        }
        JobState::Failed => JobEvent::Fail,
        JobState::Cancelled => JobEvent::Cancel,
        JobState::Timeout => JobEvent::Expire,
        JobState::Denied => JobEvent::Deny,
        JobState::Pending => return created,
    };
    let last = match event {
        JobEvent::Dispatch => dispatch(id, at),
        _ => change(id, event, at),
    };
    let applied = apply(fixture, last).await;
    assert_eq!(self::state(fixture, id).await, Some(event.target()));
    applied.revision
}
