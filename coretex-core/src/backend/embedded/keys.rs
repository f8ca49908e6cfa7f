//! The only place that spells a key of the embedded store, but for those of workflows. See `docs/spec/embedded.md` §3.
//!
//! Every key begins with one byte that says what it is. Ids hold no control characters, so that a zero byte ends one;
//! times are eight bytes that sort as the times do.

use std::ops::Range;

use crate::jobs::JobState;
use crate::time::Timestamp;

/// The version of this layout, under [`FORMAT_KEY`].
pub(super) const FORMAT: &[u8] = b"1";
pub(super) const FORMAT_KEY: &[u8] = b"mformat";

pub(super) fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(super) fn time(at: Timestamp) -> [u8; 8] {
    // Flips the sign bit: negative times sort first.
    (at.micros().cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

pub(super) fn parse_time(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_micros((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

/// Splits `kind time rest`, or `kind x time rest` with `skip` 2.
fn split_timed(key: &[u8], skip: usize) -> Option<(Timestamp, &str)> {
    let (time, rest) = key.get(skip..)?.split_first_chunk::<8>()?;
    Some((parse_time(*time), std::str::from_utf8(rest).ok()?))
}

/// The number of a state in stored data. Never changes.
pub(super) fn state_code(state: JobState) -> u8 {
    match state {
        JobState::Pending => 1,
        JobState::ApprovalRequired => 2,
        JobState::Scheduled => 3,
        JobState::Dispatched => 4,
        JobState::Running => 5,
        JobState::Succeeded => 6,
        JobState::Failed => 7,
        JobState::Cancelled => 8,
        JobState::Timeout => 9,
        JobState::Denied => 10,
    }
}

pub(super) fn state_of(code: u8) -> Option<JobState> {
    JobState::ALL.into_iter().find(|state| state_code(*state) == code)
}

pub(super) fn job(id: &str) -> Vec<u8> {
    key(b'j', &[id.as_bytes()])
}

pub(super) fn request(id: &str) -> Vec<u8> {
    key(b'q', &[id.as_bytes()])
}

/// A decision of a job, whole; the last one is in its record too, without its input.
pub(super) fn decision(id: &str, number: u32) -> Vec<u8> {
    key(b'd', &[id.as_bytes(), &[0], &number.to_be_bytes()])
}

pub(super) fn decisions(id: &str) -> Range<Vec<u8>> {
    key(b'd', &[id.as_bytes(), &[0]])..key(b'd', &[id.as_bytes(), &[1]])
}

pub(super) fn idempotency(tenant: &str, name: &str) -> Vec<u8> {
    key(b'i', &[tenant.as_bytes(), &[0], name.as_bytes()])
}

/// How many jobs of a tenant are placed.
pub(super) fn placed(tenant: &str) -> Vec<u8> {
    key(b'n', &[tenant.as_bytes()])
}

/// How many jobs are in a state.
pub(super) fn count(state: JobState) -> Vec<u8> {
    key(b'N', &[&[state_code(state)]])
}

pub(super) fn in_state(state: JobState, at: Timestamp, id: &str) -> Vec<u8> {
    key(b's', &[&[state_code(state)], &time(at), id.as_bytes()])
}

pub(super) fn all_in_state(state: JobState) -> Range<Vec<u8>> {
    key(b's', &[&[state_code(state)]])..key(b's', &[&[state_code(state) + 1]])
}

/// The time and the id of a state's index key.
pub(super) fn parse_in_state(key: &[u8]) -> Option<(Timestamp, &str)> {
    split_timed(key, 2)
}

pub(super) fn traced(trace: &str, id: &str) -> Vec<u8> {
    key(b't', &[trace.as_bytes(), &[0], id.as_bytes()])
}

pub(super) fn trace(trace: &str) -> Range<Vec<u8>> {
    key(b't', &[trace.as_bytes(), &[0]])..key(b't', &[trace.as_bytes(), &[1]])
}

pub(super) fn deadline(at: Timestamp, id: &str) -> Vec<u8> {
    key(b'l', &[&time(at), id.as_bytes()])
}

/// All deadlines up to and at `at`.
pub(super) fn deadlines_until(at: Timestamp) -> Range<Vec<u8>> {
    vec![b'l']..key(b'l', &[&time(after(at))])
}

pub(super) fn parse_deadline(key: &[u8]) -> Option<(Timestamp, &str)> {
    split_timed(key, 1)
}

/// When the time for approval of a job ends.
pub(super) fn approval_due(at: Timestamp, id: &str) -> Vec<u8> {
    key(b'e', &[&time(at), id.as_bytes()])
}

/// All ends of times for approval up to and at `at`.
pub(super) fn approvals_due_until(at: Timestamp) -> Range<Vec<u8>> {
    vec![b'e']..key(b'e', &[&time(after(at))])
}

pub(super) fn parse_approval_due(key: &[u8]) -> Option<(Timestamp, &str)> {
    split_timed(key, 1)
}

/// A decision in the log of all jobs.
pub(super) fn logged(at: Timestamp, id: &str, number: u32) -> Vec<u8> {
    key(b'D', &[&time(at), id.as_bytes(), &[0], &number.to_be_bytes()])
}

/// The whole log.
pub(super) fn log() -> Range<Vec<u8>> {
    vec![b'D']..vec![b'D' + 1]
}

/// All of the log before `at`.
pub(super) fn logged_before(at: Timestamp) -> Range<Vec<u8>> {
    vec![b'D']..logged_from(at)
}

/// Where the log of `at` begins.
pub(super) fn logged_from(at: Timestamp) -> Vec<u8> {
    key(b'D', &[&time(at)])
}

/// The time, the job and the number of a decision in the log.
pub(super) fn parse_logged(key: &[u8]) -> Option<(Timestamp, &str, u32)> {
    let (rest, number) = key.split_last_chunk::<4>()?;
    let (at, id) = split_timed(rest.strip_suffix(&[0])?, 1)?;
    Some((at, id, u32::from_be_bytes(*number)))
}

/// The place of an audit record in the outbox; nothing if it is in the chain.
pub(super) fn audit_record(id: &str) -> Vec<u8> {
    key(b'a', &[id.as_bytes()])
}

/// An audit record in the outbox.
pub(super) fn audit_waiting(place: u64) -> Vec<u8> {
    key(b'A', &[&place.to_be_bytes()])
}

pub(super) fn audit_outbox() -> Range<Vec<u8>> {
    vec![b'A']..vec![b'A' + 1]
}

/// How many audit records were put in the outbox.
pub(super) const AUDIT_ENQUEUED: &[u8] = b"maudit-enqueued";

/// The end of the chain.
pub(super) const AUDIT_HEAD: &[u8] = b"maudit-head";

/// An entry of the audit log.
pub(super) fn audit_entry(seq: u64) -> Vec<u8> {
    key(b'h', &[&seq.to_be_bytes()])
}

/// The entries from `seq` on.
pub(super) fn audit_log(seq: u64) -> Range<Vec<u8>> {
    audit_entry(seq)..vec![b'h' + 1]
}

pub(super) fn payload(pointer: &str) -> Vec<u8> {
    key(b'p', &[pointer.as_bytes()])
}

pub(super) fn expiry(at: Timestamp, pointer: &str) -> Vec<u8> {
    key(b'x', &[&time(at), pointer.as_bytes()])
}

pub(super) fn expiries_until(at: Timestamp) -> Range<Vec<u8>> {
    vec![b'x']..key(b'x', &[&time(after(at))])
}

pub(super) fn parse_expiry(key: &[u8]) -> Option<(Timestamp, &str)> {
    split_timed(key, 1)
}

pub(super) fn letter(id: &str) -> Vec<u8> {
    key(b'z', &[id.as_bytes()])
}

pub(super) fn letter_at(at: Timestamp, id: &str) -> Vec<u8> {
    key(b'Z', &[&time(at), id.as_bytes()])
}

/// All dead letters up to and in the second of `until`.
pub(super) fn letters_until(until: Option<Timestamp>) -> Range<Vec<u8>> {
    let end = until.map_or_else(
        || vec![b'Z' + 1],
        |until| key(b'Z', &[&time(Timestamp::from_secs(until.secs().saturating_add(1)))]),
    );
    vec![b'Z']..end
}

pub(super) fn parse_letter_at(key: &[u8]) -> Option<(Timestamp, &str)> {
    split_timed(key, 1)
}

pub(super) fn document(scope: &str, scope_id: &str) -> Vec<u8> {
    key(b'c', &[scope.as_bytes(), &[0], scope_id.as_bytes()])
}

/// The next moment.
pub(super) fn after(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_add(1))
}
