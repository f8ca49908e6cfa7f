//! What can be opened, and what is said of the rest.

use coretex_core::backend::embedded::{EmbeddedStores, Location, OpenError, Options};

fn try_open(folder: &tempfile::TempDir) -> Result<EmbeddedStores, OpenError> {
    EmbeddedStores::open(&Location::Disk(folder.path().join("made")), &Options::default())
}

#[tokio::test]
async fn one_file_belongs_to_one_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = try_open(&folder).expect("the first opens it");
    let error = try_open(&folder).expect_err("the second does not");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("coretex.redb is in use"), "{error}");
    drop(first);
    try_open(&folder).expect("free again");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(try_open(&folder).expect("open"));
    let file = folder.path().join("made").join(EmbeddedStores::FILE);
    let garbage = vec![b'x'; 100_000];
    std::fs::write(&file, &garbage).expect("write");
    let error = try_open(&folder).expect_err("it is garbage");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("no readable database"), "{error}");
    assert_eq!(std::fs::read(&file).expect("read"), garbage);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("made"), b"a file").expect("write");
    let error = try_open(&folder).expect_err("there is a file in the way");
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("made"), "{error}");
}
