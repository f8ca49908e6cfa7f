//! Approvals from beginning to end, told once for every backend. Sections are those of `docs/spec/approvals.md`.

use coretex_core::approvals::{Approvals, Error, Verdict};
use coretex_core::audit::AuditRecord;
use coretex_core::jobs::{Change, Decision, JobEvent, JobState, JobStoreExt, RequestWrite};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{JobRequest, JobStatus};
use coretex_core::protocol::{JobId, job_hash, subjects};
use coretex_core::test_util::wait::until;
use coretex_core::time::Clock;

use super::world::{Backend, World, job};

fn by(principal: &str) -> Verdict {
    Verdict {
        by: principal.to_owned(),
        ..Verdict::default()
    }
}

/// Submits a job on a topic and waits until people are asked.
async fn parked(world: &World, name: &str, topic: &str) -> (JobId, JobRequest) {
    let (id, mut request) = job(name);
    request.topic = topic.to_owned();
    world.submit(&request).await;
    world.reaches(&id, JobState::ApprovalRequired).await;
    (id, request)
}

/// The audit log's records of one job: those in the chain, and those on their way into it.
async fn audit_of(world: &World, id: &JobId) -> Vec<AuditRecord> {
    let audit = &world.stores.audit;
    let waiting = audit.pending(1_000).await.expect("the outbox");
    let chain = audit.read(1, 1_000).await.expect("the chain");
    let mut records: Vec<AuditRecord> = chain.into_iter().map(|entry| entry.record).chain(waiting).collect();
    records.retain(|record| record.target == id.as_str());
    records.dedup_by(|a, b| a.id == b.id);
    records
}

async fn state(world: &World, id: &JobId) -> JobState {
    world.record(id).await.expect("there").state
}

/// §2, §3, §7.
pub(crate) async fn two_people_let_a_job_run(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let approvals = world.approvals();
    let (id, request) = parked(&world, "pair", "job.pair").await;

    assert!(matches!(
        approvals.approve(&id, &Verdict::default()).await,
        Err(Error::Anonymous)
    ));
    let first = approvals.approve(&id, &by("ann")).await.expect("a vote");
    assert_eq!(
        (first.approvals, first.quorum, first.state),
        (1, 2, JobState::ApprovalRequired)
    );
    assert!(matches!(
        approvals.approve(&id, &by("ann")).await,
        Err(Error::AlreadyVoted)
    ));
    assert_eq!(state(&world, &id).await, JobState::ApprovalRequired);
    let last = Verdict {
        by: "bob".to_owned(),
        role: "secops".to_owned(),
        reason: "checked".to_owned(),
        note: "ticket 7".to_owned(),
        ..Verdict::default()
    };
    let second = approvals.approve(&id, &last).await.expect("the last vote");
    assert_eq!(
        (second.approvals, second.quorum, second.state),
        (2, 2, JobState::Pending)
    );

    let received = worker.job().await;
    assert_eq!(received.job_id, request.job_id);
    assert_eq!(received.labels["approval_granted"], "true");
    assert_eq!(received.labels["approval_reason"], "checked");
    assert_eq!(received.labels["approval_note"], "ticket 7");
    let record = world.reaches(&id, JobState::Running).await;
    let voters: Vec<&str> = record.votes.iter().map(|vote| vote.by.as_str()).collect();
    assert_eq!(voters, ["ann", "bob"]);
    let approval = record.approval.expect("an approval");
    assert_eq!((approval.by.as_str(), approval.role.as_str()), ("bob", "secops"));
    assert_eq!(approval.job_hash, job_hash(&request));
    let decisions = world.stores.jobs.decisions(&id, 10).await.expect("decisions");
    let verdicts: Vec<_> = decisions.iter().map(|d| (d.decision, d.reason.as_str())).collect();
    assert_eq!(
        verdicts,
        [
            (Decision::Allow, "approval granted"),
            (Decision::RequireApproval, "ask two")
        ]
    );
    for decision in &decisions {
        let input = decision.input.as_ref().expect("what was judged");
        assert_eq!((input.job_id.as_str(), input.topic.as_str()), (id.as_str(), "job.pair"));
    }

    let audit = audit_of(&world, &id).await;
    let actions: Vec<_> = audit.iter().map(|r| (r.action.as_str(), r.actor.as_str())).collect();
    assert_eq!(actions, [("approval.vote", "ann"), ("approval.approve", "bob")]);
    let last = &audit[1].detail;
    assert_eq!(last["job_hash"], approval.job_hash.as_str());
    assert_eq!(last["policy_snapshot"], approval.policy_snapshot.as_str());
    assert_eq!(
        (&last["reason"], &last["note"]),
        (&"checked".into(), &"ticket 7".into())
    );
    assert_eq!(
        (&last["rule_id"], &last["approvals"], &last["quorum"]),
        (&"pair".into(), &2.into(), &2.into())
    );

    // Handed back, it is the same job with the same approval.
    let requeue = Change::new(id.clone(), JobEvent::Requeue, Clock::system().now());
    world.stores.jobs.apply(requeue).await.expect("requeued");
    assert_eq!(worker.id().await, id);
    world.result(&id, JobStatus::Succeeded).await;
    world.reaches(&id, JobState::Succeeded).await;
    assert!(matches!(
        approvals.approve(&id, &by("cat")).await,
        Err(Error::NotAwaiting)
    ));
}

/// §4.
pub(crate) async fn a_rejected_job_is_a_dead_letter(backend: Backend) {
    let world = World::new(backend).await;
    let mut letters = world.listen(subjects::DLQ).await;
    let approvals = world.approvals();
    let (id, _) = parked(&world, "no", "job.pair").await;
    approvals.approve(&id, &by("ann")).await.expect("a vote");
    let no = Verdict {
        reason: "wrong account".to_owned(),
        ..by("bob")
    };
    approvals.reject(&id, &no).await.expect("rejected");
    let record = world.record(&id).await.expect("there");
    assert_eq!(record.state, JobState::Denied);
    assert_eq!(record.outcome.error_code, "approval_rejected");
    let letter = world.stores.dlq.get(&id).await.expect("dlq").expect("a dead letter");
    assert_eq!(
        (letter.reason.as_str(), letter.reason_code.as_str()),
        ("wrong account", "approval_rejected")
    );
    let Some(Payload::JobResult(result)) = letters.packet().await.payload else {
        panic!("not a result")
    };
    assert_eq!(
        (result.job_id.as_str(), result.status()),
        (id.as_str(), JobStatus::Denied)
    );
    let actions: Vec<_> = audit_of(&world, &id).await.into_iter().map(|r| r.action).collect();
    assert_eq!(actions, ["approval.vote", "approval.reject"]);
}

/// §2.
pub(crate) async fn another_policy_judges_a_waiting_job_again(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let approvals = world.approvals();
    let (stays, _) = parked(&world, "stays", "job.pair").await;
    let (runs, _) = parked(&world, "runs", "job.careful").await;
    approvals.approve(&stays, &by("ann")).await.expect("a vote");
    let before = world.record(&stays).await.expect("there").decision.expect("a decision");
    world.change_policy("{id: ask, decision: require_approval", "{id: ask, decision: allow");

    for id in [&stays, &runs] {
        assert!(matches!(
            approvals.approve(id, &by("bob")).await,
            Err(Error::SnapshotChanged)
        ));
    }
    assert_eq!(worker.id().await, runs, "the new policy allows it");
    let record = until("people are asked anew", || async {
        let record = world.record(&stays).await?;
        let decision = record.decision.as_ref()?;
        (record.state == JobState::ApprovalRequired && decision.policy_snapshot != before.policy_snapshot)
            .then_some(record)
    })
    .await;
    assert_eq!(record.votes, [], "the first yes was to another question");
    for principal in ["bob", "ann"] {
        approvals.approve(&stays, &by(principal)).await.expect("a vote");
    }
    assert_eq!(worker.id().await, stays);
}

/// §2.
pub(crate) async fn an_edited_job_is_not_approved(backend: Backend) {
    let world = World::new(backend).await;
    let approvals = world.approvals();
    let (id, mut request) = parked(&world, "edited", "job.careful").await;
    request.labels.insert("amount".to_owned(), "1000000".to_owned());
    let mut edit = Change::new(id.clone(), JobEvent::Vote, Clock::system().now());
    edit.request = RequestWrite::Replace(request.into());
    world.stores.jobs.apply(edit).await.expect("edited");
    assert!(matches!(
        approvals.approve(&id, &by("ann")).await,
        Err(Error::RequestChanged)
    ));
    assert_eq!(state(&world, &id).await, JobState::ApprovalRequired);
}

/// §6.
pub(crate) async fn an_approval_is_for_one_job(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, _) = parked(&world, "one", "job.careful").await;
    world.approvals().approve(&id, &by("ann")).await.expect("approved");
    let granted = worker.job().await;
    world.result(&id, JobStatus::Succeeded).await;
    world.reaches(&id, JobState::Succeeded).await;

    // The job as it ran, once more: it is over.
    world.submit(&granted).await;
    // And under another id: people are asked about that one.
    let (copy, other) = job("copy");
    let forged = JobRequest {
        job_id: other.job_id,
        ..granted
    };
    world.submit(&forged).await;
    let record = world.reaches(&copy, JobState::ApprovalRequired).await;
    assert!(record.approval.is_none());
    assert_eq!(state(&world, &id).await, JobState::Succeeded);
    assert_eq!(world.record(&id).await.expect("there").attempts, 1);
}

/// §6.
pub(crate) async fn a_repeated_submission_keeps_the_votes(backend: Backend) {
    let world = World::new(backend).await;
    let approvals = world.approvals();
    let (id, request) = parked(&world, "again", "job.pair").await;
    approvals.approve(&id, &by("ann")).await.expect("a vote");
    world.submit(&request).await;
    let (next, next_request) = job("next");
    let mut worker = world.worker("w1", 4).await;
    world.submit(&next_request).await;
    assert_eq!(worker.id().await, next);
    approvals.approve(&id, &by("bob")).await.expect("the last vote");
    // Approved, and the first message comes once more, without the mark.
    world.submit(&request).await;
    assert_eq!(worker.id().await, id);
    world.reaches(&id, JobState::Running).await;
}

/// §5.
pub(crate) async fn what_nobody_decides_about_in_time_is_denied_or_runs(backend: Backend) {
    let world = World::new(backend).await;
    let mut letters = world.listen(subjects::DLQ).await;
    let mut worker = world.worker("w1", 4).await;
    let submit = async |name: &str, topic: &str| {
        let (id, mut request) = job(name);
        request.topic = topic.to_owned();
        world.submit(&request).await;
        id
    };
    let denied = submit("lapse", "job.lapse").await;
    let record = world.reaches(&denied, JobState::Denied).await;
    assert_eq!(record.outcome.error_code, "approval_expired");
    assert_eq!(
        record.outcome.error_message,
        "nobody decided in time (0 of 2 approvals)"
    );
    let letter = world
        .stores
        .dlq
        .get(&denied)
        .await
        .expect("dlq")
        .expect("a dead letter");
    assert_eq!(letter.reason_code, "approval_expired");
    let Some(Payload::JobResult(result)) = letters.packet().await.payload else {
        panic!("not a result")
    };
    assert_eq!(
        (result.job_id.as_str(), result.status()),
        (denied.as_str(), JobStatus::Denied)
    );

    let runs = submit("run", "job.lapse-run").await;
    assert_eq!(worker.id().await, runs);
    let approval = world
        .reaches(&runs, JobState::Running)
        .await
        .approval
        .expect("an approval");
    assert_eq!(approval.by, "policy:on_expiry");
    for (id, outcome) in [(&denied, "deny"), (&runs, "allow")] {
        let audit = audit_of(&world, id).await;
        assert_eq!(audit.len(), 1, "{audit:?}");
        assert_eq!(audit[0].action, "approval.expire");
        assert_eq!(audit[0].detail["outcome"], outcome);
    }
}

/// §3.
pub(crate) async fn of_many_approvers_as_many_count_as_are_needed(backend: Backend) {
    let world = World::new(backend).await;
    let mut worker = world.worker("w1", 4).await;
    let (id, _) = parked(&world, "crowd", "job.pair").await;
    let approvals = world.approvals();
    let approve = async |approvals: Approvals, principal: String| approvals.approve(&id, &by(&principal)).await;
    let answers = futures::future::join_all((0..32).map(|n| approve(approvals.clone(), format!("person-{n}")))).await;
    let heard: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let mut counts: Vec<_> = heard.iter().map(|heard| (heard.approvals, heard.state)).collect();
    counts.sort_unstable_by_key(|(approvals, _)| *approvals);
    assert_eq!(counts, [(1, JobState::ApprovalRequired), (2, JobState::Pending)]);
    for answer in &answers {
        assert!(matches!(answer, Ok(_) | Err(Error::NotAwaiting)), "{answer:?}");
    }
    assert_eq!(worker.id().await, id);
    let record = world.reaches(&id, JobState::Running).await;
    assert_eq!((record.votes.len(), record.attempts), (2, 1));
    assert_eq!(audit_of(&world, &id).await.len(), 2);
}
