//! docs/spec/http.md §10 and §11.

use coretex_core::test_util::wait::until;
use coretexd::settings::{HttpSettings, KeyEntry, KeyHash, KeyRole};
use serde_json::json;

use crate::rig::{Rig, settings};

const ADA: [(&str, &str); 2] = [("x-principal-id", "ada"), ("x-principal-role", "secops")];

#[tokio::test]
async fn documents_are_written_and_read() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/api/v1/config").await.brief(), (404, "config not found"));
    assert_eq!(
        rig.get("/api/v1/config?scope=org").await.brief(),
        (404, "config not found")
    );
    let body =
        r#"{"SCOPE":"system","data":{"b":"<&>","a":1.0,"exact":9007199254740993},"meta":{"owner":"ops"}} trailing"#;
    let answer = rig.send("POST", "/api/v1/config", &ADA, body).await;
    assert_eq!((answer.brief(), answer.header("etag")), ((204, ""), "\"1\""));
    let answer = rig.get("/api/v1/config?scope=%20system%20&scope_id=default").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("etag"), "\"1\"");
    let (head, tail) = answer.text.split_once("\"updated_at\"").expect("a time");
    assert_eq!(
        head,
        concat!(
            r#"{"scope":"system","scope_id":"default","data":{"a":1,"b":"\u003c\u0026\u003e","exact":9007199254740993},"#,
            r#""revision":1,"#
        )
    );
    assert!(tail.ends_with("\"meta\":{\"owner\":\"ops\"}}\n"), "{tail}");
    let answer = rig.post("/api/v1/config", r#"{"scope":"system","data":null}"#).await;
    assert_eq!(answer.brief(), (204, ""));
    let document = rig.get("/api/v1/config").await.json();
    assert_eq!((&document["data"], &document["revision"]), (&json!({}), &json!(2)));
    assert!(document.get("meta").is_none());
}

#[tokio::test]
async fn what_is_no_document_is_refused() {
    let rig = Rig::new().await;
    for (body, expected) in [
        ("", (400, "invalid json")),
        (r#"{"scope":"org","scope_id":"a","data":[]}"#, (400, "invalid json")),
        (r#"{"scope":1}"#, (400, "invalid json")),
        (r#"{"data":{}}"#, (400, "scope required")),
        (
            r#"{"scope":"org","data":{}}"#,
            (400, "scope_id required for non-system scope"),
        ),
    ] {
        assert_eq!(rig.post("/api/v1/config", body).await.brief(), expected, "{body}");
    }
}

#[tokio::test]
async fn a_writer_may_name_the_revision() {
    let rig = Rig::new().await;
    let body = r#"{"scope":"org","scope_id":"acme","data":{}}"#;
    let write = async |name: &'static str, value: &'static str| {
        let answer = rig.send("POST", "/api/v1/config", &[(name, value)], body).await;
        (answer.status.as_u16(), answer.text.trim_end().to_owned())
    };
    let answer = |status, text: &str| (status, text.to_owned());
    assert_eq!(
        write("if-match", "\"1\"").await,
        answer(412, "config document has revision 0, not 1")
    );
    assert_eq!(write("if-none-match", "*").await, answer(204, ""));
    assert_eq!(
        write("if-none-match", "*").await,
        answer(412, "config document has revision 1, not 0")
    );
    assert_eq!(write("if-match", "\"1\"").await, answer(204, ""));
    assert_eq!(write("if-match", "2").await, answer(204, ""));
    assert_eq!(
        write("if-match", "x").await,
        answer(400, "If-Match must be one revision, as \"3\"")
    );
}

#[tokio::test]
async fn what_holds_is_merged() {
    let rig = Rig::new().await;
    let empty = concat!(
        r#"{"version":"system:0|org:0|team:0|workflow:0|step:0","#,
        r#""hash":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","data":{}}"#,
        "\n"
    );
    assert_eq!(rig.get("/api/v1/config/effective").await.text, empty);
    rig.post("/api/v1/config", r#"{"scope":"system","data":{"timeout":30}}"#)
        .await;
    rig.post(
        "/api/v1/config",
        r#"{"scope":"org","scope_id":"acme","data":{"model":"gpt-4"}}"#,
    )
    .await;
    let merged = concat!(
        r#"{"version":"system:1|org:1|team:0|workflow:0|step:0","#,
        r#""hash":"6580e236b6839749af457feb0d8c9a19a497084b38b054e506be39329f5dde07","#,
        r#""data":{"model":"gpt-4","timeout":30}}"#,
        "\n"
    );
    let answer = rig.get("/api/v1/config/effective?org_id=acme&team_id=none").await;
    assert_eq!(answer.text, merged);
}

fn keys() -> HttpSettings {
    use coretexd::settings::{KeyEntry, KeyHash, KeyRole};
    let entry = |key: &str, role| KeyEntry {
        principal: key.to_owned(),
        roles: vec![role],
        hash: KeyHash::of(key),
    };
    HttpSettings {
        keys: vec![entry("olga", KeyRole::Operator), entry("sam", KeyRole::Secops)],
        ..settings()
    }
}

#[tokio::test]
async fn policy_is_not_written_around_its_role() {
    let rig = Rig::with(keys()).await;
    let write = async |key: &'static str, id: &str| {
        let body = format!(r#"{{"scope":"system","scope_id":"{id}","data":{{}}}}"#);
        let answer = rig.send("POST", "/api/v1/config", &[("x-api-key", key)], body).await;
        answer.status.as_u16()
    };
    assert_eq!(write("olga", "").await, 204);
    for id in ["policy", "policy_snapshots", "policy_audit"] {
        assert_eq!(write("olga", id).await, 403, "{id}");
        assert_eq!(write("sam", id).await, 204, "{id}");
    }
    for path in ["/api/v1/audit", "/api/v1/audit/verify"] {
        let read = async |key| rig.send("GET", path, &[("x-api-key", key)], "").await.status.as_u16();
        assert_eq!((read("olga").await, read("sam").await), (403, 200), "{path}");
    }
}

#[tokio::test]
async fn every_write_is_in_the_audit_log() {
    let rig = Rig::new().await;
    let empty = rig.get("/api/v1/audit").await.json();
    assert_eq!(
        (&empty["items"], &empty["next"], &empty["head"]["seq"]),
        (&json!([]), &json!(null), &json!(0))
    );
    for n in 1..=3 {
        let body = format!(r#"{{"scope":"org","scope_id":"acme","data":{{"n":{n}}}}}"#);
        rig.send("POST", "/api/v1/config", &ADA, body).await;
    }
    let log = rig.get("/api/v1/audit?limit=2").await.json();
    assert_eq!(log["items"][0]["seq"], 2);
    let last = &log["items"][1];
    assert_eq!(
        (
            &last["seq"],
            &last["actor"],
            &last["role"],
            &last["action"],
            &last["target"]
        ),
        (
            &json!(3),
            &json!("ada"),
            &json!("secops"),
            &json!("config.set"),
            &json!("cfg:org:acme")
        )
    );
    assert_eq!(
        (&last["detail"]["old_revision"], &last["detail"]["revision"]),
        (&json!(2), &json!(3))
    );
    assert_eq!((&log["next"], &log["head"]["hash"]), (&json!(null), &last["hash"]));
    let log = rig.get("/api/v1/audit?from=1&limit=2").await.json();
    assert_eq!((&log["items"][1]["seq"], &log["next"]), (&json!(2), &json!(3)));
    let verified = rig.get("/api/v1/audit/verify").await.json();
    assert_eq!(verified, json!({"ok": true, "entries": 3, "head": log["head"]}));
}

/// docs/spec/audit.md §1.
#[tokio::test]
async fn the_use_of_a_key_is_in_the_log_once() {
    let rig = Rig::with(HttpSettings {
        keys: vec![KeyEntry {
            hash: KeyHash::of("k"),
            principal: "ada".to_owned(),
            roles: vec![KeyRole::Secops],
        }],
        ..settings()
    })
    .await;
    let key = [("x-api-key", "k"), ("x-principal-id", "eve")];
    for _ in 0..3 {
        assert_eq!(rig.send("GET", "/api/v1/config/effective", &key, "").await.status, 200);
    }
    let entries = until("the use is in the log", || async {
        let page = rig.send("GET", "/api/v1/audit", &key, "").await.json();
        let entries = page["items"].as_array().cloned().unwrap_or_default();
        (!entries.is_empty()).then_some(entries)
    })
    .await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (&entry["actor"], &entry["role"], &entry["action"]),
        (&json!("ada"), &json!("secops"), &json!("key.use"))
    );
}

/// docs/spec/http.md §16.
#[tokio::test]
async fn topics_pools_and_workflows_are_paused_and_resumed() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.get("/api/v1/pauses").await.json(),
        json!({"topics": {}, "pools": {}, "workflows": {}})
    );
    let answer = rig
        .send(
            "POST",
            "/api/v1/topics/job.default/pause",
            &ADA,
            r#"{"reason":" bank is down "}"#,
        )
        .await;
    assert_eq!(answer.brief(), (204, ""));
    for path in ["pools/gpu/pause", "pools/gpu/pause", "workflows/triage/pause"] {
        assert_eq!(
            rig.post(&format!("/api/v1/{path}"), "").await.brief(),
            (204, ""),
            "{path}"
        );
    }
    let paused = rig.get("/api/v1/pauses").await.json();
    let topic = &paused["topics"]["job.default"];
    assert_eq!(
        (&topic["by"], &topic["reason"]),
        (&json!("ada"), &json!("bank is down"))
    );
    assert!(paused["pools"]["gpu"].is_object() && paused["workflows"]["triage"].is_object());
    assert_eq!(
        rig.post("/api/v1/topics/job.x/pause", "[1]").await.brief(),
        (400, "invalid json")
    );
    for path in [
        "topics/job.default/resume",
        "topics/job.default/resume",
        "pools/gpu/resume",
    ] {
        assert_eq!(
            rig.post(&format!("/api/v1/{path}"), "").await.brief(),
            (204, ""),
            "{path}"
        );
    }
    let paused = rig.get("/api/v1/pauses").await.json();
    assert_eq!((&paused["topics"], &paused["pools"]), (&json!({}), &json!({})));
}
