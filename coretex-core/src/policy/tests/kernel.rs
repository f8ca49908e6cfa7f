//! docs/spec/policy.md §8.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backend::in_process::InProcessBus;
use crate::jobs::Decision;
use crate::policy::{Base, Kernel, LoadError, LocalKernel};
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

const DENY: &str = "version: v1\nrules: [{id: no, decision: deny, reason: because, match: {topics: [job.x]}}]\n";
const ASK: &str = "rules: [{id: ask, decision: require_approval, match: {topics: [job.x]}}]\n";

fn request() -> PolicyCheckRequest {
    PolicyCheckRequest {
        job_id: "j1".to_owned(),
        topic: "job.x".to_owned(),
        ..PolicyCheckRequest::default()
    }
}

async fn decision(kernel: &LocalKernel) -> Decision {
    kernel.check(&request(), Timestamp::ZERO).await.unwrap().decision
}

#[test]
fn snapshot_ids() {
    // §8.1
    for (text, id) in [
        (
            "version: v1\n",
            "v1:aefdbe17a1506d3662fc7ea9484fdcb1d20276d28139b0dda28fdab0e162e376",
        ),
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ] {
        let kernel = LocalKernel::from_document(text, "p").unwrap();
        assert_eq!(kernel.policy().unwrap().snapshot(), id);
    }
}

#[tokio::test]
async fn the_record_of_a_decision() {
    // §6
    let kernel = LocalKernel::from_document(ASK, "p").unwrap();
    let now = Timestamp::from_secs(7);
    let record = kernel.check(&request(), now).await.unwrap();
    assert_eq!(record.decision, Decision::RequireApproval);
    assert_eq!((record.approval_required, &*record.approval_ref), (true, "j1"));
    assert_eq!(record.rule_id, "ask");
    assert_eq!(record.job_hash, "");
    assert_eq!(record.checked_at, now);
    assert_eq!(record.matched, ["topics: job.x matches job.x"]);
    assert_eq!(record.policy_snapshot, kernel.snapshots().await.unwrap()[0]);

    let record = LocalKernel::allow_all().check(&request(), now).await.unwrap();
    assert_eq!(record.decision, Decision::Allow);
    assert_eq!((record.approval_required, &*record.approval_ref), (false, ""));
    assert_eq!(record.matched, ["default_decision: allow (not set), no rule matches"]);
}

#[tokio::test]
async fn configurations_are_remembered() {
    let kernel = LocalKernel::allow_all();
    let mut request = request();
    request.effective_config = br#"{"safety":{"denied_topics":["job.*"]}}"#.to_vec();
    for _ in 0..2 {
        let record = kernel.check(&request, Timestamp::ZERO).await.unwrap();
        assert_eq!(record.decision, Decision::Deny);
        assert_eq!(record.reason, "topic 'job.x' denied by effective config");
    }
    for i in 0..1_000 {
        request.effective_config = format!(r#"{{"i":{i}}}"#).into_bytes();
        let record = kernel.check(&request, Timestamp::ZERO).await.unwrap();
        assert_eq!(record.decision, Decision::Allow);
    }
}

#[tokio::test]
async fn no_policy_is_no_yes() {
    // §8.3
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("safety.yaml");
    assert!(matches!(LocalKernel::load(&path).await, Err(LoadError::Read { .. })));

    let kernel = LocalKernel::new(Some(Base::file(&path)), Duration::from_secs(30));
    let error = kernel.check(&request(), Timestamp::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("no policy is loaded"), "{error}");
    kernel.reload().await.unwrap_err();
    let error = kernel.check(&request(), Timestamp::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("safety.yaml"), "{error}");
    assert!(kernel.snapshots().await.unwrap().is_empty());

    std::fs::write(&path, DENY).unwrap();
    assert!(kernel.reload().await.unwrap());
    assert_eq!(decision(&kernel).await, Decision::Deny);
    assert_eq!(kernel.status().last_error, None);
}

#[tokio::test]
async fn the_last_good_policy_stays() {
    // §8.2
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("safety.yaml");
    std::fs::write(&path, DENY).unwrap();
    let kernel = LocalKernel::load(&path).await.unwrap();
    let first = kernel.status().snapshot;
    assert!(!kernel.reload().await.unwrap(), "nothing changed");

    for broken in ["rules: [{decision: alow}]", "rules: [", ""] {
        std::fs::write(&path, broken).unwrap();
        let error = kernel.reload().await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("load safety policy: ") && text.contains("safety.yaml"),
            "{text}"
        );
        let status = kernel.status();
        assert_eq!(status.snapshot, first);
        assert!(status.last_error.is_some());
        assert_eq!(decision(&kernel).await, Decision::Deny);
    }
    std::fs::remove_file(&path).unwrap();
    kernel.reload().await.unwrap_err();
    assert_eq!(decision(&kernel).await, Decision::Deny);

    // The same text again is no change, and no error any more.
    std::fs::write(&path, DENY).unwrap();
    assert!(!kernel.reload().await.unwrap());
    assert_eq!(kernel.status().last_error, None);

    // On purpose.
    std::fs::write(&path, "rules: []").unwrap();
    assert!(kernel.reload().await.unwrap());
    assert_eq!(decision(&kernel).await, Decision::Allow);
}

#[tokio::test]
async fn snapshots_newest_first() {
    // §8.1
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("safety.yaml");
    std::fs::write(&path, "version: v0").unwrap();
    let kernel = LocalKernel::load(&path).await.unwrap();
    for i in 1..14 {
        std::fs::write(&path, format!("version: v{i}")).unwrap();
        kernel.reload().await.unwrap();
    }
    let snapshots = kernel.snapshots().await.unwrap();
    let versions: Vec<&str> = snapshots.iter().map(|id| id.split(':').next().unwrap()).collect();
    assert_eq!(
        versions,
        ["v13", "v12", "v11", "v10", "v9", "v8", "v7", "v6", "v5", "v4"]
    );

    std::fs::write(&path, "version: v12").unwrap();
    kernel.reload().await.unwrap();
    let snapshots = kernel.snapshots().await.unwrap();
    assert_eq!((&snapshots[0], snapshots.len()), (&snapshots[2], 10));
}

#[tokio::test]
async fn the_file_is_watched_by_interval() {
    // §8.2
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("safety.yaml");
    std::fs::write(&path, DENY).unwrap();
    let kernel = Arc::new(LocalKernel::new(Some(Base::file(&path)), Duration::from_millis(5)));
    kernel.reload().await.unwrap();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&kernel).run(Arc::new(InProcessBus::new()), stop.clone()));
    std::fs::write(&path, ASK).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while decision(&kernel).await != Decision::RequireApproval {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_swap_is_seen_whole() {
    // §8.2: a decision is by one policy, never by a mixture.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("safety.yaml");
    std::fs::write(&path, DENY).unwrap();
    let kernel = Arc::new(LocalKernel::load(&path).await.unwrap());
    let deny = kernel.status().snapshot.unwrap();
    let stop = CancellationToken::new();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (kernel, deny, stop) = (Arc::clone(&kernel), deny.clone(), stop.clone());
        readers.spawn(async move {
            while !stop.is_cancelled() {
                let record = kernel.check(&request(), Timestamp::ZERO).await.unwrap();
                let by_deny = record.policy_snapshot == deny;
                assert_eq!(record.decision == Decision::Deny, by_deny);
                assert_eq!(record.rule_id == "no", by_deny);
                tokio::task::yield_now().await;
            }
        });
    }
    for text in [ASK, DENY].repeat(50) {
        std::fs::write(&path, text).unwrap();
        kernel.reload().await.unwrap();
    }
    stop.cancel();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}
