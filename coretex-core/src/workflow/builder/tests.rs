use serde_json::json;

use super::*;
use crate::workflow::decode;

#[test]
fn it_is_the_same_definition() {
    let built = Workflow::builder("order")
        .name("Order")
        .description("d")
        .version("1")
        .org("acme")
        .team("shop")
        .timeout(Duration::from_millis(1_500))
        .input_schema(json!({"type": "object"}))
        .config(json!({"k": 1}))
        .output(json!({"id": "${steps.book.output.id}"}))
        .on_failure(OnFailure::Wait)
        .max_concurrent_runs(3)
        .step(
            worker("book")
                .kind("http")
                .topic("job.book")
                .worker_id("w1")
                .input(json!({"n": "${input.n}"}))
                .input_schema(json!({"required": ["n"]}))
                .output_schema(json!({"type": "object"}))
                .output_path("booking")
                .timeout(Duration::from_secs(5))
                .retries(2)
                .backoff(Duration::from_millis(10), Backoff::Constant)
                .on_error("rescue")
                .compensate(worker("undo").topic("job.undo"))
                .meta(StepMeta {
                    capability: "book".to_owned(),
                    ..StepMeta::default()
                })
                .label("region", "eu")
                .priority("batch")
                .memory("m"),
        )
        .step(worker("rescue").topic("job.rescue"))
        .step(
            approval("ok")
                .after("book")
                .prompt("Go?")
                .quorum(2)
                .role("admin")
                .on_expiry(OnExpiry::Reject)
                .timeout(Duration::from_secs(60)),
        )
        .step(delay("rest", Duration::from_secs(2)).after("ok").when("input.n > 1"))
        .step(delay_until("later", "${input.at}").after("rest"))
        .step(condition("big", "input.n > 5"))
        .step(
            switch("way")
                .after("big")
                .case("steps.big.output", ["each"])
                .otherwise(["sub", "calc"]),
        )
        .step(
            worker("each")
                .topic("job.each")
                .for_each("input.list")
                .input(json!({"i": "${item}"}))
                .max_parallel(2)
                .max_items(9)
                .tolerated_failures(1),
        )
        .step(subworkflow("sub", "other").input(json!({"a": 1})))
        .step(transform("calc", "input.n * 2").continue_on_error())
        .step(
            parallel(
                "both",
                [worker("x").topic("job.x"), worker("y").topic("job.y").name("Y")],
            )
            .wait_for(WaitFor::Any),
        )
        .step(
            repeat("poll", worker("ask").topic("job.ask"))
                .until("last.done")
                .while_("index < 9")
                .max_iterations(10),
        )
        .step(form("ask", json!({"required": ["a"]})).timeout(Duration::from_secs(60)))
        .step(signal("paid", "payment").timeout(Duration::from_secs(60)))
        .step(notify("tell", "done").after("paid").policy(DependencyPolicy::AllDone))
        .step(worker("clean").topic("job.clean").finally())
        .build()
        .unwrap();
    let document = json!({
        "id": "order", "name": "Order", "description": "d", "version": "1", "org_id": "acme", "team_id": "shop",
        "timeout_ms": 1500, "input_schema": {"type": "object"}, "config": {"k": 1},
        "output": {"id": "${steps.book.output.id}"}, "on_failure": "wait", "max_concurrent_runs": 3,
        "steps": {
            "book": {"type": "http", "topic": "job.book", "worker_id": "w1", "input": {"n": "${input.n}"},
                "input_schema": {"required": ["n"]}, "output_schema": {"type": "object"}, "output_path": "booking",
                "timeout_sec": 5, "retry": {"max_retries": 2, "initial_backoff_ms": 10, "backoff": "constant"},
                "on_error": "rescue", "compensate": {"type": "worker", "name": "undo", "topic": "job.undo"},
                "meta": {"capability": "book"}, "route_labels": {"region": "eu"}, "priority": "batch", "memory_id": "m"},
            "rescue": {"type": "worker", "topic": "job.rescue"},
            "ok": {"type": "approval", "depends_on": ["book"], "prompt": "Go?", "timeout_sec": 60,
                "approval": {"quorum": 2, "roles": ["admin"], "on_expiry": "reject"}},
            "rest": {"type": "delay", "delay_sec": 2, "depends_on": ["ok"], "condition": "input.n > 1"},
            "later": {"type": "delay", "delay_until": "${input.at}", "depends_on": ["rest"]},
            "big": {"type": "condition", "condition": "input.n > 5"},
            "way": {"type": "switch", "depends_on": ["big"], "cases": [{"when": "steps.big.output", "then": ["each"]}],
                "default": ["sub", "calc"]},
            "each": {"type": "worker", "topic": "job.each", "for_each": "input.list", "input": {"i": "${item}"},
                "max_parallel": 2, "max_items": 9, "tolerated_failures": 1},
            "sub": {"type": "subworkflow", "workflow": "other", "input": {"a": 1}},
            "calc": {"type": "transform", "expression": "input.n * 2", "continue_on_error": true},
            "both": {"type": "parallel", "wait_for": "any", "branches": [
                {"type": "worker", "name": "x", "topic": "job.x"}, {"type": "worker", "name": "Y", "topic": "job.y"}]},
            "poll": {"type": "loop", "until": "last.done", "while": "index < 9", "max_iterations": 10,
                "body": {"type": "worker", "name": "ask", "topic": "job.ask"}},
            "ask": {"type": "input", "output_schema": {"required": ["a"]}, "timeout_sec": 60},
            "paid": {"type": "signal", "signal": "payment", "timeout_sec": 60},
            "tell": {"type": "notify", "input": {"message": "done"}, "depends_on": ["paid"], "dependency_policy": "all_done"},
            "clean": {"type": "worker", "topic": "job.clean", "finally": true},
        },
    });
    let decoded = decode::value(document).unwrap();
    assert_eq!(decoded.warnings, []);
    assert_eq!(built, decoded.workflow);
    assert_eq!(built.content_hash(), decoded.workflow.content_hash());
}

#[test]
fn every_problem_is_told() {
    let problems = Workflow::builder("w")
        .input_schema(json!(5))
        .step(worker("a").input(json!([])))
        .step(worker("a").after("nobody"))
        .step(parallel("p", [worker("x").input(json!("text"))]))
        .build()
        .unwrap_err();
    let pointers: Vec<&str> = problems.0.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/input_schema",
            "/steps/a/input",
            "/steps/a",
            "/steps/p/branches",
            "/steps/a/depends_on/0"
        ]
    );
    assert!(
        problems
            .to_string()
            .starts_with("/input_schema: expected an object, found 5; ")
    );
}
