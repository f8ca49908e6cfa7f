//! What policy's limits do to a job that is dispatched. See `docs/spec/protocol.md` §10.

use serde_json::Value;

use super::agent::{JobRequest, PolicyConstraints};
use super::json::{self, JsonError, Mode, Unknown};

/// Environment: the merged configuration that applies to the job, as a JSON object.
pub const ENV_EFFECTIVE_CONFIG: &str = "CORETEX_EFFECTIVE_CONFIG";
/// Environment: the limits, as protobuf JSON.
pub const ENV_CONSTRAINTS: &str = "CORETEX_POLICY_CONSTRAINTS";
/// Environment: how much to redact.
pub const ENV_REDACTION_LEVEL: &str = "CORETEX_REDACTION_LEVEL";
/// Environment: how large an artifact may be.
pub const ENV_MAX_ARTIFACT_BYTES: &str = "CORETEX_MAX_ARTIFACT_BYTES";
/// Environment: how many of the tenant's jobs may run at once.
pub const ENV_MAX_CONCURRENT_JOBS: &str = "CORETEX_MAX_CONCURRENT_JOBS";
/// Environment: how often the job may be tried again.
pub const ENV_MAX_RETRIES: &str = "CORETEX_MAX_RETRIES";

/// Puts the limits into the request that goes to the worker. The stored request stays as it was.
pub fn apply(request: &mut JobRequest, constraints: &PolicyConstraints) {
    let env = &mut request.env;
    let mut set = |key: &str, value: String| {
        env.insert(key.to_owned(), value);
    };
    set(ENV_CONSTRAINTS, json::to_json(constraints, Mode::Compact));
    if !constraints.redaction_level.is_empty() {
        set(ENV_REDACTION_LEVEL, constraints.redaction_level.clone());
    }
    let Some(limits) = &constraints.budgets else {
        return;
    };
    if limits.max_artifact_bytes > 0 {
        set(ENV_MAX_ARTIFACT_BYTES, limits.max_artifact_bytes.to_string());
    }
    if limits.max_concurrent_jobs > 0 {
        set(ENV_MAX_CONCURRENT_JOBS, limits.max_concurrent_jobs.to_string());
    }
    if limits.max_retries > 0 {
        set(ENV_MAX_RETRIES, limits.max_retries.to_string());
    }
    let budget = request.budget.get_or_insert_default();
    if limits.max_runtime_ms > 0 {
        budget.deadline_ms = match budget.deadline_ms {
            asked if asked > 0 => asked.min(limits.max_runtime_ms),
            _ => limits.max_runtime_ms,
        };
    }
}

/// The limits as the job routes show them: `snake_case`, zero fields left out, plain numbers.
pub fn constraints_snake_json(constraints: &PolicyConstraints) -> Value {
    // What we have just written is JSON.
    serde_json::from_str(&json::to_json(constraints, Mode::Snake)).unwrap_or_default()
}

/// Reads limits in either spelling; unknown members are passed over.
///
/// # Errors
/// [`JsonError`], whose source says which member is wrong.
pub fn constraints_from_json(value: &Value) -> Result<PolicyConstraints, JsonError> {
    json::from_json_value(value, Unknown::Ignore)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::agent::{Budget, BudgetConstraints, SandboxProfile};

    fn limits(budgets: BudgetConstraints) -> PolicyConstraints {
        PolicyConstraints {
            budgets: Some(budgets),
            ..PolicyConstraints::default()
        }
    }

    #[test]
    fn empty_constraints_only_set_their_own_variable() {
        let mut request = JobRequest::default();
        apply(&mut request, &PolicyConstraints::default());
        assert_eq!(request.env.get(ENV_CONSTRAINTS).map(String::as_str), Some("{}"));
        assert_eq!(request.env.len(), 1);
        assert_eq!(request.budget, None);
    }

    #[test]
    fn empty_budgets_create_the_budget() {
        let mut request = JobRequest::default();
        apply(&mut request, &limits(BudgetConstraints::default()));
        assert_eq!(request.budget, Some(Budget::default()));
        assert_eq!(request.env[ENV_CONSTRAINTS], r#"{"budgets":{}}"#);
    }

    #[test]
    fn everything_is_put_into_the_environment() {
        let mut request = JobRequest::default();
        request.env.insert(ENV_MAX_RETRIES.into(), "999".into());
        request.env.insert("keep".into(), "me".into());
        let mut constraints = limits(BudgetConstraints {
            max_runtime_ms: 60_000,
            max_retries: 2,
            max_artifact_bytes: 1 << 40,
            max_concurrent_jobs: 3,
        });
        constraints.redaction_level = "strict".into();
        apply(&mut request, &constraints);
        assert_eq!(
            request.env[ENV_CONSTRAINTS],
            concat!(
                r#"{"budgets":{"maxRuntimeMs":"60000","maxRetries":2,"maxArtifactBytes":"1099511627776","#,
                r#""maxConcurrentJobs":3},"redactionLevel":"strict"}"#
            )
        );
        assert_eq!(request.env[ENV_REDACTION_LEVEL], "strict");
        assert_eq!(request.env[ENV_MAX_ARTIFACT_BYTES], "1099511627776");
        assert_eq!(request.env[ENV_MAX_CONCURRENT_JOBS], "3");
        assert_eq!(request.env[ENV_MAX_RETRIES], "2");
        assert_eq!(request.env["keep"], "me");
        assert_eq!(request.budget.unwrap_or_default().deadline_ms, 60_000);
    }

    #[test]
    fn the_shorter_deadline_wins() {
        for (asked, limit, want) in [
            (0, 50, 50),
            (-1, 50, 50),
            (30, 50, 30),
            (70, 50, 50),
            (70, 0, 70),
            (70, -5, 70),
        ] {
            let mut request = JobRequest {
                budget: Some(Budget {
                    deadline_ms: asked,
                    max_input_tokens: 7,
                    ..Budget::default()
                }),
                ..JobRequest::default()
            };
            let constraints = limits(BudgetConstraints {
                max_runtime_ms: limit,
                ..BudgetConstraints::default()
            });
            apply(&mut request, &constraints);
            let budget = request.budget.unwrap_or_default();
            assert_eq!(budget.deadline_ms, want, "asked {asked}, limit {limit}");
            assert_eq!(budget.max_input_tokens, 7);
        }
    }

    #[test]
    fn rest_shape_is_snake_case_with_plain_numbers() {
        let mut constraints = limits(BudgetConstraints {
            max_runtime_ms: 9_007_199_254_740_993,
            ..BudgetConstraints::default()
        });
        constraints.sandbox = Some(SandboxProfile {
            isolated: true,
            network_allowlist: vec!["a".into()],
            ..SandboxProfile::default()
        });
        let value = constraints_snake_json(&constraints);
        assert_eq!(
            value,
            json!({
                "budgets": {"max_runtime_ms": 9_007_199_254_740_993_i64},
                "sandbox": {"isolated": true, "network_allowlist": ["a"]},
            })
        );
        assert_eq!(constraints_from_json(&value).unwrap(), constraints);
        assert_eq!(constraints_snake_json(&PolicyConstraints::default()), json!({}));
    }
}
