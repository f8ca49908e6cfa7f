//! What every [`ConfigStore`](crate::config::ConfigStore) does.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Fixture, Scene};
use crate::config::Document;

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! config_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, config:
            what_is_put_is_read,
            missing_documents_are_none,
            a_stale_write_is_refused,
            of_many_writers_one_wins,
        );
    };
}

fn document(scope_id: String, revision: u64) -> Document {
    let data = json!({
        "pools": {"default": {"requires": ["git", "ü"]}},
        "exact": 9_007_199_254_740_993_u64,
        "negative": -1, "fraction": 0.5, "nothing": null, "empty": {}, "list": [],
    });
    Document {
        scope: "team".to_owned(),
        scope_id,
        data: data.as_object().cloned().unwrap_or_default(),
        revision,
        updated_at: "2026-01-05T10:00:00Z".to_owned(),
        meta: Some(BTreeMap::from([("by".to_owned(), String::new())])),
    }
}

fn name(document: &Document) -> (String, String) {
    (document.scope.clone(), document.scope_id.clone())
}

/// All of it, integers exact.
pub async fn what_is_put_is_read(fixture: &Fixture) {
    let document = document(Scene::new().name("a:b c"), 1);
    assert!(fixture.config.put(&document, 0, None).await.expect("put"));
    let read = fixture.config.get_many(&[name(&document)]).await.expect("get");
    assert_eq!(read, [Some(document)]);
}

/// In their place among the others.
pub async fn missing_documents_are_none(fixture: &Fixture) {
    let scene = Scene::new();
    let document = document(scene.name("there"), 1);
    assert!(fixture.config.put(&document, 0, None).await.expect("put"));
    let missing = ("team".to_owned(), scene.name("missing"));
    let names = [missing.clone(), name(&document), missing, name(&document)];
    let read = fixture.config.get_many(&names).await.expect("get");
    assert_eq!(read, [None, Some(document.clone()), None, Some(document)]);
    assert!(fixture.config.get_many(&[]).await.expect("get").is_empty());
}

/// Only who knows the present revision may write.
pub async fn a_stale_write_is_refused(fixture: &Fixture) {
    let id = Scene::new().name("doc");
    assert!(
        !fixture
            .config
            .put(&document(id.clone(), 4), 3, None)
            .await
            .expect("put")
    );
    assert!(
        fixture
            .config
            .put(&document(id.clone(), 1), 0, None)
            .await
            .expect("put")
    );
    assert!(
        !fixture
            .config
            .put(&document(id.clone(), 1), 0, None)
            .await
            .expect("put")
    );
    assert!(
        fixture
            .config
            .put(&document(id.clone(), 2), 1, None)
            .await
            .expect("put")
    );
    assert!(
        !fixture
            .config
            .put(&document(id.clone(), 2), 1, None)
            .await
            .expect("put")
    );
    let read = fixture.config.get_many(&[("team".to_owned(), id)]).await.expect("get");
    assert_eq!(read[0].as_ref().map(|document| document.revision), Some(2));
}

/// However many write at once.
pub async fn of_many_writers_one_wins(fixture: &Fixture) {
    let id = Scene::new().name("doc");
    let document = document(id, 1);
    let writes = (0..32).map(|_| fixture.config.put(&document, 0, None));
    let won = futures::future::join_all(writes).await;
    assert_eq!(won.into_iter().filter(|won| *won.as_ref().expect("put")).count(), 1);
}
