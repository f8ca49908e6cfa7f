//! Workflows on a daemon of its own: with its own database, and on real NATS and Redis.

use std::net::SocketAddr;
use std::time::Duration;

use coretex_core::test_util::servers::{Daemon, NatsServer, Probe, RedisServer, free_address};
use coretex_core::test_util::wait::{PATIENCE, until};
use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;

/// A daemon with a worker inside that answers with its input.
struct System {
    _daemon: Daemon,
    http: SocketAddr,
    client: Client,
    _servers: Option<(NatsServer, RedisServer)>,
    _folder: tempfile::TempDir,
}

impl System {
    async fn start(distributed: bool) -> Self {
        // A provider that is there already is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let servers = if distributed {
            Some((NatsServer::start().await, RedisServer::start().await))
        } else {
            None
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (http, metrics) = (free_address(), free_address());
        let mut daemon = Daemon::new("coretexd", env!("CARGO_BIN_EXE_coretexd"))
            .clear_env()
            .args(["--echo-worker"])
            .env("GATEWAY_HTTP_ADDR", http.to_string())
            .env("GATEWAY_METRICS_ADDR", metrics.to_string())
            .env("API_RATE_LIMIT_RPS", "0")
            .current_dir(folder.path());
        if let Some((nats, redis)) = &servers {
            daemon = daemon.env("NATS_URL", nats.url()).env("REDIS_URL", redis.url());
        }
        let mut daemon = daemon.ready(Probe::Http {
            address: http,
            path: "/ready".to_owned(),
            status: 200,
        });
        daemon.start().await;
        Self {
            _daemon: daemon,
            http,
            client: Client::new(),
            _servers: servers,
            _folder: folder,
        }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let request = self
            .client
            .request(method, format!("http://{}/api/v1/{path}", self.http));
        let response = request.json(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> Value {
        self.call("GET", path, &Value::Null).await.1
    }

    async fn until_over(&self, run: &str) -> Value {
        until("the run ends", async || {
            let run = self.get(&format!("workflow-runs/{run}")).await;
            let over = matches!(
                run["status"].as_str(),
                Some("succeeded" | "failed" | "cancelled" | "timed_out")
            );
            over.then_some(run)
        })
        .await
    }
}

/// The reference's smoke test, word for word: create, start, approve at once, look, delete.
async fn smoke(system: &System) {
    let definition = json!({"name": "platform-smoke", "org_id": "default",
                            "steps": {"approve": {"type": "approval", "name": "Approve"}}});
    let (status, created) = system.call("POST", "workflows", &definition).await;
    assert_eq!(status, 201, "{created}");
    let workflow = created["id"].as_str().expect("an id");
    let (status, started) = system
        .call("POST", &format!("workflows/{workflow}/runs"), &json!({}))
        .await;
    assert_eq!(status, 200, "{started}");
    let run = started["run_id"].as_str().expect("an id");
    let approve = format!("workflows/{workflow}/runs/{run}/steps/approve/approve");
    assert_eq!(system.call("POST", &approve, &json!({"approved": true})).await.0, 204);
    assert_eq!(system.until_over(run).await["status"], "succeeded");
    assert_eq!(
        system
            .call("DELETE", &format!("workflow-runs/{run}"), &Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(
        system
            .call("DELETE", &format!("workflows/{workflow}"), &Value::Null)
            .await
            .0,
        204
    );
}

/// Jobs, a fan-out, people, a computed output; and what the stream shows of it.
async fn jobs_and_people(system: &System) {
    let definition = json!({"id": "parts", "output": {"sum": "${steps.sum.output}"}, "steps": {
        "fan": {"type": "worker", "topic": "job.default", "for_each": "input.items", "max_parallel": 2,
                "input": {"n": "${item}"}},
        "ask": {"type": "approval", "depends_on": ["fan"], "prompt": "${length(input.items)} parts?"},
        "sum": {"type": "transform", "depends_on": ["ask"], "expression": "length(steps.fan.output)"},
    }});
    let (status, created) = system.call("POST", "workflows", &definition).await;
    assert_eq!(status, 201, "{created}");
    let delayed = "workflows/parts/runs?start_delay_ms=500";
    let (_, started) = system.call("POST", delayed, &json!({"items": [1, 2, 3]})).await;
    let run = started["run_id"].as_str().expect("an id").to_owned();
    let url = format!("ws://{}/api/v1/stream?run_id={run}", system.http);
    let (mut stream, _) = connect_async(url).await.expect("a stream");

    let item = until("somebody is asked", async || {
        let items = system.get("approvals").await;
        items["items"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!((&item["run_id"], &item["prompt"]), (&json!(run), &json!("3 parts?")));
    let id = item["job"]["id"].as_str().expect("an id");
    let (status, answer) = system
        .call("POST", &format!("approvals/{id}/approve"), &json!({"reason": "fine"}))
        .await;
    assert_eq!((status, &answer["state"]), (200, &json!("SUCCEEDED")));
    let over = system.until_over(&run).await;
    assert_eq!(
        (&over["status"], &over["output"]),
        (&json!("succeeded"), &json!({"sum": 3})),
        "{over}"
    );
    assert_eq!(
        over["steps"]["fan"]["children"]["fan[2]"]["input"],
        json!({"n": 3, "item": 3})
    );
    assert_eq!(over["steps"]["fan[2]"], over["steps"]["fan"]["children"]["fan[2]"]);

    // What was told while it went on ends with the end.
    let mut seen = Vec::new();
    loop {
        let message = timeout(PATIENCE, stream.next())
            .await
            .expect("in time")
            .expect("open")
            .expect("whole");
        let Ok(text) = message.to_text() else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        let event = &frame["workflowEvent"];
        if event.is_object() {
            assert_eq!(event["run_id"], run.as_str());
            seen.push(event["type"].as_str().unwrap_or_default().to_owned());
        }
        if event["type"] == "run_status" && event["status"] == "succeeded" {
            break;
        }
    }
    assert!(seen.iter().any(|event| event == "step_approved"), "{seen:?}");
}

/// 100 MB over a real socket: told so, and the next request is served.
async fn a_large_input(system: &System) {
    let chunks = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000_000])));
    let request = system
        .client
        .post(format!("http://{}/api/v1/workflows/parts/runs", system.http))
        .header("content-length", "100000000")
        .body(reqwest::Body::wrap_stream(chunks));
    // The server hangs up on whoever goes on sending; both that and the answer are a refusal.
    if let Ok(answer) = timeout(Duration::from_secs(60), request.send()).await.expect("in time") {
        assert_eq!(answer.status().as_u16(), 413);
    }
    assert!(system.get("workflows/parts").await["id"] == "parts");
}

async fn all(distributed: bool) {
    let system = System::start(distributed).await;
    smoke(&system).await;
    jobs_and_people(&system).await;
    a_large_input(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_an_embedded_daemon() {
    all(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_nats_and_redis() {
    all(true).await;
}
