use crate::jobs::Decision;
use crate::policy::{CompiledPolicy, PolicyInput, evaluate};
use crate::protocol::agent::PolicyCheckRequest;

#[test]
fn the_policy_that_comes_with_the_product() {
    let text = include_str!("../../../../config/safety.yaml");
    let (policy, warnings) = CompiledPolicy::from_bytes(text.as_bytes(), "config/safety.yaml").unwrap();
    assert_eq!(warnings, []);
    for (topic, decision, rule) in [
        ("job.demo.digest", Decision::Allow, "demo-digest"),
        ("job.demo.delete", Decision::Deny, "demo-no-deletes"),
        (
            "job.demo.publish",
            Decision::RequireApproval,
            "demo-publish-needs-approval",
        ),
        ("job.anything", Decision::Allow, ""),
    ] {
        let request = PolicyCheckRequest {
            topic: topic.to_owned(),
            ..PolicyCheckRequest::default()
        };
        let evaluation = evaluate(&policy, &PolicyInput::new(&request));
        assert_eq!((evaluation.decision, evaluation.rule_id), (decision, rule), "{topic}");
    }
}
