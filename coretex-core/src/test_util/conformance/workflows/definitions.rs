//! Definitions and their revisions.

use crate::audit::AuditRecord;
use crate::test_util::conformance::{Fixture, Scene};
use crate::workflow::Workflow;
use crate::workflow::store::{StoredWorkflow, WorkflowWrite};

fn definition(scene: &Scene, name: &str, version: &str, at: u64) -> StoredWorkflow {
    let workflow = Workflow {
        id: scene.name(name),
        org_id: scene.name("org"),
        version: version.to_owned(),
        name: "Ünïcode \"✓\"\u{1f}".to_owned(),
        created_at: scene.at(0),
        updated_at: scene.at(at),
        ..Workflow::default()
    };
    StoredWorkflow {
        hash: workflow.content_hash(),
        workflow,
        revision: 1,
    }
}

async fn put(fixture: &Fixture, stored: &StoredWorkflow, expected: Option<&str>) -> bool {
    let write = WorkflowWrite {
        stored,
        expected,
        audit: None,
    };
    fixture.workflows.put_workflow(&write).await.expect("puts")
}

/// A definition is read as it was written, and so is its revision, also after another one.
pub async fn a_definition_is_stored_with_its_revision(fixture: &Fixture) {
    let scene = Scene::new();
    let one = definition(&scene, "w", "1", 1);
    let store = &fixture.workflows;
    assert_eq!(store.workflow(&one.workflow.id).await.expect("reads"), None);
    assert!(put(fixture, &one, None).await);
    assert_eq!(
        store.workflow(&one.workflow.id).await.expect("reads"),
        Some(one.clone())
    );

    let two = StoredWorkflow {
        revision: 2,
        ..definition(&scene, "w", "2", 2)
    };
    assert!(put(fixture, &two, Some(&one.hash)).await);
    assert_eq!(
        store.workflow(&one.workflow.id).await.expect("reads"),
        Some(two.clone())
    );
    for stored in [&one, &two] {
        let found = store.workflow_revision(&stored.hash).await.expect("reads");
        assert_eq!(found.as_ref(), Some(&stored.workflow));
    }
    let back = StoredWorkflow {
        revision: 3,
        ..definition(&scene, "w", "1", 3)
    };
    assert!(put(fixture, &back, Some(&two.hash)).await);
    let revisions = store.workflow_revisions(&one.workflow.id, 10).await.expect("reads");
    let hashes: Vec<&str> = revisions.iter().map(|revision| revision.hash.as_str()).collect();
    assert_eq!(
        hashes,
        [&two.hash, &one.hash],
        "newest first, by when they were saved first"
    );
    assert_eq!(revisions[1].saved_at, scene.at(1));
    let newest = store.workflow_revisions(&one.workflow.id, 1).await.expect("reads");
    assert_eq!(newest, revisions[..1]);
    assert_eq!(store.workflow_revision("none").await.expect("reads"), None);
}

/// Whoever read another revision, or none, does not write.
pub async fn a_definition_is_written_only_over_what_was_seen(fixture: &Fixture) {
    let scene = Scene::new();
    let (one, two) = (definition(&scene, "w", "1", 1), definition(&scene, "w", "2", 2));
    assert!(!put(fixture, &one, Some(&two.hash)).await, "there is none");
    assert!(put(fixture, &one, None).await);
    assert!(!put(fixture, &two, None).await);
    assert!(!put(fixture, &two, Some(&two.hash)).await);
    let store = &fixture.workflows;
    assert_eq!(
        store.workflow(&one.workflow.id).await.expect("reads"),
        Some(one.clone())
    );
    assert_eq!(store.workflow_revision(&two.hash).await.expect("reads"), None);
    assert!(put(fixture, &two, Some(&one.hash)).await);
}

/// Of writers that have seen the same, one wins.
pub async fn of_many_writes_of_a_definition_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let writes: Vec<StoredWorkflow> = (0..8).map(|n| definition(&scene, "w", &n.to_string(), n)).collect();
    let won = futures::future::join_all(writes.iter().map(|stored| put(fixture, stored, None))).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).expect("one");
    let found = fixture.workflows.workflow(&writes[0].workflow.id).await.expect("reads");
    assert_eq!(found.as_ref(), Some(&writes[winner]));
}

async fn ids(fixture: &Fixture, scene: &Scene, org: Option<&str>) -> Vec<String> {
    let found = fixture.workflows.workflows(org, 1_000).await.expect("lists");
    found
        .into_iter()
        .map(|stored| stored.workflow.id)
        .filter(|id| scene.owns(id))
        .collect()
}

/// Lists are latest first, and a definition is in the list of the organisation it belongs to now.
pub async fn definitions_are_listed_by_organisation(fixture: &Fixture) {
    let scene = Scene::new();
    let (org, other) = (scene.name("org"), scene.name("other"));
    for (name, at) in [("a", 1), ("b", 3), ("c", 2)] {
        assert!(put(fixture, &definition(&scene, name, "1", at), None).await);
    }
    let names = |names: &[&str]| names.iter().map(|name| scene.name(name)).collect::<Vec<_>>();
    assert_eq!(ids(fixture, &scene, None).await, names(&["b", "c", "a"]));
    let newest = fixture.workflows.workflows(Some(&org), 1).await.expect("lists");
    assert_eq!(newest.len(), 1);

    let before = definition(&scene, "a", "1", 1);
    let mut moved = definition(&scene, "a", "2", 9);
    moved.workflow.org_id.clone_from(&other);
    moved.hash = moved.workflow.content_hash();
    assert!(put(fixture, &moved, Some(&before.hash)).await);
    assert_eq!(ids(fixture, &scene, Some(&org)).await, names(&["b", "c"]));
    assert_eq!(ids(fixture, &scene, Some(&other)).await, names(&["a"]));
    assert_eq!(ids(fixture, &scene, None).await, names(&["a", "b", "c"]));
}

/// A run that is pinned to a revision can still read it.
pub async fn a_deleted_definition_leaves_its_revisions(fixture: &Fixture) {
    let scene = Scene::new();
    let stored = definition(&scene, "w", "1", 1);
    let id = &stored.workflow.id;
    let store = &fixture.workflows;
    assert!(!store.delete_workflow(id, None).await.expect("deletes"));
    assert!(put(fixture, &stored, None).await);
    assert!(store.delete_workflow(id, None).await.expect("deletes"));
    assert!(!store.delete_workflow(id, None).await.expect("deletes"));
    assert_eq!(store.workflow(id).await.expect("reads"), None);
    assert!(ids(fixture, &scene, None).await.is_empty());
    assert!(ids(fixture, &scene, Some(&scene.name("org"))).await.is_empty());
    let revision = store.workflow_revision(&stored.hash).await.expect("reads");
    assert_eq!(revision, Some(stored.workflow.clone()));
    assert_eq!(store.workflow_revisions(id, 10).await.expect("reads").len(), 1);
    assert!(put(fixture, &stored, None).await, "there is none");
}

/// A revision alone, without the definition.
pub async fn a_revision_of_others_is_stored_once(fixture: &Fixture) {
    let scene = Scene::new();
    let stored = definition(&scene, "w", "1", 1);
    let store = &fixture.workflows;
    for _ in 0..2 {
        store.ensure_revision(&stored).await.expect("stores");
    }
    let found = store.workflow_revision(&stored.hash).await.expect("reads");
    assert_eq!(found, Some(stored.workflow.clone()));
    let revisions = store.workflow_revisions(&stored.workflow.id, 10).await.expect("reads");
    assert_eq!(revisions.len(), 1);
    assert_eq!(store.workflow(&stored.workflow.id).await.expect("reads"), None);
}

/// No change without its record, no record without its change.
pub async fn a_definition_brings_its_audit_record(fixture: &Fixture) {
    let scene = Scene::new();
    let stored = definition(&scene, "w", "1", 1);
    let audit = AuditRecord::new(scene.at(1), "anna", "", "workflow.save", &stored.workflow.id);
    let write = WorkflowWrite {
        stored: &stored,
        expected: None,
        audit: Some(&audit),
    };
    for expected in [true, false] {
        assert_eq!(fixture.workflows.put_workflow(&write).await.expect("puts"), expected);
    }
    let gone = AuditRecord::new(scene.at(2), "anna", "", "workflow.delete", &stored.workflow.id);
    let deleted = fixture.workflows.delete_workflow(&stored.workflow.id, Some(&gone));
    assert!(deleted.await.expect("deletes"));
    let never = AuditRecord::new(scene.at(2), "anna", "", "workflow.delete", &stored.workflow.id);
    let deleted = fixture.workflows.delete_workflow(&stored.workflow.id, Some(&never));
    assert!(!deleted.await.expect("deletes"));
    assert_eq!(fixture.audit.pending(10).await.expect("reads"), [audit, gone]);
}
