//! What is told about a run (docs/spec/workflows.md §7).

use super::Work;
use crate::workflow::event::TimelineEvent;
use crate::workflow::run::{RunStatus, StepKey};

impl Work<'_> {
    /// Adds an entry about the run.
    pub(super) fn told(&mut self, event_type: &str) -> &mut TimelineEvent {
        self.changed();
        self.transition.timeline.push(TimelineEvent {
            time: self.now,
            event_type: event_type.to_owned(),
            run_id: self.run.id.to_string(),
            workflow_id: self.run.head.workflow_id.clone(),
            ..TimelineEvent::default()
        });
        let last = self.transition.timeline.len() - 1;
        &mut self.transition.timeline[last]
    }

    /// Adds an entry about a step.
    pub(super) fn told_of(&mut self, step: &StepKey, event_type: &str) -> &mut TimelineEvent {
        let entry = self.told(event_type);
        entry.step_id = step.to_string();
        entry
    }

    /// Tells the status that the transition came to.
    pub(super) fn tell_status(&mut self) {
        let status = self.run.head.status;
        let entry = self.told("run_status");
        entry.status = status.as_str().to_owned();
        if status == RunStatus::Cancelled {
            entry.message = "run cancelled".to_owned();
        }
    }
}
