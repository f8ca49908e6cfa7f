//! The space in a file: one thread writes, and commits what has gathered while it was busy with the commit before.

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{Get, Order, Txn, View, Visit, unavailable};
use crate::backend::embedded::{OpenError, format, keys};
use crate::error::{BoxError, StoreError};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("coretex");

/// So many changes may wait; whoever comes then waits for room.
const QUEUE: usize = 1_024;

/// A closed store.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

/// An error that several callers get.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The same error for another caller.
pub(in super::super) fn repeat(op: &'static str, error: &Arc<StoreError>) -> StoreError {
    let sent = matches!(**error, StoreError::Unavailable { sent: true, .. });
    let shared: Arc<dyn std::error::Error + Send + Sync> = Arc::<StoreError>::clone(error);
    unavailable(op, sent, Shared(shared))
}

/// Opens the database; again after a failure.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// What the writer and the readers share.
struct Inner {
    opener: Opener,
    /// None after a failure, until it could be opened again. Held for reading by every reader.
    database: RwLock<Option<Database>>,
}

/// The space in a file.
pub(in super::super) struct Disk {
    inner: Arc<Inner>,
    /// None once closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Op>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    pub(in super::super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenError> {
        let file = path.to_owned();
        Self::over(
            path,
            Box::new(move || Database::builder().set_cache_size(cache_bytes).create(&file)),
        )
    }

    /// Over any way to open a database; `path` is for errors only.
    pub(in super::super) fn over(path: &Path, opener: Opener) -> Result<Self, OpenError> {
        let database = opener().map_err(|error| open_error(path, error))?;
        let found = begin(&database).map_err(|error| OpenError::Damaged {
            path: path.to_owned(),
            source: error,
        })?;
        if let Some(found) = found
            && found.as_bytes() != keys::FORMAT
        {
            return Err(OpenError::Format {
                path: path.to_owned(),
                found,
            });
        }
        let inner = Arc::new(Inner {
            opener,
            database: RwLock::new(Some(database)),
        });
        let (queue, inbox) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("coretex-store".to_owned())
            .spawn({
                let inner = Arc::clone(&inner);
                move || inner.run(inbox)
            })
            .map_err(|source| OpenError::Io {
                path: path.to_owned(),
                source: source.into(),
            })?;
        Ok(Self {
            inner,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
        })
    }

    pub(in super::super) async fn write<T, F>(&self, op: &'static str, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Txn) -> Result<T, StoreError> + Send + 'static,
    {
        let queue = self.queue.lock().clone();
        let queue = queue.ok_or_else(|| unavailable(op, false, Closed))?;
        let (answer, answered) = oneshot::channel();
        let call = Call {
            op,
            change: Some(change),
            result: None,
            answer,
        };
        queue
            .send(Box::new(call))
            .await
            .map_err(|_| unavailable(op, false, Closed))?;
        // The writer answers everything that it takes; this is a writer that panicked.
        answered.await.map_err(|_| unavailable(op, true, Closed))?
    }

    pub(in super::super) async fn read<T, F>(&self, op: &'static str, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.read(op, question))
            .await
            .map_err(|error| unavailable(op, false, error))?
    }

    pub(in super::super) async fn close(&self) {
        drop(self.queue.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // Fails only if the writer panicked, and then there is nothing to wait for.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

impl Drop for Disk {
    /// Waits for the last commit: the file is free when this returns.
    fn drop(&mut self) {
        drop(self.queue.get_mut().take());
        if let Some(writer) = self.writer.get_mut().take() {
            let _ = writer.join();
        }
    }
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != std::io::ErrorKind::InvalidData => {
            OpenError::Io {
                path,
                source: source.into(),
            }
        }
        other => OpenError::Damaged {
            path,
            source: other.into(),
        },
    }
}

/// Makes the table and reads the format.
fn begin(database: &Database) -> Result<Option<String>, BoxError> {
    let txn = database.begin_write()?;
    let (found, written) = {
        let mut table = txn.open_table(TABLE)?;
        let mut writing = Writing::new(&table);
        let found = format(&mut writing)?;
        let overlay = writing.into_overlay()?;
        let written = !overlay.is_empty();
        flush(&mut table, overlay)?;
        (found, written)
    };
    if written {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(found)
}

/// One caller's change, on its way through a commit.
trait Op: Send {
    fn run(&mut self, txn: &mut dyn Txn);
    /// Answers the caller: with the result if the commit went well.
    fn answer(self: Box<Self>, committed: Result<(), (bool, Shared)>);
}

struct Call<T, F> {
    op: &'static str,
    change: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Op for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut dyn Txn) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, txn: &mut dyn Txn) {
        if let Some(change) = self.change.take() {
            self.result = Some(change(txn));
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), (bool, Shared)>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(unavailable(self.op, false, Closed)),
            (Err((sent, error)), _) => Err(unavailable(self.op, sent, error)),
        };
        // A caller that is gone does not want the answer.
        let _ = self.answer.send(result);
    }
}

/// A commit that failed: whether it may have happened all the same, and why.
struct Failed {
    sent: bool,
    source: BoxError,
}

impl Failed {
    fn before(source: impl Into<BoxError>) -> Self {
        Self {
            sent: false,
            source: source.into(),
        }
    }
}

impl Inner {
    fn run(&self, mut inbox: mpsc::Receiver<Box<dyn Op>>) {
        let mut batch = Vec::with_capacity(QUEUE);
        while let Some(first) = inbox.blocking_recv() {
            batch.push(first);
            while batch.len() < QUEUE
                && let Ok(next) = inbox.try_recv()
            {
                batch.push(next);
            }
            let committed = self.commit(&mut batch).map_err(|failed| {
                tracing::error!(error = %crate::error::chain(&*failed.source), changes = batch.len(), "commit failed");
                // The database refuses everything after a failed write; it has to be opened anew.
                *self.database.write() = None;
                (failed.sent, Shared(failed.source.into()))
            });
            for op in batch.drain(..) {
                op.answer(committed.clone());
            }
        }
        *self.database.write() = None;
    }

    /// Runs all changes and commits them together.
    fn commit(&self, batch: &mut [Box<dyn Op>]) -> Result<(), Failed> {
        if self.database.read().is_none() {
            let database = (self.opener)().map_err(Failed::before)?;
            begin(&database).map_err(Failed::before)?;
            tracing::info!("the database is open again");
            *self.database.write() = Some(database);
        }
        let database = self.database.read();
        let Some(database) = database.as_ref() else {
            return Err(Failed::before(Closed));
        };
        let txn = database.begin_write().map_err(Failed::before)?;
        {
            let mut table = txn.open_table(TABLE).map_err(Failed::before)?;
            let mut writing = Writing::new(&table);
            for op in batch {
                op.run(&mut writing);
            }
            let overlay = writing.into_overlay().map_err(Failed::before)?;
            if overlay.is_empty() {
                // Nothing but refusals, all of them based on what is durable already.
                drop(table);
                return txn.abort().map_err(Failed::before);
            }
            flush(&mut table, overlay).map_err(Failed::before)?;
        }
        txn.commit().map_err(|source| Failed {
            sent: true,
            source: source.into(),
        })
    }

    fn read<T>(
        &self,
        op: &'static str,
        question: impl FnOnce(&dyn View) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| unavailable(op, false, Closed))?;
        let txn = database.begin_read().map_err(|error| unavailable(op, false, error))?;
        let table = txn.open_table(TABLE).map_err(|error| unavailable(op, false, error))?;
        question(&Reading { op, table })
    }
}

type Overlay = HashMap<Vec<u8>, Option<Bytes>>;

/// Writes in the order of the keys, which touches each page of the tree once.
fn flush(table: &mut Table<'_, &'static [u8], &'static [u8]>, overlay: Overlay) -> Result<(), StorageError> {
    let mut entries: Vec<(Vec<u8>, Option<Bytes>)> = overlay.into_iter().collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (key, value) in entries {
        match value {
            Some(value) => drop(table.insert(key.as_slice(), value.as_ref())?),
            None => drop(table.remove(key.as_slice())?),
        }
    }
    Ok(())
}

/// The table as the changes of one commit see it: what they wrote lies over it.
struct Writing<'a, 'txn> {
    table: &'a Table<'txn, &'static [u8], &'static [u8]>,
    overlay: Overlay,
    /// The first failure of the storage. Nothing of this commit happens then.
    failed: Mutex<Option<Shared>>,
}

impl<'a, 'txn> Writing<'a, 'txn> {
    fn new(table: &'a Table<'txn, &'static [u8], &'static [u8]>) -> Self {
        Self {
            table,
            overlay: HashMap::new(),
            failed: Mutex::default(),
        }
    }

    fn into_overlay(self) -> Result<Overlay, Shared> {
        match self.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(self.overlay),
        }
    }
}

impl Get for Writing<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(written) = self.overlay.get(key) {
            return Ok(written.clone());
        }
        match self.table.get(key) {
            Ok(found) => Ok(found.map(|value| Bytes::copy_from_slice(value.value()))),
            Err(error) => {
                let error = Shared(Arc::new(error));
                self.failed.lock().get_or_insert_with(|| error.clone());
                Err(unavailable("read", false, error))
            }
        }
    }
}

impl Txn for Writing<'_, '_> {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.overlay.insert(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.overlay.insert(key, None);
    }
}

struct Reading {
    op: &'static str,
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Get for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self
            .table
            .get(key)
            .map_err(|error| unavailable(self.op, false, error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }
}

impl View for Reading {
    fn scan(&self, range: Range<&[u8]>, order: Order, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if range.start >= range.end {
            return Ok(());
        }
        let failed = |error| unavailable(self.op, false, error);
        let mut entries = self.table.range::<&[u8]>(range).map_err(failed)?;
        loop {
            let entry = match order {
                Order::Ascending => entries.next(),
                Order::Descending => entries.next_back(),
            };
            let Some(entry) = entry else {
                return Ok(());
            };
            let (key, value) = entry.map_err(failed)?;
            if let ControlFlow::Break(()) = visit(key.value(), value.value()) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
