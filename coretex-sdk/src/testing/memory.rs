//! Payloads in memory, with outages to order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coretex_core::error::StoreError;
use coretex_core::pointers::{Pointer, PointerStore, Stored};
use parking_lot::Mutex;

const BACKEND: &str = "the memory";

/// A payload store in memory. Nothing in it expires; it remembers how long things should have been kept.
#[derive(Debug, Default)]
pub struct MemoryPayloads {
    stored: Mutex<HashMap<String, (Bytes, Option<Duration>)>>,
    down: AtomicBool,
    calls: AtomicUsize,
}

impl MemoryPayloads {
    /// Begins or ends an outage, in which all calls fail with an error that is worth another try.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// How many calls there were, failed ones included.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// For how long a payload was to be kept; `None` if there is none, or for the default.
    pub fn ttl(&self, pointer: &Pointer) -> Option<Duration> {
        self.stored.lock().get(pointer.key()).and_then(|(_, ttl)| *ttl)
    }

    fn call(&self, op: &'static str) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                backend: BACKEND,
                op,
                sent: false,
                source: "an outage made to order".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl PointerStore for MemoryPayloads {
    async fn put(&self, pointer: &Pointer, payload: Bytes, ttl: Option<Duration>) -> Result<(), StoreError> {
        self.call("put")?;
        self.stored.lock().insert(pointer.key().to_owned(), (payload, ttl));
        Ok(())
    }

    async fn get(&self, pointer: &Pointer) -> Result<Option<Bytes>, StoreError> {
        self.call("get")?;
        Ok(self
            .stored
            .lock()
            .get(pointer.key())
            .map(|(payload, _)| payload.clone()))
    }

    async fn inspect(&self, pointer: &Pointer, _limit: usize) -> Result<Option<Stored>, StoreError> {
        Ok(self.get(pointer).await?.map(Stored::Bytes))
    }
}
