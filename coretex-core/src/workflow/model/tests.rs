use serde_json::json;

use super::*;

fn workflow(document: Value) -> Workflow {
    serde_json::from_value(document).unwrap()
}

#[test]
fn the_hash_names_the_content() {
    let one = workflow(json!({"id": "a", "steps": {"s": {"input": {"n": 9_007_199_254_740_993_u64, "x": 0.1}}}}));
    let mut later = one.clone();
    later.created_at = Timestamp::from_micros(1);
    later.updated_at = Timestamp::from_micros(2);
    assert_eq!(one.content_hash(), later.content_hash());
    assert_eq!(one.content_hash().len(), 64);

    later.name = "b".to_owned();
    assert_ne!(one.content_hash(), later.content_hash());

    // Doubles would make these the same.
    let other = workflow(json!({"id": "a", "steps": {"s": {"input": {"n": 9_007_199_254_740_992_u64, "x": 0.1}}}}));
    assert_ne!(one.content_hash(), other.content_hash());
}

#[test]
fn the_hash_survives_storage() {
    let one = workflow(json!({"id": "a", "steps": {"s": {
        "type": "worker", "retry": {"multiplier": 1.5, "jitter": 0.3}, "input": {"tiny": 1e-7, "huge": 1e300, "e": 2.0},
    }}}));
    let text = serde_json::to_string(&one).unwrap();
    let again: Workflow = serde_json::from_str(&text).unwrap();
    assert_eq!(again.content_hash(), one.content_hash());
}
