//! docs/spec/http.md §17.

use std::net::SocketAddr;

use bytes::Bytes;
use coretex_core::bus::Message as BusMessage;
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::agent::{Heartbeat, JobProgress, JobResult};
use coretex_core::protocol::{encode_packet, packet, subjects};
use coretex_core::time::Timestamp;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use coretex_core::test_util::wait::PATIENCE;

use crate::rig::{Rig, with_key};

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// The status of the refusal, if it is one.
async fn connect(addr: SocketAddr, query: &str, headers: &[(&'static str, &str)]) -> Result<(Client, String), u16> {
    let mut request = format!("ws://{addr}/api/v1/stream{query}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol");
            let protocol = protocol.map_or("", |value| value.to_str().unwrap()).to_owned();
            Ok((Client(socket), protocol))
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        // tungstenite refuses a server that does not echo what it offered; that is how the client sees it.
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    async fn open(addr: SocketAddr, query: &str) -> Self {
        connect(addr, query, &[]).await.map(|(client, _)| client).unwrap()
    }

    async fn next(&mut self) -> Option<Message> {
        let message = timeout(PATIENCE, self.0.next()).await.expect("in time");
        message.and_then(Result::ok)
    }

    /// The next frame of text.
    async fn frame(&mut self) -> Value {
        loop {
            match self.next().await.expect("the stream goes on") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads to the end: how many frames there were, and the goodbye.
    async fn rest(&mut self) -> (usize, Option<CloseFrame>) {
        let mut frames = 0;
        while let Some(message) = self.next().await {
            match message {
                Message::Text(_) => frames += 1,
                Message::Close(close) => return (frames, close),
                _ => {}
            }
        }
        (frames, None)
    }
}

async fn publish(rig: &Rig, subject: &str, payload: Payload) {
    let packet = packet("t1", "w1", Timestamp::from_micros(1_767_604_800_123_456), payload);
    publish_bytes(rig, subject, encode_packet(&packet)).await;
}

async fn publish_bytes(rig: &Rig, subject: &str, payload: Bytes) {
    let message = BusMessage {
        subject: subject.to_owned(),
        payload,
        message_id: None,
    };
    rig.platform.bus.publish(message).await.unwrap();
}

fn result(job: &str) -> Payload {
    Payload::JobResult(JobResult {
        job_id: job.to_owned(),
        worker_id: "w1".to_owned(),
        execution_ms: 42,
        ..JobResult::default()
    })
}

#[tokio::test]
async fn packets_and_run_events_are_frames() {
    let rig = Rig::new().await;
    let (addr, _served) = rig.serve().await;
    let mut all = Client::open(addr, "").await;
    let mut run = Client::open(addr, "?run_id=r1").await;
    let mut beats = Client::open(addr, "?subjects=sys.heartbeat,sys.none.*").await;

    publish(&rig, subjects::RESULT, result("j1")).await;
    assert_eq!(
        all.frame().await,
        serde_json::json!({
            "traceId": "t1", "senderId": "w1", "createdAt": "2026-01-05T09:20:00.123456Z", "protocolVersion": 1,
            "jobResult": {"jobId": "j1", "workerId": "w1", "executionMs": "42"},
            "payload": {"jobResult": {"jobId": "j1", "workerId": "w1", "executionMs": "42"}},
        })
    );
    publish(&rig, subjects::DLQ, result("r1:a@1")).await;
    let beat = Heartbeat {
        worker_id: "w1".to_owned(),
        ..Heartbeat::default()
    };
    publish(&rig, subjects::HEARTBEAT, Payload::Heartbeat(beat)).await;
    // Neither a packet nor an entry: nobody sees it.
    publish_bytes(&rig, subjects::RESULT, Bytes::from_static(b"\xff\xff")).await;
    publish_bytes(&rig, subjects::WORKFLOW_TIMELINE, Bytes::from_static(b"no")).await;
    let entries = br#"[{"type":"step_completed","run_id":"r1","step_id":"a"},{"type":"run_status","run_id":"r2"}]"#;
    publish_bytes(&rig, subjects::WORKFLOW_TIMELINE, Bytes::from_static(entries)).await;

    // Subjects are read side by side, so frames of different ones may overtake each other.
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(all.frame().await);
    }
    let has = |path: &str, value: &str| seen.iter().any(|frame| frame.pointer(path) == Some(&value.into()));
    assert!(has("/jobResult/jobId", "r1:a@1"), "{seen:?}");
    assert!(has("/heartbeat/workerId", "w1"), "{seen:?}");
    assert!(has("/workflowEvent/step_id", "a"), "{seen:?}");
    assert!(has("/workflowEvent/run_id", "r2"), "{seen:?}");

    let of_run = [run.frame().await, run.frame().await];
    for frame in &of_run {
        let job = frame.pointer("/jobResult/jobId");
        let event = frame.pointer("/workflowEvent/run_id");
        assert!(job == Some(&"r1:a@1".into()) || event == Some(&"r1".into()), "{frame}");
    }
    assert_eq!(beats.frame().await["heartbeat"]["workerId"], "w1");
}

#[tokio::test]
async fn who_may_watch() {
    let rig = Rig::with(with_key("secret")).await;
    let (addr, _served) = rig.serve().await;
    for (query, headers, expected) in [
        ("", vec![], Err(401)),
        ("", vec![("x-api-key", "wrong")], Err(401)),
        ("", vec![("x-api-key", "secret")], Ok("")),
        (
            "",
            vec![("sec-websocket-protocol", "coretex-api-key, c2VjcmV0")],
            Ok("coretex-api-key"),
        ),
        ("", vec![("sec-websocket-protocol", "coretex-api-key, bm8")], Err(401)),
        (
            "",
            vec![("x-api-key", "secret"), ("origin", "https://evil.example")],
            Err(403),
        ),
        ("?subjects=a..b", vec![("x-api-key", "secret")], Err(400)),
    ] {
        let answer = connect(addr, query, &headers).await;
        assert_eq!(
            answer
                .as_ref()
                .map(|(_, protocol)| protocol.as_str())
                .map_err(|status| *status),
            expected,
            "{query} {headers:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so() {
    let rig = Rig::new().await;
    for (method, status, text) in [("GET", 400, "Bad Request"), ("POST", 405, "Method Not Allowed")] {
        let answer = rig.send(method, "/api/v1/stream", &[], "").await;
        assert_eq!(answer.brief(), (status, text));
        assert_eq!(answer.header("sec-websocket-version"), "13");
    }
}

#[tokio::test]
async fn pings_and_goodbyes_are_answered() {
    let rig = Rig::new().await;
    let (addr, _served) = rig.serve().await;
    let mut client = Client::open(addr, "").await;
    client.0.send(Message::Ping(Bytes::from_static(b"hi"))).await.unwrap();
    assert_eq!(client.next().await, Some(Message::Pong(Bytes::from_static(b"hi"))));
    // What clients say is not looked at.
    client.0.send(Message::text("subscribe")).await.unwrap();
    client.0.close(None).await.unwrap();
    assert_eq!(client.rest().await.0, 0);

    let mut client = Client::open(addr, "").await;
    rig.draining.cancel();
    let (_, close) = client.rest().await;
    assert_eq!(u16::from(close.expect("a goodbye").code), 1001);
}

/// The slow one goes, the others see everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_is_let_go() {
    const FRAMES: usize = 150;
    let rig = Rig::new().await;
    let (addr, _served) = rig.serve().await;
    let mut slow = Client::open(addr, "").await;
    let mut fast = Client::open(addr, "").await;
    // Far more than the buffers of the network and the queue hold.
    let progress = Payload::JobProgress(JobProgress {
        job_id: "j1".to_owned(),
        message: "x".repeat(200_000),
        ..JobProgress::default()
    });
    for _ in 0..FRAMES {
        publish(&rig, subjects::PROGRESS, progress.clone()).await;
        assert_eq!(fast.frame().await["jobProgress"]["jobId"], "j1");
    }
    let (frames, close) = slow.rest().await;
    assert!(frames < FRAMES, "the slow client saw everything");
    if let Some(close) = close {
        assert_eq!(u16::from(close.code), 1013);
    }
    publish(&rig, subjects::RESULT, result("after")).await;
    assert_eq!(fast.frame().await["jobResult"]["jobId"], "after");
}
