//! What is stored of a request and of an ending beside the job's state, the same on every backend.

use std::collections::BTreeMap;

use super::JobState;
use crate::protocol::JobId;
use crate::protocol::agent::{ActorType, JobRequest};
use crate::time::Timestamp;

/// The descriptive fields of a [`JobRecord`](super::JobRecord), as its request gives them (docs/spec/storage.md §2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its topic.
    pub topic: String,
    /// Its tenant: that of the metadata, else the request's, else the one in `env`, else empty.
    pub tenant: String,
    /// Its team, from `env`.
    pub team: String,
    /// Who it runs for.
    pub principal: String,
    /// Who asked: the metadata's actor, else the principal.
    pub actor_id: String,
    /// `human`, `service` or empty.
    pub actor_type: String,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// The capability it needs.
    pub capability: String,
    /// Its risk tags.
    pub risk_tags: Vec<String>,
    /// What its pool must offer.
    pub requires: Vec<String>,
    /// The pack it belongs to.
    pub pack_id: String,
    /// Its memory.
    pub memory_id: String,
    /// The labels of the request, overlaid by those of its metadata.
    pub labels: BTreeMap<String, String>,
}

impl Description {
    /// What `request` says.
    pub fn of(request: &JobRequest) -> Self {
        let meta = request.meta.clone().unwrap_or_default();
        let env = |name: &str| request.env.get(name).cloned().unwrap_or_default();
        let mut labels = request.labels.clone();
        let actor_type = match meta.actor_type() {
            ActorType::Human => "human",
            ActorType::Service => "service",
            ActorType::Unspecified => "",
        };
        labels.extend(meta.labels);
        Self {
            topic: request.topic.clone(),
            tenant: first([meta.tenant_id, request.tenant_id.clone(), env("tenant_id")]),
            team: env("team_id"),
            principal: request.principal_id.clone(),
            actor_id: first([meta.actor_id, request.principal_id.clone(), String::new()]),
            actor_type: actor_type.to_owned(),
            idempotency_key: meta.idempotency_key,
            capability: meta.capability,
            risk_tags: meta.risk_tags,
            requires: meta.requires,
            pack_id: meta.pack_id,
            memory_id: request.memory_id.clone(),
            labels,
        }
    }
}

fn first(candidates: [String; 3]) -> String {
    candidates.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// The error document that stands in for the result of a job that ended without one (docs/spec/storage.md §5).
pub fn error_document(job: &JobId, state: JobState, message: &str, at: Timestamp) -> Vec<u8> {
    serde_json::json!({
        "completed_at": at.rfc3339_secs(),
        "error": {"message": message},
        "job_id": job.as_str(),
        "processed_by": "coretex-scheduler",
        "status": state.status().as_str_name(),
    })
    .to_string()
    .into_bytes()
}
