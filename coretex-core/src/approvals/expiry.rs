//! What becomes of a job that nobody decided about in time. See `docs/spec/approvals.md` §5.

use std::sync::Arc;

use super::tally::{ON_EXPIRY, Tally};
use super::{asked, audit, granted, is_active};
use crate::jobs::{ApprovalRecord, Change, JobEvent, JobRecord, JobState, OnExpiry, RequestWrite, TerminalDetail};
use crate::protocol::agent::JobRequest;
use crate::protocol::job_hash;
use crate::time::Timestamp;

/// The error code of a job that nobody decided about.
pub(crate) const CODE: &str = "approval_expired";

/// The change that the end of the time makes. `None` if it is not over, or if it is not known whether the policy that
/// would let the job run is still in force (`active`): then the next look decides.
pub(crate) fn change(
    record: &JobRecord,
    request: Option<JobRequest>,
    active: Option<&[String]>,
    now: Timestamp,
) -> Option<Change> {
    let tally = Tally::of(record);
    if record.state != JobState::ApprovalRequired || !tally.expired(now) {
        return None;
    }
    let mut change = match tally.on_expiry {
        OnExpiry::Deny => deny(record, &tally, now),
        OnExpiry::Allow => allow(record, request, active?, now),
    };
    change.expected = Some(record.revision);
    if change.event != JobEvent::Rejudge {
        change.audit = Some(audit::expiry(record, &tally, now));
    }
    Some(change)
}

fn deny(record: &JobRecord, tally: &Tally, now: Timestamp) -> Change {
    let mut change = Change::new(record.id.clone(), JobEvent::Deny, now);
    change.dead_letter = true;
    change.outcome = Some(TerminalDetail {
        error_code: CODE.to_owned(),
        error_message: format!(
            "nobody decided in time ({} of {} approvals)",
            tally.approvals(),
            tally.quorum
        ),
        ..TerminalDetail::default()
    });
    change
}

/// Lets the job run, if the policy that says so is still in force and the job is still the one that it judged. Otherwise
/// it is judged again.
fn allow(record: &JobRecord, request: Option<JobRequest>, active: &[String], now: Timestamp) -> Change {
    let asked = asked(record.decision.as_ref())
        .ok()
        .filter(|asked| is_active(active, asked.snapshot));
    let (Some(asked), Some(request)) = (asked, request) else {
        return Change::new(record.id.clone(), JobEvent::Rejudge, now);
    };
    if job_hash(&request) != asked.hash {
        return Change::new(record.id.clone(), JobEvent::Rejudge, now);
    }
    let approval = ApprovalRecord {
        by: ON_EXPIRY.to_owned(),
        at: now,
        reason: "nobody decided in time".to_owned(),
        policy_snapshot: asked.snapshot.to_owned(),
        job_hash: asked.hash.to_owned(),
        ..ApprovalRecord::default()
    };
    let (request, _) = granted(request, &approval.reason, "");
    let mut change = Change::new(record.id.clone(), JobEvent::Approve, now);
    change.request = RequestWrite::Replace(Arc::new(request));
    change.vote = Some(approval.clone());
    change.approval = Some(approval);
    change
}
