//! What the audit log keeps of approvals. See `docs/spec/approvals.md` §7.

use super::Verdict;
use super::tally::{ON_EXPIRY, Tally};
use crate::audit::AuditRecord;
use crate::jobs::{ApprovalRecord, JobRecord};
use crate::time::Timestamp;

/// A yes, and more are needed.
pub(super) const VOTE: &str = "approval.vote";
/// The yes that lets a job go on.
pub(super) const APPROVE: &str = "approval.approve";
/// A no.
pub(super) const REJECT: &str = "approval.reject";
/// Nobody decided in time.
const EXPIRE: &str = "approval.expire";

/// What somebody decided.
pub(super) fn verdict(
    action: &str,
    record: &JobRecord,
    approval: &ApprovalRecord,
    verdict: &Verdict,
    tally: &Tally,
) -> AuditRecord {
    let entry = AuditRecord::new(approval.at, &verdict.by, &verdict.role, action, record.id.as_str())
        .with("verified", verdict.verified)
        .with("job_hash", approval.job_hash.as_str())
        .with("policy_snapshot", approval.policy_snapshot.as_str());
    let entry = about(entry, record, tally);
    [("reason", &verdict.reason), ("note", &verdict.note)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .fold(entry, |entry, (name, text)| entry.with(name, text.as_str()))
}

/// What happened when the time was over.
pub(super) fn expiry(record: &JobRecord, tally: &Tally, now: Timestamp) -> AuditRecord {
    let entry =
        AuditRecord::new(now, ON_EXPIRY, "", EXPIRE, record.id.as_str()).with("outcome", tally.on_expiry.as_str());
    let entry = match &record.decision {
        Some(decision) => entry
            .with("job_hash", decision.job_hash.as_str())
            .with("policy_snapshot", decision.policy_snapshot.as_str()),
        None => entry,
    };
    about(entry, record, tally)
}

fn about(entry: AuditRecord, record: &JobRecord, tally: &Tally) -> AuditRecord {
    let rule = record
        .decision
        .as_ref()
        .map_or("", |decision| decision.rule_id.as_str());
    entry
        .with("rule_id", rule)
        .with("topic", record.topic.as_str())
        .with("tenant", record.tenant.as_str())
        .with("approvals", tally.approvals())
        .with("quorum", tally.quorum)
}
