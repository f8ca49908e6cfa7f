//! From an async function to a tower service.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;

use crate::context::JobContext;
use crate::error::{JobError, codes};

/// What a handler is called with.
#[derive(Debug, Clone)]
pub struct Job {
    /// Everything about the job, and the way back to the control plane.
    pub context: JobContext,
    /// The bytes behind the job's context pointer; empty if it has none.
    pub input: Bytes,
}

/// A handler as the worker keeps it: a tower service from a [`Job`] to the bytes of its result.
pub type HandlerService = BoxCloneSyncService<Job, Bytes, JobError>;

/// A handler with typed input and output, both JSON.
pub(crate) fn typed<I, O, F, Fut>(handler: F) -> HandlerService
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(JobContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, JobError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    BoxCloneSyncService::new(tower::service_fn(move |job: Job| {
        let handler = Arc::clone(&handler);
        async move {
            let limit = job.context.result_limit();
            let input = decode(&job.input)?;
            let output = handler(job.context, input).await?;
            encode(&output, limit)
        }
    }))
}

/// A handler from bytes to bytes.
pub(crate) fn raw<F, Fut>(handler: F) -> HandlerService
where
    F: Fn(JobContext, Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, JobError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    BoxCloneSyncService::new(tower::service_fn(move |job: Job| {
        let handler = Arc::clone(&handler);
        async move { handler(job.context, job.input).await }
    }))
}

/// Reads a payload as JSON; no payload is `null`.
pub(crate) fn decode<I: DeserializeOwned>(payload: &[u8]) -> Result<I, JobError> {
    let payload = if payload.is_empty() { b"null" } else { payload };
    serde_json::from_slice(payload).map_err(|error| {
        JobError::new(
            codes::INPUT_INVALID,
            format!("the job's payload is not what the handler takes: {error}"),
        )
    })
}

/// Writes an output as JSON, and gives up as soon as it is larger than `limit`.
fn encode<O: Serialize>(output: &O, limit: usize) -> Result<Bytes, JobError> {
    let mut writer = Limited {
        bytes: Vec::with_capacity(128),
        limit,
        exceeded: false,
    };
    match serde_json::to_writer(&mut writer, output) {
        Ok(()) => Ok(writer.bytes.into()),
        Err(_) if writer.exceeded => Err(too_large("result", None, limit)),
        Err(error) => Err(JobError::new(
            codes::RESULT_INVALID,
            format!("the handler's output cannot be written as JSON: {error}"),
        )),
    }
}

pub(crate) fn too_large(what: &str, bytes: Option<usize>, limit: usize) -> JobError {
    let size = bytes.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
    JobError::new(
        codes::RESULT_TOO_LARGE,
        format!("the {what}{size} is larger than the worker's limit of {limit} bytes"),
    )
}

struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for Limited {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.limit {
            self.exceeded = true;
            return Err(io::Error::other("larger than the limit"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_may_be_exactly_as_large_as_the_limit() {
        assert_eq!(encode(&"abc", 5).unwrap(), "\"abc\"");
        let error = encode(&"abc", 4).unwrap_err();
        assert_eq!(error.code(), codes::RESULT_TOO_LARGE);
        assert!(error.message().contains("4 bytes"), "{error}");
    }

    #[test]
    fn what_json_cannot_say_is_named() {
        let error = encode(&std::collections::BTreeMap::from([((1, 2), 3)]), 100).unwrap_err();
        assert_eq!(error.code(), codes::RESULT_INVALID);
    }

    #[test]
    fn no_payload_is_null() {
        assert_eq!(decode::<Option<u32>>(b"").unwrap(), None);
        decode::<()>(b"").unwrap();
        assert_eq!(decode::<u32>(b"").unwrap_err().code(), codes::INPUT_INVALID);
        assert_eq!(decode::<u32>(b"{").unwrap_err().code(), codes::INPUT_INVALID);
    }
}
