//! Lists of runs: filters apply before the limit, and no run is skipped between pages.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use coretex_core::jobs::Cursor;
use coretex_core::jobs::service::{NextCursor, parse_cursor, parse_lower_bound, parse_upper_bound};
use coretex_core::time::Timestamp;
use coretex_core::workflow::store::{RunPage, RunQuery};
use coretex_core::workflow::view::{RunDocument, run_document, run_summary_json};
use coretex_core::workflow::{Run, RunId, RunStatus};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::gateway::error::ApiError;
use crate::gateway::query::Query;
use crate::gateway::{App, json};

/// How many whole runs a page has at most.
const WHOLE_MAX: usize = 200;
/// How many summaries.
const SUMMARY_MAX: usize = 1_000;
/// How many runs of one workflow are shown, as it always was.
const OF_WORKFLOW: usize = 100;

/// `GET /api/v1/workflow-runs`.
pub(super) async fn all(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        items: Vec<Shown<'a>>,
        next_cursor: Option<NextCursor>,
    }

    let shape = Shape::of(&query);
    let (runs, next_cursor) = match filter(&query) {
        Some(filter) => page(&app, filter, query.limit(50).min(shape.limit_max())).await?,
        // No run is in an unknown status.
        None => (Vec::new(), None),
    };
    Ok(json::ok(&List {
        items: runs.iter().map(|run| shape.show(run)).collect(),
        next_cursor,
    }))
}

/// `GET /api/v1/workflows/{id}/runs`.
pub(in crate::gateway) async fn of_workflow(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let shape = Shape::of(&query);
    let page = app
        .workflows()
        .runs(&RunQuery {
            workflow_id: Some(id),
            limit: query.limit(OF_WORKFLOW).min(OF_WORKFLOW),
            ..RunQuery::default()
        })
        .await?;
    let runs: Vec<Shown<'_>> = page.runs.iter().map(|run| shape.show(run)).collect();
    Ok(json::ok(&runs))
}

/// `None` if no run can fit.
fn filter(query: &Query) -> Option<RunQuery> {
    let status = match query.text("status") {
        Some(word) => Some(RunStatus::ALL.into_iter().find(|status| status.as_str() == word)?),
        None => None,
    };
    let mut updated_before = query.text("updated_before").and_then(parse_upper_bound);
    let mut after = None;
    match query.text("cursor").and_then(parse_cursor) {
        // A bare time is the inclusive upper bound of the page, as older clients know it.
        Some(Cursor { at, id }) if id.is_empty() => {
            updated_before = Some(updated_before.map_or(at, |before: Timestamp| before.min(at)));
        }
        Some(Cursor { at, id }) => after = Some((at, RunId::new(&id))),
        None => {}
    }
    Some(RunQuery {
        workflow_id: query.owned("workflow_id"),
        status,
        org_id: query.owned("org_id"),
        team_id: query.owned("team_id"),
        updated_after: query.text("updated_after").and_then(parse_lower_bound),
        updated_before,
        after,
        limit: 0,
    })
}

/// One more than asked for tells whether there is a next page, and where it begins.
async fn page(app: &App, filter: RunQuery, limit: usize) -> Result<(Vec<Run>, Option<NextCursor>), ApiError> {
    let page = app
        .workflows()
        .runs(&RunQuery {
            limit: limit + 1,
            ..filter
        })
        .await?;
    Ok(cut(page, limit))
}

fn cut(page: RunPage, limit: usize) -> (Vec<Run>, Option<NextCursor>) {
    let after = |(at, id): (Timestamp, RunId)| {
        NextCursor::After(Cursor {
            at,
            id: id.as_str().to_owned(),
        })
    };
    let place = |run: &Run| (run.head.updated_at, run.id.clone());
    let mut runs = page.runs;
    let Some(next) = runs.get(limit).map(place) else {
        return (runs, page.next.map(after));
    };
    runs.truncate(limit);
    let last = runs.last().map(place);
    let cursor = match last {
        // Times that differ can be told apart by a number.
        Some((at, _)) if next.0 < at => NextCursor::Time(next.0),
        Some(last) => after(last),
        None => NextCursor::Time(next.0),
    };
    (runs, Some(cursor))
}

/// How much of each run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    Summary,
}

/// A run as it is shown.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    Whole(Box<RunDocument<'a>>),
    Summary(Value),
}

impl Shape {
    /// `fields=summary` leaves out what can be large.
    pub(super) fn of(query: &Query) -> Self {
        if query.text("fields") == Some("summary") {
            Self::Summary
        } else {
            Self::Whole
        }
    }

    fn limit_max(self) -> usize {
        match self {
            Self::Whole => WHOLE_MAX,
            Self::Summary => SUMMARY_MAX,
        }
    }

    pub(super) fn show(self, run: &Run) -> Shown<'_> {
        match self {
            Self::Whole => Shown::Whole(Box::new(run_document(run))),
            Self::Summary => Shown::Summary(summary(run)),
        }
    }
}

/// A run without input, context, output and steps, but with how many steps are where.
fn summary(run: &Run) -> Value {
    let mut json = run_summary_json(run);
    if let Value::Object(members) = &mut json {
        members.remove("output");
        let mut counts: Map<String, Value> = Map::new();
        for status in RunStatus::ALL {
            let count = run.steps.values().filter(|record| record.status == status).count();
            if count > 0 {
                counts.insert(status.as_str().to_owned(), count.into());
            }
        }
        members.insert("step_counts".to_owned(), counts.into());
    }
    json
}

#[cfg(test)]
mod tests {
    use coretex_core::workflow::RunHead;

    use super::*;

    fn run(id: &str, at: i64) -> Run {
        let mut run = Run::new(RunId::new(id), RunHead::default(), Value::Null);
        run.head.updated_at = Timestamp::from_micros(at);
        run
    }

    fn cursor(times: &[i64], limit: usize) -> Option<String> {
        let runs = times.iter().zip(["c", "b", "a"]).map(|(at, id)| run(id, *at)).collect();
        let (_, next) = cut(RunPage { runs, next: None }, limit);
        next.map(|next| serde_json::to_string(&next).unwrap())
    }

    /// A number where it is exact, as older clients expect; a text where several runs share the time.
    #[test]
    fn pages_end_where_the_next_begins() {
        assert_eq!(cursor(&[3, 2], 2), None);
        assert_eq!(cursor(&[3, 2, 1], 2).as_deref(), Some("1"));
        assert_eq!(cursor(&[3, 2, 2], 2).as_deref(), Some("\"2.Yg\""));
    }
}
