//! The kernel as the scheduler and the gateway of a split deployment see it. See `docs/spec/policy.md` §14.3.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::breaker::{Breaker, Permit, Rules, Turn};
use super::{MAX_MESSAGE_BYTES, refusal, tls};
use crate::error::chain;
use crate::jobs::DecisionRecord;
use crate::metrics::{KERNEL_ASKED, KERNEL_CIRCUIT_OPEN};
use crate::policy::{Drafts, ExplainError, Explanation, Kernel, KernelStatus, SourceStatus, Unavailable, wire};
use crate::protocol::agent::safety_kernel_client::SafetyKernelClient;
use crate::protocol::agent::{ListSnapshotsRequest, ListSnapshotsResponse, PolicyCheckRequest, PolicyCheckResponse};
use crate::time::Timestamp;

/// How long a connection may take to come up: well within a call, so that the call can try another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a call is tried again, the first time; then twice as late each time.
const FIRST_RETRY: Duration = Duration::from_millis(20);

/// But never later.
const LONGEST_RETRY: Duration = Duration::from_millis(400);

/// For so long, what the kernel said of itself is taken as its present state.
const FRESH: Duration = Duration::from_secs(1);

/// How the client behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// How long one call may take, with all its tries.
    pub deadline: Duration,
    /// As many failed calls in a row stop the asking.
    pub failures: u32,
    /// For how long, the first time; then twice as long each time.
    pub first_pause: Duration,
    /// But never longer.
    pub longest_pause: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            failures: 3,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// Why an address cannot be dialled, whatever listens there.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// It is no address.
    #[error("`{target}` is not an address such as localhost:50051")]
    Address {
        /// What was given.
        target: String,
    },
    /// It asks for TLS, and there is nobody to trust.
    #[error("`{target}` asks for TLS, but no certificate authority is given")]
    NoAuthority {
        /// What was given.
        target: String,
    },
    /// It asks for plain text, and there is somebody to trust.
    #[error("`{target}` asks for plain text, but a certificate authority is given")]
    Plain {
        /// What was given.
        target: String,
    },
    /// Something in it that the transport refuses.
    #[error("`{target}` cannot be dialled")]
    Transport {
        /// What was given.
        target: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A kernel in another process. One connection, made when it is needed and again whenever it is lost.
///
/// Every failure is [`Unavailable`], never a decision.
pub struct RemoteKernel {
    target: String,
    client: SafetyKernelClient<Channel>,
    deadline: Duration,
    breaker: Mutex<Breaker>,
    seen: Mutex<Seen>,
}

/// What was heard of the kernel last.
#[derive(Debug, Default)]
struct Seen {
    listing: Option<(Instant, ListSnapshotsResponse)>,
    last_error: Option<String>,
}

/// Why a call has no answer.
enum Failure {
    /// Nobody gave one.
    Silent(Unavailable),
    /// The kernel refused the question.
    Refused(Status),
}

impl RemoteKernel {
    /// A kernel at `host:port`, over TLS if there is somebody to trust. Nothing is connected yet.
    ///
    /// # Errors
    /// [`DialError`] if that is no address.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn dial(
        target: &str,
        authorities: Option<&tls::Authorities>,
        options: &RemoteOptions,
    ) -> Result<Self, DialError> {
        let transport = |source| DialError::Transport {
            target: target.to_owned(),
            source,
        };
        let uri = uri(target, authorities.is_some())?;
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(transport)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .user_agent(concat!("coretex/", env!("CARGO_PKG_VERSION")))
            .map_err(transport)?;
        if let Some(authorities) = authorities {
            let tls = ClientTlsConfig::new().ca_certificate(authorities.certificate());
            endpoint = endpoint.tls_config(tls).map_err(transport)?;
        }
        Ok(Self {
            target: target.to_owned(),
            client: SafetyKernelClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            deadline: options.deadline,
            breaker: Mutex::new(Breaker::new(Rules {
                threshold: options.failures.max(1),
                first: options.first_pause,
                longest: options.longest_pause,
                probe: options.deadline + CONNECT_TIMEOUT,
            })),
            seen: Mutex::default(),
        })
    }

    /// Whether `target` can be dialled, with or without somebody to trust; for settings.
    ///
    /// # Errors
    /// [`DialError`] as [`dial`](Self::dial) would give.
    pub fn check_target(target: &str, trusting: bool) -> Result<(), DialError> {
        uri(target, trusting).map(drop)
    }

    /// Makes one call, again and again within the deadline while nobody answers.
    async fn ask<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: Fn(SafetyKernelClient<Channel>, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let admitted = self.breaker.lock().admit(begun);
        let permit = match admitted {
            Ok(permit) => permit,
            Err(wait) => {
                counter!(KERNEL_ASKED, "outcome" => "not_asked").increment(1);
                return Err(Failure::Silent(self.not_asked(wait)));
            }
        };
        let deadline = begun + self.deadline;
        let mut pause = FIRST_RETRY;
        let mut before = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = match timeout_at(deadline, call(self.client.clone(), left)).await {
                Ok(Ok(response)) => {
                    self.heard(permit);
                    return Ok(response.into_inner());
                }
                // It lives. That it refuses one question says nothing about the next.
                Ok(Err(status)) if !may_pass(status.code()) => {
                    self.heard(permit);
                    return Err(Failure::Refused(status));
                }
                Ok(Err(status)) => status,
                // What was heard before says more than that the time is over.
                Err(_) => before
                    .take()
                    .unwrap_or_else(|| Status::deadline_exceeded(format!("no answer within {:?}", self.deadline))),
            };
            let rest = pause.mul_f64(rand::random_range(0.5..=1.0));
            if Instant::now() + rest >= deadline {
                return Err(Failure::Silent(self.silent(permit, status)));
            }
            before = Some(status);
            sleep(rest).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    fn heard(&self, permit: Permit) {
        counter!(KERNEL_ASKED, "outcome" => "answered").increment(1);
        let turn = self.breaker.lock().succeeded(permit);
        if turn == Turn::Closed {
            gauge!(KERNEL_CIRCUIT_OPEN).set(0.0);
            info!(kernel = self.target, "the safety kernel answers again");
        }
    }

    fn silent(&self, permit: Permit, status: Status) -> Unavailable {
        counter!(KERNEL_ASKED, "outcome" => "failed").increment(1);
        let why = describe(&status);
        self.seen.lock().last_error = Some(why.clone());
        let (turn, probing) = {
            let mut breaker = self.breaker.lock();
            let probing = !breaker.is_closed();
            (breaker.failed(permit, Instant::now(), rand::random()), probing)
        };
        if turn == Turn::Opened {
            gauge!(KERNEL_CIRCUIT_OPEN).set(1.0);
            // One line for an outage, not one for each probe.
            if !probing {
                warn!(
                    kernel = self.target,
                    error = why,
                    "the safety kernel does not answer; jobs wait"
                );
            }
        }
        Unavailable {
            what: format!("safety kernel at {}: {why}", self.target),
            source: Some(Box::new(status)),
        }
    }

    fn not_asked(&self, wait: Duration) -> Unavailable {
        let why = self.seen.lock().last_error.clone().unwrap_or_default();
        Unavailable {
            what: format!(
                "safety kernel at {} does not answer, next try in {} ms: {why}",
                self.target,
                wait.as_millis()
            ),
            source: None,
        }
    }

    fn refused(&self, status: Status) -> Unavailable {
        Unavailable {
            what: format!(
                "safety kernel at {} refused the question: {}",
                self.target,
                describe(&status)
            ),
            source: Some(Box::new(status)),
        }
    }

    fn no_decision(&self, error: wire::UnknownDecision) -> Unavailable {
        Unavailable {
            what: format!("safety kernel at {}: {error}", self.target),
            source: Some(Box::new(error)),
        }
    }

    /// What the kernel says of itself, a moment ago at most.
    async fn listing(&self) -> Result<ListSnapshotsResponse, Unavailable> {
        if let Some((at, listing)) = &self.seen.lock().listing
            && at.elapsed() < FRESH
        {
            return Ok(listing.clone());
        }
        let asked = self
            .ask(|mut client, left| async move { client.list_snapshots(within(ListSnapshotsRequest {}, left)).await })
            .await;
        let listing = match asked {
            Ok(listing) => listing,
            Err(Failure::Silent(error)) => return Err(error),
            Err(Failure::Refused(status)) => return Err(self.refused(status)),
        };
        let mut seen = self.seen.lock();
        seen.listing = Some((Instant::now(), listing.clone()));
        seen.last_error = None;
        Ok(listing)
    }
}

impl fmt::Debug for RemoteKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKernel")
            .field("target", &self.target)
            .field("breaker", &*self.breaker.lock())
            .finish_non_exhaustive()
    }
}

/// `host:port`, also as Go's gRPC spells it, as a URI.
fn uri(target: &str, trusting: bool) -> Result<String, DialError> {
    let text = target.trim();
    let host = match text.split_once("://") {
        Some(("http", _)) if trusting => {
            return Err(DialError::Plain {
                target: text.to_owned(),
            });
        }
        Some(("https", _)) if !trusting => {
            return Err(DialError::NoAuthority {
                target: text.to_owned(),
            });
        }
        Some(("http" | "https", host)) => host,
        Some(("dns" | "passthrough", host)) => host.trim_start_matches('/'),
        Some(_) => "",
        None => text,
    };
    let good = host
        .rsplit_once(':')
        .is_some_and(|(name, port)| port.parse::<u16>().is_ok() && !name.contains(['/', '@', '?', '#', ' ']));
    if !good {
        return Err(DialError::Address {
            target: text.to_owned(),
        });
    }
    let scheme = if trusting { "https" } else { "http" };
    let local = if host.starts_with(':') { "localhost" } else { "" };
    Ok(format!("{scheme}://{local}{host}"))
}

/// Whether the same question may be answered if it is asked again. None of them changes anything, so asking twice is safe.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted | Code::Internal | Code::DeadlineExceeded
    )
}

fn within<T>(message: T, left: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}

/// What happened, without the transport's words around it.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text = format!("{:?}", status.code());
    }
    if let Some(source) = std::error::Error::source(status) {
        let cause = chain(source);
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[async_trait]
impl Kernel for RemoteKernel {
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable> {
        let asked = self
            .ask(|mut client, left| {
                let question = within(request.clone(), left);
                async move { client.check(question).await }
            })
            .await;
        match asked {
            Ok(answer) => wire::decision(answer, now).map_err(|error| self.no_decision(error)),
            Err(Failure::Silent(error)) => Err(error),
            Err(Failure::Refused(status)) => Err(self.refused(status)),
        }
    }

    async fn snapshots(&self) -> Result<Vec<String>, Unavailable> {
        Ok(self.listing().await?.snapshots)
    }

    async fn explain(
        &self,
        request: &PolicyCheckRequest,
        drafts: &Drafts,
        now: Timestamp,
    ) -> Result<(DecisionRecord, Explanation), ExplainError> {
        let question = PolicyCheckRequest {
            drafts: drafts.clone(),
            ..request.clone()
        };
        let asked = self
            .ask(|mut client, left| {
                let question = within(question.clone(), left);
                async move { client.explain(question).await }
            })
            .await;
        let mut answer: PolicyCheckResponse = match asked {
            Ok(answer) => answer,
            Err(Failure::Silent(error)) => return Err(error.into()),
            Err(Failure::Refused(status)) => {
                return Err(match refusal::refused(&status) {
                    Some(refused) => ExplainError::Draft(refused),
                    None => self.refused(status).into(),
                });
            }
        };
        let explanation = std::mem::take(&mut answer.explanation);
        let explanation = if explanation.is_empty() && drafts.is_empty() {
            // A kernel that does not explain.
            Explanation::default()
        } else {
            serde_json::from_str(&explanation).map_err(|error| Unavailable {
                what: format!("safety kernel at {} does not explain", self.target),
                source: Some(Box::new(error)),
            })?
        };
        let record = wire::decision(answer, now).map_err(|error| self.no_decision(error))?;
        Ok((record, explanation))
    }

    async fn status(&self) -> KernelStatus {
        let asked = self.listing().await;
        let seen = self.seen.lock().listing.clone();
        let age = seen.as_ref().map(|(at, _)| at.elapsed());
        let mut status = seen.map_or_else(KernelStatus::default, |(_, listing)| told(listing));
        let mut detail = match age {
            Some(age) => format!("heard {} ms ago", age.as_millis()),
            None => "never heard".to_owned(),
        };
        let ok = asked.is_ok();
        if let Err(error) = asked {
            detail = format!("{detail}; {error}");
            status.last_error = Some(error.to_string());
        }
        status.sources.insert(
            0,
            SourceStatus {
                name: format!("kernel at {}", self.target),
                ok,
                detail,
            },
        );
        status
    }
}

/// What a kernel says of itself. One that says nothing has decisions all the same.
fn told(listing: ListSnapshotsResponse) -> KernelStatus {
    serde_json::from_str(&listing.status).unwrap_or_else(|_| KernelStatus {
        snapshot: Some(listing.snapshots.into_iter().next().unwrap_or_default()),
        ..KernelStatus::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (target, trusting, expected) in [
            ("localhost:50051", false, "http://localhost:50051"),
            (" localhost:50051 ", true, "https://localhost:50051"),
            (":50051", false, "http://localhost:50051"),
            ("127.0.0.1:1", false, "http://127.0.0.1:1"),
            ("[::1]:50051", true, "https://[::1]:50051"),
            ("dns:///kernel:50051", false, "http://kernel:50051"),
            ("passthrough:///kernel:50051", false, "http://kernel:50051"),
            ("http://kernel:50051", false, "http://kernel:50051"),
            ("https://kernel:50051", true, "https://kernel:50051"),
        ] {
            assert_eq!(uri(target, trusting).expect(target), expected);
        }
        for (target, trusting) in [
            ("", false),
            ("kernel", false),
            ("kernel:", false),
            ("kernel:99999", false),
            ("kernel:50051/path", false),
            ("user@kernel:50051", false),
            ("unix:///run/kernel", false),
            ("https://kernel:50051", false),
            ("http://kernel:50051", true),
        ] {
            assert!(uri(target, trusting).is_err(), "{target}");
        }
    }

    #[test]
    fn a_kernel_without_a_status_is_known_by_its_snapshots() {
        let listing = |snapshots: &[&str]| ListSnapshotsResponse {
            snapshots: snapshots.iter().map(|&id| id.to_owned()).collect(),
            status: String::new(),
        };
        let status = told(listing(&["b", "a"]));
        assert_eq!(status.snapshot.as_deref(), Some("b"));
        assert!(status.is_ready());
        assert!(told(listing(&[])).is_ready());
    }
}
