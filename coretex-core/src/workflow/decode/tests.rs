use serde_json::json;

use super::members::{Kind, Members, Shape, WORKFLOW};
use super::*;
use crate::workflow::model::Step;

fn read(text: &str) -> Definition {
    definition(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> Vec<(String, String)> {
    let error = definition(text.as_bytes()).expect_err(text);
    error
        .problems()
        .into_iter()
        .map(|problem| (problem.pointer, problem.message))
        .collect()
}

#[test]
fn documents_of_the_reference_stay_as_they_are() {
    for document in [
        json!({"id": "smoke", "org_id": "default", "team_id": "", "name": "platform-smoke", "description": "", "version": "",
            "timeout_sec": 0, "steps": {"approve": {"id": "approve", "name": "Approve", "type": "approval"}}, "created_by": "",
            "created_at": "2025-01-02T03:04:05.12Z", "updated_at": "2025-01-02T03:04:05.12Z"}),
        json!({"id": "w", "org_id": "o", "team_id": "t", "name": "n", "description": "d", "version": "7", "timeout_sec": 60,
            "steps": {
                "fan": {"id": "fan", "name": "", "type": "worker", "worker_id": "w1", "topic": "job.x", "depends_on": ["gate"],
                    "condition": "steps.gate.output == true", "for_each": "input.items", "max_parallel": 2,
                    "input": {"n": 1.5, "big": 9_007_199_254_740_993_u64, "s": "${item.name}", "l": [null, {"k": false}]},
                    "input_schema": {"type": "object"}, "output_path": "a.b", "output_schema_id": "acme/out",
                    "meta": {"actor_id": "svc", "actor_type": "service", "risk_tags": ["write"], "labels": {"a": "b"}},
                    "on_error": "none", "retry": {"max_retries": 3, "initial_backoff_sec": 1, "multiplier": 1.5},
                    "timeout_sec": 9, "route_labels": {"region": "eu"}},
                "gate": {"id": "gate", "name": "Gate", "type": "condition", "condition": "input.x"},
                "wait": {"id": "wait", "name": "", "type": "delay", "delay_sec": 3, "delay_until": "2026-01-01T00:00:00Z"},
            },
            "config": {"k": [1]}, "input_schema": {"type": "object"}, "parameters": [{"name": "x"}], "created_by": "me",
            "created_at": "2025-01-02T03:04:05Z", "updated_at": "2025-01-02T03:04:06Z"}),
    ] {
        let read = read(&document.to_string());
        assert_eq!(read.warnings, []);
        assert_eq!(serde_json::to_value(&read.workflow).unwrap(), document);
    }
}

#[test]
fn names_match_in_any_case_and_the_last_one_wins() {
    let read = read(
        r#"{"ID":"a","Name":"x","id":"b","STEPS":{"S":{"DEPENDS_ON":["t"],"Type":"approval","type":"delay"}},"timeout_SEC":5}"#,
    );
    assert_eq!((read.workflow.id.as_str(), read.workflow.timeout_sec), ("b", 5));
    let step = &read.workflow.steps["S"];
    assert_eq!(
        (step.step_type.as_str(), step.depends_on.as_slice(), step.id.as_str()),
        ("delay", &["t".to_owned()][..], "S")
    );
    assert_eq!(
        read.given.iter().map(String::as_str).collect::<Vec<_>>(),
        ["id", "name", "steps", "timeout_sec"]
    );
    assert_eq!(read.warnings, []);
}

#[test]
fn null_is_absent() {
    let read = read(
        r#"{"id":null,"steps":{"a":null,"b":{"input":null,"retry":null,"depends_on":[null]}},"config":null,"parameters":[null]}"#,
    );
    assert_eq!(
        read.workflow.steps["a"],
        Step {
            id: "a".to_owned(),
            ..Step::default()
        }
    );
    assert_eq!(read.workflow.steps["b"].depends_on, [""]);
    assert_eq!(read.workflow.parameters, [crate::workflow::model::Object::new()]);
    assert_eq!(
        read.given.iter().map(String::as_str).collect::<Vec<_>>(),
        ["parameters", "steps"]
    );
    assert_eq!(definition(b"null").unwrap(), Definition::default());
    // Only the first value of a body is read.
    assert_eq!(definition(br#"{"id":"a"} trailing"#).unwrap().workflow.id, "a");
}

#[test]
fn unknown_members_are_told() {
    let read = read(r#"{"stepz":1,"steps":{"a/b":{"dependson":["x"],"retry":{"max_retry":1},"colour":"red"}}}"#);
    let told: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "/stepz: this member is unknown and ignored; did you mean `steps`?",
            "/steps/a~1b/dependson: this member is unknown and ignored; did you mean `depends_on`?",
            "/steps/a~1b/retry/max_retry: this member is unknown and ignored; did you mean `max_retries`?",
            "/steps/a~1b/colour: this member is unknown and ignored",
        ]
    );
    assert!(
        read.warnings
            .iter()
            .all(|problem| problem.severity == Severity::Warning)
    );
}

#[test]
fn wrong_types_are_refused_each_by_its_place() {
    for (text, pointer, message) in [
        (
            r#"{"timeout_sec":"5"}"#,
            "/timeout_sec",
            "expected a whole number of 64 bits, found a string",
        ),
        (
            r#"{"timeout_sec":1.5}"#,
            "/timeout_sec",
            "expected a whole number of 64 bits, found 1.5",
        ),
        (
            r#"{"timeout_sec":5.0}"#,
            "/timeout_sec",
            "expected a whole number of 64 bits, found 5.0",
        ),
        (
            r#"{"timeout_sec":9223372036854775808}"#,
            "/timeout_sec",
            "expected a whole number of 64 bits, found 9223372036854775808",
        ),
        (r#"{"id":5}"#, "/id", "expected a string, found 5"),
        (r#"{"steps":[]}"#, "/steps", "expected an object, found an array"),
        (r#"{"steps":{"a":5}}"#, "/steps/a", "expected an object, found 5"),
        (
            r#"{"steps":{"a":{"depends_on":"b"}}}"#,
            "/steps/a/depends_on",
            "expected an array, found a string",
        ),
        (
            r#"{"steps":{"a":{"depends_on":[1]}}}"#,
            "/steps/a/depends_on/0",
            "expected a string, found 1",
        ),
        (
            r#"{"steps":{"a":{"input":[]}}}"#,
            "/steps/a/input",
            "expected an object, found an array",
        ),
        (
            r#"{"steps":{"a":{"finally":"yes"}}}"#,
            "/steps/a/finally",
            "expected true or false, found a string",
        ),
        (
            r#"{"steps":{"a":{"route_labels":{"k":1}}}}"#,
            "/steps/a/route_labels/k",
            "expected a string, found 1",
        ),
        (
            r#"{"steps":{"a":{"wait_for":"some"}}}"#,
            "/steps/a/wait_for",
            "`wait_for` has to be \"all\", \"any\" or a number above 0",
        ),
        (
            r#"{"steps":{"a":{"body":{"branches":[{"retry":5}]}}}}"#,
            "/steps/a/body/branches/0/retry",
            "expected an object, found 5",
        ),
        (
            r#"{"on_failure":"stop"}"#,
            "/on_failure",
            "`stop` is none of cancel, wait",
        ),
        (r#"{"parameters":[1]}"#, "/parameters/0", "expected an object, found 1"),
        (
            r#"{"created_at":"soon"}"#,
            "/created_at",
            "it is no time as of RFC 3339",
        ),
        ("[]", "", "expected an object, found an array"),
        ("5", "", "expected an object, found 5"),
    ] {
        assert_eq!(refused(text), [(pointer.to_owned(), message.to_owned())], "{text}");
    }
    assert_eq!(refused(r#"{"id":1,"name":2,"steps":{"a":{"type":3}}}"#).len(), 3);
}

#[test]
fn what_is_no_document_is_refused() {
    for text in ["", "{", "{\"a\"", "nul", "{\"x\":1e999}"] {
        assert!(
            matches!(definition(text.as_bytes()), Err(DecodeError::Syntax(_))),
            "{text}"
        );
    }
    let deep = format!("{}{}", "[".repeat(125), "]".repeat(125));
    assert!(matches!(definition(deep.as_bytes()), Err(DecodeError::Syntax(_))));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(MAX_DOCUMENT_BYTES));
    let error = definition(large.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the document has 1048587 bytes; a definition may have 1048576"
    );
}

#[test]
fn yaml_says_the_same() {
    let text = "
# A comment.
id: triage
timeout_sec: 30
steps:
  collect:
    topic: job.collect
    input: {ticket: '${input.ticket}', n: 9007199254740993, f: 0.5, yes: yes, 'null': null}
    retry: {max_retries: 2, multiplier: 2}
  ok:
    type: approval
    depends_on: [collect]
    prompt: |
      Go on?
";
    let read = yaml(text).unwrap();
    assert_eq!(read.warnings, []);
    let wanted = value(json!({"id": "triage", "timeout_sec": 30, "steps": {
        "collect": {"topic": "job.collect", "retry": {"max_retries": 2, "multiplier": 2},
            "input": {"ticket": "${input.ticket}", "n": 9_007_199_254_740_993_u64, "f": 0.5, "yes": "yes", "null": null}},
        "ok": {"type": "approval", "depends_on": ["collect"], "prompt": "Go on?\n"},
    }}))
    .unwrap();
    assert_eq!(read, wanted);
    assert_eq!(yaml("").unwrap(), Definition::default());
    assert_eq!(yaml(&json!({"id": "x"}).to_string()).unwrap().workflow.id, "x");
    assert!(matches!(yaml("a: [").unwrap_err(), DecodeError::Syntax(_)));
    assert!(matches!(
        yaml("steps: {a: {input: {x: .inf}}}").unwrap_err(),
        DecodeError::Syntax(_)
    ));
    let Err(DecodeError::Types(problems)) = yaml("timeout_sec: soon") else {
        panic!("decoded")
    };
    assert_eq!(problems[0].pointer, "/timeout_sec");
}

/// A value of each kind that is not the default.
fn sample(kind: Kind, depth: usize) -> Value {
    match kind {
        Kind::Text => "x".into(),
        Kind::Integer => 1.into(),
        Kind::Number => 1.5.into(),
        Kind::Boolean => true.into(),
        Kind::Free | Kind::Object => json!({"k": 1}),
        Kind::Objects => json!([{"k": 1}]),
        Kind::Texts => json!(["x"]),
        Kind::Labels => json!({"k": "x"}),
        Kind::Word(words) => words[words.len() - 1].into(),
        Kind::WaitFor => 2.into(),
        Kind::Time => "2026-01-01T00:00:00Z".into(),
        Kind::Structure(Shape::Step) if depth > 1 => json!({"id": "", "name": "", "type": "x"}),
        Kind::Structures(Shape::Step) if depth > 1 => json!([{"id": "", "name": "", "type": "x"}]),
        Kind::Structure(shape) => filled(shape.members(), depth + 1),
        Kind::Structures(shape) => json!([filled(shape.members(), depth + 1)]),
        Kind::Map(shape) => json!({"x": filled(shape.members(), depth + 1)}),
    }
}

fn filled(members: &Members, depth: usize) -> Value {
    members
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), sample(*kind, depth)))
        .collect()
}

#[test]
fn the_tables_are_the_model() {
    let document = filled(WORKFLOW, 0);
    let read = value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read.workflow).unwrap(), document);

    let schema = Workflow::json_schema();
    let names =
        |schema: &Value| -> BTreeSet<String> { schema["properties"].as_object().unwrap().keys().cloned().collect() };
    let known =
        |members: &Members| -> BTreeSet<String> { members.iter().map(|(name, _)| (*name).to_owned()).collect() };
    assert_eq!(names(&schema), known(WORKFLOW));
    for (name, shape) in [
        ("Step", Shape::Step),
        ("StepMeta", Shape::Meta),
        ("Retry", Shape::Retry),
        ("Case", Shape::Case),
        ("ApprovalRule", Shape::Approval),
    ] {
        assert_eq!(names(&schema["$defs"][name]), known(shape.members()), "{name}");
    }
}

#[test]
fn what_is_not_said_stays() {
    let now = Timestamp::from_micros(5_000_000);
    let stored = Workflow {
        created_at: Timestamp::from_micros(1),
        max_concurrent_runs: 2,
        ..read(
            r#"{"id":"w","org_id":"o","name":"n","description":"d","timeout_ms":5,"steps":{"a":{"topic":"t"}},"config":{"k":1},
                "input_schema":{"type":"object"},"parameters":[{"n":1}],"on_failure":"wait","output":"x"}"#,
        )
        .workflow
    };
    let mut kept = read(r#"{"id":"w","name":"","steps":null,"config":null}"#).merge_into(Some(&stored), now);
    assert_eq!(kept.updated_at, now);
    kept.updated_at = stored.updated_at;
    assert_eq!(kept, stored);

    let changed = read(
        r#"{"id":"w","name":"m","steps":{},"config":{},"input_schema":{},"parameters":[],"timeout_sec":9,"on_failure":"cancel",
            "max_concurrent_runs":0,"output":"y"}"#,
    );
    let changed = changed.merge_into(Some(&stored), now);
    assert_eq!((changed.name.as_str(), changed.org_id.as_str()), ("m", "o"));
    assert!(changed.steps.is_empty() && changed.config.is_empty() && changed.parameters.is_empty());
    assert!(changed.input_schema.is_empty());
    assert_eq!(
        (changed.timeout_sec, changed.timeout_ms, changed.max_concurrent_runs),
        (9, 0, 0)
    );
    assert_eq!(changed.on_failure, crate::workflow::model::OnFailure::Cancel);
    assert_eq!(changed.created_at, stored.created_at);

    let new = read(r#"{"id":"n","created_at":"2020-01-01T00:00:00Z"}"#).merge_into(None, now);
    assert_eq!((new.created_at, new.updated_at), (now, now));
}
