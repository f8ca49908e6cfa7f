//! What one transition of a run costs.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use coretex_core::jobs::JobState;
use coretex_core::protocol::JobId;
use coretex_core::time::Timestamp;
use coretex_core::workflow::event::{Event, Fetched, JobEnded};
use coretex_core::workflow::plan::Plan;
use coretex_core::workflow::schema::SchemaSet;
use coretex_core::workflow::{Run, RunHead, RunId, advance};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

fn run(steps: &Value, input: Value) -> (Plan, Run) {
    let workflow = serde_json::from_value(json!({"id": "w", "steps": steps})).unwrap();
    let plan = Plan::compile(Arc::new(workflow), "hash".to_owned(), &SchemaSet::new());
    let mut run = Run::new(
        RunId::new("4f1c0e5c-6a3c-4a3e-8a3e-0a6f4a0b8f11"),
        RunHead::default(),
        input,
    );
    run.head.definition = "hash".to_owned();
    while advance(&plan, &mut run, &Event::Wake, Timestamp::from_secs(1))
        .unwrap()
        .more
    {}
    (plan, run)
}

fn ended(run: &Run, step: &str) -> Event {
    let job = JobId::try_new(&format!("{}:{step}@1", run.id)).unwrap();
    let ended = JobEnded {
        state: JobState::Succeeded,
        result_ptr: format!("redis://res:{job}"),
        output: Fetched::Value(Arc::new(json!({"n": 1}))),
        error_code: String::new(),
        error_message: String::new(),
    };
    Event::JobEnded { job, ended }
}

fn transitions(c: &mut Criterion) {
    let mut group = c.benchmark_group("advance");
    let chain = |count: usize| -> Value {
        let steps = (0..count).map(|n| {
            let before: Vec<String> = n.checked_sub(1).map(|n| format!("s{n:03}")).into_iter().collect();
            (
                format!("s{n:03}"),
                json!({"topic": "job.t", "depends_on": before, "input": {"x": "${input.x}"}}),
            )
        });
        Value::Object(steps.collect())
    };
    for count in [2, 50, 1_000] {
        let (plan, mut half) = run(&chain(count), json!({"x": 1}));
        for n in 0..count / 2 {
            let event = ended(&half, &format!("s{n:03}"));
            let made = advance(&plan, &mut half, &event, Timestamp::from_secs(2)).unwrap();
            half.outbox.clear();
            assert!(made.changed);
        }
        let event = ended(&half, &format!("s{:03}", count / 2));
        group.bench_function(format!("result in the middle of a chain of {count}"), |b| {
            b.iter_batched_ref(
                || half.clone(),
                |run| advance(&plan, run, &event, Timestamp::from_secs(3)),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("stale result in a chain of {count}"), |b| {
            let event = ended(&half, "s000");
            let mut run = half.clone();
            b.iter(|| advance(&plan, &mut run, &event, Timestamp::from_secs(3)));
        });
    }
    for (name, most) in [("all at once", 0), ("100 at a time", 100)] {
        let items: Vec<u32> = (0..10_000).collect();
        let steps = json!({"fan": {"topic": "job.t", "for_each": "input.items", "max_parallel": most, "input": {"i": "${item}"}}});
        let (plan, mut fan) = run(&steps, json!({"items": items}));
        let mut next = 0;
        group.bench_function(format!("result of a child of 10 000, {name}"), |b| {
            b.iter(|| {
                if next == 9_900 {
                    fan = run(&steps, json!({"items": items})).1;
                    next = 0;
                }
                let event = ended(&fan, &format!("fan[{next}]"));
                next += 1;
                let made = advance(&plan, &mut fan, &event, Timestamp::from_secs(3)).unwrap();
                assert!(made.changed);
                fan.outbox.clear();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, transitions);
criterion_main!(benches);
