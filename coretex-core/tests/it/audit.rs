//! The audit log on every backend, and with somebody who tampers. See `docs/spec/audit.md`.

use std::sync::Arc;

use coretex_core::audit::{Actor, AuditLog, AuditRecord, Error};
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::config::{ConfigService, Write};
use coretex_core::test_util::servers::RedisServer;
use coretex_core::time::{Clock, Timestamp};

/// The list that holds the chain in Redis (docs/spec/storage.md §9).
const LOG: &str = "cx:audit:log";

fn embedded() -> Stores {
    EmbeddedStores::open(&Location::Memory, &Options::default())
        .expect("stores")
        .stores()
}

async fn on_redis() -> (Stores, RedisServer) {
    let server = RedisServer::start().await;
    let stores = RedisStores::connect(&server.url(), RedisOptions::default()).await;
    (stores.expect("connects"), server)
}

fn record(n: usize) -> AuditRecord {
    let at = Timestamp::from_secs(i64::try_from(n).expect("small"));
    AuditRecord::by(at, &Actor::new("ada", "secops"), "config.set", "cfg:org:acme").with("n", n)
}

async fn fill(log: &AuditLog, count: usize) {
    for n in 1..=count {
        log.record(&record(n)).await.expect("recorded");
    }
}

async fn whole(stores: &Stores, entries: u64) {
    let log = AuditLog::new(Arc::clone(&stores.audit));
    let report = log.verify(|_| ()).await.expect("verified");
    assert_eq!((report.entries, report.broken), (entries, None));
    assert_eq!(report.head, stores.audit.head().await.expect("head"));
}

async fn pages(stores: &Stores) {
    let log = AuditLog::new(Arc::clone(&stores.audit));
    let page = log.page(None, 10).await.expect("page");
    assert_eq!((page.entries.len(), page.head.seq), (0, 0));
    fill(&log, 5).await;
    let seqs = async |from, limit| {
        let page = log.page(from, limit).await.expect("page");
        page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(None, 2).await, [4, 5]);
    assert_eq!(seqs(None, 10).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(Some(2), 2).await, [2, 3]);
    assert_eq!(seqs(Some(0), 1).await, [1]);
    assert_eq!(seqs(Some(6), 10).await, [0; 0]);
    // Twice recorded is once written.
    let once = record(6);
    log.record(&once).await.expect("recorded");
    log.record(&once).await.expect("recorded");
    whole(stores, 6).await;
}

/// Several processes move what several writers do, and each write is in the chain exactly once.
async fn writers_race(stores: &Stores) {
    const EACH: u64 = 25;
    let writer = |name: &'static str| {
        let config = ConfigService::new(
            Arc::clone(&stores.config),
            Arc::new(InProcessBus::new()),
            Clock::system(),
        );
        let log = AuditLog::new(Arc::clone(&stores.audit));
        async move {
            for _ in 0..EACH {
                let write = Write {
                    scope: "org".to_owned(),
                    scope_id: "acme".to_owned(),
                    ..Write::default()
                };
                config.set(write, &Actor::new(name, "")).await.expect("set");
                log.settle().await.expect("settled");
            }
        }
    };
    let writers = ["one", "other", "third"].map(|name| tokio::spawn(writer(name)));
    for writer in writers {
        writer.await.expect("no panic");
    }
    whole(stores, 3 * EACH).await;
    let entries = stores.audit.read(1, 1_000).await.expect("entries");
    let mut revisions: Vec<u64> = entries
        .iter()
        .filter_map(|entry| entry.record.detail.get("revision")?.as_u64())
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=3 * EACH).collect::<Vec<_>>());
}

#[tokio::test]
async fn pages_on_embedded() {
    pages(&embedded()).await;
}

#[tokio::test]
async fn pages_on_redis() {
    let (stores, _server) = on_redis().await;
    pages(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_race_on_embedded() {
    writers_race(&embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_race_on_redis() {
    let (stores, _server) = on_redis().await;
    writers_race(&stores).await;
}

#[tokio::test]
async fn more_than_a_page_is_checked() {
    let stores = embedded();
    for n in 1..=1_201 {
        stores.audit.enqueue(&record(n)).await.expect("enqueued");
    }
    let log = AuditLog::new(Arc::clone(&stores.audit));
    assert_eq!(log.settle().await.expect("settled"), 1_201);
    let mut seen = Vec::new();
    let report = log.verify(|entries| seen.push(entries)).await.expect("verified");
    assert_eq!((report.entries, report.broken), (1_201, None));
    assert_eq!(seen.last(), Some(&1_201));
    assert!(seen.len() > 1, "{seen:?}");
}

/// Five entries in Redis, then somebody runs `script` on the list; the check names `seq`.
async fn tampered(script: &str, seq: u64, part: &str) {
    let (stores, server) = on_redis().await;
    let log = AuditLog::new(Arc::clone(&stores.audit));
    fill(&log, 5).await;
    let client = redis::Client::open(server.url()).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    let () = redis::Script::new(script)
        .key(LOG)
        .invoke_async(&mut connection)
        .await
        .expect("done");
    let report = log.verify(|_| ()).await.expect("verified");
    let broken = report.broken.expect("broken");
    assert_eq!(broken.seq, seq, "{script}: {broken}");
    assert!(broken.what.contains(part), "{script}: {broken}");
    assert_eq!(report.entries, seq - 1);
}

#[tokio::test]
async fn an_edited_entry_is_named() {
    let edit = "local e = redis.call('LINDEX', KEYS[1], 2) \
                redis.call('LSET', KEYS[1], 2, (string.gsub(e, 'ada', 'eve')))";
    tampered(edit, 3, "was changed").await;
}

#[tokio::test]
async fn a_deleted_entry_is_named() {
    let delete = "redis.call('LREM', KEYS[1], 1, redis.call('LINDEX', KEYS[1], 1))";
    tampered(delete, 2, "entry 3 stands in its place").await;
}

#[tokio::test]
async fn an_inserted_entry_is_named() {
    let insert = "local e = redis.call('LINDEX', KEYS[1], 3) \
                  redis.call('LINSERT', KEYS[1], 'AFTER', e, e)";
    tampered(insert, 5, "entry 4 stands in its place").await;
}

#[tokio::test]
async fn an_unreadable_entry_is_named() {
    tampered("redis.call('LSET', KEYS[1], 3, 'no JSON')", 4, "cannot be read").await;
}

#[tokio::test]
async fn a_log_that_was_cut_says_so_and_loses_nothing() {
    let (stores, server) = on_redis().await;
    let log = AuditLog::new(Arc::clone(&stores.audit));
    fill(&log, 3).await;
    let client = redis::Client::open(server.url()).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    let _: i64 = redis::cmd("LREM")
        .arg(LOG)
        .arg(1)
        .arg(stores_entry(&mut connection, 0).await)
        .query_async(&mut connection)
        .await
        .expect("removed");
    let error = log.record(&record(4)).await.expect_err("stuck");
    assert!(matches!(error, Error::Stuck { seq: 3 }), "{error}");
    assert_eq!(stores.audit.pending(10).await.expect("pending").len(), 1);
    // It can still be read and checked.
    assert_eq!(log.page(None, 10).await.expect("page").entries.len(), 2);
    let broken = log.verify(|_| ()).await.expect("verified").broken.expect("broken");
    assert_eq!(broken.seq, 1);
}

async fn stores_entry(connection: &mut redis::aio::MultiplexedConnection, index: i64) -> String {
    redis::cmd("LINDEX")
        .arg(LOG)
        .arg(index)
        .query_async(connection)
        .await
        .expect("an entry")
}
