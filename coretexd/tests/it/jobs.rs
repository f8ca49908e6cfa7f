//! docs/spec/http.md §5, §7.

use std::collections::BTreeSet;

use coretex_core::bus::SubscribeOptions;
use coretex_core::jobs::{Change, JobEvent, JobState, JobStoreExt as _};
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{ActorType, JobPriority, JobStatus};
use coretex_core::protocol::{decode_packet, subjects};

use crate::rig::Rig;

#[tokio::test]
async fn what_is_wrong_is_named() {
    let rig = Rig::new().await;
    let labels = (0..51).map(|n| format!("\"l{n}\":\"\"")).collect::<Vec<_>>().join(",");
    let tags = vec!["\"t\""; 51].join(",");
    for (body, text) in [
        (String::new(), "invalid json"),
        ("[]".to_owned(), "invalid json"),
        ("{}".to_owned(), "prompt is required"),
        ("null".to_owned(), "prompt is required"),
        (
            format!(r#"{{"prompt":"{}"}}"#, "x".repeat(100_001)),
            "prompt too long (>100000 chars)",
        ),
        (
            r#"{"prompt":"x","topic":"sys.x"}"#.to_owned(),
            "topic must start with job.",
        ),
        (r#"{"prompt":"x","topic":""}"#.to_owned(), "topic must start with job."),
        (
            r#"{"prompt":"x","max_total_tokens":-1}"#.to_owned(),
            "token limits must be non-negative",
        ),
        (
            r#"{"prompt":"x","deadline_ms":-1}"#.to_owned(),
            "deadline_ms must be non-negative",
        ),
        (
            r#"{"prompt":"x","actor_type":"robot"}"#.to_owned(),
            "actor_type must be 'human' or 'service'",
        ),
        (format!(r#"{{"prompt":"x","tags":[{tags}]}}"#), "too many tags (max 50)"),
        (
            format!(r#"{{"prompt":"x","labels":{{{labels}}}}}"#),
            "too many labels (max 50)",
        ),
        (
            r#"{"prompt":"x","priority":"urgent"}"#.to_owned(),
            "priority must be 'interactive', 'batch' or 'critical'",
        ),
        (
            format!(r#"{{"prompt":"x","principal_id":"{}"}}"#, "p".repeat(257)),
            "principal_id is 257 bytes long (max 256)",
        ),
        (
            r#"{"prompt":"x","tenant_id":"a\u0007b"}"#.to_owned(),
            "tenant_id holds the control character '\\u{7}' at byte 1",
        ),
    ] {
        let answer = rig.post("/api/v1/jobs", &body).await;
        assert_eq!(answer.brief(), (400, text), "{}", body.get(..80).unwrap_or(&body));
    }
    assert_eq!(
        rig.get("/api/v1/jobs").await.text,
        "{\"items\":[],\"next_cursor\":null}\n",
        "nothing was stored"
    );
}

#[tokio::test]
async fn a_submit_is_stored_and_published() {
    let rig = Rig::new().await;
    let mut submits = rig
        .platform
        .bus
        .subscribe(subjects::SUBMIT, SubscribeOptions::queue("test"))
        .await
        .unwrap();
    let id = rig
        .submit(
            r#"{"prompt":"hello","Topic":"job.x","priority":"BATCH","org_id":"acme","principal_id":"ann","actor_type":" Human ",
                "context":{"n":12345678901234567890,"s":[" secret://vault/key"]},"labels":{"a":"b","Approval_granted":"true"},
                "risk_tags":["pii"],"deadline_ms":60000,"idempotency_key":" k1 ","team_id":"red"}"#,
        )
        .await;

    let record = rig.platform.stores.jobs.get(&id).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Pending);
    assert_eq!((record.tenant.as_str(), record.team.as_str()), ("acme", "red"));
    assert!(record.deadline.is_some());

    let packet = decode_packet(&submits.next().await.unwrap().payload).unwrap();
    assert_eq!(packet.sender_id, "api-gateway-http");
    let Some(Payload::JobRequest(request)) = packet.payload else {
        panic!("no job request")
    };
    assert_eq!(request.job_id, id.as_str());
    assert_eq!(request.priority(), JobPriority::Batch);
    assert_eq!(request.context_ptr, format!("redis://ctx:{id}"));
    assert_eq!(request.memory_id, format!("mem:{id}"));
    assert_eq!(request.env["tenant_id"], "acme");
    assert_eq!(request.env["max_input_tokens"], "8000");
    assert_eq!(request.env["max_output_tokens"], "1024");
    assert_eq!(request.labels["secrets_present"], "true");
    assert!(!request.labels.contains_key("Approval_granted"), "only people approve");
    let meta = request.meta.unwrap();
    assert_eq!(meta.risk_tags, ["pii", "secrets"]);
    assert_eq!(meta.actor_id, "ann");
    assert_eq!(meta.actor_type, i32::from(ActorType::Human));
    assert_eq!(meta.idempotency_key, "k1");

    let detail = rig.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(detail.header("content-type"), "application/json");
    assert!(
        detail.text.contains("\"n\":12345678901234567890"),
        "integers keep every digit: {}",
        detail.text
    );
    let detail = detail.json();
    assert_eq!(detail["state"], "PENDING");
    assert_eq!(detail["context"]["prompt"], "hello");
    assert_eq!(detail["context"]["priority"], "BATCH");
    assert_eq!(detail["result"], serde_json::Value::Null);
    assert_eq!(detail["events"][0]["state"], "PENDING");

    let memory = rig.get(&format!("/api/v1/memory?key=ctx:{id}")).await.json();
    assert_eq!(memory["kind"], "context");
    assert_eq!(memory["pointer"], format!("redis://ctx:{id}"));
    assert_eq!(memory["json"]["tenant_id"], "acme");
}

#[tokio::test]
async fn memory_reads_only_what_it_may() {
    let rig = Rig::new().await;
    for (query, status, text) in [
        ("", 400, "missing ptr or key"),
        ("?ptr=ctx:1", 400, "invalid pointer"),
        ("?ptr=redis://", 400, "invalid pointer"),
        ("?key=redis://", 400, "invalid key pointer"),
        (
            "?key=cfg:system:default",
            400,
            "unsupported pointer key (only ctx:*, res:*, or mem:*)",
        ),
        (
            "?ptr=redis://art:1",
            400,
            "unsupported pointer key (only ctx:*, res:*, or mem:*)",
        ),
        ("?ptr=%22redis://res:1%22", 404, "not found"),
        ("?key=mem:nothing", 404, "not found"),
    ] {
        let answer = rig.get(&format!("/api/v1/memory{query}")).await;
        assert_eq!(answer.brief(), (status, text), "{query}");
    }
}

#[tokio::test]
async fn one_key_is_one_job_per_tenant() {
    let rig = Rig::new().await;
    let body = r#"{"prompt":"x","idempotency_key":"k","tenant_id":"a"}"#;
    let all = futures::future::join_all((0..16).map(|_| rig.submit(body))).await;
    let ids: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = rig
        .submit(r#"{"prompt":"x","idempotency_key":"k","tenant_id":"b"}"#)
        .await;
    assert!(!ids.contains(&other));
    assert_eq!(
        rig.get("/api/v1/jobs").await.json()["items"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn pages_are_full_and_skip_nothing() {
    let rig = Rig::new().await;
    let mut wanted = BTreeSet::new();
    for n in 0..25 {
        let topic = if n % 2 == 0 { "job.even" } else { "job.odd" };
        let id = rig.submit(&format!(r#"{{"prompt":"x","topic":"{topic}"}}"#)).await;
        if n % 2 == 0 {
            wanted.insert(id.to_string());
        }
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = rig
            .get(&format!("/api/v1/jobs?topic=job.even&limit=4&cursor={cursor}"))
            .await
            .json();
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        match &page["next_cursor"] {
            serde_json::Value::Null => break,
            serde_json::Value::String(text) => cursor.clone_from(text),
            number => cursor = number.to_string(),
        }
        assert_eq!(items.len(), 4, "a page before the last is full");
    }
    assert_eq!(seen.len(), 13);
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    for (query, count) in [
        ("state=pending&limit=100", 25),
        ("state=running", 0),
        ("state=nonsense", 0),
        ("tenant=other", 0),
        ("updated_after=1", 25),
        ("updated_before=1", 0),
        ("trace_id=unknown", 0),
        ("limit=0", 25),
        ("limit=x&cursor=x", 25),
    ] {
        let page = rig.get(&format!("/api/v1/jobs?{query}")).await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
    let job = &rig.get("/api/v1/jobs?limit=1").await.json()["items"][0];
    let trace = job["trace_id"].as_str().unwrap();
    let traced = rig.get(&format!("/api/v1/traces/{trace}")).await.json();
    assert_eq!(traced[0]["id"], job["id"]);
    assert!(traced[0]["updated_at"].as_i64().unwrap() > 0);
    assert_eq!(rig.get("/api/v1/traces/unknown").await.text, "[]\n");
}

#[tokio::test]
async fn a_cancel_is_told_once() {
    let rig = Rig::new().await;
    let id = rig.submit(r#"{"prompt":"x"}"#).await;
    let mut cancels = rig
        .platform
        .bus
        .subscribe(subjects::CANCEL, SubscribeOptions::default())
        .await
        .unwrap();
    let mut results = rig
        .platform
        .bus
        .subscribe(subjects::RESULT, SubscribeOptions::tap())
        .await
        .unwrap();
    let path = format!("/api/v1/jobs/{id}/cancel");
    for _ in 0..2 {
        let answer = rig.post(&path, "").await;
        assert_eq!(
            answer.json(),
            serde_json::json!({"id": id.as_str(), "state": "CANCELLED"})
        );
    }
    let packet = decode_packet(&cancels.next().await.unwrap().payload).unwrap();
    assert!(
        matches!(packet.payload, Some(Payload::JobCancel(cancel)) if cancel.job_id == id.as_str()
        && cancel.reason == "cancelled via api" && cancel.requested_by == "api-gateway")
    );
    let packet = decode_packet(&results.next().await.unwrap().payload).unwrap();
    assert!(matches!(packet.payload, Some(Payload::JobResult(result)) if result.status() == JobStatus::Cancelled));
    assert!(
        futures::FutureExt::now_or_never(cancels.next()).is_none(),
        "the repeat is not told"
    );

    let unknown = rig.post("/api/v1/jobs/nobody/cancel", "").await;
    assert_eq!(unknown.brief(), (404, "job not found"));
    let done = rig.submit(r#"{"prompt":"x"}"#).await;
    rig.apply(Change::new(done.clone(), JobEvent::Fail, rig.platform.clock.now()))
        .await;
    let answer = rig.post(&format!("/api/v1/jobs/{done}/cancel"), "").await;
    assert_eq!(
        answer.json(),
        serde_json::json!({"id": done.as_str(), "reason": "job already terminal", "state": "FAILED"})
    );
}

#[tokio::test]
async fn ids_in_paths_are_checked() {
    let rig = Rig::new().await;
    let long = "x".repeat(257);
    for (path, text) in [
        (
            format!("/api/v1/jobs/{long}"),
            "job_id is 257 bytes long; the limit is 256",
        ),
        (
            "/api/v1/jobs/a%07b".to_owned(),
            "job_id holds the control character '\\u{7}' at byte 1",
        ),
        (
            format!("/api/v1/traces/{long}"),
            "trace_id is 257 bytes long; the limit is 256",
        ),
    ] {
        assert_eq!(rig.get(&path).await.brief(), (400, text), "{path}");
    }
    assert_eq!(rig.get("/api/v1/jobs/unknown/decisions").await.text, "[]\n");
}
