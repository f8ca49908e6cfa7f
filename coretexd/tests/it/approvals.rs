//! docs/spec/http.md §8.

use std::time::Duration;

use coretex_core::bus::SubscribeOptions;
use coretex_core::jobs::{ApprovalTerms, JobState, JobStoreExt as _, OnExpiry};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{JobStatus, PolicyRemediation};
use coretex_core::protocol::{JobId, decode_packet, job_hash, subjects};
use coretexd::settings::{HttpSettings, KeyEntry, KeyHash, KeyRole};

use crate::rig::{Rig, settings};

const ANN: [(&str, &str); 2] = [("x-principal-id", "ann"), ("x-principal-role", "secops")];

#[tokio::test]
async fn an_approval_releases_the_job_as_judged() {
    let rig = Rig::new().await;
    let id = rig.submit(r#"{"prompt":"x","principal_id":"bob"}"#).await;
    assert_eq!(
        rig.post(&format!("/api/v1/approvals/{id}/approve"), "").await.brief(),
        (409, "job not awaiting approval")
    );
    rig.ask_people(&id).await;

    let list = rig.get("/api/v1/approvals").await.json();
    assert_eq!(list["items"][0]["job"]["id"], id.as_str());
    assert_eq!(list["items"][0]["approval_required"], true);
    assert_eq!(list["items"][0]["policy_rule_id"], "r1");

    let mut submits = rig
        .platform
        .bus
        .subscribe(subjects::SUBMIT, SubscribeOptions::tap())
        .await
        .unwrap();
    let path = format!("/api/v1/approvals/{id}/approve");
    assert_eq!(rig.post(&path, "{").await.brief(), (400, "invalid body"));
    let answer = rig.send("POST", &path, &ANN, r#"{"reason":" fine ","note":"n"}"#).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    assert_eq!(answer.json()["job_id"], id.as_str());

    let packet = decode_packet(&submits.next().await.unwrap().payload).unwrap();
    assert_eq!(packet.sender_id, "api-gateway");
    let Some(Payload::JobRequest(request)) = packet.payload else {
        panic!("no job request")
    };
    assert_eq!(request.labels["approval_granted"], "true");
    assert_eq!(request.labels["approval_reason"], "fine");
    assert!(request.labels["coretex.bus_msg_id"].starts_with("approval:"));

    let record = rig.platform.stores.jobs.get(&id).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Pending);
    let decision = record.decision.unwrap();
    assert_eq!(
        job_hash(&request),
        decision.job_hash,
        "the marks are no part of what was judged"
    );
    let approval = record.approval.unwrap();
    assert_eq!((approval.by.as_str(), approval.role.as_str()), ("ann", "secops"));
    assert_eq!(approval.job_hash, decision.job_hash);
    assert_eq!(
        rig.get("/api/v1/approvals").await.json()["items"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn of_many_people_one_is_heard() {
    let rig = Rig::new().await;
    let id = rig.submit(r#"{"prompt":"x"}"#).await;
    rig.ask_people(&id).await;
    let answers = futures::future::join_all((0..12).map(|n| {
        let verb = if n % 2 == 0 { "approve" } else { "reject" };
        let (rig, path) = (rig.clone(), format!("/api/v1/approvals/{id}/{verb}"));
        async move { rig.post(&path, "").await.status.as_u16() }
    }))
    .await;
    assert_eq!(
        answers.iter().filter(|status| **status == 200).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|status| **status == 409).count(),
        11,
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_rejection_ends_the_job() {
    let rig = Rig::new().await;
    let id = rig.submit(r#"{"prompt":"x"}"#).await;
    rig.ask_people(&id).await;
    let mut letters = rig
        .platform
        .bus
        .subscribe(subjects::DLQ, SubscribeOptions::tap())
        .await
        .unwrap();
    let path = format!("/api/v1/approvals/{id}/reject");
    let answer = rig.send("POST", &path, &ANN, r#"{"reason":"too risky"}"#).await;
    assert_eq!(answer.json(), serde_json::json!({"job_id": id.as_str()}));
    let packet = decode_packet(&letters.next().await.unwrap().payload).unwrap();
    assert!(
        matches!(packet.payload, Some(Payload::JobResult(result)) if result.status() == JobStatus::Denied
        && result.error_code == "approval_rejected" && result.error_message == "too risky")
    );
    let detail = rig.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert_eq!(detail["state"], "DENIED");
    assert_eq!(detail["error_code"], "approval_rejected");
    assert_eq!(detail["error_message"], "too risky");
    assert_eq!(detail["approval_by"], "ann");
    assert_eq!(rig.post(&path, "").await.brief(), (409, "job not awaiting approval"));
    assert_eq!(
        rig.post("/api/v1/approvals/nobody/approve", "").await.brief(),
        (404, "job not found")
    );
}

/// docs/spec/approvals.md §3: those whose key says who they are do not approve their own jobs.
#[tokio::test]
async fn nobody_with_a_key_of_their_own_approves_their_own_job() {
    let key = |principal: &str| KeyEntry {
        hash: KeyHash::of(principal),
        principal: principal.to_owned(),
        roles: vec![KeyRole::Operator],
    };
    let rig = Rig::with(HttpSettings {
        keys: vec![key("ann"), key("bob")],
        ..settings()
    })
    .await;
    let ann = [("x-api-key", "ann")];
    // Whatever the headers say.
    let bob = [("x-api-key", "bob"), ("x-principal-id", "ann")];
    let answer = rig
        .send("POST", "/api/v1/jobs", &ann, r#"{"prompt":"x","principal_id":"ann"}"#)
        .await;
    let id = JobId::try_new(answer.json()["job_id"].as_str().unwrap()).unwrap();
    rig.ask_people(&id).await;
    let path = format!("/api/v1/approvals/{id}/approve");
    assert_eq!(
        rig.send("POST", &path, &ann, "").await.brief(),
        (403, "you cannot approve your own job")
    );
    let answer = rig.send("POST", &path, &bob, "").await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let record = rig.platform.stores.jobs.get(&id).await.unwrap().unwrap();
    assert_eq!(record.approval.unwrap().by, "bob");
}

/// docs/spec/approvals.md §3, §9.
#[tokio::test]
async fn a_quorum_is_answered_vote_by_vote() {
    let rig = Rig::new().await;
    let id = rig.submit(r#"{"prompt":"x","labels":{"env":"prod"}}"#).await;
    assert_eq!(
        rig.get(&format!("/api/v1/approvals/{id}")).await.brief(),
        (404, "approval not found")
    );
    rig.ask_people_with(&id, |decision| {
        decision.terms = Some(ApprovalTerms {
            quorum: 2,
            expires_after: Some(Duration::from_secs(3_600)),
            on_expiry: OnExpiry::Deny,
        });
    })
    .await;
    let path = format!("/api/v1/approvals/{id}/approve");
    assert_eq!(rig.post(&path, "").await.status.as_u16(), 400, "nobody says who it is");
    let first = rig.send("POST", &path, &ANN, r#"{"reason":"fine"}"#).await;
    assert_eq!(first.status.as_u16(), 202, "{first:?}");
    assert_eq!(
        (
            &first.json()["approvals"],
            &first.json()["quorum"],
            &first.json()["state"]
        ),
        (&1.into(), &2.into(), &"APPROVAL_REQUIRED".into())
    );
    assert_eq!(
        rig.send("POST", &path, &ANN, "").await.brief(),
        (409, "already approved by this principal")
    );
    assert_eq!(
        rig.send("POST", &path, &[("x-principal-id", "policy:on_expiry")], "")
            .await
            .status
            .as_u16(),
        400
    );

    let case = rig.get(&format!("/api/v1/approvals/{id}")).await.json();
    assert_eq!((&case["approvals"], &case["stale"]), (&1.into(), &false.into()));
    assert_eq!(case["votes"][0]["by"], "ann");
    assert_eq!(case["votes"][0]["reason"], "fine");
    assert_eq!(case["request"]["labels"]["env"], "prod");
    assert!(case["expires_at"].as_i64().unwrap() > 0);
    assert_eq!(rig.get("/api/v1/approvals").await.json()["items"][0]["quorum"], 2);

    let last = rig.send("POST", &path, &[("x-principal-id", "bob")], "").await;
    assert_eq!((last.status.as_u16(), &last.json()["state"]), (200, &"PENDING".into()));
}

/// docs/spec/approvals.md §8.
#[tokio::test]
async fn a_refused_job_is_asked_for_in_another_way() {
    let rig = Rig::new().await;
    let id = rig
        .submit(r#"{"prompt":"drop it","topic":"job.write","labels":{"env":"prod"}}"#)
        .await;
    let path = format!("/api/v1/jobs/{id}/remediate");
    assert_eq!(rig.post(&path, "").await.status.as_u16(), 409, "it may run");
    let way = |way: &str, topic: &str| PolicyRemediation {
        id: way.to_owned(),
        replacement_topic: topic.to_owned(),
        remove_labels: vec!["env".to_owned()],
        ..PolicyRemediation::default()
    };
    rig.ask_people_with(&id, |decision| {
        decision.remediations = vec![way("read", "job.read"), way("bad", "elsewhere")];
    })
    .await;
    for (body, status) in [
        ("{", 400),
        ("", 400),
        (r#"{"remediation_id":"nothing"}"#, 404),
        (r#"{"remediation_id":"bad"}"#, 409),
    ] {
        assert_eq!(rig.post(&path, body).await.status.as_u16(), status, "{body}");
    }
    let answer = rig.post(&path, r#"{"remediation_id":"read"}"#).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let again = rig.post(&path, r#"{"remediation_id":"read"}"#).await;
    assert_eq!(again.json(), answer.json(), "the same remediation is one job");

    let new = answer.json()["job_id"].as_str().unwrap().to_owned();
    let detail = rig.get(&format!("/api/v1/jobs/{new}")).await.json();
    assert_eq!(
        (&detail["state"], &detail["topic"]),
        (&"PENDING".into(), &"job.read".into())
    );
    assert_eq!(detail["labels"], serde_json::json!({"remediation_of": id.as_str()}));
    assert_eq!(detail["context"]["prompt"], "drop it");
    let old = rig.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert_eq!(
        (&old["state"], &old["error_code"]),
        (&"CANCELLED".into(), &"remediated".into())
    );
}
