//! The log of decisions. See `docs/spec/http.md` §12.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use coretex_core::decisions::{DecisionFilter, DecisionItem, DecisionList, DecisionLog};
use coretex_core::jobs::Decision;
use coretex_core::jobs::service::{parse_cursor, parse_lower_bound, parse_upper_bound};
use coretex_core::protocol::JobId;
use coretex_core::protocol::constraints::constraints_snake_json;
use coretex_core::protocol::json::{Mode, to_json};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::query::Query;
use super::{App, json};

#[derive(Serialize)]
struct Item<'a> {
    job_id: &'a str,
    topic: &'a str,
    tenant: &'a str,
    decision: &'static str,
    reason: &'a str,
    rule_id: &'a str,
    policy_snapshot: &'a str,
    constraints: Option<Value>,
    approval_required: bool,
    matched: &'a [String],
    checked_at: i64,
    input: Option<Box<RawValue>>,
}

impl<'a> From<&'a DecisionItem> for Item<'a> {
    fn from(item: &'a DecisionItem) -> Self {
        let decision = &item.decision;
        Self {
            job_id: item.job_id.as_str(),
            topic: &item.topic,
            tenant: &item.tenant,
            decision: decision.decision.as_str(),
            reason: &decision.reason,
            rule_id: &decision.rule_id,
            policy_snapshot: &decision.policy_snapshot,
            constraints: decision.constraints.as_ref().map(constraints_snake_json),
            approval_required: decision.approval_required,
            matched: &decision.matched,
            checked_at: decision.checked_at.micros(),
            input: decision
                .input
                .as_deref()
                .and_then(|input| RawValue::from_string(to_json(input, Mode::Snake)).ok()),
        }
    }
}

/// `None` if no decision can fit.
fn filter(query: &Query) -> Option<DecisionFilter> {
    let job_id = query.text("job_id").map(JobId::try_new).transpose().ok()?;
    let decision = query
        .text("decision")
        .map(|text| text.to_ascii_uppercase().parse::<Decision>())
        .transpose()
        .ok()?;
    Some(DecisionFilter {
        job_id,
        rule: query.owned("rule"),
        topic: query.owned("topic"),
        tenant: query.owned("tenant"),
        decision,
        from: query.text("from").and_then(parse_lower_bound),
        // Bounds in queries are inclusive.
        until: query
            .text("until")
            .and_then(parse_upper_bound)
            .map(|until| until.plus(Duration::from_micros(1))),
        cursor: query.text("cursor").and_then(parse_cursor),
        limit: query.limit(50),
    })
}

/// `GET /api/v1/decisions`.
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        items: Vec<Item<'a>>,
        next_cursor: Option<String>,
    }

    let page = match filter(&query) {
        Some(filter) => {
            DecisionLog::new(Arc::clone(&app.services.stores.jobs))
                .list(&filter)
                .await?
        }
        None => DecisionList::default(),
    };
    Ok(json::ok(&List {
        items: page.items.iter().map(Item::from).collect(),
        next_cursor: page.next.as_ref().map(ToString::to_string),
    }))
}
