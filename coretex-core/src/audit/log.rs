//! The log as a service: orders what is in the outbox, reads and proves the chain. See `docs/spec/audit.md` §3.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::chain::{Broken, Checker, link};
use super::{AuditEntry, AuditRecord, AuditStore, Head};
use crate::error::{StoreError, chain};
use crate::metrics::{AUDIT_ENTRIES, AUDIT_FAILURES};

/// How many records are moved, and entries read, at once.
const PAGE: usize = 500;
/// How often a process looks into the outbox.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often an append is tried that others are faster with; each of them moves the same records.
const TRIES: u32 = 50;

/// Why the log was not written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The chain does not end where its last entry says: somebody removed or added entries. Records stay in the outbox.
    #[error("the audit log takes no entries: it does not end at entry {seq} as its last entry says")]
    Stuck {
        /// The place of the last entry.
        seq: u64,
    },
    /// The store failed.
    #[error("audit store failed")]
    Store(#[from] StoreError),
}

/// Some entries, and the end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order.
    pub entries: Vec<AuditEntry>,
    /// The end of the chain when they were read.
    pub head: Head,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries are whole, from the first on.
    pub entries: u64,
    /// The end of what is whole.
    pub head: Head,
    /// The first broken place, if there is one.
    pub broken: Option<Broken>,
}

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    store: Arc<dyn AuditStore>,
}

impl AuditLog {
    /// The log of a store.
    pub fn new(store: Arc<dyn AuditStore>) -> Self {
        Self { store }
    }

    /// Writes down what happened outside a store, and puts it into the chain. What happens in a store goes to the outbox in its
    /// own commit.
    ///
    /// # Errors
    /// See [`Error`]. The record may be in the outbox all the same; it is in the chain once, however often it is recorded.
    pub async fn record(&self, record: &AuditRecord) -> Result<(), Error> {
        self.store.enqueue(record).await?;
        self.settle().await?;
        Ok(())
    }

    /// Moves what is in the outbox to the end of the chain; returns how many records this call moved.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Cancel safety
    /// Each batch is one commit: what was not moved is still in the outbox.
    pub async fn settle(&self) -> Result<usize, Error> {
        let mut moved = 0;
        let mut misses = 0;
        let mut last: Option<Head> = None;
        if self.store.pending(1).await?.is_empty() {
            return Ok(0);
        }
        loop {
            // The end first: what is in the outbox after that was read can only enter the chain behind it.
            let head = self.store.head().await?;
            let records = self.store.pending(PAGE).await?;
            if records.is_empty() {
                return Ok(moved);
            }
            let entries = link(&head, records);
            if self.store.append(&head, &entries).await? {
                moved += entries.len();
                metrics::counter!(AUDIT_ENTRIES).increment(entries.len() as u64);
                misses = 0;
                last = None;
                continue;
            }
            misses += 1;
            // Refused twice after the same end: nobody was faster, the list is not what it says it is.
            if last.as_ref() == Some(&head) || misses >= TRIES {
                return Err(Error::Stuck { seq: head.seq });
            }
            last = Some(head);
        }
    }

    /// Entries from place `from` on, at most `limit`; without `from`, the newest. What has happened is in it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn page(&self, from: Option<u64>, limit: usize) -> Result<Page, Error> {
        match self.settle().await {
            // A damaged log can still be read.
            Ok(_) | Err(Error::Stuck { .. }) => {}
            Err(error) => return Err(error),
        }
        let head = self.store.head().await?;
        let newest = head.seq.saturating_add(1).saturating_sub(limit as u64);
        let entries = self.store.read(from.unwrap_or(newest).max(1), limit).await?;
        Ok(Page { entries, head })
    }

    /// Checks the whole chain, page by page; `seen` is told how many entries are whole so far.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store did not answer. A broken chain is a value.
    pub async fn verify(&self, mut seen: impl FnMut(u64) + Send) -> Result<Report, Error> {
        match self.settle().await {
            Ok(_) | Err(Error::Stuck { .. } | Error::Store(StoreError::Corrupt { .. })) => {}
            Err(error) => return Err(error),
        }
        let mut checker = Checker::default();
        let mut size = PAGE;
        let broken = loop {
            let next = checker.head().seq.saturating_add(1);
            let entries = match self.store.read(next, size).await {
                Ok(entries) => entries,
                // One of them; reading them one by one says which.
                Err(StoreError::Corrupt { .. }) if size > 1 => {
                    size = 1;
                    continue;
                }
                Err(StoreError::Corrupt { .. }) => {
                    let what = "cannot be read".to_owned();
                    break Some(Broken { seq: next, what });
                }
                Err(error) => return Err(error.into()),
            };
            if entries.is_empty() {
                break None;
            }
            if let Some(broken) = entries.iter().find_map(|entry| checker.accept(entry).err()) {
                break Some(broken);
            }
            seen(checker.head().seq);
        };
        let head = checker.head().clone();
        Ok(Report {
            entries: head.seq,
            head,
            broken,
        })
    }

    /// Settles again and again, and once more at the end.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            let stopped = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = tick.tick() => false,
            };
            match self.settle().await {
                Ok(_) if well => {}
                Ok(_) => info!("the audit log is written again"),
                Err(error) => {
                    metrics::counter!(AUDIT_FAILURES).increment(1);
                    // Said once, not every second.
                    if well {
                        error!(error = %chain(&error), "audit records wait in the outbox");
                    }
                    well = false;
                    if stopped {
                        return;
                    }
                    continue;
                }
            }
            well = true;
            if stopped {
                return;
            }
        }
    }
}
