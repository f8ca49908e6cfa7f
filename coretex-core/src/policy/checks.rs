//! Questions to the kernel from outside of scheduling: what would it say? See `docs/spec/policy.md` §13.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DocumentError, Drafts, ExplainError, Explanation, Kernel, Unavailable};
use crate::config::{ConfigService, Scopes};
use crate::error::StoreError;
use crate::jobs::DecisionRecord;
use crate::protocol::TenantId;
use crate::protocol::agent::{ActorType, Budget, JobMetadata, JobPriority, PolicyCheckRequest};
use crate::time::Clock;

/// A job that might be, as somebody describes it.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Its id, for the approval reference.
    pub job_id: String,
    /// Its topic; must be given.
    pub topic: String,
    /// Its tenant; blank stands for the organisation, then for the default tenant.
    pub tenant: String,
    /// Whose configuration counts; blank stands for the tenant's.
    pub org_id: String,
    /// Whose configuration counts.
    pub team_id: String,
    /// Whose configuration counts.
    pub workflow_id: String,
    /// Whose configuration counts.
    pub step_id: String,
    /// Who asks for it.
    pub principal_id: String,
    /// `batch`, `critical`; all else is interactive.
    pub priority: String,
    /// What it may cost.
    pub estimated_cost: f64,
    /// What it may use.
    pub budget: Option<Budget>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its memory.
    pub memory_id: String,
    /// JSON text that stands for the configuration of its scopes.
    pub effective_config: Option<String>,
    /// The tenant, if it is another.
    pub meta_tenant_id: String,
    /// Who acts; blank stands for the principal.
    pub actor_id: String,
    /// `human` or `service`; all else is neither.
    pub actor_type: String,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// What it needs.
    pub capability: String,
    /// What is risky about it.
    pub risk_tags: Vec<String>,
    /// What its worker must offer.
    pub requires: Vec<String>,
    /// The pack it belongs to.
    pub pack_id: String,
    /// Labels of its metadata; they decide nothing.
    pub meta_labels: BTreeMap<String, String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// No topic was given.
    #[error("topic is required")]
    TopicRequired,
    /// A draft is refused.
    #[error("parse policy bundle {document:?}: {0}", document = .0.document)]
    Draft(#[source] DocumentError),
    /// The kernel did not answer.
    #[error("safety kernel unavailable")]
    Unavailable(#[from] Unavailable),
    /// The configuration of the scopes cannot be read. It may hold a ban.
    #[error("config store failed")]
    Store(#[from] StoreError),
}

impl From<ExplainError> for CheckError {
    fn from(error: ExplainError) -> Self {
        match error {
            ExplainError::Unavailable(error) => Self::Unavailable(error),
            ExplainError::Draft(error) => Self::Draft(error),
        }
    }
}

/// Asks the kernel. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checks {
    kernel: Arc<dyn Kernel>,
    config: ConfigService,
    default_tenant: TenantId,
    clock: Clock,
}

impl Checks {
    /// Asks `kernel`, with the configuration of `config`.
    pub fn new(kernel: Arc<dyn Kernel>, config: ConfigService, default_tenant: TenantId, clock: Clock) -> Self {
        Self {
            kernel,
            config,
            default_tenant,
            clock,
        }
    }

    /// What the kernel says.
    ///
    /// # Errors
    /// [`CheckError`] says why it says nothing.
    pub async fn check(&self, question: Question) -> Result<DecisionRecord, CheckError> {
        let request = self.request(question).await?;
        Ok(self.kernel.check(&request, self.clock.now()).await?)
    }

    /// What the kernel says and why, with `drafts` in the place of what is in force.
    ///
    /// # Errors
    /// [`CheckError`] says why it says nothing.
    pub async fn explain(
        &self,
        question: Question,
        drafts: &Drafts,
    ) -> Result<(DecisionRecord, Explanation), CheckError> {
        let request = self.request(question).await?;
        Ok(self.kernel.explain(&request, drafts, self.clock.now()).await?)
    }

    async fn request(&self, question: Question) -> Result<PolicyCheckRequest, CheckError> {
        if question.topic.trim().is_empty() {
            return Err(CheckError::TopicRequired);
        }
        let default_tenant = self.default_tenant.as_str();
        let effective_config = match &question.effective_config {
            Some(json) => json.clone().into_bytes(),
            None => {
                let scopes = Scopes {
                    org: first([&question.org_id, &question.tenant, default_tenant]),
                    team: question.team_id.clone(),
                    workflow: question.workflow_id.clone(),
                    step: question.step_id.clone(),
                };
                let snapshot = self.config.effective(&scopes).await?;
                serde_json::to_vec(&snapshot).unwrap_or_default()
            }
        };
        Ok(question.into_request(default_tenant, effective_config))
    }
}

impl Question {
    /// The question as the protocol puts it, for the tenant that it names, or its organisation, or else `default_tenant`.
    pub(super) fn into_request(self, default_tenant: &str, effective_config: Vec<u8>) -> PolicyCheckRequest {
        let question = self;
        let tenant = first([&question.tenant, &question.org_id, default_tenant]);
        let principal_id = trimmed(&question.principal_id);
        let meta = JobMetadata {
            tenant_id: first([&question.meta_tenant_id, &tenant]),
            actor_id: first([&question.actor_id, &principal_id]),
            actor_type: actor_type(&question.actor_type).into(),
            idempotency_key: trimmed(&question.idempotency_key),
            capability: trimmed(&question.capability),
            risk_tags: question.risk_tags,
            requires: question.requires,
            pack_id: trimmed(&question.pack_id),
            labels: question.meta_labels,
        };
        PolicyCheckRequest {
            job_id: trimmed(&question.job_id),
            topic: trimmed(&question.topic),
            tenant,
            priority: priority(&question.priority).into(),
            estimated_cost: question.estimated_cost,
            budget: question.budget,
            principal_id,
            labels: question.labels,
            memory_id: trimmed(&question.memory_id),
            effective_config,
            meta: Some(meta),
            ..PolicyCheckRequest::default()
        }
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// The first that is not blank, trimmed.
fn first<const N: usize>(texts: [&str; N]) -> String {
    texts
        .into_iter()
        .map(str::trim)
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn actor_type(word: &str) -> ActorType {
    match word.trim().to_ascii_lowercase().as_str() {
        "human" => ActorType::Human,
        "service" => ActorType::Service,
        _ => ActorType::Unspecified,
    }
}

fn priority(word: &str) -> JobPriority {
    match word.trim().to_ascii_lowercase().as_str() {
        "batch" => JobPriority::Batch,
        "critical" => JobPriority::Critical,
        _ => JobPriority::Interactive,
    }
}
