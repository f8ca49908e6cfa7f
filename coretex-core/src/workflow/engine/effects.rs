//! What was committed is done. See `docs/spec/workflows.md` §6.

use std::collections::{BTreeMap, BTreeSet};

use metrics::counter;
use tracing::{debug, warn};

use super::Inner;
use super::cache::Cached;
use super::lanes::{Errand, What};
use super::shard::{Input, Shard};
use crate::bus::{self, Message};
use crate::error::{Retry, chain};
use crate::jobs::{Change, JobEvent, JobState, Outcome, TerminalDetail};
use crate::metrics::{WORKFLOW_EFFECTS, WORKFLOW_EFFECTS_FAILED};
use crate::protocol::agent::bus_packet::Payload;
use crate::protocol::agent::{JobCancel, JobResult, JobStatus, SystemAlert};
use crate::protocol::{JobId, encode_packet, packet, subjects};
use crate::time::Timestamp;
use crate::workflow::advance::{SENDER, job_request};
use crate::workflow::event::{Effect, EffectId, Event, Fetched, JobEnded, TimelineEvent};
use crate::workflow::run::{RunId, RunStatus};

/// How often a job that nobody knows yet is to be cancelled.
const CANCEL_TRIES: u32 = 5;
/// How large a message with entries of timelines gets.
const NEWS_BYTES: usize = 256 * 1024;

/// One thing to do.
#[derive(Debug)]
pub(super) struct ToDo {
    run: RunId,
    effect: EffectId,
    act: Act,
}

#[derive(Debug)]
enum Act {
    /// Publish a message; that of a job says which.
    Publish { message: Message, job: Option<JobId> },
    /// Cancel a job.
    Cancel { job: JobId, reason: String, tries: u32 },
    /// Nothing is left to do.
    Nothing,
}

impl Cached {
    /// The jobs that were never submitted, as far as is known.
    pub(super) fn unperformed(&self) -> BTreeSet<JobId> {
        let open = self.run.outbox.iter().filter(|(id, _)| !self.done.contains(id));
        open.filter_map(|(_, effect)| match effect {
            Effect::Submit { job, .. } => Some(job.clone()),
            _ => None,
        })
        .collect()
    }
}

impl Shard {
    /// Says what has to be done for a run that was just committed: what is new, or, if its time had come, all that is open.
    pub(super) fn plan_effects(
        &self,
        cached: &mut Cached,
        all: Option<()>,
        new: &BTreeMap<EffectId, Effect>,
        todo: &mut Vec<ToDo>,
    ) {
        let now = self.inner.parts.clock.now();
        let open: Vec<(EffectId, Effect)> = if all.is_some() {
            let outbox = cached.run.outbox.iter().filter(|(id, _)| !cached.done.contains(id));
            outbox.map(|(id, effect)| (*id, effect.clone())).collect()
        } else {
            new.iter().map(|(id, effect)| (*id, effect.clone())).collect()
        };
        let cancelled: BTreeSet<&JobId> = open
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::CancelJob { job, .. } => Some(job),
                _ => None,
            })
            .collect();
        let both: BTreeSet<JobId> = open
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::Submit { job, .. } if all.is_none() && cancelled.contains(job) => Some(job.clone()),
                _ => None,
            })
            .collect();
        if all.is_some() && !cancelled.is_empty() {
            cached.cancel_tries += 1;
        }
        for (effect, what) in open {
            let run = &cached.run;
            let act = match what {
                Effect::Submit { job, .. } | Effect::CancelJob { job, .. } if both.contains(&job) => Act::Nothing,
                Effect::Submit { step, job } => {
                    let request = cached
                        .plan
                        .as_ref()
                        .and_then(|plan| job_request(plan, run, &step))
                        .filter(|request| request.job_id == job.as_str());
                    match request {
                        None => Act::Nothing,
                        Some(request) => Act::Publish {
                            message: Message {
                                subject: subjects::SUBMIT.to_owned(),
                                payload: encode_packet(&packet(
                                    run.id.as_str(),
                                    SENDER,
                                    now,
                                    Payload::JobRequest(request),
                                )),
                                message_id: Some(format!("jobreq:{job}")),
                            },
                            job: Some(job),
                        },
                    }
                }
                Effect::CancelJob { job, reason } => Act::Cancel {
                    job,
                    reason,
                    tries: cached.cancel_tries,
                },
                Effect::Alert {
                    step,
                    level,
                    message,
                    code,
                    component,
                } => Act::Publish {
                    message: Message {
                        subject: subjects::WORKFLOW_EVENT.to_owned(),
                        payload: encode_packet(&packet(
                            run.id.as_str(),
                            SENDER,
                            now,
                            Payload::Alert(SystemAlert {
                                level,
                                message,
                                component,
                                code,
                            }),
                        )),
                        message_id: Some(format!("{}:{step}", run.id)),
                    },
                    job: None,
                },
                Effect::StartChild {
                    step,
                    run: child,
                    workflow,
                    input,
                } => {
                    let wanted = run.steps.get(&step).is_some_and(|record| {
                        record.status == RunStatus::Running && record.child_run.as_ref() == Some(&child)
                    });
                    if wanted {
                        let what = What::start(run, step, child, workflow, input);
                        self.inner.send_out(Errand::new(&run.id, effect, what));
                        continue;
                    }
                    Act::Nothing
                }
                Effect::CancelChild { run: child, reason } => {
                    let what = What::Cancel { child, reason };
                    self.inner.send_out(Errand::new(&run.id, effect, what));
                    continue;
                }
                Effect::TellParent => match What::tell_parent(run) {
                    Some(what) => {
                        self.inner.send_out(Errand::new(&run.id, effect, what));
                        continue;
                    }
                    None => Act::Nothing,
                },
            };
            todo.push(ToDo {
                run: run.id.clone(),
                effect,
                act,
            });
        }
    }

    /// Does it. What does not work now stays in the outbox, and is tried again when the run is due.
    pub(super) async fn perform(&mut self, todo: Vec<ToDo>, now: Timestamp) {
        if todo.is_empty() {
            return;
        }
        let mut done: BTreeMap<RunId, Vec<EffectId>> = BTreeMap::new();
        let mut publish = Vec::new();
        let mut cancel = Vec::new();
        for ToDo { run, effect, act } in todo {
            match act {
                Act::Nothing => done.entry(run).or_default().push(effect),
                Act::Publish { message, job } => publish.push((run, effect, message, job)),
                Act::Cancel { job, reason, tries } => cancel.push((run, effect, job, reason, tries)),
            }
        }
        let messages = publish.iter().map(|(_, _, message, _)| message.clone()).collect();
        let sent = self.inner.parts.bus.publish_all(messages).await;
        for ((run, effect, message, job), result) in publish.into_iter().zip(sent) {
            let kind = if job.is_some() { "submit" } else { "alert" };
            let Err(problem) = result else {
                counter!(WORKFLOW_EFFECTS, "effect" => kind).increment(1);
                done.entry(run).or_default().push(effect);
                continue;
            };
            counter!(WORKFLOW_EFFECTS_FAILED, "effect" => kind).increment(1);
            if matches!(problem, bus::Error::Closed) || problem.retry() != Retry::Never {
                warn!(run_id = %run, subject = message.subject, error = %chain(&problem), "not published; tried again later");
                continue;
            }
            warn!(run_id = %run, subject = message.subject, error = %chain(&problem), "not published, and never will be");
            if let Some(job) = job {
                let ended = JobEnded {
                    state: JobState::Failed,
                    result_ptr: String::new(),
                    output: Fetched::Nothing,
                    error_code: "payload_too_large".to_owned(),
                    error_message: chain(&problem),
                };
                let event = Event::JobEnded { job, ended };
                self.next.push_back(Input::event(run.clone(), event));
            }
            done.entry(run).or_default().push(effect);
        }
        for (run, effect) in self.inner.cancel_jobs(cancel, now).await {
            done.entry(run).or_default().push(effect);
        }
        for (run, effects) in done {
            self.performed(&run, &effects);
        }
    }

    /// Remembers what was done. The store is told with the run's next commit; a run that is over has none of its own.
    pub(super) fn performed(&mut self, run: &RunId, effects: &[EffectId]) {
        let Some(cached) = self.cache.performed(run, effects) else {
            return;
        };
        let over = cached.run.head.status.is_terminal();
        if over && cached.run.outbox.keys().all(|id| cached.done.contains(id)) && !cached.run.outbox.is_empty() {
            let done = Event::Done(cached.done.iter().copied().collect());
            self.next.push_back(Input::event(run.clone(), done));
        }
    }
}

impl Inner {
    /// Cancels jobs as the API does: in the store, and for all to hear. Returns what is done.
    async fn cancel_jobs(
        &self,
        cancel: Vec<(RunId, EffectId, JobId, String, u32)>,
        now: Timestamp,
    ) -> Vec<(RunId, EffectId)> {
        if cancel.is_empty() {
            return Vec::new();
        }
        let changes: Vec<Change> = cancel
            .iter()
            .map(|(_, _, job, reason, _)| {
                let mut change = Change::new(job.clone(), JobEvent::Cancel, now);
                change.outcome = Some(TerminalDetail {
                    error_message: reason.clone(),
                    ..TerminalDetail::default()
                });
                change
            })
            .collect();
        let outcomes = self.parts.jobs.apply_many(&changes).await;
        let mut done = Vec::new();
        let mut messages = Vec::new();
        for ((run, effect, job, reason, tries), outcome) in cancel.into_iter().zip(outcomes) {
            let over = match outcome {
                Ok(Outcome::Applied(_)) => {
                    messages.extend(cancel_messages(&job, &reason, true, now));
                    true
                }
                // The scheduler has not seen it yet: its request is on the way.
                Ok(Outcome::Conflict { state: None, .. }) => {
                    messages.extend(cancel_messages(&job, &reason, false, now));
                    tries >= CANCEL_TRIES
                }
                Ok(_) => true,
                Err(problem) => {
                    counter!(WORKFLOW_EFFECTS_FAILED, "effect" => "cancel").increment(1);
                    warn!(job_id = %job, error = %chain(&problem), "job not cancelled; tried again later");
                    !problem.is_retryable()
                }
            };
            if over {
                counter!(WORKFLOW_EFFECTS, "effect" => "cancel").increment(1);
                done.push((run, effect));
            }
        }
        for problem in self
            .parts
            .bus
            .publish_all(messages)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            warn!(error = %chain(&problem), "job cancelled, but the bus did not take the news");
        }
        done
    }

    /// Tells whoever watches; nobody relies on it.
    pub(super) async fn tell_timeline(&self, entries: &[TimelineEvent]) {
        if entries.is_empty() {
            return;
        }
        let mut messages = Vec::new();
        let mut text = Vec::new();
        for entry in entries {
            text.push(if text.is_empty() { b'[' } else { b',' });
            if serde_json::to_writer(&mut text, entry).is_err() {
                text.pop();
                continue;
            }
            if text.len() >= NEWS_BYTES {
                messages.push(std::mem::take(&mut text));
            }
        }
        if !text.is_empty() {
            messages.push(text);
        }
        let messages = messages
            .into_iter()
            .map(|mut text| {
                text.push(b']');
                Message {
                    subject: subjects::WORKFLOW_TIMELINE.to_owned(),
                    payload: text.into(),
                    message_id: None,
                }
            })
            .collect();
        for problem in self
            .parts
            .bus
            .publish_all(messages)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            debug!(error = %chain(&problem), "timeline not told");
        }
    }
}

fn cancel_messages(job: &JobId, reason: &str, ended: bool, now: Timestamp) -> Vec<Message> {
    let message = |subject: &str, payload, message_id| Message {
        subject: subject.to_owned(),
        payload: encode_packet(&packet(job.as_str(), SENDER, now, payload)),
        message_id,
    };
    let cancel = Payload::JobCancel(JobCancel {
        job_id: job.to_string(),
        reason: reason.to_owned(),
        requested_by: SENDER.to_owned(),
    });
    let mut messages = vec![message(subjects::CANCEL, cancel, None)];
    if ended {
        // The schedulers free its place.
        let result = Payload::JobResult(JobResult {
            job_id: job.to_string(),
            status: JobStatus::Cancelled.into(),
            error_message: reason.to_owned(),
            ..JobResult::default()
        });
        let id = format!("{}:{job}", subjects::RESULT);
        messages.push(message(subjects::RESULT, result, Some(id)));
    }
    messages
}
