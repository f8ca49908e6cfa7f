//! Connecting, and staying connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use metrics::counter;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::BACKEND;
use super::options::{Credentials, Options, Servers};
use crate::bus::{Error, Health};
use crate::error::chain;

/// How often to ask a silent server whether it is still there; it is given up after two unanswered questions.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How many messages may wait to be written, on any connection or none.
const SEND_BUFFER: usize = 8_192;
/// How many messages may wait in one subscription before the client drops further ones.
const RECEIVE_BUFFER: usize = 65_536;

/// Connects within the time the options give.
pub(super) async fn connect(
    options: &Options,
    servers: &Servers,
    health: watch::Sender<Health>,
) -> Result<Client, Error> {
    let shown = servers.to_string();
    let connecting = client_options(options, servers, &shown, health);
    let deadline = Instant::now() + options.connect_timeout;
    let mut pause = Duration::from_millis(100);
    loop {
        // Boxed, because it is large, and would make everything large that awaits it.
        let attempt = Box::pin(connecting.clone().connect(servers.addresses.clone()));
        let source = match tokio::time::timeout_at(deadline, attempt).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => {
                let hopeless = matches!(
                    error.kind(),
                    ConnectErrorKind::ServerParse
                        | ConnectErrorKind::Authentication
                        | ConnectErrorKind::AuthorizationViolation
                        | ConnectErrorKind::Tls
                );
                if hopeless {
                    return Err(Error::Refused {
                        backend: BACKEND,
                        op: "connect",
                        subject: shown,
                        source: error.into(),
                    });
                }
                error.into()
            }
            Err(elapsed) => elapsed.into(),
        };
        let pause_with_jitter = pause.mul_f64(rand::rng().random_range(0.8..1.2));
        if Instant::now() + pause_with_jitter >= deadline {
            return Err(Error::Unavailable {
                backend: BACKEND,
                op: "connect",
                subject: shown,
                source,
            });
        }
        tracing::warn!(server = %shown, error = %chain(&*source), "NATS is not reachable yet, trying again");
        tokio::time::sleep(pause_with_jitter).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn client_options(options: &Options, servers: &Servers, shown: &str, health: watch::Sender<Health>) -> ConnectOptions {
    let connected_before = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&connected_before);
    let server = shown.to_owned();
    let slow_warning = Occasionally::default();
    let mut connecting = ConnectOptions::new()
        .name(&options.name)
        .connection_timeout(ATTEMPT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .client_capacity(SEND_BUFFER)
        .subscription_capacity(RECEIVE_BUFFER)
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempts| {
            if first.load(Ordering::Relaxed) {
                reconnect_delay(attempts)
            } else {
                // Pauses between first attempts are made by `connect`.
                Duration::ZERO
            }
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => {
                    if connected_before.swap(true, Ordering::Relaxed) {
                        counter!("coretex_bus_reconnects_total").increment(1);
                        tracing::info!(%server, "NATS is connected again");
                    }
                    health.send_replace(Health::Connected { server: server.clone() });
                }
                Event::Disconnected => {
                    tracing::warn!(%server, "NATS connection lost, reconnecting");
                    health.send_replace(Health::Reconnecting);
                }
                Event::Closed => {
                    health.send_replace(Health::Closed);
                }
                Event::SlowConsumer(subscription) => {
                    counter!("coretex_bus_dropped_total", "bus" => "nats", "reason" => "slow_consumer").increment(1);
                    if slow_warning.is_due() {
                        tracing::warn!(subscription, "a subscription is too slow, messages are dropped");
                    }
                }
                Event::ServerError(error) => {
                    counter!("coretex_bus_server_errors_total").increment(1);
                    tracing::warn!(%error, "the NATS server reports an error");
                }
                Event::ClientError(error) => tracing::debug!(%error, "the NATS client reports an error"),
                Event::LameDuckMode => tracing::info!(%server, "the NATS server is about to stop"),
                Event::Draining => {}
            }
            std::future::ready(())
        });
    connecting = match &servers.credentials {
        Credentials::None => connecting,
        Credentials::Token(token) => connecting.token(token.clone()),
        Credentials::User { name, password } => connecting.user_and_password(name.clone(), password.clone()),
    };
    if let Some(ca) = &options.tls_ca {
        connecting = connecting.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &options.tls_client {
        connecting = connecting
            .add_client_certificate(certificate.clone(), key.clone())
            .require_tls(true);
    }
    connecting
}

/// Keeps a warning that could be given for every message from being given more than every ten seconds.
#[derive(Debug, Default)]
struct Occasionally(Mutex<Option<Instant>>);

impl Occasionally {
    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(10));
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Soon at first, for the server that only restarts, then every one to two seconds, not all clients at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let millis = match attempts {
        0 | 1 => 50..150,
        2 => 250..500,
        _ => 1_000..2_000,
    };
    Duration::from_millis(rand::rng().random_range(millis))
}
