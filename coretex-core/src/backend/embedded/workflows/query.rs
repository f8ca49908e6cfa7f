//! How runs are read and found. Everything here reads one snapshot.

use std::ops::{ControlFlow, Range};

use super::super::kv::{Order, View, corrupt};
use super::change::{Meta, meta, of_run};
use super::keys::{self, ByTime, Kind, part};
use crate::backend::run_parts::{self, decoded};
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::event::{EffectId, TimelineEvent};
use crate::workflow::store::{RunPage, RunQuery, TimelineOrder, Waiting};
use crate::workflow::{Run, RunHead, RunId, RunStatus, StepKey};

/// So many entries of a list are looked at for one page, so that a filter nothing fits ends.
const EXAMINED: usize = 20_000;
/// So many at once.
const BATCH: usize = 256;

/// Visits a range until an error.
pub(super) fn each(
    view: &dyn View,
    range: &Range<Vec<u8>>,
    order: Order,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut wrong = None;
    view.scan(&range.start..&range.end, order, &mut |key, value| {
        visit(key, value).unwrap_or_else(|error| {
            wrong = Some(error);
            ControlFlow::Break(())
        })
    })?;
    wrong.map_or(Ok(()), Err)
}

/// The steps of the keys of one kind of one run, with their values.
fn parts<T: serde::de::DeserializeOwned>(
    view: &dyn View,
    run: &RunId,
    kind: Kind,
    what: &str,
) -> Result<Vec<(StepKey, T)>, StoreError> {
    let range = keys::all(kind, &[&part(run.as_str())]);
    let mut found = Vec::new();
    each(view, &range, Order::Ascending, |key, value| {
        let step = key
            .get(range.start.len()..)
            .and_then(|step| std::str::from_utf8(step).ok())
            .ok_or_else(|| run_parts::corrupt(run, what, "its key is no text"))?;
        found.push((StepKey::new(step), decoded(run, what, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(super) fn load(view: &dyn View, run: &RunId) -> Result<Option<Run>, StoreError> {
    let Some(meta) = meta(view, run)? else {
        return Ok(None);
    };
    load_at(view, run, &meta).map(Some)
}

fn load_at(view: &dyn View, run: &RunId, meta: &Meta) -> Result<Run, StoreError> {
    let missing = |part| run_parts::corrupt(run, part, "it is not there");
    let head = view.get(&of_run(Kind::Head, run))?.ok_or_else(|| missing("the head"))?;
    let head: RunHead = decoded(run, "the head", &head)?;
    let input = view
        .get(&of_run(Kind::Input, run))?
        .ok_or_else(|| missing("the input"))?;
    let mut it = Run::new(run.clone(), head, decoded(run, "the input", &input)?);
    it.revision = meta.revision;
    if let Some(context) = view.get(&of_run(Kind::Context, run))? {
        it.context = decoded(run, "the context", &context)?;
    }
    it.steps = parts(view, run, Kind::Step, "a step")?.into_iter().collect();
    it.items = parts(view, run, Kind::Items, "the items")?.into_iter().collect();
    let range = keys::all(Kind::Effect, &[&part(run.as_str())]);
    each(view, &range, Order::Ascending, |key, value| {
        let id = key
            .get(range.start.len()..)
            .and_then(|id| <[u8; 8]>::try_from(id).ok())
            .map(EffectId::from_be_bytes)
            .ok_or_else(|| run_parts::corrupt(run, "an effect", "its key is no number"))?;
        it.outbox.insert(id, decoded(run, "an effect", value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    it.index_timers();
    Ok(it)
}

/// Everything that a run consists of, but for lists: the keys, and the steps that wait for people.
pub(super) fn parts_of(view: &dyn View, run: &RunId) -> Result<(Vec<Vec<u8>>, Vec<String>), StoreError> {
    let own = part(run.as_str());
    let mut found = vec![
        of_run(Kind::Meta, run),
        of_run(Kind::Head, run),
        of_run(Kind::Input, run),
        of_run(Kind::Context, run),
    ];
    for kind in [Kind::Step, Kind::Items, Kind::Effect, Kind::Timeline] {
        each(view, &keys::all(kind, &[&own]), Order::Ascending, |key, _| {
            found.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let range = keys::all(Kind::Waiting, &[&own]);
    let mut waiting = Vec::new();
    each(view, &range, Order::Ascending, |key, _| {
        let step = key
            .get(range.start.len()..)
            .and_then(|step| std::str::from_utf8(step).ok());
        waiting.extend(step.map(str::to_owned));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, waiting))
}

fn fits(query: &RunQuery, meta: &Meta) -> bool {
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    is(&query.workflow_id, &meta.workflow_id)
        && is(&query.org_id, &meta.org_id)
        && is(&query.team_id, &meta.team_id)
        && query.status.is_none_or(|status| status == meta.status)
}

/// The lists that together hold everything a query may find.
fn sources(query: &RunQuery) -> Vec<ByTime> {
    if let Some(workflow) = &query.workflow_id {
        vec![ByTime::within(Kind::OfWorkflow, workflow)]
    } else if let Some(status) = query.status {
        vec![ByTime::in_status(status)]
    } else if let Some(org) = &query.org_id {
        vec![ByTime::within(Kind::OfOrg, org)]
    } else {
        RunStatus::ALL.into_iter().map(ByTime::in_status).collect()
    }
}

/// The next entries of all lists together, latest first, after the one given.
fn batch(
    view: &dyn View,
    lists: &[ByTime],
    query: &RunQuery,
    after: Option<&(Timestamp, RunId)>,
) -> Result<Vec<(Timestamp, RunId)>, StoreError> {
    let mut found = Vec::new();
    for list in lists {
        let mut range = list.range();
        if let Some(from) = query.updated_after {
            range.start = list.at(from, &[]);
        }
        if let Some(until) = query.updated_before {
            range.end = list.after(until);
        }
        if let Some((at, run)) = after {
            range.end = range.end.min(list.at(*at, run.as_str().as_bytes()));
        }
        let mut count = 0;
        each(view, &range, Order::Descending, |key, _| {
            let entry = list
                .parse(key)
                .and_then(|(at, run)| Some((at, RunId::new(std::str::from_utf8(run).ok()?))))
                .ok_or_else(|| corrupt("a list of runs", "a key has another shape"))?;
            found.push(entry);
            count += 1;
            Ok(if count == BATCH {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
    }
    // Of every list, what is not among the latest comes with the next batch.
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(BATCH);
    Ok(found)
}

pub(super) fn list(view: &dyn View, query: &RunQuery) -> Result<RunPage, StoreError> {
    let mut page = RunPage::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let lists = sources(query);
    let mut last = query.after.clone();
    let mut examined = 0;
    loop {
        let entries = batch(view, &lists, query, last.as_ref())?;
        if entries.is_empty() {
            return Ok(page);
        }
        examined += entries.len();
        for entry in entries {
            let meta = meta(view, &entry.1);
            if let Ok(Some(meta)) = meta
                && fits(query, &meta)
                && let Ok(run) = load_at(view, &entry.1, &meta)
            {
                if page.runs.len() == query.limit {
                    page.next = last;
                    return Ok(page);
                }
                page.runs.push(run);
            }
            last = Some(entry);
        }
        if examined >= EXAMINED {
            page.next = last;
            return Ok(page);
        }
    }
}

/// Runs that ended before `until`, the oldest of each kind first.
pub(super) fn ended_before(view: &dyn View, until: Timestamp, limit: usize) -> Result<Vec<(RunId, u64)>, StoreError> {
    let mut found = Vec::new();
    for status in RunStatus::ALL.into_iter().filter(|status| status.is_terminal()) {
        let list = ByTime::in_status(status);
        let range = list.range().start..list.at(until, &[]);
        let mut count = 0;
        if limit == 0 {
            break;
        }
        each(view, &range, Order::Ascending, |key, _| {
            found.extend(
                list.parse(key)
                    .and_then(|(at, run)| Some((at, RunId::new(std::str::from_utf8(run).ok()?)))),
            );
            count += 1;
            Ok(if count == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
    }
    found.sort_unstable();
    found.truncate(limit);
    let mut runs = Vec::with_capacity(found.len());
    for (_, run) in found {
        if let Some(meta) = meta(view, &run)? {
            runs.push((run, meta.revision));
        }
    }
    Ok(runs)
}

pub(super) fn timeline(
    view: &dyn View,
    run: &RunId,
    order: TimelineOrder,
    skip: usize,
    limit: usize,
) -> Result<Vec<TimelineEvent>, StoreError> {
    let Some(meta) = meta(view, run)? else {
        return Ok(Vec::new());
    };
    let places = meta.first..meta.next;
    let chosen: Vec<u64> = match order {
        TimelineOrder::Oldest => places.skip(skip).take(limit).collect(),
        TimelineOrder::Newest => places.rev().skip(skip).take(limit).collect(),
    };
    let mut found = Vec::with_capacity(chosen.len());
    for place in chosen {
        if let Some(event) = view.get(&keys::timeline(run.as_str(), place))? {
            found.push(decoded(run, "the timeline", &event)?);
        }
    }
    Ok(found)
}

pub(super) fn waiting(view: &dyn View, after: Option<&Waiting>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let list = ByTime::new(Kind::WaitingAt);
    let mut range = list.range();
    if let Some(after) = after {
        range.start = list.at(after.since, &keys::waiting(after.run.as_str(), after.step.as_str()));
        range.start.push(0);
    }
    each(view, &range, Order::Ascending, |key, _| {
        let (since, rest) = list
            .parse(key)
            .ok_or_else(|| corrupt("the list of steps that wait", "a key has another shape"))?;
        if let Some((run, step)) = keys::parse_waiting(rest) {
            found.push(Waiting {
                since,
                run: RunId::new(&run),
                step: StepKey::new(step),
            });
        }
        Ok(if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}
