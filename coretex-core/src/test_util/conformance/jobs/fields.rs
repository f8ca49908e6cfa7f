//! What is kept with a job.

use std::sync::Arc;

use super::support::{
    apply, change, constraints, create, decision, dispatch, full_request, new_job, reach, record, request, worker,
};
use crate::jobs::{
    Admission, ApprovalRecord, Change, Decision, DecisionRecord, Description, JobEvent, JobRecord, JobState,
    JobStoreExt, NewJob, Note, PendingNote, PendingReason, RequestWrite, TerminalDetail,
};
use crate::pointers::Pointer;
use crate::protocol::JobId;
use crate::protocol::agent::PolicyConstraints;
use crate::test_util::conformance::{Fixture, Scene};

async fn note(fixture: &Fixture, notes: &[Note]) {
    fixture.jobs.note_many(notes).await.expect("note");
}

/// While it is placed with that worker; not after, and not from another.
pub async fn acceptance_is_noted(fixture: &Fixture) {
    let scene = Scene::new();
    let (running, pending, ended) = (scene.job("running"), scene.job("pending"), scene.job("ended"));
    reach(fixture, &running, JobState::Running, scene.at(0)).await;
    reach(fixture, &pending, JobState::Pending, scene.at(0)).await;
    reach(fixture, &ended, JobState::Succeeded, scene.at(0)).await;
    let accepted = |id: &JobId, who: &str| Note::Accepted {
        id: id.clone(),
        worker_id: worker(who),
        at: scene.secs(1),
    };
    note(fixture, &[accepted(&running, "somebody-else")]).await;
    assert_eq!(record(fixture, &running).await.accepted_at, None);
    let revision = record(fixture, &running).await.revision;
    let notes = [&running, &pending, &ended, &scene.job("missing")].map(|id| accepted(id, "worker-1"));
    note(fixture, &notes).await;
    let seen = record(fixture, &running).await;
    assert_eq!((seen.accepted_at, seen.revision), (Some(scene.secs(1)), revision));
    assert_eq!(record(fixture, &pending).await.accepted_at, None);
    assert_eq!(record(fixture, &ended).await.accepted_at, None);
    assert_eq!(fixture.jobs.get(&scene.job("missing")).await.expect("get"), None);

    // The next worker has yet to confirm.
    apply(fixture, change(&running, JobEvent::Requeue, scene.secs(2))).await;
    apply(fixture, dispatch(&running, scene.secs(3))).await;
    assert_eq!(record(fixture, &running).await.accepted_at, None);
}

/// While it is pending.
pub async fn waiting_is_noted(fixture: &Fixture) {
    let scene = Scene::new();
    let (pending, running) = (scene.job("pending"), scene.job("running"));
    let revision = reach(fixture, &pending, JobState::Pending, scene.at(0)).await;
    reach(fixture, &running, JobState::Running, scene.at(0)).await;
    let why = PendingNote {
        reason: PendingReason::NoWorkers,
        detail: "label region=eu missing on 2".to_owned(),
    };
    let notes = [&pending, &running, &scene.job("missing")].map(|id| Note::Waiting {
        id: id.clone(),
        pending: why.clone(),
        owner: scene.instance("me"),
    });
    note(fixture, &notes).await;
    let seen = record(fixture, &pending).await;
    assert_eq!((seen.pending, seen.owner), (Some(why), Some(scene.instance("me"))));
    assert_eq!(seen.revision, revision);
    let other = record(fixture, &running).await;
    assert_eq!((other.pending, other.owner), (None, None));
    note(fixture, &[]).await;
}

/// While it is open.
pub async fn ownership_is_noted(fixture: &Fixture) {
    let scene = Scene::new();
    let open = [JobState::Pending, JobState::ApprovalRequired, JobState::Running];
    for state in open.into_iter().chain([JobState::Denied, JobState::Succeeded]) {
        let id = scene.job(state.as_str());
        reach(fixture, &id, state, scene.at(0)).await;
        for owner in ["first", "second"].map(|name| scene.instance(name)) {
            let note = Note::Owned {
                id: id.clone(),
                owner: owner.clone(),
            };
            self::note(fixture, &[note]).await;
            let expected = (!state.is_terminal()).then_some(owner);
            assert_eq!(record(fixture, &id).await.owner, expected, "{state}");
        }
    }
}

/// By every change that comes without one.
pub async fn a_pending_note_is_cleared(fixture: &Fixture) {
    let scene = Scene::new();
    for (i, event) in [
        JobEvent::Park,
        JobEvent::Dispatch,
        JobEvent::Cancel,
        JobEvent::RequireApproval,
    ]
    .into_iter()
    .enumerate()
    {
        let id = scene.job(&i.to_string());
        create(fixture, &id, scene.at(0)).await;
        let why = PendingNote {
            reason: PendingReason::Throttled,
            detail: String::new(),
        };
        let park = Change {
            pending: Some(why.clone()),
            ..change(&id, JobEvent::Park, scene.at(10))
        };
        apply(fixture, park).await;
        assert_eq!(record(fixture, &id).await.pending, Some(why));
        apply(fixture, change(&id, event, scene.at(20))).await;
        assert_eq!(record(fixture, &id).await.pending, None, "{event:?}");
    }
}

/// All of them; the last one also in the record.
pub async fn decisions_are_kept_newest_first(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let verdicts = [
        Decision::Throttle,
        Decision::RequireApproval,
        Decision::Deny,
        Decision::Allow,
        Decision::AllowWithConstraints,
    ];
    let mut expected = vec![];
    for (i, verdict) in (1_u64..).zip(verdicts) {
        let decision = DecisionRecord {
            constraints: (verdict == Decision::AllowWithConstraints).then(constraints),
            approval_required: verdict == Decision::RequireApproval,
            approval_ref: id.as_str().to_owned(),
            job_hash: format!("{i:064x}"),
            ..decision(verdict, scene.at(i))
        };
        let park = Change {
            decision: Some(decision.clone()),
            ..change(&id, JobEvent::Park, scene.at(i))
        };
        apply(fixture, park).await;
        assert_eq!(record(fixture, &id).await.decision.as_ref(), Some(&decision));
        expected.insert(0, decision);
    }
    // A change without one keeps it.
    apply(fixture, dispatch(&id, scene.at(50))).await;
    assert_eq!(record(fixture, &id).await.decision.as_ref(), expected.first());
    assert_eq!(fixture.jobs.decisions(&id, 50).await.expect("decisions"), expected);
    assert_eq!(fixture.jobs.decisions(&id, 2).await.expect("decisions"), expected[..2]);
    assert!(fixture.jobs.decisions(&id, 0).await.expect("decisions").is_empty());
    let missing = scene.job("missing");
    assert!(fixture.jobs.decisions(&missing, 9).await.expect("decisions").is_empty());
}

/// Also bare ones, and constraints that constrain nothing; a later decision leaves nothing of the earlier one.
pub async fn decisions_without_constraints_are_kept(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let bare = DecisionRecord::new(Decision::Allow, scene.at(9));
    let full = DecisionRecord {
        constraints: Some(constraints()),
        approval_required: true,
        approval_ref: "ref".to_owned(),
        job_hash: "hash".to_owned(),
        ..decision(Decision::AllowWithConstraints, scene.at(8))
    };
    let empty = DecisionRecord {
        constraints: Some(PolicyConstraints::default()),
        ..bare.clone()
    };
    for (i, decision) in (1_u64..).zip([&full, &empty, &bare]) {
        let park = Change {
            decision: Some(decision.clone()),
            ..change(&id, JobEvent::Park, scene.at(i))
        };
        apply(fixture, park).await;
        assert_eq!(record(fixture, &id).await.decision.as_ref(), Some(decision));
    }
    let decisions = fixture.jobs.decisions(&id, 9).await.expect("decisions");
    assert_eq!(decisions, [bare, empty, full]);
}

/// All of it, until the next one.
pub async fn approvals_are_kept(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    reach(fixture, &id, JobState::ApprovalRequired, scene.at(0)).await;
    let yes = ApprovalRecord {
        by: "anna".to_owned(),
        role: "secops".to_owned(),
        at: scene.at(30),
        reason: "looks \"good\"".to_owned(),
        note: "größe".to_owned(),
        policy_snapshot: "v1:abc".to_owned(),
        job_hash: "ff".to_owned(),
    };
    let approve = Change {
        approval: Some(yes.clone()),
        ..change(&id, JobEvent::Approve, scene.at(30))
    };
    apply(fixture, approve).await;
    assert_eq!(record(fixture, &id).await.approval.as_ref(), Some(&yes));
    apply(fixture, dispatch(&id, scene.at(40))).await;
    assert_eq!(record(fixture, &id).await.approval.as_ref(), Some(&yes));
    let sparse = ApprovalRecord {
        by: "bob".to_owned(),
        at: scene.at(50),
        ..ApprovalRecord::default()
    };
    let cancel = Change {
        approval: Some(sparse.clone()),
        ..change(&id, JobEvent::Cancel, scene.at(50))
    };
    apply(fixture, cancel).await;
    assert_eq!(record(fixture, &id).await.approval, Some(sparse));
}

/// Kept, replaced, or stored if there is none.
pub async fn requests_are_kept_replaced_and_filled_in(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    create(fixture, &id, scene.at(0)).await;
    let other = full_request(&scene, &id);
    let write = |write: RequestWrite, at: u64| Change {
        request: write,
        ..Change::new(id.clone(), JobEvent::Park, scene.at(at))
    };
    for kept in [RequestWrite::Keep, RequestWrite::IfAbsent(Arc::new(other.clone()))] {
        apply(fixture, write(kept, 1)).await;
        assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(request(&id)));
        assert_eq!(record(fixture, &id).await.pack_id, "");
    }
    let applied = apply(fixture, write(RequestWrite::Replace(Arc::new(other.clone())), 2)).await;
    assert_eq!(applied.tenant, scene.tenant("tenant").as_str());
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(other));
    assert_eq!(record(fixture, &id).await.pack_id, "pack");
    apply(fixture, write(RequestWrite::Replace(Arc::new(request(&id))), 3)).await;
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(request(&id)));
    let record = record(fixture, &id).await;
    assert_eq!((record.pack_id.as_str(), record.tenant.as_str()), ("", ""));
    assert!(record.labels.is_empty() && record.risk_tags.is_empty());

    // A job first heard of without a request gets it later.
    let late = scene.job("late");
    apply(fixture, Change::new(late.clone(), JobEvent::Park, scene.at(0))).await;
    assert_eq!(fixture.jobs.request(&late).await.expect("request"), None);
    apply(fixture, change(&late, JobEvent::Park, scene.at(1))).await;
    assert_eq!(
        fixture.jobs.request(&late).await.expect("request"),
        Some(request(&late))
    );
    assert_eq!(super::support::record(fixture, &late).await.topic, "job.tests");
}

fn description(record: &JobRecord) -> Description {
    Description {
        topic: record.topic.clone(),
        tenant: record.tenant.clone(),
        team: record.team.clone(),
        principal: record.principal.clone(),
        actor_id: record.actor_id.clone(),
        actor_type: record.actor_type.clone(),
        idempotency_key: record.idempotency_key.clone(),
        capability: record.capability.clone(),
        risk_tags: record.risk_tags.clone(),
        requires: record.requires.clone(),
        pack_id: record.pack_id.clone(),
        memory_id: record.memory_id.clone(),
        labels: record.labels.clone(),
    }
}

/// Whichever way the request comes in.
pub async fn descriptions_are_kept(fixture: &Fixture) {
    let scene = Scene::new();
    let (created, submitted) = (scene.job("created"), scene.job("submitted"));
    let job = NewJob {
        request: Arc::new(full_request(&scene, &created)),
        ..new_job(&created, scene.at(0))
    };
    let admission = fixture.jobs.create(job).await.expect("create");
    assert!(matches!(admission, Admission::Accepted(_)));
    let submit = Change {
        request: RequestWrite::IfAbsent(Arc::new(full_request(&scene, &submitted))),
        ..Change::new(submitted.clone(), JobEvent::Submit, scene.at(0))
    };
    assert_eq!(apply(fixture, submit).await.tenant, scene.tenant("tenant").as_str());
    for id in [created, submitted] {
        let expected = Description::of(&full_request(&scene, &id));
        let record = record(fixture, &id).await;
        assert_eq!(description(&record), expected);
        assert_eq!(record.team, "team");
        assert_eq!(record.labels["shared"], "of the metadata");
        let read = fixture.jobs.request(&id).await.expect("request");
        assert_eq!(read, Some(full_request(&scene, &id)));
    }
}

fn detail(result_ptr: &str) -> TerminalDetail {
    TerminalDetail {
        result_ptr: result_ptr.to_owned(),
        worker_id: "worker-7".to_owned(),
        execution_ms: 1_234,
        error_code: "out_of_\"luck\"".to_owned(),
        error_message: "größer\nals gedacht".to_owned(),
        artifact_ptrs: vec!["redis://art:1".to_owned(), String::new()],
    }
}

/// All of it, verbatim.
pub async fn outcomes_are_kept(fixture: &Fixture) {
    let scene = Scene::new();
    for (name, outcome) in [
        ("full", detail("s3://somewhere/else")),
        ("empty", TerminalDetail::default()),
    ] {
        let id = scene.job(name);
        reach(fixture, &id, JobState::Running, scene.at(0)).await;
        let finish = Change {
            outcome: Some(outcome.clone()),
            ..change(&id, JobEvent::Finish(JobState::Failed), scene.at(50))
        };
        apply(fixture, finish).await;
        assert_eq!(record(fixture, &id).await.outcome, outcome, "{name}");
        assert_eq!(fixture.dlq.get(&id).await.expect("get"), None, "{name}");
    }
}

/// In the same commit; the result pointer then names it.
pub async fn a_dead_letter_comes_with_an_error_document(fixture: &Fixture) {
    let scene = Scene::new();
    let endings = [
        (JobEvent::Finish(JobState::Failed), "FAILED", "JOB_STATUS_FAILED", 1),
        (JobEvent::Expire, "TIMEOUT", "JOB_STATUS_TIMEOUT", 1),
        (JobEvent::Deny, "DENIED", "JOB_STATUS_DENIED", 0),
    ];
    for (event, last_state, status, attempts) in endings {
        let id = scene.job(last_state);
        let from = if attempts > 0 {
            JobState::Running
        } else {
            JobState::Pending
        };
        reach(fixture, &id, from, scene.at(0)).await;
        let ending = Change {
            outcome: Some(detail("")),
            dead_letter: true,
            ..change(&id, event, scene.secs(7))
        };
        apply(fixture, ending).await;
        let letter = fixture.dlq.get(&id).await.expect("get").expect("a dead letter");
        assert_eq!(letter.job_id, id.as_str());
        assert_eq!((letter.topic.as_str(), letter.status.as_str()), ("job.tests", status));
        assert_eq!(
            (letter.reason, letter.reason_code),
            (detail("").error_message, detail("").error_code)
        );
        assert_eq!((letter.last_state.as_str(), letter.attempts), (last_state, attempts));
        let created: jiff::Timestamp = letter.created_at.parse().expect("RFC 3339");
        assert_eq!(created.as_second(), scene.secs(7).secs());
        let listed = fixture.dlq.list(Some(scene.secs(7)), 1_000).await.expect("list");
        assert!(listed.iter().any(|listed| listed.job_id == id.as_str()));

        let result = Pointer::result(&id);
        let outcome = record(fixture, &id).await.outcome;
        assert_eq!(outcome, detail(&result.to_string()));
        let document = fixture.payloads.get(&result).await.expect("get").expect("a document");
        let document: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
        let expected = serde_json::json!({
            "completed_at": scene.secs(7).rfc3339(),
            "error": {"message": detail("").error_message},
            "job_id": id.as_str(),
            "processed_by": "coretex-scheduler",
            "status": status,
        });
        assert_eq!(document, expected);
    }
}

/// Both the pointer and what it points to.
pub async fn a_dead_letter_leaves_a_result_alone(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    reach(fixture, &id, JobState::Running, scene.at(0)).await;
    let result = Pointer::result(&id);
    fixture
        .payloads
        .put(&result, bytes::Bytes::from_static(b"mine"), None)
        .await
        .expect("put");
    let finish = Change {
        outcome: Some(detail(&result.to_string())),
        dead_letter: true,
        ..change(&id, JobEvent::Finish(JobState::Failed), scene.at(50))
    };
    apply(fixture, finish).await;
    assert!(fixture.dlq.get(&id).await.expect("get").is_some());
    assert_eq!(record(fixture, &id).await.outcome, detail(&result.to_string()));
    let read = fixture.payloads.get(&result).await.expect("get");
    assert_eq!(read.as_deref(), Some(b"mine".as_slice()));
}

/// In their place among the others.
pub async fn missing_jobs_are_none(fixture: &Fixture) {
    let scene = Scene::new();
    let (a, b) = (scene.job("a"), scene.job("b"));
    create(fixture, &a, scene.at(0)).await;
    create(fixture, &b, scene.at(0)).await;
    let missing = scene.job("missing");
    let ids = [missing.clone(), b.clone(), missing.clone(), a.clone(), b.clone()];
    let records = fixture.jobs.get_many(&ids).await.expect("get");
    let found: Vec<Option<JobId>> = records.into_iter().map(|r| r.map(|r| r.id)).collect();
    assert_eq!(found, [None, Some(b.clone()), None, Some(a.clone()), Some(b.clone())]);
    let requests = fixture.jobs.requests(&ids).await.expect("requests");
    let expected = [None, Some(request(&b)), None, Some(request(&a)), Some(request(&b))];
    assert_eq!(requests, expected);
    assert!(fixture.jobs.get_many(&[]).await.expect("get").is_empty());
    assert!(fixture.jobs.requests(&[]).await.expect("requests").is_empty());
    assert!(fixture.jobs.events(&missing).await.expect("events").is_empty());
}
