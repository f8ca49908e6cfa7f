//! Reading inputs and writing outputs, with patience.

use std::time::Duration;

use bytes::Bytes;
use coretex_core::error::{StoreError, chain};
use coretex_core::pointers::Pointer;
use tokio::time::Instant;
use tracing::debug;

use crate::backoff::Backoff;
use crate::error::{JobError, codes};
use crate::worker::core::Core;

/// Reads the payload behind a pointer. No pointer, no payload: that is empty, not an error.
pub(crate) async fn read(core: &Core, pointer: &str) -> Result<Bytes, JobError> {
    if pointer.is_empty() {
        return Ok(Bytes::new());
    }
    let pointer: Pointer = pointer
        .parse()
        .map_err(|error| JobError::new(codes::INVALID_POINTER, format!("context_ptr: {error}")))?;
    let found = patiently(core.settings.payload_timeout, || core.payloads.get(&pointer)).await?;
    found.ok_or_else(|| JobError::new(codes::INPUT_MISSING, format!("there is nothing at {pointer}")))
}

/// Writes a payload. Repeating it changes nothing, so any failure is worth another try.
pub(crate) async fn write(core: &Core, pointer: &Pointer, payload: Bytes) -> Result<(), JobError> {
    let ttl = core.settings.data_ttl;
    patiently(core.settings.payload_timeout, || {
        core.payloads.put(pointer, payload.clone(), ttl)
    })
    .await
}

/// Tries for as long as `limit` while the store does not answer.
async fn patiently<T, Fut>(limit: Duration, mut attempt: impl FnMut() -> Fut) -> Result<T, JobError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let give_up = Instant::now() + limit;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let error = match tokio::time::timeout_at(give_up, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                let message = format!("the payload store did not answer within {} s", limit.as_secs());
                return Err(JobError::new(codes::PAYLOAD_UNAVAILABLE, message).retryable());
            }
        };
        let next = Instant::now() + backoff.next_delay();
        if !error.is_retryable() || next > give_up {
            return Err(JobError::new(codes::PAYLOAD_UNAVAILABLE, chain(&error)).retryable());
        }
        debug!(error = %chain(&error), "the payload store did not answer; trying again");
        tokio::time::sleep_until(next).await;
    }
}
