use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    text.parse::<Pointer>().unwrap_err().to_string()
}

#[test]
fn pointers_of_jobs() {
    let job = JobId::try_new("run-1:step[0]@1").unwrap();
    assert_eq!(Pointer::context(&job).to_string(), "redis://ctx:run-1:step[0]@1");
    assert_eq!(Pointer::result(&job).to_string(), "redis://res:run-1:step[0]@1");
    assert_eq!(Pointer::result(&job).key(), "res:run-1:step[0]@1");
    assert_eq!(
        "redis://res:run-1:step[0]@1".parse::<Pointer>().unwrap(),
        Pointer::result(&job)
    );
}

#[test]
fn all_families() {
    for (text, family) in [
        ("redis://ctx:1", Family::Context),
        ("redis://res:1", Family::Result),
        ("redis://art:1", Family::Artifact),
        ("redis://mem:run:1", Family::Memory),
    ] {
        let pointer: Pointer = text.parse().unwrap();
        assert_eq!(pointer.family(), family);
        assert_eq!(pointer.to_string(), text);
        assert_eq!(Pointer::from_key(pointer.key()).unwrap(), pointer);
    }
}

#[test]
fn everything_else_is_refused() {
    assert_eq!(refused(""), "empty pointer");
    assert_eq!(refused("http://ctx:1"), "invalid pointer prefix: http://ctx:1");
    assert_eq!(refused("ctx:1"), "invalid pointer prefix: ctx:1");
    assert_eq!(refused("REDIS://ctx:1"), "invalid pointer prefix: REDIS://ctx:1");
    assert_eq!(refused("redis://"), "missing key in pointer");
    // What some example workers report: kept with the job, but not followed.
    assert_eq!(
        refused("redis://res/j1"),
        "unsupported pointer key `res/j1` (only ctx:*, res:*, art:* or mem:*)"
    );
    for text in [
        "redis://ctx:",
        "redis://job:meta:1",
        "redis://cfg:system:default",
        "redis://dlq:index",
        "redis://CTX:1",
        "redis:// ctx:1",
        "redis://xctx:1",
        "redis://coretex:scheduler:job:1",
    ] {
        assert!(refused(text).starts_with("unsupported pointer key"), "{text}");
    }
}

#[test]
fn pointers_in_json_are_texts() {
    let pointer: Pointer = serde_json::from_str("\"redis://ctx:a\"").unwrap();
    assert_eq!(serde_json::to_string(&pointer).unwrap(), "\"redis://ctx:a\"");
    assert!(serde_json::from_str::<Pointer>("\"redis://job:req:a\"").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn only_allowed_keys_are_ever_reached(text in "(redis://)?(ctx|res|art|mem|job|cfg|x)?[:/]?\\PC{0,8}") {
        if let Ok(pointer) = text.parse::<Pointer>() {
            prop_assert_eq!(pointer.to_string(), text);
            prop_assert!(pointer.key().len() > pointer.family().prefix().len());
            prop_assert!(pointer.key().starts_with(pointer.family().prefix()));
        }
    }
}
