//! How long parsing and evaluating typical expressions takes, as rows of a table:
//! `cargo bench -p coretex-core --bench expr`.

#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use coretex_core::expr::{Expr, Template};
use serde_json::{Value, json};

const ROWS: [(&str, &str); 7] = [
    ("path", "steps.collect.output.files"),
    ("comparison", "input.env == 'prod'"),
    (
        "condition",
        "input.env == 'prod' && length(input.files) > 3 || has(ctx.force)",
    ),
    ("arithmetic", "(input.n + 1) * 2 - input.n % 3"),
    ("text", "'job.' + input.env.lower() + '.run'"),
    ("pattern", "input.env.matches('^(prod|staging)$')"),
    ("map over 100", "input.items.filter(x, x.size > 50).map(x, x.name)"),
];

/// Nanoseconds per call, after a tenth of a second to warm up.
fn measure(mut work: impl FnMut()) -> u128 {
    let mut count: u32 = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(100) {
        work();
        count += 1;
    }
    let rounds = count.max(1) * 4;
    let start = Instant::now();
    for _ in 0..rounds {
        work();
    }
    start.elapsed().as_nanos() / u128::from(rounds)
}

fn main() {
    let items: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("file-{n}"), "size": n}))
        .collect();
    let scope = json!({
        "input": {"env": "prod", "n": 41, "files": ["a", "b", "c", "d"], "items": items},
        "steps": {"collect": {"output": {"files": ["a"]}}},
    });
    let scope = scope.as_object().expect("an object");
    println!("| expression | parse, ns | evaluate, ns |\n|---|---|---|");
    for (name, text) in ROWS {
        let parse = measure(|| {
            black_box(Expr::parse(black_box(text)).expect("parses"));
        });
        let expr = Expr::parse(text).expect("parses");
        let eval = measure(|| {
            black_box(expr.eval(black_box(scope)).expect("a value"));
        });
        println!("| {name} | {parse} | {eval} |");
    }
    let tree = json!({"env": "${input.env}", "msg": "run ${input.n} in ${input.env}", "deep": [{"files": "${input.files}"}, 1, "x"]});
    let parse = measure(|| {
        black_box(Template::compile(black_box(&tree)).expect("compiles"));
    });
    let template = Template::compile(&tree).expect("compiles");
    let eval = measure(|| {
        black_box(template.eval(black_box(scope)).expect("a value"));
    });
    println!("| template of four | {parse} | {eval} |");
}
