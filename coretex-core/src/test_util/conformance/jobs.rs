//! What every [`JobStore`](crate::jobs::JobStore) does.

mod approvals;
mod create;
mod fields;
mod lists;
mod placement;
mod support;
mod transitions;

pub use approvals::*;
pub use create::*;
pub use fields::*;
pub use lists::*;
pub use placement::*;
pub use transitions::*;

/// Makes one test of each case; takes the path of an `async fn() -> Fixture`.
#[macro_export]
macro_rules! job_store_conformance {
    ($make:path) => {
        $crate::conformance_cases!(
            $make, jobs:
            a_new_job_is_pending,
            the_payload_is_stored_with_the_job,
            an_id_is_taken_once,
            a_key_belongs_to_one_job,
            keys_are_scoped_by_tenant,
            of_many_creates_with_one_key_one_wins,
            of_many_creates_of_one_id_one_wins,
            a_first_change_claims_the_key,
            odd_ids_work,
            a_big_request_is_kept,
            empty_strings_are_kept,
            every_event_in_every_state,
            finish_from_pending_needs_a_dispatch,
            a_new_job_passes_through_pending,
            times_grow_along_the_way,
            revisions_grow_when_the_clock_stands_still,
            an_unexpected_revision_is_a_conflict,
            a_repeated_token_is_answered_again,
            an_old_token_is_a_new_change,
            of_many_changes_one_wins,
            of_many_endings_one_wins,
            an_approval_releases_once,
            parking_keeps_the_place,
            one_call_keeps_the_order,
            a_call_with_losers_applies_the_others,
            nothing_is_written_by_a_lost_change,
            dispatch_says_where,
            attempts_are_counted_and_limited,
            a_tenant_has_so_many_slots,
            slots_are_exact_under_a_race,
            slots_are_freed_by_every_way_out,
            no_limit_still_counts,
            a_deadline_is_only_tightened,
            due_jobs_come_earliest_first,
            an_ended_job_is_not_due,
            acceptance_is_noted,
            waiting_is_noted,
            ownership_is_noted,
            a_pending_note_is_cleared,
            decisions_are_kept_newest_first,
            decisions_without_constraints_are_kept,
            approvals_are_kept,
            requests_are_kept_replaced_and_filled_in,
            descriptions_are_kept,
            outcomes_are_kept,
            a_dead_letter_comes_with_an_error_document,
            a_dead_letter_leaves_a_result_alone,
            missing_jobs_are_none,
            traces_are_oldest_first,
            a_trace_is_recorded_once,
            recent_pages_cover_everything_once,
            state_pages_cover_everything_once,
            lists_follow_transitions,
            a_bare_time_begins_with_that_time,
            listed_records_are_whole,
            scans_are_oldest_first_until,
            scan_items_say_who_has_it,
            counts_count,
            the_sweep_takes_what_is_old,
            votes_are_kept_until_asked_again,
            a_vote_makes_a_revision_and_no_event,
            decisions_are_kept_whole,
            approvals_are_due,
            what_left_approval_is_not_due,
            the_log_has_every_decision_once,
            the_log_has_what_was_applied,
            the_sweep_shortens_the_log,
        );
    };
}
