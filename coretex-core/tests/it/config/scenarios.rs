//! Each on a world of its own.

use coretex_core::audit::Actor;
use coretex_core::bus::SubscribeOptions;
use coretex_core::config::{ConfigService, Document, Error, MAX_SET_BYTES, Notice, Scopes, UpdateError, Write};
use coretex_core::protocol::subjects;
use serde_json::{Map, Value, json};

use super::{Backend, World};

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn write(scope: &str, id: &str, data: &Value) -> Write {
    Write {
        scope: scope.to_owned(),
        scope_id: id.to_owned(),
        data: object(data),
        ..Write::default()
    }
}

fn ada() -> Actor {
    Actor::new("ada", "secops")
}

async fn set(config: &ConfigService, scope: &str, id: &str, data: Value) -> Document {
    config.set(write(scope, id, &data), &ada()).await.expect("set")
}

pub(super) async fn what_is_set_is_read_with_the_next_revision(backend: Backend) {
    let world = World::new(backend).await;
    assert_eq!(world.config.get("system", "").await.expect("get"), None);
    let mut first = write("system", "", &json!({"a": 1, "exact": 9_007_199_254_740_993_u64}));
    first.meta = Some([("owner".to_owned(), "ops".to_owned())].into());
    let stored = world.config.set(first, &ada()).await.expect("set");
    assert_eq!((stored.revision, stored.scope_id.as_str()), (1, "default"));
    assert_eq!(stored.updated_at, "2026-01-05T10:00:00Z");
    assert_eq!(
        world.config.get("system", "default").await.expect("get"),
        Some(stored.clone())
    );
    // The whole document is replaced.
    let stored = set(&world.config, "system", "default", json!({"b": 2})).await;
    assert_eq!((stored.revision, stored.meta.clone()), (2, None));
    assert_eq!(stored.data, object(&json!({"b": 2})));
    // Setting what is there counts as well: somebody meant it.
    let again = set(&world.config, "system", "default", json!({"b": 2})).await;
    assert_eq!(again.revision, 3);
}

pub(super) async fn what_is_no_document_is_refused(backend: Backend) {
    let world = World::new(backend).await;
    for (scope, id, text) in [
        ("", "x", "scope required"),
        ("org", "", "scope_id required for non-system scope"),
    ] {
        let error = world.config.get(scope, id).await.expect_err("refused");
        assert_eq!(error.to_string(), text);
        let error = world.config.set(write(scope, id, &json!({})), &ada()).await;
        assert_eq!(error.expect_err("refused").to_string(), text);
    }
    let large = json!({"text": "x".repeat(MAX_SET_BYTES)});
    let error = world.config.set(write("org", "acme", &large), &ada()).await;
    assert!(
        matches!(
            error,
            Err(Error::TooLarge {
                limit: MAX_SET_BYTES,
                ..
            })
        ),
        "{error:?}"
    );
    assert_eq!(world.config.get("org", "acme").await.expect("get"), None);
    // What the program keeps itself may be larger.
    let edit = |document: &mut Document| {
        document.data = object(&large);
        Ok::<(), Error>(())
    };
    let stored = world
        .config
        .update("org", "acme", edit, |()| None)
        .await
        .expect("update");
    assert_eq!(stored.document.revision, 1);
}

pub(super) async fn a_writer_that_missed_a_change_is_told(backend: Backend) {
    let world = World::new(backend).await;
    let expecting = |expected| Write {
        expected: Some(expected),
        ..write("team", "red", &json!({"by": expected}))
    };
    let conflict = |result: Result<Document, Error>| match result {
        Err(Error::Conflict { expected, found }) => (expected, found),
        other => panic!("{other:?}"),
    };
    assert_eq!(conflict(world.config.set(expecting(1), &ada()).await), (1, 0));
    assert_eq!(world.config.set(expecting(0), &ada()).await.expect("set").revision, 1);
    assert_eq!(conflict(world.config.set(expecting(0), &ada()).await), (0, 1));
    assert_eq!(world.config.set(expecting(1), &ada()).await.expect("set").revision, 2);
    assert_eq!(conflict(world.config.set(expecting(1), &ada()).await), (1, 2));
    let stored = world.config.get("team", "red").await.expect("get").expect("there");
    assert_eq!(stored.data, object(&json!({"by": 1})));
}

pub(super) async fn updates_of_two_writers_are_never_lost(backend: Backend) {
    const EACH: u64 = 40;
    let world = World::new(backend).await;
    let writer = |name: &'static str, config: ConfigService| async move {
        for _ in 0..EACH {
            let edit = |document: &mut Document| {
                let count = document.data.get(name).and_then(Value::as_u64).unwrap_or_default();
                document.data.insert(name.to_owned(), (count + 1).into());
                Ok::<(), Error>(())
            };
            config
                .update("system", "counts", edit, |()| None)
                .await
                .expect("update");
        }
    };
    let (one, other) = (world.neighbour(), world.neighbour());
    let writers = [tokio::spawn(writer("one", one)), tokio::spawn(writer("other", other))];
    for writer in writers {
        writer.await.expect("no panic");
    }
    let stored = world.config.get("system", "counts").await.expect("get").expect("there");
    assert_eq!(stored.data, object(&json!({"one": EACH, "other": EACH})));
    assert_eq!(stored.revision, 2 * EACH);
}

pub(super) async fn an_edit_that_gives_up_writes_nothing(backend: Backend) {
    let world = World::new(backend).await;
    set(&world.config, "org", "acme", json!({"a": 1})).await;
    let edit = |document: &mut Document| {
        document.data.clear();
        Err::<(), _>("no".to_owned())
    };
    let result = world.config.update("org", "acme", edit, |()| None).await;
    assert!(matches!(result, Err(UpdateError::Refused(why)) if why == "no"));
    let stored = world.config.get("org", "acme").await.expect("get").expect("there");
    assert_eq!((stored.revision, stored.data), (1, object(&json!({"a": 1}))));
}

pub(super) async fn an_edit_that_changes_nothing_writes_nothing(backend: Backend) {
    let world = World::new(backend).await;
    let mut notices = subscribe(&world).await;
    let look = |document: &mut Document| Ok::<_, Error>(document.revision);
    let updated = world
        .config
        .update("org", "acme", look, |_| None)
        .await
        .expect("update");
    assert_eq!((updated.value, updated.document.revision), (0, 0));
    assert_eq!(world.config.get("org", "acme").await.expect("get"), None);
    set(&world.config, "org", "acme", json!({})).await;
    let updated = world
        .config
        .update("org", "acme", look, |_| None)
        .await
        .expect("update");
    assert_eq!((updated.value, updated.document.revision), (1, 1));
    set(&world.config, "org", "last", json!({})).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|notice: &Notice| notice.scope_id != "last") {
        let delivery = notices.next().await.expect("open");
        heard.push(Notice::parse(&delivery.payload).expect("a notice"));
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
}

pub(super) async fn what_holds_is_merged_from_all_scopes(backend: Backend) {
    let world = World::new(backend).await;
    let nobody = world.config.effective(&Scopes::default()).await.expect("effective");
    assert_eq!(nobody.version, "system:0|org:0|team:0|workflow:0|step:0");
    set(&world.config, "system", "", json!({"a": {"x": 1}, "b": 1, "c": 1})).await;
    set(&world.config, "org", "acme", json!({"a": {"y": 2}})).await;
    set(&world.config, "team", "red", json!({"b": null})).await;
    set(&world.config, "workflow", "w", json!({"c": 9_007_199_254_740_993_u64})).await;
    set(&world.config, "step", "s", json!({"d": true})).await;
    set(&world.config, "step", "s", json!({"d": false})).await;
    set(&world.config, "system", "policy", json!({"a": "not merged"})).await;
    let scopes = Scopes {
        org: "acme".to_owned(),
        team: "red".to_owned(),
        workflow: "w".to_owned(),
        step: "s".to_owned(),
    };
    let all = world.config.effective(&scopes).await.expect("effective");
    assert_eq!(all.version, "system:1|org:1|team:1|workflow:1|step:2");
    assert_eq!(
        all.data,
        object(&json!({"a": {"y": 2}, "b": null, "c": 9_007_199_254_740_993_u64, "d": false}))
    );
    let some = Scopes {
        org: "other".to_owned(),
        step: "s".to_owned(),
        ..Scopes::default()
    };
    let some = world.config.effective(&some).await.expect("effective");
    assert_eq!(some.version, "system:1|org:0|team:0|workflow:0|step:2");
    assert_eq!(some.data, object(&json!({"a": {"x": 1}, "b": 1, "c": 1, "d": false})));
}

async fn subscribe(world: &World) -> coretex_core::bus::Subscription {
    world
        .bus
        .subscribe(subjects::CONFIG_CHANGED, SubscribeOptions::tap())
        .await
        .expect("subscribed")
}

pub(super) async fn everybody_is_told_of_a_change(backend: Backend) {
    let world = World::new(backend).await;
    let (mut one, mut other) = (subscribe(&world).await, subscribe(&world).await);
    set(&world.config, "system", "", json!({"a": 1})).await;
    set(&world.neighbour(), "org", "acme", json!({})).await;
    for notices in [&mut one, &mut other] {
        for (scope, id) in [("system", "default"), ("org", "acme")] {
            let delivery = notices.next().await.expect("open");
            let notice = Notice::parse(&delivery.payload).expect("a notice");
            assert!(notice.is_about(scope, id), "{notice:?}");
            assert_eq!(notice.revision, 1);
        }
    }
}
