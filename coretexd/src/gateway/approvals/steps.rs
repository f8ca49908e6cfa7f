//! Steps of runs that wait for people, among the approvals. See `docs/spec/http.md` §8.
//!
//! Clients that know jobs only see a job whose id is `<run>:<step>` and whose state is `WAITING`; the routes of
//! approvals take that id.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use coretex_core::time::Timestamp;
use coretex_core::workflow::event::Event;
use coretex_core::workflow::model::{ApprovalRule, OnExpiry, Step, StepKind};
use coretex_core::workflow::run::StepVote;
use coretex_core::workflow::service::Error;
use coretex_core::workflow::store::Waiting;
use coretex_core::workflow::{Run, RunId, RunStatus, StepKey, StepRecord, Workflow};
use serde::Serialize;
use serde_json::Value;

use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::{App, json, runs};

/// A step that waits, or waited, for people.
#[derive(Debug)]
pub(super) struct Case {
    run: Arc<Run>,
    step: StepKey,
    /// As the definition of the run has it; `None` if that is gone.
    definition: Option<Step>,
}

/// What clients that know jobs look at.
#[derive(Serialize)]
struct Job {
    id: String,
    trace_id: String,
    updated_at: i64,
    state: &'static str,
    topic: String,
    tenant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    team: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    principal: String,
}

/// What somebody said.
#[derive(Serialize)]
struct Vote {
    approved: bool,
    at: i64,
    by: String,
    note: String,
    reason: String,
    role: String,
}

impl From<&StepVote> for Vote {
    fn from(vote: &StepVote) -> Self {
        Self {
            approved: vote.approved,
            at: vote.at.micros(),
            by: vote.by.clone(),
            note: vote.note.clone(),
            reason: vote.reason.clone(),
            role: vote.role.clone(),
        }
    }
}

/// The members that items of jobs have, and those of steps.
#[derive(Serialize)]
pub(super) struct Item {
    approval_ref: String,
    approval_required: bool,
    approvals: usize,
    constraints: Option<Value>,
    decision: &'static str,
    expires_at: Option<i64>,
    job: Job,
    job_hash: &'static str,
    kind: &'static str,
    on_expiry: &'static str,
    policy_reason: String,
    policy_rule_id: &'static str,
    policy_snapshot: &'static str,
    prompt: String,
    quorum: i64,
    roles: Vec<String>,
    run_id: String,
    /// What a form has to be.
    schema: Option<Value>,
    since: Option<String>,
    step_id: String,
    step_type: &'static str,
    votes: Vec<Vote>,
    workflow_id: String,
}

impl Case {
    fn record(&self) -> Option<&StepRecord> {
        self.run.steps.get(&self.step)
    }

    fn rule(&self) -> ApprovalRule {
        self.definition
            .as_ref()
            .and_then(|step| step.approval.clone())
            .unwrap_or_default()
    }

    fn approvals(&self) -> usize {
        let votes = self.record().map_or(&[][..], |record| &record.votes);
        votes.iter().filter(|vote| vote.approved).count()
    }

    fn state(&self) -> &'static str {
        match self.record().map_or(RunStatus::Pending, |record| record.status) {
            RunStatus::Pending => "PENDING",
            RunStatus::Running => "RUNNING",
            RunStatus::Waiting => "WAITING",
            RunStatus::Succeeded => "SUCCEEDED",
            RunStatus::Failed => "FAILED",
            RunStatus::Cancelled => "CANCELLED",
            RunStatus::TimedOut => "TIMEOUT",
        }
    }

    pub(super) fn item(&self) -> Item {
        let head = &self.run.head;
        let rule = self.rule();
        let is_form = self
            .definition
            .as_ref()
            .is_some_and(|step| step.kind() == StepKind::Input);
        let record = self.record();
        let since = record.and_then(|record| record.started_at);
        let prompt = record.map(|record| record.prompt.clone()).unwrap_or_default();
        let id = format!("{}:{}", self.run.id, self.step);
        let schema = self
            .definition
            .as_ref()
            .filter(|step| is_form && !step.output_schema.is_empty())
            .map(|step| Value::Object(step.output_schema.clone()));
        Item {
            approval_ref: id.clone(),
            approval_required: record.is_some_and(|record| record.status == RunStatus::Waiting),
            approvals: self.approvals(),
            constraints: None,
            decision: "REQUIRE_APPROVAL",
            expires_at: record.and_then(|record| record.expires_at).map(Timestamp::micros),
            job: Job {
                id,
                trace_id: self.run.id.to_string(),
                updated_at: since.unwrap_or(head.updated_at).micros(),
                state: self.state(),
                topic: format!("workflow.{}", head.workflow_id),
                tenant: head.org_id.clone(),
                team: head.team_id.clone(),
                principal: head.triggered_by.clone(),
            },
            job_hash: "",
            kind: "step",
            on_expiry: match rule.on_expiry {
                OnExpiry::Fail => "fail",
                OnExpiry::Reject => "reject",
                OnExpiry::Approve => "approve",
            },
            policy_reason: prompt.clone(),
            policy_rule_id: "",
            policy_snapshot: "",
            prompt,
            quorum: rule.quorum.max(1),
            roles: rule.roles,
            run_id: self.run.id.to_string(),
            schema,
            since: since.map(Timestamp::rfc3339),
            step_id: self.step.to_string(),
            step_type: if is_form { "input" } else { "approval" },
            votes: record.map_or_else(Vec::new, |record| record.votes.iter().map(Vote::from).collect()),
            workflow_id: head.workflow_id.clone(),
        }
    }
}

/// The step of this key in a definition: a child's is its parent's, a branch's is among the branches.
fn step_of(workflow: &Workflow, key: &StepKey) -> Option<Step> {
    let Some((parent, index)) = key.parent() else {
        let id = key.undoes().unwrap_or(key.as_str());
        let step = workflow.steps.get(id)?;
        return match key.undoes() {
            Some(_) => step.compensate.as_deref().cloned(),
            None => Some(step.clone()),
        };
    };
    let step = workflow.steps.get(parent)?;
    match step.kind() {
        StepKind::Parallel => step.branches.get(index).cloned(),
        StepKind::Loop => step.body.as_deref().cloned(),
        _ => Some(step.clone()),
    }
}

/// The definition that a run is pinned to; `None` if it cannot be found.
async fn definition_of(app: &App, run: &Run) -> Result<Option<Workflow>, ApiError> {
    let found = if run.head.definition.is_empty() {
        let stored = app.workflows().workflow(&run.head.workflow_id).await;
        stored.map(|stored| stored.workflow)
    } else {
        app.workflows().revision(&run.head.definition).await
    };
    match found {
        Ok(workflow) => Ok(Some(workflow)),
        Err(Error::UnknownWorkflow | Error::UnknownRevision) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Steps that wait, oldest first, after the one given.
pub(super) async fn waiting(
    app: &App,
    after: Option<&Waiting>,
    limit: usize,
) -> Result<Vec<(Waiting, Case)>, ApiError> {
    let steps = app.workflows().waiting_steps(after, limit).await?;
    let mut definitions: BTreeMap<String, Option<Workflow>> = BTreeMap::new();
    let mut cases = Vec::with_capacity(steps.len());
    for (waiting, run) in steps {
        let name = format!("{}\n{}", run.head.workflow_id, run.head.definition);
        if !definitions.contains_key(&name) {
            let definition = definition_of(app, &run).await?;
            definitions.insert(name.clone(), definition);
        }
        let definition = definitions.get(&name).and_then(Option::as_ref);
        let case = Case {
            definition: definition.and_then(|workflow| step_of(workflow, &waiting.step)),
            step: waiting.step.clone(),
            run,
        };
        cases.push((waiting, case));
    }
    Ok(cases)
}

/// The step that an id of an approval names: `<run>:<step>`. `None` if it names a job.
///
/// Ids of jobs of steps end in an attempt (`@1`), which no step's id does.
pub(super) async fn find(app: &App, id: &str) -> Result<Option<Case>, ApiError> {
    let Some((run, step)) = id.rsplit_once(':').filter(|(_, step)| !step.contains('@')) else {
        return Ok(None);
    };
    let run = match app.workflows().run(&RunId::new(run)).await {
        Ok(run) => Arc::new(run),
        Err(Error::UnknownRun) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let step = StepKey::new(step);
    let definition = definition_of(app, &run).await?;
    let definition = definition.and_then(|workflow| step_of(&workflow, &step));
    if !run.steps.contains_key(&step) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "step_not_found", "step not found"));
    }
    Ok(Some(Case { run, step, definition }))
}

/// Says yes or no to a step, as the routes of approvals do for jobs.
pub(super) async fn decide(
    app: &App,
    case: Case,
    caller: Caller,
    approved: bool,
    (reason, note): (&str, &str),
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer<'a> {
        job_id: &'a str,
        trace_id: &'a str,
        approvals: usize,
        quorum: i64,
        state: &'static str,
    }

    let event = Event::Vote {
        step: case.step.clone(),
        vote: runs::vote(app, caller, approved, reason, note),
    };
    let (service, run) = (app.workflows().clone(), case.run.id.clone());
    app.write(async move { service.apply(&run, None, event).await.map_err(ApiError::from) })
        .await?;
    let after = match app.workflows().run(&case.run.id).await {
        Ok(run) => Case {
            run: Arc::new(run),
            ..case
        },
        // It was decided; somebody has deleted the run since.
        Err(Error::UnknownRun) => case,
        Err(error) => return Err(error.into()),
    };
    let mut response = json::ok(&Answer {
        job_id: &format!("{}:{}", after.run.id, after.step),
        trace_id: after.run.id.as_str(),
        approvals: after.approvals(),
        quorum: after.rule().quorum.max(1),
        state: after.state(),
    });
    if after.state() == "WAITING" {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_a_part_of_the_definition() {
        let workflow: Workflow = serde_json::from_value(serde_json::json!({"steps": {
            "ask": {"type": "approval", "compensate": {"type": "input", "name": "undo"}},
            "both": {"type": "parallel", "branches": [{"type": "approval"}, {"type": "input", "name": "second"}]},
            "round": {"type": "loop", "body": {"type": "input", "name": "body"}},
            "each": {"type": "input", "name": "each", "for_each": "input.x"},
        }}))
        .unwrap();
        for (key, name) in [
            ("ask", Some("")),
            ("ask~compensate", Some("undo")),
            ("both[1]", Some("second")),
            ("both[2]", None),
            ("round[5]", Some("body")),
            ("each[3]", Some("each")),
            ("nothing", None),
        ] {
            let step = step_of(&workflow, &StepKey::new(key));
            assert_eq!(step.as_ref().map(|step| step.name.as_str()), name, "{key}");
        }
    }
}
