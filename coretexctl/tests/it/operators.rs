//! `coretexctl status`, `worker …` and `approval …`

use serde_json::json;

use crate::stub::Stub;

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

#[test]
fn workers_are_sorted_and_filtered() {
    let workers = json!([
        {"worker_id": "w-2", "pool": "gpu", "active_jobs": 3, "max_parallel_jobs": 4, "cpu_load": 12.4},
        {"worker_id": "w-1", "pool": "gpu", "labels": {"region": "eu"}},
        {"worker_id": "w-0", "pool": "default"}
    ]);
    let server = Stub::start(move |_| (200, workers.to_string()));
    let done = server.ctl(&["worker", "list", "--pool", "gpu"]).assert().success();
    assert_eq!(
        stdout(&done),
        "WORKER  POOL  JOBS  CPU  GPU  REGION  CAPABILITIES  LABELS\n\
         w-1     gpu   0/∞                                   region=eu\n\
         w-2     gpu   3/4   12%\n"
    );
}

#[test]
fn status_is_shown_as_it_comes_with_json() {
    let status = json!({"nats": {"status": "CONNECTED"}, "uptime_seconds": 5, "workers": {"count": 1}});
    let body = status.to_string();
    let server = Stub::start(move |_| (200, body.clone()));
    let done = server.ctl(&["status", "--output", "json"]).assert().success();
    let printed: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!(printed, status);
}

#[test]
fn approvals_are_decided_with_a_reason() {
    let server = Stub::start(|_| (200, json!({"job_id": "j-1", "trace_id": "t"}).to_string()));
    server
        .ctl(&["approval", "approve", "j-1", "--reason", "checked"])
        .assert()
        .success();
    server.ctl(&["approval", "reject", "j-1"]).assert().success();
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /api/v1/approvals/j-1/approve");
    assert_eq!(seen[0].body, json!({"reason": "checked"}));
    assert_eq!(seen[1].line, "POST /api/v1/approvals/j-1/reject");
}

#[test]
fn decisions_are_paged_until_there_are_enough() {
    let server = Stub::start(|request| {
        let page = if request.line.contains("cursor=") {
            json!({"items": [{"job_id": "j-2", "decision": "DENY"}], "next_cursor": null})
        } else {
            json!({"items": [{"job_id": "j-1", "decision": "DENY", "rule_id": "r1"}], "next_cursor": "7.ag"})
        };
        (200, page.to_string())
    });
    let done = server
        .ctl(&["decision", "list", "--decision", "deny", "--rule", "r1", "-o", "json"])
        .assert()
        .success();
    let printed: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!(printed["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(printed["next_cursor"], serde_json::Value::Null);
    let done = server.ctl(&["decision", "list", "--limit", "1"]).assert().success();
    assert!(stdout(&done).contains("j-1"));
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen[0].line, "GET /api/v1/decisions?rule=r1&decision=DENY&limit=50");
    assert_eq!(
        seen[1].line,
        "GET /api/v1/decisions?rule=r1&decision=DENY&limit=49&cursor=7.ag"
    );
}

#[test]
fn a_vote_that_is_not_the_last_says_how_many_are_missing() {
    let body = json!({"job_id": "j-1", "trace_id": "t", "approvals": 1, "quorum": 2, "state": "APPROVAL_REQUIRED"});
    let server = Stub::start(move |_| (202, body.to_string()));
    let done = server
        .ctl(&["approval", "approve", "j-1", "--as", "ann", "--as-role", "secops"])
        .assert()
        .success();
    assert_eq!(
        stdout(&done),
        "counted for j-1: 1 of 2 approvals\n  next: coretexctl approval show j-1\n"
    );
}

#[test]
fn an_approval_is_shown_with_votes_and_other_ways() {
    let body = json!({
        "job": {"id": "j-1", "state": "APPROVAL_REQUIRED", "principal": "bob"}, "approvals": 1, "quorum": 2, "stale": true,
        "policy_snapshot": "v1", "policy_rule_id": "pair", "votes": [{"by": "ann", "at": 0, "reason": "fine"}],
        "request": {"topic": "job.x", "labels": {"env": "prod"}},
        "remediations": [{"id": "read", "title": "Read only", "summary": "reads instead"}]
    });
    let server = Stub::start(move |_| (200, body.to_string()));
    let done = server.ctl(&["approval", "show", "j-1"]).assert().success();
    let text = stdout(&done);
    for part in [
        "1 of 2",
        "not in force any more",
        "ann",
        "env=prod",
        "job remediate j-1 --remediation read",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    server
        .ctl(&["job", "remediate", "j-1", "--remediation", "read"])
        .assert()
        .success();
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /api/v1/approvals/j-1");
    assert_eq!(seen[1].line, "POST /api/v1/jobs/j-1/remediate");
    assert_eq!(seen[1].body, json!({"remediation_id": "read"}));
}
