//! `coretexctl policy`: what it says of files, and what it asks a server.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::stub::{Stub, ctl};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies")
}

fn policies() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(examples())
        .expect("the examples are there")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| !path.to_string_lossy().ends_with(".cases.yaml"))
        .collect();
    found.sort();
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// docs/policy.md §6.
#[test]
fn every_worked_policy_is_clean_and_does_what_its_cases_say() {
    let policies = policies();
    assert_eq!(policies.len(), 10);
    for policy in policies {
        ctl(&["policy", "lint", "--strict", text(&policy)]).assert().success();
        let done = ctl(&["policy", "test", text(&policy), "-o", "json"]).assert().success();
        let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
        assert!(report["passed"].as_u64() >= Some(2), "{}: {report}", policy.display());
    }
}

#[test]
fn a_case_that_fails_says_what_was_almost() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    std::fs::write(
        &cases,
        "cases:\n- name: runs\n  request: {topic: job.docs.edit, meta: {capability: write}}\n  expect: {decision: allow, rule: x}\n",
    )
    .expect("written");
    let policy = examples().join("01-deny-by-default.yaml");
    let done = ctl(&["policy", "test", text(&policy), text(&cases)]).assert().code(1);
    let out = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    for part in [
        "FAIL  runs",
        "decision: expected ALLOW, got DENY",
        "rule: expected `x`, got ``",
        "almost: rule `reading-is-fine`",
        "0 passed, 1 failed",
    ] {
        assert!(out.contains(part), "no `{part}` in:\n{out}");
    }
}

/// docs/spec/policy.md §1.3, §1.5.
#[test]
fn bad_policies_are_refused_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    let huge = format!("version: '{}'\n", "x".repeat(10 * 1024 * 1024));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for (document, parts) in [
        (
            "rules:\n- {id: a, decision: alow}\n",
            &["policy.yaml:2:", "rule `a`", "alow"][..],
        ),
        ("rules:\n- {id: a}\n", &["policy.yaml:2:", "decision: missing or empty"]),
        (
            "rules:\n- {id: a, decision: deny, match: {topics: ['job.[']}}\n",
            &["policy.yaml:2:", "malformed pattern"],
        ),
        (
            "rules:\n- {id: a, decision: deny}\n- {id: a, decision: deny}\n",
            &["policy.yaml:3:", "`a`"],
        ),
        ("rules: 7\n", &["policy.yaml", "rules"]),
        ("rules: [\n", &["policy.yaml"]),
        (&huge, &["policy.yaml", "at most"]),
        (bomb, &["policy.yaml"]),
    ] {
        std::fs::write(&file, document).expect("written");
        let done = ctl(&["policy", "lint", text(&file)]).assert().code(1);
        let err = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        for part in parts {
            assert!(err.contains(part), "no `{part}` in:\n{err}");
        }
    }
}

#[test]
fn unknown_keys_warn_with_the_nearest_one_and_fail_if_strict() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    std::fs::write(
        &file,
        "default_decision: deny\nrules:\n- {id: a, decision: deny, mach: {}}\n",
    )
    .expect("written");
    let done = ctl(&["policy", "lint", text(&file)]).assert().success();
    let out = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(
        out.contains("base:3:") && out.contains("match") && out.contains("[unknown_key]"),
        "{out}"
    );
    ctl(&["policy", "lint", "--strict", text(&file)]).assert().code(1);
}

#[test]
fn what_is_asked_of_files_needs_no_server() {
    let policy = examples().join("02-production-needs-two-people.yaml");
    let done = ctl(&[
        "policy",
        "explain",
        "job.sre.cleanup",
        "--label",
        "env=staging",
        "--risk-tag",
        "delete",
        "--policy",
        text(&policy),
    ])
    .assert()
    .success();
    let out = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(
        out.contains("ALLOW") && out.contains("almost:") && out.contains("production-writes"),
        "{out}"
    );
}

#[test]
fn decisions_that_would_be_others_are_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old.yaml"), folder.path().join("new.yaml"));
    std::fs::write(
        &old,
        "default_decision: allow\nrules:\n- {id: no-b, decision: deny, match: {topics: [job.b]}}\n",
    )
    .expect("written");
    std::fs::write(
        &new,
        "default_decision: allow\nrules:\n- {id: no-a, decision: deny, match: {topics: [job.a]}}\n",
    )
    .expect("written");
    let server = Stub::start(|_| {
        let item = |id: &str, topic: &str| json!({"job_id": id, "input": {"topic": topic, "tenant": "t"}});
        let items = [
            item("1", "job.a"),
            item("2", "job.b"),
            item("3", "job.c"),
            json!({"job_id": "4", "input": null}),
        ];
        (200, json!({"items": items, "next_cursor": null}).to_string())
    });
    let done = server
        .ctl(&["policy", "diff", text(&old), text(&new), "-o", "json"])
        .assert()
        .success();
    let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
    assert_eq!(report["rules"]["added"][0]["id"], "no-a");
    assert_eq!(report["rules"]["removed"][0]["id"], "no-b");
    assert_eq!(
        (&report["decisions"]["judged"], &report["decisions"]["skipped"]),
        (&json!(3), &json!(1))
    );
    let changed: Vec<_> = report["decisions"]["changed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|changed| (&changed["job_id"], &changed["old"], &changed["new"]))
        .collect();
    assert_eq!(
        changed,
        [
            (&json!("1"), &json!("ALLOW"), &json!("DENY")),
            (&json!("2"), &json!("DENY"), &json!("ALLOW"))
        ]
    );
    server
        .ctl(&["policy", "diff", text(&old), text(&new), "--fail-on-change"])
        .assert()
        .code(1);
    ctl(&["policy", "diff", text(&old), text(&old), "--offline"])
        .assert()
        .success();
}
