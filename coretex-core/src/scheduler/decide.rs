//! Has a job judged, and binds an approval to what was approved. See `docs/spec/scheduler.md` §2.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use super::desk::Item;
use crate::approvals;
use crate::error::chain;
use crate::jobs::{Decision, DecisionRecord, JobRecord, JobStoreExt as _, PendingReason};
use crate::protocol::agent::{JobRequest, PolicyCheckRequest};
use crate::protocol::constraints::ENV_EFFECTIVE_CONFIG;
use crate::protocol::{TenantId, constraints, job_hash};
use crate::time::Timestamp;

/// What follows from the judgement.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It may run, as `outgoing` says.
    Run {
        decision: DecisionRecord,
        outgoing: Box<JobRequest>,
    },
    /// People have to say yes.
    Approval(DecisionRecord),
    /// No.
    Deny(DecisionRecord),
    /// Not now; the decision is `None` if there is none.
    Hold {
        decision: Option<DecisionRecord>,
        reason: PendingReason,
        why: String,
    },
}

/// Whose job it is, for policy, configuration and limits.
pub(super) fn tenant_of(request: &JobRequest) -> TenantId {
    [
        request.tenant_id.as_str(),
        request.env.get("tenant_id").map_or("", String::as_str),
    ]
    .into_iter()
    .find_map(|tenant| TenantId::try_new(tenant).ok())
    .unwrap_or_else(TenantId::fallback)
}

/// Whether the request claims that people said yes. Only a claim: see [`approved`].
pub(super) fn claims_approval(request: &JobRequest) -> bool {
    request
        .labels
        .get("approval_granted")
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// The decision that lets an approved job run: people said yes to exactly this request, under the policy that asked them,
/// and enough of them. It lets this one job run, also after it was handed back; a copy under another id has no approval.
fn approved(request: &JobRequest, record: &JobRecord, now: Timestamp) -> Option<DecisionRecord> {
    let asked = record.decision.as_ref()?;
    let already_granted = asked.reason == GRANTED && asked.decision == Decision::Allow;
    let grants = (approvals::asks(asked) || already_granted) && approvals::is_granted(record);
    (grants && job_hash(request) == asked.job_hash).then(|| DecisionRecord {
        decision: Decision::Allow,
        reason: GRANTED.to_owned(),
        approval_required: false,
        approval_ref: String::new(),
        checked_at: now,
        ..asked.clone()
    })
}

const GRANTED: &str = "approval granted";

impl Inner {
    /// Judges one job. `record` is what the store knows of it, where that matters.
    pub(super) async fn judge(&self, item: &Item, record: Option<&JobRecord>, now: Timestamp) -> Verdict {
        let request = &item.request;
        let tenant = tenant_of(request);
        let config = match self.effective.of(request, tenant.as_str()).await {
            Ok(config) => config,
            Err(error) => {
                self.unjudged.store(true, Ordering::Relaxed);
                return Verdict::Hold {
                    decision: None,
                    reason: PendingReason::SafetyUnavailable,
                    why: format!("configuration could not be read: {}", chain(&error)),
                };
            }
        };
        let question = Arc::new(question(request, &tenant, config.as_deref()));
        let granted = record
            .filter(|_| claims_approval(request))
            .and_then(|record| approved(request, record, now));
        let mut decision = match granted {
            Some(decision) => decision,
            None => match self.ask_policy(item, record, &question, now).await {
                Ok(decision) => decision,
                Err(why) => {
                    return Verdict::Hold {
                        decision: None,
                        reason: PendingReason::SafetyUnavailable,
                        why,
                    };
                }
            },
        };
        if decision.approval_required && matches!(decision.decision, Decision::Allow | Decision::AllowWithConstraints) {
            decision.decision = Decision::RequireApproval;
        }
        if approvals::asks(&decision) {
            decision.job_hash = job_hash(request);
        }
        decision.input = Some(question);
        match decision.decision {
            Decision::Allow | Decision::AllowWithConstraints => {
                let outgoing = Box::new(outgoing(request, &decision, config.as_deref()));
                Verdict::Run { decision, outgoing }
            }
            Decision::RequireApproval => Verdict::Approval(decision),
            Decision::Deny => Verdict::Deny(decision),
            Decision::Throttle => {
                let why = match decision.reason.as_str() {
                    "" => "safety throttle".to_owned(),
                    reason => format!("safety throttle: {reason}"),
                };
                Verdict::Hold {
                    decision: Some(decision),
                    reason: PendingReason::Throttled,
                    why,
                }
            }
        }
    }

    /// Asks policy. The error says why there is no answer that could be acted on.
    async fn ask_policy(
        &self,
        item: &Item,
        record: Option<&JobRecord>,
        question: &PolicyCheckRequest,
        now: Timestamp,
    ) -> Result<DecisionRecord, String> {
        let decision = match self.parts.kernel.check(question, now).await {
            Ok(decision) => decision,
            Err(error) if self.options.deny_without_policy => DecisionRecord {
                reason: format!("safety kernel error: {}", chain(&error)),
                ..DecisionRecord::new(Decision::Deny, now)
            },
            Err(error) => {
                self.unjudged.store(true, Ordering::Relaxed);
                return Err(chain(&error));
            }
        };
        if self.unjudged.load(Ordering::Relaxed) {
            self.unjudged.store(false, Ordering::Relaxed);
        }
        if record.is_some() || !approvals::asks(&decision) {
            return Ok(decision);
        }
        // Policy wants people, and they may have said yes already: a message of before then comes without the mark.
        match self.parts.stores.jobs.get(&item.id).await {
            Ok(record) => Ok(record
                .and_then(|record| approved(&item.request, &record, now))
                .unwrap_or(decision)),
            Err(error) if error.is_retryable() => Err(format!("approvals could not be read: {}", chain(&error))),
            // An approval that cannot be read counts for nothing: never a yes by accident.
            Err(_) => Ok(decision),
        }
    }

    /// The request as its worker gets it, rebuilt from what is stored: for handing the same job over again.
    pub(super) async fn outgoing_again(&self, request: &Arc<JobRequest>, record: &JobRecord) -> JobRequest {
        let tenant = tenant_of(request);
        let config = self.effective.of(request, tenant.as_str()).await.ok().flatten();
        match &record.decision {
            Some(decision) => outgoing(request, decision, config.as_deref()),
            None => JobRequest::clone(request),
        }
    }
}

fn outgoing(request: &JobRequest, decision: &DecisionRecord, config: Option<&str>) -> JobRequest {
    let mut outgoing = request.clone();
    if let Some(config) = config {
        outgoing.env.insert(ENV_EFFECTIVE_CONFIG.to_owned(), config.to_owned());
    }
    if let Some(limits) = &decision.constraints {
        constraints::apply(&mut outgoing, limits);
    }
    outgoing
}

fn question(request: &JobRequest, tenant: &TenantId, config: Option<&str>) -> PolicyCheckRequest {
    PolicyCheckRequest {
        job_id: request.job_id.clone(),
        topic: request.topic.clone(),
        tenant: tenant.as_str().to_owned(),
        priority: request.priority,
        estimated_cost: 0.0,
        budget: request.budget,
        principal_id: request.principal_id.clone(),
        labels: request.labels.clone(),
        memory_id: request.memory_id.clone(),
        effective_config: config
            .or_else(|| request.env.get(ENV_EFFECTIVE_CONFIG).map(String::as_str))
            .unwrap_or_default()
            .as_bytes()
            .to_vec(),
        meta: request.meta.clone(),
        drafts: std::collections::BTreeMap::new(),
    }
}
