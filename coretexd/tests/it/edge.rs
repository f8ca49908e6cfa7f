//! docs/spec/http.md §1–4, §6.

use axum::body::Body;
use coretexd::settings::{HttpSettings, Origins};

use crate::rig::{Rig, settings, with_key, with_limit};

#[tokio::test]
async fn paths_and_methods() {
    let rig = Rig::new().await;
    for (method, path, status, text) in [
        ("GET", "/health", 200, "ok"),
        ("HEAD", "/health", 200, ""),
        ("GET", "/nowhere", 404, "404 page not found"),
        ("GET", "/api/v1/jobs/", 404, "404 page not found"),
        ("GET", "/api/v1/jobs/%20", 404, "job not found"),
        ("GET", "/api/v1/jobs/a%2Fb", 404, "job not found"),
        ("GET", "/api/v1/jobs/%zz", 400, "400 Bad Request"),
        ("DELETE", "/api/v1/jobs", 405, "Method Not Allowed"),
        ("GET", "//api/v1/jobs", 307, ""),
    ] {
        let answer = rig.send(method, path, &[], Body::empty()).await;
        assert_eq!(answer.brief(), (status, text), "{method} {path}");
    }
    let answer = rig.send("DELETE", "/api/v1/jobs", &[], Body::empty()).await;
    assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    let answer = rig.get("/api//v1/jobs?limit=1").await;
    assert_eq!(answer.header("location"), "/api/v1/jobs?limit=1");
}

#[tokio::test]
async fn keys_are_demanded_under_api() {
    let rig = Rig::with(with_key("'secret'")).await;
    for (path, key, status) in [
        ("/api/v1/jobs", "", 401),
        ("/api/v1/jobs", "wrong", 401),
        ("/api/v1/jobs", "secret", 200),
        ("/api/v1/jobs", " \"secret\" ", 200),
        ("/api/v1/nowhere", "", 401),
        ("/health", "", 200),
    ] {
        let answer = rig.send("GET", path, &[("x-api-key", key)], Body::empty()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {key:?}");
        if status == 401 {
            assert_eq!(answer.text, "unauthorized\n");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_are_limited_after_the_key() {
    let rig = Rig::with(HttpSettings {
        rate_limit: with_limit(1, 2).rate_limit,
        ..with_key("k")
    })
    .await;
    let with = [("x-api-key", "k")];
    for _ in 0..5 {
        assert_eq!(
            rig.get("/api/v1/jobs").await.status.as_u16(),
            401,
            "strangers spend no tokens"
        );
    }
    for status in [200, 200, 429] {
        let answer = rig.send("GET", "/api/v1/jobs", &with, Body::empty()).await;
        assert_eq!(answer.status.as_u16(), status);
        if status == 429 {
            assert_eq!(answer.text, "rate limited\n");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert_eq!(rig.get("/health").await.status.as_u16(), 200);
}

#[tokio::test]
async fn pages_may_call_if_their_origin_may() {
    for (origins, origin, status) in [
        (Origins::SameHost, "http://localhost:3000", 200),
        (Origins::SameHost, "https://evil.example", 403),
        (Origins::Any, "https://evil.example", 200),
        (Origins::parse("https://app.example"), "https://app.example", 200),
        (Origins::parse("https://app.example"), "http://localhost", 403),
    ] {
        let rig = Rig::with(HttpSettings { origins, ..settings() }).await;
        let headers = [("origin", origin), ("host", "api.example")];
        for path in ["/health", "/api/v1/jobs"] {
            let answer = rig.send("GET", path, &headers, Body::empty()).await;
            assert_eq!(answer.status.as_u16(), status, "{origin} {path}");
            if status == 200 {
                assert_eq!(answer.header("access-control-allow-origin"), origin);
                assert_eq!(answer.header("vary"), "Origin");
                assert!(answer.header("access-control-allow-methods").contains("PUT"));
                assert!(answer.header("access-control-allow-headers").contains("X-Principal-Id"));
            } else {
                assert_eq!(answer.text, "origin not allowed\n");
                assert_eq!(answer.header("access-control-allow-methods"), "");
            }
        }
    }
    let rig = Rig::with(with_key("k")).await;
    let preflight = rig.send("OPTIONS", "/api/v1/anything", &[], Body::empty()).await;
    assert_eq!((preflight.status.as_u16(), preflight.text.as_str()), (204, ""));
}

#[tokio::test]
async fn problem_details_for_those_who_ask() {
    let rig = Rig::new().await;
    let headers = [("accept", "application/problem+json"), ("x-request-id", "req-1")];
    let answer = rig.send("POST", "/api/v1/jobs", &headers, r#"{"prompt":7}"#).await;
    assert_eq!(answer.status.as_u16(), 400);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("x-request-id"), "req-1");
    let problem = answer.json();
    assert_eq!(problem["code"], "invalid_json");
    assert_eq!(problem["field"], "prompt");
    assert_eq!(problem["request_id"], "req-1");
    assert!(problem["detail"].as_str().unwrap().contains("line 1"), "{problem}");

    let answer = rig.send("POST", "/api/v1/jobs", &headers, r#"{"prompt":""}"#).await;
    assert_eq!(answer.json()["field"], "prompt");
    let answer = rig.send("GET", "/nowhere", &headers, Body::empty()).await;
    assert_eq!(answer.json()["code"], "no_route");
}

#[tokio::test]
async fn bodies_are_limited() {
    let rig = Rig::new().await;
    let limit = 2 * 1024 * 1024;
    let answer = rig.post("/api/v1/jobs", &" ".repeat(limit + 1)).await;
    assert_eq!(
        answer.brief(),
        (413, "request body too large: the limit is 2097152 bytes")
    );
    let prefix = r#"{"prompt":"x","context":""#;
    let body = format!("{prefix}{}\"}}", "a".repeat(limit - prefix.len() - 2));
    assert_eq!(body.len(), limit);
    assert_eq!(rig.post("/api/v1/jobs", &body).await.status.as_u16(), 200);
    // In pieces, without a length in advance.
    let pieces = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024])));
    let answer = rig.send("POST", "/api/v1/jobs", &[], Body::from_stream(pieces)).await;
    assert_eq!(answer.status.as_u16(), 413);
}

#[tokio::test]
async fn readiness_turns_when_draining() {
    let rig = Rig::new().await;
    let answer = rig.get("/ready").await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    for check in ["bus", "policy", "store"] {
        assert_eq!(answer.json()["checks"][check]["ok"], true, "{check}");
    }
    rig.draining.cancel();
    let answer = rig.get("/ready").await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(answer.json()["checks"]["process"]["detail"], "stopping");
    assert_eq!(rig.get("/health").await.status.as_u16(), 200);
}

#[tokio::test]
async fn status_has_what_clients_read() {
    let rig = Rig::new().await;
    let status = rig.get("/api/v1/status").await.json();
    assert_eq!(status["nats"]["connected"], true);
    assert_eq!(status["nats"]["status"], "CONNECTED");
    assert_eq!(status["redis"]["ok"], true);
    assert_eq!(status["workers"]["count"], 0);
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(rig.get("/api/v1/workers").await.text, "[]\n");
}
