use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use super::super::Txn;
use super::Disk;
use crate::error::StoreError;

/// A file in memory that can run full.
#[derive(Debug, Clone, Default)]
struct SmallDisk {
    data: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl SmallDisk {
    fn check(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(offset).expect("a small file");
        start..start + len
    }
}

impl StorageBackend for SmallDisk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.data.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        out.copy_from_slice(&self.data.lock()[Self::range(offset, out.len())]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        let len = usize::try_from(len).expect("a small file");
        self.data.lock().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.data.lock()[Self::range(offset, data.len())].copy_from_slice(data);
        Ok(())
    }
}

async fn put(disk: &Disk, key: &'static str) -> Result<(), StoreError> {
    disk.write("put", move |txn: &mut dyn Txn| {
        txn.put(key.as_bytes().to_vec(), Bytes::from_static(b"value"));
        Ok(())
    })
    .await
}

async fn has(disk: &Disk, key: &'static str) -> bool {
    disk.read("get", move |view| Ok(view.get(key.as_bytes())?.is_some()))
        .await
        .expect("read")
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room() {
    let small = SmallDisk::default();
    let file = small.clone();
    let opener = Box::new(move || Database::builder().create_with_backend(file.clone()));
    let disk = Disk::over(Path::new("small"), opener).expect("open");
    put(&disk, "before").await.expect("there is room");

    small.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = put(&disk, "while").await.expect_err("there is no room");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
    }

    small.full.store(false, Ordering::SeqCst);
    put(&disk, "after").await.expect("there is room again");
    assert!(has(&disk, "before").await && has(&disk, "after").await);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let disk = Disk::open(&path, 1 << 20).expect("open");
    put(&disk, "a").await.expect("put");
    disk.close().await;
    disk.close().await;
    assert!(put(&disk, "b").await.is_err());
    // The file is free again, although the handle is still there.
    let again = Disk::open(&path, 1 << 20).expect("open");
    assert!(has(&again, "a").await && !has(&again, "b").await);
}
