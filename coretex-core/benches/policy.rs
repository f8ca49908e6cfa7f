//! How long one decision takes, in percentiles, and how long a policy takes to load; as rows of a table:
//! `cargo bench -p coretex-core --bench policy`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use coretex_core::policy::{CompiledPolicy, Document, Part, PolicyInput, evaluate};
use coretex_core::protocol::agent::{JobMetadata, PolicyCheckRequest};
use hdrhistogram::Histogram;

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

/// What a busy installation asks: known and unknown topics, tenants, tags, labels, with and without MCP.
fn requests(count: usize) -> Vec<PolicyCheckRequest> {
    let tenants = (count / 20).max(5);
    let families = (count / 10).max(5);
    (0..1_000)
        .map(|n| {
            let topic = match n % 4 {
                0 => format!("job.f{}.a", (n * 13) % families),
                1 => format!("job.f{}.b.x{}", (n * 31) % families, n % 10),
                2 => format!("job.f{}.deep.down.there", (n * 57) % families),
                _ => format!("job.unheard.of{n}"),
            };
            let mut request = request(&topic, &format!("t{}", (n * 17) % (tenants + tenants / 4)));
            if n % 5 == 0 {
                let env = format!("e{}", (n * 7) % families);
                request.labels.insert("env".to_owned(), env);
            }
            if n % 7 == 0 {
                let server = format!("s{}", n % count);
                request.labels.insert("mcp.server".to_owned(), server);
            }
            if let Some(meta) = request.meta.as_mut() {
                match n % 6 {
                    0 => meta.capability = format!("c{}", (n * 11) % count),
                    1 => meta.risk_tags.push(format!("tag{}", (n * 3) % families)),
                    2 => meta.actor_id = format!("bot-{}", (n * 19) % count),
                    3 => meta.risk_tags.push("secrets".to_owned()),
                    _ => {}
                }
            }
            request
        })
        .collect()
}

/// As many decisions are measured, one by one.
const DECISIONS: usize = 200_000;

fn micros(nanos: u64) -> String {
    format!("{}.{:02} µs", nanos / 1_000, nanos % 1_000 / 10)
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::print_stdout, reason = "the report is the output")]
fn main() {
    println!("| rules | p50 | p99 | p99.9 | no rule matches | read and compile | compile alone |");
    println!("|---|---|---|---|---|---|---|");
    for count in [10, 100, 1_000, 50_000] {
        let text = policy(count);
        let start = Instant::now();
        let document = Document::parse(text.as_bytes(), "bench")
            .expect("a good policy")
            .document;
        let read = nanos(start);
        let start = Instant::now();
        let (policy, _) = CompiledPolicy::from_parts(vec![Part::base(document)], "bench".to_owned());
        let compiled = nanos(start);

        let requests = requests(count);
        let mut times = Histogram::<u64>::new(3).expect("a small precision");
        let mut unmatched = 0_usize;
        for request in requests.iter().cycle().take(DECISIONS) {
            let start = Instant::now();
            let evaluation = evaluate(black_box(&policy), &PolicyInput::new(black_box(request)));
            times.saturating_record(nanos(start));
            unmatched += usize::from(black_box(evaluation).rule_id.is_empty());
        }
        println!(
            "| {count} | {} | {} | {} | {} % | {} ms | {} ms |",
            micros(times.value_at_quantile(0.5)),
            micros(times.value_at_quantile(0.99)),
            micros(times.value_at_quantile(0.999)),
            unmatched * 100 / DECISIONS,
            (read + compiled) / 1_000_000,
            compiled / 1_000_000,
        );
    }
}
