//! Every key, spelled once. See `docs/spec/storage.md` §2.

use crate::pointers::Pointer;
use crate::protocol::JobId;

/// Hash: all that is known of a job.
pub(super) const META: &str = "job:meta:";
/// String: copy of the state, read when the hash has none.
pub(super) const STATE: &str = "job:state:";
/// String: copy of the result pointer.
pub(super) const RESULT_PTR: &str = "job:result_ptr:";
/// String: the request.
pub(super) const REQUEST: &str = "job:req:";
/// List: the states the job went through.
pub(super) const EVENTS: &str = "job:events:";
/// List: the decisions.
pub(super) const DECISIONS: &str = "job:decisions:";
/// Sorted sets, one per state in lower case: jobs by the time of their last change.
pub(super) const INDEX: &str = "job:index:";
/// Sorted set: all jobs by the time of their last change.
pub(super) const RECENT: &str = "job:recent";
/// Sorted set: open jobs by their deadline, in seconds.
pub(super) const DEADLINE: &str = "job:deadline";
/// Sets, one per tenant: its open jobs.
pub(super) const ACTIVE: &str = "job:tenant:active:";
/// Sets, one per tenant: its dispatched jobs.
pub(super) const PLACED: &str = "cx:tenant:placed:";
/// Strings that expire, one per tenant: its dispatched jobs were looked after.
pub(super) const CHECKED: &str = "cx:tenant:checked:";
/// Sets, one per trace: its jobs.
pub(super) const TRACE: &str = "trace:";
/// String: the job that holds an idempotency key, as the reference knows it, without tenant.
const IDEMPOTENCY_LEGACY: &str = "job:idempotency:";
const IDEMPOTENCY: &str = "cx:idem:";
/// String: a dead letter.
pub(super) const LETTER: &str = "dlq:entry:";
/// Sorted set: dead letters by the second they were written.
pub(super) const LETTERS: &str = "dlq:index";
/// String: the input of a job.
pub(super) const CONTEXT: &str = "ctx:";
/// Sorted set: replicas by the millisecond at which they count as gone.
pub(super) const INSTANCES: &str = "cx:instances";
/// String: the worker snapshot.
pub(super) const WORKER_SNAPSHOT: &str = "sys:workers:snapshot";
/// Sorted set: decisions by their time; a member is `<job id>|<place in the job's list>`.
pub(super) const DECISION_LOG: &str = "cx:decisions";
/// Sorted set: jobs that wait for people by the end of the time for that.
pub(super) const APPROVALS_DUE: &str = "cx:approvals:due";
/// List: the ids of the audit records that are not in the chain yet.
pub(super) const AUDIT_OUTBOX: &str = "cx:audit:outbox";
/// Hash: the audit records of the outbox by id; empty for those that are in the chain.
pub(super) const AUDIT_RECORDS: &str = "cx:audit:records";
/// List: the audit log.
pub(super) const AUDIT_LOG: &str = "cx:audit:log";
const CONFIG: &str = "cfg:";
/// String: a definition of a workflow.
pub(super) const WF_DEF: &str = "wf:def:";
/// Hash: content hash and revision of a definition, and the SHA-1 of the document they belong to.
pub(super) const WF_DEF_META: &str = "cx:wf:def:";
/// Sorted set: workflows by the second they were saved.
pub(super) const WF_INDEX_ALL: &str = "wf:index:all";
/// The same, one per organisation.
pub(super) const WF_INDEX_ORG: &str = "wf:index:org:";
/// String: a revision of a definition.
pub(super) const WF_REV: &str = "cx:wf:rev:";
/// Sorted sets, one per workflow: its revisions by the microsecond they were saved first.
pub(super) const WF_REVS: &str = "cx:wf:revs:";
/// Hash: a run.
pub(super) const WF_RUN: &str = "cx:wf:run:";
/// String: a run as the reference left it.
pub(super) const WF_LEGACY: &str = "wf:run:";
/// List: what happened in a run.
pub(super) const WF_TIMELINE: &str = "wf:run:timeline:";
/// Sorted sets, one per workflow: its runs by the second of their last change.
pub(super) const WF_RUNS: &str = "wf:runs:";
/// Sorted set: all runs.
pub(super) const WF_ALL: &str = "wf:runs:all";
/// Sorted sets, one per status.
pub(super) const WF_STATUS: &str = "wf:runs:status:";
/// Sorted sets, one per organisation.
pub(super) const WF_OF_ORG: &str = "cx:wf:runs:org:";
/// Sets, one per organisation: its open runs.
pub(super) const WF_ACTIVE: &str = "wf:runs:active:";
/// Sets, one per workflow: its open runs.
pub(super) const WF_OPEN: &str = "cx:wf:open:";
/// Strings that expire, one per set of open runs: it was looked after.
pub(super) const WF_CHECKED: &str = "cx:wf:checked:";
/// Sorted set: runs by the millisecond at which somebody has to look at them.
pub(super) const WF_DUE: &str = "cx:wf:due";
/// Sorted set: steps that wait for people, by the microsecond since when.
pub(super) const WF_WAITING: &str = "cx:wf:waiting";
/// String: how far the runs of the reference were listed by organisation.
pub(super) const WF_ADOPTED: &str = "cx:wf:adopted";
/// String: a schema of the registry.
pub(super) const SCHEMA: &str = "schema:";
/// String: a schedule.
pub(super) const WF_SCHEDULE: &str = "cx:wf:schedule:";
/// Sorted set: all schedules.
pub(super) const WF_SCHEDULES: &str = "cx:wf:schedules";
/// Sorted set: schedules by the millisecond at which they are due.
pub(super) const WF_SCHEDULES_DUE: &str = "cx:wf:schedules:due";
const WF_IDEMPOTENCY: &str = "cx:wf:idem:";
const WF_IDEMPOTENCY_LEGACY: &str = "wf:run:idempotency:";

/// The names that scripts use between at signs.
pub(super) const IN_SCRIPTS: [(&str, &str); 40] = [
    ("META", META),
    ("STATE", STATE),
    ("RESULT_PTR", RESULT_PTR),
    ("REQUEST", REQUEST),
    ("EVENTS", EVENTS),
    ("DECISIONS", DECISIONS),
    ("INDEX", INDEX),
    ("RECENT", RECENT),
    ("DEADLINE", DEADLINE),
    ("ACTIVE", ACTIVE),
    ("PLACED", PLACED),
    ("CHECKED", CHECKED),
    ("TRACE", TRACE),
    ("LETTER", LETTER),
    ("LETTERS", LETTERS),
    ("CONTEXT", CONTEXT),
    ("DECISION_LOG", DECISION_LOG),
    ("APPROVALS_DUE", APPROVALS_DUE),
    ("AUDIT_OUTBOX", AUDIT_OUTBOX),
    ("AUDIT_RECORDS", AUDIT_RECORDS),
    ("AUDIT_LOG", AUDIT_LOG),
    ("WF_DEF_META", WF_DEF_META),
    ("WF_INDEX_ALL", WF_INDEX_ALL),
    ("WF_INDEX_ORG", WF_INDEX_ORG),
    ("WF_REV", WF_REV),
    ("WF_REVS", WF_REVS),
    ("WF_RUN", WF_RUN),
    ("WF_LEGACY", WF_LEGACY),
    ("WF_TIMELINE", WF_TIMELINE),
    ("WF_RUNS", WF_RUNS),
    ("WF_ALL", WF_ALL),
    ("WF_STATUS", WF_STATUS),
    ("WF_OF_ORG", WF_OF_ORG),
    ("WF_ACTIVE", WF_ACTIVE),
    ("WF_OPEN", WF_OPEN),
    ("WF_CHECKED", WF_CHECKED),
    ("WF_DUE", WF_DUE),
    ("WF_WAITING", WF_WAITING),
    ("WF_SCHEDULES_DUE", WF_SCHEDULES_DUE),
    ("WF_SCHEDULES", WF_SCHEDULES),
];

/// A job's own key of one kind.
pub(super) fn of(prefix: &str, id: &str) -> String {
    let mut key = String::with_capacity(prefix.len() + id.len());
    key.push_str(prefix);
    key.push_str(id);
    key
}

/// Who holds an idempotency key of this tenant. Colons in the tenant are escaped, so that no two pairs share a key.
pub(super) fn idempotency(tenant: &str, key: &str) -> String {
    format!("{IDEMPOTENCY}{}:{key}", escaped(tenant))
}

/// Who holds an idempotency key, as the reference knows it.
pub(super) fn idempotency_legacy(key: &str) -> String {
    of(IDEMPOTENCY_LEGACY, key)
}

/// What in a name would look like its end.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace(':', "%3A")
}

/// The run that holds an idempotency key of this organisation and workflow.
pub(super) fn run_idempotency(org: &str, workflow: &str, key: &str) -> String {
    format!("{WF_IDEMPOTENCY}{}:{}:{key}", escaped(org), escaped(workflow))
}

/// The same as the reference knows it.
pub(super) fn run_idempotency_legacy(key: &str) -> String {
    of(WF_IDEMPOTENCY_LEGACY, key)
}

/// Where the reference would have left a run; `None` if other things have names of that form.
pub(super) fn legacy_run(id: &str) -> Option<String> {
    let taken = id.starts_with("timeline:") || id.starts_with("idempotency:");
    (!taken).then(|| of(WF_LEGACY, id))
}

/// A decision in the log: the `place`-th of a job, counted from 1.
pub(super) fn logged_decision(member: &str) -> Option<(&str, i64)> {
    let (id, place) = member.rsplit_once('|')?;
    Some((id, place.parse().ok().filter(|place| *place > 0)?))
}

/// Where the result of a job is.
pub(super) fn result(id: &JobId) -> Pointer {
    Pointer::result(id)
}

/// A configuration document.
pub(super) fn config(scope: &str, id: &str) -> String {
    format!("{CONFIG}{scope}:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_idempotency_pairs_share_a_key() {
        assert_ne!(idempotency("a:b", "c"), idempotency("a", "b:c"));
        assert_ne!(idempotency("a%3Ab", "c"), idempotency("a:b", "c"));
        assert_eq!(idempotency("default", "k"), "cx:idem:default:k");
    }
}
