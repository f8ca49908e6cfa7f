//! The keys of workflows. See `docs/spec/embedded.md` §9.
//!
//! All begin with `w` and a byte that says what they are. Ids may be any text here, since the reference did not restrict
//! them: a part that others follow is escaped, so that a zero byte ends it and order is kept.

use std::ops::Range;

use super::super::keys::{after, key, parse_time, time};
use crate::time::Timestamp;
use crate::workflow::RunStatus;
use crate::workflow::event::EffectId;

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Definition = b'd',
    DefinitionAt = b'D',
    DefinitionOf = b'O',
    Revision = b'r',
    RevisionAt = b'R',
    RevisionSaved = b'v',
    Meta = b'm',
    Head = b'h',
    Input = b'i',
    Context = b'c',
    Step = b's',
    Items = b'I',
    Effect = b'o',
    Timeline = b't',
    InStatus = b'S',
    OfWorkflow = b'w',
    OfOrg = b'g',
    OpenOfOrg = b'n',
    OpenOfWorkflow = b'k',
    DueAt = b'q',
    Due = b'u',
    WaitingAt = b'p',
    Waiting = b'P',
    Idempotency = b'y',
    IdempotencyUntil = b'x',
    Schedule = b'z',
    ScheduleDueAt = b'Z',
    ScheduleDue = b'b',
}

pub(super) fn of(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let mut parts = parts.to_vec();
    let kind = [kind as u8];
    parts.insert(0, &kind);
    key(b'w', &parts)
}

/// Every key of a kind that begins with `parts`.
pub(super) fn all(kind: Kind, parts: &[&[u8]]) -> Range<Vec<u8>> {
    let start = of(kind, parts);
    let mut end = start.clone();
    // The last byte is a kind, the zero that ends a part, or a state: never 255.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    start..end
}

/// An id that something follows.
pub(super) fn part(id: &str) -> Vec<u8> {
    let mut part = Vec::with_capacity(id.len() + 1);
    for byte in id.bytes() {
        match byte {
            0 => part.extend_from_slice(&[1, 1]),
            1 => part.extend_from_slice(&[1, 2]),
            byte => part.push(byte),
        }
    }
    part.push(0);
    part
}

/// The id and what follows.
fn split_part(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (part, rest) = bytes.split_at(end);
    let mut id = Vec::with_capacity(end);
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        id.push(if *byte == 1 { bytes.next()? - 1 } else { *byte });
    }
    Some((String::from_utf8(id).ok()?, rest.get(1..)?))
}

/// A list by time: what all its keys begin with.
#[derive(Debug, Clone)]
pub(super) struct ByTime(Vec<u8>);

impl ByTime {
    pub(super) fn new(kind: Kind) -> Self {
        Self(of(kind, &[]))
    }

    pub(super) fn within(kind: Kind, id: &str) -> Self {
        Self(of(kind, &[&part(id)]))
    }

    pub(super) fn in_status(status: RunStatus) -> Self {
        Self(of(Kind::InStatus, &[&[status_code(status)]]))
    }

    pub(super) fn at(&self, at: Timestamp, rest: &[u8]) -> Vec<u8> {
        let mut key = self.0.clone();
        key.extend_from_slice(&time(at));
        key.extend_from_slice(rest);
        key
    }

    /// Where what is later than `at` begins.
    pub(super) fn after(&self, at: Timestamp) -> Vec<u8> {
        self.at(after(at), &[])
    }

    pub(super) fn range(&self) -> Range<Vec<u8>> {
        let mut end = self.0.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        self.0.clone()..end
    }

    /// The time and the rest of a key.
    pub(super) fn parse<'a>(&self, key: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        let (at, rest) = key.strip_prefix(self.0.as_slice())?.split_first_chunk::<8>()?;
        Some((parse_time(*at), rest))
    }
}

/// The number of a status in stored data. Never changes.
fn status_code(status: RunStatus) -> u8 {
    match status {
        RunStatus::Pending => 1,
        RunStatus::Running => 2,
        RunStatus::Waiting => 3,
        RunStatus::Succeeded => 4,
        RunStatus::Failed => 5,
        RunStatus::Cancelled => 6,
        RunStatus::TimedOut => 7,
    }
}

pub(super) fn effect(run: &str, id: EffectId) -> Vec<u8> {
    of(Kind::Effect, &[&part(run), &id.to_be_bytes()])
}

pub(super) fn timeline(run: &str, place: u64) -> Vec<u8> {
    of(Kind::Timeline, &[&part(run), &place.to_be_bytes()])
}

pub(super) fn idempotency(org: &str, workflow: &str, name: &str) -> Vec<u8> {
    of(Kind::Idempotency, &[&part(org), &part(workflow), name.as_bytes()])
}

/// A step in the list of those that wait.
pub(super) fn waiting(run: &str, step: &str) -> Vec<u8> {
    let mut rest = part(run);
    rest.extend_from_slice(step.as_bytes());
    rest
}

pub(super) fn parse_waiting(rest: &[u8]) -> Option<(String, &str)> {
    let (run, step) = split_part(rest)?;
    Some((run, std::str::from_utf8(step).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_ids_are_kept_apart_and_in_order() {
        let mut ids = vec![
            "",
            "\0",
            "\u{1}",
            "\u{1}\u{1}",
            "\u{1}\u{2}",
            "a",
            "a\0",
            "a\0b",
            "ab",
            "ü",
            "\u{2}",
        ];
        ids.sort_unstable();
        for (i, one) in ids.iter().enumerate() {
            assert_eq!(parse_waiting(&waiting(one, "s\0")), Some(((*one).to_owned(), "s\0")));
            for other in &ids[i + 1..] {
                assert!(waiting(one, "z") < waiting(other, "a"), "{one:?} before {other:?}");
            }
        }
    }
}
