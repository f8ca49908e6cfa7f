//! Every store on one embedded database. See `docs/spec/embedded.md`.

mod audit;
#[cfg(feature = "test-util")]
mod check;
mod dead_letters;
mod documents;
mod jobs;
mod keys;
mod kv;
mod local;
mod payloads;
mod row;
mod workflows;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::kv::{Kv, Txn, disk, memory};
use super::Stores;
use crate::error::{BoxError, StoreError};
use crate::time::Clock;

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this folder, which is made if it is not there.
    Disk(PathBuf),
    /// Nowhere: it is gone with the process.
    Memory,
}

/// How the stores are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long ended jobs and dead letters are kept. 7 days.
    pub meta_ttl: Duration,
    /// How long payloads are kept that name no time of their own. 24 hours.
    pub data_ttl: Duration,
    /// How many entries of a run's timeline are kept, the newest. 10 000.
    pub timeline_limit: usize,
    /// How much of the file is cached in memory, in bytes. 32 MiB.
    pub cache_bytes: usize,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            meta_ttl: Duration::from_secs(7 * 24 * 3600),
            data_ttl: Duration::from_secs(24 * 3600),
            timeline_limit: 10_000,
            cache_bytes: 32 * 1024 * 1024,
            clock: Clock::system(),
        }
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open; one file belongs to one process.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, or no database at all.
    #[error("{} is no readable database; restore it from a copy, or move it away to begin anew", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
    /// A newer version has written it.
    #[error("{} has format {found}; this version reads format {}", .path.display(), String::from_utf8_lossy(keys::FORMAT))]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// The file or its folder cannot be used.
    #[error("cannot open {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
}

/// What the stores have in common.
#[derive(Debug)]
struct Settings {
    meta_ttl: Duration,
    data_ttl: Duration,
    timeline_limit: usize,
    clock: Clock,
}

/// Every store, on one database.
#[derive(Clone)]
pub struct EmbeddedStores {
    kv: Arc<Kv>,
    stores: Stores,
}

impl fmt::Debug for EmbeddedStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStores")
            .field("kv", &self.kv)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStores {
    /// The name of the file in its folder.
    pub const FILE: &'static str = "coretex.redb";

    /// Opens what is there, or begins anew. Blocks while a file that was not closed is repaired.
    ///
    /// # Errors
    /// [`OpenError`] says which file cannot be used, and why.
    pub fn open(location: &Location, options: &Options) -> Result<Self, OpenError> {
        let kv = match location {
            Location::Memory => Kv::Memory(memory::Memory::default()),
            Location::Disk(folder) => Kv::Disk(disk::Disk::open(&file(folder)?, options.cache_bytes)?),
        };
        Ok(Self::over(kv, options))
    }

    fn over(kv: Kv, options: &Options) -> Self {
        let kv = Arc::new(kv);
        let settings = Arc::new(Settings {
            meta_ttl: options.meta_ttl,
            data_ttl: options.data_ttl,
            timeline_limit: options.timeline_limit,
            clock: options.clock.clone(),
        });
        let stores = Stores {
            jobs: Arc::new(jobs::Jobs {
                kv: Arc::clone(&kv),
                settings: Arc::clone(&settings),
            }),
            payloads: Arc::new(payloads::Payloads {
                kv: Arc::clone(&kv),
                settings: Arc::clone(&settings),
            }),
            workflows: Arc::new(workflows::Workflows {
                kv: Arc::clone(&kv),
                settings,
            }),
            dlq: Arc::new(dead_letters::DeadLetters { kv: Arc::clone(&kv) }),
            leases: Arc::new(local::Leases::default()),
            cluster: Arc::new(local::Local::new(Arc::clone(&kv))),
            config: Arc::new(documents::Documents { kv: Arc::clone(&kv) }),
            audit: Arc::new(audit::Audit { kv: Arc::clone(&kv) }),
        };
        Self { kv, stores }
    }

    /// The stores.
    pub fn stores(&self) -> Stores {
        self.stores.clone()
    }

    /// Compares every index with the records it is made from; returns what is wrong, for people.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    #[cfg(feature = "test-util")]
    pub async fn check_integrity(&self) -> Result<Vec<String>, StoreError> {
        self.kv.read("check", check::problems).await
    }

    /// Finishes what was accepted, refuses what comes later, and lets go of the file. Dropping the last store does the
    /// same.
    pub async fn close(&self) {
        self.kv.close().await;
    }
}

fn file(folder: &Path) -> Result<PathBuf, OpenError> {
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Io {
        path: folder.to_owned(),
        source: source.into(),
    })?;
    Ok(folder.join(EmbeddedStores::FILE))
}

/// Writes the format into a new database; returns what an existing one has.
fn format(txn: &mut dyn Txn) -> Result<Option<String>, StoreError> {
    let found = txn.get(keys::FORMAT_KEY)?;
    if found.is_none() {
        txn.put(keys::FORMAT_KEY.to_vec(), bytes::Bytes::from_static(keys::FORMAT));
    }
    Ok(found.map(|found| String::from_utf8_lossy(&found).into_owned()))
}
