//! Payloads with a time to live. See `docs/spec/embedded.md` §6.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use super::jobs::change::Writes;
use super::kv::{Kv, Order, Txn, View, corrupt};
use super::{Settings, keys};
use crate::error::StoreError;
use crate::pointers::{Pointer, PointerStore, Stored};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Payloads {
    pub(super) kv: Arc<Kv>,
    pub(super) settings: Arc<Settings>,
}

/// Stores a payload, followed by the eight bytes of the time when it is gone.
///
/// The expiry entry of what was there before stays: it names another time than the payload, and the sweep drops it.
pub(super) fn write(
    writes: &mut Writes,
    settings: &Settings,
    pointer: &Pointer,
    payload: &[u8],
    ttl: Option<Duration>,
) {
    let until = settings.clock.now().plus(ttl.unwrap_or(settings.data_ttl));
    let mut value = BytesMut::with_capacity(payload.len() + 8);
    value.put_slice(payload);
    value.put_i64(until.micros());
    writes.put(keys::payload(pointer.key()), value);
    writes.put(keys::expiry(until, pointer.key()), Bytes::new());
}

fn split(pointer: &str, mut value: Bytes) -> Result<(Bytes, Timestamp), StoreError> {
    let Some((_, until)) = value.split_last_chunk::<8>() else {
        return Err(corrupt(format!("the payload `{pointer}`"), "it is too short"));
    };
    let until = Timestamp::from_micros(i64::from_be_bytes(*until));
    value.truncate(value.len() - 8);
    Ok((value, until))
}

/// Expiry entries up to now.
pub(super) fn expired(view: &dyn View, now: Timestamp, limit: usize) -> Result<Vec<(Timestamp, String)>, StoreError> {
    let range = keys::expiries_until(now);
    let mut found = Vec::new();
    view.scan(&range.start..&range.end, Order::Ascending, &mut |key, _| {
        found.extend(keys::parse_expiry(key).map(|(at, pointer)| (at, pointer.to_owned())));
        if found.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}

/// Drops an expiry entry, and its payload if it was not renewed since.
pub(super) fn expire(txn: &mut dyn Txn, at: Timestamp, pointer: &str) -> Result<u64, StoreError> {
    let key = keys::payload(pointer);
    if let Some(value) = txn.get(&key)?
        && split(pointer, value)?.1 == at
    {
        txn.delete(key);
    }
    txn.delete(keys::expiry(at, pointer));
    Ok(1)
}

#[async_trait]
impl PointerStore for Payloads {
    async fn put(&self, pointer: &Pointer, payload: Bytes, ttl: Option<Duration>) -> Result<(), StoreError> {
        let mut writes = Writes::default();
        write(&mut writes, &self.settings, pointer, &payload, ttl);
        self.kv
            .write("put", move |txn| {
                writes.apply(txn);
                Ok(())
            })
            .await
    }

    async fn get(&self, pointer: &Pointer) -> Result<Option<Bytes>, StoreError> {
        let key = pointer.key().to_owned();
        let now = self.settings.clock.now();
        self.kv
            .read("get", move |view| {
                let Some(value) = view.get(&keys::payload(&key))? else {
                    return Ok(None);
                };
                let (payload, until) = split(&key, value)?;
                Ok((until > now).then_some(payload))
            })
            .await
    }

    async fn get_many(&self, pointers: &[Pointer]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let keys: Vec<String> = pointers.iter().map(|pointer| pointer.key().to_owned()).collect();
        let now = self.settings.clock.now();
        let read = self.kv.read("get_many", move |view| {
            let one = |key: &String| {
                let Some(value) = view.get(&keys::payload(key))? else {
                    return Ok(None);
                };
                let (payload, until) = split(key, value)?;
                Ok((until > now).then_some(payload))
            };
            Ok(keys.iter().map(one).collect())
        });
        match read.await {
            Ok(payloads) => payloads,
            // Each asks for itself who it is that does not answer.
            Err(_) => {
                let mut payloads = Vec::with_capacity(pointers.len());
                for pointer in pointers {
                    payloads.push(self.get(pointer).await);
                }
                payloads
            }
        }
    }

    async fn inspect(&self, pointer: &Pointer, _limit: usize) -> Result<Option<Stored>, StoreError> {
        Ok(self.get(pointer).await?.map(Stored::Bytes))
    }
}
