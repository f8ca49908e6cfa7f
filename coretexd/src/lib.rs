//! The coretexOS daemon as a library: settings, roles, and the HTTP gateway.

pub mod bench;
pub mod demo;
pub mod env_vars;
pub mod gateway;
pub mod logging;
pub mod metrics;
mod policy_fetch;
pub mod roles;
pub mod settings;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use clap::ValueEnum as _;
use coretex_core::error::chain;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{error, info, warn};

use crate::gateway::{Gateway, Server};
use crate::roles::{Connected, Documents};
use crate::settings::{Backend, Role, Settings, Span};

/// Why the daemon did not run, or did not stop well. Each has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The settings, or a file they name, are not as they must be.
    #[error(transparent)]
    Settings(#[from] settings::Invalid),
    /// A port is taken, or an address is none of this machine's.
    #[error("cannot listen on {addr} ({what}): {reason}")]
    Bind {
        /// For what.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// A server was not reached in time.
    #[error("{server} at {url} was not reached within {within}: {reason}")]
    Connect {
        /// Which.
        server: &'static str,
        /// Where, without credentials.
        url: String,
        /// In which time.
        within: Span,
        /// What happened last.
        reason: String,
    },
    /// Something else went wrong at start.
    #[error("{0}")]
    Start(String),
    /// The grace period was over before all work was finished. Nothing that was acknowledged is lost.
    #[error("stopped before all work was finished; what is left is taken up at the next start")]
    Drain,
}

impl Failure {
    fn connect(server: &'static str, url: &str, within: &Span, error: &dyn std::error::Error) -> Self {
        Self::Connect {
            server,
            url: url.to_owned(),
            within: *within,
            reason: chain(error),
        }
    }

    /// What the process exits with: 1 otherwise, 3 settings, 4 port, 5 server not reached, 6 not drained. 2 is a wrong
    /// command line.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Start(_) => 1,
            Self::Settings(_) => 3,
            Self::Bind { .. } => 4,
            Self::Connect { .. } => 5,
            Self::Drain => 6,
        })
    }
}

async fn listen(what: &'static str, addr: SocketAddr) -> Result<TcpListener, Failure> {
    gateway::bind(addr).await.map_err(|error| Failure::Bind {
        what,
        addr,
        reason: error.to_string(),
    })
}

fn address(listener: &TcpListener, fallback: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(fallback)
}

/// Metrics and health, from the first moment on: `/ready` says no until the gateway is there.
fn operator_routes(gateway: &Arc<OnceLock<Gateway>>) -> Router {
    let ready = Arc::clone(gateway);
    metrics::router()
        .route("/health", get(|| async { "ok" }))
        .route(
            "/ready",
            get(move |request: axum::extract::Request| async move {
                match ready.get() {
                    Some(gateway) => match gateway.health_router().oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    },
                    None => starting(),
                }
            }),
        )
        // The metrics port has always had this one path; the rest is 404.
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
}

fn starting() -> Response {
    let body = "{\"checks\":{\"process\":{\"ok\":false,\"detail\":\"starting\"}},\"ready\":false}\n";
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        body,
    )
        .into_response()
}

/// Runs the daemon until `stop` is cancelled, then drains it.
///
/// Ports are taken first, so that a wrong one fails before anything else happens.
///
/// # Errors
/// [`Failure`] says what did not work.
pub async fn run(settings: &Settings, stop: CancellationToken) -> Result<(), Failure> {
    let begun = Instant::now();
    if metrics::init().is_none() {
        warn!("metrics are collected elsewhere");
    }
    let operator_port = listen("metrics", settings.http.metrics_addr).await?;
    let engine_port = match settings.workflows.addr {
        Some(addr) => Some(listen("health of the workflow engine", addr).await?),
        None => None,
    };
    let http_port = if settings.has(Role::Gateway) {
        Some(listen("HTTP", settings.http.addr).await?)
    } else {
        None
    };
    let kernel_port = match &settings.kernel.serve {
        Some(serve) => Some((serve, listen("gRPC of the safety kernel", serve.addr).await?)),
        None => None,
    };
    let kernel_addr = kernel_port.as_ref().map(|(serve, port)| address(port, serve.addr));
    let metrics_addr = address(&operator_port, settings.http.metrics_addr);
    let http_addr = http_port.as_ref().map(|port| address(port, settings.http.addr));

    let documents = Documents::load(settings).await?;

    // What outlives the drain: operators watch it until the end.
    let operators = TaskTracker::new();
    let end = CancellationToken::new();
    let ready_gateway = Arc::new(OnceLock::new());
    operators.spawn(Server::new(operator_port, operator_routes(&ready_gateway)).run(end.clone()));
    if let Some(port) = engine_port {
        operators.spawn(Server::new(port, operator_routes(&ready_gateway)).run(end.clone()));
    }
    operators.spawn(upkeep(end.clone()));

    let connected = tokio::select! {
        connected = Connected::open(settings) => connected?,
        () = stop.cancelled() => return Ok(()),
    };
    let platform = roles::start(settings, documents, &connected)
        .await
        .map_err(|error| Failure::Start(chain(&error)))?;
    let services = roles::services(settings, &platform, connected.mode)?;
    let kernel_server = match kernel_port {
        Some((serve, port)) => Some(roles::kernel_server(serve, Arc::clone(&platform.kernel), port)?),
        None => None,
    };
    let draining = CancellationToken::new();
    let gateway = Gateway::new(services, &settings.http, draining.clone());
    let echo = if settings.echo_worker {
        Some(echo_worker(&platform).await?)
    } else {
        None
    };

    let http = TaskTracker::new();
    let closing = CancellationToken::new();
    if let Some(port) = http_port {
        http.spawn(Server::new(port, gateway.router()).run(closing.clone()));
    }
    if let Some(server) = kernel_server {
        let closing = closing.clone();
        http.spawn(async move {
            if let Err(error) = server.run(closing).await {
                error!(error = %chain(&error), "the safety kernel is not served any more");
            }
        });
    }
    http.close();
    drop(ready_gateway.set(gateway.clone()));
    announce(settings, http_addr, kernel_addr, metrics_addr, begun);

    stop.cancelled().await;

    info!(within = %settings.shutdown_timeout, "stopping");
    let deadline = Instant::now() + settings.shutdown_timeout.0;
    // Balancers see "not ready" first; then no new requests, the old ones answered, then workers, scheduler, bus, store.
    draining.cancel();
    closing.cancel();
    let mut finished = timeout_at(deadline, async {
        http.wait().await;
        gateway.finish_writes().await;
    })
    .await
    .is_ok();
    if let Some(mut worker) = echo {
        match timeout_at(deadline, worker.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = %chain(&error), "the echo worker did not stop well"),
            Err(_) => finished = false,
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    finished &= platform.shutdown(left.max(Duration::from_millis(100))).await;
    if let Some(database) = &connected.database {
        database.close().await;
    }
    end.cancel();
    operators.close();
    finished &= timeout_at(deadline + Duration::from_secs(1), operators.wait())
        .await
        .is_ok();
    if finished {
        info!("stopped");
        Ok(())
    } else {
        error!("stopped before all work was finished");
        Err(Failure::Drain)
    }
}

async fn upkeep(stop: CancellationToken) {
    let mut ticks = interval(Duration::from_secs(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => metrics::upkeep(),
        }
    }
}

/// A worker that answers each job with its input.
async fn echo_worker(platform: &coretex_core::platform::Platform) -> Result<coretex_sdk::Running, Failure> {
    coretex_sdk::Worker::builder()
        .id("echo")
        .pool("default")
        .max_parallel_jobs(64)
        .bus(Arc::clone(&platform.bus))
        .payloads(Arc::clone(&platform.stores.payloads))
        .handle_bytes("job.default", |_context, input| async move { Ok(input) })
        .start()
        .await
        .map_err(|error| Failure::Start(chain(&error)))
}

fn announce(
    settings: &Settings,
    http: Option<SocketAddr>,
    kernel: Option<SocketAddr>,
    metrics: SocketAddr,
    begun: Instant,
) {
    if settings.http.api_key.is_none() && settings.http.keys.is_empty() && http.is_some() {
        if settings.http.insecure_open {
            warn!("no API key is set: everybody who can reach the port can do everything");
        } else {
            warn!("no API key is set: serving only this machine; set CORETEX_API_KEY to serve others");
        }
    }
    let state = match &settings.backend {
        Backend::Embedded { data_dir } => format!("embedded ({data_dir})"),
        Backend::Distributed { nats_url, redis_url } => format!("{nats_url} and {redis_url}"),
    };
    let roles: Vec<String> = settings
        .roles
        .iter()
        .filter_map(|role| role.to_possible_value().map(|role| role.get_name().to_owned()))
        .collect();
    info!(
        http = http.map(|addr| format!("http://{addr}")),
        kernel = kernel.map(|addr| addr.to_string()),
        metrics = format!("http://{metrics}/metrics"),
        state,
        roles = roles.join(","),
        took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
}
