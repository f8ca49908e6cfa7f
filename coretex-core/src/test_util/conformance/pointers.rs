//! What every [`PointerStore`](crate::pointers::PointerStore) does.

use std::time::Duration;

use bytes::Bytes;

use super::{Fixture, Scene, eventually};
use crate::pointers::{Pointer, Stored};

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! pointer_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, pointers:
            what_is_put_is_got,
            a_missing_payload_is_none,
            several_are_got_in_order,
            a_later_put_replaces,
            families_are_apart,
            any_bytes_will_do,
            a_payload_ends_with_its_time,
            a_put_renews_the_time,
            readers_see_whole_payloads,
        );
    };
}

fn pointer(family: &str, scene: &Scene, name: &str) -> Pointer {
    Pointer::from_key(&format!("{family}:{}", scene.name(name))).expect("a pointer")
}

/// Also through `inspect`.
pub async fn what_is_put_is_got(fixture: &Fixture) {
    let pointer = pointer("ctx", &Scene::new(), "job");
    let payload = Bytes::from_static(br#"{"prompt":"hello"}"#);
    fixture
        .payloads
        .put(&pointer, payload.clone(), None)
        .await
        .expect("put");
    assert_eq!(
        fixture.payloads.get(&pointer).await.expect("get"),
        Some(payload.clone())
    );
    let seen = fixture.payloads.inspect(&pointer, 10).await.expect("inspect");
    assert_eq!(seen, Some(Stored::Bytes(payload)));
}

/// Nothing was ever there.
pub async fn a_missing_payload_is_none(fixture: &Fixture) {
    let pointer = pointer("res", &Scene::new(), "job");
    assert_eq!(fixture.payloads.get(&pointer).await.expect("get"), None);
    assert_eq!(fixture.payloads.inspect(&pointer, 10).await.expect("inspect"), None);
}

/// One answer for each, in order, also for those that are not there or are asked for twice.
pub async fn several_are_got_in_order(fixture: &Fixture) {
    let scene = Scene::new();
    let pointers: Vec<Pointer> = ["a", "b", "missing", "a"]
        .map(|name| pointer("res", &scene, name))
        .to_vec();
    for (pointer, text) in pointers.iter().zip(["first", "second"]) {
        let payload = Bytes::from_static(text.as_bytes());
        fixture.payloads.put(pointer, payload, None).await.expect("put");
    }
    let got = fixture.payloads.get_many(&pointers).await;
    let got: Vec<Option<Bytes>> = got.into_iter().map(|payload| payload.expect("an answer")).collect();
    let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert_eq!(got, [text("first"), text("second"), None, text("first")]);
    assert!(fixture.payloads.get_many(&[]).await.is_empty());
}

/// The last one counts.
pub async fn a_later_put_replaces(fixture: &Fixture) {
    let pointer = pointer("res", &Scene::new(), "job");
    for text in ["a longer first", "second"] {
        fixture
            .payloads
            .put(&pointer, Bytes::from_static(text.as_bytes()), None)
            .await
            .expect("put");
    }
    let read = fixture.payloads.get(&pointer).await.expect("get");
    assert_eq!(read.as_deref(), Some(b"second".as_slice()));
}

/// One name in four families is four payloads.
pub async fn families_are_apart(fixture: &Fixture) {
    let scene = Scene::new();
    let families = ["ctx", "res", "art", "mem"];
    for family in families {
        fixture
            .payloads
            .put(
                &pointer(family, &scene, "x"),
                Bytes::from_static(family.as_bytes()),
                None,
            )
            .await
            .expect("put");
    }
    for family in families {
        let read = fixture.payloads.get(&pointer(family, &scene, "x")).await.expect("get");
        assert_eq!(read.as_deref(), Some(family.as_bytes()));
    }
}

/// None at all, zeros, and a megabyte; keys with colons, spaces and more.
pub async fn any_bytes_will_do(fixture: &Fixture) {
    let scene = Scene::new();
    let big: Vec<u8> = (0..1_048_576_u32).map(|i| i.to_le_bytes()[1]).collect();
    for (name, bytes) in [
        ("empty", vec![]),
        ("a b:c/é\u{1}", vec![0, 255, 10, 13, 0]),
        ("big", big),
    ] {
        let pointer = pointer("mem", &scene, name);
        let bytes = Bytes::from(bytes);
        fixture.payloads.put(&pointer, bytes.clone(), None).await.expect("put");
        assert_eq!(
            fixture.payloads.get(&pointer).await.expect("get"),
            Some(bytes),
            "{name}"
        );
    }
}

/// And is then as if it had never been.
pub async fn a_payload_ends_with_its_time(fixture: &Fixture) {
    let pointer = pointer("ctx", &Scene::new(), "short");
    let ttl = Some(Duration::from_millis(20));
    fixture
        .payloads
        .put(&pointer, Bytes::from_static(b"x"), ttl)
        .await
        .expect("put");
    eventually("the payload is gone", || async {
        fixture.payloads.get(&pointer).await.expect("get").is_none()
    })
    .await;
    assert_eq!(fixture.payloads.inspect(&pointer, 1).await.expect("inspect"), None);
}

/// A later put's time to live replaces the earlier one's.
pub async fn a_put_renews_the_time(fixture: &Fixture) {
    let scene = Scene::new();
    let (kept, probe) = (pointer("ctx", &scene, "kept"), pointer("ctx", &scene, "probe"));
    let short = Some(Duration::from_millis(20));
    let payload = Bytes::from_static(b"x");
    fixture.payloads.put(&kept, payload.clone(), short).await.expect("put");
    fixture.payloads.put(&kept, payload.clone(), None).await.expect("put");
    fixture.payloads.put(&probe, payload.clone(), short).await.expect("put");
    eventually("a payload of the first time is gone", || async {
        fixture.payloads.get(&probe).await.expect("get").is_none()
    })
    .await;
    assert_eq!(fixture.payloads.get(&kept).await.expect("get"), Some(payload));
}

/// Never half of one and half of another.
pub async fn readers_see_whole_payloads(fixture: &Fixture) {
    let pointer = pointer("res", &Scene::new(), "contended");
    let payload = |byte: u8| Bytes::from(vec![byte; 20_000]);
    fixture.payloads.put(&pointer, payload(0), None).await.expect("put");
    let writes = (0..16).map(|i| fixture.payloads.put(&pointer, payload(i), None));
    let reads = (0..16).map(|_| async {
        let read = fixture
            .payloads
            .get(&pointer)
            .await
            .expect("get")
            .expect("always there");
        assert_eq!(read.len(), 20_000);
        assert!(read.iter().all(|byte| *byte == read[0]));
    });
    let (written, _) = tokio::join!(futures::future::join_all(writes), futures::future::join_all(reads));
    for result in written {
        result.expect("put");
    }
}
