//! The log of decisions: what was decided about which job, by which rule, on what. See `docs/spec/http.md` §12.

use std::sync::Arc;

use crate::error::StoreError;
use crate::jobs::{Cursor, Decision, DecisionQuery, DecisionRecord, JobStore, LoggedDecision};
use crate::protocol::JobId;
use crate::time::Timestamp;

/// The longest page.
pub const LIST_LIMIT_MAX: usize = 1_000;
/// How many decisions one request looks at before it answers with a short page and a cursor.
const SCAN_MAX: usize = 10_000;
/// So many are fetched at once when most of them may not be wanted.
const CHUNK: usize = 500;

/// Which decisions are wanted.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Only about this job.
    pub job_id: Option<JobId>,
    /// Only by this rule.
    pub rule: Option<String>,
    /// Only about jobs of this topic.
    pub topic: Option<String>,
    /// Only about jobs of this tenant.
    pub tenant: Option<String>,
    /// Only this verdict.
    pub decision: Option<Decision>,
    /// Only of this time or later.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only after this place in the list.
    pub cursor: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl DecisionFilter {
    fn wants(&self, item: &DecisionItem) -> bool {
        let equal = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let decision = &item.decision;
        equal(&self.rule, &decision.rule_id)
            && equal(&self.topic, &item.topic)
            && equal(&self.tenant, &item.tenant)
            && self.decision.is_none_or(|wanted| wanted == decision.decision)
            && self.from.is_none_or(|from| decision.checked_at >= from)
            && self.until.is_none_or(|until| decision.checked_at < until)
    }

    /// Whether it passes over decisions of its time.
    fn chooses(&self) -> bool {
        self.rule.is_some() || self.topic.is_some() || self.tenant.is_some() || self.decision.is_some()
    }
}

/// A decision and the job it was about.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionItem {
    /// The job.
    pub job_id: JobId,
    /// Its topic; empty if it is not known any more.
    pub topic: String,
    /// Its tenant; may be empty.
    pub tenant: String,
    /// The decision.
    pub decision: DecisionRecord,
    /// Its place in the list.
    pub cursor: Cursor,
}

/// A part of the list.
#[derive(Debug, Clone, Default)]
pub struct DecisionList {
    /// The decisions, newest first.
    pub items: Vec<DecisionItem>,
    /// Where the rest begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// Answers what was decided. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DecisionLog {
    jobs: Arc<dyn JobStore>,
}

impl DecisionLog {
    /// The log of the decisions in this store.
    pub fn new(jobs: Arc<dyn JobStore>) -> Self {
        Self { jobs }
    }

    /// Lists decisions, newest first. A page is only shorter than the limit at the end of the list, or if very many
    /// decisions had to be passed over; then it has a cursor.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn list(&self, filter: &DecisionFilter) -> Result<DecisionList, StoreError> {
        let limit = filter.limit.clamp(1, LIST_LIMIT_MAX);
        if let Some(job) = &filter.job_id {
            return self.list_job(job, filter, limit).await;
        }
        let mut found: Vec<DecisionItem> = Vec::new();
        let mut after = filter.cursor.clone();
        let mut scanned = 0;
        // One more than asked for tells whether there is a next page.
        while found.len() <= limit && scanned < SCAN_MAX {
            let wanted = limit + 1 - found.len();
            let asked = if filter.chooses() { wanted.max(CHUNK) } else { wanted };
            let page = self
                .jobs
                .decision_log(&DecisionQuery {
                    from: filter.from,
                    until: filter.until,
                    after,
                    limit: asked,
                })
                .await?;
            // A short page with more behind it was made of many that are gone.
            scanned += asked;
            let items = self.describe(page.items).await?;
            found.extend(items.into_iter().filter(|item| filter.wants(item)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if found.len() > limit {
            found.truncate(limit);
            after = found.last().map(|item| item.cursor.clone());
        }
        Ok(DecisionList {
            items: found,
            next: after,
        })
    }

    /// From the job's own list. A cursor's place counts the decisions of its time that were passed.
    async fn list_job(&self, job: &JobId, filter: &DecisionFilter, limit: usize) -> Result<DecisionList, StoreError> {
        let mut decisions = self.jobs.decisions(job, SCAN_MAX).await?;
        // As the log of all jobs is ordered, also if the clocks of replicas differ.
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.checked_at));
        let mut logged: Vec<LoggedDecision> = Vec::with_capacity(decisions.len());
        let mut same = 0_usize;
        for decision in decisions {
            let at = decision.checked_at;
            same = if logged.last().is_some_and(|last| last.cursor.at == at) {
                same + 1
            } else {
                1
            };
            let cursor = Cursor {
                at,
                id: format!("{job}|{same}"),
            };
            logged.push(LoggedDecision {
                job_id: job.clone(),
                decision,
                cursor,
            });
        }
        let passed = |item: &LoggedDecision| {
            filter.cursor.as_ref().is_some_and(|after| {
                let place = |cursor: &Cursor| cursor.id.rsplit_once('|').and_then(|(_, n)| n.parse::<usize>().ok());
                item.cursor.at > after.at || (item.cursor.at == after.at && place(&item.cursor) <= place(after))
            })
        };
        logged.retain(|item| !passed(item));
        let mut found = self.describe(logged).await?;
        found.retain(|item| filter.wants(item));
        let more = found.len() > limit;
        found.truncate(limit);
        Ok(DecisionList {
            next: found.last().filter(|_| more).map(|item| item.cursor.clone()),
            items: found,
        })
    }

    /// Adds topic and tenant: as they were judged, or as the job has them.
    async fn describe(&self, logged: Vec<LoggedDecision>) -> Result<Vec<DecisionItem>, StoreError> {
        let unknown: Vec<JobId> = logged
            .iter()
            .filter(|logged| logged.decision.input.is_none())
            .map(|logged| logged.job_id.clone())
            .collect();
        let mut records = self.jobs.get_many(&unknown).await?.into_iter();
        Ok(logged
            .into_iter()
            .map(|logged| {
                let (topic, tenant) = match &logged.decision.input {
                    Some(input) => (input.topic.clone(), input.tenant.clone()),
                    None => records
                        .next()
                        .flatten()
                        .map(|record| (record.topic, record.tenant))
                        .unwrap_or_default(),
                };
                DecisionItem {
                    job_id: logged.job_id,
                    topic,
                    tenant,
                    decision: logged.decision,
                    cursor: logged.cursor,
                }
            })
            .collect())
    }
}
