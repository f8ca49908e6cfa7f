//! What every [`WorkflowStore`](crate::workflow::WorkflowStore) does.
//!
//! Each case has a fixture of its own: what is due and what waits is one list per store.

mod definitions;
mod lists;
mod runs;
mod schedules;

pub use definitions::*;
pub use lists::*;
pub use runs::*;
pub use schedules::*;

use std::sync::Arc;

use serde_json::json;

use super::{Fixture, Scene};
use crate::time::Timestamp;
use crate::workflow::event::TimelineEvent;
use crate::workflow::store::{Committed, Created, NewRun, RunCommit};
use crate::workflow::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord};

/// Makes one test of each case; takes the path of an `async fn() -> Fixture` whose stores nobody else uses.
#[macro_export]
macro_rules! workflow_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, workflows:
            a_definition_is_stored_with_its_revision,
            a_definition_is_written_only_over_what_was_seen,
            of_many_writes_of_a_definition_one_wins,
            definitions_are_listed_by_organisation,
            a_deleted_definition_leaves_its_revisions,
            a_revision_of_others_is_stored_once,
            a_definition_brings_its_audit_record,
            a_run_is_stored_whole,
            a_run_of_any_name_is_stored,
            a_run_is_created_once,
            a_repeated_creation_is_answered_as_before,
            an_idempotency_key_belongs_to_one_run,
            an_idempotency_key_is_scoped,
            limits_hold,
            limits_hold_under_concurrency,
            a_commit_changes_what_it_names,
            a_stale_commit_changes_nothing,
            a_repeated_commit_is_answered_as_before,
            of_concurrent_commits_one_wins,
            commits_on_one_run_go_in_order,
            a_deleted_run_stays_deleted,
            only_the_seen_run_is_deleted,
            a_big_commit_is_stored,
            payloads_are_stored,
            ended_runs_are_not_open,
            a_timeline_keeps_its_order,
            a_long_timeline_is_trimmed,
            due_runs_are_claimed_once,
            a_commit_says_when_a_run_is_due,
            of_many_claims_each_gets_its_own,
            runs_are_listed_latest_first,
            runs_of_one_moment_are_paged,
            runs_are_filtered,
            pages_hold_only_what_fits,
            steps_that_wait_are_listed,
            old_runs_expire,
            a_commit_brings_its_audit_records,
            a_schedule_is_written_only_over_what_was_seen,
            schedules_are_listed_by_id,
            due_schedules_are_claimed_once,
            a_deleted_schedule_is_not_due,
        );
    };
}

pub(crate) fn run_id(scene: &Scene, name: &str) -> RunId {
    RunId::new(&scene.name(name))
}

pub(crate) fn head(scene: &Scene, status: RunStatus, micros: u64) -> RunHead {
    RunHead {
        workflow_id: scene.name("workflow"),
        definition: "abc".to_owned(),
        org_id: scene.name("org"),
        team_id: scene.name("team"),
        status,
        created_at: scene.at(0),
        updated_at: scene.at(micros),
        ..RunHead::default()
    }
}

/// A commit that changes nothing but the head.
pub(crate) fn commit(run: &RunId, expected: u64, head: RunHead) -> RunCommit {
    RunCommit {
        run: run.clone(),
        expected,
        token: rand::random(),
        head,
        context: None,
        steps: Vec::new(),
        items: Vec::new(),
        effects: Vec::new(),
        done: Vec::new(),
        payloads: Vec::new(),
        timeline: Vec::new(),
        due: None,
        inbox_add: Vec::new(),
        inbox_remove: Vec::new(),
        audit: Vec::new(),
    }
}

pub(crate) fn new_run(commit: RunCommit) -> NewRun {
    NewRun {
        commit,
        input: Arc::new(json!({"n": 1})),
        idempotency: None,
        org_limit: None,
        workflow_limit: None,
    }
}

pub(crate) fn event(at: Timestamp, message: &str) -> TimelineEvent {
    TimelineEvent {
        time: at,
        event_type: "run_status".to_owned(),
        message: message.to_owned(),
        ..TimelineEvent::default()
    }
}

pub(crate) fn record(status: RunStatus, attempts: u32) -> StepRecord {
    StepRecord {
        status,
        attempts,
        ..StepRecord::default()
    }
}

pub(crate) fn key(text: &str) -> StepKey {
    StepKey::new(text)
}

pub(crate) async fn create(fixture: &Fixture, new: NewRun) -> Created {
    let mut created = fixture.workflows.create_runs(&[new]).await;
    assert_eq!(created.len(), 1);
    created.remove(0).expect("creates")
}

/// Stores a run that has nothing but a head.
pub(crate) async fn stored(fixture: &Fixture, run: &RunId, head: RunHead) {
    assert_eq!(create(fixture, new_run(commit(run, 0, head))).await, Created::Created);
}

pub(crate) async fn apply(fixture: &Fixture, commit: &RunCommit) -> Committed {
    let mut committed = fixture.workflows.commit_runs(std::slice::from_ref(commit)).await;
    assert_eq!(committed.len(), 1);
    committed.remove(0).expect("commits")
}

pub(crate) async fn load(fixture: &Fixture, run: &RunId) -> Option<Run> {
    let mut runs = fixture.workflows.load_runs(std::slice::from_ref(run)).await;
    assert_eq!(runs.len(), 1);
    runs.remove(0).expect("loads")
}
