//! docs/spec/policy.md §8.2.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

async fn policy(headers: HeaderMap) -> impl IntoResponse {
    assert!(headers.get(header::AUTHORIZATION).is_none());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"one\"");
    let status = if known {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    };
    (status, [(header::ETAG, "\"one\"")], "version: v1\n")
}

/// A server, and its address.
async fn serve(servers: &mut JoinSet<std::io::Result<()>>) -> String {
    let router = Router::new()
        .route("/policy.yaml", get(policy))
        .route("/moved", get(|| async { Redirect::temporary("/policy.yaml") }))
        .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/unasked", get(|| async { StatusCode::NOT_MODIFIED }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router.into_make_service();
    servers.spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn bodies_tags_and_refusals() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut servers = JoinSet::new();
    let server = serve(&mut servers).await;
    let client = HttpFetch::new().unwrap();
    let body = Fetched::Body {
        bytes: b"version: v1\n".to_vec(),
        etag: Some("\"one\"".to_owned()),
    };
    for path in ["policy.yaml", "moved"] {
        let url = format!("{server}/{path}");
        assert_eq!(client.fetch(&url, None, 100).await.unwrap(), body);
        assert_eq!(client.fetch(&url, Some("\"two\""), 12).await.unwrap(), body);
        assert_eq!(
            client.fetch(&url, Some("\"one\""), 100).await.unwrap(),
            Fetched::Unchanged
        );
        let error = client.fetch(&url, None, 11).await.unwrap_err();
        assert_eq!(error.to_string(), "policy fetch: more than 11 bytes");
    }
    for (path, status) in [("broken", 502), ("missing", 404), ("unasked", 304)] {
        let error = client.fetch(&format!("{server}/{path}"), None, 100).await.unwrap_err();
        assert_eq!(error.to_string(), format!("policy fetch status {status}"));
    }

    servers.shutdown().await;
    let error = client
        .fetch(
            &format!("{}/x?token=secret", server.replace("//", "//u:secret@")),
            None,
            9,
        )
        .await
        .unwrap_err();
    let text = coretex_core::error::chain(&error);
    assert!(
        text.starts_with("policy fetch failed: ") && !text.contains("secret"),
        "{text}"
    );
}
