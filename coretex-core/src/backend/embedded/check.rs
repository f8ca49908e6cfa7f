//! Compares every index with the records it is made from, for tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::keys;
use super::kv::{Order, View};
use super::row::Row;
use crate::error::StoreError;
use crate::jobs::{JobState, StateSet};
use crate::time::Timestamp;

/// What is wrong, for people; nothing if all is well.
pub(super) fn problems(view: &dyn View) -> Result<Vec<String>, StoreError> {
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    view.scan(&[0_u8]..&[u8::MAX], Order::Ascending, &mut |key, value| {
        found.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    let mut problems = Vec::new();
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut counters: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (key, value) in &found {
        let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
        match key.first() {
            Some(b'j') => {
                let row = Row::decode_for(&name, value)?;
                check_row(&name, &row, &mut problems)?;
                expect_of(&name, &row, &mut expected, &mut counters)?;
            }
            Some(b'p') => {
                let until = value
                    .split_last_chunk::<8>()
                    .map(|(_, until)| i64::from_be_bytes(*until));
                let until = Timestamp::from_micros(until.unwrap_or_default());
                if !found.contains_key(&keys::expiry(until, &name)) {
                    problems.push(format!("payload {name} never expires"));
                }
            }
            _ => {}
        }
    }
    expected.extend(
        counters
            .into_iter()
            .map(|(key, count)| (key, count.to_be_bytes().to_vec())),
    );
    check_log(&found, &mut problems);
    let derived = |key: &[u8]| key.first().is_some_and(|kind| b"sltinNqe".contains(kind));
    for (key, value) in found.iter().filter(|(key, _)| derived(key)) {
        match expected.remove(key) {
            Some(right) if key.first() == Some(&b'q') || right == *value => {}
            Some(right) => problems.push(format!("{} is {value:?} instead of {right:?}", key.escape_ascii())),
            None => problems.push(format!("{} belongs to nothing", key.escape_ascii())),
        }
    }
    problems.extend(expected.keys().map(|key| format!("{} is missing", key.escape_ascii())));
    Ok(problems)
}

/// Every entry of the log of decisions has its decision, and every audit record of the outbox is known by its id.
fn check_log(found: &BTreeMap<Vec<u8>, Vec<u8>>, problems: &mut Vec<String>) {
    for (key, value) in found {
        match key.first() {
            Some(b'D')
                if !keys::parse_logged(key).is_some_and(|(_, id, n)| found.contains_key(&keys::decision(id, n))) =>
            {
                problems.push(format!("{} logs nothing", key.escape_ascii()));
            }
            Some(b'a') if !value.is_empty() && !found.contains_key(&[b"A", value.as_slice()].concat()) => {
                problems.push(format!("{} is not in the outbox", key.escape_ascii()));
            }
            _ => {}
        }
    }
}

fn check_row(id: &str, row: &Row, problems: &mut Vec<String>) -> Result<(), StoreError> {
    let state = row.state(id)?;
    let voted = |at: Timestamp| state == JobState::ApprovalRequired && at < row.revision();
    if !matches!(row.events().last(), Some((at, last)) if *last == state && (*at == row.revision() || voted(*at))) {
        problems.push(format!("job {id}: the last event is not its state"));
    }
    if row.approval_due.is_some() && state != JobState::ApprovalRequired {
        problems.push(format!("job {id} is {state} and has a time for approval"));
    }
    if !row.events().windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0)) {
        problems.push(format!("job {id}: its events do not grow"));
    }
    if !row.slot.is_empty() && !StateSet::PLACED.contains(Some(state)) {
        problems.push(format!("job {id} is {state} and holds a slot"));
    }
    if state.is_terminal() && (row.deadline.is_some() || !row.owner.is_empty()) {
        problems.push(format!("job {id} is {state} and has a deadline or an owner"));
    }
    Ok(())
}

/// What else there has to be because of this job.
fn expect_of(
    id: &str,
    row: &Row,
    expected: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    counters: &mut BTreeMap<Vec<u8>, u64>,
) -> Result<(), StoreError> {
    let state = row.state(id)?;
    expected.insert(keys::in_state(state, row.revision(), id), vec![]);
    *counters.entry(keys::count(state)).or_default() += 1;
    if !row.slot.is_empty() {
        *counters.entry(keys::placed(&row.slot)).or_default() += 1;
    }
    if row.has_request {
        expected.insert(keys::request(id), vec![]);
    }
    if let Some(deadline) = row.deadline {
        expected.insert(keys::deadline(Timestamp::from_micros(deadline), id), vec![]);
    }
    if let Some(due) = row.approval_due {
        expected.insert(keys::approval_due(Timestamp::from_micros(due), id), vec![]);
    }
    if !row.trace_id.is_empty() {
        expected.insert(keys::traced(&row.trace_id, id), vec![]);
    }
    if !row.claimed_key.is_empty() {
        expected.insert(
            keys::idempotency(&row.claimed_tenant, &row.claimed_key),
            id.as_bytes().to_vec(),
        );
    }
    Ok(())
}
