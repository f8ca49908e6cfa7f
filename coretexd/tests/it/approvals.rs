//! docs/spec/http.md §8.

use coretex_core::bus::SubscribeOptions;
use coretex_core::jobs::{JobState, JobStoreExt as _};
use coretex_core::protocol::agent::JobStatus;
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::{decode_packet, job_hash, subjects};

use crate::rig::Rig;

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
