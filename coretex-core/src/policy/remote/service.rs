//! The kernel as a gRPC service. See `docs/spec/policy.md` §14.1.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{MAX_MESSAGE_BYTES, refusal, tls};
use crate::error::chain;
use crate::metrics::KERNEL_SERVED;
use crate::policy::{ExplainError, Kernel, Unavailable};
use crate::protocol::agent::safety_kernel_server::{SafetyKernel, SafetyKernelServer};
use crate::protocol::agent::{ListSnapshotsRequest, ListSnapshotsResponse, PolicyCheckRequest, PolicyCheckResponse};
use crate::time::Clock;

/// The service, for clients and for health checks.
pub const SERVICE_NAME: &str = "coretex.agent.v1.SafetyKernel";

/// The protocol buffers of the service, for clients that have none.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/safety_kernel.bin"));

/// How often health follows the kernel.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// How long calls that were begun may take once it stops. Health watchers have to be left behind.
const GRACE: Duration = Duration::from_secs(2);

/// How many calls one connection may have open.
const MAX_STREAMS: u32 = 1_024;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TLS, or the sockets.
    #[error("gRPC cannot be served")]
    Transport(#[from] tonic::transport::Error),
    /// The description of the service; never for what is built here.
    #[error("gRPC reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The service alone, for a server of your own.
pub fn service(kernel: Arc<dyn Kernel>) -> SafetyKernelServer<impl SafetyKernel> {
    SafetyKernelServer::new(Service {
        kernel,
        clock: Clock::system(),
    })
    .max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// Serves one kernel on one port, with its health and its description.
#[derive(Debug)]
pub struct KernelServer {
    kernel: Arc<dyn Kernel>,
    listener: TcpListener,
    reporter: HealthReporter,
    router: Router,
}

impl KernelServer {
    /// Serves `kernel` on a bound port, over TLS if there is somebody to be.
    ///
    /// # Errors
    /// [`ServeError`] if it cannot.
    pub fn new(
        kernel: Arc<dyn Kernel>,
        listener: TcpListener,
        identity: Option<&tls::ServerIdentity>,
    ) -> Result<Self, ServeError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)));
        if let Some(identity) = identity {
            let tls = ServerTlsConfig::new().identity(identity.identity()).timeout(HANDSHAKE);
            server = server.tls_config(tls)?;
        }
        let router = server
            .add_service(health)
            .add_service(describe().build_v1()?)
            .add_service(describe().build_v1alpha()?)
            .add_service(service(Arc::clone(&kernel)));
        Ok(Self {
            kernel,
            listener,
            reporter,
            router,
        })
    }

    /// Serves until `stop`, then finishes the calls that were begun.
    ///
    /// # Errors
    /// [`ServeError`] if the port is lost.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        report(&self.reporter, ServingStatus::NotServing).await;
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let serving = self
            .router
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::select! {
            served = serving => Ok(served?),
            () = follow(self.kernel, self.reporter, &stop) => Ok(()),
        }
    }
}

/// Keeps health in step with the kernel; ends when the grace period after `stop` is over.
async fn follow(kernel: Arc<dyn Kernel>, reporter: HealthReporter, stop: &CancellationToken) {
    let mut ticks = interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let ready = kernel.status().await.is_ready();
        if ready != before {
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            report(&reporter, status).await;
            before = ready;
        }
    }
    report(&reporter, ServingStatus::NotServing).await;
    sleep(GRACE).await;
}

/// Of the service, and of the whole.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in [SERVICE_NAME, ""] {
        reporter.set_service_status(name, status).await;
    }
}

type Answer = Result<Response<PolicyCheckResponse>, Status>;

#[derive(Debug)]
struct Service {
    kernel: Arc<dyn Kernel>,
    clock: Clock,
}

impl Service {
    async fn judged(&self, method: &'static str, request: &PolicyCheckRequest) -> Answer {
        let judged = self.kernel.check(request, self.clock.now()).await;
        let answer = judged
            .map(|record| PolicyCheckResponse::from(&record))
            .map_err(|error| unavailable(&error));
        count(method, answer)
    }

    async fn explained(&self, method: &'static str, mut request: PolicyCheckRequest) -> Answer {
        let drafts = std::mem::take(&mut request.drafts);
        let answer = match self.kernel.explain(&request, &drafts, self.clock.now()).await {
            Ok((record, explanation)) => match serde_json::to_string(&explanation) {
                Ok(explanation) => Ok(PolicyCheckResponse {
                    explanation,
                    ..PolicyCheckResponse::from(&record)
                }),
                Err(error) => Err(Status::internal(error.to_string())),
            },
            Err(ExplainError::Unavailable(error)) => Err(unavailable(&error)),
            Err(ExplainError::Draft(error)) => Err(refusal::status(&error)),
        };
        count(method, answer)
    }
}

fn unavailable(error: &Unavailable) -> Status {
    Status::unavailable(chain(error))
}

fn count<T>(method: &'static str, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    counter!(KERNEL_SERVED, "method" => method, "code" => format!("{code:?}")).increment(1);
    answer.map(Response::new)
}

#[tonic::async_trait]
impl SafetyKernel for Service {
    async fn check(&self, request: Request<PolicyCheckRequest>) -> Answer {
        self.judged("Check", request.get_ref()).await
    }

    async fn evaluate(&self, request: Request<PolicyCheckRequest>) -> Answer {
        self.judged("Evaluate", request.get_ref()).await
    }

    async fn explain(&self, request: Request<PolicyCheckRequest>) -> Answer {
        self.explained("Explain", request.into_inner()).await
    }

    async fn simulate(&self, request: Request<PolicyCheckRequest>) -> Answer {
        self.explained("Simulate", request.into_inner()).await
    }

    async fn list_snapshots(
        &self,
        _request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let answer = match self.kernel.snapshots().await {
            Ok(snapshots) => serde_json::to_string(&self.kernel.status().await)
                .map(|status| ListSnapshotsResponse { snapshots, status })
                .map_err(|error| Status::internal(error.to_string())),
            Err(error) => Err(unavailable(&error)),
        };
        count("ListSnapshots", answer)
    }
}
