//! docs/spec/policy.md §1.

use proptest::prelude::*;

use crate::jobs::Decision;
use crate::policy::model::Rule;
use crate::policy::{CompiledPolicy, Document, DocumentError, MAX_DOCUMENT_BYTES, Problem};

fn parse(text: &str) -> Document {
    match Document::parse(text.as_bytes(), "p.yaml") {
        Ok(parsed) => parsed.document,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn refused(text: &str) -> DocumentError {
    match Document::parse(text.as_bytes(), "p.yaml") {
        Ok(parsed) => panic!("accepted: {text}\n{parsed:?}"),
        Err(error) => error,
    }
}

/// The only rule of a document, given its lines without indentation.
fn rule(lines: &str) -> Rule {
    let body = lines.replace('\n', "\n    ");
    let mut document = parse(&format!("rules:\n  - decision: deny\n    {body}\n"));
    assert_eq!(document.rules.len(), 1);
    document.rules.remove(0)
}

#[test]
fn nothing_is_an_empty_policy() {
    // §1.1
    for text in [
        "",
        "\n \n",
        "# only words\n",
        "null",
        "~",
        "---\n",
        "{}",
        "rules:\n",
        "rules: []",
        "rules: [null, ~]",
        "tenants: null",
        "\u{feff}# a mark before the words",
    ] {
        let document = parse(text);
        assert!(document.rules.is_empty() && document.tenants.is_empty(), "{text:?}");
        assert_eq!(document.default_decision.0, None);
    }
}

#[test]
fn strings_are_scalars_as_written() {
    // §1.2
    for (written, read) in [
        ("1.10", "1.10"),
        ("true", "true"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-01-05", "2026-01-05"),
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00Z"),
        ("yes", "yes"),
        (".inf", ".inf"),
        ("null", ""),
        ("~", ""),
        ("", ""),
        ("'null'", "null"),
        ("\"a\\tb\"", "a\tb"),
        ("!!binary aGVsbG8=", "hello"),
        ("!!str 12", "12"),
        ("' blank '", " blank "),
    ] {
        assert_eq!(rule(&format!("reason: {written}")).reason, read, "{written}");
    }
    assert_eq!(rule("reason: |\n  two\n  lines").reason, "two\nlines\n");
    for written in ["[a]", "{a: b}"] {
        let error = refused(&format!("rules:\n  - decision: deny\n    reason: {written}\n"));
        assert_eq!(error.problems[0].key, "rules[0].reason");
        assert_eq!(error.problems[0].line, 3);
    }
}

#[test]
fn lists_are_lists() {
    // §1.2
    assert_eq!(
        rule("match: {tenants: [a, null, ~, 1.50]}").conditions.tenants,
        ["a", "1.50"]
    );
    assert!(rule("match: {tenants: null}").conditions.tenants.is_empty());
    assert!(rule("match:").conditions.tenants.is_empty());
    for lines in [
        "match: {topics: job.x}",
        "match: {topics: {a: b}}",
        "match: []",
        "match: {tenants: [[a]]}",
    ] {
        let error = refused(&format!("rules:\n  - decision: deny\n    {lines}\n"));
        assert!(error.problems[0].key.starts_with("rules[0].match"), "{error}");
    }
    for text in [
        "[]",
        "- a",
        "word",
        "rules: word",
        "rules: {a: b}",
        "tenants: []",
        "rules: [1]",
    ] {
        refused(text);
    }
}

#[test]
fn maps_of_text() {
    // §1.2
    let labels = rule("match: {labels: {env: prod, n: 1.0, none: null, ~: lost, yes: on}}")
        .conditions
        .labels;
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("env", "prod"), ("n", "1.0"), ("none", ""), ("yes", "on")]);

    let document = parse("tenants: {acme: null, ~: {deny_topics: [job.x]}, 42: {max_concurrent_jobs: 3}}");
    let names: Vec<&str> = document.tenants.keys().map(String::as_str).collect();
    assert_eq!(names, ["42", "acme"]);
    assert_eq!(document.tenants["42"].max_concurrent_jobs, 3);
}

#[test]
fn flags() {
    // §1.2
    for (written, read) in [
        ("true", Some(true)),
        ("True", Some(true)),
        ("TRUE", Some(true)),
        ("y", Some(true)),
        ("Yes", Some(true)),
        ("on", Some(true)),
        ("'on'", Some(true)),
        ("\"YES\"", Some(true)),
        ("false", Some(false)),
        ("N", Some(false)),
        ("no", Some(false)),
        ("'OFF'", Some(false)),
        ("null", None),
        ("", None),
    ] {
        assert_eq!(
            rule(&format!("match: {{secrets_present: {written}}}"))
                .conditions
                .secrets_present,
            read,
            "{written}"
        );
    }
    for written in ["1", "0", "maybe", "yEs", "[true]", "''"] {
        refused(&format!(
            "rules:\n  - decision: deny\n    match: {{secrets_present: {written}}}\n"
        ));
    }
}

#[test]
fn numbers() {
    // §1.2
    for (written, read) in [
        ("0", 0),
        ("60000", 60_000),
        ("-5", -5),
        ("+5", 5),
        ("0x1F", 31),
        ("-0x1f", -31),
        ("0o17", 15),
        ("0b101", 5),
        ("017", 15),
        ("08", 8),
        ("1_000", 1_000),
        ("1.5", 1),
        ("-1.9", -1),
        ("1e3", 1_000),
        ("9223372036854775807", i64::MAX),
        ("null", 0),
    ] {
        let lines = format!("constraints: {{budgets: {{max_runtime_ms: {written}}}}}");
        assert_eq!(rule(&lines).constraints.budgets.max_runtime_ms, read, "{written}");
    }
    for written in [
        "'5'",
        "five",
        "9223372036854775808",
        "1e300",
        ".nan",
        ".inf",
        "true",
        "[1]",
    ] {
        let error = refused(&format!(
            "rules:\n  - decision: deny\n    constraints: {{budgets: {{max_runtime_ms: {written}}}}}\n"
        ));
        assert_eq!(
            error.problems[0].key, "rules[0].constraints.budgets.max_runtime_ms",
            "{error}"
        );
    }
    let narrow = |n: i64| format!("rules:\n  - decision: deny\n    constraints: {{budgets: {{max_retries: {n}}}}}\n");
    assert_eq!(
        parse(&narrow(i64::from(i32::MAX))).rules[0]
            .constraints
            .budgets
            .max_retries,
        i32::MAX
    );
    refused(&narrow(i64::from(i32::MAX) + 1));
}

#[test]
fn yaml_beyond_scalars() {
    // Only the first document, anchors, merges: §1.1
    let text = "
base: &base {tenants: [acme]}
rules:
  - decision: deny
    match: {<<: *base, topics: [job.x]}
---
rules: [1, 2
";
    for text in [text, &text.replace("[1, 2", "word")] {
        let document = parse(text);
        assert_eq!(document.rules[0].conditions.tenants, ["acme"]);
        assert_eq!(document.rules[0].conditions.topics.len(), 1);
    }
    refused("rules: []\n}\n");
    refused("rules: []\n- a\n");

    for text in ["rules: []\nrules: []\n", "version: a\nversion: b\n"] {
        refused(text);
    }
    // Keys are case-sensitive.
    assert!(parse("Rules: [{decision: deny}]").rules.is_empty());
}

#[test]
fn decision_words() {
    // §1.3
    for (word, decision) in [
        ("allow", Decision::Allow),
        ("permit", Decision::Allow),
        (" ALLOW ", Decision::Allow),
        ("deny", Decision::Deny),
        ("Block", Decision::Deny),
        ("require_approval", Decision::RequireApproval),
        ("require-approval", Decision::RequireApproval),
        ("require_human", Decision::RequireApproval),
        ("allow_with_constraints", Decision::AllowWithConstraints),
        ("allow-with-constraints", Decision::AllowWithConstraints),
        ("throttle", Decision::Throttle),
    ] {
        let document = parse(&format!("rules: [{{decision: '{word}'}}]"));
        assert_eq!(document.rules[0].decision.0, Some(decision), "{word}");
    }
    for (word, decision) in [
        ("deny", Decision::Deny),
        ("allow", Decision::Allow),
        ("require_approval", Decision::RequireApproval),
    ] {
        assert_eq!(
            parse(&format!("default_decision: {word}")).default_decision.0,
            Some(decision)
        );
    }
}

#[test]
fn mistakes_are_all_named_with_their_place() {
    // §1.3
    let error = refused(
        "default_decision: perhaps
rules:
  - id: first
    decision: alow
    match:
      topics:
        - job.ok
        - 'job.[a'
  - id: second
    match: {topics: [job.x]}
  - decision: ''
  - id: first
    decision: deny
tenants:
  acme:
    deny_topics: ['job.[]']
",
    );
    assert_eq!(
        error.to_string(),
        "p.yaml:1:19: default_decision: unknown decision `perhaps`; expected allow, deny or require_approval
p.yaml:4:15: rule `first`: rules[0].decision: unknown decision `alow`; expected allow, deny, require_approval, \
         allow_with_constraints or throttle
p.yaml:8:11: rule `first`: rules[0].match.topics[1]: malformed pattern `job.[a`: `[` without `]`
p.yaml:9:5: rule `second`: rules[1]: decision: missing or empty; expected allow, deny, require_approval, \
         allow_with_constraints or throttle
p.yaml:11:5: rules[2]: decision: missing or empty; expected allow, deny, require_approval, allow_with_constraints or \
         throttle
p.yaml:12:5: rule `first`: rules[3].id: used before, on line 3; ids are unique
p.yaml:16:19: tenants.acme.deny_topics[0]: malformed pattern `job.[]`: empty `[]`"
    );
    for text in [
        "default_decision:\n",
        "default_decision: ''\n",
        "default_decision: throttle\n",
    ] {
        assert_eq!(refused(text).problems[0].key, "default_decision");
    }
    // Rules without an id are not duplicates of each other.
    assert_eq!(parse("rules: [{decision: deny}, {decision: deny}]").rules.len(), 2);
}

#[test]
fn mistakes_in_terms_and_remediations() {
    // §§1.6, 1.7: (key: value of a rule, what is wrong)
    for (written, key, what) in [
        (
            "approval: {quorum: 0}",
            "rules[0].approval.quorum",
            "`0`; expected a whole number from 1 to 100",
        ),
        ("approval: {quorum: 101}", "rules[0].approval.quorum", "`101`; expected"),
        ("approval: {quorum: -1}", "rules[0].approval.quorum", "`-1`; expected"),
        ("approval: {quorum: 1.5}", "rules[0].approval.quorum", "`1.5`; expected"),
        ("approval: {quorum: two}", "rules[0].approval.quorum", "`two`; expected"),
        (
            "approval: {expires_after: 30}",
            "rules[0].approval.expires_after",
            "`30` is no duration; expected one like 30m",
        ),
        (
            "approval: {expires_after: soon}",
            "rules[0].approval.expires_after",
            "`soon` is no duration",
        ),
        (
            "approval: {expires_after: 0s}",
            "rules[0].approval.expires_after",
            "`0s` is no duration",
        ),
        (
            "approval: {expires_after: -5m}",
            "rules[0].approval.expires_after",
            "`-5m` is no duration",
        ),
        (
            "approval: {expires_after: 1 month}",
            "rules[0].approval.expires_after",
            "`1 month` is no duration",
        ),
        (
            "approval: {on_expiry: run}",
            "rules[0].approval.on_expiry",
            "unknown word `run`; expected deny or allow",
        ),
        ("approval: soon", "rules[0].approval", ""),
        ("remediations: {id: a}", "rules[0].remediations", ""),
        (
            "remediations: [{replacement_topic: job.x}]",
            "rules[0].remediations[0]",
            "id: missing or empty",
        ),
        ("remediations: [{id: a}]", "rules[0].remediations[0]", "changes nothing"),
        (
            "remediations: [{id: a, replacement_topic: 'job.*'}]",
            "rules[0].remediations[0]",
            "replacement_topic: `job.*` is no topic",
        ),
        (
            "remediations: [{id: a, replacement_topic: sys.x}]",
            "rules[0].remediations[0]",
            "replacement_topic: `sys.x`",
        ),
        (
            "remediations: [{id: a, replacement_topic: job.}]",
            "rules[0].remediations[0]",
            "replacement_topic: `job.`",
        ),
        (
            "remediations: [{id: a, replacement_topic: job.a b}]",
            "rules[0].remediations[0]",
            "replacement_topic: `job.a b`",
        ),
        (
            "remediations: [{id: a, add_labels: {approval_granted: 'true'}}]",
            "rules[0].remediations[0]",
            "add_labels: `approval_granted` is reserved",
        ),
        (
            "remediations: [{id: a, remove_labels: [x]}, {id: a, remove_labels: [y]}]",
            "rules[0]",
            "remediations: id `a` is used twice",
        ),
    ] {
        let error = refused(&format!(
            "rules:\n  - id: r\n    decision: require_approval\n    {written}\n"
        ));
        assert_eq!(error.problems.len(), 1, "{error}");
        let problem = &error.problems[0];
        assert_eq!(problem.key, key, "{written}");
        assert!(problem.what.starts_with(what), "{written}: {problem}");
        assert_eq!(problem.line, 4, "{written}");
    }
    for (written, millis) in [
        ("30m", 1_800_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1500ms", 1_500),
        ("PT5M", 300_000),
    ] {
        let rule = rule(&format!("approval: {{expires_after: {written}}}"));
        assert_eq!(
            rule.approval.unwrap().expires_after.0.unwrap().as_millis(),
            millis,
            "{written}"
        );
    }
    // Terms that nobody needs are odd.
    let parsed = Document::parse(b"rules:\n  - {id: r, decision: deny, approval: {quorum: 2}}", "p").unwrap();
    assert_eq!(
        parsed.warnings[0].to_string(),
        "2:6: rule `r`: rules[0].approval: only for rules that require approval; ignored"
    );
}

/// The documents in the repository are as the schema of editors wants them: known keys, known words.
#[test]
fn documents_of_the_repository_keep_to_the_schema() {
    fn check(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value, path: &str) {
        // What may be left out is "this, or null".
        let schema = schema["anyOf"].as_array().map_or(schema, |ways| &ways[0]);
        let schema = match schema["$ref"].as_str() {
            Some(name) => &root["$defs"][name.rsplit('/').next().unwrap()],
            None => schema,
        };
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{path}: {value}");
        }
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let path = format!("{path}.{key}");
                    let schema = match (&schema["properties"][key], &schema["additionalProperties"]) {
                        (serde_json::Value::Null, more) => {
                            assert!(more.is_object(), "{path}: unknown key");
                            more
                        }
                        (known, _) => known,
                    };
                    check(value, schema, root, &path);
                }
            }
            serde_json::Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    check(item, &schema["items"], root, &format!("{path}[{at}]"));
                }
            }
            _ => {}
        }
    }

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = vec![root.join("config/safety.yaml")];
    if let Ok(folder) = std::fs::read_dir(root.join("examples/policies")) {
        paths.extend(folder.map(|entry| entry.unwrap().path()).filter(|path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            path.extension().is_some_and(|end| end == "yaml") && text.lines().any(|line| line.starts_with("rules:"))
        }));
    }
    let schema = Document::json_schema();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        check(&value, &schema, &schema, &path.display().to_string());
        Document::parse(text.as_bytes(), "p").unwrap();
    }
}

#[test]
fn syntax_errors_have_a_place() {
    let error = refused("rules:\n  - id: [a\n");
    assert!(error.problems[0].line >= 2, "{error}");
    let error = refused("rules:\n  - id: a\n    decision: deny\n    match:\n      topics: job.x\n");
    assert_eq!((error.problems[0].line, error.problems[0].column), (5, 15), "{error}");
    assert_eq!(error.problems[0].key, "rules[0].match.topics");
    assert!(Document::parse(b"version: \xff", "p").is_err());
}

#[test]
fn unknown_keys_are_warnings() {
    // §1.4
    let parsed = Document::parse(
        b"default_decision: allow
rules:
  - id: r
    decision: deny
    descision: allow
    match: {topics: [job.x], topix: [job.y], zzz: {a: [1]}}
extra: 1
",
        "p.yaml",
    )
    .unwrap();
    let seen: Vec<String> = parsed.warnings.iter().map(Problem::to_string).collect();
    assert_eq!(
        seen,
        [
            "5:5: rule `r`: rules[0]: unknown key `descision` is ignored; did you mean `decision`?",
            "6:30: rule `r`: rules[0].match: unknown key `topix` is ignored; did you mean `topics`?",
            "6:46: rule `r`: rules[0].match: unknown key `zzz` is ignored",
            "7:1: unknown key `extra` is ignored",
        ]
    );
    // §4.3: a policy that leaves the default to us says so.
    let (_, warnings) = CompiledPolicy::from_bytes(b"rules: []", "p.yaml").unwrap();
    assert_eq!(warnings[0].key, "default_decision");
}

#[test]
fn the_schema_knows_what_the_reader_knows() {
    let schema = Document::json_schema();
    assert_eq!(schema["properties"].as_object().unwrap().len(), 6);
    let rule = &schema["$defs"]["Rule"]["properties"];
    let keys: Vec<&String> = rule.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "approval",
            "constraints",
            "decision",
            "id",
            "match",
            "reason",
            "remediations"
        ]
    );
    let approval = schema["$defs"]["Approval"]["properties"].as_object().unwrap();
    assert_eq!(approval.len(), 3);
    let remediation = schema["$defs"]["Remediation"]["properties"].as_object().unwrap();
    assert_eq!(remediation.len(), 7);
    assert_eq!(schema["$defs"]["Match"]["properties"].as_object().unwrap().len(), 11);
    assert_eq!(schema["$defs"]["McpLists"]["properties"].as_object().unwrap().len(), 8);
}

#[test]
fn sizes_are_limited() {
    // §1.5
    let error = Document::parse(&vec![b'#'; MAX_DOCUMENT_BYTES + 1], "p").unwrap_err();
    assert!(error.to_string().contains("10485760"), "{error}");
    assert!(Document::parse(&vec![b'#'; MAX_DOCUMENT_BYTES], "p").is_ok());

    // A bomb: ten aliases of ten aliases of …
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        use std::fmt::Write as _;
        let last = format!("*a{}, ", i - 1).repeat(10);
        writeln!(bomb, "a{i}: &a{i} [{last}]").unwrap();
    }
    bomb.push_str("rules: *a11\n");
    refused(&bomb);
    refused(&format!("rules: {}", "[".repeat(100_000)));
    refused(&"a: ".repeat(1_000));
}

#[test]
fn large_policies_are_read() {
    let mut text = String::from("rules:\n");
    for i in 0..20_000 {
        use std::fmt::Write as _;
        writeln!(
            text,
            "- {{id: r{i}, decision: deny, match: {{tenants: [t{i}], topics: ['job.x{i}.*']}}}}"
        )
        .unwrap();
    }
    assert_eq!(parse(&text).rules.len(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes, "p");
    }

    #[test]
    fn yaml_like_text_never_panics(text in r"([\[\]{}:,&*!|>'#%@~ \n-]|<<|rules|match|topics|decision|deny|0x1|null){0,40}") {
        let _ = Document::parse(text.as_bytes(), "p");
    }

    #[test]
    fn mutated_documents_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..12),
    ) {
        let mut bytes = include_bytes!("../../../../config/safety.yaml").to_vec();
        for (place, byte, kind) in edits {
            let place = place.index(bytes.len());
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => { bytes.remove(place); }
            }
        }
        let _ = Document::parse(&bytes, "p");
    }
}
