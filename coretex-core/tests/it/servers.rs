//! The harness itself.

use std::process::Stdio;

use coretex_core::test_util::servers::{Daemon, NatsOptions, NatsServer, Probe, RedisOptions, RedisServer};
use coretex_core::test_util::wait::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn redis_says(server: &RedisServer, command: &str, expect: &str) -> bool {
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    stream.write_all(command.as_bytes()).await.expect("writes");
    let mut answer = [0; 256];
    let n = stream.read(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer[..n]).contains(expect)
}

#[tokio::test]
async fn redis_comes_back_on_its_port() {
    let mut server = RedisServer::start().await;
    let address = server.address();
    assert!(redis_says(&server, "SET a 1\r\n", "+OK").await);
    server.kill();
    assert!(TcpStream::connect(address).await.is_err());
    server.start_again().await;
    assert_eq!(server.address(), address);
    assert!(redis_says(&server, "GET a\r\n", "$-1").await);
}

#[tokio::test]
async fn durable_redis_keeps_its_data() {
    let mut server = RedisServer::start_with(durable()).await;
    assert!(redis_says(&server, "SET a 1\r\n", "+OK").await);
    server.restart().await;
    assert!(redis_says(&server, "GET a\r\n", "\r\n1\r\n").await);
}

fn durable() -> RedisOptions {
    let mut options = RedisOptions::default();
    options.durable = true;
    options
}

#[tokio::test]
async fn nats_comes_up_with_and_without_jetstream() {
    for options in [NatsOptions::default(), NatsOptions::jetstream()] {
        let jetstream = options.jetstream;
        let mut server = NatsServer::start_with(options).await;
        assert_eq!(server.log_tail().contains("Starting JetStream"), jetstream);
        server.restart().await;
        assert!(server.url().starts_with("nats://127.0.0.1:"));
    }
}

#[tokio::test]
async fn a_line_in_the_log_can_mean_ready_and_a_signal_ends_it() {
    let mut daemon = Daemon::new("sleeper", "/bin/sh")
        .args(["-c", "echo \"ready $WORD\"; exec sleep 1000"])
        .env("WORD", "now")
        .ready(Probe::Line("ready now".to_owned()));
    daemon.start().await;
    assert!(daemon.is_running());
    assert!(!daemon.stop().await.success());
    assert!(!daemon.is_running());
    assert_eq!(daemon.log().trim(), "ready now");
}

#[tokio::test]
async fn a_child_dies_when_its_parent_is_killed() {
    let mut daemon = Daemon::new("sleeper", "/bin/sleep").args(["1000"]);
    daemon.start().await;
    let pid = daemon.pid().expect("runs");
    assert!(exists(pid));
    daemon.abandon();
    until("the watchdog acts", || {
        std::future::ready((!daemon.is_running()).then_some(()))
    })
    .await;
}

fn exists(pid: u32) -> bool {
    std::process::Command::new("kill")
        .args(["-0", &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
