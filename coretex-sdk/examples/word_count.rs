//! A complete worker: counts the words of a prompt.
//!
//! `cargo run -p coretex-sdk --example word_count`, with NATS and Redis at `NATS_URL` and `REDIS_URL`. The README shows it
//! at work.

use coretex_sdk::{Error, Prompt, Worker};

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt::init();
    Worker::builder()
        .pool("default")
        .handle("job.count", |_ctx, job: Prompt| async move {
            Ok(job.prompt.split_whitespace().count())
        })
        .run()
        .await
}
