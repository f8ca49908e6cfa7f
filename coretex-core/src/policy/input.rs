//! What is judged. See `docs/spec/policy.md` §2.

use std::collections::BTreeMap;

use super::effective::EffectiveSafety;
use super::fold;
use super::mcp::McpUse;
use crate::protocol::agent::{ActorType, JobMetadata, PolicyCheckRequest};

/// A request, normalised. Borrows everything.
#[derive(Debug, Clone)]
pub struct PolicyInput<'a> {
    pub(super) topic: &'a str,
    /// Empty if the request names none.
    pub(super) tenant: &'a str,
    pub(super) actor_id: &'a str,
    pub(super) actor_type: &'static str,
    pub(super) capability: &'a str,
    pub(super) pack_id: &'a str,
    pub(super) risk_tags: &'a [String],
    pub(super) requires: &'a [String],
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) secrets_present: bool,
    pub(super) mcp: McpUse<'a>,
    pub(super) effective: Option<&'a EffectiveSafety>,
}

impl<'a> PolicyInput<'a> {
    /// Normalises `request`. Its effective configuration is not looked at:
    /// [`with_effective`](Self::with_effective) adds it, parsed.
    pub fn new(request: &'a PolicyCheckRequest) -> Self {
        let meta = request.meta.as_ref();
        let text = |field: Option<&'a String>| field.map_or("", String::as_str);
        let risk_tags = meta.map_or(&[][..], |meta| &meta.risk_tags);
        Self {
            topic: request.topic.trim(),
            tenant: first_of([request.tenant.trim(), text(meta.map(|meta| &meta.tenant_id)).trim()]),
            actor_id: first_of([text(meta.map(|meta| &meta.actor_id)), &request.principal_id]),
            actor_type: match meta.map(JobMetadata::actor_type) {
                Some(ActorType::Human) => "human",
                Some(ActorType::Service) => "service",
                _ => "",
            },
            capability: text(meta.map(|meta| &meta.capability)),
            pack_id: text(meta.map(|meta| &meta.pack_id)),
            risk_tags,
            requires: meta.map_or(&[][..], |meta| &meta.requires),
            labels: &request.labels,
            secrets_present: secrets_present(&request.labels, risk_tags),
            mcp: McpUse::from_labels(&request.labels),
            effective: None,
        }
    }

    /// Adds what the configuration of the job's tenant, team, workflow and step says.
    #[must_use]
    pub fn with_effective(mut self, effective: &'a EffectiveSafety) -> Self {
        self.effective = Some(effective);
        self
    }
}

fn first_of<const N: usize>(texts: [&str; N]) -> &str {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// A tag cannot be taken back by a label: either is enough.
fn secrets_present(labels: &BTreeMap<String, String>, risk_tags: &[String]) -> bool {
    risk_tags.iter().any(|tag| fold::is("secrets", tag))
        || labels
            .get("secrets_present")
            .is_some_and(|label| ["true", "1", "yes", "y", "on"].iter().any(|word| fold::is(word, label)))
}
