//! How many jobs the embedded store takes through create, dispatch and finish.
//!
//! `cargo bench -p coretex-core --bench embedded_store`; one element is one job, which is three transitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::jobs::{
    Change, JobEvent, JobState, JobStoreExt, NewJob, Outcome, RequestWrite, Slot, TerminalDetail,
};
use coretex_core::protocol::agent::JobRequest;
use coretex_core::protocol::{InstanceId, JobId, TenantId, TraceId, WorkerId};
use coretex_core::time::Clock;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CALLERS: u64 = 256;
const BATCH: u64 = 64;

fn new_job(id: &JobId) -> NewJob {
    NewJob {
        id: id.clone(),
        request: Arc::new(JobRequest {
            job_id: id.as_str().to_owned(),
            topic: "job.bench".to_owned(),
            context_ptr: format!("redis://ctx:{id}"),
            tenant_id: "default".to_owned(),
            principal_id: "bench".to_owned(),
            ..JobRequest::default()
        }),
        trace_id: Some(TraceId::random()),
        payload: Some(Bytes::from_static(&[b'x'; 256])),
        idempotency: None,
        deadline: None,
        at: Clock::system().now(),
    }
}

fn dispatch(id: &JobId, name: &WorkerId, owner: &InstanceId) -> Change {
    Change {
        worker_id: Some(name.clone()),
        owner: Some(owner.clone()),
        placement: "least loaded of 3".to_owned(),
        slot: Some(Slot {
            tenant: TenantId::fallback(),
            limit: 0,
        }),
        request: RequestWrite::Keep,
        ..Change::new(id.clone(), JobEvent::Dispatch, Clock::system().now())
    }
}

fn finish(id: &JobId) -> Change {
    Change {
        outcome: Some(TerminalDetail {
            result_ptr: format!("redis://res:{id}"),
            worker_id: "worker-1".to_owned(),
            execution_ms: 3,
            ..TerminalDetail::default()
        }),
        ..Change::new(id.clone(), JobEvent::Finish(JobState::Succeeded), Clock::system().now())
    }
}

fn check(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

/// Every caller takes its jobs through life one after another.
async fn concurrent(stores: &Stores, jobs: u64) {
    let worker = WorkerId::try_new("worker-1").expect("an id");
    let owner = InstanceId::random();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (stores, worker, owner) = (stores.clone(), worker.clone(), owner.clone());
        let mine = jobs / CALLERS + u64::from(caller < jobs % CALLERS);
        callers.spawn(async move {
            for _ in 0..mine {
                let id = JobId::random();
                stores.jobs.create(new_job(&id)).await.expect("create");
                check(
                    &stores
                        .jobs
                        .apply(dispatch(&id, &worker, &owner))
                        .await
                        .expect("dispatch"),
                );
                check(&stores.jobs.apply(finish(&id)).await.expect("finish"));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller");
    }
}

/// Creates one by one, dispatches and results in batches, as the gateway and the scheduler do it.
async fn batched(stores: &Stores, jobs: u64) {
    let worker = WorkerId::try_new("worker-1").expect("an id");
    let owner = InstanceId::random();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (stores, worker, owner) = (stores.clone(), worker.clone(), owner.clone());
        let mut left = jobs / 8 + u64::from(caller < jobs % 8);
        callers.spawn(async move {
            while left > 0 {
                let ids: Vec<JobId> = (0..left.min(BATCH)).map(|_| JobId::random()).collect();
                left -= ids.len() as u64;
                let creates = ids.iter().map(|id| stores.jobs.create(new_job(id)));
                for created in futures::future::join_all(creates).await {
                    created.expect("create");
                }
                let dispatches: Vec<Change> = ids.iter().map(|id| dispatch(id, &worker, &owner)).collect();
                let finishes: Vec<Change> = ids.iter().map(finish).collect();
                for changes in [dispatches, finishes] {
                    for outcome in stores.jobs.apply_many(&changes).await {
                        check(&outcome.expect("apply"));
                    }
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller");
    }
}

fn lives(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = criterion.benchmark_group("embedded_store");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for (name, location) in [
        ("disk", Location::Disk(folder.path().to_owned())),
        ("memory", Location::Memory),
    ] {
        let embedded = EmbeddedStores::open(&location, &Options::default()).expect("open");
        let stores = embedded.stores();
        group.bench_function(format!("{name}/256_callers"), |bencher| {
            bencher.iter_custom(|jobs| {
                let start = Instant::now();
                runtime.block_on(concurrent(&stores, jobs));
                start.elapsed()
            });
        });
        group.bench_function(format!("{name}/batches_of_64"), |bencher| {
            bencher.iter_custom(|jobs| {
                let start = Instant::now();
                runtime.block_on(batched(&stores, jobs));
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lives);
criterion_main!(benches);
