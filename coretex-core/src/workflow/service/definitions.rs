//! Definitions.

use super::{Definition, Error, Problem, Saved, Workflows};
use crate::audit::{Actor, AuditRecord};
use crate::workflow::check;
use crate::workflow::model::Workflow;
use crate::workflow::store::{Revision, StoredWorkflow, WorkflowWrite};

/// How often a save is tried whose definition others save meanwhile.
const TRIES: usize = 20;

impl Workflows {
    /// Stores a definition. Members that it does not have keep their stored value, if there is one of that id.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong with it, [`Error::Conflict`] if the stored one is not `if_match`, a content
    /// hash (`*` is any, but there has to be one).
    ///
    /// # Cancel safety
    /// Dropped half-way, it may have been stored.
    pub async fn save(&self, definition: Definition, if_match: Option<&str>, by: &Actor) -> Result<Saved, Error> {
        let mut definition = definition;
        if definition.workflow.id.is_empty() {
            definition.workflow.id = uuid::Uuid::new_v4().to_string();
        }
        let id = definition.workflow.id.clone();
        for _ in 0..TRIES {
            let before = match self.store.workflow(&id).await {
                // What cannot be read is replaced.
                Err(crate::error::StoreError::Corrupt { .. }) | Ok(None) => None,
                Ok(Some(stored)) => Some(stored),
                Err(error) => return Err(error.into()),
            };
            let matches = match (if_match, &before) {
                (None, _) | (Some("*"), Some(_)) => true,
                (Some(hash), Some(stored)) => stored.hash == hash,
                (Some(_), None) => false,
            };
            if !matches {
                return Err(Error::Conflict);
            }
            let now = self.clock.now();
            let workflow = definition
                .clone()
                .merge_into(before.as_ref().map(|stored| &stored.workflow), now);
            let problems = self.validate(&workflow);
            if check::refused(&problems) {
                return Err(Error::Invalid(problems));
            }
            let hash = workflow.content_hash();
            let expected = before.as_ref().map(|stored| stored.hash.as_str());
            let audit = AuditRecord::by(now, by, "workflow.save", &format!("workflow:{id}"))
                .with("old_hash", expected.unwrap_or_default())
                .with("hash", hash.as_str());
            let stored = StoredWorkflow {
                workflow,
                hash,
                revision: before.as_ref().map_or(0, |stored| stored.revision) + 1,
            };
            let write = WorkflowWrite {
                stored: &stored,
                expected,
                audit: Some(&audit),
            };
            if self.store.put_workflow(&write).await? {
                return Ok(Saved {
                    id,
                    hash: stored.hash,
                    created: before.is_none(),
                });
            }
        }
        Err(Error::Conflict)
    }

    /// All that is wrong with a definition, errors before warnings. With an error ([`check::refused`]) it cannot be saved.
    pub fn validate(&self, definition: &Workflow) -> Vec<Problem> {
        check::check(definition, &check::Known::default())
    }

    /// A definition.
    ///
    /// # Errors
    /// [`Error::UnknownWorkflow`] if there is none.
    pub async fn workflow(&self, id: &str) -> Result<StoredWorkflow, Error> {
        self.store.workflow(id).await?.ok_or(Error::UnknownWorkflow)
    }

    /// Definitions, most recently saved first; all or those of one organisation.
    ///
    /// # Errors
    /// [`Error::Store`] if they cannot be read.
    pub async fn workflows(&self, org: Option<&str>, limit: usize) -> Result<Vec<StoredWorkflow>, Error> {
        Ok(self.store.workflows(org, limit).await?)
    }

    /// The revisions of a definition, newest first.
    ///
    /// # Errors
    /// [`Error::UnknownWorkflow`] if there are none.
    pub async fn revisions(&self, id: &str, limit: usize) -> Result<Vec<Revision>, Error> {
        let revisions = self.store.workflow_revisions(id, limit).await?;
        if revisions.is_empty() && self.store.workflow(id).await?.is_none() {
            return Err(Error::UnknownWorkflow);
        }
        Ok(revisions)
    }

    /// One revision by its hash.
    ///
    /// # Errors
    /// [`Error::UnknownRevision`] if there is none.
    pub async fn revision(&self, hash: &str) -> Result<Workflow, Error> {
        self.store.workflow_revision(hash).await?.ok_or(Error::UnknownRevision)
    }

    /// Deletes a definition. Its open runs, if it may have any, go on as they are pinned to their revisions.
    ///
    /// # Errors
    /// [`Error::UnknownWorkflow`] if there is none, [`Error::InUse`] if it has open runs and `force` does not say that this is known.
    pub async fn delete(&self, id: &str, force: bool, by: &Actor) -> Result<(), Error> {
        if !force {
            let open = self.store.open_runs(id).await?;
            if open > 0 {
                self.store.workflow(id).await?.ok_or(Error::UnknownWorkflow)?;
                return Err(Error::InUse(open));
            }
        }
        let audit = AuditRecord::by(self.clock.now(), by, "workflow.delete", &format!("workflow:{id}"));
        if self.store.delete_workflow(id, Some(&audit)).await? {
            Ok(())
        } else {
            Err(Error::UnknownWorkflow)
        }
    }
}
