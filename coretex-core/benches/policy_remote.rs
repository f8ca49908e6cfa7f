//! How long one decision takes over gRPC on this machine: `cargo bench -p coretex-core --bench policy_remote`.
//!
//! Prints percentiles of single calls, one after the other, which criterion does not.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coretex_core::policy::remote::{KernelServer, RemoteKernel, RemoteOptions};
use coretex_core::policy::{Kernel, LocalKernel};
use coretex_core::protocol::agent::PolicyCheckRequest;
use coretex_core::time::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const CALLS: usize = 20_000;
const WARM_UP: usize = 2_000;
const RULES: usize = 1_000;

fn policy() -> String {
    let mut text = String::from("default_decision: deny\nrules:\n");
    for i in 0..RULES {
        writeln!(
            text,
            "- {{id: r{i}, decision: allow, match: {{topics: ['job.f{i}.*'], tenants: [acme]}}}}"
        )
        .expect("memory");
    }
    text
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let mut times = runtime.block_on(measure());
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000];
    // A closed pipe is no error.
    drop(writeln!(
        std::io::stdout(),
        "| remote Check, {RULES} rules, loopback, {CALLS} calls | p50 {:?} | p90 {:?} | p99 {:?} |",
        at(500),
        at(900),
        at(990)
    ));
}

async fn measure() -> Vec<Duration> {
    let kernel = LocalKernel::from_document(&policy(), "policy").expect("a good policy");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let server = KernelServer::new(Arc::new(kernel), listener, None).expect("it can be served");
    let serving = tokio::spawn(server.run(stop.clone()));
    let remote = RemoteKernel::dial(&address.to_string(), None, &RemoteOptions::default()).expect("an address");
    let request = PolicyCheckRequest {
        job_id: "01J".to_owned(),
        topic: format!("job.f{}.x", RULES / 2),
        tenant: "acme".to_owned(),
        ..PolicyCheckRequest::default()
    };
    let mut times = Vec::with_capacity(CALLS);
    for i in 0..WARM_UP + CALLS {
        let begun = Instant::now();
        let decision = remote.check(&request, Timestamp::ZERO).await;
        if i >= WARM_UP {
            times.push(begun.elapsed());
        }
        assert!(decision.is_ok(), "{decision:?}");
    }
    stop.cancel();
    drop(remote);
    serving.await.expect("no panic").expect("it stops well");
    times
}
