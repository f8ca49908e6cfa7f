//! A complete worker: counts the words of a text.
//!
//! `cargo run -p coretex-sdk --example word_count`, with NATS and Redis at `NATS_URL` and `REDIS_URL`.

use coretex_sdk::{Error, Worker};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    text: String,
}

#[derive(Serialize)]
struct Output {
    words: usize,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt::init();
    Worker::builder()
        .pool("default")
        .handle("job.count", |_ctx, input: Input| async move {
            Ok(Output {
                words: input.text.split_whitespace().count(),
            })
        })
        .run()
        .await
}
