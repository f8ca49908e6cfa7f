//! Exit codes and messages when things are not as they should be.

use crate::stub::{Stub, ctl};

#[track_caller]
fn check(mut command: assert_cmd::Command, code: i32, parts: &[&str]) {
    let done = command.assert().code(code);
    let text = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(done.get_output().stdout.is_empty(), "data on stdout");
}

fn answers(status: u16, body: &'static str) -> Stub {
    Stub::start(move |_| (status, body.to_owned()))
}

#[test]
fn wrong_usage_is_2() {
    check(ctl(&["job", "submit"]), 2, &["PROMPT"]);
    check(ctl(&["job", "list", "--limit", "0"]), 2, &["--limit"]);
    check(
        ctl(&["--api", "localhost", "status"]),
        2,
        &["localhost", "--api http://"],
    );
    check(ctl(&["job", "submit", "x", "--label", "nothing"]), 2, &["KEY=VALUE"]);
    check(ctl(&["bench", "--mode", "nats"]), 2, &["--nats"]);
}

#[test]
fn refusals_are_4() {
    check(
        answers(401, "unauthorized\n").ctl(&["status"]),
        4,
        &["unauthorized", "CORETEX_API_KEY"],
    );
    check(
        answers(409, "job not awaiting approval\n").ctl(&["approval", "approve", "j"]),
        4,
        &["job not awaiting approval", "job explain j"],
    );
}

#[test]
fn problem_details_are_read() {
    let body = r#"{"title":"Bad Request","detail":"must start with job.","field":"topic","status":400}"#;
    check(
        answers(400, body).ctl(&["job", "submit", "x", "--topic", "y"]),
        1,
        &["topic: must start with job. (status 400)"],
    );
}

#[test]
fn a_server_that_is_not_there_is_5() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    check(
        ctl(&["--api", &address, "status"]),
        5,
        &["cannot reach", &address, "coretexd"],
    );
}

#[test]
fn something_else_than_a_gateway_is_noticed() {
    check(answers(200, "<html>").ctl(&["status"]), 1, &["no JSON"]);
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let done = ctl(&["completions", shell]).assert().success();
        assert!(String::from_utf8_lossy(&done.get_output().stdout).contains("coretexctl"));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::{Command, Stdio};

    let mut child = Command::new(env!("CARGO_BIN_EXE_coretexctl"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("ended");
    assert!(done.status.success(), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
}
