//! The HTTP gateway: parses, calls one method of a service, renders. See `docs/spec/http.md`.

mod approvals;
mod audit;
mod auth;
mod body;
mod config;
mod cors;
mod decisions;
mod edge;
mod error;
mod health;
mod jobs;
mod json;
mod memory;
mod pauses;
mod percent;
mod policy;
mod query;
mod rate;
mod record;
mod runs;
mod server;
mod status;
mod stream;
mod traces;
mod workers;
mod workflows;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{any, get, post};
use coretex_core::approvals::Approvals;
use coretex_core::audit::{AuditLog, AuditRecord};
use coretex_core::backend::Stores;
use coretex_core::bus::Bus;
use coretex_core::config::ConfigService;
use coretex_core::error::chain;
use coretex_core::jobs::service::JobService;
use coretex_core::platform::Platform;
use coretex_core::policy::bundles::Bundles;
use coretex_core::policy::{Checks, Kernel};
use coretex_core::protocol::TenantId;
use coretex_core::time::Clock;
use coretex_core::workers::Registry;
use coretex_core::workflow::service::Workflows;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

pub use error::ApiError;
pub use server::{Server, bind};

use crate::settings::{HttpSettings, Origins};

/// How many requests are worked on at once. More are told to come back.
const MAX_IN_FLIGHT: usize = 4_096;

/// What the gateway serves: cheap handles to what lives elsewhere.
#[derive(Debug, Clone)]
pub struct Services {
    /// Jobs.
    pub jobs: JobService,
    /// Approvals.
    pub approvals: Approvals,
    /// The audit log.
    pub audit: AuditLog,
    /// Configuration documents.
    pub config: ConfigService,
    /// Policy in pieces.
    pub bundles: Bundles,
    /// What policy would say.
    pub checks: Checks,
    /// Workflows.
    pub workflows: Workflows,
    /// Whose things are that do not say it.
    pub default_tenant: TenantId,
    /// Where everything is kept.
    pub stores: Stores,
    /// How packets travel.
    pub bus: Arc<dyn Bus>,
    /// Who is alive.
    pub workers: Registry,
    /// Who decides.
    pub kernel: Arc<dyn Kernel>,
    /// Wall time.
    pub clock: Clock,
    /// `embedded` or `distributed`, for people.
    pub mode: &'static str,
}

impl Services {
    /// The services of a running platform.
    pub fn new(platform: &Platform, default_tenant: TenantId, mode: &'static str) -> Self {
        let stores = platform.stores.clone();
        let config = ConfigService::new(
            Arc::clone(&stores.config),
            Arc::clone(&platform.bus),
            platform.clock.clone(),
        );
        let checks = Checks::new(
            Arc::clone(&platform.kernel),
            config.clone(),
            default_tenant.clone(),
            platform.clock.clone(),
        );
        let jobs = JobService::new(
            Arc::clone(&stores.jobs),
            Arc::clone(&stores.payloads),
            Arc::clone(&stores.dlq),
            Arc::clone(&platform.bus),
            platform.clock.clone(),
            default_tenant.clone(),
        );
        let approvals = Approvals::new(
            Arc::clone(&stores.jobs),
            jobs.clone(),
            Arc::clone(&platform.kernel),
            platform.clock.clone(),
        );
        Self {
            jobs,
            approvals,
            audit: AuditLog::new(Arc::clone(&stores.audit)),
            bundles: Bundles::new(config.clone(), platform.clock.clone()),
            checks,
            config,
            workflows: platform.workflows.clone(),
            default_tenant,
            stores,
            bus: Arc::clone(&platform.bus),
            workers: platform.registry.clone(),
            kernel: Arc::clone(&platform.kernel),
            clock: platform.clock.clone(),
            mode,
        }
    }
}

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct App {
    services: Services,
    keys: auth::Keys,
    limiter: Option<rate::RateLimiter>,
    /// On which day each key of somebody's own was seen last.
    key_days: Mutex<HashMap<auth::Credential, i64>>,
    origins: Origins,
    in_flight: Semaphore,
    /// Writes run here: a client that hangs up does not stop them half-way.
    writes: TaskTracker,
    /// Clients of the live stream.
    streams: Arc<stream::Hub>,
    draining: CancellationToken,
    started: Instant,
}

/// The gateway's routes, and what stopping it needs.
#[derive(Debug, Clone)]
pub struct Gateway {
    app: Arc<App>,
}

impl Gateway {
    /// A gateway over these services. It reports not ready once `draining` is cancelled.
    pub fn new(mut services: Services, settings: &HttpSettings, draining: CancellationToken) -> Self {
        let streams = stream::Hub::new(Arc::clone(&services.bus), draining.clone());
        services.approvals = services.approvals.with_self_approval(settings.self_approval.into());
        Self {
            app: Arc::new(App {
                services,
                keys: auth::Keys::new(settings),
                limiter: settings.rate_limit.map(rate::RateLimiter::new),
                key_days: Mutex::default(),
                origins: settings.origins.clone(),
                in_flight: Semaphore::new(MAX_IN_FLIGHT),
                writes: TaskTracker::new(),
                streams: Arc::new(streams),
                draining,
                started: Instant::now(),
            }),
        }
    }

    /// The routes of the HTTP port.
    pub fn router(&self) -> Router {
        let app = Arc::clone(&self.app);
        let routes = Router::new()
            .route("/health", get(health::live))
            .route("/ready", get(health::ready))
            .route("/api/v1/workers", get(workers::list))
            .route("/api/v1/status", get(status::get))
            .route("/api/v1/jobs", get(jobs::list).post(jobs::submit))
            .route("/api/v1/jobs/{id}", get(jobs::detail))
            .route("/api/v1/jobs/{id}/decisions", get(jobs::decisions))
            .route("/api/v1/jobs/{id}/cancel", post(jobs::cancel))
            .route("/api/v1/jobs/{id}/remediate", post(jobs::remediate))
            .route("/api/v1/decisions", get(decisions::list))
            .route("/api/v1/memory", get(memory::get))
            .route("/api/v1/traces/{id}", get(traces::get))
            .route("/api/v1/approvals", get(approvals::list))
            .route("/api/v1/approvals/{job_id}", get(approvals::show))
            .route("/api/v1/approvals/{job_id}/approve", post(approvals::approve))
            .route("/api/v1/approvals/{job_id}/reject", post(approvals::reject))
            .route("/api/v1/audit", get(audit::list))
            .route("/api/v1/audit/verify", get(audit::verify))
            .route("/api/v1/config", get(config::get).post(config::set))
            .route("/api/v1/config/effective", get(config::effective))
            .route("/api/v1/stream", any(stream::open))
            .merge(pauses::routes())
            .merge(policy::routes())
            .merge(runs::routes())
            .merge(workflows::routes())
            .fallback(edge::not_found)
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(from_fn_with_state(Arc::clone(&app), edge::edge))
            .with_state(app);
        Router::new()
            .fallback_service(routes)
            .layer(map_response(edge::sort_allow))
    }

    /// Health without metrics, for the metrics port of a process that renders its own.
    pub fn health_router(&self) -> Router {
        Router::new()
            .route("/health", get(health::live))
            .route("/ready", get(health::ready))
            .with_state(Arc::clone(&self.app))
    }

    /// Waits until every write that was begun is finished, and clients of the stream have been told.
    pub async fn finish_writes(&self) {
        self.app.streams.finish().await;
        self.app.writes.close();
        self.app.writes.wait().await;
    }
}

impl App {
    /// Writes to the audit log that a key of somebody's own is in use, and in which role: once a day, not per request.
    fn note_key_use(&self, caller: &auth::Caller) {
        const DAY_SECS: i64 = 24 * 3600;
        if !caller.verified {
            return;
        }
        let now = self.services.clock.now();
        let today = now.secs() / DAY_SECS;
        // Bounded by the number of keys in the file.
        if self.key_days.lock().insert(caller.credential, today) == Some(today) {
            return;
        }
        let record = AuditRecord::new(now, &caller.id, &caller.role, "key.use", "gateway");
        let audit = self.services.audit.clone();
        self.writes.spawn(async move {
            if let Err(error) = audit.record(&record).await {
                tracing::warn!(actor = record.actor, error = %chain(&error), "the use of a key is not in the audit log");
            }
        });
    }

    /// Runs a write to its end, whether or not the client waits for it.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        use tracing::Instrument as _;
        match self.writes.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a write did not come to its end");
                Err(ApiError::internal())
            }
        }
    }
}
