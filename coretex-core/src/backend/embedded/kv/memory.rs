//! The space in memory: nothing survives, nothing waits.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Get, Order, Txn, View, Visit};
use crate::error::StoreError;

type Map = BTreeMap<Box<[u8]>, Bytes>;

/// A sorted map behind a lock that is never held across an await.
#[derive(Default)]
pub(in super::super) struct Memory(RwLock<Map>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    pub(in super::super) fn write<T>(
        &self,
        change: impl FnOnce(&mut dyn Txn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        change(&mut Writing(&mut self.0.write()))
    }

    pub(in super::super) fn read<T>(
        &self,
        question: impl FnOnce(&dyn View) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        question(&Reading(&self.0.read()))
    }
}

struct Writing<'a>(&'a mut Map);

impl Get for Writing<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }
}

impl Txn for Writing<'_> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.0.insert(key.into_boxed_slice(), value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(key.as_slice());
    }
}

struct Reading<'a>(&'a Map);

impl Get for Reading<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }
}

impl View for Reading<'_> {
    fn scan(&self, range: Range<&[u8]>, order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut entries = self
            .0
            .range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(range.end)));
        loop {
            let entry = match order {
                Order::Ascending => entries.next(),
                Order::Descending => entries.next_back(),
            };
            let Some((key, value)) = entry else {
                return Ok(());
            };
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
        }
    }
}
