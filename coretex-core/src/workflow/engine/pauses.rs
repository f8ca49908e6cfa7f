//! Paused workflows: their runs begin nothing. See `docs/spec/workflows.md` §3.4.
//!
//! A run learns of it like of any other event: before whatever else happens to it, it is paused, with a mark in its metadata
//! that says who paused it; and it goes on when the workflow does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Inner;
use super::shard::Input;
use crate::bus::Subscription;
use crate::config::{ConfigStore, Notice, PAUSES, Pauses, SYSTEM};
use crate::error::chain;
use crate::workflow::event::Event;
use crate::workflow::run::{RunHead, RunStatus};
use crate::workflow::store::RunQuery;

/// How often the document is read even if nobody says that it changed.
const INTERVAL: Duration = Duration::from_secs(30);
/// Marks runs that the pause of their workflow paused.
const MARK: &str = "paused_by";
/// What the mark says, and who is said to have paused them.
const WORKFLOW: &str = "workflow";
/// How many runs are read at once to tell them.
const PAGE: usize = 200;

/// A new run is paused by nobody, whoever paused the one it was made from.
pub(super) fn forget_mark(head: &mut RunHead) {
    head.metadata.remove(MARK);
}

/// The workflows that are paused, as far as is known.
#[derive(Debug)]
pub(super) struct Paused {
    config: Arc<dyn ConfigStore>,
    ids: ArcSwap<BTreeSet<String>>,
}

impl Paused {
    pub(super) fn new(config: Arc<dyn ConfigStore>) -> Self {
        Self {
            config,
            ids: ArcSwap::default(),
        }
    }

    pub(super) fn contains(&self, workflow: &str) -> bool {
        self.ids.load().contains(workflow)
    }

    /// Reads the document; the workflows for which something changed.
    pub(super) async fn reload(&self) -> Vec<String> {
        let name = (SYSTEM.to_owned(), PAUSES.to_owned());
        let document = match self.config.get_many(std::slice::from_ref(&name)).await {
            Ok(mut documents) => documents.pop().flatten(),
            Err(error) => {
                warn!(error = %chain(&error), "paused workflows cannot be read; what was known counts");
                return Vec::new();
            }
        };
        let new: BTreeSet<String> = Pauses::of(document.as_ref()).workflows.into_keys().collect();
        let old = self.ids.swap(Arc::new(new.clone()));
        old.symmetric_difference(&new).cloned().collect()
    }

    /// What has to happen to a run first, because its workflow is paused or is not any more.
    pub(super) fn first(&self, head: &mut RunHead) -> Option<Event> {
        let marked = head.metadata.get(MARK).is_some_and(|by| by == WORKFLOW);
        let by = WORKFLOW.to_owned();
        if head.status.is_terminal() || head.outcome.is_some() {
            return None;
        }
        if self.contains(&head.workflow_id) {
            if head.paused {
                return None;
            }
            head.metadata.insert(MARK.to_owned(), by.clone());
            return Some(Event::Pause { by });
        }
        if marked {
            head.metadata.remove(MARK);
            return head.paused.then_some(Event::Resume { by });
        }
        None
    }

    /// Whether the run has to be looked at now and then, in case nobody says that its workflow goes on.
    pub(super) fn is_marked(head: &RunHead) -> bool {
        head.paused && head.metadata.contains_key(MARK)
    }
}

impl Inner {
    /// Follows the document, and tells the runs of workflows that were paused or resumed.
    pub(super) async fn watch_pauses(self: Arc<Self>, mut notices: Subscription, stop: CancellationToken) {
        loop {
            let ours = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                batch = notices.next_batch(256) => {
                    if batch.is_empty() {
                        return;
                    }
                    batch.iter().any(|delivery| {
                        Notice::parse(&delivery.payload).is_some_and(|notice| notice.is_about(SYSTEM, PAUSES))
                    })
                }
                () = tokio::time::sleep(INTERVAL) => true,
            };
            if !ours {
                continue;
            }
            for workflow in self.paused.reload().await {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.tell_runs(&workflow) => {}
                }
            }
        }
    }

    /// The same for a process that only serves callers: it needs to know, others tell the runs.
    pub(super) async fn keep_pauses(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
            self.paused.reload().await;
        }
    }

    /// Lets every open run of a workflow look around.
    async fn tell_runs(&self, workflow: &str) {
        for status in [RunStatus::Pending, RunStatus::Running, RunStatus::Waiting] {
            let mut query = RunQuery {
                workflow_id: Some(workflow.to_owned()),
                status: Some(status),
                limit: PAGE,
                ..RunQuery::default()
            };
            loop {
                let page = match self.parts.store.runs(&query).await {
                    Ok(page) => page,
                    Err(error) => {
                        warn!(workflow, error = %chain(&error), "runs of a paused workflow cannot be listed; they hear of it later");
                        return;
                    }
                };
                for run in page.runs {
                    let input = Input::event(run.id.clone(), Event::Wake);
                    if self.send(&run.id, input).await.is_err() {
                        return;
                    }
                }
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
    }
}
