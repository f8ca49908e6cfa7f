//! Policy bundles as their callers see them, on every backend. See `docs/spec/policy.md` §12.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::audit::Actor;
use coretex_core::backend::Stores;
use coretex_core::backend::embedded::{self, EmbeddedStores, Location};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::bus::{Bus, SubscribeOptions};
use coretex_core::config::{ConfigService, DEFAULT, Document, Notice, SYSTEM};
use coretex_core::policy::bundles::{Bundles, Error, Publish, Put, Rollback};
use coretex_core::protocol::subjects;
use coretex_core::test_util::servers::RedisServer;
use coretex_core::time::{Clock, Timestamp};
use serde_json::{Value, json};

const GOOD: &str = "default_decision: allow\nrules: [{id: r1, decision: deny, match: {topics: [job.x]}}]";
const BAD: &str = "rules: [{id: r1, decision: perhaps}]";

struct World {
    stores: Stores,
    bus: Arc<dyn Bus>,
    clock: Clock,
    bundles: Bundles,
    _server: Option<RedisServer>,
}

impl World {
    fn embedded() -> Self {
        let stores = EmbeddedStores::open(&Location::Memory, &embedded::Options::default()).expect("stores");
        Self::over(stores.stores(), None)
    }

    async fn redis() -> Self {
        let server = RedisServer::start().await;
        let stores = RedisStores::connect(&server.url(), RedisOptions::default()).await;
        Self::over(stores.expect("connects"), Some(server))
    }

    fn over(stores: Stores, server: Option<RedisServer>) -> Self {
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
        // 2026-01-02T03:04:05Z
        let clock = Clock::manual(Timestamp::from_secs(1_767_323_045));
        let config = ConfigService::new(Arc::clone(&stores.config), Arc::clone(&bus), clock.clone());
        Self {
            bundles: Bundles::new(config, clock.clone()),
            stores,
            bus,
            clock,
            _server: server,
        }
    }

    fn config(&self) -> ConfigService {
        ConfigService::new(
            Arc::clone(&self.stores.config),
            Arc::clone(&self.bus),
            self.clock.clone(),
        )
    }

    /// Puts bundles there as others do.
    async fn store(&self, bundles: Value) {
        let edit = |document: &mut Document| {
            document.data.insert("bundles".to_owned(), bundles.clone());
            Ok::<(), Error>(())
        };
        self.config()
            .update(SYSTEM, "policy", edit, |()| None)
            .await
            .expect("stored");
    }

    async fn stored(&self) -> Value {
        let document = self.config().get(SYSTEM, "policy").await.expect("read");
        document.map_or(Value::Null, |document| document.data["bundles"].clone())
    }

    async fn actions(&self) -> Vec<(String, String, String)> {
        let pending = self.stores.audit.pending(100).await.expect("read");
        pending
            .into_iter()
            .map(|record| (record.action, record.actor, record.target))
            .collect()
    }
}

fn ann() -> Actor {
    Actor::new("ann", "secops")
}

fn put(id: &str, content: &str) -> Put {
    Put {
        id: id.to_owned(),
        content: content.to_owned(),
        ..Put::default()
    }
}

/// Runs a scenario on every backend.
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod embedded_store {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::World::embedded()).await;
            })+
        }

        mod redis_store {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::World::redis().await).await;
            })+
        }
    };
}

on_every_backend!(
    a_bundle_is_written_and_read,
    bad_policy_is_never_stored,
    concurrent_writers_lose_nothing,
    a_stale_revision_is_a_conflict,
    publish_enables_and_remembers,
    of_concurrent_publishers_none_is_lost,
    a_refused_publish_leaves_nothing,
    rollback_touches_only_what_is_edited_here,
    rollback_to_the_oldest_works,
    captures_have_ids_of_their_own,
);

async fn a_bundle_is_written_and_read(world: World) {
    let mut notices = world
        .bus
        .subscribe(subjects::CONFIG_CHANGED, SubscribeOptions::default())
        .await
        .expect("subscribed");
    let first = Put {
        author: " ann ".to_owned(),
        message: "first".to_owned(),
        ..put("secops/a", &format!(" {GOOD}\n"))
    };
    let done = world.bundles.put(first, &ann()).await.expect("written");
    assert_eq!((&*done.id, &*done.updated_at), ("secops/a", "2026-01-02T03:04:05Z"));
    assert_eq!((done.revision, done.warnings.len()), (1, 0));
    let notice = Notice::parse(&notices.next().await.expect("told").payload).expect("a notice");
    assert!(notice.is_about(SYSTEM, "policy"), "{notice:?}");

    world.clock.advance(Duration::from_secs(5));
    let second = Put {
        enabled: Some(false),
        message: "second".to_owned(),
        ..put("secops/a", "rules: []\nowner: ann")
    };
    let done = world.bundles.put(second, &ann()).await.expect("written");
    assert_eq!(done.warnings.len(), 1, "{done:?}");
    let bundle = world.bundles.get(" secops/a ").await.expect("there");
    assert_eq!((&*bundle.content, bundle.enabled), ("rules: []\nowner: ann", false));
    assert_eq!((&*bundle.author, &*bundle.message), ("ann", "second"));
    assert_eq!(bundle.created_at, "2026-01-02T03:04:05Z");
    assert_eq!(bundle.updated_at, "2026-01-02T03:04:10Z");
    assert_eq!(
        world.actions().await,
        vec![("bundle.put".to_owned(), "ann".to_owned(), "secops/a".to_owned()); 2]
    );

    for (id, expected) in [(" ", "bundle id required"), ("secops/none", "bundle not found")] {
        assert_eq!(world.bundles.get(id).await.expect_err(id).to_string(), expected);
    }
}

async fn bad_policy_is_never_stored(world: World) {
    world.bundles.put(put("secops/a", GOOD), &ann()).await.expect("written");
    let before = world.stored().await;
    for (id, content, expected) in [
        (" ", GOOD, "bundle id required"),
        ("sre/a", GOOD, "bundle id must start with secops/"),
        ("secops/\u{7}", GOOD, "bundle id is malformed"),
        ("secops/a", " \n", "content required"),
        ("secops/a", BAD, "invalid policy content: secops/a:"),
        ("secops/a", "rules: [", "invalid policy content: secops/a:"),
        ("secops/a", "rules: {}", "invalid policy content: secops/a:"),
        (
            "secops/a",
            "rules: [{id: a, decision: deny, match: {topics: ['[']}}]",
            "invalid policy content: secops/a:",
        ),
    ] {
        let error = world.bundles.put(put(id, content), &ann()).await.expect_err(content);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert_eq!(world.stored().await, before);
    assert_eq!(world.actions().await.len(), 1);
}

async fn concurrent_writers_lose_nothing(world: World) {
    let puts = (0..8).map(|n| {
        let bundles = world.bundles.clone();
        async move { bundles.put(put(&format!("secops/{n}"), GOOD), &ann()).await }
    });
    for done in futures::future::join_all(puts).await {
        done.expect("written");
    }
    let listing = world.bundles.list().await.expect("listed");
    assert_eq!((listing.bundles.len(), listing.revision), (8, 8));
    assert_eq!(listing.items.expect("some").len(), 8);
}

async fn a_stale_revision_is_a_conflict(world: World) {
    world.bundles.put(put("secops/a", GOOD), &ann()).await.expect("written");
    let stale = Put {
        expected: Some(0),
        ..put("secops/a", "rules: []")
    };
    let error = world.bundles.put(stale, &ann()).await.expect_err("stale");
    assert!(matches!(error, Error::Conflict { expected: 0, found: 1 }), "{error}");
    let fresh = Put {
        expected: Some(1),
        ..put("secops/a", "rules: []")
    };
    world.bundles.put(fresh, &ann()).await.expect("written");
    let stale = Publish {
        expected: Some(1),
        ..Publish::default()
    };
    let error = world.bundles.publish(&stale, &ann()).await.expect_err("stale");
    assert!(matches!(error, Error::Conflict { expected: 1, found: 2 }), "{error}");
    assert!(world.bundles.snapshots().await.expect("listed").is_empty());
}

async fn publish_enables_and_remembers(world: World) {
    let error = world.bundles.publish(&Publish::default(), &ann()).await;
    assert_eq!(error.expect_err("nothing").to_string(), "no bundles configured");
    world.store(json!({"sre/a": {"content": GOOD}})).await;
    let error = world.bundles.publish(&Publish::default(), &ann()).await;
    assert_eq!(
        error.expect_err("none of ours").to_string(),
        "no secops bundles to publish"
    );
    world
        .store(json!({
            "sre/a": {"content": GOOD, "version": "1"},
            "secops/text": GOOD,
            "secops/off": {"content": GOOD, "enabled": false, "created_at": "then"},
            "secops/other": {"content": GOOD, "enabled": false},
        }))
        .await;

    let publish = Publish {
        bundle_ids: [" secops/text", "secops/off", "secops/off", "sre/a", "secops/none"]
            .map(str::to_owned)
            .to_vec(),
        author: "ann".to_owned(),
        message: "why".to_owned(),
        note: " note ".to_owned(),
        expected: None,
    };
    let done = world.bundles.publish(&publish, &ann()).await.expect("published");
    assert_eq!(done.published, ["secops/off", "secops/text"]);
    assert_eq!(done.unknown, ["secops/none", "sre/a"]);
    let now = "2026-01-02T03:04:05Z";
    assert_eq!(
        world.stored().await,
        json!({
            "sre/a": {"content": GOOD, "version": "1"},
            "secops/text": {"content": GOOD, "enabled": true, "author": "ann", "message": "why", "created_at": now, "updated_at": now},
            "secops/off": {"content": GOOD, "enabled": true, "author": "ann", "message": "why", "created_at": "then", "updated_at": now},
            "secops/other": {"content": GOOD, "enabled": false},
        })
    );
    let snapshots = world.bundles.snapshots().await.expect("listed");
    assert_eq!(snapshots.len(), 2);
    assert_eq!(
        (&snapshots[0].id, &snapshots[1].id),
        (&done.snapshot_after, &done.snapshot_before)
    );
    assert_eq!(snapshots[0].note, "note");
    let before = world.bundles.snapshot(&done.snapshot_before).await.expect("kept");
    assert_eq!(before.bundles["secops/text"], GOOD);

    let entries = world.bundles.audit().await.expect("listed");
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&*entries[0].action, &*entries[0].actor_id, &*entries[0].role),
        ("publish", "ann", "secops")
    );
    assert_eq!(entries[0].bundle_ids, done.published);
    assert_eq!(entries[0].snapshot_after, done.snapshot_after);
    assert!(entries[0].id.starts_with("2026-01-02T03:04:05Z-"));
    let actions = world.actions().await;
    assert_eq!(
        actions,
        [(
            "policy.publish".to_owned(),
            "ann".to_owned(),
            "secops/off,secops/text".to_owned()
        )]
    );
}

async fn of_concurrent_publishers_none_is_lost(world: World) {
    world
        .store(json!({
            "secops/a": {"content": GOOD, "enabled": false},
            "secops/b": {"content": GOOD, "enabled": false},
            "secops/c": {"content": GOOD, "enabled": false},
        }))
        .await;
    let publishes = ["secops/a", "secops/b", "secops/c"].map(|id| {
        let bundles = world.bundles.clone();
        async move {
            let publish = Publish {
                bundle_ids: vec![id.to_owned()],
                ..Publish::default()
            };
            bundles.publish(&publish, &ann()).await
        }
    });
    for done in futures::future::join_all(publishes).await {
        done.expect("published");
    }
    for id in ["secops/a", "secops/b", "secops/c"] {
        assert!(world.bundles.get(id).await.expect("there").enabled, "{id}");
    }
    assert_eq!(world.bundles.audit().await.expect("listed").len(), 3);
    assert_eq!(
        world.bundles.snapshots().await.expect("listed").len(),
        6,
        "none of a try that failed"
    );
}

async fn a_refused_publish_leaves_nothing(world: World) {
    world
        .store(json!({"secops/a": {"content": GOOD}, "secops/bad": {"content": BAD, "enabled": false}, "sre/off": {"content": BAD, "enabled": false}}))
        .await;
    let before = world.stored().await;
    let error = world
        .bundles
        .publish(&Publish::default(), &ann())
        .await
        .expect_err("bad");
    assert!(
        error.to_string().starts_with("invalid policy bundle \"secops/bad\": "),
        "{error}"
    );
    assert_eq!(world.stored().await, before);
    assert!(world.bundles.snapshots().await.expect("listed").is_empty());
    assert!(world.bundles.audit().await.expect("listed").is_empty());
    assert!(world.actions().await.is_empty());
    // What is disabled and not published may be as bad as it likes.
    let some = Publish {
        bundle_ids: vec!["secops/a".to_owned()],
        ..Publish::default()
    };
    world.bundles.publish(&some, &ann()).await.expect("published");
}

async fn rollback_touches_only_what_is_edited_here(world: World) {
    world
        .store(json!({"secops/a": {"content": GOOD}, "secops/gone": {"content": GOOD}, "sre/a": {"content": GOOD, "version": "1"}}))
        .await;
    let target = world.bundles.capture(" way back ", &ann()).await.expect("captured");
    assert_eq!(target.note, "way back");
    world
        .store(json!({"secops/a": {"content": "rules: []"}, "secops/new": {"content": GOOD}, "sre/a": {"content": GOOD, "version": "2"}, "sre/bad": BAD}))
        .await;

    for (id, expected) in [(" ", "snapshot id required"), ("nothing", "snapshot not found")] {
        let rollback = Rollback {
            snapshot_id: id.to_owned(),
            ..Rollback::default()
        };
        let error = world.bundles.rollback(&rollback, &ann()).await.expect_err(id);
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(
        world.bundles.snapshots().await.expect("listed").len(),
        1,
        "a bad id leaves nothing"
    );

    let rollback = Rollback {
        snapshot_id: target.id.clone(),
        message: "oops".to_owned(),
        ..Rollback::default()
    };
    let done = world.bundles.rollback(&rollback, &ann()).await.expect("rolled back");
    assert_eq!(done.rollback_to, target.id);
    assert_eq!(
        world.stored().await,
        json!({"secops/a": {"content": GOOD}, "secops/gone": {"content": GOOD}, "sre/a": {"content": GOOD, "version": "2"}, "sre/bad": BAD})
    );
    let all = Rollback {
        snapshot_id: target.id.clone(),
        all: true,
        ..Rollback::default()
    };
    world.bundles.rollback(&all, &ann()).await.expect("rolled back");
    assert_eq!(
        world.stored().await,
        json!({"secops/a": {"content": GOOD}, "secops/gone": {"content": GOOD}, "sre/a": {"content": GOOD, "version": "1"}})
    );
    let entries = world.bundles.audit().await.expect("listed");
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .all(|entry| entry.action == "rollback" && entry.bundle_ids.is_empty())
    );
    assert_eq!(entries[1].message, "oops");
    assert_ne!(entries[0].id, entries[1].id);
}

async fn rollback_to_the_oldest_works(world: World) {
    world.store(json!({"secops/a": {"content": GOOD}})).await;
    let oldest = world.bundles.capture("", &ann()).await.expect("captured");
    world.store(json!({"secops/a": {"content": "rules: []"}})).await;
    for _ in 0..9 {
        world.bundles.capture("", &ann()).await.expect("captured");
    }
    let rollback = Rollback {
        snapshot_id: oldest.id.clone(),
        ..Rollback::default()
    };
    world.bundles.rollback(&rollback, &ann()).await.expect("rolled back");
    assert_eq!(world.stored().await, json!({"secops/a": {"content": GOOD}}));
    assert_eq!(world.bundles.snapshots().await.expect("listed").len(), 10);
}

async fn captures_have_ids_of_their_own(world: World) {
    let first = world.bundles.capture("", &ann()).await.expect("captured");
    let second = world.bundles.capture("", &ann()).await.expect("captured");
    assert_eq!(first.id, "2026-01-02T03:04:05Z-44136fa355");
    assert_eq!(second.id, "2026-01-02T03:04:05Z-44136fa355-2");
    assert_eq!(world.actions().await.len(), 2);
    assert!(world.config().get(SYSTEM, DEFAULT).await.expect("read").is_none());
}
