//! Workflows as others see them: runs that start, wait, fail and end, on every backend.

mod clock;
mod scenarios;
mod trouble;
mod world;

/// Runs every scenario on one backend, each as a test of its own.
macro_rules! on_backend {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::world::Backend;
            use super::{clock, scenarios, trouble};

            super::on_backend!(@tests scenarios, $backend,
                a_chain_hands_its_outputs_on,
                a_fan_out_collects_its_outputs_in_order,
                an_attempt_that_failed_is_made_again,
                a_failure_cancels_what_is_in_flight,
                an_approval_waits_for_people,
                forms_and_signals_are_waited_for,
                a_subworkflow_is_a_run_of_its_own,
                cancelling_reaches_children_and_jobs,
                a_start_with_a_key_happens_once,
                no_more_runs_are_open_than_may_be,
                a_run_is_done_again_from_a_step,
                a_paused_workflow_begins_nothing,
                what_happens_is_told,
            );
            super::on_backend!(@tests trouble, $backend,
                a_denied_job_fails_its_step_with_the_reason,
                a_rejected_job_fails_its_step_with_the_reason,
                a_cancelled_job_cancels_its_step,
                a_lost_result_is_found,
                a_lost_submission_is_made_again,
                foreign_pointers_are_not_followed,
                a_run_without_a_definition_fails,
                two_engines_share_the_runs,
                engines_follow_each_other,
            );
            super::on_backend!(@tests clock, $backend,
                a_delay_ends,
                a_run_that_takes_too_long_is_stopped,
                a_schedule_starts_runs,
                replicas_start_one_run_for_each_time,
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

on_backend!(embedded_in_memory, Backend::Memory);
on_backend!(embedded_on_disk, Backend::Disk);
on_backend!(core_nats_and_redis, Backend::Nats);
on_backend!(jetstream_and_redis, Backend::JetStream);
