//! Definitions made ready to run, by their hash.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::StoreError;
use crate::workflow::Workflow;
use crate::workflow::plan::Plan;
use crate::workflow::run::RunHead;
use crate::workflow::schema::{SchemaSet, names};
use crate::workflow::store::{StoredWorkflow, WorkflowStore};

/// How many plans are kept.
const CAPACITY: usize = 1_000;
/// How long schemas of the registry are taken to be as they were read.
const FRESH: Duration = Duration::from_secs(30);

/// The plans that were used.
#[derive(Debug)]
pub(super) struct Plans {
    store: Arc<dyn WorkflowStore>,
    schemas: SchemaSet,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the time until which each holds, if it holds schemas of the registry.
    plans: HashMap<String, (Arc<Plan>, Option<Instant>)>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Plans {
    pub(super) fn new(store: Arc<dyn WorkflowStore>) -> Self {
        Self {
            store,
            schemas: SchemaSet::new(),
            known: Mutex::default(),
        }
    }

    fn known(&self, hash: &str) -> Option<Arc<Plan>> {
        let known = self.known.lock();
        let (plan, until) = known.plans.get(hash)?;
        until
            .is_none_or(|until| until > Instant::now())
            .then(|| Arc::clone(plan))
    }

    /// The plan of a definition as it is stored now; its revision is stored as well.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn of(&self, stored: StoredWorkflow) -> Result<Arc<Plan>, StoreError> {
        if stored.revision == 0 {
            self.store.ensure_revision(&stored).await?;
        }
        if let Some(plan) = self.known(&stored.hash) {
            return Ok(plan);
        }
        self.compile(stored.workflow, stored.hash).await
    }

    /// The plan of a run. A run that names no revision is pinned to its definition as it is now. `None` if nobody has the
    /// definition any more.
    ///
    /// # Errors
    /// The store's own, if trying again may help.
    pub(super) async fn for_run(&self, head: &mut RunHead) -> Result<Option<Arc<Plan>>, StoreError> {
        let found = if head.definition.is_empty() {
            match self.store.workflow(&head.workflow_id).await {
                Ok(Some(stored)) => {
                    let plan = self.of(stored).await?;
                    head.definition.clone_from(&plan.hash);
                    return Ok(Some(plan));
                }
                other => other.map(|_| None),
            }
        } else if let Some(plan) = self.known(&head.definition) {
            return Ok(Some(plan));
        } else {
            self.store.workflow_revision(&head.definition).await
        };
        match found {
            Ok(Some(workflow)) => Ok(Some(self.compile(workflow, head.definition.clone()).await?)),
            // What cannot be read is as good as gone.
            Ok(None) | Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn compile(&self, workflow: Workflow, hash: String) -> Result<Arc<Plan>, StoreError> {
        let ids: Vec<String> = names(&workflow).into_iter().map(str::to_owned).collect();
        let mut schemas = self.schemas.clone();
        let mut until = None;
        if !ids.is_empty() {
            let found = match self.store.schemas(&ids).await {
                // A schema that cannot be read fails the steps that name it, not the run.
                Err(StoreError::Corrupt { .. }) => Vec::new(),
                other => other?,
            };
            let found = ids.into_iter().zip(found);
            schemas.registered = found.filter_map(|(id, schema)| Some((id, schema?))).collect();
            until = Some(Instant::now() + FRESH);
        }
        let plan = Arc::new(Plan::compile(Arc::new(workflow), hash.clone(), &schemas));
        let mut known = self.known.lock();
        if known.plans.insert(hash.clone(), (Arc::clone(&plan), until)).is_none() {
            known.order.push_back(hash);
            if known.order.len() > CAPACITY
                && let Some(oldest) = known.order.pop_front()
            {
                known.plans.remove(&oldest);
            }
        }
        Ok(plan)
    }
}
