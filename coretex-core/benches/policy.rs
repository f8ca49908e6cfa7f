//! How long one decision takes: `cargo bench -p coretex-core --bench policy`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use coretex_core::policy::{CompiledPolicy, PolicyInput, evaluate};
use coretex_core::protocol::agent::{JobMetadata, PolicyCheckRequest};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// `count` rules as a large installation would have them: most for one tenant or one family of topics, some for
/// capabilities, tags or labels, and a few for everybody.
fn policy(count: usize) -> String {
    let tenants = (count / 20).max(5);
    let families = (count / 10).max(5);
    let mut text = String::from("default_decision: deny\nrules:\n");
    for i in 0..count {
        let tenant = i % tenants;
        let family = (i * 7) % families;
        let conditions = match i % 10 {
            0 => format!("{{topics: ['job.f{family}.*']}}"),
            1 => format!("{{topics: ['job.f{family}.a', 'job.f{family}.b'], risk_tags: [prod]}}"),
            2 => format!("{{tenants: [t{tenant}], topics: ['job.*'], capabilities: [c{i}]}}"),
            3 => format!("{{capabilities: [c{i}], requires: [git]}}"),
            4 => format!("{{risk_tags: [tag{family}], tenants: [t{tenant}]}}"),
            5 => format!("{{labels: {{env: e{family}}}, topics: ['job.*']}}"),
            6 => format!("{{actor_ids: [bot-{i}], secrets_present: true}}"),
            7 => format!("{{tenants: [t{tenant}], mcp: {{deny_servers: [s{i}]}}}}"),
            8 => format!("{{topics: ['job.f{family}.?.x[0-9]'], tenants: [t{tenant}]}}"),
            _ => format!("{{tenants: [t{tenant}], topics: ['job.f{family}.*'], pack_ids: [p{i}]}}"),
        };
        let decision = ["allow", "deny", "require_approval", "throttle"][i % 4];
        writeln!(
            text,
            "- {{id: r{i}, decision: {decision}, reason: because, match: {conditions}}}"
        )
        .expect("memory");
    }
    text
}

fn request(topic: &str, tenant: &str) -> PolicyCheckRequest {
    PolicyCheckRequest {
        job_id: "01J".to_owned(),
        topic: topic.to_owned(),
        tenant: tenant.to_owned(),
        principal_id: "somebody".to_owned(),
        labels: BTreeMap::from([
            ("env".to_owned(), "staging".to_owned()),
            ("region".to_owned(), "eu".to_owned()),
        ]),
        meta: Some(JobMetadata {
            capability: "repo.write".to_owned(),
            risk_tags: vec!["write".to_owned(), "network".to_owned()],
            requires: vec!["git".to_owned()],
            pack_id: "sre".to_owned(),
            ..JobMetadata::default()
        }),
        ..PolicyCheckRequest::default()
    }
}

fn decisions(criterion: &mut Criterion) {
    for count in [10, 100, 1_000, 50_000] {
        let text = policy(count);
        let (policy, _) = CompiledPolicy::from_bytes(text.as_bytes(), "bench").expect("a good policy");
        let mut group = criterion.benchmark_group("policy");
        for (name, request) in [
            ("match", request("job.f3.a.b", "t1")),
            ("no_match", request("job.unheard.of", "stranger")),
        ] {
            group.bench_with_input(BenchmarkId::new(name, count), &request, |bencher, request| {
                bencher.iter(|| evaluate(&policy, &PolicyInput::new(black_box(request))).decision);
            });
        }
        group.finish();
    }
}

fn loading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy_load");
    group.sample_size(10);
    for count in [1_000, 50_000] {
        let text = policy(count);
        group.bench_with_input(BenchmarkId::from_parameter(count), &text, |bencher, text| {
            bencher.iter(|| CompiledPolicy::from_bytes(black_box(text.as_bytes()), "bench").expect("a good policy"));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, loading);
criterion_main!(benches);
