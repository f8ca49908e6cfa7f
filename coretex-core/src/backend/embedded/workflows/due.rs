//! What is due when: runs and schedules, each with its time and a list by time.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::super::jobs::change::Writes;
use super::super::kv::{Kv, Order, Txn, View, corrupt};
use super::change::stored_time;
use super::keys::{self, ByTime, Kind};
use crate::error::StoreError;
use crate::time::Timestamp;

/// A list by time, and the time of each of its entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    at: Kind,
    of: Kind,
}

pub(super) const RUNS: Queue = Queue {
    at: Kind::DueAt,
    of: Kind::Due,
};

pub(super) const SCHEDULES: Queue = Queue {
    at: Kind::ScheduleDueAt,
    of: Kind::ScheduleDue,
};

/// Says when an id is due; `None` is never.
pub(super) fn schedule_at(
    txn: &dyn Txn,
    writes: &mut Writes,
    queue: Queue,
    id: &str,
    at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let key = keys::of(queue.of, &[id.as_bytes()]);
    let stored = stored_time(txn, &key)?;
    if stored == at {
        return Ok(());
    }
    let list = ByTime::new(queue.at);
    if let Some(stored) = stored {
        writes.delete(list.at(stored, id.as_bytes()));
    }
    match at {
        Some(at) => {
            writes.put(list.at(at, id.as_bytes()), Bytes::new());
            writes.put(key, at.micros().to_be_bytes().to_vec());
        }
        None => writes.delete(key),
    }
    Ok(())
}

/// The first entries of a list up to and at `until`.
fn first(
    view: &dyn View,
    queue: Queue,
    until: Option<Timestamp>,
    limit: usize,
) -> Result<Vec<(Timestamp, String)>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let list = ByTime::new(queue.at);
    let mut range = list.range();
    if let Some(until) = until {
        range.end = list.after(until);
    }
    let mut wrong = None;
    view.scan(&range.start..&range.end, Order::Ascending, &mut |key, _| {
        let entry = list
            .parse(key)
            .and_then(|(at, id)| Some((at, std::str::from_utf8(id).ok()?.to_owned())));
        match entry {
            Some(entry) => found.push(entry),
            None => wrong = Some(corrupt("a list of what is due", "a key has another shape")),
        }
        if wrong.is_some() || found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    wrong.map_or(Ok(found), Err)
}

/// Takes what is due, and says when it is due again. With it, when the first of the rest is.
pub(super) async fn claim(
    kv: &Kv,
    op: &'static str,
    queue: Queue,
    now: Timestamp,
    again: Timestamp,
    limit: usize,
) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
    let found = kv.read(op, move |view| first(view, queue, Some(now), limit)).await?;
    let ids = if found.is_empty() {
        Vec::new()
    } else {
        kv.write(op, move |txn| {
            let mut writes = Writes::default();
            let mut taken = Vec::with_capacity(found.len());
            for (at, id) in found {
                // Others may have taken or moved it since.
                if stored_time(txn, &keys::of(queue.of, &[id.as_bytes()]))? == Some(at) {
                    schedule_at(txn, &mut writes, queue, &id, Some(again))?;
                    taken.push(id);
                }
            }
            writes.apply(txn);
            Ok(taken)
        })
        .await?
    };
    let next = kv.read(op, move |view| first(view, queue, None, 1)).await?;
    Ok((ids, next.first().map(|(at, _)| *at)))
}
