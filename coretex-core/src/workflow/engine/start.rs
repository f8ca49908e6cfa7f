//! How runs come to be: on request, again, as children, by the clock. See `docs/spec/workflows.md` §2.2, §8.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::pauses::forget_mark;
use super::shard::{Creation, Input};
use super::{Engine, Inner};
use crate::config::{Scopes, read_effective};
use crate::error::StoreError;
use crate::protocol::canonical::{Numbers, hash_object};
use crate::workflow::model::Object;
use crate::workflow::plan::Plan;
use crate::workflow::rerun;
use crate::workflow::run::{ParentStep, Run, RunHead, RunId};
use crate::workflow::service::{Error, Rerun, Start, Started};
use crate::workflow::store::{Created, Idempotency};

/// The label and metadata of dry runs.
const DRY_RUN: &str = "dry_run";

/// The run of a `subworkflow` step.
#[derive(Debug)]
pub(super) struct Child {
    pub run: RunId,
    pub workflow: String,
    pub input: Arc<Value>,
    pub org_id: String,
    pub team_id: String,
    pub dry_run: bool,
    pub triggered_by: String,
    pub parent: ParentStep,
}

impl Engine {
    pub(in crate::workflow) async fn start_run(&self, start: Start) -> Result<Started, Error> {
        self.0.start_run(start, None).await
    }

    pub(in crate::workflow) async fn rerun(&self, run: &RunId, rerun: Rerun) -> Result<Started, Error> {
        self.0.rerun(run, rerun).await
    }
}

impl Inner {
    /// The plan of a workflow as it is now.
    async fn plan(&self, workflow: &str) -> Result<Arc<Plan>, Error> {
        let stored = match self.parts.store.workflow(workflow).await {
            Ok(stored) => stored.ok_or(Error::UnknownWorkflow)?,
            Err(error) => return Err(error.into()),
        };
        Ok(self.plans.of(stored).await?)
    }

    /// Starts a run; under an id that is given, at most once.
    pub(super) async fn start_run(&self, start: Start, id: Option<RunId>) -> Result<Started, Error> {
        let plan = self.plan(&start.workflow_id).await?;
        let input = Value::Object(start.input);
        check_input(&plan, &input)?;
        let now = self.parts.clock.now();
        let mut head = RunHead {
            workflow_id: start.workflow_id,
            definition: plan.hash.clone(),
            org_id: start.org_id,
            team_id: start.team_id,
            created_at: now,
            updated_at: now,
            start_at: start.start_at.filter(|at| *at > now),
            triggered_by: start.by.id,
            labels: start.labels,
            metadata: start.metadata,
            idempotency_key: start.idempotency_key.trim().to_owned(),
            ..RunHead::default()
        };
        mark_dry_run(&mut head, start.dry_run);
        let idempotency = (!head.idempotency_key.is_empty()).then(|| {
            let mut asked = Map::new();
            asked.insert("input".to_owned(), input.clone());
            asked.insert(DRY_RUN.to_owned(), Value::Bool(start.dry_run));
            Idempotency {
                key: head.idempotency_key.clone(),
                fingerprint: hash_object(&asked, Numbers::Exact),
                ttl: self.options.idempotency_ttl,
            }
        });
        let run = Run::new(id.unwrap_or_else(RunId::random), head, input);
        let org_limit = self.org_limit(&run.head).await?;
        self.create(run, plan, idempotency, org_limit).await
    }

    pub(super) async fn start_child(&self, child: &Child) -> Result<(), Error> {
        let plan = self.plan(&child.workflow).await?;
        check_input(&plan, &child.input)?;
        let now = self.parts.clock.now();
        let mut head = RunHead {
            workflow_id: child.workflow.clone(),
            definition: plan.hash.clone(),
            org_id: child.org_id.clone(),
            team_id: child.team_id.clone(),
            created_at: now,
            updated_at: now,
            triggered_by: child.triggered_by.clone(),
            parent: Some(child.parent.clone()),
            ..RunHead::default()
        };
        mark_dry_run(&mut head, child.dry_run);
        let run = Run::new(child.run.clone(), head, Value::clone(&child.input));
        // A child is a part of a run that has its place already; what bounds its own workflow makes it wait.
        self.create(run, plan, None, None).await.map(drop)
    }

    async fn create(
        &self,
        run: Run,
        plan: Arc<Plan>,
        idempotency: Option<Idempotency>,
        org_limit: Option<u64>,
    ) -> Result<Started, Error> {
        let id = run.id.clone();
        let workflow_limit = u64::try_from(plan.workflow.max_concurrent_runs).ok().filter(|n| *n > 0);
        let (reply, answer) = oneshot::channel();
        let creation = Creation {
            run,
            plan,
            idempotency,
            org_limit,
            workflow_limit,
            reply,
        };
        self.send(&id, Input::Create(Box::new(creation))).await?;
        match answer.await.unwrap_or(Err(Error::Stopping))? {
            Created::Created => Ok(Started {
                run: id,
                replayed: false,
            }),
            Created::Exists => Ok(Started {
                run: id,
                replayed: true,
            }),
            Created::Replayed(run) => Ok(Started { run, replayed: true }),
            Created::Mismatch(run) => Err(Error::IdempotencyMismatch(run)),
            Created::Limit(open) => Err(Error::Limit(open)),
        }
    }

    /// How many runs an organisation may have open: of the configuration of organisation and team.
    async fn org_limit(&self, head: &RunHead) -> Result<Option<u64>, StoreError> {
        if head.org_id.is_empty() {
            return Ok(None);
        }
        let scopes = Scopes {
            org: head.org_id.clone(),
            team: head.team_id.clone(),
            ..Scopes::default()
        };
        let config = read_effective(&*self.parts.config, &scopes).await?.data;
        Ok(limit(&config))
    }

    async fn rerun(&self, source: &RunId, wanted: Rerun) -> Result<Started, Error> {
        let found = self.parts.store.load_runs(std::slice::from_ref(source)).await.pop();
        let mut source = match found {
            Some(Ok(Some(run))) => run,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(None)) | None => return Err(Error::UnknownRun),
        };
        let plan = if wanted.latest {
            self.plan(&source.head.workflow_id).await?
        } else {
            let plan = self.plans.for_run(&mut source.head).await?;
            plan.ok_or(Error::UnknownWorkflow)?
        };
        let options = rerun::Options {
            id: RunId::random(),
            from_step: wanted.from_step.trim(),
            dry_run: wanted.dry_run,
            by: &wanted.by.id,
            now: self.parts.clock.now(),
        };
        let mut run = rerun::rerun(&plan, &source, &options).map_err(|error| match error {
            rerun::Error::StepNotFound => Error::StepNotFound,
            rerun::Error::DependencyNotSucceeded(step) => Error::DependencyNotSucceeded(step),
        })?;
        forget_mark(&mut run.head);
        let org_limit = self.org_limit(&run.head).await?;
        self.create(run, plan, None, org_limit).await
    }
}

fn mark_dry_run(head: &mut RunHead, dry_run: bool) {
    head.dry_run = dry_run;
    for marks in [&mut head.labels, &mut head.metadata] {
        if dry_run {
            marks.insert(DRY_RUN.to_owned(), "true".to_owned());
        } else {
            marks.remove(DRY_RUN);
        }
    }
}

fn check_input(plan: &Plan, input: &Value) -> Result<(), Error> {
    match &plan.input_schema {
        None => Ok(()),
        Some(Ok(schema)) => schema
            .validate(input)
            .map_err(|invalid| Error::Input(invalid.to_string())),
        Some(Err(why)) => Err(Error::Input(why.clone())),
    }
}

/// `limits.max_concurrent_runs`, else `rate_limits.concurrent_workflows`: a number above 0, which may be a text.
fn limit(config: &Object) -> Option<u64> {
    [
        ("limits", "max_concurrent_runs"),
        ("rate_limits", "concurrent_workflows"),
    ]
    .into_iter()
    .filter_map(|(group, name)| match config.get(group)?.get(name)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && *n >= 1.0 && *n < 1e15)?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
            Some(whole as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
    .find(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(config: Value, expected: Option<u64>) {
        let Value::Object(config) = config else {
            panic!("an object")
        };
        assert_eq!(limit(&config), expected);
    }

    #[test]
    fn limits_are_numbers_or_texts_above_zero() {
        check(json!({}), None);
        check(json!({"limits": {"max_concurrent_runs": 3}}), Some(3));
        check(json!({"limits": {"max_concurrent_runs": 3.0}}), Some(3));
        check(json!({"limits": {"max_concurrent_runs": "4"}}), Some(4));
        check(json!({"limits": {"max_concurrent_runs": -1}}), None);
        check(
            json!({"limits": {"max_concurrent_runs": 0}, "rate_limits": {"concurrent_workflows": 7}}),
            Some(7),
        );
        check(json!({"limits": "none"}), None);
    }
}
