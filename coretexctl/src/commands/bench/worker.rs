//! A worker that answers at once.

use std::sync::Arc;

use bytes::Bytes;
use coretex_sdk::{Running, Worker};

use super::Args;
use super::ledger::Ledger;
use crate::failure::Failure;

/// A running worker.
pub(super) struct BenchWorker(Running);

/// Starts one in this process.
pub(super) async fn start(nats: &str, redis: &str, args: &Args, ledger: Arc<Ledger>) -> Result<BenchWorker, Failure> {
    Worker::builder()
        .id(format!("bench-{}", uuid::Uuid::new_v4().simple()))
        .pool(&args.pool)
        .max_parallel_jobs(args.parallel)
        .nats(nats)
        .redis(redis)
        .handle_bytes(&args.topic, move |job, _input| {
            ledger.with_worker(job.job_id().as_str());
            // No bytes are no result: the store is spared a payload that nobody reads.
            async { Ok(Bytes::new()) }
        })
        .start()
        .await
        .map(BenchWorker)
        .map_err(|error| Failure::new("the bench's own worker cannot start").because(&error))
}

impl BenchWorker {
    /// Drains and stops it.
    pub(super) async fn stop(mut self) {
        if let Err(error) = self.0.stop().await {
            crate::output::note(&format!("the bench's own worker did not stop cleanly: {error}"));
        }
    }
}
