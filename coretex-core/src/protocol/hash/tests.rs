use proptest::prelude::*;

use super::*;
use crate::protocol::agent::{ActorType, Budget, JobPriority};

fn strings<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn first() -> JobRequest {
    JobRequest {
        job_id: "job-1".into(),
        topic: "job.default".into(),
        priority: JobPriority::Batch.into(),
        context_ptr: "redis://ctx:job-1".into(),
        env: strings([("tenant_id", "acme"), ("empty", ""), ("CORETEX_EFFECTIVE_CONFIG", "{}")]),
        labels: strings([
            ("b", "2"),
            ("a", "1"),
            ("Approval_Note", "x"),
            ("approval_granted", "true"),
            ("coretex.bus_msg_id", "approval:1"),
        ]),
        budget: Some(Budget::default()),
        tenant_id: "acme".into(),
        meta: Some(JobMetadata {
            tenant_id: "acme".into(),
            actor_type: ActorType::Human.into(),
            risk_tags: vec!["prod".into(), String::new()],
            ..JobMetadata::default()
        }),
        ..JobRequest::default()
    }
}

#[test]
fn known_bytes() {
    assert_eq!(
        hex(&canonical(&first())),
        "0a056a6f622d31120b6a6f622e64656661756c741802221172656469733a2f2f6374783a6a6f622d3132090a05656d707479120032110a09\
         74656e616e745f6964120461636d6562006a0461636d657a060a01611201317a060a01621201328201100a0461636d651801320470726f64\
         3200"
    );
}

#[test]
fn known_hashes() {
    assert_eq!(
        job_hash(&first()),
        "c025fcb43c95ac9b47fa30af07f56cf9e408f3e2d6cfe2309c1db93ead16367c"
    );
    let second = JobRequest {
        job_id: "j".into(),
        topic: "t".into(),
        ..JobRequest::default()
    };
    let approved = JobRequest {
        labels: strings([("approval_granted", "true")]),
        ..second.clone()
    };
    let hash = "905e32b11c880b3042acffc2fe11934907733aabeba151c5c65f8b445dc447f7";
    assert_eq!(job_hash(&second), hash);
    assert_eq!(job_hash(&approved), hash);
    let third = JobRequest {
        job_id: "j5".into(),
        topic: "job.default".into(),
        tenant_id: "acme".into(),
        labels: strings([("want", "approval")]),
        ..JobRequest::default()
    };
    assert_eq!(
        job_hash(&third),
        "746581bc0c9b1cebd719c4ef32b09f41d5fe84178ea8cdd3b1aaa4465f4d8016"
    );
}

#[test]
fn metadata_labels_are_not_filtered() {
    let plain = first();
    let mut labelled = first();
    labelled.meta.get_or_insert_default().labels = strings([("approval_granted", "true")]);
    assert_ne!(job_hash(&plain), job_hash(&labelled));
}

#[test]
fn presence_counts() {
    let with = first();
    let without = JobRequest {
        budget: None,
        ..first()
    };
    assert_ne!(job_hash(&with), job_hash(&without));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn filtered_entries_do_not_matter(
        suffix in ".{0,8}",
        value in ".{0,8}",
        upper in any::<bool>(),
    ) {
        let mut request = first();
        let prefix = if upper { "APPROVAL_" } else { "approval_" };
        request.labels.insert(format!("{prefix}{suffix}"), value.clone());
        request.labels.insert(BUS_MSG_ID.into(), value.clone());
        request.env.insert(ENV_EFFECTIVE_CONFIG.into(), value);
        prop_assert_eq!(job_hash(&request), job_hash(&first()));
    }

    #[test]
    fn every_other_entry_matters(key in "[b-z]{1,6}", value in ".{0,8}") {
        let mut request = first();
        prop_assume!(request.labels.get(&key) != Some(&value));
        request.labels.insert(key, value);
        prop_assert_ne!(job_hash(&request), job_hash(&first()));
    }

    /// What is hashed is what a decoder sees: decoding the canonical bytes and hashing again changes nothing.
    #[test]
    fn canonical_bytes_decode_to_the_same_hash(
        labels in proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..6),
        env in proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..6),
        priority in any::<i32>(),
        step in any::<i32>(),
    ) {
        let request = JobRequest { labels, env, priority, step_index: step, ..first() };
        let bytes = canonical(&request);
        let decoded = JobRequest::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(canonical(&decoded), bytes);
    }
}
