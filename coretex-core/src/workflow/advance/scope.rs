//! What the names in a step's expressions mean (docs/spec/workflows.md §2.3). Nothing is put together that is not asked for.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::expr::{Scope, Segment};
use crate::time::Timestamp;
use crate::workflow::model::StepKind;
use crate::workflow::plan::Plan;
use crate::workflow::run::{Failure, Run, Skip, StepRecord, StepStatus};

/// What is known where an expression stands, beyond the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Local<'a> {
    /// Of a fan-out's child; `None` where it is null.
    pub(super) item: Option<&'a Value>,
    /// Which child or round.
    pub(super) index: Option<usize>,
    /// How many items there are.
    pub(super) total: Option<usize>,
    /// The output of the round before.
    pub(super) last: Option<Arc<Value>>,
    /// The failure that an error handler handles.
    pub(super) error: Option<Failure>,
}

/// The run as its expressions see it.
#[derive(Debug)]
pub(super) struct RunScope<'a> {
    pub(super) plan: &'a Plan,
    pub(super) run: &'a Run,
    pub(super) now: Timestamp,
    pub(super) local: Local<'a>,
}

impl Scope for RunScope<'_> {
    fn resolve<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        let Segment::Key(root) = path.first()? else {
            return None;
        };
        let rest = &path[1..];
        match &**root {
            "input" => Some((Cow::Borrowed(&*self.run.input), 1)),
            "steps" => self.steps(rest).map(|(value, used)| (value, used + 1)),
            "ctx" => self.context(rest).map(|(value, used)| (value, used + 1)),
            "run" => self.about_run(rest).map(|(value, used)| (value, used + 1)),
            "now" => Some((Cow::Owned(self.now.rfc3339().into()), 1)),
            "item" => Some((Cow::Borrowed(self.local.item?), 1)),
            "index" => Some((Cow::Owned(self.local.index?.into()), 1)),
            "items_total" => Some((Cow::Owned(self.local.total?.into()), 1)),
            "last" => Some((Cow::Borrowed(&**self.local.last.as_ref()?), 1)),
            "error" => {
                let error = self.local.error.as_ref()?;
                let value = json!({"code": error.code, "message": error.message, "step_id": error.step_id});
                Some((Cow::Owned(value), 1))
            }
            _ => None,
        }
    }
}

impl RunScope<'_> {
    fn context<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        match path.first() {
            None => {
                let mut all = self.run.context.clone();
                all.insert("steps".to_owned(), self.all_steps());
                Some((Cow::Owned(all.into()), 0))
            }
            Some(Segment::Key(key)) if &**key == "steps" => {
                self.steps(&path[1..]).map(|(value, used)| (value, used + 1))
            }
            Some(_) => self.run.context.resolve(path),
        }
    }

    fn about_run<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        let head = &self.run.head;
        let member = |name: &str| -> Option<Value> {
            Some(match name {
                "id" => self.run.id.as_str().into(),
                "workflow_id" => head.workflow_id.as_str().into(),
                "org_id" => head.org_id.as_str().into(),
                "team_id" => head.team_id.as_str().into(),
                "dry_run" => head.dry_run.into(),
                "started_at" => head.started_at.map(Timestamp::rfc3339).into(),
                "triggered_by" => head.triggered_by.as_str().into(),
                _ => return None,
            })
        };
        match path.first() {
            Some(Segment::Key(key)) => Some((Cow::Owned(member(key)?), 1)),
            Some(Segment::Index(_)) => None,
            None => {
                let names = [
                    "id",
                    "workflow_id",
                    "org_id",
                    "team_id",
                    "dry_run",
                    "started_at",
                    "triggered_by",
                ];
                let all: Map<String, Value> = names
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), member(name)?)))
                    .collect();
                Some((Cow::Owned(all.into()), 0))
            }
        }
    }

    fn all_steps(&self) -> Value {
        let all: Map<String, Value> = self
            .run
            .steps
            .keys()
            .filter_map(|key| Some((key.as_str().to_owned(), self.whole(key.as_str())?)))
            .collect();
        all.into()
    }

    /// `steps` and what follows.
    fn steps<'a>(&'a self, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        let Some(first) = path.first() else {
            return Some((Cow::Owned(self.all_steps()), 0));
        };
        let id = match first {
            Segment::Key(key) => Cow::Borrowed(&**key),
            Segment::Index(index) => Cow::Owned(index.to_string()),
        };
        // A child, or an old id with an index in it.
        if let Some(Segment::Index(index)) = path.get(1) {
            let child = format!("{id}[{index}]");
            if self.run.steps.contains_key(child.as_str()) {
                return self.step(&child, &path[2..]).map(|(value, used)| (value, used + 2));
            }
        }
        self.step(&id, &path[1..]).map(|(value, used)| (value, used + 1))
    }

    /// A step and what follows.
    fn step<'a>(&'a self, id: &str, path: &[Segment]) -> Option<(Cow<'a, Value>, usize)> {
        let record = self.run.steps.get(id)?;
        match path.first() {
            None => Some((Cow::Owned(self.whole(id)?), 0)),
            Some(Segment::Index(_)) => None,
            Some(Segment::Key(name)) => {
                let value = match &**name {
                    "output" => self.output(id, record)?,
                    "result_ptr" if !record.result_ptr.is_empty() => Cow::Owned(record.result_ptr.as_str().into()),
                    "status" => Cow::Owned(record.status.as_str().into()),
                    "error" => {
                        let error = record.error.as_ref()?;
                        Cow::Owned(json!({"code": error.code, "message": error.message}))
                    }
                    "attempts" => Cow::Owned(record.attempts.into()),
                    "skipped" => Cow::Owned(match record.skipped? {
                        Skip::Condition => "condition".into(),
                        Skip::Branch => "branch".into(),
                    }),
                    _ => return None,
                };
                Some((value, 1))
            }
        }
    }

    fn whole(&self, id: &str) -> Option<Value> {
        let record = self.run.steps.get(id)?;
        let mut members = Map::new();
        for name in ["output", "result_ptr", "status", "error", "attempts", "skipped"] {
            if let Some((value, _)) = self.step(id, &[Segment::Key(name.into())]) {
                members.insert(name.to_owned(), value.into_owned());
            }
        }
        // What was never begun is not there, as in the reference.
        (record.status != StepStatus::Pending || record.attempts > 0).then(|| members.into())
    }

    fn output<'a>(&'a self, id: &str, record: &'a StepRecord) -> Option<Cow<'a, Value>> {
        if let Some(output) = &record.output {
            return Some(Cow::Borrowed(&**output));
        }
        outputs(self.plan, self.run, id).map(Cow::Owned)
    }
}

/// The outputs of a step's children in order, null for those without; `None` for steps that are no fan-out or have not ended.
pub(crate) fn outputs(plan: &Plan, run: &Run, id: &str) -> Option<Value> {
    let record = run.steps.get(id)?;
    let group = record.group.as_ref()?;
    if !record.status.is_terminal() || plan.index(id).is_some_and(|index| plan[index].kind == StepKind::Loop) {
        return None;
    }
    let mut all = vec![Value::Null; usize::try_from(group.total).unwrap_or(0)];
    for (index, child) in children(run, id) {
        if let (Some(place), Some(output)) = (all.get_mut(index), &child.output) {
            *place = Value::clone(output);
        }
    }
    Some(all.into())
}

/// The records of a step's children, in no particular order.
pub(crate) fn children<'a>(run: &'a Run, id: &str) -> impl Iterator<Item = (usize, &'a StepRecord)> {
    let prefix = format!("{id}[");
    let from = crate::workflow::StepKey::new(&prefix);
    run.steps
        .range(from..)
        .take_while({
            let prefix = prefix.clone();
            move |(key, _)| key.as_str().starts_with(&prefix)
        })
        .filter_map(move |(key, record)| {
            let index = key.as_str().strip_prefix(&prefix)?.strip_suffix(']')?.parse().ok()?;
            Some((index, record))
        })
}
