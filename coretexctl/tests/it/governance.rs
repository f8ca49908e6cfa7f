//! `coretexctl config …` and `audit …`

use std::io::Write as _;

use coretex_core::audit::{AuditEntry, AuditRecord, Head, link};
use coretex_core::time::Timestamp;
use serde_json::{Value, json};

use crate::stub::{Stub, ctl};

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn documents_are_shown() {
    let document = json!({
        "scope": "org", "scope_id": "acme", "data": {"limits": {"x": 1}}, "revision": 3,
        "updated_at": "2026-01-05T10:00:00Z", "meta": {"owner": "ops"},
    });
    let body = document.to_string();
    let server = Stub::start(move |_| (200, body.clone()));
    let done = server.ctl(&["config", "get", "org", "acme"]).assert().success();
    assert_eq!(
        stdout(&done),
        "org:acme  revision 3  2026-01-05T10:00:00Z\nowner=ops\n{\n  \"limits\": {\n    \"x\": 1\n  }\n}\n"
    );
    let done = server.ctl(&["config", "get", "-o", "json"]).assert().success();
    assert_eq!(serde_json::from_str::<Value>(&stdout(&done)).expect("JSON"), document);
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /api/v1/config?scope=org&scope_id=acme");
    assert_eq!(seen[1].line, "GET /api/v1/config?scope=system&scope_id=");
}

#[test]
fn documents_are_written_whole() {
    let server = Stub::start(|_| (204, String::new()));
    server
        .ctl(&["config", "set", "org", "acme", "--file", "-", "--meta", "owner=ops"])
        .write_stdin(r#"{"a": 9007199254740993}"#)
        .assert()
        .success();
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /api/v1/config");
    let expected = json!({
        "scope": "org", "scope_id": "acme", "data": {"a": 9_007_199_254_740_993_u64}, "meta": {"owner": "ops"},
    });
    assert_eq!(seen[0].body, expected);

    let server = Stub::start(|_| (412, "config document has revision 4, not 3\n".to_owned()));
    let mut command = server.ctl(&["config", "set", "org", "acme", "--file", "-", "--if-revision", "3"]);
    let done = command.write_stdin("{}").assert().code(4);
    assert!(stderr(&done).contains("revision 4, not 3"), "{}", stderr(&done));
    assert!(stderr(&done).contains("config get org acme"), "{}", stderr(&done));

    for text in ["", "[]", "{"] {
        ctl(&["config", "set", "--file", "-"])
            .write_stdin(text)
            .assert()
            .code(2);
    }
}

#[test]
fn effective_asks_for_the_scopes_given() {
    let body = json!({"version": "system:1|org:2|team:0|workflow:0|step:0", "hash": "abc", "data": {}}).to_string();
    let server = Stub::start(move |_| (200, body.clone()));
    let done = server
        .ctl(&["config", "effective", "--org", "acme", "--step", "s"])
        .assert()
        .success();
    assert_eq!(stdout(&done), "system:1|org:2|team:0|workflow:0|step:0\nabc\n{}\n");
    assert_eq!(
        server.seen()[0].line,
        "GET /api/v1/config/effective?org_id=acme&step_id=s"
    );
}

fn entries(count: i64) -> Vec<AuditEntry> {
    let records = (1..=count)
        .map(|n| {
            AuditRecord::new(Timestamp::from_secs(n), "ada", "secops", "config.set", "cfg:org:a").with("revision", n)
        })
        .collect();
    link(&Head::empty(), records)
}

/// Answers as the gateway does.
fn audit_server(entries: Vec<AuditEntry>) -> Stub {
    Stub::start(move |request| {
        let from = request
            .line
            .split_once("from=")
            .and_then(|(_, rest)| rest.split('&').next()?.parse::<usize>().ok())
            .unwrap_or(1);
        // Two at a time, so that there are several pages.
        let items: Vec<_> = entries.iter().skip(from.saturating_sub(1)).take(2).collect();
        let next = (from + 1 < entries.len()).then_some(from + 2);
        let head = entries.last().map(|last| json!({"seq": last.seq, "hash": last.hash}));
        (200, json!({"items": items, "next": next, "head": head}).to_string())
    })
}

#[test]
fn the_log_is_shown_line_by_line() {
    let written = entries(5);
    let server = audit_server(written.clone());
    let done = server.ctl(&["audit", "tail"]).assert().success();
    assert_eq!(
        stdout(&done),
        "     1  1970-01-01T00:00:01.000Z  ada (secops)  config.set  cfg:org:a  revision=1\n     \
              2  1970-01-01T00:00:02.000Z  ada (secops)  config.set  cfg:org:a  revision=2\n"
    );
    let done = server.ctl(&["audit", "tail", "--all", "-o", "json"]).assert().success();
    let lines: Vec<AuditEntry> = stdout(&done)
        .lines()
        .map(|line| serde_json::from_str(line).expect("an entry"))
        .collect();
    assert_eq!(lines, written);
}

#[test]
fn a_whole_log_is_proved_and_a_broken_one_named() {
    let whole = entries(5);
    let end = format!("5:{}", whole[4].hash);
    let done = audit_server(whole.clone()).ctl(&["audit", "verify"]).assert().success();
    assert_eq!(stdout(&done), format!("whole: 5 entries\nend: {end}\n"));
    let args = ["audit", "verify", "--known", &end];
    audit_server(whole.clone()).ctl(&args).assert().success();
    // Cut off at the end: only who knew the end sees it.
    let cut = audit_server(whole[..3].to_vec());
    cut.ctl(&["audit", "verify"]).assert().success();
    let done = cut.ctl(&args).assert().code(1);
    assert!(stderr(&done).contains("entry 4: missing"), "{}", stderr(&done));

    let mut changed = whole;
    changed[2].record.actor = "eve".to_owned();
    let done = audit_server(changed.clone()).ctl(&["audit", "verify"]).assert().code(1);
    assert!(stderr(&done).contains("entry 3: was changed"), "{}", stderr(&done));

    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for entry in &changed {
        writeln!(file, "{}", serde_json::to_string(entry).expect("JSON")).expect("written");
    }
    let path = file.path().to_str().expect("a path");
    let done = ctl(&["audit", "verify", "--file", path, "-o", "json"]).assert().code(1);
    let report: Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!((&report["ok"], &report["broken"]["seq"]), (&json!(false), &json!(3)));
}
