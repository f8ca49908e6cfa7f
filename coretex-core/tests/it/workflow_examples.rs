//! Every example in `examples/workflows/` goes as its case says, through the engine alone: workers and people are scripts,
//! and time passes when nothing else can. The format of cases is in `examples/workflows/README.md`.

#![allow(clippy::unwrap_used, reason = "a script that cannot be played has to stop")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coretex_core::expr::Template;
use coretex_core::jobs::JobState;
use coretex_core::protocol::JobId;
use coretex_core::time::Timestamp;
use coretex_core::workflow::event::{Fetched, JobEnded};
use coretex_core::workflow::run::{Skip, StepVote};
use coretex_core::workflow::schema::SchemaSet;
use coretex_core::workflow::{
    Effect, Event, Plan, Run, RunHead, RunId, RunStatus, StepKey, Workflow, advance, check, decode, job_request,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    definitions: Vec<String>,
    input: Value,
    #[serde(default)]
    workers: BTreeMap<String, Vec<Answer>>,
    #[serde(default)]
    steps: BTreeMap<String, Vec<Answer>>,
    #[serde(default)]
    worker_labels: BTreeMap<String, String>,
    #[serde(default)]
    people: VecDeque<Deed>,
    expect: Expect,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default)]
    output: Value,
    fail: Option<String>,
    #[serde(default)]
    code: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    vote: Option<String>,
    form: Option<String>,
    signal: Option<String>,
    waits: Option<String>,
    #[serde(default)]
    by: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    approved: bool,
    #[serde(default)]
    value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: RunStatus,
    output: Option<Value>,
    error: Option<Map<String, Value>>,
    #[serde(default)]
    steps: BTreeMap<String, String>,
    #[serde(default)]
    step_outputs: BTreeMap<String, Value>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/workflows")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The definition in a file, which has to be without any fault.
fn definition(name: &str) -> Workflow {
    let definition = decode::yaml(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(definition.warnings, [], "{name}");
    let problems = check::check(&definition.workflow, &check::Known::default());
    assert_eq!(problems, [], "{name}");
    definition.workflow
}

/// Names without `.yaml`.
fn examples() -> Vec<String> {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let yaml = files.iter().filter_map(|file| file.strip_suffix(".yaml"));
    yaml.filter(|name| !name.contains('.')).map(str::to_owned).collect()
}

/// One example on its way.
struct Play {
    case: Case,
    plans: BTreeMap<String, Plan>,
    runs: BTreeMap<RunId, Run>,
    payloads: BTreeMap<JobId, Value>,
    events: VecDeque<(RunId, Event)>,
    now: Timestamp,
}

impl Play {
    fn new(name: &str) -> (Self, RunId) {
        let case: Case = serde_saphyr::from_str(&read(&format!("{name}.case.yaml")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let main = definition(&format!("{name}.yaml"));
        let id = main.id.clone();
        let others = case.definitions.iter().map(|file| definition(file));
        let plans = others
            .chain([main])
            .map(|workflow| {
                let hash = workflow.content_hash();
                (
                    workflow.id.clone(),
                    Plan::compile(Arc::new(workflow), hash, &SchemaSet::new()),
                )
            })
            .collect();
        let mut play = Self {
            case,
            plans,
            runs: BTreeMap::new(),
            payloads: BTreeMap::new(),
            events: VecDeque::new(),
            now: Timestamp::from_secs(1_700_000_000),
        };
        let input = play.case.input.clone();
        let run = RunId::new("run");
        if let Some(Ok(schema)) = &play.plans[&id].input_schema {
            schema
                .validate(&input)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        play.start(run.clone(), &id, input);
        (play, run)
    }

    fn start(&mut self, id: RunId, workflow: &str, input: Value) {
        let head = RunHead {
            workflow_id: workflow.to_owned(),
            org_id: "acme".to_owned(),
            created_at: self.now,
            ..RunHead::default()
        };
        self.runs.insert(id.clone(), Run::new(id.clone(), head, input));
        self.events.push_back((id, Event::Wake));
    }

    /// Until nothing can happen any more.
    fn go(&mut self, main: &RunId) {
        for _ in 0..10_000 {
            if let Some((run, event)) = self.events.pop_front() {
                self.take(&run, &event);
                continue;
            }
            if self.runs[main].head.status.is_terminal() {
                return;
            }
            if self.act(main) {
                continue;
            }
            // Nobody does anything: time passes.
            let Some((due, run)) = self
                .runs
                .values()
                .filter_map(|run| Some((run.due()?, run.id.clone())))
                .min()
            else {
                return;
            };
            self.now = self.now.max(due);
            self.events.push_back((run, Event::Wake));
        }
        panic!("there is no end to it");
    }

    fn take(&mut self, id: &RunId, event: &Event) {
        let run = self.runs.get_mut(id).unwrap();
        let plan = &self.plans[&run.head.workflow_id];
        let made = advance(plan, run, event, self.now).unwrap_or_else(|refusal| panic!("{event:?}: {refusal}"));
        if made.changed {
            run.revision += 1;
        }
        for (job, payload) in made.payloads {
            self.payloads.insert(job, serde_json::from_slice(&payload).unwrap());
        }
        for effect in made.effects.into_values() {
            self.carry_out(id, effect);
        }
        if made.more {
            self.events.push_back((id.clone(), Event::Wake));
        }
    }

    fn carry_out(&mut self, id: &RunId, effect: Effect) {
        let run = &self.runs[id];
        match effect {
            Effect::Submit { step, job } => {
                let request = job_request(&self.plans[&run.head.workflow_id], run, &step).unwrap();
                for (label, value) in &self.case.worker_labels {
                    assert_eq!(request.labels.get(label), Some(value), "{step}");
                }
                let attempt = run.steps[&step].attempts;
                let ended = self.answer(&step, &request.topic, attempt, &job);
                self.events.push_back((id.clone(), Event::JobEnded { job, ended }));
            }
            Effect::StartChild {
                step: _,
                run,
                workflow,
                input,
            } => {
                self.start(run.clone(), &workflow, (*input).clone());
                let parent = self.runs[id]
                    .steps
                    .iter()
                    .find(|(_, record)| record.child_run.as_ref() == Some(&run));
                let step = parent.unwrap().0.clone();
                let head = &mut self.runs.get_mut(&run).unwrap().head;
                head.parent = Some(coretex_core::workflow::run::ParentStep {
                    run: id.clone(),
                    step,
                    depth: 1,
                });
            }
            Effect::TellParent => {
                let parent = run.head.parent.clone().unwrap();
                let event = Event::ChildEnded {
                    step: parent.step,
                    run: id.clone(),
                    status: run.head.status,
                    output: run.head.output.clone(),
                    error: run.head.error.clone(),
                    cost: run.head.total_cost,
                };
                self.events.push_back((parent.run, event));
            }
            _ => {}
        }
    }

    /// What the script has a worker answer.
    fn answer(&self, step: &StepKey, topic: &str, attempt: u32, job: &JobId) -> JobEnded {
        let script = self
            .case
            .steps
            .get(step.as_str())
            .or_else(|| self.case.workers.get(topic));
        let script = script.unwrap_or_else(|| panic!("nobody does {topic} ({step})"));
        let answer = script.get(attempt as usize - 1).or(script.last()).unwrap();
        if let Some(message) = &answer.fail {
            return JobEnded {
                state: JobState::Failed,
                result_ptr: String::new(),
                output: Fetched::Nothing,
                error_code: answer.code.clone(),
                error_message: message.clone(),
            };
        }
        let scope = Map::from_iter([
            ("input".to_owned(), self.payloads[job].clone()),
            ("attempt".to_owned(), attempt.into()),
        ]);
        let output = Template::compile(&answer.output).unwrap().eval(&scope).unwrap();
        JobEnded {
            state: JobState::Succeeded,
            result_ptr: format!("redis://res:{job}"),
            output: Fetched::Value(Arc::new(output)),
            error_code: String::new(),
            error_message: String::new(),
        }
    }

    /// Has the next deed done, if the run waits for it.
    fn act(&mut self, main: &RunId) -> bool {
        let Some(deed) = self.case.people.front() else {
            return false;
        };
        let step = [&deed.vote, &deed.form, &deed.waits]
            .into_iter()
            .flatten()
            .next()
            .cloned();
        let open = |step: &str| {
            self.runs[main]
                .steps
                .get(step)
                .is_some_and(|record| !record.status.is_terminal())
        };
        if !step.as_deref().is_none_or(open) {
            return false;
        }
        let Some(deed) = self.case.people.pop_front() else {
            return false;
        };
        let value = Arc::new(deed.value);
        let event = if let Some(step) = deed.vote {
            Event::Vote {
                step: StepKey::new(&step),
                vote: StepVote {
                    by: deed.by,
                    role: deed.role,
                    approved: deed.approved,
                    at: self.now,
                    ..StepVote::default()
                },
            }
        } else if let Some(step) = deed.form {
            Event::Form {
                step: StepKey::new(&step),
                value,
                by: deed.by,
                role: deed.role,
            }
        } else {
            Event::Signal {
                name: deed.signal.unwrap(),
                payload: value,
                id: String::new(),
                by: deed.by,
            }
        };
        self.events.push_back((main.clone(), event));
        true
    }
}

fn status(run: &Run, step: &str) -> String {
    match run.steps.get(step) {
        None => "absent".to_owned(),
        Some(record) if matches!(record.skipped, Some(Skip::Condition | Skip::Branch)) => "skipped".to_owned(),
        Some(record) => record.status.as_str().to_owned(),
    }
}

#[test]
fn examples_go_as_they_say() {
    let examples = examples();
    assert!(examples.len() >= 15, "{examples:?}");
    for name in examples {
        let (mut play, main) = Play::new(&name);
        play.go(&main);
        let run = &play.runs[&main];
        let expect = &play.case.expect;
        assert_eq!(run.head.status, expect.status, "{name}: {:#?}", run.head.error);
        if let Some(output) = &expect.output {
            assert_eq!(run.head.output.as_deref(), Some(output), "{name}");
        }
        if let Some(wanted) = &expect.error {
            let error = serde_json::to_value(&run.head.error).unwrap();
            for (member, value) in wanted {
                assert_eq!(&error[member], value, "{name}: error");
            }
        }
        for (step, wanted) in &expect.steps {
            assert_eq!(
                &status(run, step),
                wanted,
                "{name}: {step}: {:#?}",
                run.steps.get(step.as_str())
            );
        }
        for (step, output) in &expect.step_outputs {
            let found = run.steps.get(step.as_str()).and_then(|record| record.output.as_deref());
            assert_eq!(found, Some(output), "{name}: {step}");
        }
        assert!(
            play.case.people.is_empty(),
            "{name}: {:?} were not asked",
            play.case.people
        );
    }
}

/// The schema accepts the examples as they are written, and refuses what the server would ignore or refuse.
#[test]
fn examples_fit_the_published_schema() {
    let published: Value = serde_json::from_str(
        &std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/workflow.schema.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(
        published,
        Workflow::json_schema(),
        "coretexctl workflow schema > docs/workflow.schema.json"
    );
    let schema = published.as_object().unwrap();
    let schema = coretex_core::workflow::schema::Schema::compile(schema).unwrap();
    for name in examples() {
        let document: Value = serde_saphyr::from_str(&read(&format!("{name}.yaml"))).unwrap();
        schema
            .validate(&document)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stored = serde_json::to_value(definition(&format!("{name}.yaml"))).unwrap();
        schema
            .validate(&stored)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let of_the_reference = json!({"id": "smoke", "org_id": "default", "team_id": "", "name": "platform-smoke", "description": "",
        "version": "", "timeout_sec": 0, "created_by": "", "created_at": "2025-01-02T03:04:05.12Z",
        "updated_at": "2025-01-02T03:04:05.12Z", "parameters": [{"name": "x"}], "config": {"k": 1},
        "steps": {"approve": {"id": "approve", "name": "Approve", "type": "approval", "meta": {"labels": {"a": "b"}},
            "retry": {"max_retries": 1, "multiplier": 2}, "route_labels": {"r": "eu"}, "input_schema": {"type": "object"}}}});
    schema.validate(&of_the_reference).unwrap();
    for wrong in [
        json!({"stepz": {}}),
        json!({"steps": {"a": {"dependson": []}}}),
        json!({"steps": {"a": {"timeout_sec": "5"}}}),
        json!({"on_failure": "stop"}),
        json!({"steps": {"a": {"wait_for": 0}}}),
    ] {
        schema.validate(&wrong).unwrap_err();
    }
}

/// Every definition in the guide is one, and none does what is rarely meant.
#[test]
fn the_guide_is_right() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/workflows.md")).unwrap();
    let blocks: Vec<&str> = guide
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 17, "{}", blocks.len());
    for block in blocks {
        let definition = decode::yaml(block).unwrap_or_else(|error| panic!("{block}{error}"));
        assert_eq!(definition.warnings, [], "{block}");
        let problems = check::check(&definition.workflow, &check::Known::default());
        assert_eq!(problems, [], "{block}");
    }
}
