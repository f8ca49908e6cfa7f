//! Who has said yes so far, and how many have to. See `docs/spec/approvals.md` §3.

use crate::jobs::{ApprovalRecord, ApprovalTerms, DecisionRecord, JobRecord, OnExpiry};
use crate::time::Timestamp;

/// Who approves a job when its time is over and policy lets it run then.
pub const ON_EXPIRY: &str = "policy:on_expiry";

/// How the names begin that no person may use.
pub(super) const RESERVED: &str = "policy:";

/// Where the votes on a job stand. Only those count that are about what is asked now, by the policy that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// How many principals have to say yes.
    pub quorum: u32,
    /// Until when they may; `None` is for ever.
    pub expires_at: Option<Timestamp>,
    /// What happens then.
    pub on_expiry: OnExpiry,
    by: Vec<String>,
}

impl Tally {
    /// Counts the votes on this job.
    pub fn of(record: &JobRecord) -> Self {
        let decision = record.decision.as_ref();
        let terms = decision.and_then(|decision| decision.terms.clone()).unwrap_or_default();
        let ApprovalTerms {
            quorum,
            expires_after,
            on_expiry,
        } = terms;
        let none = Self {
            quorum: quorum.max(1),
            expires_at: decision
                .zip(expires_after)
                .map(|(decision, after)| decision.checked_at.plus(after)),
            on_expiry,
            by: Vec::new(),
        };
        record
            .votes
            .iter()
            .filter(|vote| decision.is_some_and(|decision| is_about(vote, decision)))
            .fold(none, |tally, vote| tally.with(&vote.by))
    }

    /// How many principals have said yes.
    pub fn approvals(&self) -> u32 {
        u32::try_from(self.by.len()).unwrap_or(u32::MAX)
    }

    /// Whether this principal has said yes.
    pub fn has(&self, principal: &str) -> bool {
        self.by.iter().any(|by| by == principal)
    }

    /// Whether the time for saying yes is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The same with one more yes; a principal counts once.
    #[must_use]
    pub(super) fn with(mut self, principal: &str) -> Self {
        if !self.has(principal) {
            self.by.push(principal.to_owned());
        }
        self
    }

    /// Whether enough principals have said yes.
    fn reached(&self) -> bool {
        self.approvals() >= self.quorum
    }
}

/// Whether somebody said yes to exactly what this decision is about.
fn is_about(vote: &ApprovalRecord, decision: &DecisionRecord) -> bool {
    vote.job_hash == decision.job_hash && vote.policy_snapshot.trim() == decision.policy_snapshot.trim()
}

/// Whether people have said yes to the job as it was judged last: to this hash, under this policy, and enough of them.
pub(crate) fn is_granted(record: &JobRecord) -> bool {
    let (Some(decision), Some(approval)) = (&record.decision, &record.approval) else {
        return false;
    };
    if decision.job_hash.is_empty() || approval.at <= Timestamp::ZERO || !is_about(approval, decision) {
        return false;
    }
    let tally = Tally::of(record);
    // One yes of an older control plane is on record without a vote.
    tally.quorum == 1 || tally.reached() || approval.by == ON_EXPIRY
}
