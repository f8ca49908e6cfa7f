//! What happens to every request before and after its handler. See `docs/spec/http.md` §4; the order is behaviour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span};

use super::App;
use super::auth::Credential;
use super::error::{ApiError, into_problem, wants_problem};
use super::rate::Client;
use super::{cors, percent};

/// How long a client waits for an answer at most. What was begun is finished all the same.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request in logs and answers, then lets it through the gates.
pub(super) async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    let problem = wants_problem(request.headers());
    let span = info_span!(
        "request",
        request_id,
        method = %request.method(),
        path = request.uri().path(),
    );
    let mut response = gates(&app, request, next).instrument(span).await;
    if problem {
        response = into_problem(response, &request_id);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The client's own id for the request, if it is short and printable; else a new one.
fn request_id(request: &Request) -> String {
    request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= 128)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

async fn gates(app: &App, request: Request, next: Next) -> Response {
    // Origins first, so that a refused page learns nothing else, and so that every other answer is readable to a page.
    let origin = match cors::check(&app.origins, request.headers()) {
        Ok(origin) => origin,
        Err(cors::Refused) => {
            return ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", "origin not allowed").into_response();
        }
    };
    let mut response = if request.method() == Method::OPTIONS {
        // A preflight carries no key.
        StatusCode::NO_CONTENT.into_response()
    } else {
        inner(app, request, next).await
    };
    cors::apply(response.headers_mut(), origin);
    response
}

async fn inner(app: &App, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !percent::well_formed(path) {
        return ApiError::new(StatusCode::BAD_REQUEST, "malformed_path", "400 Bad Request").into_response();
    }
    // Too many at once: say so at once, before any work. Health stays reachable, it is not under `/api/`.
    let api = path.starts_with("/api/");
    let permit = app.in_flight.try_acquire();
    if api && permit.is_err() {
        metrics::counter!("coretex_api_gateway_shed_total").increment(1);
        return ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests at once",
        )
        .retry_after(1)
        .into_response();
    }
    let caller = app.keys.identify(request.headers());
    if api && caller.is_none() {
        return ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "unauthorized").into_response();
    }
    if let Some(caller) = &caller
        && api
        && !caller.may(request.method(), request.uri().path())
    {
        return ApiError::new(StatusCode::FORBIDDEN, "role_required", "forbidden")
            .detail("this key may only read: writing needs role operator, secops or admin")
            .into_response();
    }
    // After the key, so that strangers cannot spend the tokens of those who hold it.
    if api && let Some(limiter) = &app.limiter {
        let client = match caller.as_ref().map(|caller| caller.credential) {
            None | Some(Credential::None) => {
                let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
                Client::Peer(peer.map(|ConnectInfo(address)| address.ip()))
            }
            Some(credential) => Client::Key(credential),
        };
        if let Err(wait) = limiter.take(client) {
            return ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "rate limited")
                .retry_after(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
                .into_response();
        }
    }
    if let Some(caller) = caller {
        if api {
            app.note_key_use(&caller);
        }
        request.extensions_mut().insert(caller);
    }
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let started = Instant::now();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long")
            .retry_after(1)
            .into_response(),
    };
    drop(permit);
    match route {
        // The router's own refusal; a handler's has its words already.
        Some(route)
            if response.status() == StatusCode::METHOD_NOT_ALLOWED
                && response.extensions().get::<ApiError>().is_none() =>
        {
            debug!(route = route.as_str(), "method not allowed");
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method Not Allowed",
            )
            .into_response()
        }
        Some(route) => {
            // A stream is recorded when it ends.
            if api && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status();
                record(method.as_str(), route.as_str(), status.as_str(), started.elapsed());
            }
            response
        }
        None => response,
    }
}

/// docs/spec/http.md §9. Both names are fixed by existing dashboards.
pub(super) fn record(method: &str, route: &str, status: &str, took: Duration) {
    let labels = [("method", method.to_owned()), ("route", route.to_owned())];
    metrics::histogram!("coretex_api_gateway_http_request_duration_seconds", &labels).record(took.as_secs_f64());
    let [method, route] = labels;
    let labels = [method, route, ("status", status.to_owned())];
    metrics::counter!("coretex_api_gateway_http_requests_total", &labels).increment(1);
}

/// Sorts the list of methods of a 405, which the router writes after every layer has run.
pub(super) async fn sort_allow(mut response: Response) -> Response {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(allow) = response.headers().get(ALLOW).and_then(|value| value.to_str().ok())
    {
        let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
        methods.sort_unstable();
        if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(ALLOW, value);
        }
    }
    response
}

/// What is answered where no route is: the way to the clean path if there is one, else 404.
pub(super) async fn not_found(request: Request) -> Response {
    if let Some(clean) = percent::cleaned(request.uri().path()) {
        let query = request
            .uri()
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        if let Ok(location) = HeaderValue::from_str(&format!("{clean}{query}")) {
            let mut response = Response::new(Body::empty());
            // 307 keeps method and body, which 301 does not.
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(axum::http::header::LOCATION, location);
            return response;
        }
    }
    ApiError::new(StatusCode::NOT_FOUND, "no_route", "404 page not found").into_response()
}
