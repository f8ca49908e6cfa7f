//! One ordered space of keys and values, on disk or in memory. See `docs/spec/embedded.md` §1–2.

pub(super) mod disk;
pub(super) mod memory;

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::error::{BoxError, StoreError};

/// What people read in errors.
pub(super) const BACKEND: &str = "embedded store";

/// A store that does not answer.
pub(super) fn unavailable(op: &'static str, sent: bool, source: impl Into<BoxError>) -> StoreError {
    StoreError::Unavailable {
        backend: BACKEND,
        op,
        sent,
        source: source.into(),
    }
}

/// A value that cannot be read.
pub(super) fn corrupt(what: impl Into<String>, source: impl Into<BoxError>) -> StoreError {
    StoreError::Corrupt {
        what: what.into(),
        source: source.into(),
    }
}

/// From which end a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// With the least key.
    Ascending,
    /// With the greatest key.
    Descending,
}

/// Something to read single values from.
pub(super) trait Get {
    /// The value of one key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// What one visit of a scan sees: a key and its value.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A consistent view of everything committed.
pub(super) trait View: Get {
    /// Visits the keys of a range in order, until told to stop.
    fn scan(&self, range: Range<&[u8]>, order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// What a change is written through. It sees what it and earlier changes of the same commit have written.
///
/// A change has to do everything that can fail before it writes: what it has written is committed.
pub(super) trait Txn: Get {
    /// Sets one value.
    fn put(&mut self, key: Vec<u8>, value: Bytes);
    /// Removes one key; fine if it is not there.
    fn delete(&mut self, key: Vec<u8>);
}

/// The space, on either engine.
#[derive(Debug)]
pub(super) enum Kv {
    /// In a file.
    Disk(disk::Disk),
    /// Only in this process.
    Memory(memory::Memory),
}

impl Kv {
    /// Runs `change` alone among all writers; durable when this returns.
    pub(super) async fn write<T, F>(&self, op: &'static str, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Txn) -> Result<T, StoreError> + Send + 'static,
    {
        match self {
            Self::Disk(disk) => disk.write(op, change).await,
            Self::Memory(memory) => memory.write(change),
        }
    }

    /// Runs `question` on a snapshot.
    pub(super) async fn read<T, F>(&self, op: &'static str, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        match self {
            Self::Disk(disk) => disk.read(op, question).await,
            Self::Memory(memory) => memory.read(question),
        }
    }

    /// Finishes what was accepted, refuses what comes later, and lets go of the file.
    pub(super) async fn close(&self) {
        match self {
            Self::Disk(disk) => disk.close().await,
            Self::Memory(_) => {}
        }
    }
}
