//! Who says that a job has ended: the store itself, or the API.

use std::collections::HashMap;
use std::time::Duration;

use coretex_core::time::Timestamp;
use futures::StreamExt as _;
use futures::stream;
use tokio::time::Instant;

use super::redis::{Counters, Store};
use crate::api::Api;
use crate::doc::Doc;
use crate::failure::{Failure, Kind};
use crate::follow::is_terminal;

/// How often the store is asked how many jobs have ended.
const STORE_PAUSE: Duration = Duration::from_millis(5);
/// How long an unfinished job is left alone before the API is asked again.
const API_PAUSE: Duration = Duration::from_millis(20);
/// How many jobs the API is asked about at once.
const API_LANES: usize = 8;
/// How many jobs one page of the API's list has.
const PAGE: usize = 1_000;

/// How a job ended.
#[derive(Debug, Clone)]
pub(super) struct Final {
    /// In which state it is.
    pub(super) state: String,
    /// When it got there, as recorded in the store.
    pub(super) at: Timestamp,
}

/// Who is asked.
pub(super) enum Observer {
    /// Redis, directly.
    Store(Box<Store>),
    /// The gateway.
    Api(Api),
}

impl Observer {
    /// How many jobs had ended before, where that can be told.
    pub(super) async fn baseline(&mut self) -> Result<u64, Failure> {
        match self {
            Self::Store(store) => store.ended().await,
            Self::Api(_) => Ok(0),
        }
    }

    /// What the store has done so far, where that can be told.
    pub(super) async fn counters(&mut self) -> Result<Option<Counters>, Failure> {
        match self {
            Self::Store(store) => store.counters().await.map(Some),
            Self::Api(_) => Ok(None),
        }
    }

    /// Waits until all these jobs have ended, in the store and not just on the bus.
    pub(super) async fn until_all_ended(
        &mut self,
        baseline: u64,
        ids: &[String],
        patience: Duration,
        progress: impl Fn(u64),
    ) -> Result<(), Failure> {
        match self {
            Self::Store(store) => in_store(store, baseline, ids, patience, progress).await,
            Self::Api(api) => over_api(api, ids, patience, progress).await,
        }
    }

    /// How these jobs ended. Over the API, jobs that are not in its list any more are missing.
    pub(super) async fn finals(&mut self, ids: &[String], since: Timestamp) -> Result<HashMap<String, Final>, Failure> {
        match self {
            Self::Store(store) => store.finals(ids).await,
            Self::Api(api) => listed(api, ids.len(), since).await,
        }
    }
}

async fn in_store(
    store: &mut Store,
    baseline: u64,
    ids: &[String],
    patience: Duration,
    progress: impl Fn(u64),
) -> Result<(), Failure> {
    let all = ids.len() as u64;
    let (mut last, mut changed) = (0, Instant::now());
    loop {
        let ended = store.ended().await?.saturating_sub(baseline);
        progress(ended.min(all));
        if ended >= all {
            // Others may have ended jobs too: look at ours.
            let open = store
                .finals(ids)
                .await?
                .values()
                .filter(|job| !is_terminal(&job.state))
                .count();
            if open == 0 {
                return Ok(());
            }
        }
        if ended != last {
            (last, changed) = (ended, Instant::now());
        } else if changed.elapsed() > patience {
            return Err(over(ended, all, patience));
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

async fn over_api(api: &Api, ids: &[String], patience: Duration, progress: impl Fn(u64)) -> Result<(), Failure> {
    let all = ids.len() as u64;
    let mut ended = 0;
    let mut outcomes = stream::iter(ids.iter().map(|id| until_ended(api, id, patience))).buffer_unordered(API_LANES);
    while let Some(outcome) = outcomes.next().await {
        if !outcome? {
            return Err(over(ended, all, patience));
        }
        ended += 1;
        progress(ended);
    }
    Ok(())
}

/// Whether the job ended in time.
async fn until_ended(api: &Api, id: &str, patience: Duration) -> Result<bool, Failure> {
    let start = Instant::now();
    loop {
        let job = api.get(&["jobs", id], &[]).await?;
        if is_terminal(Doc(&job).text("state")) {
            return Ok(true);
        }
        if start.elapsed() > patience {
            return Ok(false);
        }
        tokio::time::sleep(API_PAUSE).await;
    }
}

/// The jobs that changed since the beginning, newest first, until enough pages were read.
async fn listed(api: &Api, count: usize, since: Timestamp) -> Result<HashMap<String, Final>, Failure> {
    let mut finals = HashMap::with_capacity(count);
    let mut cursor = None;
    // Others may submit jobs meanwhile; reading on for twice the count is enough to be fair, and bounded.
    for _ in 0..=count.div_ceil(PAGE) * 2 {
        let mut query = vec![
            ("limit", PAGE.to_string()),
            ("updated_after", since.micros().to_string()),
        ];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = api.get(&["jobs"], &query).await?;
        for job in Doc(&page).get("items").items() {
            finals.insert(
                job.text("id").to_owned(),
                Final {
                    state: job.text("state").to_owned(),
                    at: Timestamp::from_micros(job.int("updated_at")),
                },
            );
        }
        let next = Doc(&page).get("next_cursor").0;
        if next.is_null() {
            break;
        }
        cursor = Some(crate::doc::scalar(next));
    }
    Ok(finals)
}

fn over(ended: u64, all: u64, patience: Duration) -> Failure {
    Failure::of(
        Kind::WaitOver,
        format!("{ended} of {all} jobs have ended, and none for {patience:?}"),
    )
}
