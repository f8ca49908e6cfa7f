//! What the reference left behind is read, and goes on (docs/spec/storage.md §2).

use coretex_core::jobs::{
    Admission, Change, Decision, JobEvent, JobState, JobStoreExt as _, ListQuery, NewJob, Outcome, Source,
};
use coretex_core::pointers::{Pointer, Stored};
use coretex_core::protocol::TenantId;
use coretex_core::protocol::json::{Mode, to_json};

use super::support::{Bench, START, at, job, new_job, request};

/// A job as the reference's gateway leaves it for approval.
async fn waiting_for_approval(bench: &Bench, id: &str, required: &str) {
    let start = START.to_string();
    let meta = format!("job:meta:{id}");
    let _: i64 = bench
        .raw(&[
            "HSET",
            &meta,
            "state",
            "APPROVAL_REQUIRED",
            "updated_at",
            &start,
            "attempts",
            "0",
            "topic",
            "job.default",
            "tenant",
            "acme",
            "team",
            "",
            "principal",
            "",
            "memory_id",
            "",
            "trace_id",
            "t9",
            "labels",
            r#"{"a":"b"}"#,
            "risk_tags",
            "not json",
            "deadline_unix",
            "1795168900",
            "safety_decision",
            "REQUIRE_APPROVAL",
            "safety_reason",
            "ask",
            "safety_rule_id",
            "r1",
            "safety_snapshot",
            "v1",
            "safety_approval_ref",
            id,
            "safety_checked_at",
            &start,
            "safety_approval_required",
            required,
            "safety_job_hash",
            "ff",
            "safety_constraints",
            r#"{"budgets": {"max_runtime_ms": 60000}}"#,
        ])
        .await;
    let _: String = bench
        .raw(&["SET", &format!("job:state:{id}"), "APPROVAL_REQUIRED"])
        .await;
    let _: i64 = bench.raw(&["ZADD", "job:index:approval_required", &start, id]).await;
    let _: i64 = bench.raw(&["ZADD", "job:recent", &start, id]).await;
    let _: i64 = bench.raw(&["ZADD", "job:deadline", "1795168900", id]).await;
    let _: i64 = bench.raw(&["SADD", "job:tenant:active:acme", id]).await;
    let _: i64 = bench.raw(&["SADD", "trace:t9", id]).await;
}

#[tokio::test]
async fn flags_are_read_in_both_spellings() {
    let bench = Bench::new().await;
    for (id, flag, expected) in [
        ("a", "1", true),
        ("b", "true", true),
        ("c", "0", false),
        ("d", "false", false),
    ] {
        waiting_for_approval(&bench, id, flag).await;
        let record = bench.stores.jobs.get(&job(id)).await.expect("get").expect("there");
        let decision = record.decision.expect("a decision");
        assert_eq!(decision.approval_required, expected, "{flag}");
        assert_eq!(decision.decision, Decision::RequireApproval);
        assert_eq!(
            decision
                .constraints
                .expect("constraints")
                .budgets
                .expect("budgets")
                .max_runtime_ms,
            60_000
        );
        assert_eq!(record.labels["a"], "b");
        assert!(record.risk_tags.is_empty());
        assert_eq!(record.deadline.expect("a deadline").secs(), 1_795_168_900);
        assert_eq!(record.trace_id.expect("a trace").as_str(), "t9");
    }
}

#[tokio::test]
async fn its_jobs_go_on() {
    let bench = Bench::new().await;
    waiting_for_approval(&bench, "j1", "1").await;
    bench.apply(Change::new(job("j1"), JobEvent::Approve, at(10))).await;
    bench.apply(Change::new(job("j1"), JobEvent::Dispatch, at(20))).await;
    let finish = JobEvent::Finish(JobState::Succeeded);
    let applied = bench.apply(Change::new(job("j1"), finish, at(30))).await;
    assert_eq!((applied.tenant.as_str(), applied.attempts), ("acme", 1));
    assert_eq!(bench.score("job:deadline", "j1").await, None);
    assert_eq!(bench.score("job:index:approval_required", "j1").await, None);
    assert!(!bench.hash("job:meta:j1").await.contains_key("deadline_unix"));
    let active: i64 = bench.raw(&["EXISTS", "job:tenant:active:acme"]).await;
    assert_eq!(active, 0);
}

#[tokio::test]
async fn a_state_beside_the_hash_counts_when_there_is_none_in_it() {
    let bench = Bench::new().await;
    let _: i64 = bench.raw(&["HSET", "job:meta:j1", "topic", "job.default"]).await;
    assert_eq!(bench.stores.jobs.get(&job("j1")).await.expect("get"), None);
    let _: String = bench.raw(&["SET", "job:state:j1", "RUNNING"]).await;
    let _: i64 = bench
        .raw(&["HSET", "job:meta:j1", "updated_at", &START.to_string()])
        .await;
    let _: i64 = bench
        .raw(&["ZADD", "job:index:running", &START.to_string(), "j1"])
        .await;
    let record = bench.stores.jobs.get(&job("j1")).await.expect("get").expect("there");
    assert_eq!(
        (record.state, record.topic.as_str()),
        (JobState::Running, "job.default")
    );
    let scanned = bench
        .stores
        .jobs
        .scan(JobState::Running, at(0), None, 9)
        .await
        .expect("scan");
    assert_eq!(scanned.len(), 1);
    let again = bench.stores.jobs.create(new_job("j1")).await.expect("create");
    assert_eq!(again, Admission::Exists(JobState::Running));
    let cancelled = bench.apply(Change::new(job("j1"), JobEvent::Cancel, at(5))).await;
    assert_eq!(cancelled.previous, Some(JobState::Running));
    assert_eq!(bench.score("job:index:running", "j1").await, None);
}

#[tokio::test]
async fn a_job_left_between_two_commits_is_dispatched_once_more_and_counted_once() {
    let bench = Bench::new().await;
    let _: i64 = bench
        .raw(&[
            "HSET",
            "job:meta:j1",
            "state",
            "SCHEDULED",
            "updated_at",
            "5",
            "attempts",
            "1",
        ])
        .await;
    let applied = bench.apply(Change::new(job("j1"), JobEvent::Dispatch, at(0))).await;
    assert_eq!((applied.previous, applied.attempts), (Some(JobState::Scheduled), 1));
}

#[tokio::test]
async fn blank_decisions_are_passed_over() {
    let bench = Bench::new().await;
    bench.create(new_job("j1")).await;
    let entry = r#"{"approval_ref":"","approval_required":false,"checked_at":1795358581660672,"constraints":{"budgets":{"maxRuntimeMs":"60000","maxRetries":2}},"decision":"ALLOW_WITH_CONSTRAINTS","job_hash":"","policy_snapshot":"v1:abc","reason":"","rule_id":"r3"}"#;
    let _: i64 = bench.raw(&["RPUSH", "job:decisions:j1", "", entry, "", "{"]).await;
    let decisions = bench.stores.jobs.decisions(&job("j1"), 1).await.expect("decisions");
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].rule_id, "r3");
    assert_eq!(decisions[0].checked_at.micros(), 1_795_358_581_660_672);
    let budgets = decisions[0]
        .constraints
        .as_ref()
        .and_then(|c| c.budgets.as_ref())
        .expect("budgets");
    assert_eq!((budgets.max_runtime_ms, budgets.max_retries), (60_000, 2));
}

#[tokio::test]
async fn its_requests_are_read() {
    let bench = Bench::new().await;
    let full = to_json(&request("j1"), Mode::Full).replace(':', " : ");
    let snake = r#"{"job_id":"j2","topic":"job.default","from_the_future":1,"budget":{"deadline_ms":5}}"#;
    let _: String = bench.raw(&["SET", "job:req:j2", snake]).await;
    let read = bench
        .stores
        .jobs
        .request(&job("j2"))
        .await
        .expect("request")
        .expect("there");
    assert_eq!(read.budget.expect("a budget").deadline_ms, 5);
    let _: String = bench
        .raw(&[
            "SET",
            "job:req:j1",
            &full
                .replace("redis : //", "redis://")
                .replace("mem : ", "mem:")
                .replace("ctx : ", "ctx:"),
        ])
        .await;
    let read = bench.stores.jobs.request(&job("j1")).await.expect("request");
    assert_eq!(read, Some(request("j1")));
}

/// It knows no tenants: it counts if its job is of the same one, or of none that is known.
#[tokio::test]
async fn its_idempotency_keys_are_honoured() {
    let bench = Bench::new().await;
    let with = |id: &str, tenant: &str, key: &str| NewJob {
        idempotency: Some((TenantId::try_new(tenant).expect("an id"), key.to_owned())),
        ..new_job(id)
    };
    waiting_for_approval(&bench, "old", "0").await;
    let _: String = bench.raw(&["SET", "job:idempotency:k1", "old"]).await;
    let _: String = bench.raw(&["SET", "job:idempotency:k2", "gone"]).await;
    let same = bench.stores.jobs.create(with("a", "acme", "k1")).await.expect("create");
    let Admission::Duplicate { job: holder, trace } = same else {
        panic!("{same:?}");
    };
    assert_eq!((holder.as_str(), trace.expect("a trace").as_str()), ("old", "t9"));
    let unknown = bench.stores.jobs.create(with("b", "acme", "k2")).await.expect("create");
    assert!(matches!(unknown, Admission::Duplicate { .. }));
    bench.create(with("c", "other", "k1")).await;
    assert_eq!(bench.text("cx:idem:other:k1").await.as_deref(), Some("c"));
    assert_eq!(
        bench.text("job:idempotency:k1").await.as_deref(),
        Some("old"),
        "not taken over"
    );
}

/// Members of indices whose jobs expired are dropped, and do not fill the page (weak spot of the reference).
#[tokio::test]
async fn poison_entries_are_dropped() {
    let bench = Bench::new().await;
    bench
        .create(NewJob {
            deadline: Some(at(0)),
            ..new_job("alive")
        })
        .await;
    for i in 0..1_200 {
        let id = format!("gone{i}");
        for (key, score) in [("job:index:pending", 7), ("job:recent", START + 7), ("job:deadline", 7)] {
            let _: i64 = bench.raw(&["ZADD", key, &score.to_string(), &id]).await;
        }
    }
    let jobs = &bench.stores.jobs;
    let scanned = jobs.scan(JobState::Pending, at(0), None, 10).await.expect("scan");
    assert_eq!(
        scanned.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(),
        ["alive"]
    );
    let due = jobs.due(at(9_000_000), 10).await.expect("due");
    assert_eq!(due, [job("alive")]);
    let page = jobs
        .list(&ListQuery {
            source: Source::Recent,
            after: None,
            limit: 10,
        })
        .await
        .expect("list");
    assert_eq!((page.jobs.len(), page.next), (1, None));
    for key in ["job:index:pending", "job:recent", "job:deadline"] {
        let left: i64 = bench.raw(&["ZCARD", key]).await;
        assert_eq!(left, 1, "{key}");
    }
}

#[tokio::test]
async fn the_sweep_spares_open_jobs_and_takes_ghosts() {
    let bench = Bench::new().await;
    let id = "open";
    bench
        .create(NewJob {
            at: at(0),
            ..new_job(id)
        })
        .await;
    for key in ["job:recent", "job:index:pending", "job:index:failed"] {
        let _: i64 = bench.raw(&["ZADD", key, "1", "ghost"]).await;
    }
    // Eight days later.
    let later = at(8 * 86_400 * 1_000_000);
    assert_eq!(bench.stores.jobs.sweep(later).await.expect("sweep"), 3);
    assert_eq!(bench.score("job:recent", id).await, Some(START));
    assert_eq!(bench.score("job:index:pending", id).await, Some(START));
    assert_eq!(bench.stores.jobs.sweep(later).await.expect("sweep"), 0);
}

#[tokio::test]
async fn an_unreadable_state_is_said_to_be_so() {
    let bench = Bench::new().await;
    let _: i64 = bench.raw(&["HSET", "job:meta:j1", "state", "NONSENSE"]).await;
    let error = bench.stores.jobs.get(&job("j1")).await.expect_err("corrupt");
    assert!(!error.is_retryable());
    let outcome = bench
        .stores
        .jobs
        .apply(Change::new(job("j1"), JobEvent::Cancel, at(0)))
        .await;
    assert!(!matches!(outcome, Ok(Outcome::Applied(_))));
}

#[tokio::test]
async fn memory_of_any_type_is_inspected() {
    let bench = Bench::new().await;
    let _: i64 = bench.raw(&["RPUSH", "mem:list", "a", "b", "c"]).await;
    let _: i64 = bench.raw(&["SADD", "mem:set", "b", "a"]).await;
    let _: i64 = bench.raw(&["HSET", "mem:hash", "k", "v"]).await;
    let _: i64 = bench.raw(&["ZADD", "mem:zset", "1", "a"]).await;
    let inspect = |key: &'static str, limit| {
        let payloads = &bench.stores.payloads;
        async move {
            payloads
                .inspect(&Pointer::from_key(key).expect("a pointer"), limit)
                .await
                .expect("inspect")
        }
    };
    let list = |words: &[&'static str]| {
        words
            .iter()
            .map(|word| word.as_bytes().into())
            .collect::<Vec<bytes::Bytes>>()
    };
    assert_eq!(inspect("mem:list", 2).await, Some(Stored::List(list(&["a", "b"]))));
    assert_eq!(inspect("mem:list", 0).await, Some(Stored::List(vec![])));
    assert_eq!(inspect("mem:set", 9).await, Some(Stored::Set(list(&["a", "b"]))));
    let hash = [("k".to_owned(), bytes::Bytes::from_static(b"v"))].into();
    assert_eq!(inspect("mem:hash", 9).await, Some(Stored::Hash(hash)));
    assert_eq!(inspect("mem:zset", 9).await, Some(Stored::Other("zset".to_owned())));
    let pointer = Pointer::from_key("mem:list").expect("a pointer");
    let error = bench.stores.payloads.get(&pointer).await.expect_err("no payload");
    assert!(!error.is_retryable(), "{error}");
}
