//! Metrics for Prometheus. See `docs/spec/http.md` §9.

use std::sync::OnceLock;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The buckets of every histogram that measures seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Collects metrics from now on. `None` if another recorder is there already.
pub fn init() -> Option<&'static PrometheusHandle> {
    if let Some(handle) = HANDLE.get() {
        return Some(handle);
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .ok()?
        .install_recorder()
        .ok()?;
    metrics::describe_counter!(
        "coretex_api_gateway_http_requests_total",
        "Requests answered, by route."
    );
    metrics::describe_histogram!(
        "coretex_api_gateway_http_request_duration_seconds",
        "Time from reading a request to its answer, by route."
    );
    metrics::describe_counter!(
        "coretex_api_gateway_publish_failures_total",
        "Messages that the bus did not take; what they were about is stored."
    );
    metrics::describe_counter!(
        "coretex_api_gateway_shed_total",
        "Requests refused because too many were in work."
    );
    Some(HANDLE.get_or_init(|| handle))
}

/// `/metrics`, for the metrics port.
pub fn router() -> Router {
    Router::new().route(
        "/metrics",
        get(|| async {
            process();
            let text = HANDLE.get().map(PrometheusHandle::render).unwrap_or_default();
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
        }),
    )
}

/// Folds what was recorded into the histograms, so that memory stays bounded between scrapes.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// What every process exports, where the system tells.
fn process() {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
        return;
    };
    let mut pages = statm.split_whitespace().filter_map(|field| field.parse::<u32>().ok());
    if let (Some(size), Some(resident)) = (pages.next(), pages.next()) {
        metrics::gauge!("process_virtual_memory_bytes").set(f64::from(size) * 4096.0);
        metrics::gauge!("process_resident_memory_bytes").set(f64::from(resident) * 4096.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(f64::from(u32::try_from(open.count()).unwrap_or(u32::MAX)));
    }
}
