//! Runs whose definition is gone: nobody can say what comes next.

use crate::time::Timestamp;
use crate::workflow::event::{Effect, TimelineEvent, Transition};
use crate::workflow::run::{Failure, Phase, Run, RunStatus, StepKey};

/// Ends a run with `definition_missing`, and cancels what is in flight.
pub(super) fn fail(run: &mut Run, now: Timestamp) -> Transition {
    let mut transition = Transition::default();
    if run.head.status.is_terminal() {
        return transition;
    }
    transition.changed = true;
    let message = if run.head.definition.is_empty() {
        format!("workflow `{}` does not exist", run.head.workflow_id)
    } else {
        format!(
            "revision {} of workflow `{}` does not exist",
            run.head.definition, run.head.workflow_id
        )
    };
    let open: Vec<StepKey> = run
        .steps
        .iter()
        .filter(|(_, record)| !record.status.is_terminal())
        .map(|(key, _)| key.clone())
        .collect();
    let mut effects = Vec::new();
    for key in open {
        let Some(record) = run.steps.get_mut(&key) else {
            continue;
        };
        if record.in_flight() {
            let reason = message.clone();
            effects.extend(record.job_id.clone().map(|job| Effect::CancelJob {
                job,
                reason: reason.clone(),
            }));
            effects.extend(record.child_run.clone().map(|run| Effect::CancelChild { run, reason }));
        }
        record.status = RunStatus::Cancelled;
        record.completed_at = Some(now);
        record.next_attempt_at = None;
        record.expires_at = None;
        transition.steps.insert(key, record.clone());
    }
    if run.head.parent.is_some() {
        effects.push(Effect::TellParent);
    }
    for effect in effects {
        let id = run.head.next_effect;
        run.head.next_effect += 1;
        run.outbox.insert(id, effect.clone());
        transition.effects.insert(id, effect);
    }
    run.timers.clear();
    let head = &mut run.head;
    head.status = RunStatus::Failed;
    head.outcome = Some(RunStatus::Failed);
    head.phase = Phase::Finally;
    head.completed_at = Some(now);
    head.updated_at = now;
    head.deadline_at = None;
    head.check_at = None;
    (head.open, head.waiting, head.in_flight) = (0, 0, 0);
    head.error = Some(Failure {
        code: "definition_missing".to_owned(),
        message: message.clone(),
        step_id: String::new(),
    });
    transition.timeline.push(TimelineEvent {
        time: now,
        event_type: "run_status".to_owned(),
        run_id: run.id.to_string(),
        workflow_id: head.workflow_id.clone(),
        status: RunStatus::Failed.as_str().to_owned(),
        message,
        ..TimelineEvent::default()
    });
    transition
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::protocol::JobId;
    use crate::workflow::run::{RunHead, RunId, StepRecord};

    #[test]
    fn a_run_without_a_definition_fails_and_leaves_nothing_behind() {
        let mut run = Run::new(RunId::new("r"), RunHead::default(), Value::Null);
        run.head.status = RunStatus::Running;
        let job = JobId::try_new("r:a@1").expect("an id");
        let running = StepRecord {
            status: RunStatus::Running,
            job_id: Some(job.clone()),
            ..StepRecord::default()
        };
        run.steps.insert(StepKey::new("a"), running);
        let now = Timestamp::from_secs(5);
        let transition = fail(&mut run, now);
        assert!(transition.changed);
        assert_eq!(run.head.status, RunStatus::Failed);
        assert_eq!(
            run.head.error.as_ref().map(|error| error.code.as_str()),
            Some("definition_missing")
        );
        assert_eq!(run.steps["a"].status, RunStatus::Cancelled);
        assert!(
            matches!(transition.effects.values().next(), Some(Effect::CancelJob { job: found, .. }) if *found == job)
        );
        assert!(!fail(&mut run, now).changed, "once");
    }
}
