//! Who does the work: two readers and a publisher, in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bytes::Bytes;
use coretex_core::platform::Platform;
use coretex_sdk::{JobContext, JobError, Prompt, Running, Worker};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::digest::{Corpus, Digest, Index};
use super::embedded::{PUBLISHERS, READERS};
use super::{DIGEST, PUBLISH};

/// The input of a digest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    /// Which document.
    pub(super) path: String,
}

/// The input of a publication.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Publication {
    /// What belongs into the index.
    pub(super) digests: Vec<Digest>,
}

/// The result of a publication.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// Where the index is.
    pub(super) file: String,
    /// How many documents it has.
    pub(super) documents: usize,
    /// How many words they have.
    pub(super) words: u64,
    /// How many leaked secrets they hold.
    pub(super) findings: usize,
}

/// The workers at work.
#[derive(Debug)]
pub(super) struct Crew(Vec<Running>);

impl Crew {
    /// Lets them finish what they have.
    pub(super) async fn stop(&mut self) {
        for outcome in join_all(self.0.iter_mut().map(Running::stop)).await {
            if let Err(error) = outcome {
                tracing::warn!(%error, "a worker of the demo did not stop cleanly");
            }
        }
    }
}

/// Starts them.
pub(super) async fn start(platform: &Platform, corpus: Arc<Corpus>, out: &Path) -> anyhow::Result<Crew> {
    let worker = |id: &str, pool: &str| {
        Worker::builder()
            .id(id)
            .pool(pool)
            .max_parallel_jobs(4)
            .bus(Arc::clone(&platform.bus))
            .payloads(Arc::clone(&platform.stores.payloads))
    };
    let mut crew = Vec::new();
    for id in ["reader-1", "reader-2"] {
        let corpus = Arc::clone(&corpus);
        let handler = move |_: JobContext, input: Prompt<Document>| digest(Arc::clone(&corpus), input);
        crew.push(worker(id, READERS).handle(DIGEST, handler).start().await?);
    }
    let out = out.to_owned();
    let handler = move |_: JobContext, input: Prompt<Publication>| publish(input, out.clone());
    crew.push(worker("publisher", PUBLISHERS).handle(PUBLISH, handler).start().await?);
    Ok(Crew(crew))
}

async fn digest(corpus: Arc<Corpus>, input: Prompt<Document>) -> Result<Digest, JobError> {
    let document = input.context.ok_or_else(|| missing("path"))?;
    let digest = tokio::task::spawn_blocking(move || corpus.digest(&document.path)).await??;
    Ok(digest)
}

/// Writes one file with all digests. Where to is not for the job to say.
async fn publish(input: Prompt<Publication>, out: PathBuf) -> Result<Receipt, JobError> {
    let publication = input.context.ok_or_else(|| missing("digests"))?;
    let now = coretex_core::time::Clock::system().now();
    let index = Index::of(publication.digests, now.rfc3339_secs());
    let file = out.join("index.json");
    let receipt = Receipt {
        file: file.display().to_string(),
        documents: index.documents,
        words: index.words,
        findings: index.findings,
    };
    let bytes = Bytes::from(serde_json::to_vec_pretty(&index)?);
    tokio::task::spawn_blocking(move || write(&file, &bytes)).await??;
    Ok(receipt)
}

/// Writes a file whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("json.tmp");
    fs::write(&draft, bytes)?;
    fs::rename(&draft, file)
}

fn missing(field: &str) -> JobError {
    JobError::new("input_invalid", format!("the job's context has no `{field}`"))
}
