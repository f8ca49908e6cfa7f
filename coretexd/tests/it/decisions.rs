//! docs/spec/http.md §12.

use std::sync::Arc;

use coretex_core::jobs::{Change, Decision, DecisionRecord, JobEvent};
use coretex_core::protocol::JobId;
use coretex_core::protocol::agent::PolicyCheckRequest;
use coretex_core::time::Timestamp;
use serde_json::{Value, json};

use crate::rig::Rig;

async fn decide(rig: &Rig, id: &JobId, verdict: Decision, at: Timestamp) {
    let mut change = Change::new(id.clone(), JobEvent::Park, at);
    change.decision = Some(DecisionRecord {
        reason: "because".to_owned(),
        rule_id: "r1".to_owned(),
        policy_snapshot: "v1:abc".to_owned(),
        matched: vec!["topics".to_owned()],
        input: Some(Arc::new(PolicyCheckRequest {
            job_id: id.to_string(),
            topic: "job.a".to_owned(),
            tenant: "acme".to_owned(),
            principal_id: "bob".to_owned(),
            ..PolicyCheckRequest::default()
        })),
        ..DecisionRecord::new(verdict, at)
    });
    rig.apply(change).await;
}

#[tokio::test]
async fn decisions_are_listed_with_what_was_judged() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.get("/api/v1/decisions").await.json(),
        json!({"items": [], "next_cursor": null})
    );
    let id = rig.submit(r#"{"prompt":"x"}"#).await;
    let at = |secs: i64| Timestamp::from_secs(1_900_000_000 + secs);
    decide(&rig, &id, Decision::Throttle, at(0)).await;
    decide(&rig, &id, Decision::Allow, at(1)).await;

    let list = rig.get("/api/v1/decisions").await.json();
    assert_eq!(
        list["items"][0],
        json!({
            "job_id": id.as_str(), "topic": "job.a", "tenant": "acme", "decision": "ALLOW", "reason": "because",
            "rule_id": "r1", "policy_snapshot": "v1:abc", "constraints": null, "approval_required": false,
            "matched": ["topics"], "checked_at": at(1).micros(),
            "input": {"job_id": id.as_str(), "topic": "job.a", "tenant": "acme", "principal_id": "bob"},
        })
    );
    assert_eq!(list["items"][1]["decision"], "THROTTLE");
    assert_eq!(list["next_cursor"], Value::Null);

    for (query, expected) in [
        ("decision=throttle", 1),
        ("decision=maybe", 0),
        ("rule=r1&topic=job.a&tenant=acme", 2),
        ("rule=r2", 0),
        ("from=1900000001", 1),
        ("until=1900000000", 1),
        ("until=1899999999", 0),
        ("job_id=other", 0),
        ("limit=1", 1),
    ] {
        let list = rig.get(&format!("/api/v1/decisions?{query}")).await.json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(expected), "{query}");
    }
    for scope in [String::new(), format!("&job_id={id}")] {
        let first = rig.get(&format!("/api/v1/decisions?limit=1{scope}")).await.json();
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = rig
            .get(&format!("/api/v1/decisions?limit=1&cursor={cursor}{scope}"))
            .await
            .json();
        assert_eq!(second["items"][0], list["items"][1]);
        assert_eq!(second["next_cursor"], Value::Null);
    }
}
