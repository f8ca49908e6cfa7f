//! Asking again, in a safer way that policy offers. See `docs/spec/approvals.md` §8.

use std::sync::Arc;
use std::time::Duration;

use super::submit::submit_message_id;
use super::{JobService, unexpected};
use crate::audit::AuditRecord;
use crate::error::StoreError;
use crate::jobs::{Change, JobEvent, JobRecord, JobState, JobStoreExt, NewJob, Outcome, TerminalDetail};
use crate::pointers::Pointer;
use crate::protocol::agent::{JobMetadata, JobRequest, PolicyRemediation};
use crate::protocol::constraints::ENV_EFFECTIVE_CONFIG;
use crate::protocol::labels::{self, REMEDIATION_OF};
use crate::protocol::{JobId, TenantId, TraceId, subjects};

/// The error code of a job that was cancelled because a safer one takes its place.
const CODE: &str = "remediated";
/// How often a job that changes meanwhile is looked at again.
const TRIES: usize = 8;

/// Who asks for a remediation, for the record.
#[derive(Debug, Clone, Default)]
pub struct Remediator {
    /// The principal; may be empty.
    pub by: String,
    /// In which role; may be empty.
    pub role: String,
}

/// A job in place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remediated {
    /// The new job; an earlier one if the same was asked for before.
    pub job_id: JobId,
    /// Its trace, which is that of the first job.
    pub trace_id: Option<TraceId>,
    /// By which of the ways that policy offers.
    pub remediation_id: String,
}

/// Why there is no job in place of the other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemediateError {
    /// There is no such job.
    #[error("job not found")]
    NotFound,
    /// What was asked for is gone.
    #[error("job request not found")]
    RequestMissing,
    /// It may run, or ended otherwise than by a no.
    #[error("job is {0}: only jobs that are DENIED or APPROVAL_REQUIRED can be remediated")]
    NotRefused(JobState),
    /// Policy offers no other way.
    #[error("policy offers no remediation for this job")]
    NoneOffered,
    /// Policy offers other ways, but not this one.
    #[error("no remediation `{asked}`; policy offers: {}", .offered.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// Policy offers several, and none was named.
    #[error("remediation_id is required; policy offers: {}", .offered.join(", "))]
    Ambiguous {
        /// What there is.
        offered: Vec<String>,
    },
    /// The way that policy offers leads nowhere.
    #[error("remediation `{id}` names topic `{topic}`, which does not begin with job.")]
    BadTopic {
        /// The remediation.
        id: String,
        /// Its topic.
        topic: String,
    },
    /// The store did not answer.
    #[error("the job could not be stored")]
    Store(#[from] StoreError),
}

impl JobService {
    /// Submits the job again under a new id, changed as policy offers; `remediation_id` may be empty if there is one way
    /// only. A job that waits for people is cancelled first, so that they do not approve what nobody wants any more.
    ///
    /// Repeating it is harmless: the same remediation of the same job is one job.
    ///
    /// # Errors
    /// [`RemediateError`] says why not. After [`RemediateError::Store`] the first job may be cancelled; a repeat finishes.
    ///
    /// # Cancel safety
    /// Dropped half-way, the first job may be cancelled without a new one; a repeat finishes.
    pub async fn remediate(
        &self,
        id: &JobId,
        remediation_id: &str,
        who: &Remediator,
    ) -> Result<Remediated, RemediateError> {
        for _ in 0..TRIES {
            let record = self.jobs.get(id).await?.ok_or(RemediateError::NotFound)?;
            let waits = match record.state {
                JobState::ApprovalRequired => true,
                JobState::Denied => false,
                JobState::Cancelled if record.outcome.error_code == CODE => false,
                state => return Err(RemediateError::NotRefused(state)),
            };
            let way = choose(&record, remediation_id)?.clone();
            let request = self.jobs.request(id).await?.ok_or(RemediateError::RequestMissing)?;
            if waits && !self.withdraw(&record, &way, who).await? {
                continue;
            }
            return self.submit_changed(&record, request, &way).await;
        }
        Err(unexpected("remediate").into())
    }

    /// Cancels a job that waits for people; false if it has changed.
    async fn withdraw(
        &self,
        record: &JobRecord,
        way: &PolicyRemediation,
        who: &Remediator,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut change = Change::new(record.id.clone(), JobEvent::Cancel, now);
        change.expected = Some(record.revision);
        change.outcome = Some(TerminalDetail {
            error_code: CODE.to_owned(),
            error_message: format!("asked for in another way: {}", way.id),
            ..TerminalDetail::default()
        });
        change.audit = Some(
            AuditRecord::new(now, &who.by, &who.role, "approval.remediate", record.id.as_str())
                .with("remediation_id", way.id.as_str()),
        );
        match self.jobs.apply(change).await? {
            Outcome::Applied(_) => {
                self.announce_cancel(&record.id, now).await;
                Ok(true)
            }
            Outcome::Conflict { .. } => Ok(false),
            Outcome::LimitReached | Outcome::AttemptsExhausted { .. } | Outcome::DuplicateKey { .. } => {
                Err(unexpected("remediate"))
            }
        }
    }

    async fn submit_changed(
        &self,
        record: &JobRecord,
        request: JobRequest,
        way: &PolicyRemediation,
    ) -> Result<Remediated, RemediateError> {
        let now = self.clock.now();
        let id = JobId::random();
        let tenant = [request.tenant_id.as_str(), record.tenant.as_str()]
            .into_iter()
            .find_map(|tenant| TenantId::try_new(tenant).ok())
            .unwrap_or_else(|| self.default_tenant.clone());
        // An input of the first job's own goes away with that job.
        let input = Pointer::context(&record.id);
        let payload = if request
            .context_ptr
            .parse::<Pointer>()
            .is_ok_and(|pointer| pointer == input)
        {
            self.payload(Some(&input)).await?
        } else {
            None
        };
        let key = format!("remediation:{}:{}", record.id, way.id);
        let mut request = changed(request, &record.id, &id, way);
        if payload.is_some() {
            request.context_ptr = Pointer::context(&id).to_string();
        }
        request
            .meta
            .get_or_insert_with(JobMetadata::default)
            .idempotency_key
            .clone_from(&key);
        let deadline = request
            .budget
            .and_then(|budget| u64::try_from(budget.deadline_ms).ok())
            .filter(|ms| *ms > 0)
            .map(|ms| now.plus(Duration::from_millis(ms)));
        let request = Arc::new(request);
        let job = NewJob {
            id: id.clone(),
            request: Arc::clone(&request),
            trace_id: record.trace_id.clone(),
            payload,
            idempotency: Some((tenant, key)),
            deadline,
            at: now,
        };
        let (job_id, trace_id) = match self.admit(job).await? {
            Some(earlier) => earlier,
            None => {
                let trace = record.trace_id.as_ref().map_or("", TraceId::as_str);
                self.announce_submit(&request, trace, subjects::GATEWAY, submit_message_id(&request))
                    .await;
                (id, record.trace_id.clone())
            }
        };
        Ok(Remediated {
            job_id,
            trace_id,
            remediation_id: way.id.clone(),
        })
    }
}

/// The way that was asked for, of those that the last decision offers.
fn choose<'a>(record: &'a JobRecord, id: &str) -> Result<&'a PolicyRemediation, RemediateError> {
    let ways = record
        .decision
        .as_ref()
        .map_or(&[][..], |decision| decision.remediations.as_slice());
    let offered = || ways.iter().map(|way| way.id.clone()).collect();
    let way = match (id.trim(), ways) {
        (_, []) => return Err(RemediateError::NoneOffered),
        ("", [way]) => way,
        ("", _) => return Err(RemediateError::Ambiguous { offered: offered() }),
        (id, ways) => ways
            .iter()
            .find(|way| way.id == id)
            .ok_or_else(|| RemediateError::Unknown {
                asked: id.to_owned(),
                offered: offered(),
            })?,
    };
    if way.replacement_topic.is_empty() || way.replacement_topic.starts_with("job.") {
        Ok(way)
    } else {
        Err(RemediateError::BadTopic {
            id: way.id.clone(),
            topic: way.replacement_topic.clone(),
        })
    }
}

/// The request as policy would rather have it: under a new id, without the marks of what became of the first job.
fn changed(mut request: JobRequest, from: &JobId, id: &JobId, way: &PolicyRemediation) -> JobRequest {
    request.job_id = id.to_string();
    request.env.remove(ENV_EFFECTIVE_CONFIG);
    if !way.replacement_topic.is_empty() {
        request.topic.clone_from(&way.replacement_topic);
    }
    let meta = request.meta.get_or_insert_with(JobMetadata::default);
    if !way.replacement_capability.is_empty() {
        meta.capability.clone_from(&way.replacement_capability);
    }
    for labels in [&mut request.labels, &mut meta.labels] {
        labels.retain(|name, _| {
            !labels::is_approval_label(name) && name != labels::BUS_MSG_ID && !way.remove_labels.contains(name)
        });
        for (name, value) in &way.add_labels {
            // Only people approve.
            if !labels::is_approval_label(name) {
                labels.insert(name.clone(), value.clone());
            }
        }
    }
    request.labels.insert(REMEDIATION_OF.to_owned(), from.to_string());
    request
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_changed_request_keeps_everything_else() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let old = JobId::try_new("old").expect("an id");
        let new = JobId::try_new("new").expect("an id");
        let request = JobRequest {
            job_id: "old".to_owned(),
            topic: "job.write".to_owned(),
            adapter_id: "a".to_owned(),
            labels: text(&[
                ("env", "prod"),
                ("keep", "1"),
                ("approval_granted", "true"),
                ("coretex.bus_msg_id", "m"),
            ]),
            env: text(&[("CORETEX_EFFECTIVE_CONFIG", "{}"), ("tenant_id", "t")]),
            meta: Some(JobMetadata {
                capability: "db.write".to_owned(),
                labels: text(&[("env", "prod")]),
                ..JobMetadata::default()
            }),
            ..JobRequest::default()
        };
        let way = PolicyRemediation {
            id: "read".to_owned(),
            replacement_topic: "job.read".to_owned(),
            replacement_capability: "db.read".to_owned(),
            add_labels: text(&[("dry_run", "true"), ("approval_granted", "true")]),
            remove_labels: vec!["env".to_owned()],
            ..PolicyRemediation::default()
        };
        let changed = changed(request, &old, &new, &way);
        assert_eq!((changed.job_id.as_str(), changed.topic.as_str()), ("new", "job.read"));
        assert_eq!(changed.adapter_id, "a");
        assert_eq!(
            changed.labels,
            text(&[("dry_run", "true"), ("keep", "1"), ("remediation_of", "old")])
        );
        assert_eq!(changed.env, text(&[("tenant_id", "t")]));
        let meta = changed.meta.expect("metadata");
        assert_eq!(meta.capability, "db.read");
        assert_eq!(meta.labels, text(&[("dry_run", "true")]));
        assert!(!labels::is_placement_label(REMEDIATION_OF));
    }
}
