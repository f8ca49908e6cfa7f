//! What is written, key by key (docs/spec/storage.md §2–5).

use coretex_core::audit::AuditRecord;
use coretex_core::backend::redis::RedisOptions;
use coretex_core::jobs::{
    ApprovalRecord, ApprovalTerms, Change, Decision, DecisionRecord, JobEvent, JobState, NewJob, OnExpiry,
    RequestWrite, Slot, TerminalDetail,
};
use coretex_core::protocol::agent::{
    BudgetConstraints, JobRequest, PolicyCheckRequest, PolicyConstraints, PolicyRemediation,
};
use coretex_core::protocol::json::from_json;
use coretex_core::protocol::{InstanceId, TenantId, WorkerId};
use std::sync::Arc;
use std::time::Duration;

use super::support::{Bench, DATA_TTL, META_TTL, START, at, fields, job, new_job, request};

fn decision(verdict: Decision) -> DecisionRecord {
    DecisionRecord {
        reason: "because \"so\"".to_owned(),
        rule_id: "r3".to_owned(),
        policy_snapshot: "v1:abc".to_owned(),
        ..DecisionRecord::new(verdict, at(5))
    }
}

fn dispatch(id: &str) -> Change {
    Change {
        token: 77,
        decision: Some(decision(Decision::Allow)),
        owner: Some(InstanceId::try_new("me").expect("an id")),
        worker_id: Some(WorkerId::try_new("w1").expect("an id")),
        placement: "least loaded of 3".to_owned(),
        slot: Some(Slot {
            tenant: TenantId::try_new("acme").expect("an id"),
            limit: 4,
        }),
        ..Change::new(job(id), JobEvent::Dispatch, at(10))
    }
}

fn micros(after_start: i64) -> String {
    (START + after_start).to_string()
}

#[tokio::test]
async fn a_created_job() {
    let bench = Bench::new().await;
    bench
        .create(NewJob {
            idempotency: Some((TenantId::try_new("acme").expect("an id"), "once".to_owned())),
            deadline: Some(at(1_500_000)),
            ..new_job("j1")
        })
        .await;
    let deadline = (START / 1_000_000 + 2).to_string();
    let expected = fields(&[
        ("state", "PENDING"),
        ("updated_at", &micros(0)),
        ("attempts", "0"),
        ("topic", "job.default"),
        ("tenant", "acme"),
        ("team", "blue"),
        ("principal", "anna"),
        ("memory_id", "mem:j1"),
        ("actor_id", "anna"),
        ("actor_type", "human"),
        ("idempotency_key", "once"),
        ("capability", "summarize"),
        ("pack_id", "pack"),
        ("risk_tags", r#"["prod"]"#),
        ("requires", r#"["docker","git"]"#),
        ("labels", r#"{"region":"eu","tier":"2"}"#),
        ("deadline_unix", &deadline),
        ("trace_id", "t1"),
        ("cx_token", &format!("- {} -", micros(0))),
        ("cx_key_tenant", "acme"),
    ]);
    assert_eq!(bench.hash("job:meta:j1").await, expected);
    assert_eq!(bench.text("job:state:j1").await.as_deref(), Some("PENDING"));
    assert_eq!(bench.text("ctx:j1").await.as_deref(), Some("{}"));
    assert_eq!(bench.text("job:idempotency:once").await.as_deref(), Some("j1"));
    assert_eq!(bench.text("cx:idem:acme:once").await.as_deref(), Some("j1"));
    assert_eq!(bench.list("job:events:j1").await, [format!("{}|PENDING", micros(0))]);
    assert_eq!(bench.score("job:index:pending", "j1").await, Some(START));
    assert_eq!(bench.score("job:recent", "j1").await, Some(START));
    assert_eq!(bench.score("job:deadline", "j1").await, Some(START / 1_000_000 + 2));
    let stored = bench.text("job:req:j1").await.expect("a request");
    assert_eq!(from_json::<JobRequest>(&stored).expect("JSON"), request("j1"));
    assert!(
        stored.contains(r#""contextHints":null"#) && stored.contains(r#""maxInputTokens":"0""#),
        "{stored}"
    );
    let expected = [
        "ctx:j1",
        "cx:idem:acme:once",
        "job:deadline",
        "job:events:j1",
        "job:idempotency:once",
        "job:index:pending",
        "job:meta:j1",
        "job:recent",
        "job:req:j1",
        "job:state:j1",
        "job:tenant:active:acme",
        "trace:t1",
    ];
    assert_eq!(bench.keys().await, expected);
    for (key, ttl) in [
        ("ctx:j1", DATA_TTL),
        ("cx:idem:acme:once", META_TTL),
        ("job:events:j1", META_TTL),
        ("job:idempotency:once", META_TTL),
        ("job:meta:j1", META_TTL),
        ("job:req:j1", META_TTL),
        ("job:state:j1", META_TTL),
        ("job:tenant:active:acme", META_TTL),
        ("trace:t1", META_TTL),
        ("job:recent", -1),
        ("job:index:pending", -1),
        ("job:deadline", -1),
    ] {
        bench.assert_ttl(key, ttl).await;
    }
}

#[tokio::test]
async fn a_dispatched_and_finished_job() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    bench.apply(dispatch("j1")).await;
    let hash = bench.hash("job:meta:j1").await;
    let expected = fields(&[
        ("state", "RUNNING"),
        ("updated_at", &micros(12)),
        ("attempts", "1"),
        ("safety_decision", "ALLOW"),
        ("safety_reason", "because \"so\""),
        ("safety_rule_id", "r3"),
        ("safety_snapshot", "v1:abc"),
        ("safety_approval_ref", ""),
        ("safety_checked_at", &micros(5)),
        ("safety_approval_required", "0"),
        ("cx_matched", "[]"),
        ("cx_owner", "me"),
        ("cx_worker_id", "w1"),
        ("cx_slot", "acme"),
        ("cx_placement", "least loaded of 3"),
        ("cx_dispatched_at", &micros(12)),
        ("cx_token", &format!("77 {} PENDING", micros(12))),
    ]);
    for (name, value) in expected {
        assert_eq!(hash.get(&name), Some(&value), "{name}");
    }
    for name in [
        "safety_constraints",
        "safety_job_hash",
        "deadline_unix",
        "cx_pending_reason",
    ] {
        assert_eq!(hash.get(name), None, "{name}");
    }
    assert_eq!(bench.text("job:state:j1").await.as_deref(), Some("RUNNING"));
    let events = ["0|PENDING", "10|SCHEDULED", "11|DISPATCHED", "12|RUNNING"].map(|event| {
        let (after, state) = event.split_once('|').expect("two parts");
        format!("{}|{state}", micros(after.parse().expect("a number")))
    });
    assert_eq!(bench.list("job:events:j1").await, events);
    assert_eq!(
        bench.list("job:decisions:j1").await,
        [format!(
            r#"{{"approval_ref":"","approval_required":false,"checked_at":{},"decision":"ALLOW","job_hash":"","policy_snapshot":"v1:abc","reason":"because \"so\"","rule_id":"r3"}}"#,
            micros(5)
        )]
    );
    assert_eq!(bench.score("cx:decisions", "j1|1").await, Some(START + 5));
    assert_eq!(bench.score("job:index:pending", "j1").await, None);
    assert_eq!(bench.score("job:index:running", "j1").await, Some(START + 12));
    assert_eq!(bench.score("job:recent", "j1").await, Some(START + 12));
    let placed: Vec<String> = bench.raw(&["SMEMBERS", "cx:tenant:placed:acme"]).await;
    assert_eq!(placed, ["j1"]);
    bench.assert_ttl("job:decisions:j1", META_TTL).await;
    bench.assert_ttl("job:state:j1", META_TTL).await;

    bench
        .apply(Change {
            outcome: Some(TerminalDetail {
                result_ptr: "redis://res:j1".to_owned(),
                worker_id: "w1".to_owned(),
                execution_ms: 7,
                ..TerminalDetail::default()
            }),
            ..Change::new(job("j1"), JobEvent::Finish(JobState::Succeeded), at(20))
        })
        .await;
    let hash = bench.hash("job:meta:j1").await;
    let expected = fields(&[
        ("state", "SUCCEEDED"),
        ("updated_at", &micros(20)),
        ("result_ptr", "redis://res:j1"),
        ("cx_result_worker", "w1"),
        ("cx_execution_ms", "7"),
        ("cx_owner", ""),
        ("cx_slot", ""),
    ]);
    for (name, value) in expected {
        assert_eq!(hash.get(&name), Some(&value), "{name}");
    }
    assert_eq!(bench.text("job:result_ptr:j1").await.as_deref(), Some("redis://res:j1"));
    let expected = [
        "ctx:j1",
        "cx:decisions",
        "job:decisions:j1",
        "job:events:j1",
        "job:index:succeeded",
        "job:meta:j1",
        "job:recent",
        "job:req:j1",
        "job:result_ptr:j1",
        "job:state:j1",
        "trace:t1",
    ];
    assert_eq!(bench.keys().await, expected, "no tenant set, no other index is left");
    for key in expected {
        let ttl = match key {
            "ctx:j1" => DATA_TTL,
            "cx:decisions" | "job:recent" | "job:index:succeeded" => -1,
            _ => META_TTL,
        };
        bench.assert_ttl(key, ttl).await;
    }
}

#[tokio::test]
async fn a_job_first_heard_of_on_the_bus_and_denied() {
    let bench = Bench::new().await;
    bench
        .apply(Change {
            request: RequestWrite::IfAbsent(Arc::new(request("j1"))),
            decision: Some(decision(Decision::Deny)),
            outcome: Some(TerminalDetail {
                error_code: "safety_denied".to_owned(),
                error_message: "no".to_owned(),
                ..TerminalDetail::default()
            }),
            dead_letter: true,
            ..Change::new(job("j1"), JobEvent::Deny, at(0))
        })
        .await;
    assert_eq!(
        bench.list("job:events:j1").await,
        [format!("{}|PENDING", micros(0)), format!("{}|DENIED", micros(1))]
    );
    assert_eq!(
        bench.text("dlq:entry:j1").await.expect("a letter"),
        r#"{"job_id":"j1","topic":"job.default","status":"JOB_STATUS_DENIED","reason":"no","reason_code":"safety_denied","last_state":"DENIED","created_at":"2026-11-20T10:00:00Z"}"#
    );
    assert_eq!(bench.score("dlq:index", "j1").await, Some(START / 1_000_000));
    assert_eq!(
        bench.text("res:j1").await.expect("a document"),
        r#"{"completed_at":"2026-11-20T10:00:00Z","error":{"message":"no"},"job_id":"j1","processed_by":"coretex-scheduler","status":"JOB_STATUS_DENIED"}"#
    );
    bench.assert_ttl("res:j1", DATA_TTL).await;
    let hash = bench.hash("job:meta:j1").await;
    assert_eq!(hash["result_ptr"], "redis://res:j1");
    assert_eq!(hash["attempts"], "0");
    assert_eq!(bench.score("job:index:pending", "j1").await, None);
    assert_eq!(bench.score("job:index:denied", "j1").await, Some(START + 1));
    for key in [
        "job:meta:j1",
        "job:state:j1",
        "job:req:j1",
        "job:events:j1",
        "job:decisions:j1",
        "job:result_ptr:j1",
    ] {
        bench.assert_ttl(key, META_TTL).await;
    }
}

#[tokio::test]
async fn an_approval() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    let constraints = PolicyConstraints {
        budgets: Some(BudgetConstraints {
            max_runtime_ms: 60_000,
            max_retries: 2,
            ..BudgetConstraints::default()
        }),
        ..PolicyConstraints::default()
    };
    bench
        .apply(Change {
            decision: Some(DecisionRecord {
                constraints: Some(constraints),
                approval_required: true,
                approval_ref: "j1".to_owned(),
                job_hash: "ff".to_owned(),
                ..decision(Decision::RequireApproval)
            }),
            ..Change::new(job("j1"), JobEvent::RequireApproval, at(10))
        })
        .await;
    let hash = bench.hash("job:meta:j1").await;
    assert_eq!(hash["safety_approval_required"], "1");
    assert_eq!(hash["safety_job_hash"], "ff");
    assert_eq!(
        hash["safety_constraints"],
        r#"{"budgets":{"maxRuntimeMs":"60000","maxRetries":2}}"#
    );
    assert_eq!(bench.score("job:index:approval_required", "j1").await, Some(START + 10));
    bench
        .apply(Change {
            approval: Some(ApprovalRecord {
                by: "bob".to_owned(),
                role: "secops".to_owned(),
                at: at(20),
                ..ApprovalRecord::default()
            }),
            ..Change::new(job("j1"), JobEvent::Approve, at(20))
        })
        .await;
    let hash = bench.hash("job:meta:j1").await;
    for (name, value) in fields(&[
        ("approval_by", "bob"),
        ("approval_role", "secops"),
        ("approval_at", &micros(20)),
        ("approval_reason", ""),
        ("approval_note", ""),
        ("approval_policy_snapshot", ""),
        ("approval_job_hash", ""),
        ("safety_job_hash", "ff"),
    ]) {
        assert_eq!(hash.get(&name), Some(&value), "{name}");
    }
    // The next decision leaves nothing of this one.
    bench.apply(dispatch("j1")).await;
    let hash = bench.hash("job:meta:j1").await;
    assert!(!hash.contains_key("safety_constraints") && !hash.contains_key("safety_job_hash"));
    assert_eq!(bench.list("job:decisions:j1").await.len(), 2);
}

/// Create, dispatch, finish: one command each.
#[tokio::test]
async fn each_phase_is_one_round_trip() {
    let bench = Bench::new().await;
    // Each call takes the next of the shared connections: all of them are there after this.
    for _ in 0..RedisOptions::default().connections {
        bench.stores.cluster.ping().await.expect("ping");
    }
    let _: String = bench.raw(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    for step in 0..3 {
        let _: String = bench.raw(&["SLOWLOG", "RESET"]).await;
        match step {
            0 => bench.create(new_job("j1")).await,
            1 => drop(bench.apply(dispatch("j1")).await),
            _ => drop(
                bench
                    .apply(Change::new(job("j1"), JobEvent::Finish(JobState::Succeeded), at(20)))
                    .await,
            ),
        }
        let logged: Vec<(i64, i64, i64, Vec<String>, String, String)> = bench.raw(&["SLOWLOG", "GET", "-1"]).await;
        // What scripts call has no client.
        let mut names: Vec<&str> = logged
            .iter()
            .filter(|entry| !entry.4.starts_with('?'))
            .map(|entry| entry.3[0].as_str())
            .collect();
        names.reverse();
        assert_eq!(names, ["SLOWLOG", "EVALSHA"], "step {step}");
    }
}

/// A job that goes on living is kept; each key gets the whole time again.
#[tokio::test]
async fn lifetimes_are_renewed() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    let keys = ["job:meta:j1", "job:req:j1", "job:events:j1", "job:state:j1"];
    for key in keys {
        let _: i64 = bench.raw(&["EXPIRE", key, "1000"]).await;
    }
    bench.apply(dispatch("j1")).await;
    for key in keys {
        bench.assert_ttl(key, META_TTL).await;
    }
}

/// Places held by jobs that are gone are found when they are missed.
#[tokio::test]
async fn leaked_slots_are_freed() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    for ghost in ["a", "b", "c", "d"] {
        let _: i64 = bench.raw(&["SADD", "cx:tenant:placed:acme", ghost]).await;
    }
    bench.apply(dispatch("j1")).await;
    let placed: Vec<String> = bench.raw(&["SMEMBERS", "cx:tenant:placed:acme"]).await;
    assert_eq!(placed, ["j1"]);
    let counts = bench.stores.jobs.counts().await.expect("counts");
    assert!(counts.contains(&(JobState::Running, 1)));
}

#[tokio::test]
async fn people_are_asked_and_vote() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    let ask = Change {
        decision: Some(DecisionRecord {
            approval_required: true,
            terms: Some(ApprovalTerms {
                quorum: 2,
                expires_after: Some(Duration::from_secs(60)),
                on_expiry: OnExpiry::Deny,
            }),
            remediations: vec![PolicyRemediation {
                id: "r".to_owned(),
                ..PolicyRemediation::default()
            }],
            input: Some(Arc::new(PolicyCheckRequest {
                job_id: "j1".to_owned(),
                ..PolicyCheckRequest::default()
            })),
            ..decision(Decision::RequireApproval)
        }),
        ..Change::new(job("j1"), JobEvent::RequireApproval, at(10))
    };
    bench.apply(ask).await;
    let hash = bench.hash("job:meta:j1").await;
    let terms = r#"{"quorum":2,"expires_after_ms":60000,"on_expiry":"deny"}"#;
    assert_eq!(hash["cx_terms"], terms);
    assert_eq!(hash["cx_remediations"], r#"[{"id":"r"}]"#);
    assert_eq!(
        bench.list("job:decisions:j1").await,
        [format!(
            r#"{{"approval_ref":"","approval_required":true,"checked_at":{},"decision":"REQUIRE_APPROVAL","input":"CgJqMQ==","job_hash":"","policy_snapshot":"v1:abc","reason":"because \"so\"","remediations":[{{"id":"r"}}],"rule_id":"r3","terms":{terms}}}"#,
            micros(5)
        )]
    );
    assert_eq!(
        bench.score("cx:approvals:due", "j1").await,
        Some(START + 5 + 60_000_000)
    );

    let vote = |by: &str, after: i64| Change {
        vote: Some(ApprovalRecord {
            by: by.to_owned(),
            at: at(after),
            ..ApprovalRecord::default()
        }),
        audit: Some(AuditRecord {
            id: format!("audit-{by}"),
            ..AuditRecord::new(at(after), by, "secops", "approval.vote", "j1")
        }),
        ..Change::new(job("j1"), JobEvent::Vote, at(after))
    };
    bench.apply(vote("ann", 20)).await;
    bench.apply(vote("bob", 30)).await;
    let hash = bench.hash("job:meta:j1").await;
    let cast = |by: &str, after| {
        format!(
            r#"{{"by":"{by}","role":"","at":{},"reason":"","note":"","policy_snapshot":"","job_hash":""}}"#,
            micros(after)
        )
    };
    assert_eq!(hash["cx_votes"], format!("[{},{}]", cast("ann", 20), cast("bob", 30)));
    assert_eq!(hash["updated_at"], micros(30));
    assert_eq!(bench.score("job:index:approval_required", "j1").await, Some(START + 30));
    assert_eq!(bench.score("job:recent", "j1").await, Some(START + 30));
    assert_eq!(bench.list("cx:audit:outbox").await, ["audit-ann", "audit-bob"]);
    let records = bench.hash("cx:audit:records").await;
    assert_eq!(
        records["audit-ann"],
        format!(
            r#"{{"id":"audit-ann","at":{},"actor":"ann","role":"secops","action":"approval.vote","target":"j1"}}"#,
            micros(20)
        )
    );

    bench.apply(Change::new(job("j1"), JobEvent::Approve, at(40))).await;
    assert_eq!(bench.score("cx:approvals:due", "j1").await, None);
}
