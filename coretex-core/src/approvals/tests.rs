use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::jobs::{ApprovalTerms, OnExpiry, Revision};
use crate::time::Timestamp;

const AT: Timestamp = Timestamp::from_micros(1_000_000);

fn later(secs: u64) -> Timestamp {
    AT.plus(Duration::from_secs(secs))
}

fn request() -> JobRequest {
    JobRequest {
        job_id: "j1".to_owned(),
        topic: "job.x".to_owned(),
        ..JobRequest::default()
    }
}

fn vote(by: &str, snapshot: &str, hash: &str) -> ApprovalRecord {
    ApprovalRecord {
        by: by.to_owned(),
        at: AT,
        policy_snapshot: snapshot.to_owned(),
        job_hash: hash.to_owned(),
        ..ApprovalRecord::default()
    }
}

fn waiting(quorum: u32, expires_after: Option<u64>, on_expiry: OnExpiry) -> JobRecord {
    let hash = job_hash(&request());
    JobRecord {
        id: JobId::try_new("j1").expect("an id"),
        revision: Revision(AT),
        state: JobState::ApprovalRequired,
        decision: Some(DecisionRecord {
            approval_required: true,
            policy_snapshot: "v1".to_owned(),
            job_hash: hash,
            terms: Some(ApprovalTerms {
                quorum,
                expires_after: expires_after.map(Duration::from_secs),
                on_expiry,
            }),
            ..DecisionRecord::new(Decision::RequireApproval, AT)
        }),
        trace_id: None,
        topic: "job.x".to_owned(),
        tenant: String::new(),
        team: String::new(),
        principal: String::new(),
        actor_id: String::new(),
        actor_type: String::new(),
        idempotency_key: String::new(),
        capability: String::new(),
        risk_tags: Vec::new(),
        requires: Vec::new(),
        pack_id: String::new(),
        memory_id: String::new(),
        labels: BTreeMap::new(),
        attempts: 0,
        deadline: None,
        approval: None,
        votes: Vec::new(),
        pending: None,
        owner: None,
        worker_id: None,
        placement: String::new(),
        dispatched_at: None,
        accepted_at: None,
        outcome: TerminalDetail::default(),
    }
}

#[test]
fn only_votes_on_what_is_asked_count_and_each_principal_once() {
    let mut record = waiting(2, None, OnExpiry::Deny);
    let hash = job_hash(&request());
    record.votes = vec![
        vote("ann", "v0", &hash),
        vote("ann", "v1", "another"),
        vote("bob", "v1", &hash),
        vote("bob", "v1", &hash),
    ];
    let tally = Tally::of(&record);
    assert_eq!((tally.approvals(), tally.quorum), (1, 2));
    assert!(tally.has("bob") && !tally.has("ann"));
    assert_eq!(tally.with("ann").approvals(), 2);
}

#[test]
fn a_quorum_of_nothing_is_one() {
    assert_eq!(Tally::of(&waiting(0, None, OnExpiry::Deny)).quorum, 1);
    let mut bare = waiting(3, None, OnExpiry::Deny);
    bare.decision = None;
    assert_eq!(Tally::of(&bare).quorum, 1);
}

#[test]
fn a_job_is_granted_by_as_many_as_it_takes() {
    let hash = job_hash(&request());
    let check = |quorum, by: &str, votes: &[&str], expected: bool| {
        let mut record = waiting(quorum, None, OnExpiry::Allow);
        record.approval = Some(vote(by, "v1", &hash));
        record.votes = votes.iter().map(|by| vote(by, "v1", &hash)).collect();
        assert_eq!(is_granted(&record), expected, "{quorum} {by} {votes:?}");
    };
    check(1, "ann", &["ann"], true);
    check(1, "ann", &[], true); // As an older control plane leaves it.
    check(2, "ann", &["ann"], false);
    check(2, "bob", &["ann", "bob"], true);
    check(2, ON_EXPIRY, &[], true);

    let mut other = waiting(1, None, OnExpiry::Deny);
    assert!(!is_granted(&other), "nobody has said anything");
    other.approval = Some(vote("ann", "v0", &hash));
    assert!(!is_granted(&other), "under another policy");
    other.approval = Some(vote("ann", "v1", "another"));
    assert!(!is_granted(&other), "to another request");
}

#[test]
fn the_end_of_the_time() {
    let active = ["v1".to_owned(), "v0".to_owned()];
    let newer = ["v2".to_owned()];
    let mut edited = request();
    edited.topic = "job.y".to_owned();
    let end = |record: &JobRecord, request: Option<JobRequest>, active: Option<&[String]>, secs| {
        expiry::change(record, request, active, later(secs)).map(|change| change.event)
    };

    let denies = waiting(2, Some(60), OnExpiry::Deny);
    assert_eq!(end(&denies, None, None, 59), None, "not yet");
    assert_eq!(
        end(&denies, None, None, 60),
        Some(JobEvent::Deny),
        "at the end, whatever policy says"
    );
    assert_eq!(
        end(&waiting(1, None, OnExpiry::Deny), None, None, 1_000_000),
        None,
        "for ever"
    );

    let allows = waiting(2, Some(60), OnExpiry::Allow);
    assert_eq!(end(&allows, Some(request()), Some(&active), 59), None);
    assert_eq!(
        end(&allows, Some(request()), Some(&active), 60),
        Some(JobEvent::Approve)
    );
    assert_eq!(
        end(&allows, Some(request()), None, 60),
        None,
        "nobody knows which policy is in force"
    );
    assert_eq!(end(&allows, Some(request()), Some(&newer), 60), Some(JobEvent::Rejudge));
    assert_eq!(end(&allows, Some(edited), Some(&active), 60), Some(JobEvent::Rejudge));
    assert_eq!(end(&allows, None, Some(&active), 60), Some(JobEvent::Rejudge));

    let over = JobRecord {
        state: JobState::Pending,
        ..allows
    };
    assert_eq!(end(&over, Some(request()), Some(&active), 60), None);
}

#[test]
fn an_expired_job_says_why_it_was_denied_and_is_on_record() {
    let change = expiry::change(&waiting(2, Some(60), OnExpiry::Deny), None, None, later(61)).expect("a change");
    let outcome = change.outcome.expect("an outcome");
    assert_eq!(outcome.error_code, "approval_expired");
    assert_eq!(outcome.error_message, "nobody decided in time (0 of 2 approvals)");
    assert!(change.dead_letter && change.approval.is_none());
    let audit = change.audit.expect("an audit record");
    assert_eq!(
        (audit.action.as_str(), audit.actor.as_str()),
        ("approval.expire", "policy:on_expiry")
    );
    assert_eq!(audit.detail["outcome"], "deny");
    assert_eq!(change.expected, Some(Revision(AT)));
}
