//! When the server is away, slow, or forgetful.

use std::time::Duration;

use coretex_core::backend::redis::{RedisOptions, RedisPayloads, RedisStores};
use coretex_core::error::{Retry, chain};
use coretex_core::jobs::{Change, JobEvent, JobStoreExt as _, Outcome};
use coretex_core::pointers::Pointer;
use coretex_core::test_util::servers::{self, RedisServer};
use coretex_core::test_util::wait::until;

use super::support::{Bench, at, job, new_job};

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let mut options = servers::RedisOptions::default();
    options.durable = true;
    let mut bench = Bench::with(RedisServer::start_with(options).await, RedisOptions::default()).await;
    bench.create(new_job("j1")).await;
    bench.server.kill();
    let change = Change::new(job("j1"), JobEvent::Dispatch, at(10));
    // At first the lost connection may be noticed in the middle of a command; after that nothing is sent.
    until("it is known that nobody is there", async || {
        let error = bench.stores.jobs.apply(change.clone()).await.expect_err("nobody there");
        assert!(error.is_retryable(), "{}", chain(&error));
        (error.retry() == Retry::Safe).then_some(())
    })
    .await;
    let results = bench.stores.jobs.apply_many(&[change.clone(), change.clone()]).await;
    assert!(results.iter().all(Result::is_err));
    bench.server.start_again().await;
    let outcome = until("the server is found", async || {
        bench.stores.jobs.apply(change.clone()).await.ok()
    })
    .await;
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    // The answer may have been lost: asking again is answered the same. That goes to another connection, which does not
    // wait either.
    assert_eq!(bench.stores.jobs.apply(change).await.expect("apply"), outcome);
    assert!(bench.stores.jobs.counts().await.is_ok());
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let bench = Bench::new().await;
    let _: String = bench.raw(&["SCRIPT", "FLUSH"]).await;
    bench.create(new_job("j1")).await;
    let _: String = bench.raw(&["SCRIPT", "FLUSH"]).await;
    let changes = [
        Change::new(job("j1"), JobEvent::Dispatch, at(10)),
        Change::new(job("j1"), JobEvent::Cancel, at(20)),
    ];
    for outcome in bench.stores.jobs.apply_many(&changes).await {
        assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
    }
}

/// A server that hangs: the call ends in time, says that it may have been carried out, and the connection is replaced.
#[tokio::test]
async fn a_hanging_server_costs_one_timeout() {
    let server = RedisServer::start().await;
    let mut options = RedisOptions::default();
    options.connections = 1;
    options.response_timeout = Duration::from_secs(1);
    let bench = Bench::with(server, options).await;
    bench.server.signal("STOP");
    let error = bench.stores.cluster.ping().await.expect_err("no answer");
    assert_eq!(error.retry(), Retry::MaybeApplied, "{}", chain(&error));
    bench.server.signal("CONT");
    until("an answer", async || bench.stores.cluster.ping().await.ok()).await;
}

#[tokio::test]
async fn nobody_there_and_no_url() {
    let address = servers::free_address();
    let url = format!("redis://me:secret@{address}");
    let error = RedisStores::connect(&url, RedisOptions::default())
        .await
        .expect_err("nobody there");
    assert_eq!(error.retry(), Retry::Safe);
    assert!(!chain(&error).contains("secret"));
    for url in ["", "secret", "http://secret@host", "redis://:secret@host:notaport"] {
        let error = RedisStores::connect(url, RedisOptions::default()).await.expect_err(url);
        assert_eq!(error.retry(), Retry::Never, "{url}");
        assert!(!chain(&error).contains("secret"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_password_is_used() {
    let mut options = servers::RedisOptions::default();
    options.args = vec!["--requirepass".to_owned(), "s3cret".to_owned()];
    options.password = Some("s3cret".to_owned());
    let server = RedisServer::start_with(options).await;
    let stores = RedisStores::connect(&server.url(), RedisOptions::default())
        .await
        .expect("connects");
    assert!(stores.jobs.counts().await.is_ok());
    let wrong = server.url().replace("s3cret", "wrong");
    let error = RedisStores::connect(&wrong, RedisOptions::default())
        .await
        .expect_err("refused");
    assert!(!chain(&error).contains("wrong"), "{}", chain(&error));
}

#[tokio::test]
async fn a_unix_socket_will_do_and_a_worker_needs_payloads_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("redis.sock");
    let mut options = servers::RedisOptions::default();
    options.args = vec!["--unixsocket".to_owned(), socket.display().to_string()];
    let server = RedisServer::start_with(options).await;
    let url = format!("unix://{}", socket.display());
    let ours = RedisPayloads::connect(&url, &RedisOptions::default())
        .await
        .expect("connects");
    let theirs = RedisPayloads::open(&server.url(), &RedisOptions::default()).expect("a url");
    let pointer = Pointer::from_key("res:1").expect("a pointer");
    ours.put(&pointer, "x".into(), None).await.expect("put");
    assert_eq!(
        theirs.get(&pointer).await.expect("get").as_deref(),
        Some(b"x".as_slice())
    );
}
