use proptest::prelude::*;

use super::*;
use crate::protocol::subjects;

#[test]
fn ids_are_trimmed_and_bounded() {
    assert_eq!(JobId::try_new("  a b\n").unwrap().as_str(), "a b");
    assert!(JobId::try_new(&"x".repeat(MAX_ID_BYTES)).is_ok());
    for (text, want) in [
        ("", "job_id is empty"),
        (" \t\n", "job_id is empty"),
        ("a\u{0}b", "job_id holds the control character '\\0' at byte 1"),
        ("é\u{7f}", "job_id holds the control character '\\u{7f}' at byte 2"),
    ] {
        assert_eq!(JobId::try_new(text).unwrap_err().to_string(), want);
    }
    assert_eq!(
        Topic::try_new(&"é".repeat(129)).unwrap_err().to_string(),
        "topic is 258 bytes long; the limit is 256"
    );
}

#[test]
fn ids_in_json_are_texts() {
    let id: WorkerId = serde_json::from_str("\" w1 \"").unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), "\"w1\"");
    let error = serde_json::from_str::<WorkerId>("\"\"").unwrap_err();
    assert!(error.to_string().starts_with("worker_id is empty"));
}

#[test]
fn random_ids_differ() {
    assert_ne!(JobId::random(), JobId::random());
    assert_eq!(JobId::random().as_str().len(), 36);
}

#[test]
fn only_tokens_have_a_subject_of_their_own() {
    for (id, want) in [
        ("w1", true),
        ("w-1_é", true),
        ("a.b", false),
        ("a b", false),
        ("*", false),
        ("a>", false),
    ] {
        let id = WorkerId::try_new(id).unwrap();
        assert_eq!(id.is_token(), want, "{id}");
    }
    let id = WorkerId::try_new("w1").unwrap();
    assert_eq!(subjects::worker_jobs(&id), "worker.w1.jobs");
}

#[test]
fn durable_subjects() {
    for subject in [
        "sys.job.submit",
        "sys.job.result",
        "sys.job.dlq",
        "job.x",
        "job.x.y",
        "worker.w1.jobs",
    ] {
        assert!(subjects::is_durable(subject), "{subject}");
    }
    for subject in [
        "sys.heartbeat",
        "sys.job.progress",
        "sys.job.cancel",
        "sys.workflow.event",
        "sys.job.submit.x",
        "worker.w1.other",
        "worker.",
        "jobs",
        "",
    ] {
        assert!(!subjects::is_durable(subject), "{subject}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_accepted_is_clean(text in "\\PC{0,20}|[ \\t\\r\\n\\x00a]{0,6}") {
        if let Ok(id) = JobId::try_new(&text) {
            prop_assert_eq!(id.as_str(), text.trim());
            prop_assert!(!id.as_str().chars().any(char::is_control));
            prop_assert_eq!(JobId::try_new(id.as_str()).unwrap(), id);
        }
    }
}
