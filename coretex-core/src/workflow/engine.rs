//! What runs workflows: events in, commits, effects out. See `docs/spec/workflows.md` §6.

use std::sync::Arc;

use super::event::Event;
use super::run::RunId;
use super::service::{Error, Rerun, Start, Started};
use super::store::{Schedule, WorkflowStore};
use crate::audit::Actor;
use crate::bus::Bus;
use crate::config::ConfigStore;
use crate::jobs::JobStore;
use crate::pointers::PointerStore;
use crate::time::Clock;

/// What an engine works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// How it hears and speaks.
    pub bus: Arc<dyn Bus>,
    /// Definitions, runs and schedules.
    pub store: Arc<dyn WorkflowStore>,
    /// Jobs.
    pub jobs: Arc<dyn JobStore>,
    /// What jobs leave behind.
    pub payloads: Arc<dyn PointerStore>,
    /// Limits.
    pub config: Arc<dyn ConfigStore>,
    /// Wall time.
    pub clock: Clock,
}

/// One engine. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
}

impl Engine {
    /// Makes one.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts }))
    }

    pub(super) async fn start_run(&self, start: Start) -> Result<Started, Error> {
        self.0.parts.store.workflow(&start.workflow_id).await?;
        Err(Error::Stopping)
    }

    pub(super) async fn rerun(&self, run: &RunId, _rerun: Rerun) -> Result<Started, Error> {
        self.0.parts.store.load_runs(std::slice::from_ref(run)).await;
        Err(Error::Stopping)
    }

    pub(super) async fn apply(&self, run: &RunId, _workflow: Option<&str>, _event: Event) -> Result<(), Error> {
        self.0.parts.store.load_runs(std::slice::from_ref(run)).await;
        Err(Error::Stopping)
    }

    /// A definition was written or deleted.
    pub(super) fn definition_changed(&self, _id: &str) {}

    /// A schedule was written.
    pub(super) fn schedules_changed(&self) {}
}

/// What a schedule starts.
pub(super) fn start_of(schedule: &Schedule) -> Start {
    Start {
        workflow_id: schedule.workflow_id.clone(),
        input: schedule.input.clone(),
        org_id: schedule.org_id.clone(),
        team_id: schedule.team_id.clone(),
        metadata: [("schedule".to_owned(), schedule.id.clone())].into(),
        by: Actor::new(format!("schedule:{}", schedule.id), ""),
        ..Start::default()
    }
}
