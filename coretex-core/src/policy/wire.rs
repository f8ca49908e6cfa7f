//! Decisions as the kernel service sends them. See `docs/spec/policy.md` §14.

use std::time::Duration;

use crate::jobs::{ApprovalTerms, Decision, DecisionRecord, OnExpiry};
use crate::protocol::agent;
use crate::protocol::agent::{DecisionType, PolicyCheckResponse};
use crate::time::Timestamp;

/// A word for a decision that this side does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel answered with decision {0}, which means nothing here")]
pub struct UnknownDecision(pub i32);

/// A decision as an answer. `explanation` is for whoever asked for one.
impl From<&DecisionRecord> for PolicyCheckResponse {
    fn from(record: &DecisionRecord) -> Self {
        Self {
            decision: record.decision.to_proto().into(),
            reason: record.reason.clone(),
            redacted_context_ptr: String::new(),
            policy_snapshot: record.policy_snapshot.clone(),
            rule_id: record.rule_id.clone(),
            constraints: record.constraints.clone(),
            approval_required: record.approval_required,
            approval_ref: record.approval_ref.clone(),
            remediations: record.remediations.clone(),
            matched: record.matched.clone(),
            approval_terms: record.terms.as_ref().map(|terms| agent::ApprovalTerms {
                quorum: terms.quorum,
                expires_after_ms: terms
                    .expires_after
                    .map_or(0, |after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
                on_expiry: terms.on_expiry.as_str().to_owned(),
            }),
            explanation: String::new(),
        }
    }
}

/// An answer as a decision, made at `now`. What was asked, and its hash, are left to whoever asked.
///
/// # Errors
/// [`UnknownDecision`] if there is none in it: never to be taken for a yes.
pub fn decision(response: PolicyCheckResponse, now: Timestamp) -> Result<DecisionRecord, UnknownDecision> {
    let decision = match DecisionType::try_from(response.decision) {
        Ok(DecisionType::Allow) => Decision::Allow,
        Ok(DecisionType::AllowWithConstraints) => Decision::AllowWithConstraints,
        Ok(DecisionType::Deny) => Decision::Deny,
        Ok(DecisionType::RequireHuman) => Decision::RequireApproval,
        Ok(DecisionType::Throttle) => Decision::Throttle,
        Ok(DecisionType::Unspecified) | Err(_) => return Err(UnknownDecision(response.decision)),
    };
    Ok(DecisionRecord {
        reason: response.reason,
        rule_id: response.rule_id,
        policy_snapshot: response.policy_snapshot,
        constraints: response.constraints,
        approval_required: response.approval_required,
        approval_ref: response.approval_ref,
        matched: response.matched,
        terms: response.approval_terms.map(|terms| ApprovalTerms {
            quorum: terms.quorum.max(1),
            expires_after: u64::try_from(terms.expires_after_ms)
                .ok()
                .filter(|millis| *millis > 0)
                .map(Duration::from_millis),
            // A word from a later version is not taken for a yes.
            on_expiry: if terms.on_expiry == OnExpiry::Allow.as_str() {
                OnExpiry::Allow
            } else {
                OnExpiry::Deny
            },
        }),
        remediations: response.remediations,
        ..DecisionRecord::new(decision, now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::agent::{BudgetConstraints, PolicyConstraints, PolicyRemediation};

    fn full(decision: Decision) -> DecisionRecord {
        DecisionRecord {
            reason: "because".to_owned(),
            rule_id: "r1".to_owned(),
            policy_snapshot: "v1:abc".to_owned(),
            constraints: Some(PolicyConstraints {
                budgets: Some(BudgetConstraints {
                    max_runtime_ms: 1_000,
                    ..BudgetConstraints::default()
                }),
                redaction_level: "strict".to_owned(),
                ..PolicyConstraints::default()
            }),
            approval_required: true,
            approval_ref: "j1".to_owned(),
            matched: vec!["topics: job.* matches job.x".to_owned()],
            terms: Some(ApprovalTerms {
                quorum: 2,
                expires_after: Some(Duration::from_secs(60)),
                on_expiry: OnExpiry::Allow,
            }),
            remediations: vec![PolicyRemediation {
                id: "safer".to_owned(),
                ..PolicyRemediation::default()
            }],
            ..DecisionRecord::new(decision, Timestamp::from_secs(7))
        }
    }

    #[test]
    fn every_decision_survives_the_way_there_and_back() {
        for verdict in [
            Decision::Allow,
            Decision::AllowWithConstraints,
            Decision::Deny,
            Decision::RequireApproval,
            Decision::Throttle,
        ] {
            for record in [full(verdict), DecisionRecord::new(verdict, Timestamp::from_secs(7))] {
                let back = decision(PolicyCheckResponse::from(&record), Timestamp::from_secs(7));
                assert_eq!(back, Ok(record));
            }
        }
    }

    #[test]
    fn what_is_no_decision_is_an_error() {
        for word in [0, 6, 99, -1] {
            let answer = PolicyCheckResponse {
                decision: word,
                ..PolicyCheckResponse::default()
            };
            assert_eq!(decision(answer, Timestamp::ZERO), Err(UnknownDecision(word)));
        }
    }

    #[test]
    fn odd_terms_are_taken_strictly() {
        let answer = |quorum, expires_after_ms, on_expiry: &str| PolicyCheckResponse {
            decision: DecisionType::RequireHuman.into(),
            approval_terms: Some(agent::ApprovalTerms {
                quorum,
                expires_after_ms,
                on_expiry: on_expiry.to_owned(),
            }),
            ..PolicyCheckResponse::default()
        };
        for odd in [answer(0, 0, ""), answer(1, -5, "later"), answer(1, i64::MIN, "ALLOW")] {
            let record = decision(odd, Timestamp::ZERO).expect("a decision");
            assert_eq!(record.terms, Some(ApprovalTerms::default()));
        }
    }
}
