//! A worker with long jobs: reports progress, stops when asked to, attaches an artifact, and lets policy set its limits.
//!
//! Run it with NATS and Redis at `NATS_URL` and `REDIS_URL`; its jobs count the bytes of the files below a folder.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use coretex_sdk::{Error, JobContext, JobError, Worker};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    folder: PathBuf,
}

#[derive(Serialize)]
struct Output {
    files: usize,
    bytes: u64,
}

async fn crawl(ctx: JobContext, input: Input) -> Result<Output, JobError> {
    let limit = match ctx.constraints()?.diff.max_files {
        0 => 10_000,
        limit => usize::try_from(limit)?,
    };
    let mut output = Output { files: 0, bytes: 0 };
    let mut listing = String::new();
    let mut folders = vec![input.folder];
    while let Some(folder) = folders.pop() {
        // Between two steps is a good place to stop.
        if ctx.is_cancelled() {
            return Err(JobError::new("interrupted", format!("after {} files", output.files)));
        }
        ctx.progress(0, format!("{} files, now in {}", output.files, folder.display()))
            .await;
        let mut entries = tokio::fs::read_dir(&folder)
            .await
            .map_err(|error| JobError::new("unreadable", format!("{}: {error}", folder.display())))?;
        while let Some(entry) = entries.next_entry().await? {
            // Links are neither, so there are no circles.
            let kind = entry.file_type().await?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                output.files += 1;
                output.bytes += entry.metadata().await?.len();
                listing.push_str(&entry.path().to_string_lossy());
                listing.push('\n');
            }
            if output.files > limit {
                return Err(JobError::new("too_many_files", format!("more than {limit}")));
            }
        }
    }
    ctx.attach_artifact(Bytes::from(listing)).await?;
    Ok(output)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt::init();
    Worker::builder()
        .pool("files")
        .max_parallel_jobs(2)
        .retries(2)
        .drain_timeout(Duration::from_secs(60))
        .handle("job.crawl", crawl)
        .run()
        .await
}
