//! docs/spec/http.md §13 and §14.

use coretex_core::config::Document;
use coretex_core::test_util::wait::until;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

const SECOPS: [(&str, &str); 2] = [("x-principal-id", "ann"), ("x-principal-role", " SecOps ")];
const DENY: &str = "default_decision: allow\nrules: [{id: r1, decision: deny, reason: no, match: {topics: [job.x]}}]";
const LIMITS: &str = "default_decision: allow\nrules: [{id: r1, decision: allow, constraints: {budgets: {max_runtime_ms: 60000, max_retries: 2}}}]";

async fn put(rig: &Rig, id: &str, body: &Value) -> Answer {
    rig.send(
        "PUT",
        &format!("/api/v1/policy/bundles/{id}"),
        &SECOPS,
        body.to_string(),
    )
    .await
}

async fn send(rig: &Rig, path: &str, body: &Value) -> Answer {
    rig.send("POST", &format!("/api/v1/policy/{path}"), &SECOPS, body.to_string())
        .await
}

/// §13: the answer of a client that knows the protocol as it is pinned, and not one member more.
#[tokio::test]
async fn checks_answer_in_protobuf_json() {
    let rig = Rig::new().await;
    let snapshot = rig.platform.kernel.snapshots().await.unwrap().remove(0);
    for path in ["evaluate", "simulate"] {
        let answer = send(&rig, path, &json!({"topic": " job.a ", "job_id": "j1"})).await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.text.ends_with('\n'));
        assert_eq!(
            answer.json(),
            json!({
                "decision": "DECISION_TYPE_ALLOW", "reason": "", "redactedContextPtr": "", "policySnapshot": snapshot,
                "ruleId": "", "constraints": null, "approvalRequired": false, "approvalRef": "", "remediations": [],
            }),
            "{path}"
        );
    }
    let explained = send(&rig, "explain", &json!({"topic": "job.a"})).await.json();
    assert_eq!(explained["decision"], "DECISION_TYPE_ALLOW");
    assert!(explained["matched"].is_array(), "{explained}");
    assert!(explained["explanation"].is_object(), "{explained}");
    assert_eq!(explained["explanation"]["tenant"], "default");

    let list = rig.get("/api/v1/policy/snapshots").await;
    assert_eq!(list.json(), json!({"snapshots": [snapshot]}));
    assert!(!list.text.ends_with('\n'));
}

/// §13: drafts are judged by without being stored.
#[tokio::test]
async fn drafts_decide_and_leave_no_trace() {
    let rig = Rig::new().await;
    let drafts = json!({"base": LIMITS});
    let answer = send(&rig, "simulate", &json!({"topic": "job.a", "drafts": drafts}))
        .await
        .json();
    assert_eq!(answer["decision"], "DECISION_TYPE_ALLOW_WITH_CONSTRAINTS");
    assert_eq!(
        answer["constraints"],
        json!({
            "budgets": {"maxRuntimeMs": "60000", "maxRetries": 2, "maxArtifactBytes": "0", "maxConcurrentJobs": 0},
            "sandbox": {"isolated": false, "networkAllowlist": [], "fsReadOnly": [], "fsReadWrite": []},
            "toolchain": {"allowedTools": [], "allowedCommands": []},
            "diff": {"maxFiles": 0, "maxLines": 0, "denyPathGlobs": []},
            "redactionLevel": "",
        })
    );
    let answer = send(&rig, "evaluate", &json!({"topic": "job.a", "drafts": drafts}))
        .await
        .json();
    assert_eq!(answer["decision"], "DECISION_TYPE_ALLOW", "evaluate takes no drafts");
    let answer = send(
        &rig,
        "simulate",
        &json!({"topic": "job.a", "drafts": {"base": "rules: ["}}),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(answer.text.starts_with("parse policy bundle \"base\": "), "{answer:?}");
}

/// §13: how the body becomes a question.
#[tokio::test]
async fn bodies_of_checks_are_read_with_tolerance() {
    let rig = Rig::new().await;
    let policy = "default_decision: deny
rules:
- {id: tenant, decision: allow, match: {tenants: [acme], topics: [job.tenant]}}
- {id: fallback, decision: allow, match: {tenants: [default], topics: [job.fallback]}}
- {id: actor, decision: allow, match: {actor_ids: [bob], actor_types: [human], topics: [job.actor]}}
- {id: tags, decision: allow, match: {risk_tags: [prod], requires: [git], capabilities: [c], pack_ids: [p], labels: {a: b}, topics: [job.tags]}}
";
    for (body, expected) in [
        (json!({"TOPIC": "job.tenant", "Tenant": " acme "}), "tenant"),
        (
            json!({"topic": "job.tenant", "tenant": " ", "org_id": "acme"}),
            "tenant",
        ),
        (json!({"topic": "job.fallback", "tenant": null}), "fallback"),
        (
            json!({"topic": "job.actor", "principal_id": " bob ", "meta": {"Actor_Type": "HUMAN"}}),
            "actor",
        ),
        (
            json!({"topic": "job.actor", "principal_id": "x", "meta": {"actor_id": "bob", "actor_type": "human"}}),
            "actor",
        ),
        (
            json!({"topic": "job.actor", "principal_id": "bob", "meta": {"actor_type": "robot"}}),
            "",
        ),
        (
            json!({"topic": "job.tags", "labels": {"a": "b"}, "estimated_cost": 1.5, "budget": {"deadline_ms": 5}, "unknown": [1],
                "meta": {"risk_tags": ["PROD"], "requires": ["git"], "capability": " c ", "pack_id": "p", "labels": {"x": "y"}}}),
            "tags",
        ),
        (
            json!({"topic": "job.fallback", "effective_config": {"safety": {"denied_topics": ["job.*"]}}}),
            "DENY fallback",
        ),
    ] {
        let mut body = body;
        body["drafts"] = json!({"base": policy});
        let answer = send(&rig, "simulate", &body).await.json();
        let rule = answer["ruleId"].as_str().unwrap().to_owned();
        let denied = answer["decision"] == "DECISION_TYPE_DENY" && !rule.is_empty();
        let found = if denied { format!("DENY {rule}") } else { rule };
        assert_eq!(found, expected, "{body}: {answer}");
    }
    for path in ["evaluate", "simulate", "explain"] {
        for (body, expected) in [
            ("", (400, "invalid json")),
            ("[", (400, "invalid json")),
            (r#"{"topic":1}"#, (400, "invalid json")),
            (
                r#"{"topic":"job.a","budget":{"deadline_ms":"x"}}"#,
                (400, "invalid json"),
            ),
            ("null", (400, "topic is required")),
            (r#"{"topic":" "}"#, (400, "topic is required")),
        ] {
            let answer = rig.post(&format!("/api/v1/policy/{path}"), body).await;
            assert_eq!(answer.brief(), expected, "{path} {body}");
        }
    }
}

/// §13: what is configured for the tenant counts, unless the question says otherwise.
#[tokio::test]
async fn configuration_of_the_scopes_counts() {
    let rig = Rig::new().await;
    let data = json!({"safety": {"denied_topics": ["job.x"]}});
    let document = Document {
        scope: "org".to_owned(),
        scope_id: "acme".to_owned(),
        data: data.as_object().cloned().unwrap(),
        revision: 1,
        ..Document::default()
    };
    assert!(rig.platform.stores.config.put(&document, 0, None).await.unwrap());
    for (body, expected) in [
        (json!({"topic": "job.x"}), "DECISION_TYPE_ALLOW"),
        (json!({"topic": "job.x", "tenant": "acme"}), "DECISION_TYPE_DENY"),
        (
            json!({"topic": "job.x", "tenant": "other", "org_id": "acme"}),
            "DECISION_TYPE_DENY",
        ),
        (
            json!({"topic": "job.x", "tenant": "acme", "effective_config": {}}),
            "DECISION_TYPE_ALLOW",
        ),
        (
            json!({"topic": "job.x", "tenant": "acme", "effective_config": null}),
            "DECISION_TYPE_DENY",
        ),
    ] {
        assert_eq!(
            send(&rig, "evaluate", &body).await.json()["decision"],
            expected,
            "{body}"
        );
    }
}

/// §14: who may write, and what is refused, in this order.
#[tokio::test]
async fn bundles_are_guarded() {
    let rig = Rig::new().await;
    let path = "/api/v1/policy/bundles/secops~a";
    assert_eq!(rig.send("PUT", path, &[], "{").await.brief(), (403, "forbidden"));
    for (id, body, expected) in [
        ("%20", "{", (400, "bundle id required")),
        ("core", "{", (400, "bundle id must start with secops/")),
        ("snapshots", "{", (400, "bundle id must start with secops/")),
        ("secops~a", "{", (400, "invalid json")),
        ("secops~a", "{}", (400, "content required")),
        ("secops~a", r#"{"content":" "}"#, (400, "content required")),
        (
            "secops~a",
            r#"{"content":"rules: []","enabled":"yes"}"#,
            (400, "invalid json"),
        ),
        (
            "secops~a",
            r#"{"content":"rules: []","revision":7}"#,
            (409, "policy bundles have revision 0, not 7"),
        ),
        (
            "secops~a",
            r#"{"content":"rules: []","revision":-1}"#,
            (400, "revision must not be negative"),
        ),
    ] {
        let answer = rig
            .send("PUT", &format!("/api/v1/policy/bundles/{id}"), &SECOPS, body.to_owned())
            .await;
        assert_eq!(answer.brief(), expected, "{id} {body}");
    }
    let bad = put(
        &rig,
        "secops~a",
        &json!({"content": "rules: [{id: a, decision: maybe}]"}),
    )
    .await;
    assert_eq!(bad.status.as_u16(), 400);
    assert!(bad.text.starts_with("invalid policy content: "), "{bad:?}");
    assert_eq!(rig.get(path).await.brief(), (404, "bundle not found"));
    for path in ["publish", "rollback"] {
        let answer = rig.post(&format!("/api/v1/policy/{path}"), "{").await;
        assert_eq!(answer.brief(), (403, "forbidden"), "{path}");
        let answer = rig.send("POST", &format!("/api/v1/policy/{path}"), &SECOPS, "").await;
        assert_eq!(answer.brief(), (400, "invalid json"), "{path}");
    }
    assert_eq!(
        send(&rig, "publish", &json!({})).await.brief(),
        (400, "no bundles configured")
    );
    assert_eq!(
        send(&rig, "rollback", &json!({})).await.brief(),
        (400, "snapshot_id required")
    );
    let answer = send(&rig, "rollback", &json!({"snapshot_id": "x"})).await;
    assert_eq!(answer.brief(), (404, "snapshot not found"));
    for (path, expected) in [
        ("bundles/%20", (400, "bundle id required")),
        ("bundles/snapshots/%20", (400, "snapshot id required")),
        ("bundles/snapshots/x", (404, "snapshot not found")),
    ] {
        assert_eq!(
            rig.get(&format!("/api/v1/policy/{path}")).await.brief(),
            expected,
            "{path}"
        );
    }
    let simulate = rig
        .post("/api/v1/policy/bundles/secops~a/simulate", r#"{"request":{}}"#)
        .await;
    assert_eq!(simulate.brief(), (400, "topic is required"));
    let simulate = rig.post("/api/v1/policy/bundles/%20/simulate", "{").await;
    assert_eq!(simulate.brief(), (400, "bundle id required"));
    let simulate = rig.post("/api/v1/policy/bundles/secops~a/simulate", "{").await;
    assert_eq!(simulate.brief(), (400, "invalid json"));
    let bad = json!({"request": {"topic": "job.a"}, "content": "rules: ["});
    let simulate = rig
        .post("/api/v1/policy/bundles/secops~a/simulate", &bad.to_string())
        .await;
    assert_eq!(simulate.status.as_u16(), 400);
    assert!(
        simulate.text.starts_with("parse policy bundle \"secops/a\": "),
        "{simulate:?}"
    );
}

/// §14: a large text is read, a larger one is refused before it is.
#[tokio::test]
async fn bundles_have_a_limit() {
    let rig = Rig::new().await;
    let large = format!("rules: []\n#{}", "x".repeat(3 * 1024 * 1024));
    assert_eq!(
        put(&rig, "secops~a", &json!({"content": large})).await.status.as_u16(),
        200
    );
    let larger = format!("rules: []\n#{}", "x".repeat(10 * 1024 * 1024));
    let answer = put(&rig, "secops~a", &json!({"content": larger})).await;
    assert_eq!(answer.status.as_u16(), 413, "{}", answer.text);
    let answer = put(&rig, "secops~a", &json!({"content": "x".repeat(13 * 1024 * 1024)})).await;
    assert_eq!(
        answer.brief(),
        (413, "request body too large: the limit is 12582912 bytes")
    );
}

/// §14: from the first text to the way back.
#[tokio::test]
async fn bundles_are_published_and_rolled_back() {
    let rig = Rig::new().await;
    let empty = rig.get("/api/v1/policy/bundles").await;
    assert_eq!(
        empty.json(),
        json!({"bundles": {}, "items": null, "updated_at": "", "revision": 0})
    );
    assert_eq!(rig.get("/api/v1/policy/rules").await.json(), json!({"items": []}));
    assert_eq!(rig.get("/api/v1/policy/audit").await.json(), json!({"items": []}));
    assert_eq!(
        rig.get("/api/v1/policy/bundles/snapshots").await.json(),
        json!({"items": []})
    );

    let done = put(
        &rig,
        "secops~a",
        &json!({"content": DENY, "author": "ann", "message": "m", "enabled": false}),
    )
    .await;
    assert_eq!(done.header("etag"), "\"1\"");
    let done = done.json();
    assert_eq!(
        (done["id"].as_str(), done["revision"].as_u64()),
        (Some("secops/a"), Some(1))
    );
    for path in ["secops~a", "secops%2Fa", "x?bundle_id=secops~a", "x?bundle_id=secops/a"] {
        let bundle = rig.get(&format!("/api/v1/policy/bundles/{path}")).await;
        let expected = json!({"id": "secops/a", "content": DENY, "enabled": false, "author": "ann", "message": "m",
            "created_at": done["updated_at"], "updated_at": done["updated_at"], "revision": 1});
        assert_eq!(bundle.json(), expected, "{path}");
    }
    let stale = [SECOPS[0], SECOPS[1], ("if-match", "\"0\"")];
    let body = json!({"content": DENY}).to_string();
    let answer = rig.send("PUT", "/api/v1/policy/bundles/secops~a", &stale, body).await;
    assert_eq!(answer.brief(), (409, "policy bundles have revision 1, not 0"));

    let rules = rig.get("/api/v1/policy/rules").await.json();
    assert_eq!(rules, json!({"items": []}), "it is disabled");
    let rules = rig.get("/api/v1/policy/rules?include_disabled=Yes").await.json();
    let source = json!({"fragment_id": "secops/a", "pack_id": "secops", "overlay_name": "a"});
    let rule =
        json!({"id": "r1", "decision": "deny", "reason": "no", "match": {"topics": ["job.x"]}, "source": source});
    assert_eq!(rules, json!({"items": [rule]}));

    let captured = rig.post("/api/v1/policy/bundles/snapshots", "{bad").await;
    assert_eq!(captured.status.as_u16(), 200, "{captured:?}");
    let captured = captured.json();
    assert_eq!(captured["bundles"]["secops/a"]["content"], DENY);
    assert!(captured.get("note").is_none());

    let published = send(&rig, "publish", &json!({"bundle_ids": null, "note": "go"}))
        .await
        .json();
    assert_eq!(published["published"], json!(["secops/a"]));
    let bundles = rig.get("/api/v1/policy/bundles").await.json();
    assert_eq!(bundles["items"][0]["enabled"], true);
    assert_eq!(bundles["items"][0]["source"], "secops");
    assert_eq!(bundles["items"][0]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(bundles["updated_at"], bundles["bundles"]["secops/a"]["updated_at"]);

    let back = send(
        &rig,
        "rollback",
        &json!({"snapshot_id": captured["id"], "message": "oops"}),
    )
    .await
    .json();
    assert_eq!(back["rollback_to"], captured["id"]);
    assert_eq!(
        rig.get("/api/v1/policy/bundles").await.json()["items"][0]["enabled"],
        false
    );
    let id = back["snapshot_before"].as_str().unwrap();
    let before = rig.get(&format!("/api/v1/policy/bundles/snapshots/{id}")).await.json();
    assert_eq!(before["bundles"]["secops/a"]["enabled"], true);

    let audit = rig.get("/api/v1/policy/audit").await.json();
    let entries = audit["items"].as_array().unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["rollback", "publish"]);
    assert_eq!(entries[0]["message"], "oops");
    assert_eq!(entries[1]["bundle_ids"], json!(["secops/a"]));
    assert_eq!(
        (&entries[1]["actor_id"], &entries[1]["role"]),
        (&json!("ann"), &json!("SecOps"))
    );
    let heads = rig.get("/api/v1/policy/bundles/snapshots").await.json();
    assert_eq!(heads["items"].as_array().map(Vec::len), Some(5));
    assert!(heads["items"][0].get("bundles").is_none());
}

/// §2: the same, for clients that read problem details.
#[tokio::test]
async fn refusals_name_field_and_remedy() {
    let rig = Rig::new().await;
    let headers = [SECOPS[0], SECOPS[1], ("accept", "application/problem+json")];
    let body = json!({"content": "rules: [{id: a, decision: maybe}]"}).to_string();
    let answer = rig.send("PUT", "/api/v1/policy/bundles/secops~a", &headers, body).await;
    let problem = answer.json();
    assert_eq!(
        (problem["status"].as_u64(), &problem["code"], &problem["field"]),
        (Some(400), &json!("invalid_policy"), &json!("content"))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("unknown decision `maybe`") && detail.contains("send it again"),
        "{detail}"
    );
}

/// docs/spec/policy.md §8.6: stored is in force, for whoever asks after it was heard of.
#[tokio::test]
async fn a_bundle_is_in_force_as_soon_as_it_is_stored() {
    let rig = Rig::new().await;
    let decision = || async {
        let answer = rig
            .post("/api/v1/policy/evaluate", r#"{"topic":"job.deploy.web"}"#)
            .await;
        answer.json()["decision"].as_str().expect("a decision").to_owned()
    };
    assert_eq!(decision().await, "DECISION_TYPE_ALLOW");
    let freeze = json!({"content": "rules:\n- {id: freeze, decision: deny, match: {topics: [job.deploy.*]}}\n"});
    // What would be, first.
    let draft = json!({"request": {"topic": "job.deploy.web"}, "content": freeze["content"]}).to_string();
    let answer = rig.post("/api/v1/policy/bundles/secops~freeze/simulate", &draft).await;
    assert_eq!(answer.json()["decision"], "DECISION_TYPE_DENY", "{}", answer.text);
    assert_eq!(decision().await, "DECISION_TYPE_ALLOW");

    let secops = [("x-principal-id", "ada"), ("x-principal-role", "secops")];
    let answer = rig
        .send(
            "PUT",
            "/api/v1/policy/bundles/secops~freeze",
            &secops,
            freeze.to_string(),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    until("the bundle is in force", || async {
        (decision().await == "DECISION_TYPE_DENY").then_some(())
    })
    .await;
}
