//! Runs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Rerun, Start, Started, Workflows};
use crate::audit::{Actor, AuditRecord};
use crate::workflow::event::{Event, TimelineEvent};
use crate::workflow::run::{Run, RunId, RunStatus};
use crate::workflow::store::{Committed, RunPage, RunQuery, TimelineOrder, Waiting};

impl Workflows {
    /// Starts a run of a workflow as it is now. It is stored when this returns.
    ///
    /// # Errors
    /// [`Error::UnknownWorkflow`], [`Error::Input`], [`Error::Limit`], [`Error::IdempotencyMismatch`].
    ///
    /// # Cancel safety
    /// Dropped half-way, it may have been started.
    pub async fn start(&self, start: Start) -> Result<Started, Error> {
        self.engine.start_run(start).await
    }

    /// Does a run again, whole or from a step on. It is stored when this returns.
    ///
    /// # Errors
    /// [`Error::UnknownRun`], [`Error::UnknownWorkflow`], [`Error::StepNotFound`], [`Error::DependencyNotSucceeded`],
    /// [`Error::Limit`].
    ///
    /// # Cancel safety
    /// Dropped half-way, it may have been started.
    pub async fn rerun(&self, run: &RunId, rerun: Rerun) -> Result<Started, Error> {
        self.engine.rerun(run, rerun).await
    }

    /// A run, whole.
    ///
    /// # Errors
    /// [`Error::UnknownRun`] if there is none.
    pub async fn run(&self, run: &RunId) -> Result<Run, Error> {
        let found = self.store.load_runs(std::slice::from_ref(run)).await.pop();
        match found {
            Some(Ok(Some(run))) => Ok(run),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(None)) | None => Err(Error::UnknownRun),
        }
    }

    /// Lists runs, most recently changed first.
    ///
    /// # Errors
    /// [`Error::Store`] if they cannot be read.
    pub async fn runs(&self, query: &RunQuery) -> Result<RunPage, Error> {
        Ok(self.store.runs(query).await?)
    }

    /// What happened in a run; nothing for runs that do not exist.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub async fn timeline(
        &self,
        run: &RunId,
        order: TimelineOrder,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        Ok(self.store.timeline(run, order, skip, limit).await?)
    }

    /// Deletes a run that is over.
    ///
    /// # Errors
    /// [`Error::UnknownRun`], [`Error::RunOpen`].
    pub async fn delete_run(&self, run: &RunId, by: &Actor) -> Result<(), Error> {
        for _ in 0..20 {
            let found = self.run(run).await?;
            if !found.head.status.is_terminal() {
                return Err(Error::RunOpen(found.head.status));
            }
            let audit = AuditRecord::by(self.clock.now(), by, "run.delete", &format!("run:{run}"))
                .with("workflow_id", found.head.workflow_id.as_str());
            match self.store.delete_run(run, found.revision, Some(&audit)).await? {
                Committed::Applied(_) => return Ok(()),
                Committed::Gone => return Err(Error::UnknownRun),
                Committed::Conflict(_) => {}
            }
        }
        Err(Error::Busy)
    }

    /// Tells a run what happened: [`Event::Vote`], [`Event::Form`], [`Event::Signal`], [`Event::Cancel`], [`Event::Pause`],
    /// [`Event::Resume`]. It has happened when this returns.
    ///
    /// # Errors
    /// [`Error::UnknownRun`], also where the run is not one of `workflow`; [`Error::Refused`]; [`Error::WorkflowPaused`] to a
    /// resume.
    ///
    /// # Cancel safety
    /// Dropped half-way, it may have happened.
    pub async fn apply(&self, run: &RunId, workflow: Option<&str>, event: Event) -> Result<(), Error> {
        self.engine.apply(run, workflow, event).await
    }

    /// Steps that wait for people, oldest first, after the one given, each with its run.
    ///
    /// # Errors
    /// [`Error::Store`] if they cannot be read.
    pub async fn waiting_steps(
        &self,
        after: Option<&Waiting>,
        limit: usize,
    ) -> Result<Vec<(Waiting, std::sync::Arc<Run>)>, Error> {
        let waiting = self.store.waiting_steps(after, limit).await?;
        let ids: BTreeSet<RunId> = waiting.iter().map(|step| step.run.clone()).collect();
        let ids: Vec<RunId> = ids.into_iter().collect();
        let mut runs = BTreeMap::new();
        for (id, run) in ids.iter().zip(self.store.load_runs(&ids).await) {
            match run {
                Ok(Some(run)) => {
                    runs.insert(id.clone(), std::sync::Arc::new(run));
                }
                Ok(None) => {}
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(run_id = %id, error = %crate::error::chain(&error), "run cannot be read");
                }
            }
        }
        Ok(waiting
            .into_iter()
            .filter_map(|step| {
                let run = std::sync::Arc::clone(runs.get(&step.run)?);
                let waits = run
                    .steps
                    .get(&step.step)
                    .is_some_and(|record| record.status == RunStatus::Waiting);
                (waits && !run.head.status.is_terminal()).then_some((step, run))
            })
            .collect())
    }
}
