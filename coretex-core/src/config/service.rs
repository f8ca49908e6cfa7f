//! Reads and changes documents. See `docs/spec/config.md` §2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Map, Value};
use tracing::warn;

use super::effective::{Scopes, Snapshot, read_effective};
use super::notice::Notice;
use super::store::{ConfigStore, Document};
use super::{DEFAULT, SYSTEM, document_name};
use crate::audit::{Actor, AuditRecord};
use crate::bus::Bus;
use crate::error::{StoreError, chain};
use crate::metrics::CONFIG_NOTICES_LOST;
use crate::protocol::canonical::{self, Numbers};
use crate::time::Clock;

/// How large a document may be that somebody sets as a whole.
pub const MAX_SET_BYTES: usize = 2 * 1024 * 1024;
/// How large a document may grow that this program itself keeps, as the policy snapshots.
pub const MAX_UPDATE_BYTES: usize = 16 * 1024 * 1024;

/// How often a write is tried whose document others change meanwhile. Of those that collide one always gets through, so
/// that this many failures mean as many changes in a moment.
const TRIES: u32 = 100;
/// How long telling the others may take. They notice by themselves a little later.
const NOTICE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a document was not written or read. Except for [`Error::Store`], nothing has happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no scope.
    #[error("scope required")]
    ScopeRequired,
    /// Only the system has a default document.
    #[error("scope_id required for non-system scope")]
    ScopeIdRequired,
    /// It is larger than documents may be.
    #[error("config document too large: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// How large it would be, as stored.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The writer has not seen the last change.
    #[error("config document has revision {found}, not {expected}")]
    Conflict {
        /// The revision that the writer knows.
        expected: u64,
        /// The present one; 0 if there is no document.
        found: u64,
    },
    /// Others changed it all the time.
    #[error("config document is being changed by others, try again")]
    Contended,
    /// The store failed.
    #[error("config store failed")]
    Store(#[from] StoreError),
}

/// Why an update did not take place.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The edit itself gave up.
    #[error(transparent)]
    Refused(E),
    /// The document could not be read or written.
    #[error(transparent)]
    Config(#[from] Error),
}

/// A document as somebody wants it to be.
#[derive(Debug, Clone, Default)]
pub struct Write {
    /// The scope.
    pub scope: String,
    /// The id in the scope; may be empty for the system.
    pub scope_id: String,
    /// All of its members.
    pub data: Map<String, Value>,
    /// Free remarks.
    pub meta: Option<BTreeMap<String, String>>,
    /// The revision that it replaces, 0 for "there is none yet"; `None` replaces whatever is there.
    pub expected: Option<u64>,
}

/// What an update came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated<T> {
    /// What the edit returned the time it counted.
    pub value: T,
    /// The document as it is stored now.
    pub document: Document,
}

/// Configuration as everybody reads and writes it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConfigService {
    store: Arc<dyn ConfigStore>,
    bus: Arc<dyn Bus>,
    clock: Clock,
}

impl ConfigService {
    /// A service on a store; who listens on the bus is told of changes.
    pub fn new(store: Arc<dyn ConfigStore>, bus: Arc<dyn Bus>, clock: Clock) -> Self {
        Self { store, bus, clock }
    }

    /// One document; an empty id of the system means its default.
    ///
    /// # Errors
    /// [`Error`] says what is wrong.
    pub async fn get(&self, scope: &str, id: &str) -> Result<Option<Document>, Error> {
        let name = named(scope, id)?;
        Ok(self.store.get_many(&[name]).await?.into_iter().next().flatten())
    }

    /// The merged configuration of some scopes.
    ///
    /// # Errors
    /// The store's own.
    pub async fn effective(&self, scopes: &Scopes) -> Result<Snapshot, StoreError> {
        read_effective(&*self.store, scopes).await
    }

    /// Writes a whole document and an audit record, in one commit.
    ///
    /// # Errors
    /// [`Error`] says what is wrong.
    ///
    /// # Cancel safety
    /// Dropped half-way, the document may have been written.
    pub async fn set(&self, write: Write, by: &Actor) -> Result<Document, Error> {
        let Write {
            scope,
            scope_id,
            data,
            meta,
            expected,
        } = write;
        let (scope, id) = named(&scope, &scope_id)?;
        let record = AuditRecord::by(self.clock.now(), by, "config.set", &document_name(&scope, &id))
            .with("data_hash", canonical::hash_object(&data, Numbers::Doubles));
        let edit = |document: &mut Document| {
            if let Some(expected) = expected.filter(|expected| *expected != document.revision) {
                let found = document.revision;
                return Err(Error::Conflict { expected, found });
            }
            document.data = data.clone();
            document.meta = meta.clone().filter(|meta| !meta.is_empty());
            Ok(())
        };
        self.change(&scope, &id, edit, |()| Some(record.clone()), MAX_SET_BYTES)
            .await
            .map(|updated| updated.document)
            .map_err(|error| match error {
                UpdateError::Refused(error) | UpdateError::Config(error) => error,
            })
    }

    /// Changes a document: reads it, edits it, and writes it if nobody else has meanwhile; else reads it again. The edit may
    /// therefore run several times; a document that is not there comes with revision 0 and no data. The record of what was done,
    /// if there is to be one, goes to the audit log in the same commit, with the old and the new revision. An edit that changes
    /// nothing and has no record writes nothing.
    ///
    /// # Errors
    /// [`UpdateError::Refused`] with the edit's own error; else see [`Error`].
    ///
    /// # Cancel safety
    /// Dropped half-way, the document may have been written.
    pub async fn update<T, E>(
        &self,
        scope: &str,
        id: &str,
        edit: impl FnMut(&mut Document) -> Result<T, E>,
        audit: impl Fn(&T) -> Option<AuditRecord>,
    ) -> Result<Updated<T>, UpdateError<E>> {
        let (scope, id) = named(scope, id)?;
        self.change(&scope, &id, edit, audit, MAX_UPDATE_BYTES).await
    }

    async fn change<T, E>(
        &self,
        scope: &str,
        id: &str,
        mut edit: impl FnMut(&mut Document) -> Result<T, E>,
        audit: impl Fn(&T) -> Option<AuditRecord>,
        limit: usize,
    ) -> Result<Updated<T>, UpdateError<E>> {
        for attempt in 0..TRIES {
            let before = self.get(scope, id).await?.unwrap_or_default();
            let expected = before.revision;
            let mut document = before.clone();
            document.scope = scope.to_owned();
            document.scope_id = id.to_owned();
            let value = edit(&mut document).map_err(UpdateError::Refused)?;
            let record = audit(&value);
            if record.is_none() && document.data == before.data && document.meta == before.meta {
                return Ok(Updated {
                    value,
                    document: before,
                });
            }
            document.revision = expected.saturating_add(1);
            document.updated_at = self.clock.now().rfc3339();
            let record = record.map(|record| {
                record
                    .with("old_revision", expected)
                    .with("revision", document.revision)
            });
            within(&document, limit)?;
            let written = self.store.put(&document, expected, record.as_ref()).await;
            if written.map_err(Error::from)? {
                self.announce(&document).await;
                return Ok(Updated { value, document });
            }
            // Somebody was faster. A pause of random length parts those that keep running into each other.
            let pause = rand::rng().random_range(0..=u64::from(attempt.min(50)));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Err(Error::Contended.into())
    }

    /// Best effort: whoever misses it reads again after its interval.
    async fn announce(&self, document: &Document) {
        let notice = Notice {
            scope: document.scope.clone(),
            scope_id: document.scope_id.clone(),
            revision: document.revision,
        };
        let told = tokio::time::timeout(NOTICE_PATIENCE, self.bus.publish(notice.to_message())).await;
        let why = match told {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(_) => "the bus did not answer in time".to_owned(),
        };
        metrics::counter!(CONFIG_NOTICES_LOST).increment(1);
        warn!(scope = %notice.scope, error = %why, "change of configuration not announced");
    }
}

/// The name of a document, if it is one.
fn named(scope: &str, id: &str) -> Result<(String, String), Error> {
    match (scope, id) {
        ("", _) => Err(Error::ScopeRequired),
        (SYSTEM, "") => Ok((SYSTEM.to_owned(), DEFAULT.to_owned())),
        (_, "") => Err(Error::ScopeIdRequired),
        _ => Ok((scope.to_owned(), id.to_owned())),
    }
}

fn within(document: &Document, limit: usize) -> Result<(), Error> {
    /// Counts what is written to it.
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting cannot fail; a document that cannot be encoded is for the store to refuse.
    let _ = serde_json::to_writer(&mut count, document);
    if count.0 > limit {
        return Err(Error::TooLarge { size: count.0, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
