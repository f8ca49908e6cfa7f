//! What would policy say? See `docs/spec/http.md` §13.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use coretex_core::jobs::DecisionRecord;
use coretex_core::policy::{Explanation, Question};
use coretex_core::protocol::agent::{Budget, ListSnapshotsResponse, PolicyCheckResponse};
use coretex_core::protocol::json::{Mode, to_json};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::gateway::body::Large;
use crate::gateway::error::ApiError;
use crate::gateway::json::Field;
use crate::gateway::{App, json};

json::request! {
    struct BudgetBody {
        max_input_tokens: i64,
        max_output_tokens: i64,
        max_total_tokens: i64,
        deadline_ms: i64,
    }
}

json::request! {
    struct MetaBody {
        tenant_id: String,
        actor_id: String,
        actor_type: String,
        idempotency_key: String,
        capability: String,
        risk_tags: Vec<String>,
        requires: Vec<String>,
        pack_id: String,
        labels: BTreeMap<String, String>,
    }
}

json::request! {
    /// A question, and policy texts to answer it by.
    struct CheckBody {
        job_id: String,
        topic: String,
        tenant: String,
        org_id: String,
        team_id: String,
        workflow_id: String,
        step_id: String,
        principal_id: String,
        priority: String,
        estimated_cost: f64,
        budget: Option<BudgetBody>,
        labels: BTreeMap<String, String>,
        memory_id: String,
        effective_config: Option<Box<RawValue>>,
        meta: MetaBody,
        drafts: BTreeMap<String, String>,
    }
}

impl Field for MetaBody {
    type Wire = Option<Self>;

    fn set(&mut self, wire: Self::Wire) {
        if let Some(body) = wire {
            *self = body;
        }
    }
}

impl Field for Option<BudgetBody> {
    type Wire = Self;

    fn set(&mut self, wire: Self) {
        *self = wire;
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CheckBody::deserialize(deserializer).map(Self::from)
    }
}

impl Field for Check {
    type Wire = Option<Self>;

    fn set(&mut self, wire: Self::Wire) {
        if let Some(check) = wire {
            *self = check;
        }
    }
}

/// A question, and policy texts to answer it by.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) question: Question,
    pub(super) drafts: BTreeMap<String, String>,
}

impl From<CheckBody> for Check {
    fn from(body: CheckBody) -> Self {
        let question = Question {
            job_id: body.job_id,
            topic: body.topic,
            tenant: body.tenant,
            org_id: body.org_id,
            team_id: body.team_id,
            workflow_id: body.workflow_id,
            step_id: body.step_id,
            principal_id: body.principal_id,
            priority: body.priority,
            estimated_cost: body.estimated_cost,
            budget: body.budget.map(|budget| Budget {
                max_input_tokens: budget.max_input_tokens,
                max_output_tokens: budget.max_output_tokens,
                max_total_tokens: budget.max_total_tokens,
                deadline_ms: budget.deadline_ms,
            }),
            labels: body.labels,
            memory_id: body.memory_id,
            effective_config: body.effective_config.map(|json| json.get().to_owned()),
            meta_tenant_id: body.meta.tenant_id,
            actor_id: body.meta.actor_id,
            actor_type: body.meta.actor_type,
            idempotency_key: body.meta.idempotency_key,
            capability: body.meta.capability,
            risk_tags: body.meta.risk_tags,
            requires: body.meta.requires,
            pack_id: body.meta.pack_id,
            meta_labels: body.meta.labels,
        };
        Self {
            question,
            drafts: body.drafts,
        }
    }
}

fn read(body: &[u8]) -> Result<Check, ApiError> {
    json::read(body, "invalid json")
}

/// `POST /api/v1/policy/evaluate`.
pub(super) async fn evaluate(State(app): State<Arc<App>>, Large(body): Large) -> Result<Response, ApiError> {
    let check = read(&body)?;
    Ok(answer(&app.services.checks.check(check.question).await?))
}

/// `POST /api/v1/policy/simulate`: with `drafts` by these, in the place of what is in force.
pub(super) async fn simulate(State(app): State<Arc<App>>, Large(body): Large) -> Result<Response, ApiError> {
    let check = read(&body)?;
    simulated(&app, check).await
}

/// Judges without telling why.
pub(super) async fn simulated(app: &App, check: Check) -> Result<Response, ApiError> {
    let checks = &app.services.checks;
    let decision = if check.drafts.is_empty() {
        checks.check(check.question).await?
    } else {
        checks.explain(check.question, &check.drafts).await?.0
    };
    Ok(answer(&decision))
}

/// `POST /api/v1/policy/explain`: takes `drafts`, too.
pub(super) async fn explain(State(app): State<Arc<App>>, Large(body): Large) -> Result<Response, ApiError> {
    let check = read(&body)?;
    let (decision, explanation) = app.services.checks.explain(check.question, &check.drafts).await?;
    explained(&decision, &explanation)
}

/// `GET /api/v1/policy/snapshots`.
pub(super) async fn snapshots(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshots = app.services.kernel.snapshots().await;
    let snapshots = snapshots.map_err(|error| super::kernel_unavailable(&error))?;
    Ok(protobuf(to_json(
        &ListSnapshotsResponse {
            snapshots,
            status: String::new(),
        },
        Mode::Full,
    )))
}

/// Fields from 100 on are not of this protocol's JSON, so that the answer is what clients know.
fn answer(decision: &DecisionRecord) -> Response {
    protobuf(to_json(&PolicyCheckResponse::from(decision), Mode::Full))
}

fn explained(decision: &DecisionRecord, explanation: &Explanation) -> Result<Response, ApiError> {
    let encode = |json: Result<String, serde_json::Error>| {
        json.map_err(|error| {
            tracing::error!(%error, "an explanation cannot be encoded");
            ApiError::internal()
        })
    };
    let mut json = to_json(&PolicyCheckResponse::from(decision), Mode::Full);
    json.pop();
    json.push_str(",\"matched\":");
    json.push_str(&encode(serde_json::to_string(&decision.matched))?);
    json.push_str(",\"explanation\":");
    json.push_str(&encode(serde_json::to_string(explanation))?);
    json.push('}');
    Ok(protobuf(json))
}

/// Protobuf JSON has no line end.
fn protobuf(json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
