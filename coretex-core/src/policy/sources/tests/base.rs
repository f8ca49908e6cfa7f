//! docs/spec/policy.md §8.2.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::chain;
use crate::policy::{Base, Fetch, FetchError, Fetched, LocalKernel, PublicKey, Signed};

/// Answers from a list, and writes down with which tag it was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Fetched, FetchError>>>,
    tags: Mutex<Vec<Option<String>>>,
}

#[async_trait]
impl Fetch for Script {
    async fn fetch(&self, _: &str, etag: Option<&str>, _: usize) -> Result<Fetched, FetchError> {
        self.tags.lock().push(etag.map(str::to_owned));
        self.answers.lock().pop_front().unwrap()
    }
}

fn body(text: &str, etag: &str) -> Fetched {
    Fetched::Body {
        bytes: text.as_bytes().to_vec(),
        etag: Some(etag.to_owned()),
    }
}

#[tokio::test]
async fn an_address_is_asked_for_changes() {
    let script = Arc::new(Script::default());
    script.answers.lock().extend([
        Err(FetchError::Status(503)),
        Ok(body("version: v1", "one")),
        Ok(Fetched::Unchanged),
        Ok(body("rules: [", "broken")),
        Err(FetchError::Status(404)),
        Ok(body("", "empty")),
        Ok(body("version: v2", "two")),
    ]);
    let base = Base::address(
        "https://me:secret@policy.example/p.yaml?token=secret",
        Arc::clone(&script) as Arc<dyn Fetch>,
    );
    assert_eq!(base.name(), "https://policy.example/p.yaml");
    let kernel = LocalKernel::new(Some(base), Duration::from_secs(30));
    let mut seen = Vec::new();
    for _ in 0..7 {
        drop(kernel.reload().await);
        let status = kernel.status();
        let version = status.snapshot.map(|id| id.split(':').next().unwrap().to_owned());
        seen.push((version, status.last_error.unwrap_or_default()));
    }
    let versions: Vec<Option<&str>> = seen.iter().map(|(version, _)| version.as_deref()).collect();
    assert_eq!(
        versions,
        [
            None,
            Some("v1"),
            Some("v1"),
            Some("v1"),
            Some("v1"),
            Some("v1"),
            Some("v2")
        ]
    );
    for (error, says) in seen.iter().map(|(_, error)| error).zip([
        "load safety policy: https://policy.example/p.yaml: policy fetch status 503",
        "",
        "",
        "p.yaml:1:",
        "policy fetch status 404",
        "is empty now",
        "",
    ]) {
        assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{error}");
    }
    // Only the tag of what is in force counts.
    let tags = script.tags.lock().clone();
    let one = Some("one".to_owned());
    assert_eq!(
        tags,
        [None, None, one.clone(), one.clone(), one.clone(), one.clone(), one]
    );
}

#[tokio::test]
async fn an_address_has_no_file_beside_it() {
    let script = Arc::new(Script::default());
    script.answers.lock().push_back(Ok(body("version: v1", "one")));
    let key: PublicKey = "00".repeat(32).parse().unwrap();
    let base = Base::address("http://policy.example", script).signed(Signed::by(key));
    let kernel = LocalKernel::new(Some(base), Duration::from_secs(30));
    let error = chain(&kernel.reload().await.unwrap_err());
    assert_eq!(
        error,
        "load safety policy: policy signature required but no signature provided"
    );
    assert!(kernel.policy().is_none());
}

#[test]
fn names_hold_no_secrets() {
    for (url, name) in [
        ("https://a.example/x", "https://a.example/x"),
        ("https://u:p@a.example:1/x?k=v#f", "https://a.example:1/x"),
        ("https://u:p@a.example", "https://a.example"),
        ("https://u:p@a.example?x=1", "https://a.example"),
        ("https://a.example/x@y", "https://a.example/x@y"),
    ] {
        let base = Base::address(url, Arc::new(Script::default()));
        assert_eq!(base.name(), name);
    }
}
