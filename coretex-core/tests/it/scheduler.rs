//! The scheduler as others see it: packets in, packets out, records in the store. On every backend.

mod approvals;
mod pauses;
mod scenarios;
mod world;

/// Runs every scenario on one backend, each as a test of its own.
macro_rules! on_backend {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::{approvals, pauses, scenarios};
            use super::world::Backend;

            super::on_backend!(@tests scenarios, $backend,
                a_job_lives_from_submit_to_success,
                a_denied_job_is_a_dead_letter,
                a_job_that_needs_approval_waits_for_people,
                an_unmapped_topic_is_a_dead_letter,
                a_job_without_a_topic_fails,
                jobs_wait_for_a_worker_and_are_woken_by_its_heartbeat,
                the_more_urgent_job_gets_the_room,
                a_repeated_submission_runs_once,
                results_that_say_nothing_new_change_nothing,
                a_result_without_a_status_is_a_failure,
                a_failure_is_a_dead_letter_with_the_workers_words,
                a_cancelled_job_stays_cancelled,
                a_tenant_never_has_more_than_its_limit,
                a_deadline_ends_a_job_and_tells_the_worker,
                without_policy_a_job_waits_and_is_not_denied,
                constraints_travel_with_the_job,
                a_worker_that_confirms_is_asked_again,
                a_worker_that_only_listens_on_its_own_subject_gets_its_jobs,
                a_worker_without_an_id_gets_its_jobs_by_topic,
                jobs_in_the_store_that_nobody_looks_after_are_adopted,
                a_forged_approval_lets_nothing_run,
                undecodable_packets_harm_nobody,
                two_schedulers_share_the_work_and_one_takes_over,
                retries_are_limited,
                two_schedulers_free_each_others_places,
                jobs_turned_away_are_taken_when_there_is_room,
                an_approval_that_nobody_heard_of_takes_effect,
                a_job_that_ended_does_not_wait,
                a_job_without_a_request_is_a_dead_letter,
                one_lane_serves_waiting_jobs_too,
                a_result_that_a_dead_replica_took_is_asked_for,
                a_new_scheduler_calls_the_roll,
                a_worker_that_was_not_known_yet_is_asked_when_it_is_heard_of,
            );
            super::on_backend!(@tests approvals, $backend,
                two_people_let_a_job_run,
                a_rejected_job_is_a_dead_letter,
                another_policy_judges_a_waiting_job_again,
                an_edited_job_is_not_approved,
                an_approval_is_for_one_job,
                a_repeated_submission_keeps_the_votes,
                what_nobody_decides_about_in_time_is_denied_or_runs,
                of_many_approvers_as_many_count_as_are_needed,
            );
            super::on_backend!(@tests pauses, $backend,
                jobs_of_a_paused_topic_wait,
                jobs_of_a_paused_pool_wait,
            );
        }
    };
    (@tests $module:ident, $backend:expr, $($scenario:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                $module::$scenario($backend).await;
            }
        )*
    };
}
use on_backend;

on_backend!(embedded, Backend::Embedded);
on_backend!(core_nats_and_redis, Backend::Nats);
on_backend!(jetstream_and_redis, Backend::JetStream);
