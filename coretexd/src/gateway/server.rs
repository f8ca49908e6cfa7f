//! Sockets: accept, serve within limits, and stop without breaking an answer off.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

/// How many connections are open at once. More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 8_192;
/// How long a client may take to send the head of a request, idle connections included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 1024 * 1024;
/// The pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the port.
///
/// # Errors
/// The operating system's, most often that the port is taken.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves one router on one port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Serves `router` on a bound port.
    pub fn new(listener: TcpListener, router: Router) -> Self {
        Self { listener, router }
    }

    /// Accepts until `stop` is cancelled, then lets the requests that were begun finish.
    pub async fn run(self, stop: CancellationToken) {
        let mut http = Builder::new(TokioExecutor::new()).http1_only();
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX);
        let graceful = GracefulShutdown::new();
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Answers are small: do not wait for more to send.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "TCP_NODELAY cannot be set");
            }
            let service = self.router.clone().map_request(move |request: axum::http::Request<_>| {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                request
            });
            let connection =
                http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
            let connection = graceful.watch(connection.into_owned());
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%peer, error, "a connection ended early");
                }
                drop(permit);
            });
        }
        drop(self.listener);
        connections.close();
        graceful.shutdown().await;
        connections.wait().await;
    }
}
