//! docs/spec/http.md §15, §18 and §19: definitions, runs and schedules, request by request.

use axum::body::Body;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig, settings};
use coretexd::settings::{HttpSettings, KeyEntry, KeyHash, KeyRole};

const SMOKE: &str =
    r#"{"name":"platform-smoke","org_id":"default","steps":{"approve":{"type":"approval","name":"Approve"}}}"#;
const PROBLEM: [(&str, &str); 1] = [("accept", "application/problem+json")];

/// A workflow with one approval, and a run of it that waits there.
async fn waiting(rig: &Rig) -> (String, String) {
    let answer = rig.post("/api/v1/workflows", SMOKE).await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    let id = text(&answer, "id");
    (id.clone(), start(rig, &id, "{}").await)
}

async fn start(rig: &Rig, id: &str, input: &str) -> String {
    let answer = rig.post(&format!("/api/v1/workflows/{id}/runs"), input).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    text(&answer, "run_id")
}

fn text(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_default().to_owned()
}

async fn status(rig: &Rig, run: &str) -> String {
    text(&rig.get(&format!("/api/v1/workflow-runs/{run}")).await, "status")
}

/// The flow of the reference's smoke test, as plain clients do it.
#[tokio::test]
async fn the_acceptance_flow() {
    let rig = Rig::new().await;
    let (id, run) = waiting(&rig).await;
    let approve = format!("/api/v1/workflows/{id}/runs/{run}/steps/approve/approve");
    // The step waits when the start is answered, and nothing is busy.
    let answer = rig.post(&approve, r#"{"approved": true}"#).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let answer = rig.get(&format!("/api/v1/workflow-runs/{run}")).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["steps"]["approve"]["status"], "succeeded");
    for always in [
        "id",
        "workflow_id",
        "org_id",
        "team_id",
        "input",
        "context",
        "status",
        "started_at",
        "completed_at",
        "output",
        "error",
        "steps",
        "total_cost",
        "triggered_by",
        "created_at",
        "updated_at",
    ] {
        assert!(document.get(always).is_some(), "no {always} in {document}");
    }
    let entries = rig.get(&format!("/api/v1/workflow-runs/{run}/timeline")).await.json();
    let types: Vec<&str> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["type"].as_str().unwrap())
        .collect();
    assert!(
        types.contains(&"step_waiting") && types.contains(&"step_approved"),
        "{types:?}"
    );
    assert_eq!(types.last(), Some(&"run_status"));
    for path in [
        format!("/api/v1/workflow-runs/{run}"),
        format!("/api/v1/workflows/{id}"),
    ] {
        let answer = rig.send("DELETE", &path, &[], Body::empty()).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
        let answer = rig.send("DELETE", &path, &[], Body::empty()).await;
        assert_eq!(answer.brief(), (404, "not found"), "{path}");
        assert_eq!(rig.get(&path).await.brief(), (404, "not found"), "{path}");
    }
}

/// Every refusal in its words.
#[tokio::test]
async fn refusals() {
    let rig = Rig::new().await;
    let (id, run) = waiting(&rig).await;
    let other = {
        let answer = rig.post("/api/v1/workflows", r#"{"id":"other","steps":{}}"#).await;
        text(&answer, "id")
    };
    let ended = start(&rig, &other, "").await;
    assert_eq!(status(&rig, &ended).await, "succeeded");
    let strict = r#"{"id":"strict","steps":{},"input_schema":{"type":"object","required":["name"]}}"#;
    assert_eq!(rig.post("/api/v1/workflows", strict).await.status.as_u16(), 201);

    let runs = format!("/api/v1/workflows/{id}/runs");
    let steps = format!("{runs}/{run}/steps");
    let yes = r#"{"approved":true}"#;
    for (method, path, body, status, message) in [
        ("POST", "/api/v1/workflows".to_owned(), "", 400, "invalid json"),
        ("POST", "/api/v1/workflows".to_owned(), "[]", 400, "invalid json"),
        (
            "POST",
            "/api/v1/workflows".to_owned(),
            r#"{"timeout_sec":1.5}"#,
            400,
            "invalid json",
        ),
        ("GET", "/api/v1/workflows/none".to_owned(), "", 404, "not found"),
        (
            "GET",
            format!("/api/v1/workflows/{id}?revision=none"),
            "",
            404,
            "workflow revision not found",
        ),
        (
            "GET",
            "/api/v1/workflows/none/versions".to_owned(),
            "",
            404,
            "workflow not found",
        ),
        (
            "POST",
            "/api/v1/workflows/none/runs".to_owned(),
            "",
            404,
            "workflow not found",
        ),
        ("POST", runs.clone(), "[]", 400, "invalid json"),
        ("POST", runs.clone(), "{", 400, "invalid json"),
        (
            "POST",
            format!("{runs}?start_delay_ms=soon"),
            "",
            400,
            "start_delay_ms must be a number of milliseconds",
        ),
        (
            "POST",
            format!("{runs}?start_at=soon"),
            "",
            400,
            "start_at must be a time, as 2026-01-31T10:00:00Z",
        ),
        (
            "POST",
            format!("{runs}?label=x"),
            "",
            400,
            "label must be name:value, each at most 256 bytes",
        ),
        ("GET", "/api/v1/workflow-runs/none".to_owned(), "", 404, "not found"),
        ("DELETE", "/api/v1/workflow-runs/none".to_owned(), "", 404, "not found"),
        (
            "DELETE",
            format!("/api/v1/workflow-runs/{run}"),
            "",
            409,
            "run is waiting; cancel it first",
        ),
        (
            "DELETE",
            format!("/api/v1/workflows/{id}"),
            "",
            409,
            "workflow has 1 open runs",
        ),
        (
            "POST",
            "/api/v1/workflow-runs/none/rerun".to_owned(),
            "",
            404,
            "run not found",
        ),
        (
            "POST",
            format!("/api/v1/workflow-runs/{run}/rerun"),
            "{",
            400,
            "invalid json",
        ),
        (
            "POST",
            format!("/api/v1/workflow-runs/{run}/rerun"),
            r#"{"from_step":"zz"}"#,
            400,
            "step not found",
        ),
        ("POST", format!("{runs}/none/cancel"), "", 404, "run not found"),
        (
            "POST",
            format!("/api/v1/workflows/other/runs/{run}/cancel"),
            "",
            404,
            "run not found",
        ),
        (
            "POST",
            format!("/api/v1/workflows/other/runs/{ended}/cancel"),
            "",
            409,
            "run is succeeded",
        ),
        (
            "POST",
            "/api/v1/workflow-runs/none/cancel".to_owned(),
            "",
            404,
            "run not found",
        ),
        (
            "POST",
            "/api/v1/workflow-runs/none/pause".to_owned(),
            "",
            404,
            "run not found",
        ),
        (
            "POST",
            "/api/v1/workflow-runs/none/signals/x".to_owned(),
            "",
            404,
            "run not found",
        ),
        (
            "POST",
            format!("/api/v1/workflow-runs/{run}/signals/%20"),
            "",
            400,
            "signal name must have 1 to 128 bytes and no control characters",
        ),
        (
            "POST",
            format!("/api/v1/workflow-runs/{run}/signals/x"),
            "{",
            400,
            "invalid json",
        ),
        (
            "POST",
            format!("/api/v1/workflow-runs/{run}/steps/zz/input"),
            "{}",
            404,
            "step not found",
        ),
        ("POST", format!("{steps}/approve/approve"), "", 400, "invalid body"),
        ("POST", format!("{steps}/approve/approve"), "{}", 400, "invalid body"),
        (
            "POST",
            format!("{steps}/approve/approve"),
            r#"{"approved":null}"#,
            400,
            "invalid body",
        ),
        (
            "POST",
            format!("{steps}/approve/approve"),
            r#"{"approved":"yes"}"#,
            400,
            "invalid body",
        ),
        ("POST", format!("{steps}/zz/approve"), yes, 404, "step not found"),
        (
            "POST",
            format!("{runs}/none/steps/approve/approve"),
            yes,
            404,
            "run not found",
        ),
        (
            "POST",
            format!("/api/v1/workflows/other/runs/{run}/steps/approve/approve"),
            yes,
            404,
            "run not found",
        ),
        (
            "GET",
            "/api/v1/workflow-schedules/none".to_owned(),
            "",
            404,
            "schedule not found",
        ),
        (
            "PUT",
            "/api/v1/workflow-schedules/s".to_owned(),
            r#"{"workflow_id":"other","cron":"@daily","overlap":"often"}"#,
            400,
            "/overlap: `often` is none of skip, buffer_one, allow, cancel_other",
        ),
        (
            "POST",
            "/api/v1/workflow-schedules/none/trigger".to_owned(),
            "",
            404,
            "schedule not found",
        ),
    ] {
        let answer = rig.send(method, &path, &[], body.to_owned()).await;
        assert_eq!(answer.brief(), (status, message), "{method} {path} {body}");
    }
    let answer = rig.post("/api/v1/workflows/strict/runs", "{}").await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(
        answer.text.starts_with("input schema validation failed: "),
        "{answer:?}"
    );

    // Nothing of all this has changed the run. What ended stays as it ended.
    assert_eq!(status(&rig, &run).await, "waiting");
    let cancel = format!("{runs}/{run}/cancel");
    for _ in 0..2 {
        let answer = rig.post(&cancel, "not looked at").await;
        assert_eq!(answer.status.as_u16(), 204, "{answer:?}");
    }
    assert_eq!(status(&rig, &run).await, "cancelled");
    let answer = rig.post(&format!("{steps}/approve/approve"), yes).await;
    assert_eq!(answer.status.as_u16(), 409, "{answer:?}");
}

#[tokio::test]
async fn all_problems_of_a_definition_are_told_at_once() {
    let rig = Rig::new().await;
    let bad = r#"{"id":"bad","steps":{"a":{"type":"worker","topic":"job.a","depends_on":["b","nowhere"]},
        "b":{"type":"worker","topic":"job.b","depends_on":["a"],"condition":"1 +"}}}"#;
    let answer = rig.post("/api/v1/workflows", bad).await;
    assert_eq!(answer.status.as_u16(), 400);
    for place in ["nowhere", "/steps/b/condition"] {
        assert!(answer.text.contains(place), "no {place} in {}", answer.text);
    }
    let problem = rig.send("POST", "/api/v1/workflows", &PROBLEM, bad).await.json();
    assert_eq!(problem["code"], "invalid_definition");
    let problems = problem["problems"].as_array().unwrap();
    assert!(problems.len() >= 3, "{problem}");
    assert!(
        problems
            .iter()
            .all(|p| p["pointer"].is_string() && p["code"].is_string() && p["message"].is_string())
    );
    assert_eq!(rig.get("/api/v1/workflows/bad").await.status.as_u16(), 404);

    // The same without saving, also for those who may only read.
    let answer = rig.post("/api/v1/workflows/validate", bad).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.json()["valid"], false);
    assert_eq!(answer.json()["problems"].as_array().unwrap().len(), problems.len());
    let answer = rig.post("/api/v1/workflows/validate", SMOKE).await.json();
    assert_eq!(
        (&answer["valid"], answer["hash"].as_str().unwrap().len()),
        (&json!(true), 64)
    );
}

#[tokio::test]
async fn revisions_are_kept_and_guarded() {
    let rig = Rig::new().await;
    let save = async |headers: &[(&str, &str)], name: &str| {
        let body = json!({"id": "w", "name": name, "org_id": "o", "steps": {"a": {"type": "approval"}}}).to_string();
        rig.send("POST", "/api/v1/workflows", headers, body).await
    };
    let first = save(&[], "one").await;
    assert_eq!((first.status.as_u16(), text(&first, "id").as_str()), (201, "w"));
    let tag = first.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", text(&first, "hash")));
    assert_eq!(rig.get("/api/v1/workflows/w").await.header("etag"), tag);
    let second = save(&[("if-match", &tag)], "two").await;
    assert_eq!(second.status.as_u16(), 201, "{second:?}");
    assert_ne!(second.header("etag"), tag);
    assert_eq!(save(&[("if-match", &tag)], "three").await.status.as_u16(), 412);
    assert_eq!(save(&[("if-match", "\"\"")], "three").await.status.as_u16(), 400);

    let versions = rig.get("/api/v1/workflows/w/versions").await.json();
    let items = versions["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["current"], &items[1]["current"]),
        (2, &json!(true), &json!(false))
    );
    let old = rig
        .get(&format!("/api/v1/workflows/w?revision={}", text(&first, "hash")))
        .await;
    assert_eq!(
        (old.json()["name"].as_str(), old.header("etag")),
        (Some("one"), tag.as_str())
    );
    let list = rig.get("/api/v1/workflows?org_id=o").await.json();
    assert_eq!(list[0]["name"], "two");
    assert_eq!(rig.get("/api/v1/workflows?org_id=none").await.text, "[]\n");
    // Steps that are not mentioned stay.
    assert_eq!(
        rig.post("/api/v1/workflows", r#"{"id":"w","name":"three"}"#)
            .await
            .status
            .as_u16(),
        201
    );
    assert_eq!(
        rig.get("/api/v1/workflows/w").await.json()["steps"]["a"]["type"],
        "approval"
    );
    assert_eq!(
        rig.send("DELETE", "/api/v1/workflows/w", &[], Body::empty())
            .await
            .status
            .as_u16(),
        204
    );
}

#[tokio::test]
async fn a_key_starts_one_run() {
    let rig = Rig::new().await;
    let (id, _) = waiting(&rig).await;
    let path = format!("/api/v1/workflows/{id}/runs");
    let first = rig
        .send("POST", &path, &[("idempotency-key", " k ")], r#"{"a":1}"#)
        .await;
    assert_eq!(first.header("idempotent-replayed"), "");
    for (headers, query) in [
        (&[("idempotency-key", "k")][..], ""),
        (&[("x-idempotency-key", "k")], ""),
        (&[], "?idempotency_key=k"),
        (&[], "?idempotency-key=k"),
    ] {
        let again = rig.send("POST", &format!("{path}{query}"), headers, r#"{"a":1}"#).await;
        assert_eq!(again.text, first.text, "{headers:?} {query}");
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    let answer = rig.send("POST", &path, &[("idempotency-key", "k")], r#"{"a":2}"#).await;
    assert_eq!(answer.brief(), (409, "idempotency key already used"));
}

#[tokio::test]
async fn what_a_run_is_started_with() {
    let rig = Rig::new().await;
    let (id, _) = waiting(&rig).await;
    let path = format!(
        "/api/v1/workflows/{id}/runs?org_id=acme&team_id=red&dry_run=Yes&start_delay_ms=3600000&label=env:prod&label=a:b:c"
    );
    let big = r#"{"n":12345678901234567}"#;
    let answer = rig.send("POST", &path, &[("x-principal-id", "ann")], big).await;
    let run = rig
        .get(&format!("/api/v1/workflow-runs/{}", text(&answer, "run_id")))
        .await;
    assert!(run.text.contains("12345678901234567"), "{run:?}");
    let run = run.json();
    assert_eq!(run["status"], "pending", "it is not yet time");
    assert_eq!(
        (&run["org_id"], &run["team_id"], &run["dry_run"]),
        (&json!("acme"), &json!("red"), &json!(true))
    );
    assert_eq!(
        (&run["labels"]["env"], &run["labels"]["a"]),
        (&json!("prod"), &json!("b:c"))
    );
    assert_eq!(run["triggered_by"], "ann");
    // No input is an empty one.
    for body in ["", " ", "null", "{} trailing"] {
        let run = start(&rig, &id, body).await;
        assert_eq!(
            rig.get(&format!("/api/v1/workflow-runs/{run}")).await.json()["input"],
            json!({}),
            "{body}"
        );
    }
}

#[tokio::test]
async fn large_bodies_are_refused_unread() {
    let rig = Rig::new().await;
    let (id, run) = waiting(&rig).await;
    let mib = 1024 * 1024;
    for (path, limit) in [
        ("/api/v1/workflows".to_owned(), mib),
        ("/api/v1/workflows/validate".to_owned(), mib),
        (format!("/api/v1/workflows/{id}/runs"), 2 * mib),
        (format!("/api/v1/workflow-runs/{run}/signals/s"), 256 * 1024),
        (format!("/api/v1/workflow-runs/{run}/steps/approve/input"), 256 * 1024),
    ] {
        let text = format!("request body too large: the limit is {limit} bytes");
        // 100 MB that are announced: not one byte of them is read.
        let unread = futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Vec<u8>, std::io::Error>>> {
            panic!("the body was read")
        });
        let announced = [("content-length", "100000000")];
        let answer = rig.send("POST", &path, &announced, Body::from_stream(unread)).await;
        assert_eq!(answer.brief(), (413, text.as_str()), "{path}");
        // Without an announcement, no more than the limit and one piece.
        let pieces = futures::stream::iter((0..100).map(move |i| {
            assert!(i <= 3, "too much was read");
            Ok::<_, std::io::Error>(vec![b' '; mib])
        }));
        let answer = rig.send("POST", &path, &[], Body::from_stream(pieces)).await;
        assert_eq!(answer.brief(), (413, text.as_str()), "{path}");
    }
}

#[tokio::test]
async fn runs_are_listed_page_by_page() {
    let rig = Rig::new().await;
    let (id, first) = waiting(&rig).await;
    let mut all = vec![first];
    for _ in 0..6 {
        all.push(start(&rig, &id, r#"{"large":"x"}"#).await);
    }
    all.reverse();
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = rig
            .get(&format!("/api/v1/workflow-runs?limit=3&status=waiting{cursor}"))
            .await
            .json();
        for run in page["items"].as_array().unwrap() {
            assert_eq!(run["workflow_id"], id.as_str());
            seen.push(run["id"].as_str().unwrap().to_owned());
        }
        match &page["next_cursor"] {
            Value::Null => break,
            Value::String(text) => cursor = format!("&cursor={text}"),
            number => cursor = format!("&cursor={number}"),
        }
    }
    assert_eq!(seen, all);
    let of_workflow = rig.get(&format!("/api/v1/workflows/{id}/runs")).await.json();
    assert_eq!(of_workflow.as_array().unwrap().len(), 7);
    assert_eq!(rig.get("/api/v1/workflows/none/runs").await.text, "[]\n");
    for nothing in [
        "status=WAITING",
        "org_id=none",
        "workflow_id=none",
        "updated_before=1700000000",
    ] {
        let page = rig.get(&format!("/api/v1/workflow-runs?{nothing}")).await;
        assert_eq!(page.text, "{\"items\":[],\"next_cursor\":null}\n", "{nothing}");
    }
    let page = rig.get("/api/v1/workflow-runs?fields=summary&limit=1").await.json();
    let run = &page["items"][0];
    assert_eq!(run["step_counts"], json!({"waiting": 1}));
    for left_out in ["input", "context", "steps", "output"] {
        assert!(run.get(left_out).is_none(), "{run}");
    }
}

#[tokio::test]
async fn timelines_are_read_from_either_end() {
    let rig = Rig::new().await;
    let (id, run) = waiting(&rig).await;
    rig.post(
        &format!("/api/v1/workflows/{id}/runs/{run}/steps/approve/approve"),
        r#"{"approved":false}"#,
    )
    .await;
    let path = format!("/api/v1/workflow-runs/{run}/timeline");
    let all = rig.get(&path).await;
    assert_eq!(all.header("x-next-cursor"), "");
    let all: Vec<Value> = all.json().as_array().unwrap().clone();
    assert!(all.len() >= 3, "{all:?}");
    let page = rig.get(&format!("{path}?limit=2")).await;
    assert_eq!((page.json(), page.header("x-next-cursor")), (json!(all[..2]), "2"));
    let page = rig.get(&format!("{path}?limit=2&cursor=2")).await;
    assert_eq!(page.json()[0], all[2]);
    let newest = rig.get(&format!("{path}?limit=1&order=desc")).await.json();
    assert_eq!(newest[0], *all.last().unwrap());
    assert_eq!(rig.get("/api/v1/workflow-runs/none/timeline").await.text, "[]\n");
}

/// Two people at once: one of them decides.
#[tokio::test]
async fn of_two_approvers_one_is_heard() {
    let rig = Rig::new().await;
    let (id, run) = waiting(&rig).await;
    let path = format!("/api/v1/workflows/{id}/runs/{run}/steps/approve/approve");
    let answers = futures::future::join_all((0..8).map(|n| {
        let (rig, path) = (rig.clone(), path.clone());
        let body = json!({"approved": n % 2 == 0}).to_string();
        async move { rig.post(&path, &body).await.status.as_u16() }
    }))
    .await;
    assert_eq!(
        answers.iter().filter(|status| **status == 204).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|status| **status == 409).count(),
        7,
        "{answers:?}"
    );
}

/// Who approved, in which role and why is kept; a quorum wants different people, a rule wants roles.
#[tokio::test]
async fn votes_are_kept() {
    let rig = Rig::new().await;
    let body = r#"{"id":"w","steps":{"ask":{"type":"approval","prompt":"Deploy ${input.what}?","approval":{"quorum":2,"roles":["secops"]}}}}"#;
    assert_eq!(rig.post("/api/v1/workflows", body).await.status.as_u16(), 201);
    let run = start(&rig, "w", r#"{"what":"it"}"#).await;
    let path = format!("/api/v1/workflows/w/runs/{run}/steps/ask/approve");
    let vote = async |who: &str, role: &str| {
        let headers = [("x-principal-id", who), ("x-principal-role", role)];
        let answer = rig
            .send("POST", &path, &headers, r#"{"approved":true,"reason":" fine "}"#)
            .await;
        answer.status.as_u16()
    };
    assert_eq!(vote("eve", "viewer").await, 403);
    assert_eq!(vote("", "secops").await, 400);
    assert_eq!(vote("ann", "secops").await, 204);
    assert_eq!(vote("ann", "secops").await, 409);

    // The inbox shows it among the jobs, and takes the second vote.
    let items = rig.get("/api/v1/approvals").await.json()["items"].clone();
    let item = &items[0];
    let inbox_id = format!("{run}:ask");
    assert_eq!((&item["kind"], &item["job"]["id"]), (&json!("step"), &json!(inbox_id)));
    assert_eq!(
        (&item["job"]["state"], &item["prompt"]),
        (&json!("WAITING"), &json!("Deploy it?"))
    );
    assert_eq!(
        (&item["approvals"], &item["quorum"], &item["roles"]),
        (&json!(1), &json!(2), &json!(["secops"]))
    );
    assert_eq!(item["votes"][0]["reason"], "fine");
    for key in [
        "approval_ref",
        "approval_required",
        "constraints",
        "decision",
        "job",
        "job_hash",
        "policy_reason",
        "policy_rule_id",
        "policy_snapshot",
    ] {
        assert!(item.get(key).is_some(), "old clients read {key}");
    }
    let shown = rig.get(&format!("/api/v1/approvals/{inbox_id}")).await.json();
    assert_eq!(shown["votes"], item["votes"]);
    let headers = [("x-principal-id", "bob"), ("x-principal-role", "secops")];
    let answer = rig
        .send("POST", &format!("/api/v1/approvals/{inbox_id}/approve"), &headers, "")
        .await;
    assert_eq!(
        answer.json(),
        json!({"job_id": inbox_id, "trace_id": run, "approvals": 2, "quorum": 2, "state": "SUCCEEDED"})
    );
    assert_eq!(status(&rig, &run).await, "succeeded");
    assert_eq!(rig.get("/api/v1/approvals").await.json()["items"], json!([]));
    let path = format!("/api/v1/approvals/{inbox_id}/reject");
    assert_eq!(rig.post(&path, "").await.status.as_u16(), 409);
    assert_eq!(
        rig.get(&format!("/api/v1/approvals/{run}:none")).await.brief(),
        (404, "step not found")
    );
}

/// Steps and jobs are paged together, and none is seen twice.
#[tokio::test]
async fn the_inbox_has_both() {
    let rig = Rig::new().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        let (_, run) = waiting(&rig).await;
        expected.push(format!("{run}:approve"));
    }
    for _ in 0..4 {
        let id = rig.submit(r#"{"prompt":"x"}"#).await;
        rig.ask_people(&id).await;
        expected.push(id.to_string());
    }
    expected.sort();
    for (limit, kind, count) in [
        (2, "", 9),
        (3, "", 9),
        (1, "", 9),
        (2, "&kind=job", 4),
        (2, "&kind=step", 5),
    ] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = rig
                .get(&format!("/api/v1/approvals?limit={limit}{kind}{cursor}"))
                .await
                .json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen.extend(items.iter().map(|item| item["job"]["id"].as_str().unwrap().to_owned()));
            assert!(seen.len() <= 9, "no end");
            match &page["next_cursor"] {
                Value::Null => break,
                Value::String(text) => cursor = format!("&cursor={text}"),
                number => cursor = format!("&cursor={number}"),
            }
        }
        seen.sort();
        assert_eq!(seen.len(), count, "{limit} {kind}");
        if kind.is_empty() {
            assert_eq!(seen, expected, "{limit}");
        }
    }
}

#[tokio::test]
async fn forms_and_signals_reach_their_steps() {
    let rig = Rig::new().await;
    let body = json!({"id": "w", "steps": {
        "form": {"type": "input", "prompt": "How much?",
                 "output_schema": {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}},
        "paid": {"type": "signal", "depends_on": ["form"]},
        "sum": {"type": "transform", "depends_on": ["paid"], "expression": "steps.form.output.amount + steps.paid.output.tip"},
    }});
    let answer = rig.post("/api/v1/workflows", &body.to_string()).await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    let run = start(&rig, "w", "{}").await;
    let form = format!("/api/v1/workflow-runs/{run}/steps/form/input");
    let item = rig.get("/api/v1/approvals").await.json()["items"][0].clone();
    assert_eq!(
        (&item["step_type"], &item["schema"]["required"]),
        (&json!("input"), &json!(["amount"]))
    );
    let answer = rig.send("POST", &form, &PROBLEM, r#"{"amount":"much"}"#).await;
    assert_eq!(answer.status.as_u16(), 422, "{answer:?}");
    assert!(!answer.json()["problems"].as_array().unwrap().is_empty());
    assert_eq!(rig.post(&form, r#"{"amount":40}"#).await.status.as_u16(), 204);
    assert_eq!(
        rig.post(&form, r#"{"amount":41}"#).await.brief(),
        (409, "step not waiting")
    );

    let signal = format!("/api/v1/workflow-runs/{run}/signals/paid");
    let once = [("idempotency-key", "p-1")];
    for _ in 0..2 {
        let answer = rig.send("POST", &signal, &once, r#"{"tip":2}"#).await;
        assert!(matches!(answer.status.as_u16(), 204 | 409), "{answer:?}");
    }
    let document = rig.get(&format!("/api/v1/workflow-runs/{run}")).await.json();
    assert_eq!(
        (&document["status"], &document["output"]),
        (&json!("succeeded"), &json!(42))
    );
}

#[tokio::test]
async fn runs_are_paused_and_done_again() {
    let rig = Rig::new().await;
    let body = r#"{"id":"w","steps":{"ask":{"type":"approval"},"then":{"type":"approval","depends_on":["ask"]}}}"#;
    rig.post("/api/v1/workflows", body).await;
    let run = start(&rig, "w", r#"{"a":1}"#).await;
    let act = async |verb: &str| {
        rig.post(&format!("/api/v1/workflow-runs/{run}/{verb}"), "")
            .await
            .status
            .as_u16()
    };
    let vote = format!("/api/v1/workflows/w/runs/{run}/steps");
    assert_eq!(act("pause").await, 204);
    assert_eq!(
        rig.post(&format!("{vote}/ask/approve"), r#"{"approved":true}"#)
            .await
            .status
            .as_u16(),
        204
    );
    let document = rig.get(&format!("/api/v1/workflow-runs/{run}")).await.json();
    assert_eq!(
        (&document["paused"], document["steps"].get("then")),
        (&json!(true), None)
    );
    assert_eq!(act("resume").await, 204);
    assert_eq!(
        rig.post(&format!("{vote}/then/approve"), r#"{"approved":false}"#)
            .await
            .status
            .as_u16(),
        204
    );
    assert_eq!(status(&rig, &run).await, "failed");

    let answer = rig
        .post(
            &format!("/api/v1/workflow-runs/{run}/rerun"),
            r#"{"from_step":" then "}"#,
        )
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let again = rig
        .get(&format!("/api/v1/workflow-runs/{}", text(&answer, "run_id")))
        .await
        .json();
    assert_eq!(
        (&again["rerun_of"], &again["rerun_step"], &again["input"]),
        (&json!(run), &json!("then"), &json!({"a": 1}))
    );
    assert_eq!(again["steps"]["ask"]["status"], "succeeded");
    assert_eq!(again["steps"]["then"]["status"], "waiting");
}

#[tokio::test]
async fn schedules_are_documents() {
    let rig = Rig::new().await;
    let (id, _) = waiting(&rig).await;
    let path = "/api/v1/workflow-schedules/nightly";
    let body =
        json!({"workflow_id": id, "cron": "0 2 * * *", "timezone": "Europe/Berlin", "input": {"a": 1}}).to_string();
    let put = async |headers: &[(&str, &str)]| rig.send("PUT", path, headers, body.clone()).await;
    let first = put(&[("if-none-match", "*")]).await;
    assert_eq!(
        (first.status.as_u16(), first.header("etag")),
        (200, "\"1\""),
        "{first:?}"
    );
    assert_eq!(first.json()["overlap"], "skip");
    assert!(first.json()["next_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(put(&[("if-none-match", "*")]).await.status.as_u16(), 409);
    assert_eq!(put(&[("if-match", "\"7\"")]).await.status.as_u16(), 412);
    assert_eq!(put(&[("if-match", "\"1\"")]).await.header("etag"), "\"2\"");
    let list = rig.get("/api/v1/workflow-schedules").await.json();
    assert_eq!(list["items"][0]["id"], "nightly");

    for (verb, paused) in [("pause", true), ("resume", false)] {
        let answer = rig.post(&format!("{path}/{verb}"), "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["paused"]),
            (200, &json!(paused))
        );
    }
    let run = text(&rig.post(&format!("{path}/trigger"), "").await, "run_id");
    let run = rig.get(&format!("/api/v1/workflow-runs/{run}")).await.json();
    assert_eq!(
        (&run["input"], &run["metadata"]["schedule"]),
        (&json!({"a": 1}), &json!("nightly"))
    );

    let bad = json!({"workflow_id": "none", "cron": "soon", "start_at": "x"}).to_string();
    let answer = rig.send("PUT", path, &PROBLEM, bad).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["problems"][0]["pointer"]),
        (400, &json!("/start_at"))
    );
    let bad = json!({"workflow_id": "none", "cron": "soon"}).to_string();
    let answer = rig.send("PUT", path, &PROBLEM, bad).await;
    assert_eq!(answer.json()["problems"].as_array().unwrap().len(), 2, "{answer:?}");
    assert_eq!(rig.send("DELETE", path, &[], Body::empty()).await.status.as_u16(), 204);
    assert_eq!(rig.get(path).await.status.as_u16(), 404);
}

/// Keys that only read may look and ask, and nothing else.
#[tokio::test]
async fn viewers_only_look() {
    let key = |name: &str, role: KeyRole| KeyEntry {
        hash: KeyHash::of(name),
        principal: name.to_owned(),
        roles: vec![role],
    };
    let rig = Rig::with(HttpSettings {
        keys: vec![key("vera", KeyRole::Viewer), key("olga", KeyRole::Operator)],
        ..settings()
    })
    .await;
    let (vera, olga) = ([("x-api-key", "vera")], [("x-api-key", "olga")]);
    let answer = rig.send("POST", "/api/v1/workflows", &olga, SMOKE).await;
    let id = text(&answer, "id");
    let answer = rig
        .send("POST", &format!("/api/v1/workflows/{id}/runs"), &olga, "")
        .await;
    let run = text(&answer, "run_id");
    for (method, path, status) in [
        ("GET", format!("/api/v1/workflows/{id}"), 200),
        ("GET", format!("/api/v1/workflow-runs/{run}"), 200),
        ("POST", "/api/v1/workflows/validate".to_owned(), 200),
        ("POST", "/api/v1/workflows".to_owned(), 403),
        ("POST", format!("/api/v1/workflows/{id}/runs"), 403),
        ("POST", format!("/api/v1/workflow-runs/{run}/cancel"), 403),
        ("POST", format!("/api/v1/approvals/{run}:approve/approve"), 403),
        ("DELETE", format!("/api/v1/workflows/{id}"), 403),
    ] {
        let answer = rig.send(method, &path, &vera, "{}".to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
    }
    let run = rig
        .send("GET", &format!("/api/v1/workflow-runs/{run}"), &vera, Body::empty())
        .await
        .json();
    assert_eq!(run["triggered_by"], "olga");
}
