//! What a job and a commit of a run cost the Redis server: time on its processor and commands, per phase.
//!
//! `cargo bench -p coretex-core --bench redis_store [-- <jobs>]`

#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::jobs::{
    Change, Decision, DecisionRecord, JobEvent, JobState, NewJob, Outcome, RequestWrite, Slot, TerminalDetail,
};
use coretex_core::protocol::agent::{JobMetadata, JobRequest};
use coretex_core::protocol::{InstanceId, JobId, TenantId, TraceId, WorkerId};
use coretex_core::test_util::servers::RedisServer;
use coretex_core::time::{Clock, Timestamp};
use coretex_core::workflow::event::{Effect, TimelineEvent};
use coretex_core::workflow::store::{Committed, Created, NewRun, RunCommit};
use coretex_core::workflow::{RunHead, RunId, RunStatus, StepKey, StepRecord};
use futures::{StreamExt as _, TryStreamExt as _, stream};

const BATCH: usize = 64;

fn request(id: &JobId) -> JobRequest {
    JobRequest {
        job_id: id.to_string(),
        topic: "job.default".to_owned(),
        priority: 1,
        context_ptr: format!("redis://ctx:{id}"),
        tenant_id: "acme".to_owned(),
        principal_id: "anna".to_owned(),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        env: [("tenant_id".to_owned(), "acme".to_owned())].into(),
        meta: Some(JobMetadata {
            tenant_id: "acme".to_owned(),
            capability: "summarize".to_owned(),
            risk_tags: vec!["prod".to_owned()],
            ..JobMetadata::default()
        }),
        ..JobRequest::default()
    }
}

fn decision(at: Timestamp) -> DecisionRecord {
    DecisionRecord {
        rule_id: "r17".to_owned(),
        policy_snapshot: "v1:0123456789abcdef".to_owned(),
        matched: vec!["topics: job.* matches job.default".to_owned()],
        ..DecisionRecord::new(Decision::Allow, at)
    }
}

struct Meter<'a> {
    connection: &'a mut redis::aio::MultiplexedConnection,
    cpu: f64,
    commands: u64,
    begin: Instant,
}

impl<'a> Meter<'a> {
    async fn start(connection: &'a mut redis::aio::MultiplexedConnection) -> Self {
        let (cpu, commands) = usage(connection).await;
        Self {
            connection,
            cpu,
            commands,
            begin: Instant::now(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    async fn report(self, phase: &str, jobs: usize) -> f64 {
        let elapsed = self.begin.elapsed().as_secs_f64();
        let (cpu, commands) = usage(self.connection).await;
        let micros = (cpu - self.cpu) * 1e6 / jobs as f64;
        println!(
            "{phase:<28} {:>8.0} jobs/s   {micros:>6.1} µs of server time per job   {:>5.2} commands per job",
            jobs as f64 / elapsed,
            (commands - self.commands) as f64 / jobs as f64,
        );
        micros
    }
}

/// Seconds of processor time, and commands that came over connections.
async fn usage(connection: &mut redis::aio::MultiplexedConnection) -> (f64, u64) {
    let info: String = redis::cmd("INFO")
        .arg("everything")
        .query_async(connection)
        .await
        .expect("INFO");
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("0")
            .to_owned()
    };
    if std::env::var_os("SHOW").is_some() {
        for line in info.lines().filter(|line| line.starts_with("cmdstat_")) {
            println!("  {line}");
        }
        let _: String = redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .query_async(connection)
            .await
            .expect("RESETSTAT");
    }
    let seconds = |name: &str| field(name).parse::<f64>().unwrap_or(0.0);
    let calls = |name: &str| -> u64 {
        field(&format!("cmdstat_{name}"))
            .strip_prefix("calls=")
            .and_then(|rest| rest.split(',').next()?.parse().ok())
            .unwrap_or(0)
    };
    (
        seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread"),
        calls("evalsha"),
    )
}

async fn apply(jobs: &dyn coretex_core::jobs::JobStore, changes: Vec<Change>) {
    stream::iter(changes.chunks(BATCH).map(<[Change]>::to_vec))
        .map(|batch| async move { jobs.apply_many(&batch).await })
        .buffer_unordered(4)
        .for_each(|outcomes| async {
            for outcome in outcomes {
                assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
            }
        })
        .await;
}

async fn run(n: usize) {
    let server = RedisServer::start().await;
    let client = redis::Client::open(server.url()).expect("a url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    let stores = RedisStores::connect(&server.url(), RedisOptions::default())
        .await
        .expect("connects");
    let clock = Clock::system();
    let me = InstanceId::random();
    let worker = WorkerId::try_new("worker-1").expect("an id");
    let tenant = TenantId::try_new("acme").expect("an id");

    for known in [true, false] {
        let ids: Vec<JobId> = (0..n).map(|_| JobId::random()).collect();
        println!(
            "\n{n} jobs, {}",
            if known {
                "created by the gateway"
            } else {
                "first heard of on the bus"
            }
        );
        if known {
            let meter = Meter::start(&mut connection).await;
            stream::iter(ids.iter().map(|id| {
                stores.jobs.create(NewJob {
                    id: id.clone(),
                    request: Arc::new(request(id)),
                    trace_id: Some(TraceId::random()),
                    payload: Some(Bytes::from_static(&[b'x'; 256])),
                    idempotency: None,
                    deadline: None,
                    at: clock.now(),
                })
            }))
            .buffer_unordered(64)
            .try_for_each(|_| async { Ok(()) })
            .await
            .expect("creates");
            meter.report("create", n).await;
        }
        let dispatches = ids
            .iter()
            .map(|id| Change {
                request: if known {
                    RequestWrite::Keep
                } else {
                    RequestWrite::IfAbsent(Arc::new(request(id)))
                },
                trace_id: Some(TraceId::random()),
                decision: Some(decision(clock.now())),
                owner: Some(me.clone()),
                worker_id: Some(worker.clone()),
                placement: "least loaded of 3".to_owned(),
                slot: Some(Slot {
                    tenant: tenant.clone(),
                    limit: 0,
                }),
                ..Change::new(id.clone(), JobEvent::Dispatch, clock.now())
            })
            .collect();
        let meter = Meter::start(&mut connection).await;
        apply(&*stores.jobs, dispatches).await;
        let dispatch = meter.report("dispatch", n).await;
        let finishes = ids
            .iter()
            .map(|id| Change {
                outcome: Some(TerminalDetail {
                    result_ptr: format!("redis://res:{id}"),
                    worker_id: worker.to_string(),
                    execution_ms: 12,
                    ..TerminalDetail::default()
                }),
                ..Change::new(id.clone(), JobEvent::Finish(JobState::Succeeded), clock.now())
            })
            .collect();
        let meter = Meter::start(&mut connection).await;
        apply(&*stores.jobs, finishes).await;
        let finish = meter.report("finish", n).await;
        println!("dispatch + finish: {:.1} µs of server time per job", dispatch + finish);
    }
}

fn commit(run: &RunId, revision: u64, status: RunStatus, at: Timestamp) -> RunCommit {
    let step = StepKey::new("each").child(usize::try_from(revision).unwrap_or_default());
    let job = JobId::try_new(&format!("{run}:{step}@1")).expect("an id");
    let submit = Effect::Submit {
        step: step.clone(),
        job: job.clone(),
    };
    let event = |event_type: &str| TimelineEvent {
        time: at,
        event_type: event_type.to_owned(),
        run_id: run.to_string(),
        workflow_id: "bench".to_owned(),
        step_id: step.to_string(),
        ..TimelineEvent::default()
    };
    RunCommit {
        run: run.clone(),
        expected: revision,
        token: rand::random(),
        head: RunHead {
            workflow_id: "bench".to_owned(),
            definition: "0".repeat(64),
            org_id: "acme".to_owned(),
            status,
            created_at: at,
            updated_at: at,
            ..RunHead::default()
        },
        context: None,
        steps: vec![(
            step.clone(),
            StepRecord {
                status: RunStatus::Running,
                started_at: Some(at),
                attempts: 1,
                job_id: Some(job.clone()),
                ..StepRecord::default()
            },
        )],
        items: Vec::new(),
        effects: vec![(revision, submit)],
        done: vec![revision.saturating_sub(1)],
        payloads: vec![(job, Bytes::from_static(&[b'x'; 256]))],
        timeline: vec![event("step_completed"), event("step_dispatched")],
        due: (!status.is_terminal()).then_some(at),
        inbox_add: Vec::new(),
        inbox_remove: Vec::new(),
        audit: Vec::new(),
    }
}

/// Runs with commits as a chain of jobs makes them: a step ends, the next job is submitted.
async fn runs(n: usize) {
    const COMMITS: u64 = 10;
    let server = RedisServer::start().await;
    let client = redis::Client::open(server.url()).expect("a url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    let stores = RedisStores::connect(&server.url(), RedisOptions::default())
        .await
        .expect("connects");
    let store = &stores.workflows;
    let clock = Clock::system();
    let ids: Vec<RunId> = (0..n).map(|_| RunId::random()).collect();
    println!("\n{n} runs, {COMMITS} commits each");
    let meter = Meter::start(&mut connection).await;
    let input = Arc::new(serde_json::json!({"order": 17}));
    for ids in ids.chunks(BATCH) {
        let new = |id| NewRun {
            commit: commit(id, 0, RunStatus::Running, clock.now()),
            input: Arc::clone(&input),
            idempotency: None,
            org_limit: None,
            workflow_limit: None,
        };
        for created in store.create_runs(&ids.iter().map(new).collect::<Vec<_>>()).await {
            assert!(matches!(created, Ok(Created::Created)), "{created:?}");
        }
    }
    meter.report("create a run", n).await;
    let meter = Meter::start(&mut connection).await;
    for revision in 1..=COMMITS {
        let status = if revision == COMMITS {
            RunStatus::Succeeded
        } else {
            RunStatus::Running
        };
        stream::iter(ids.chunks(BATCH))
            .map(|ids| {
                let commits: Vec<RunCommit> = ids.iter().map(|id| commit(id, revision, status, clock.now())).collect();
                async move { store.commit_runs(&commits).await }
            })
            .buffer_unordered(4)
            .for_each(|answers| async {
                for committed in answers {
                    assert!(matches!(committed, Ok(Committed::Applied(_))), "{committed:?}");
                }
            })
            .await;
    }
    meter.report("commit", n * 10).await;
}

fn main() {
    let n = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(20_000);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            run(n).await;
            runs(n / 4).await;
        });
}
