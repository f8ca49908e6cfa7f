//! `coretexctl job …`

use serde_json::{Value, json};

use crate::stub::Stub;

/// A server on which a submitted job goes through `states`, one per look.
fn lives(states: &'static [&'static str]) -> Stub {
    let mut looks = 0;
    Stub::start(move |request| {
        if request.line.starts_with("POST") {
            return (200, json!({"job_id": "j-1", "trace_id": "t-1"}).to_string());
        }
        let state = states[looks.min(states.len() - 1)];
        looks += 1;
        let mut job = json!({"id": "j-1", "state": state, "topic": "job.x"});
        match state {
            "SUCCEEDED" => job["result"] = json!({"answer": 42}),
            "FAILED" => job["error_message"] = json!("the disk is full"),
            "PENDING" => {
                job["pending_reason"] = json!("no_workers");
                job["pending_detail"] = json!("no live worker in pool gpu");
            }
            _ => {}
        }
        (200, job.to_string())
    })
}

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn submit_prints_the_id_and_what_to_do_next() {
    let server = lives(&["PENDING"]);
    let done = server
        .ctl(&["job", "submit", "do it", "--topic", "job.x", "--label", "region=eu"])
        .env("CORETEX_API_KEY", " 'secret' ")
        .assert()
        .success();
    assert_eq!(stdout(&done), "j-1\n  next: coretexctl job watch j-1\n");
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /api/v1/jobs");
    assert_eq!(seen[0].key.as_deref(), Some("secret"));
    assert_eq!(
        seen[0].body,
        json!({"prompt": "do it", "topic": "job.x", "labels": {"region": "eu"}})
    );
}

#[test]
fn submit_and_wait_shows_the_result() {
    let server = lives(&["PENDING", "RUNNING", "SUCCEEDED"]);
    let done = server.ctl(&["job", "submit", "do it", "--wait"]).assert().success();
    assert!(stdout(&done).contains("\"answer\": 42"), "{}", stdout(&done));
}

#[test]
fn a_job_that_fails_ends_the_wait_with_code_6_and_says_why() {
    let server = lives(&["RUNNING", "FAILED"]);
    let done = server
        .ctl(&["job", "submit", "do it", "--wait", "-o", "json"])
        .assert()
        .code(6);
    let job: Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!(job["state"], "FAILED");
    assert!(stderr(&done).contains("the disk is full"), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("coretexctl job explain j-1"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn a_wait_that_is_over_ends_with_code_7_and_says_what_the_job_waits_for() {
    let server = lives(&["PENDING"]);
    let done = server.ctl(&["job", "watch", "j-1", "--for", "60ms"]).assert().code(7);
    assert!(
        stderr(&done).contains("no live worker in pool gpu"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn watch_prints_each_change_once() {
    let server = lives(&["PENDING", "PENDING", "RUNNING", "SUCCEEDED"]);
    let done = server.ctl(&["job", "watch", "j-1", "-o", "json"]).assert().success();
    let states: Vec<String> = stdout(&done)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["state"].to_string())
        .collect();
    assert_eq!(states, ["\"PENDING\"", "\"RUNNING\"", "\"SUCCEEDED\""]);
}

#[test]
fn list_sends_its_filters() {
    let server = Stub::start(|_| (200, json!({"items": [], "next_cursor": null}).to_string()));
    let done = server
        .ctl(&["job", "list", "--state", "failed", "--topic", "job.a b", "--limit", "7"])
        .assert()
        .success();
    assert_eq!(stdout(&done), "");
    assert_eq!(
        server.seen()[0].line,
        "GET /api/v1/jobs?limit=7&state=FAILED&topic=job.a+b"
    );
}

#[test]
fn an_id_is_escaped_in_the_path() {
    let server = Stub::start(|_| (404, "job not found\n".to_owned()));
    let done = server.ctl(&["job", "get", "run:step@1/../x?y"]).assert().code(3);
    assert_eq!(server.seen()[0].line, "GET /api/v1/jobs/run:step@1%2F..%2Fx%3Fy");
    assert!(
        stderr(&done).starts_with("error: job not found (status 404)\n"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn explain_asks_for_the_decisions_too() {
    let server = Stub::start(|request| {
        if request.line.ends_with("/decisions") {
            (
                200,
                json!([{"decision": "DENY", "rule_id": "no-x", "matched": ["topics: job.x"]}]).to_string(),
            )
        } else {
            (
                200,
                json!({"id": "j-1", "state": "DENIED", "safety_decision": "DENY", "safety_rule_id": "no-x"})
                    .to_string(),
            )
        }
    });
    let done = server.ctl(&["job", "explain", "j-1"]).assert().success();
    for part in ["DENY by rule no-x", "topics: job.x", "policy said no"] {
        assert!(stdout(&done).contains(part), "{}", stdout(&done));
    }
}

#[test]
fn cancelling_what_is_over_is_refused() {
    let answer = json!({"id": "j-1", "state": "SUCCEEDED", "reason": "job already terminal"}).to_string();
    let server = Stub::start(move |_| (200, answer.clone()));
    server.ctl(&["job", "cancel", "j-1"]).assert().code(4);
    assert_eq!(server.seen()[0].line, "POST /api/v1/jobs/j-1/cancel");
}
