//! How jobs are found. Everything here reads one snapshot.

use std::ops::{ControlFlow, Range};

use super::super::keys;
use super::super::kv::{Order, View, corrupt};
use super::super::row::DecisionRow;
use super::change::load;
use crate::error::StoreError;
use crate::jobs::{
    Cursor, DecisionPage, DecisionQuery, DecisionRecord, JobRecord, JobState, ListQuery, LoggedDecision, Page,
    ScanItem, Source,
};
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

fn job_id(id: &str) -> Result<JobId, StoreError> {
    JobId::try_new(id).map_err(|error| corrupt("an index of jobs", error))
}

fn record(view: &dyn View, id: JobId) -> Result<Option<JobRecord>, StoreError> {
    load(view, id.as_str())?.map(|row| row.into_record(id)).transpose()
}

pub(super) fn records(view: &dyn View, ids: &[JobId]) -> Result<Vec<Option<JobRecord>>, StoreError> {
    ids.iter().map(|id| record(view, id.clone())).collect()
}

/// The part of a state's index that comes after a cursor.
fn range_after(state: JobState, after: Option<&Cursor>, order: Order) -> Range<Vec<u8>> {
    let mut range = keys::all_in_state(state);
    if let Some(Cursor { at, id }) = after {
        match (order, id.is_empty()) {
            // The bare time's own jobs are in.
            (Order::Descending, true) => range.end = keys::in_state(state, keys::after(*at), ""),
            (Order::Descending, false) => range.end = keys::in_state(state, *at, id),
            (Order::Ascending, true) => range.start = keys::in_state(state, *at, ""),
            (Order::Ascending, false) => {
                range.start = keys::in_state(state, *at, id);
                range.start.push(0);
            }
        }
    }
    range
}

/// The first `limit` entries of a range of one state's index.
fn entries(
    view: &dyn View,
    range: &Range<Vec<u8>>,
    order: Order,
    limit: usize,
) -> Result<Vec<(Timestamp, String)>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let mut wrong = None;
    view.scan(&range.start..&range.end, order, &mut |key, _| {
        match keys::parse_in_state(key) {
            Some((at, id)) => found.push((at, id.to_owned())),
            None => wrong = Some(corrupt("an index of jobs", "a key has another shape")),
        }
        if wrong.is_some() || found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    wrong.map_or(Ok(found), Err)
}

pub(super) fn list(view: &dyn View, query: &ListQuery) -> Result<Page, StoreError> {
    let (states, order): (&[JobState], Order) = match &query.source {
        Source::Recent => (&JobState::ALL, Order::Descending),
        Source::State(state) => (std::slice::from_ref(state), Order::Descending),
        Source::StateOldestFirst(state) => (std::slice::from_ref(state), Order::Ascending),
    };
    if query.limit == 0 {
        return Ok(Page::default());
    }
    // One more than asked for says whether there is a next page.
    let wanted = query.limit.saturating_add(1);
    let mut found = Vec::new();
    for state in states {
        let range = range_after(*state, query.after.as_ref(), order);
        found.extend(entries(view, &range, order, wanted)?);
    }
    found.sort_unstable();
    if order == Order::Descending {
        found.reverse();
    }
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next = found.last().filter(|_| more).map(|(at, id)| Cursor {
        at: *at,
        id: id.clone(),
    });
    let mut jobs = Vec::with_capacity(found.len());
    for (_, id) in &found {
        jobs.extend(record(view, job_id(id)?)?);
    }
    Ok(Page { jobs, next })
}

pub(super) fn scan(
    view: &dyn View,
    state: JobState,
    until: Timestamp,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Vec<ScanItem>, StoreError> {
    let mut range = range_after(state, after, Order::Ascending);
    range.end = range.end.min(keys::in_state(state, keys::after(until), ""));
    let mut items = Vec::new();
    for (at, id) in entries(view, &range, Order::Ascending, limit)? {
        let Some(row) = load(view, &id)? else { continue };
        items.push(ScanItem {
            id: job_id(&id)?,
            revision: crate::jobs::Revision(at),
            owner: row.owner(),
            worker_id: row.worker(),
            accepted: row.accepted_at.is_some(),
        });
    }
    Ok(items)
}

/// Ids that `parse` finds in the keys of a range, at most `limit`.
pub(super) fn ids(
    view: &dyn View,
    range: &Range<Vec<u8>>,
    limit: usize,
    parse: impl Fn(&[u8]) -> Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    view.scan(&range.start..&range.end, Order::Ascending, &mut |key, _| {
        found.extend(parse(key).map(ToOwned::to_owned));
        if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}

pub(super) fn due(view: &dyn View, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
    let range = keys::deadlines_until(now);
    ids(view, &range, limit, |key| keys::parse_deadline(key).map(|(_, id)| id))?
        .iter()
        .map(|id| job_id(id))
        .collect()
}

pub(super) fn trace(view: &dyn View, trace: &TraceId, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
    /// A trace may grow without bound; so much of it is looked at.
    const MAX_LOOKED_AT: usize = 10_000;
    let range = keys::trace(trace.as_str());
    let prefix = range.start.len();
    let ids = ids(view, &range, MAX_LOOKED_AT, |key| {
        std::str::from_utf8(key.get(prefix..)?).ok()
    })?;
    let mut jobs = Vec::with_capacity(ids.len());
    for id in &ids {
        jobs.extend(record(view, job_id(id)?)?);
    }
    jobs.sort_by(|a, b| (a.revision, &a.id).cmp(&(b.revision, &b.id)));
    jobs.truncate(limit);
    Ok(jobs)
}

pub(super) fn decisions(view: &dyn View, id: &JobId, limit: usize) -> Result<Vec<DecisionRecord>, StoreError> {
    let mut found = Vec::new();
    let Some(row) = load(view, id.as_str())? else {
        return Ok(found);
    };
    if limit == 0 {
        return Ok(found);
    }
    let last = keys::decision(id.as_str(), row.decisions);
    // Earlier versions kept the last decision only in the row.
    if let Some(decision) = row.decision
        && view.get(&last)?.is_none()
    {
        found.push(decision.into_record(id.as_str())?);
    }
    let range = keys::decisions(id.as_str());
    let mut wrong = None;
    if found.len() < limit {
        view.scan(&range.start..&range.end, Order::Descending, &mut |_, value| {
            match DecisionRow::decode_for(id.as_str(), value) {
                Ok(decision) => found.push(decision),
                Err(error) => wrong = Some(error),
            }
            if wrong.is_some() || found.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    wrong.map_or(Ok(found), Err)
}

/// Entries of the log that one call looks at, at most.
const MAX_LOOKED_AT: usize = 2_000;

/// The part of the log that a query asks for.
fn log_range(query: &DecisionQuery) -> Range<Vec<u8>> {
    let mut range = keys::log();
    if let Some(from) = query.from {
        range.start = keys::logged_from(from);
    }
    if let Some(until) = query.until {
        range.end = keys::logged_from(until);
    }
    if let Some(Cursor { at, id }) = &query.after {
        let end = match id.rsplit_once('|').map(|(id, number)| (id, number.parse())) {
            Some((id, Ok(number))) => keys::logged(*at, id, number),
            // The bare time's own decisions are in.
            _ => keys::logged_from(keys::after(*at)),
        };
        range.end = range.end.min(end);
    }
    range
}

/// The place of a decision in the log.
fn place(at: Timestamp, id: &str, number: u32) -> Cursor {
    Cursor {
        at,
        id: format!("{id}|{number}"),
    }
}

pub(super) fn decision_log(view: &dyn View, query: &DecisionQuery) -> Result<DecisionPage, StoreError> {
    if query.limit == 0 {
        return Ok(DecisionPage::default());
    }
    let range = log_range(query);
    let mut entries = Vec::new();
    let wanted = query.limit.saturating_add(1).min(MAX_LOOKED_AT);
    view.scan(&range.start..&range.end, Order::Descending, &mut |key, _| {
        entries.extend(keys::parse_logged(key).map(|(at, id, number)| (at, id.to_owned(), number)));
        if entries.len() == wanted {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let more = entries.len() == wanted;
    entries.truncate(wanted - 1);
    let next = entries
        .last()
        .filter(|_| more)
        .map(|(at, id, number)| place(*at, id, *number));
    let mut items = Vec::with_capacity(entries.len());
    for (at, id, number) in &entries {
        if let Some(bytes) = view.get(&keys::decision(id, *number))? {
            items.push(LoggedDecision {
                job_id: job_id(id)?,
                decision: DecisionRow::decode_for(id, &bytes)?,
                cursor: place(*at, id, *number),
            });
        }
    }
    Ok(DecisionPage { items, next })
}

pub(super) fn approvals_due(view: &dyn View, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
    let range = keys::approvals_due_until(now);
    ids(view, &range, limit, |key| {
        keys::parse_approval_due(key).map(|(_, id)| id)
    })?
    .iter()
    .map(|id| job_id(id))
    .collect()
}

/// Keys of the log before `until`, at most `limit`.
pub(super) fn outlived_decisions(view: &dyn View, until: Timestamp, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let range = keys::logged_before(until);
    let mut found = Vec::new();
    view.scan(&range.start..&range.end, Order::Ascending, &mut |key, _| {
        found.push(key.to_vec());
        if found.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}
