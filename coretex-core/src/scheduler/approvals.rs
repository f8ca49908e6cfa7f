//! What time does to jobs that wait for people. See `docs/spec/approvals.md` §5.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::Inner;
use super::handover::dead_letter;
use crate::approvals::{Tally, expiry};
use crate::error::{StoreError, chain};
use crate::jobs::{Change, JobEvent, JobRecord, JobState, OnExpiry, Outcome, ScanItem};
use crate::protocol::JobId;
use crate::protocol::agent::JobRequest;
use crate::time::Timestamp;

/// How many jobs are looked at in one call.
const PAGE: usize = 200;

impl Inner {
    /// Ends or lets run the jobs that nobody decided about in time. Any number of replicas may do so at once: each change
    /// is a compare-and-set.
    pub(super) async fn expire_approvals(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let now = self.parts.clock.now();
            let due = self.parts.stores.jobs.approvals_due(now, PAGE).await?;
            if due.is_empty() {
                return Ok(());
            }
            let changes = self.approvals_over(&due, now).await?;
            let done = self.end_approvals(changes, now).await;
            if done == 0 || due.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// What becomes of these jobs.
    async fn approvals_over(&self, due: &[JobId], now: Timestamp) -> Result<Vec<Change>, StoreError> {
        let records: Vec<JobRecord> = self
            .parts
            .stores
            .jobs
            .get_many(due)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let run: Vec<JobId> = records
            .iter()
            .filter(|record| Tally::of(record).on_expiry == OnExpiry::Allow)
            .map(|record| record.id.clone())
            .collect();
        let mut requests: HashMap<JobId, JobRequest> = HashMap::new();
        let mut active = None;
        if !run.is_empty() {
            match self.parts.kernel.snapshots().await {
                Ok(snapshots) => active = Some(snapshots),
                Err(error) => warn!(error = %chain(&error), "approvals are over, but policy cannot be asked"),
            }
            let read = self.read_requests(&run).await.unwrap_or_default();
            requests.extend(
                run.into_iter()
                    .zip(read)
                    .filter_map(|(id, request)| Some((id, request?))),
            );
        }
        Ok(records
            .iter()
            .filter_map(|record| expiry::change(record, requests.remove(&record.id), active.as_deref(), now))
            .collect())
    }

    /// Commits the changes, and takes the jobs that may run on from there; returns how many were applied.
    async fn end_approvals(self: &Arc<Self>, changes: Vec<Change>, now: Timestamp) -> usize {
        if changes.is_empty() {
            return 0;
        }
        let outcomes = self.commit(&changes).await;
        let mut letters = Vec::new();
        let mut again = Vec::new();
        let mut done = 0;
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            let Some(Outcome::Applied(applied)) = outcome else {
                continue;
            };
            done += 1;
            info!(job_id = %change.id, event = ?change.event, "nobody decided about a job in time");
            if change.event == JobEvent::Deny {
                let message = change.outcome.map_or_else(String::new, |outcome| outcome.error_message);
                letters.push(dead_letter(&change.id, JobState::Denied, expiry::CODE, &message, now));
            } else {
                again.push(ScanItem {
                    id: change.id,
                    revision: applied.revision,
                    owner: None,
                    worker_id: None,
                    accepted: false,
                });
            }
        }
        self.publish_all(letters).await;
        self.process_stored(again).await;
        done
    }
}
