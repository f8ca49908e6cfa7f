//! The demo, as somebody sees it who tries the product: README.md.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

/// Documents are digested, a deletion is denied, and what is published was agreed to twice.
#[test]
fn the_demo_is_a_workflow_on_real_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("a.md", "# Bus\n\nsubjects and queues\n"),
        ("b.md", "# Stores\n\nkeys and values, keys again\n"),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let out = folder.path().join("out");
    let demo = Command::cargo_bin("coretexd")
        .expect("built")
        .args(["demo", "--yes", "--out"])
        .arg(&out)
        .args([folder.path().join("a.md"), folder.path().join("b.md")])
        .assert()
        .success();
    let printed = String::from_utf8_lossy(&demo.get_output().stdout).into_owned();
    let line = |step: &str| {
        let found = printed.lines().find(|line| line.starts_with(step));
        found.unwrap_or_else(|| panic!("nothing of {step} in {printed}"))
    };
    assert!(line("digest[0] ").contains("ALLOW demo-digest"), "{printed}");
    assert!(line("digest[1] ").contains("b.md: 6 words"), "{printed}");
    assert!(line("delete ").contains("DENY demo-no-deletes"), "{printed}");
    assert!(
        line("gather ").contains("2 documents, 10 words, 0 findings"),
        "{printed}"
    );
    assert!(line("review ").contains("approved by"), "{printed}");
    assert!(
        line("publish ").contains("REQUIRE_APPROVAL demo-publish-needs-approval, approved by"),
        "{printed}"
    );
    let index = fs::read(out.join("index.json")).expect("published");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!((&index["documents"], &index["words"]), (&2.into(), &10.into()));
}

/// Without a terminal and without --yes nobody agreed, and nothing is published.
#[test]
fn nothing_is_published_that_nobody_agreed_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let document = folder.path().join("a.md");
    fs::write(&document, "# Bus\n").expect("written");
    let out = folder.path().join("out");
    let demo = Command::cargo_bin("coretexd")
        .expect("built")
        .args(["demo", "--out"])
        .arg(&out)
        .arg(&document)
        .write_stdin("")
        .assert()
        .success();
    let printed = String::from_utf8_lossy(&demo.get_output().stdout).into_owned();
    assert!(printed.contains("Nothing was published"), "{printed}");
    assert!(!printed.contains("publish "), "the job never was submitted: {printed}");
    assert!(!out.join("index.json").exists());
}
