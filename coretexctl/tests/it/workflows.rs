//! `coretexctl workflow …`, `run …` and `approval step` against a real gateway, engine and scheduler in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use assert_cmd::assert::Assert;
use coretex_core::backend::embedded::{EmbeddedStores, Location, Options};
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::bus::Bus;
use coretex_core::platform::Platform;
use coretex_core::policy::{Kernel, LocalKernel};
use coretex_core::protocol::TenantId;
use coretexd::gateway::{Gateway, Server, Services, bind};
use coretexd::settings::{HttpSettings, Origins, SelfApproval};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::stub::ctl;

/// A control plane, for as long as it is kept.
struct World {
    addr: SocketAddr,
    folder: tempfile::TempDir,
    _runtime: Runtime,
}

impl World {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let addr = runtime.block_on(async {
            let stores = EmbeddedStores::open(&Location::Memory, &Options::default())
                .expect("stores")
                .stores();
            let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new());
            let kernel: Arc<dyn Kernel> = Arc::new(LocalKernel::allow_all());
            let platform = Platform::builder(bus, stores, kernel)
                .start()
                .await
                .expect("a platform");
            let services = Services::new(&platform, TenantId::fallback(), "embedded");
            let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
            let addr = listener.local_addr().expect("bound");
            let settings = HttpSettings {
                addr,
                metrics_addr: addr,
                api_key: None,
                keys: Vec::new(),
                insecure_open: false,
                rate_limit: None,
                origins: Origins::SameHost,
                self_approval: SelfApproval::default(),
            };
            let router = Gateway::new(services, &settings, CancellationToken::new()).router();
            platform.spawn(|stop| Server::new(listener, router).run(stop));
            addr
        });
        Self {
            addr,
            folder: tempfile::tempdir().expect("a folder"),
            _runtime: runtime,
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn ctl(&self, args: &[&str]) -> Assert {
        let mut command = ctl(args);
        command.env("CORETEX_API_BASE", format!("http://{}", self.addr));
        command.assert()
    }

    /// What a command that goes well prints.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        stdout(&self.ctl(args).success())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.out(&all)).expect("JSON")
    }
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout)
        .trim_end()
        .to_owned()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

const GATE: &str = "
id: gate
name: Gate
steps:
  sum: {type: transform, expression: input.a + input.b}
  ask: {type: approval, depends_on: [sum], prompt: 'Use ${steps.sum.output}?', timeout_sec: 3600}
output: {sum: '${steps.sum.output}'}
";

/// The forms that scripts of the reference use, flags first, bare ids on standard output.
#[test]
fn the_acceptance_flow() {
    let world = World::start();
    let file = world.file(
        "smoke.json",
        r#"{"name":"cli-smoke","org_id":"default","steps":{"approve":{"type":"approval","name":"Approve"}}}"#,
    );
    let workflow = world.out(&["workflow", "create", "--file", &file]);
    let run = world.out(&["run", "start", &workflow]);
    assert_eq!(run.len(), 36, "{run}");
    assert_eq!(
        world.out(&["approval", "step", "--approve", &workflow, &run, "approve"]),
        ""
    );
    let timeline: Value = serde_json::from_str(&world.out(&["run", "timeline", &run])).expect("JSON");
    assert!(
        timeline.as_array().is_some_and(|entries| entries.len() > 3),
        "{timeline}"
    );
    assert_eq!(world.json(&["run", "get", &run])["status"], "succeeded");
    assert_eq!(world.out(&["run", "delete", &run]), "");
    assert_eq!(world.out(&["workflow", "delete", &workflow]), "");
    world.ctl(&["run", "get", &run]).code(3);
    world.ctl(&["workflow", "get", &workflow]).code(3);
    world.ctl(&["approval", "step", "w", "r", "s"]).code(2);
}

#[test]
fn a_workflow_from_file_to_end() {
    let world = World::start();
    let file = world.file("gate.yaml", GATE);
    assert_eq!(
        world.out(&["workflow", "validate", &file, "--strict"]),
        format!("{file}: ok")
    );
    assert_eq!(world.out(&["workflow", "apply", &file]), "gate");
    // The same once more is the same revision.
    let again = world.json(&["workflow", "apply", &file]);
    assert_eq!(again["created"], false);
    let versions = world.json(&["workflow", "versions", "gate"]);
    assert_eq!(versions["items"].as_array().map(Vec::len), Some(1), "{versions}");
    assert!(world.out(&["workflow", "list"]).contains("Gate"));
    assert!(
        world
            .out(&["workflow", "graph", "gate"])
            .contains("└─ sum  transform\n   └─ ask  approval")
    );
    assert!(
        world
            .out(&["workflow", "graph", "gate", "--mermaid"])
            .starts_with("flowchart TD")
    );
    let stale = world.ctl(&["workflow", "apply", &file, "--if-match", "0000"]).code(4);
    assert!(stderr(&stale).contains("another revision"), "{}", stderr(&stale));

    let input = world.file("input.json", r#"{"a": 1, "b": 2}"#);
    let start = [
        "run",
        "start",
        "gate",
        "--input",
        &input,
        "--label",
        "env=test",
        "--idempotency-key",
        "k",
    ];
    let run = world.out(&start);
    let again = world.ctl(&start).success();
    assert_eq!(stdout(&again), run);
    assert!(stderr(&again).contains("was started before"), "{}", stderr(&again));

    let waits = world.ctl(&["run", "watch", &run, "--for", "10ms"]).code(7);
    assert!(stderr(&waits).contains("still waiting"), "{}", stderr(&waits));
    assert!(stdout(&waits).contains("step_waiting  ask"), "{}", stdout(&waits));
    assert!(world.out(&["approval", "list"]).contains(&format!("{run}:ask")));
    assert!(
        world
            .out(&["approval", "show", &format!("{run}:ask")])
            .contains("Use 3?")
    );
    assert!(world.out(&["run", "list", "--workflow", "gate"]).contains("waiting"));
    let refused = world.ctl(&["run", "delete", &run]).code(4);
    assert!(stderr(&refused).contains("cancel it first"), "{}", stderr(&refused));

    let done = world.out(&[
        "approval",
        "approve",
        &format!("{run}:ask"),
        "--as",
        "ann",
        "--reason",
        "fine",
    ]);
    assert!(done.contains(&format!("run watch {run}")), "{done}");
    let lines = world.out(&["run", "watch", &run]);
    assert!(
        lines
            .lines()
            .last()
            .is_some_and(|line| line.contains("run_status  succeeded")),
        "{lines}"
    );
    assert_eq!(world.out(&["run", "get", &run, "--result"]), "{\n  \"sum\": 3\n}");
    let shown = world.out(&["run", "get", &run]);
    assert!(shown.contains("✓ sum") && shown.contains("  ✓ ask"), "{shown}");
}

#[test]
fn runs_that_fail_say_so() {
    let world = World::start();
    let file = world.file(
        "bad.yaml",
        "id: bad\nsteps: {a: {type: transform, expression: '1 / 0'}}\n",
    );
    assert!(world.out(&["workflow", "schema"]).contains("\"steps\""));
    world.out(&["workflow", "apply", &file]);
    let failed = world.ctl(&["run", "start", "bad", "--wait"]).code(6);
    assert!(stderr(&failed).contains("ended failed"), "{}", stderr(&failed));
    let failed = world.ctl(&["run", "start", "bad", "--watch"]).code(6);
    assert!(stdout(&failed).contains("run_status  failed"), "{}", stdout(&failed));

    // All mistakes at once, here and at the server.
    let file = world.file(
        "worse.yaml",
        "id: worse\nsteps:\n  a: {type: worker, topic: job.a, depends_on: [b], condition: '1 +'}\n  b: {type: worker, topic: job.b, depends_on: [a]}\n",
    );
    for command in [["workflow", "validate", &file], ["workflow", "apply", &file]] {
        let refused = world.ctl(&command).code(1);
        let text = stdout(&refused) + &stderr(&refused);
        for part in ["/steps/a/condition", "depends_on"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
    let broken = world.file("broken.json", r#"{"steps": {"a": {"timeout_sec": "soon"}}}"#);
    let refused = world.ctl(&["workflow", "apply", &broken]).code(1);
    assert!(stderr(&refused).contains("timeout_sec"), "{}", stderr(&refused));
    world.ctl(&["run", "start", "none"]).code(3);
    world.ctl(&["run", "start", "bad", "--input", "[1]"]).code(2);
}

#[test]
fn runs_are_steered() {
    let world = World::start();
    let file = world.file(
        "steps.yaml",
        "id: steps
steps:
  form: {type: input, output_schema: {type: object, required: [n], properties: {n: {type: integer}}}}
  paid: {type: signal, depends_on: [form]}
",
    );
    world.out(&["workflow", "apply", &file]);
    let run = world.out(&["run", "start", "steps"]);
    let refused = world.ctl(&["run", "input", &run, "form", r#"{"n": "x"}"#]).code(1);
    assert!(stderr(&refused).contains("status 422"), "{}", stderr(&refused));
    world.out(&["run", "pause", &run]);
    world.out(&["run", "input", &run, "form", r#"{"n": 1}"#]);
    world.out(&["run", "resume", &run]);
    world.out(&[
        "run",
        "signal",
        &run,
        "paid",
        "--payload",
        r#"{"x": 1}"#,
        "--id",
        "once",
    ]);
    assert_eq!(world.json(&["run", "get", &run])["status"], "succeeded");
    let again = world.out(&["run", "rerun", &run, "--from-step", "paid"]);
    assert_eq!(world.json(&["run", "get", &again])["rerun_of"], run.as_str());
    world.out(&["run", "cancel", &again, "--reason", "enough"]);
    assert_eq!(world.json(&["run", "get", &again])["status"], "cancelled");
    world.ctl(&["run", "cancel", &run]).code(4);

    let put = [
        "workflow",
        "schedule",
        "put",
        "nightly",
        "--workflow",
        "steps",
        "--cron",
        "0 2 * * *",
    ];
    assert!(world.out(&put).contains("nightly"));
    assert!(world.out(&["workflow", "schedule", "list"]).contains("0 2 * * *"));
    let run = world.out(&["workflow", "schedule", "trigger", "nightly"]);
    assert_eq!(world.json(&["run", "get", &run])["metadata"]["schedule"], "nightly");
    assert!(
        world
            .out(&["workflow", "schedule", "pause", "nightly"])
            .contains("paused")
    );
    world.out(&["workflow", "schedule", "delete", "nightly"]);
    world.ctl(&["workflow", "schedule", "get", "nightly"]).code(3);
}
