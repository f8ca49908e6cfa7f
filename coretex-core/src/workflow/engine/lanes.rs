//! Errands from run to run: children are started and cancelled, parents are told.
//!
//! The errands of one run are done in order, each after the one before has been committed at the other end. A shard never
//! waits for them: what finds no room stays in the outbox, and is tried again when the run is due.

use std::sync::Arc;

use metrics::counter;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::shard::Input;
use super::start::Child;
use super::{Inner, hash};
use crate::metrics::{WORKFLOW_EFFECTS, WORKFLOW_EFFECTS_FAILED};
use crate::workflow::advance::SENDER;
use crate::workflow::event::{EffectId, Event};
use crate::workflow::run::{Failure, ParentStep, Run, RunId, StepKey};
use crate::workflow::service::Error;

/// One errand.
#[derive(Debug)]
pub(super) struct Errand {
    /// Whose it is.
    run: RunId,
    effect: EffectId,
    what: What,
}

/// What an errand is about.
#[derive(Debug)]
pub(super) enum What {
    /// Start a child.
    Start(Box<Child>),
    /// Cancel a child.
    Cancel { child: RunId, reason: String },
    /// Tell the parent that this run ended.
    Tell { parent: RunId, event: Box<Event> },
}

impl Errand {
    pub(super) fn new(run: &RunId, effect: EffectId, what: What) -> Self {
        Self {
            run: run.clone(),
            effect,
            what,
        }
    }
}

impl What {
    pub(super) fn start(run: &Run, step: StepKey, child: RunId, workflow: String, input: Arc<Value>) -> Self {
        let head = &run.head;
        Self::Start(Box::new(Child {
            run: child,
            workflow,
            input,
            org_id: head.org_id.clone(),
            team_id: head.team_id.clone(),
            dry_run: head.dry_run,
            triggered_by: head.triggered_by.clone(),
            parent: ParentStep {
                run: run.id.clone(),
                step,
                depth: head.parent.as_ref().map_or(0, |parent| parent.depth).saturating_add(1),
            },
        }))
    }

    pub(super) fn tell_parent(run: &Run) -> Option<Self> {
        let head = &run.head;
        let parent = head.parent.as_ref()?;
        Some(Self::Tell {
            parent: parent.run.clone(),
            event: Box::new(Event::ChildEnded {
                step: parent.step.clone(),
                run: run.id.clone(),
                status: head.status,
                output: head.output.clone(),
                error: head.error.clone(),
                cost: head.total_cost,
            }),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "start_child",
            Self::Cancel { .. } => "cancel_child",
            Self::Tell { .. } => "tell_parent",
        }
    }
}

impl Inner {
    /// Sends somebody on an errand, if there is room.
    pub(super) fn send_out(&self, errand: Errand) {
        let lane = &self.lanes[hash(&errand.run) % self.lanes.len()];
        if let Err(full) = lane.try_send(errand) {
            let errand = full.into_inner();
            counter!(WORKFLOW_EFFECTS_FAILED, "effect" => errand.what.kind()).increment(1);
            debug!(run_id = %errand.run, "errand put off");
        }
    }

    /// Does errands until `halt`, and then those that are left.
    pub(super) async fn run_errands(self: Arc<Self>, mut errands: mpsc::Receiver<Errand>, halt: CancellationToken) {
        loop {
            let errand = tokio::select! {
                biased;
                () = halt.cancelled(), if !errands.is_closed() => {
                    errands.close();
                    continue;
                }
                errand = errands.recv() => errand,
            };
            let Some(errand) = errand else { return };
            let kind = errand.what.kind();
            if self.go(&errand).await {
                counter!(WORKFLOW_EFFECTS, "effect" => kind).increment(1);
                let input = Input::Performed {
                    run: errand.run.clone(),
                    effects: vec![errand.effect],
                };
                // At the end the store says that it is open, and somebody does it once more.
                let _ = self.send(&errand.run, input).await;
            } else {
                counter!(WORKFLOW_EFFECTS_FAILED, "effect" => kind).increment(1);
            }
        }
    }

    /// Whether it is done.
    async fn go(&self, errand: &Errand) -> bool {
        match &errand.what {
            What::Start(child) => match self.start_child(child).await {
                Ok(()) => true,
                Err(refusal) => {
                    let Some(error) = refused(&refusal) else {
                        debug!(run_id = %child.run, error = %refusal, "child run not started; tried again later");
                        return false;
                    };
                    let event = Event::ChildRefused {
                        step: child.parent.step.clone(),
                        run: child.run.clone(),
                        error,
                    };
                    settled(&self.apply(&errand.run, None, event).await)
                }
            },
            What::Cancel { child, reason } => {
                let event = Event::Cancel {
                    by: SENDER.to_owned(),
                    reason: reason.clone(),
                };
                settled(&self.apply(child, None, event).await)
            }
            What::Tell { parent, event } => settled(&self.apply(parent, None, Event::clone(event)).await),
        }
    }
}

/// Whether an answer is final.
fn settled(answer: &Result<(), Error>) -> bool {
    matches!(answer, Ok(()) | Err(Error::UnknownRun | Error::Refused(_)))
}

/// Why a child will never start; `None` if it may.
fn refused(why: &Error) -> Option<Failure> {
    let code = match why {
        Error::UnknownWorkflow => "unknown_workflow",
        Error::Input(_) => "invalid_input",
        Error::Refused(_) | Error::Invalid(_) => "child_refused",
        _ => return None,
    };
    Some(Failure {
        code: code.to_owned(),
        message: why.to_string(),
        step_id: String::new(),
    })
}
