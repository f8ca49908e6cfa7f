//! What every [`AuditStore`](crate::audit::AuditStore) does.
//!
//! Each case has a fixture of its own: there is one chain per store.

use std::collections::BTreeSet;

use super::{Fixture, Scene};
use crate::audit::{AuditEntry, AuditRecord, Head};
use crate::config::Document;
use crate::jobs::{Change, JobEvent, JobStoreExt, NewJob, Outcome};

/// Makes one test of each case; takes the path of an `async fn() -> Fixture` whose stores nobody else uses.
#[macro_export]
macro_rules! audit_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, audit:
            what_is_enqueued_waits_in_order,
            a_record_is_enqueued_once,
            appended_records_leave_the_outbox,
            a_chain_is_read_in_order,
            a_stale_append_is_refused,
            of_many_appends_one_wins,
            concurrent_appenders_lose_and_repeat_nothing,
            a_change_brings_its_record,
            a_document_brings_its_record,
        );
    };
}

fn record(scene: &Scene, name: &str) -> AuditRecord {
    let mut record = AuditRecord::new(scene.at(7), "anna \"ü\"", "secops", "config.set", "cfg:system:default")
        .with(
            "before",
            serde_json::json!({"b": 1, "a": [0.1, null, 9_007_199_254_740_993_u64]}),
        )
        .with("after", "x");
    record.id = scene.name(name);
    record
}

/// The entries that carry these records on from `head`. The stores look at places and hashes only as texts.
fn entries(head: &Head, records: &[AuditRecord]) -> Vec<AuditEntry> {
    let mut prev = head.hash.clone();
    (head.seq + 1..)
        .zip(records)
        .map(|(seq, record)| {
            let hash = format!(
                "{:0>64}",
                format!("{seq}{}", record.id.len() + record.id.as_bytes()[0] as usize)
            );
            AuditEntry {
                seq,
                prev: std::mem::replace(&mut prev, hash.clone()),
                hash,
                record: record.clone(),
            }
        })
        .collect()
}

async fn pending(fixture: &Fixture) -> Vec<AuditRecord> {
    fixture.audit.pending(1_000).await.expect("pending")
}

async fn enqueue(fixture: &Fixture, records: &[AuditRecord]) {
    for record in records {
        fixture.audit.enqueue(record).await.expect("enqueue");
    }
}

/// Oldest first, whole, as many as asked for.
pub async fn what_is_enqueued_waits_in_order(fixture: &Fixture) {
    let scene = Scene::new();
    assert_eq!(fixture.audit.head().await.expect("head"), Head::empty());
    assert!(pending(fixture).await.is_empty());
    let records: Vec<_> = (0..12).map(|i| record(&scene, &i.to_string())).collect();
    enqueue(fixture, &records).await;
    assert_eq!(pending(fixture).await, records);
    assert_eq!(fixture.audit.pending(3).await.expect("pending"), records[..3]);
    assert!(fixture.audit.pending(0).await.expect("pending").is_empty());
}

/// Also when it is in the chain already.
pub async fn a_record_is_enqueued_once(fixture: &Fixture) {
    let scene = Scene::new();
    let record = record(&scene, "twice");
    enqueue(fixture, &[record.clone(), record.clone()]).await;
    assert_eq!(pending(fixture).await, std::slice::from_ref(&record));
    let chain = entries(&Head::empty(), std::slice::from_ref(&record));
    assert!(fixture.audit.append(&Head::empty(), &chain).await.expect("append"));
    enqueue(fixture, &[record]).await;
    assert!(pending(fixture).await.is_empty());
}

/// Those, and no others.
pub async fn appended_records_leave_the_outbox(fixture: &Fixture) {
    let scene = Scene::new();
    let records: Vec<_> = (0..5).map(|i| record(&scene, &i.to_string())).collect();
    enqueue(fixture, &records).await;
    let taken = [records[0].clone(), records[3].clone()];
    let chain = entries(&Head::empty(), &taken);
    assert!(fixture.audit.append(&Head::empty(), &chain).await.expect("append"));
    let left = [&records[1], &records[2], &records[4]].map(Clone::clone);
    assert_eq!(pending(fixture).await, left);
    let head = fixture.audit.head().await.expect("head");
    assert_eq!((head.seq, &head.hash), (2, &chain[1].hash));
}

/// From any place, as many as asked for.
pub async fn a_chain_is_read_in_order(fixture: &Fixture) {
    let scene = Scene::new();
    let records: Vec<_> = (0..20).map(|i| record(&scene, &i.to_string())).collect();
    let chain = entries(&Head::empty(), &records);
    let (first, second) = chain.split_at(11);
    assert!(fixture.audit.append(&Head::empty(), first).await.expect("append"));
    let head = fixture.audit.head().await.expect("head");
    assert!(fixture.audit.append(&head, second).await.expect("append"));
    assert_eq!(fixture.audit.read(1, 100).await.expect("read"), chain);
    assert_eq!(fixture.audit.read(0, 2).await.expect("read"), chain[..2]);
    assert_eq!(fixture.audit.read(10, 3).await.expect("read"), chain[9..12]);
    assert!(fixture.audit.read(21, 3).await.expect("read").is_empty());
    assert!(fixture.audit.read(1, 0).await.expect("read").is_empty());
}

/// By place and by hash; and nothing leaves the outbox.
pub async fn a_stale_append_is_refused(fixture: &Fixture) {
    let scene = Scene::new();
    let records: Vec<_> = (0..3).map(|i| record(&scene, &i.to_string())).collect();
    enqueue(fixture, &records).await;
    let chain = entries(&Head::empty(), &records);
    assert!(fixture.audit.append(&Head::empty(), &chain[..1]).await.expect("append"));
    let right = fixture.audit.head().await.expect("head");
    for wrong in [
        Head::empty(),
        Head {
            seq: 2,
            ..right.clone()
        },
        Head {
            seq: 0,
            ..right.clone()
        },
        Head {
            hash: "f".repeat(64),
            ..right.clone()
        },
    ] {
        assert!(
            !fixture.audit.append(&wrong, &chain[1..]).await.expect("append"),
            "{wrong:?}"
        );
    }
    assert_eq!(fixture.audit.head().await.expect("head"), right);
    assert_eq!(pending(fixture).await, records[1..]);
    assert_eq!(fixture.audit.read(1, 9).await.expect("read"), chain[..1]);
}

/// However many append after the same head.
pub async fn of_many_appends_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let head = Head::empty();
    let mut chains = Vec::new();
    for i in 0..16 {
        let records = [record(&scene, &format!("{i}-a")), record(&scene, &format!("{i}-b"))];
        enqueue(fixture, &records).await;
        chains.push(entries(&head, &records));
    }
    let appends = chains.iter().map(|chain| fixture.audit.append(&head, chain));
    let won: Vec<bool> = futures::future::join_all(appends)
        .await
        .into_iter()
        .map(|won| won.expect("append"))
        .collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).expect("one has won");
    assert_eq!(fixture.audit.read(1, 99).await.expect("read"), chains[winner]);
    assert_eq!(pending(fixture).await.len(), 30);
}

/// Everybody who drains the outbox by compare-and-set, until it is empty, makes one chain of all of it.
pub async fn concurrent_appenders_lose_and_repeat_nothing(fixture: &Fixture) {
    let scene = Scene::new();
    let records: Vec<_> = (0..60).map(|i| record(&scene, &i.to_string())).collect();
    let drain = || async {
        loop {
            let head = fixture.audit.head().await.expect("head");
            let waiting = fixture.audit.pending(4).await.expect("pending");
            if waiting.is_empty() {
                return;
            }
            // Lost: look again.
            let _won = fixture
                .audit
                .append(&head, &entries(&head, &waiting))
                .await
                .expect("append");
        }
    };
    let fill = async {
        for record in &records {
            enqueue(fixture, &[record.clone(), record.clone()]).await;
        }
    };
    futures::join!(fill, drain(), drain(), drain());
    drain().await;
    let chain = fixture.audit.read(1, 1_000).await.expect("read");
    assert!((1..).zip(&chain).all(|(seq, entry)| entry.seq == seq));
    assert!(chain.windows(2).all(|pair| pair[0].hash == pair[1].prev));
    let ids: BTreeSet<&str> = chain.iter().map(|entry| entry.record.id.as_str()).collect();
    assert_eq!((chain.len(), ids.len()), (60, 60));
}

/// In the commit of the change, and only if it is applied; once if the change is repeated.
pub async fn a_change_brings_its_record(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("job");
    let new = NewJob {
        id: id.clone(),
        request: std::sync::Arc::default(),
        trace_id: None,
        payload: None,
        idempotency: None,
        deadline: None,
        at: scene.at(0),
    };
    fixture.jobs.create(new).await.expect("create");
    let with = |event, name| Change {
        audit: Some(record(&scene, name)),
        ..Change::new(id.clone(), event, scene.secs(1))
    };
    let approve = fixture
        .jobs
        .apply(with(JobEvent::Approve, "refused"))
        .await
        .expect("apply");
    assert!(matches!(approve, Outcome::Conflict { .. }));
    let cancel = with(JobEvent::Cancel, "cancel");
    for _ in 0..2 {
        let outcome = fixture.jobs.apply(cancel.clone()).await.expect("apply");
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
    assert_eq!(pending(fixture).await, [record(&scene, "cancel")]);
}

/// In the commit of the write, and only if it is written.
pub async fn a_document_brings_its_record(fixture: &Fixture) {
    let scene = Scene::new();
    let document = Document {
        scope: "team".to_owned(),
        scope_id: scene.name("doc"),
        data: serde_json::Map::new(),
        revision: 1,
        updated_at: String::new(),
        meta: None,
    };
    let (first, second) = (record(&scene, "first"), record(&scene, "second"));
    assert!(fixture.config.put(&document, 0, Some(&first)).await.expect("put"));
    assert!(!fixture.config.put(&document, 0, Some(&second)).await.expect("put"));
    assert_eq!(pending(fixture).await, [first]);
}
