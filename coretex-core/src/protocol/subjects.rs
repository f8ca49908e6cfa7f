//! The subjects of the bus. See `docs/spec/protocol.md` §1.

use super::WorkerId;

/// Job requests, to the schedulers.
pub const SUBMIT: &str = "sys.job.submit";
/// Job results, from workers.
pub const RESULT: &str = "sys.job.result";
/// Jobs that ended without success, for whoever keeps dead letters.
pub const DLQ: &str = "sys.job.dlq";
/// Progress of running jobs.
pub const PROGRESS: &str = "sys.job.progress";
/// Cancel requests, to every worker.
pub const CANCEL: &str = "sys.job.cancel";
/// Workers' signs of life.
pub const HEARTBEAT: &str = "sys.heartbeat";
/// Alerts raised by workflows.
pub const WORKFLOW_EVENT: &str = "sys.workflow.event";

/// What schedulers tell each other: jobs that ended. Outside `sys.`, so that no stream keeps it.
pub const ENDED: &str = "coretex.scheduler.ended";
/// The roll call: a scheduler that knows no worker yet asks all to say that they live. Outside `sys.` as well.
pub const STARTED: &str = "coretex.scheduler.started";

/// A configuration document was written ([`Notice`](crate::config::Notice)). Outside `sys.`, so that no stream keeps it.
pub const CONFIG_CHANGED: &str = "coretex.config.changed";

/// What happens in runs: a JSON array of entries of timelines, for whoever watches. Outside `sys.`, so that no stream keeps it.
pub const WORKFLOW_TIMELINE: &str = "coretex.workflow.events";

/// The queue group of the workflow engines.
pub const WORKFLOW_ENGINE: &str = "coretex-workflow-engine";
/// The queue group of the schedulers, and their sender id.
pub const SCHEDULER: &str = "coretex-scheduler";
/// The sender id of the gateway on the bus.
pub const GATEWAY: &str = "api-gateway";

/// The subject that only this worker listens on.
pub fn worker_jobs(worker: &WorkerId) -> String {
    format!("worker.{worker}.jobs")
}

/// Whether messages on `subject` are kept by `JetStream` until they are handled.
pub fn is_durable(subject: &str) -> bool {
    matches!(subject, SUBMIT | RESULT | DLQ)
        || subject.starts_with("job.")
        || subject
            .strip_prefix("worker.")
            .is_some_and(|rest| rest.strip_suffix(".jobs").is_some())
}
