//! What can be done with workflows, whoever asks. See `docs/spec/workflows.md` and `docs/spec/http.md`.

mod definitions;
mod error;
mod runs;
mod schedules;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::Error;

pub use super::check::Problem;
pub use super::decode::Definition;
use super::engine::Engine;
use super::model::Object;
use super::run::RunId;
use super::store::WorkflowStore;
use crate::audit::Actor;
use crate::time::{Clock, Timestamp};

/// Workflows, as an application sees them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workflows {
    store: Arc<dyn WorkflowStore>,
    engine: Engine,
    clock: Clock,
}

/// What became of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its id.
    pub id: String,
    /// Its content hash: the name of this revision.
    pub hash: String,
    /// Whether there was none before.
    pub created: bool,
}

/// A run to be started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Of which workflow.
    pub workflow_id: String,
    /// With what.
    pub input: Object,
    /// Whose it is: the tenant of its jobs.
    pub org_id: String,
    /// Whose it is, for people.
    pub team_id: String,
    /// Its jobs say that nothing is to be changed.
    pub dry_run: bool,
    /// Makes repeating it harmless. Empty is none.
    pub idempotency_key: String,
    /// Labels of the run.
    pub labels: BTreeMap<String, String>,
    /// More of them.
    pub metadata: BTreeMap<String, String>,
    /// Not before this time.
    pub start_at: Option<Timestamp>,
    /// Who starts it.
    pub by: Actor,
}

/// A run to be done again.
#[derive(Debug, Clone, Default)]
pub struct Rerun {
    /// From which step; empty is all of it. What does not come after this step and succeeded is not done again.
    pub from_step: String,
    /// Its jobs say that nothing is to be changed.
    pub dry_run: bool,
    /// By the definition as it is now, and not the revision of the first run.
    pub latest: bool,
    /// Who wants it.
    pub by: Actor,
}

/// A run that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub run: RunId,
    /// Whether it was started by an earlier call with the same key.
    pub replayed: bool,
}

impl Workflows {
    /// On an engine.
    pub fn new(store: Arc<dyn WorkflowStore>, engine: Engine, clock: Clock) -> Self {
        Self { store, engine, clock }
    }

    /// The engine that does the work.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
