//! Commits as the arguments of the scripts. See `docs/spec/storage.md` §10.

use redis::{Cmd, ToRedisArgs};

use super::super::scripts::Lua;
use super::super::{audit, keys};
use super::legacy;
use crate::audit::AuditRecord;
use crate::backend::run_parts::{encoded, encoded_head};
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::workflow::store::{NewRun, RunCommit};
use crate::workflow::{Run, RunId, StepKey};

/// What commits of this store have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) data_secs: u64,
    pub(super) timeline_limit: usize,
}

pub(super) const STEP: &str = "s:";
pub(super) const ITEMS: &str = "i:";
pub(super) const EFFECT: &str = "o:";

/// Seconds with the microseconds as a fraction, exactly.
pub(super) fn score(at: Timestamp) -> String {
    let micros = at.micros();
    let sign = if micros < 0 { "-" } else { "" };
    let (secs, micros) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    format!("{sign}{secs}.{micros:06}")
}

/// Milliseconds, rounded up: nothing is due early.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.micros().saturating_add(999).div_euclid(1_000)
}

/// A list of arguments, behind their number.
fn part<T: ToRedisArgs>(cmd: &mut Cmd, values: &[T]) {
    cmd.arg(values.len());
    for value in values {
        cmd.arg(value);
    }
}

fn field(fields: &mut Vec<Vec<u8>>, name: impl Into<String>, value: Vec<u8>) {
    fields.push(name.into().into_bytes());
    fields.push(value);
}

/// The arguments that a new run and a later commit have in common.
fn commit_args(cmd: &mut Cmd, commit: &RunCommit, input: Option<Vec<u8>>, terms: Terms) -> Result<(), StoreError> {
    let (run, head) = (&commit.run, &commit.head);
    cmd.arg(run.as_str())
        .arg(commit.expected)
        .arg(commit.token)
        .arg(head.status.as_str())
        .arg(head.updated_at.micros())
        .arg(score(head.updated_at))
        .arg(&head.workflow_id)
        .arg(&head.org_id)
        .arg(&head.team_id);
    match commit.due {
        Some(due) => cmd.arg(millis(due)),
        None => cmd.arg(""),
    };
    cmd.arg(terms.timeline_limit.max(1))
        .arg(terms.data_secs)
        .arg(keys::legacy_run(run.as_str()).unwrap_or_default());

    let mut fields = Vec::new();
    field(&mut fields, "head", encoded_head(run, head)?);
    if let Some(input) = input {
        field(&mut fields, "input", input);
    }
    if let Some(context) = &commit.context {
        field(&mut fields, "context", encoded(run, "the context", context)?);
    }
    for (step, record) in &commit.steps {
        field(&mut fields, format!("{STEP}{step}"), encoded(run, "a step", record)?);
    }
    for (step, items) in &commit.items {
        let items = encoded(run, "the items", items.as_ref())?;
        field(&mut fields, format!("{ITEMS}{step}"), items);
    }
    for (id, effect) in &commit.effects {
        field(&mut fields, format!("{EFFECT}{id}"), encoded(run, "an effect", effect)?);
    }
    part(cmd, &fields);
    let done: Vec<String> = commit.done.iter().map(|id| format!("{EFFECT}{id}")).collect();
    part(cmd, &done);
    let timeline = commit
        .timeline
        .iter()
        .map(|event| encoded(run, "the timeline", event))
        .collect::<Result<Vec<_>, _>>()?;
    part(cmd, &timeline);
    cmd.arg(commit.payloads.len() * 2);
    for (job, payload) in &commit.payloads {
        cmd.arg(keys::of(keys::CONTEXT, job.as_str())).arg(payload.as_ref());
    }
    let names = |steps: &[StepKey]| steps.iter().map(|step| step.as_str().to_owned()).collect::<Vec<_>>();
    part(cmd, &names(&commit.inbox_add));
    part(cmd, &names(&commit.inbox_remove));
    cmd.arg(commit.audit.len() * 2);
    for record in &commit.audit {
        audit::args(cmd, Some(record));
    }
    Ok(())
}

/// A commit; with `base` the first on a run of the reference, which is stored with it.
pub(super) fn commit(commit: &RunCommit, base: Option<&Run>, terms: Terms) -> Result<Cmd, StoreError> {
    let mut cmd = Lua::WfCommit.call(&keys::of(keys::WF_RUN, commit.run.as_str()));
    commit_args(&mut cmd, commit, None, terms)?;
    let (mut fields, mut waiting) = (Vec::new(), Vec::new());
    if let Some(base) = base {
        let (run, head) = (&base.id, &base.head);
        for (name, text) in [
            ("status", head.status.as_str()),
            ("workflow", head.workflow_id.as_str()),
            ("org", head.org_id.as_str()),
            ("created", "-"),
        ] {
            field(&mut fields, name, text.as_bytes().to_vec());
        }
        field(&mut fields, "input", encoded(run, "the input", base.input.as_ref())?);
        field(&mut fields, "context", encoded(run, "the context", &base.context)?);
        for (step, record) in &base.steps {
            field(&mut fields, format!("{STEP}{step}"), encoded(run, "a step", record)?);
        }
        for (step, items) in &base.items {
            let items = encoded(run, "the items", items.as_ref())?;
            field(&mut fields, format!("{ITEMS}{step}"), items);
        }
        for (since, step) in legacy::inbox(base) {
            waiting.push(since.micros().to_string());
            waiting.push(step.as_str().to_owned());
        }
    }
    part(&mut cmd, &fields);
    part(&mut cmd, &waiting);
    Ok(cmd)
}

fn limit(cmd: &mut Cmd, limit: Option<u64>) {
    match limit {
        Some(limit) => cmd.arg(limit),
        None => cmd.arg(""),
    };
}

pub(super) fn create(new: &NewRun, terms: Terms) -> Result<Cmd, StoreError> {
    let (run, head) = (&new.commit.run, &new.commit.head);
    let mut cmd = Lua::WfCreate.call(&keys::of(keys::WF_RUN, run.as_str()));
    let input = encoded(run, "the input", new.input.as_ref())?;
    commit_args(&mut cmd, &new.commit, Some(input), terms)?;
    match &new.idempotency {
        Some(claim) => {
            let ttl_ms = u64::try_from(claim.ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            cmd.arg(keys::run_idempotency(&head.org_id, &head.workflow_id, &claim.key))
                .arg(&claim.fingerprint)
                .arg(ttl_ms.min(MAX_TTL_MS))
                .arg(keys::run_idempotency_legacy(&claim.key))
        }
        None => cmd.arg("").arg("").arg("").arg(""),
    };
    limit(&mut cmd, new.org_limit);
    limit(&mut cmd, new.workflow_limit);
    Ok(cmd)
}

/// A thousand years: more than the server can add to the time is an error there.
const MAX_TTL_MS: u64 = 1_000 * 366 * 24 * 3_600 * 1_000;

pub(super) fn delete(run: &RunId, expected: u64, record: Option<&AuditRecord>) -> Cmd {
    let mut cmd = Lua::WfDelete.call(&keys::of(keys::WF_RUN, run.as_str()));
    cmd.arg(run.as_str())
        .arg(expected)
        .arg(keys::legacy_run(run.as_str()).unwrap_or_default());
    audit::args(&mut cmd, record);
    cmd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_exact() {
        for (micros, text) in [
            (0, "0.000000"),
            (1_700_000_000_123_456, "1700000000.123456"),
            (1, "0.000001"),
            (-1_500_000, "-1.500000"),
        ] {
            assert_eq!(score(Timestamp::from_micros(micros)), text);
        }
        assert_eq!(millis(Timestamp::from_micros(1_001)), 2);
        assert_eq!(millis(Timestamp::from_micros(1_000)), 1);
    }
}
