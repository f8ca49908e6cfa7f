//! What waiting jobs cost in memory, and what waking one of them costs in time.
//!
//! `cargo run --release -p coretex-core --example parked_memory [JOBS]` (Linux: it reads `/proc/self/statm`)
#![expect(clippy::print_stdout, reason = "the output is what this is for")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use coretex_core::protocol::agent::{Budget, ContextHints, JobMetadata, JobPriority, JobRequest};
use coretex_core::protocol::{JobId, TraceId};
use coretex_core::scheduler::parked::{Class, Entry};
use coretex_core::scheduler::{Demand, Parked};
use coretex_core::time::Timestamp;
use prost::Message;

/// The bar: bytes for each waiting job.
const BAR: usize = 1_024;

fn main() {
    let jobs: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(200_000);
    let mut over = false;
    for (name, distinct) in [("one demand", false), ("a demand of its own for each", true)] {
        let before = resident();
        let mut parked = Parked::default();
        let mut bytes = 0;
        for i in 0..jobs {
            let request = request(distinct.then_some(i));
            let encoded = request.encode_to_vec();
            bytes += encoded.len();
            parked.push(Demand::of(&request), entry(&request, encoded, i));
        }
        let each = resident().saturating_sub(before) / jobs;
        println!(
            "{jobs} jobs, {name}: {each} bytes each, {} of them the request",
            bytes / jobs
        );
        over |= each >= BAR && !distinct;

        let start = Instant::now();
        let taken = parked.take(1, |_| Some(()));
        println!("  room for one: {:?} ({} taken)", start.elapsed(), taken.len());
        let start = Instant::now();
        let taken = parked.take(128, |_| None::<()>);
        println!("  room for none: {:?} ({} taken)", start.elapsed(), taken.len());
        let start = Instant::now();
        parked.age(Timestamp::from_secs(1));
        println!("  ageing: {:?}", start.elapsed());
        let start = Instant::now();
        let mut all = 0;
        while !parked.is_empty() {
            all += parked.take(128, |_| Some(())).len();
            if start.elapsed().as_secs() > 20 {
                break;
            }
        }
        println!("  {all} taken by 128: {:?}", start.elapsed());
    }
    if over {
        println!("more than {BAR} bytes each");
        std::process::exit(1);
    }
}

/// A request as the gateway makes it.
fn request(number: Option<usize>) -> JobRequest {
    let id = JobId::random();
    let mut labels = BTreeMap::new();
    if let Some(number) = number {
        labels.insert("order".to_owned(), number.to_string());
    }
    JobRequest {
        job_id: id.to_string(),
        topic: "job.default".to_owned(),
        priority: JobPriority::Interactive.into(),
        context_ptr: format!("redis://ctx:{id}"),
        env: BTreeMap::from(
            [
                ("tenant_id", "default"),
                ("memory_id", "mem:a-memory-of-usual-length"),
                ("max_input_tokens", "8000"),
                ("max_output_tokens", "1024"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        memory_id: format!("mem:{id}"),
        context_hints: Some(ContextHints {
            max_input_tokens: 8_000,
            ..ContextHints::default()
        }),
        budget: Some(Budget {
            max_input_tokens: 8_000,
            max_output_tokens: 1_024,
            ..Budget::default()
        }),
        tenant_id: "default".to_owned(),
        principal_id: "somebody@example.org".to_owned(),
        meta: Some(JobMetadata {
            tenant_id: "default".to_owned(),
            actor_id: "somebody@example.org".to_owned(),
            labels: labels.clone(),
            ..JobMetadata::default()
        }),
        labels,
        ..JobRequest::default()
    }
}

fn entry(request: &JobRequest, encoded: Vec<u8>, number: usize) -> Entry {
    Entry {
        id: JobId::try_new(&request.job_id).expect("an id"),
        trace_id: Some(TraceId::random()),
        request: (encoded.len() <= 512).then(|| encoded.into()),
        tenant: Arc::from(request.tenant_id.as_str()),
        class: Class::of(request.priority),
        since: Timestamp::from_micros(i64::try_from(number).unwrap_or(0)),
        held: None,
    }
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok())
        .unwrap_or(0);
    pages * 4_096
}
