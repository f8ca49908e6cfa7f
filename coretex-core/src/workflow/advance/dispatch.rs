//! What workers and child runs are asked to do (docs/spec/workflows.md §4.2, §4.3).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{MAX_DEPTH, Place, Unit, Work, compiled, failure};
use crate::expr::{MAX_RESULT, Scope, Template};
use crate::pointers::Pointer;
use crate::protocol::agent::{ActorType, Budget, JobMetadata, JobPriority, JobRequest};
use crate::protocol::{JobId, Topic};
use crate::workflow::event::Effect;
use crate::workflow::model::{Object, StepMeta};
use crate::workflow::plan::{Part, Plan, PlannedMeta, PlannedStep};
use crate::workflow::run::{Dispatch, Failure, Run, RunId, StepKey, StepStatus, job_id};

/// How large an item may be to be repeated in the environment of its job, in bytes of JSON.
const MAX_ITEM_ENV: usize = 4 * 1024;

impl<'a> Work<'a> {
    pub(super) fn begin_job(&mut self, unit: &Unit<'a>) {
        let attempt = self.next_attempt(unit);
        let prepared = self.prepare(unit, attempt);
        let (job, input, payload, dispatch) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                self.count_attempt(unit, attempt);
                self.fail(unit, StepStatus::Failed, why);
                return;
            }
        };
        let now = self.now;
        self.put(&unit.key, |record| {
            record.status = StepStatus::Running;
            record.started_at = Some(now);
            record.completed_at = None;
            record.next_attempt_at = None;
            record.attempts = attempt;
            record.job_id = Some(job.clone());
            record.inherits_input = input.is_none();
            record.input = input.map(Arc::new);
            record.dispatch = dispatch.map(Arc::new);
        });
        self.news = true;
        let entry = self.told_of(&unit.key, "step_dispatched");
        entry.job_id = job.to_string();
        entry.status = StepStatus::Running.as_str().to_owned();
        let pointer = Pointer::context(&job).to_string();
        entry.data.insert("context_ptr".to_owned(), pointer.into());
        if let Place::Child(index) = unit.place {
            entry.data.insert("foreach_index".to_owned(), index.into());
        }
        self.transition.payloads.push((job.clone(), payload));
        self.effect(Effect::Submit {
            step: unit.key.clone(),
            job,
        });
    }

    /// The job of the next attempt: its id, its own input if it has one, the payload, what templates say about it.
    #[allow(clippy::type_complexity, reason = "taken apart at once")]
    fn prepare(
        &self,
        unit: &Unit<'a>,
        attempt: u32,
    ) -> Result<(JobId, Option<Value>, Bytes, Option<Dispatch>), Failure> {
        let job = job_id(&self.run.id, &unit.key, attempt)
            .ok_or_else(|| failure("invalid_definition", "the ids of run and step are no job id together"))?;
        let input = self.own_input(unit)?;
        let payload = self.payload(unit, input.as_ref());
        check_input(unit, &payload)?;
        let bytes = encode(&payload)?;
        let dispatch = if varies(unit.spec) {
            Some(parts(unit.spec, &self.scope(unit))?)
        } else {
            parts(unit.spec, &Object::new())?;
            None
        };
        Ok((job, input, bytes, dispatch))
    }

    pub(super) fn next_attempt(&self, unit: &Unit<'a>) -> u32 {
        self.record(unit.key.as_str())
            .map_or(0, |record| record.attempts)
            .saturating_add(1)
    }

    /// An attempt that failed before it was made counts where there may be another.
    fn count_attempt(&mut self, unit: &Unit<'a>, attempt: u32) {
        if unit.spec.step.retry.is_some() {
            self.put(&unit.key, |record| record.attempts = attempt);
        }
    }

    /// The input that the definition says, with the item; `None` if that is the run's.
    fn own_input(&self, unit: &Unit<'a>) -> Result<Option<Value>, Failure> {
        let Some(template) = compiled(unit.spec.input.as_ref())? else {
            return Ok(None);
        };
        let mut input = self.value(unit, template)?;
        add_item(&mut input, item(self.run, unit.spec, unit.place));
        Ok(Some(input))
    }

    fn payload<'p>(&'p self, unit: &Unit<'a>, own: Option<&'p Value>) -> Cow<'p, Value> {
        match own {
            Some(own) => Cow::Borrowed(own),
            None => inherited(self.run, unit.spec, unit.place),
        }
    }

    /// A job that nobody knows is submitted again, as it was.
    pub(super) fn job_lost(&mut self, job: &JobId) {
        let Some(unit) = self.step_of(job).and_then(|key| self.unit(key.as_str())) else {
            return;
        };
        let current = self
            .record(unit.key.as_str())
            .filter(|record| record.job_id.as_ref() == Some(job));
        let Some(record) = current else {
            return;
        };
        let submitted_again = self
            .run
            .outbox
            .values()
            .any(|effect| matches!(effect, Effect::Submit { job: other, .. } if other == job));
        if record.status != StepStatus::Running || submitted_again {
            return;
        }
        let input = record.input.clone();
        let payload = match encode(&self.payload(&unit, input.as_deref())) {
            Ok(payload) => payload,
            Err(why) => {
                self.fail(&unit, StepStatus::Failed, why);
                return;
            }
        };
        self.news = true;
        self.transition.payloads.push((job.clone(), payload));
        self.effect(Effect::Submit {
            step: unit.key,
            job: job.clone(),
        });
    }

    pub(super) fn begin_subworkflow(&mut self, unit: &Unit<'a>) {
        let attempt = self.next_attempt(unit);
        let prepared = self.prepare_child(unit);
        let (workflow, input) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                self.count_attempt(unit, attempt);
                self.fail(unit, StepStatus::Failed, why);
                return;
            }
        };
        let child = child_run(&self.run.id, &unit.key, attempt);
        let now = self.now;
        let expires = unit.spec.timeout.map(|timeout| now.plus(timeout));
        let own = unit.spec.input.is_some().then(|| Arc::clone(&input));
        self.put(&unit.key, |record| {
            record.status = StepStatus::Running;
            record.started_at = Some(now);
            record.completed_at = None;
            record.next_attempt_at = None;
            record.expires_at = expires;
            record.attempts = attempt;
            record.child_run = Some(child.clone());
            record.inherits_input = own.is_none();
            record.input = own;
        });
        self.news = true;
        let entry = self.told_of(&unit.key, "child_started");
        entry.status = StepStatus::Running.as_str().to_owned();
        entry.data.insert("run_id".to_owned(), child.as_str().into());
        entry.data.insert("workflow_id".to_owned(), workflow.as_str().into());
        self.effect(Effect::StartChild {
            step: unit.key.clone(),
            run: child,
            workflow,
            input,
        });
    }

    fn prepare_child(&self, unit: &Unit<'a>) -> Result<(String, Arc<Value>), Failure> {
        let depth = self.run.head.parent.as_ref().map_or(0, |parent| parent.depth);
        if depth >= MAX_DEPTH {
            return Err(failure(
                "too_deep",
                format!("runs may start runs {MAX_DEPTH} levels deep"),
            ));
        }
        let workflow = match compiled(unit.spec.workflow.as_ref())? {
            Some(template) => self.text(unit, template)?.trim().to_owned(),
            None => String::new(),
        };
        if workflow.is_empty() {
            return Err(failure("unknown_workflow", "the step names no workflow"));
        }
        let own = self.own_input(unit)?;
        let input = match own {
            Some(own) => Arc::new(own),
            None => match self.payload(unit, None) {
                Cow::Borrowed(_) => Arc::clone(&self.run.input),
                Cow::Owned(input) => Arc::new(input),
            },
        };
        check_input(unit, &input)?;
        encode(&input)?;
        Ok((workflow, input))
    }
}

/// The run that an attempt of a `subworkflow` step starts.
pub(super) fn child_run(parent: &RunId, step: &StepKey, attempt: u32) -> RunId {
    let name = format!("coretex:run:{parent}:{step}@{attempt}");
    RunId::new(&uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
}

/// Whether an input fits its schema.
fn check_input(unit: &Unit<'_>, payload: &Value) -> Result<(), Failure> {
    let schema = compiled(unit.spec.input_schema.as_ref()).map_err(|why| failure("invalid_input", why.message))?;
    match schema {
        Some(schema) => schema
            .validate(payload)
            .map_err(|invalid| failure("invalid_input", invalid.to_string())),
        None => Ok(()),
    }
}

fn encode(payload: &Value) -> Result<Bytes, Failure> {
    let bytes = serde_json::to_vec(payload).map_err(|error| failure("invalid_input", error.to_string()))?;
    if bytes.len() > MAX_RESULT {
        let why = format!("the input has more than {MAX_RESULT} bytes");
        return Err(failure("payload_too_large", why));
    }
    Ok(bytes.into())
}

/// The item of a fan-out's child, unless it is null.
fn item<'r>(run: &'r Run, spec: &PlannedStep, place: Place) -> Option<&'r Value> {
    let Place::Child(index) = place else {
        return None;
    };
    run.items
        .get(spec.key.as_str())?
        .get(index)
        .filter(|item| !item.is_null())
}

fn add_item(payload: &mut Value, item: Option<&Value>) {
    if let (Value::Object(payload), Some(item)) = (payload, item)
        && !payload.contains_key("item")
    {
        payload.insert("item".to_owned(), item.clone());
    }
}

/// The run's input, with the item.
fn inherited<'r>(run: &'r Run, spec: &PlannedStep, place: Place) -> Cow<'r, Value> {
    let item = item(run, spec, place);
    if item.is_none() || run.input.get("item").is_some() {
        return Cow::Borrowed(&run.input);
    }
    let mut payload = Value::clone(&run.input);
    add_item(&mut payload, item);
    Cow::Owned(payload)
}

/// Whether templates decide anything about the jobs of a step.
fn varies(spec: &PlannedStep) -> bool {
    let varies = |part: &Part<Template>| part.as_ref().is_ok_and(|template| !template.is_constant());
    let meta = |meta: &PlannedMeta| {
        [
            &meta.actor_id,
            &meta.actor_type,
            &meta.idempotency_key,
            &meta.pack_id,
            &meta.capability,
        ]
        .into_iter()
        .chain(&meta.risk_tags)
        .chain(&meta.requires)
        .chain(meta.labels.iter().map(|(_, value)| value))
        .any(varies)
    };
    varies(&spec.topic)
        || spec.priority.as_ref().is_some_and(varies)
        || spec.memory_id.as_ref().is_some_and(varies)
        || spec.labels.iter().any(|(_, value)| varies(value))
        || spec.meta.as_ref().is_some_and(meta)
}

/// What templates say about a job.
fn parts(spec: &PlannedStep, scope: &dyn Scope) -> Result<Dispatch, Failure> {
    let text = |part: &Part<Template>| -> Result<String, Failure> {
        match part {
            Ok(template) => template
                .eval_text(scope)
                .map_err(|error| failure("expression", error.to_string())),
            Err(why) => Err(failure("expression", why.clone())),
        }
    };
    let some = |part: Option<&Part<Template>>| part.map_or_else(|| Ok(String::new()), text);
    let map = |parts: &[(String, Part<Template>)]| -> Result<BTreeMap<String, String>, Failure> {
        parts
            .iter()
            .map(|(name, value)| Ok((name.clone(), text(value)?)))
            .collect()
    };
    // Blanks in lists say nothing.
    let list = |parts: &[Part<Template>]| -> Result<Vec<String>, Failure> {
        let mut list = Vec::new();
        for part in parts {
            let entry = text(part)?.trim().to_owned();
            if !entry.is_empty() {
                list.push(entry);
            }
        }
        Ok(list)
    };
    let topic = text(&spec.topic)?;
    Topic::try_new(&topic).map_err(|error| failure("expression", format!("topic: {error}")))?;
    let trimmed = |part: &Part<Template>| text(part).map(|text| text.trim().to_owned());
    let meta = match &spec.meta {
        None => None,
        Some(meta) => Some(StepMeta {
            actor_id: trimmed(&meta.actor_id)?,
            actor_type: trimmed(&meta.actor_type)?,
            idempotency_key: trimmed(&meta.idempotency_key)?,
            pack_id: trimmed(&meta.pack_id)?,
            capability: trimmed(&meta.capability)?,
            risk_tags: list(&meta.risk_tags)?,
            requires: list(&meta.requires)?,
            labels: map(&meta.labels)?,
        }),
    };
    Ok(Dispatch {
        topic,
        labels: map(&spec.labels)?,
        meta,
        priority: some(spec.priority.as_ref())?,
        memory_id: some(spec.memory_id.as_ref())?,
    })
}

/// The request of a step's current job, made from the run as it was committed. `None` if the step waits for no job any more.
///
/// What templates decided was kept when the attempt began, so that this is the same request however often it is made.
pub fn job_request(plan: &Plan, run: &Run, step: &StepKey) -> Option<JobRequest> {
    let record = run.steps.get(step)?;
    let job = record
        .job_id
        .as_ref()
        .filter(|_| record.status == StepStatus::Running)?;
    let spec = plan.step(step)?;
    let dispatch = match &record.dispatch {
        Some(dispatch) => Arc::clone(dispatch),
        None => Arc::new(parts(spec, &Object::new()).ok()?),
    };
    let head = &run.head;
    let memory = [
        dispatch.memory_id.trim(),
        run.input
            .get("memory_id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim(),
    ]
    .into_iter()
    .find(|memory| !memory.is_empty())
    .map_or_else(|| format!("run:{}", run.id), str::to_owned);
    let priority = match dispatch.priority.trim() {
        "" => run
            .input
            .get("priority")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim(),
        priority => priority,
    };
    let priority = match priority.to_ascii_lowercase().as_str() {
        "critical" => JobPriority::Critical,
        "interactive" => JobPriority::Interactive,
        _ => JobPriority::Batch,
    };
    let meta = metadata(&head.org_id, dispatch.meta.as_ref());
    let worker = &spec.step.worker_id;
    Some(JobRequest {
        job_id: job.to_string(),
        topic: dispatch.topic.clone(),
        priority: priority.into(),
        context_ptr: Pointer::context(job).to_string(),
        adapter_id: worker.clone(),
        env: environment(run, spec, step, &memory),
        workflow_id: head.workflow_id.clone(),
        memory_id: memory,
        budget: spec.timeout.map(|timeout| Budget {
            deadline_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
            ..Budget::default()
        }),
        tenant_id: head.org_id.clone(),
        principal_id: dispatch
            .meta
            .as_ref()
            .map(|meta| meta.actor_id.clone())
            .unwrap_or_default(),
        labels: labels(run, step, worker, &dispatch),
        meta,
        ..JobRequest::default()
    })
}

fn environment(run: &Run, spec: &PlannedStep, step: &StepKey, memory: &str) -> BTreeMap<String, String> {
    let head = &run.head;
    let mut env: BTreeMap<String, String> = [
        ("workflow_id", head.workflow_id.as_str()),
        ("run_id", run.id.as_str()),
        ("step_id", step.as_str()),
        ("tenant_id", head.org_id.as_str()),
        ("team_id", head.team_id.as_str()),
        ("memory_id", memory),
        ("context_mode", "raw"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if head.dry_run {
        env.insert("dry_run".to_owned(), "true".to_owned());
    }
    if let Some((parent, index)) = step.parent()
        && spec.fans_out
    {
        env.insert("foreach_index".to_owned(), index.to_string());
        let item = run.items.get(parent).and_then(|items| items.get(index));
        let item = item.unwrap_or(&Value::Null).to_string();
        if item.len() <= MAX_ITEM_ENV {
            env.insert("foreach_item".to_owned(), item);
        }
    }
    env
}

fn labels(run: &Run, step: &StepKey, worker: &str, dispatch: &Dispatch) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        ("workflow_id", run.head.workflow_id.as_str()),
        ("run_id", run.id.as_str()),
        ("step_id", step.as_str()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if !worker.is_empty() {
        labels.insert("worker_id".to_owned(), worker.to_owned());
    }
    labels.extend(dispatch.labels.clone());
    if run.head.dry_run {
        labels.insert("dry_run".to_owned(), "true".to_owned());
    }
    labels
}

/// Nothing at all if nothing is known.
fn metadata(org: &str, meta: Option<&StepMeta>) -> Option<JobMetadata> {
    let mut made = JobMetadata {
        tenant_id: org.trim().to_owned(),
        ..JobMetadata::default()
    };
    if let Some(meta) = meta {
        made.actor_id.clone_from(&meta.actor_id);
        made.actor_type = match meta.actor_type.to_ascii_lowercase().as_str() {
            "human" => ActorType::Human.into(),
            "service" => ActorType::Service.into(),
            _ => 0,
        };
        made.idempotency_key.clone_from(&meta.idempotency_key);
        made.pack_id.clone_from(&meta.pack_id);
        made.capability.clone_from(&meta.capability);
        made.risk_tags.clone_from(&meta.risk_tags);
        made.requires.clone_from(&meta.requires);
        made.labels = meta.labels.clone().into_iter().collect();
    }
    (made != JobMetadata::default()).then_some(made)
}
