use serde_json::json;

use super::*;

fn plan(document: Value) -> Plan {
    let workflow: Workflow = serde_json::from_value(document).unwrap();
    let hash = workflow.content_hash();
    Plan::compile(Arc::new(workflow), hash, &SchemaSet::new())
}

fn ids(plan: &Plan, steps: &[StepIndex]) -> Vec<String> {
    steps.iter().map(|index| plan[*index].id().to_owned()).collect()
}

fn problem<'a>(plan: &'a Plan, id: &str) -> &'a str {
    plan[plan.index(id).unwrap()].problem.as_deref().unwrap_or("")
}

#[test]
fn steps_are_in_order_and_linked() {
    let plan = plan(json!({"id": "w", "timeout_sec": 5, "steps": {
        "z": {"topic": "t"},
        "pick": {"type": "switch", "depends_on": ["z"], "cases": [{"when": "true", "then": ["a", "b"]}], "default": ["b"]},
        "a": {"topic": "t", "on_error": "rescue"},
        "b": {"topic": "t"},
        "join": {"topic": "t", "depends_on": ["b", "a", "a"]},
        "rescue": {"topic": "t"},
        "tidy": {"topic": "t", "finally": true},
    }}));
    assert_eq!(
        ids(&plan, &plan.order),
        ["tidy", "z", "pick", "a", "b", "join", "rescue"]
    );
    assert_eq!(ids(&plan, &plan.leaves), ["join"]);
    assert_eq!(plan.timeout, Some(Duration::from_secs(5)));
    let step = |id: &str| &plan[plan.index(id).unwrap()];
    assert_eq!(ids(&plan, &step("pick").choices), ["a", "b"]);
    assert_eq!(ids(&plan, &step("pick").cases[0].then), ["a", "b"]);
    assert_eq!(ids(&plan, &step("pick").default), ["b"]);
    assert_eq!(ids(&plan, &step("pick").dependents), ["a", "b"]);
    assert_eq!(ids(&plan, &step("a").chosen_by), ["pick"]);
    assert_eq!(ids(&plan, &step("a").dependents), ["join"]);
    assert_eq!(ids(&plan, &step("join").depends_on), ["a", "b"]);
    assert_eq!(ids(&plan, &step("rescue").handles), ["a"]);
    assert_eq!(step("a").on_error, plan.index("rescue"));
    assert!(plan.steps().iter().all(|step| step.errors().is_empty()));
}

#[test]
fn keys_name_steps_and_what_is_in_them() {
    let plan = plan(json!({"id": "w", "steps": {
        "fan": {"topic": "t", "for_each": "input.items"},
        "par": {"type": "parallel", "branches": [{"topic": "one"}, {"topic": "two"}]},
        "again": {"type": "loop", "body": {"topic": "body"}, "until": "last.done"},
        "book": {"topic": "t", "compensate": {"topic": "undo"}},
    }}));
    let topic = |key: StepKey| plan.step(&key).map(|step| step.step.topic.clone());
    let key = StepKey::new;
    assert_eq!(topic(key("fan").child(3)).as_deref(), Some("t"));
    assert_eq!(topic(key("par").child(1)).as_deref(), Some("two"));
    assert_eq!(topic(key("par").child(2)), None);
    assert_eq!(topic(key("again").child(99)).as_deref(), Some("body"));
    assert_eq!(topic(key("book").compensation()).as_deref(), Some("undo"));
    assert_eq!(topic(key("book").child(0)), None);
    assert_eq!(topic(key("fan").compensation()), None);
    assert_eq!(topic(key("none")), None);
    assert_eq!(topic(key("fan[x]")), None);
    assert_eq!(plan.step(&key("par").child(1)).unwrap().id(), "par");
    assert!(plan.compensates);
}

#[test]
fn what_is_wrong_with_a_stored_definition_stays_in_its_step() {
    let plan = plan(
        json!({"id": "w", "output": {"x": "${"}, "input_schema": {"type": 5}, "steps": {
            "a": {"topic": "t", "depends_on": ["b"]},
            "b": {"topic": "t", "depends_on": ["a", "self"]},
            "self": {"topic": "t", "depends_on": ["self"]},
            "after": {"topic": "t", "depends_on": ["a"]},
            "gone": {"topic": "t", "depends_on": ["nobody"]},
            "x:y": {"topic": "t"},
            "fan[0]": {"topic": "t"},
            "f:n": {"type": "approval"},
            "expr": {"condition": "(", "input": {"k": "${a"}, "for_each": " ", "on_error": "nobody"},
            "up": {"on_error": "down"},
            "down": {"on_error": "up", "depends_on": ["down2"]},
            "down2": {},
            "mine": {"on_error": "mine"},
            "ref": {"input_schema": {"$ref": "file:///etc/passwd"}, "output_schema_id": "nope"},
        }}),
    );
    assert_eq!(problem(&plan, "a"), "steps wait for each other: a → b → a");
    assert_eq!(problem(&plan, "b"), "steps wait for each other: b → a → b");
    assert_eq!(problem(&plan, "self"), "steps wait for each other: self → self");
    assert_eq!(problem(&plan, "after"), "");
    assert_eq!(
        problem(&plan, "gone"),
        "it depends on step `nobody`, which does not exist"
    );
    assert_eq!(problem(&plan, "x:y"), "step id `x:y` cannot be part of a job id");
    assert_eq!(problem(&plan, "fan[0]"), "step id `fan[0]` cannot be part of a job id");
    assert_eq!(problem(&plan, "f:n"), "");
    let step = |id: &str| &plan[plan.index(id).unwrap()];
    assert_eq!(step("expr").errors().len(), 2, "{:?}", step("expr").errors());
    assert_eq!(step("expr").on_error, None);
    assert_eq!(step("down").on_error, plan.index("up"));
    assert_eq!(step("up").on_error, None, "that would be a circle");
    assert_eq!(step("mine").on_error, None);
    assert_eq!(step("ref").errors().len(), 2);
    assert!(plan.output.as_ref().unwrap().is_err());
    assert!(plan.input_schema.as_ref().unwrap().is_err());
    assert_eq!(plan.order.len(), plan.steps().len());
}

#[test]
fn labels_of_the_engine_are_not_the_authors() {
    let plan = plan(json!({"id": "w", "steps": {"a": {"route_labels": {
        "run_id": "x", "approval_granted": "true", "coretex.bus_msg_id": "1", "secrets_present": "no", "region": "${input.r}",
    }}}}));
    let labels: Vec<&str> = plan.steps()[0].labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(labels, ["region"]);
    assert_eq!(
        plan.steps()[0]
            .topic
            .as_ref()
            .unwrap()
            .eval_text(&serde_json::Map::new())
            .unwrap(),
        "job.workflow.w"
    );
}

#[test]
fn many_steps_in_a_row_are_no_burden() {
    let steps: serde_json::Map<String, Value> = (0..5_000)
        .map(|n| {
            let before: Vec<String> = (n > 0).then(|| format!("s{}", n - 1)).into_iter().collect();
            (format!("s{n}"), json!({"depends_on": before}))
        })
        .collect();
    let plan = plan(json!({"id": "w", "steps": steps}));
    assert_eq!(ids(&plan, &plan.order[..3]), ["s0", "s1", "s2"]);
}
