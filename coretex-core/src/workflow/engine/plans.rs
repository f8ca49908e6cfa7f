//! Definitions made ready to run, by their hash.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::workflow::plan::Plan;
use crate::workflow::run::RunHead;
use crate::workflow::schema::SchemaSet;
use crate::workflow::store::{StoredWorkflow, WorkflowStore};

/// How many plans are kept.
const CAPACITY: usize = 1_000;

/// The plans that were used.
#[derive(Debug)]
pub(super) struct Plans {
    store: Arc<dyn WorkflowStore>,
    schemas: SchemaSet,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    plans: HashMap<String, Arc<Plan>>,
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
        self.known.lock().plans.get(hash).cloned()
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
        Ok(self.compile(stored.workflow, stored.hash))
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
            Ok(Some(workflow)) => Ok(Some(self.compile(workflow, head.definition.clone()))),
            // What cannot be read is as good as gone.
            Ok(None) | Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn compile(&self, workflow: crate::workflow::Workflow, hash: String) -> Arc<Plan> {
        let plan = Arc::new(Plan::compile(Arc::new(workflow), hash.clone(), &self.schemas));
        let mut known = self.known.lock();
        if known.plans.insert(hash.clone(), Arc::clone(&plan)).is_none() {
            known.order.push_back(hash);
            if known.order.len() > CAPACITY
                && let Some(oldest) = known.order.pop_front()
            {
                known.plans.remove(&oldest);
            }
        }
        plan
    }
}
