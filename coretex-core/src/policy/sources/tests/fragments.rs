//! docs/spec/policy.md §8.1 and §8.4 to §8.7.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audit::AuditRecord;
use crate::config::{ConfigStore, Document};
use crate::error::StoreError;
use crate::jobs::Decision;
use crate::policy::{Base, Drafts, ExplainError, Fragments, Kernel as _, LocalKernel, Quarantined};
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

/// Holds one document, or is down.
#[derive(Debug, Default)]
struct OneDocument {
    data: Mutex<Option<Value>>,
    down: Mutex<bool>,
}

impl OneDocument {
    fn set(&self, fragments: impl Into<Value>) {
        *self.data.lock() = Some(json!({"bundles": fragments.into()}));
    }

    fn down(&self, down: bool) {
        *self.down.lock() = down;
    }
}

#[async_trait]
impl ConfigStore for OneDocument {
    async fn get_many(&self, names: &[(String, String)]) -> Result<Vec<Option<Document>>, StoreError> {
        assert_eq!(names, [("system".to_owned(), "policy".to_owned())]);
        if *self.down.lock() {
            return Err(StoreError::Unavailable {
                backend: "test",
                op: "get",
                sent: false,
                source: "down".into(),
            });
        }
        let data = self.data.lock().clone();
        Ok(vec![data.map(|data| {
            serde_json::from_value(json!({"scope": "system", "scope_id": "policy", "data": data})).unwrap()
        })])
    }

    async fn put(&self, _: &Document, _: u64, _: Option<&AuditRecord>) -> Result<bool, StoreError> {
        unreachable!("a kernel writes nothing")
    }
}

fn kernel(base: Option<&str>, store: &Arc<OneDocument>) -> LocalKernel {
    let base = base.map(|text| Base::text("base.yaml", text));
    LocalKernel::new(base, Duration::from_secs(30))
        .with_fragments(Fragments::new(Arc::clone(store) as Arc<dyn ConfigStore>))
}

async fn judge(kernel: &LocalKernel, topic: &str) -> (Decision, String) {
    let record = kernel.check(&request(topic), Timestamp::ZERO).await.unwrap();
    (record.decision, record.rule_id)
}

fn request(topic: &str) -> PolicyCheckRequest {
    PolicyCheckRequest {
        job_id: "j1".to_owned(),
        topic: topic.to_owned(),
        ..PolicyCheckRequest::default()
    }
}

fn rule(id: &str, decision: &str, topic: &str) -> String {
    format!("rules: [{{id: {id}, decision: {decision}, match: {{topics: ['{topic}']}}}}]\n")
}

const BASE_V1: &str = "v1:aefdbe17a1506d3662fc7ea9484fdcb1d20276d28139b0dda28fdab0e162e376";
const TWO_FRAGMENTS: &str = "cfg:b9d5ddd78f3e271a35ea02b74d7094568fb8726d77302c64edc10885230eff7a";
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn snapshots_of_base_and_fragments() {
    let two = json!({"secops/a": "version: v1\n", "pack/default": {"content": "rules: []\n"}});
    for (base, fragments, snapshot) in [
        (None, None, NOTHING.to_owned()),
        (None, Some(json!({})), NOTHING.to_owned()),
        (Some(""), None, NOTHING.to_owned()),
        (Some("version: v1\n"), None, BASE_V1.to_owned()),
        (None, Some(two.clone()), TWO_FRAGMENTS.to_owned()),
        (
            Some("version: v1\n"),
            Some(two.clone()),
            format!("{BASE_V1}|{TWO_FRAGMENTS}"),
        ),
    ] {
        let store = Arc::new(OneDocument::default());
        if let Some(fragments) = fragments {
            store.set(fragments);
        }
        let kernel = kernel(base, &store);
        kernel.reload().await.unwrap();
        assert_eq!(kernel.status().snapshot, Some(snapshot));
    }

    // What does not count leaves no trace.
    let store = Arc::new(OneDocument::default());
    let mut fragments = two;
    for (id, value) in [
        ("a/off", json!({"content": "rules: [", "enabled": "no"})),
        ("a/blank", json!(" \n")),
        ("a/number", json!(7)),
        ("a/none", json!({"text": "rules: ["})),
    ] {
        fragments[id] = value;
    }
    store.set(fragments);
    let kernel = kernel(None, &store);
    kernel.reload().await.unwrap();
    assert_eq!(kernel.status().snapshot.as_deref(), Some(TWO_FRAGMENTS));
    assert_eq!(kernel.status().quarantined, []);
}

#[tokio::test]
async fn order_and_trust() {
    let store = Arc::new(OneDocument::default());
    store.set(json!({
        "a-pack/x": rule("pack", "allow", "job.*"),
        "secops/b": rule("b", "deny", "job.b"),
        "secops/a": rule("a", "require_approval", "job.[ab]"),
    }));
    let kernel = kernel(Some(&rule("base", "allow", "job.base")), &store);
    kernel.reload().await.unwrap();
    for (topic, decision, rule) in [
        ("job.base", Decision::Allow, "base"),
        ("job.a", Decision::RequireApproval, "a"),
        ("job.b", Decision::RequireApproval, "a"),
        ("job.c", Decision::Allow, "pack"),
    ] {
        assert_eq!(judge(&kernel, topic).await, (decision, rule.to_owned()), "{topic}");
    }
    assert_eq!(kernel.status().rules, 4);
}

#[tokio::test]
async fn a_bad_fragment_harms_no_other() {
    let store = Arc::new(OneDocument::default());
    let bad = "rules: [{id: x, decision: alow}]";
    let quarantined = |last_good| {
        move |found: Vec<Quarantined>| {
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].fragment, "secops/x");
            assert!(found[0].error.contains("rule `x`") && found[0].error.contains("alow"));
            assert_eq!(found[0].last_good, last_good);
        }
    };
    // From the start: nothing of it is in force.
    store.set(json!({"secops/x": bad, "secops/y": rule("y", "deny", "job.y")}));
    let kernel = kernel(None, &store);
    kernel.reload().await.unwrap();
    quarantined(false)(kernel.status().quarantined);
    assert_eq!(judge(&kernel, "job.y").await.0, Decision::Deny);
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Allow);
    let without = kernel.status().snapshot;

    // Corrected, and then broken again: its last good text stays, under the same snapshot.
    store.set(json!({"secops/x": rule("x", "deny", "job.x"), "secops/y": rule("y", "deny", "job.y")}));
    assert!(kernel.reload().await.unwrap());
    assert_eq!(kernel.status().quarantined, []);
    let good = kernel.status().snapshot;
    assert_ne!(good, without);
    store.set(json!({"secops/x": bad, "secops/y": rule("y", "deny", "job.y")}));
    assert!(!kernel.reload().await.unwrap());
    quarantined(true)(kernel.status().quarantined);
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);
    assert_eq!(kernel.status().snapshot, good);
    // Others still change.
    store.set(json!({"secops/x": bad, "secops/y": rule("y", "throttle", "job.y")}));
    assert!(kernel.reload().await.unwrap());
    assert_eq!(judge(&kernel, "job.y").await.0, Decision::Throttle);
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);

    // Taken away: the last good text goes too. The last one: the empty policy, on purpose.
    store.set(json!({"secops/y": rule("y", "deny", "job.y")}));
    assert!(kernel.reload().await.unwrap());
    assert_eq!(kernel.status().quarantined, []);
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Allow);
    store.set(json!({}));
    assert!(kernel.reload().await.unwrap());
    assert_eq!(judge(&kernel, "job.y").await.0, Decision::Allow);
    assert_eq!(kernel.status().snapshot.as_deref(), Some(NOTHING));
}

#[tokio::test]
async fn no_decisions_before_every_source_was_read() {
    let store = Arc::new(OneDocument::default());
    store.set(json!({"secops/x": rule("x", "deny", "job.x")}));
    store.down(true);
    let kernel = kernel(Some("version: v1\n"), &store);
    kernel.reload().await.unwrap_err();
    let error = kernel.check(&request("job.x"), Timestamp::ZERO).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no policy is loaded: cfg:system:policy: load policy fragments"),
        "{error}"
    );
    let status = kernel.status();
    assert!(!status.is_ready() && status.snapshot.is_none());
    assert_eq!(
        status.sources.iter().map(|source| source.ok).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(status.sources[0].detail, BASE_V1);

    store.down(false);
    assert!(kernel.reload().await.unwrap());
    assert!(kernel.status().is_ready());
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);

    // Later outages, and documents that hold something else, change nothing.
    store.down(true);
    kernel.reload().await.unwrap_err();
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);
    store.down(false);
    store.set(json!(["secops/x"]));
    kernel.reload().await.unwrap_err();
    let status = kernel.status();
    assert!(status.is_ready() && status.last_error.unwrap().contains("`bundles` is no object"));
    assert!(status.sources[1].detail.starts_with("fragments: 1 stays in force: "));
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);
}

#[tokio::test]
async fn drafts_are_judged_by_and_change_nothing() {
    let store = Arc::new(OneDocument::default());
    store.set(json!({"secops/x": rule("x", "deny", "job.x")}));
    let kernel = kernel(Some("version: v1\n"), &store);
    kernel.reload().await.unwrap();
    let explain = async |topic: &str, drafts: &[(&str, &str)]| {
        let drafts: Drafts = drafts
            .iter()
            .map(|(id, text)| ((*id).to_owned(), (*text).to_owned()))
            .collect::<BTreeMap<_, _>>();
        kernel.explain(&request(topic), &drafts, Timestamp::ZERO).await
    };
    let (record, explanation) = explain("job.x", &[]).await.unwrap();
    assert_eq!(record.decision, Decision::Deny);
    let rule_ref = explanation.rule.unwrap();
    assert_eq!((&*rule_ref.id, &*rule_ref.origin), ("x", "secops/x"));
    let snapshot = record.policy_snapshot;

    for _ in 0..2 {
        for (drafts, decision) in [
            (vec![("secops/x", "")], Decision::Allow),
            (vec![("secops/x", "rules: []")], Decision::Allow),
            (vec![("secops/w", &*rule("w", "throttle", "job.*"))], Decision::Throttle),
            (
                vec![("base", &*rule("b", "require_approval", "job.x"))],
                Decision::RequireApproval,
            ),
            (vec![("base", "")], Decision::Deny),
        ] {
            let (record, _) = explain("job.x", &drafts).await.unwrap();
            assert_eq!(record.decision, decision, "{drafts:?}");
            assert_ne!(record.policy_snapshot, snapshot);
        }
    }
    let error = explain("job.x", &[("secops/x", "rules: [{id: r, decision: alow}]")]).await;
    let Err(ExplainError::Draft(error)) = error else {
        panic!("not refused: {error:?}");
    };
    assert_eq!(error.document, "secops/x");
    assert_eq!(error.problems[0].rule.as_deref(), Some("r"));
    assert_eq!(error.problems[0].key, "rules[0].decision");
    assert_eq!(kernel.status().snapshot, Some(snapshot));
    assert_eq!(judge(&kernel, "job.x").await.0, Decision::Deny);
}
