//! The names of all metrics. Those of the reference keep their names (docs/spec/scheduler.md §9).

/// Jobs taken from the bus, by topic.
pub const JOBS_RECEIVED: &str = "coretex_scheduler_jobs_received_total";
/// Jobs handed to workers, by topic.
pub const JOBS_DISPATCHED: &str = "coretex_scheduler_jobs_dispatched_total";
/// Jobs that ended, by topic and status.
pub const JOBS_COMPLETED: &str = "coretex_scheduler_jobs_completed_total";
/// Jobs refused by policy, by topic.
pub const SAFETY_DENIED: &str = "coretex_scheduler_safety_denied_total";
/// Jobs that wait in this process for room.
pub const JOBS_PARKED: &str = "coretex_scheduler_jobs_parked";
/// Jobs placed by this process and not over.
pub const JOBS_IN_FLIGHT: &str = "coretex_scheduler_jobs_in_flight";
/// Jobs that were dispatched again to the worker that has them, to ask how they are.
pub const JOBS_ASKED_AGAIN: &str = "coretex_scheduler_jobs_asked_again_total";
/// Jobs that went back to waiting, by reason.
pub const JOBS_REQUEUED: &str = "coretex_scheduler_jobs_requeued_total";
/// Jobs taken over from replicas that are gone, or that nobody looked after.
pub const JOBS_ADOPTED: &str = "coretex_scheduler_jobs_adopted_total";
/// Results that changed nothing: repeats, late ones, unknown jobs. By why.
pub const RESULTS_IGNORED: &str = "coretex_scheduler_results_ignored_total";
/// Packets that could not be read, by subject.
pub const PACKETS_UNDECODABLE: &str = "coretex_bus_packets_undecodable_total";
/// Packets refused for what they say, by subject.
pub const PACKETS_INVALID: &str = "coretex_bus_packets_invalid_total";
/// Heartbeats whose worker id is no single subject token.
pub const HEARTBEATS_BAD_ID: &str = "coretex_scheduler_heartbeats_bad_id_total";
/// Calls of a store that failed and were tried again.
pub const STORE_RETRIES: &str = "coretex_store_retries_total";
/// Changes of the configuration that others could not be told of at once.
pub const CONFIG_NOTICES_LOST: &str = "coretex_config_notices_lost_total";
/// Entries that this process put into the audit log.
pub const AUDIT_ENTRIES: &str = "coretex_audit_entries_total";
/// Times that records could not be moved into the audit log; they wait in the outbox.
pub const AUDIT_FAILURES: &str = "coretex_audit_failures_total";
/// Reloads of policy, by result: `changed`, `unchanged`, `failed`.
pub const POLICY_RELOADS: &str = "coretex_policy_reloads_total";
/// Rules of the active policy.
pub const POLICY_RULES: &str = "coretex_policy_rules";
/// Policy fragments whose present text is refused.
pub const POLICY_QUARANTINED: &str = "coretex_policy_quarantined_fragments";
/// Decisions of the kernel in this process, by decision.
pub const POLICY_DECISIONS: &str = "coretex_policy_decisions_total";
/// Questions that a kernel answered over gRPC, by method and code.
pub const KERNEL_SERVED: &str = "coretex_kernel_served_total";
/// Questions to a kernel in another process, by outcome.
pub const KERNEL_ASKED: &str = "coretex_kernel_asked_total";
/// 1 while a kernel in another process is not asked because it does not answer.
pub const KERNEL_CIRCUIT_OPEN: &str = "coretex_kernel_circuit_open";
/// Runs that were started, by workflow.
pub const WORKFLOWS_STARTED: &str = "workflows_started_total";
/// Runs that ended, by workflow and status.
pub const WORKFLOWS_COMPLETED: &str = "workflows_completed_total";
/// How long runs took, by workflow.
pub const WORKFLOW_DURATION: &str = "workflow_duration_seconds";
/// Commits of runs that somebody else was faster with.
pub const WORKFLOW_COMMIT_CONFLICTS: &str = "coretex_workflow_commit_conflicts_total";
/// What was done outside for runs, by effect.
pub const WORKFLOW_EFFECTS: &str = "coretex_workflow_effects_total";
/// What could not be done at once, and is tried again, by effect.
pub const WORKFLOW_EFFECTS_FAILED: &str = "coretex_workflow_effects_failed_total";
/// How late the last run was looked at whose time had come.
pub const WORKFLOW_TIMER_LAG: &str = "coretex_workflow_timer_lag_seconds";
/// Records of steps in memory, by shard.
pub const WORKFLOW_CACHED_RECORDS: &str = "coretex_workflow_cached_records";
/// Times that a run was put aside because it could not be read or written.
pub const WORKFLOW_QUARANTINED: &str = "coretex_workflow_quarantined_total";
/// Results that no run was looked for, by why.
pub const WORKFLOW_RESULTS_IGNORED: &str = "coretex_workflow_results_ignored_total";
