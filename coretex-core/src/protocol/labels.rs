//! Which labels of a job say where it may run. See `docs/spec/protocol.md` §6.

/// Placed by name: the one pool that may be used.
pub const PREFERRED_POOL: &str = "preferred_pool";
/// Placed by name: the worker that is used if it can take the job.
pub const PREFERRED_WORKER: &str = "preferred_worker_id";
/// `true` on a job that people have approved.
pub const APPROVAL_GRANTED: &str = "approval_granted";
/// Why they did.
pub const APPROVAL_REASON: &str = "approval_reason";
/// What else they said.
pub const APPROVAL_NOTE: &str = "approval_note";
/// Makes two submissions of one job id two messages for the broker.
pub const BUS_MSG_ID: &str = "coretex.bus_msg_id";
/// The job that was refused, on the one that was asked for in its place.
pub const REMEDIATION_OF: &str = "remediation_of";
/// `true` on a job that may run twice.
pub const IDEMPOTENT: &str = "coretex.idempotent";

/// On a worker: it listens on `worker.<id>.jobs`.
pub const WORKER_DIRECT: &str = "coretex.direct";
/// On a worker: it confirms the jobs it takes, and suppresses duplicates.
pub const WORKER_CONFIRMS: &str = "coretex.confirms";

const NAMES: [&str; 11] = [
    "dlq_entry",
    "dry_run",
    "node_id",
    REMEDIATION_OF,
    "retry",
    "retry_of_job",
    "run_id",
    "secrets_present",
    "step_id",
    "worker_id",
    "workflow_id",
];

const PREFIXES: [&str; 4] = ["coretex.", "mcp.", "mcp_", "preferred_"];

/// Whether the label is about an approval, in any case: such labels are neither placed by nor part of the job hash.
pub(crate) fn is_approval_label(key: &str) -> bool {
    const PREFIX: &[u8] = b"approval_";
    key.as_bytes()
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether a worker must carry the same label to be given the job. Reserved names say something about the job itself.
pub fn is_placement_label(key: &str) -> bool {
    !(is_approval_label(key) || NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_labels_do_not_place() {
        for key in [
            "approval_granted",
            "approval_reason",
            "Approval_Note",
            "retry",
            "dlq_entry",
            "retry_of_job",
            "dry_run",
            "mcp.server",
            "mcp_tool",
            "secrets_present",
            "workflow_id",
            "run_id",
            "step_id",
            "node_id",
            "worker_id",
            "preferred_pool",
            "preferred_worker_id",
            "coretex.idempotent",
        ] {
            assert!(!is_placement_label(key), "{key}");
        }
        for key in [
            "region",
            "",
            "Retry",
            "retry_",
            "approval",
            "mcp",
            "run",
            "coretex",
            "gpu.coretex.",
            "ünï",
        ] {
            assert!(is_placement_label(key), "{key}");
        }
    }
}
