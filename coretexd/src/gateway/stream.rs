//! The live stream: what happens on the bus, over a `WebSocket`. See `docs/spec/http.md` §17.

mod frame;
mod hub;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::header::SEC_WEBSOCKET_VERSION;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use coretex_core::error::chain;
use futures::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::frame::Filter;
pub(super) use self::hub::Hub;
use self::hub::{Refused, Seat};
use super::App;
use super::auth::SUBPROTOCOL;
use super::error::ApiError;
use super::query::Query;

/// How often a client is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a client may say nothing at all: it has missed two pings then.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to accept one frame.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// The largest message that a client may send, in bytes. None of them is read.
const INBOUND_MAX: usize = 64 * 1024;

/// `GET /api/v1/stream`. Other methods come here as well, to be told so in the words that clients know.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => return not_an_upgrade(&method, &why),
    };
    let filter = match Filter::try_new(query.text("subjects"), query.text("run_id")) {
        Ok(filter) => filter,
        Err(bad) => {
            return ApiError::invalid(
                "subjects",
                format!("`{bad}` is no subject: tokens with dots, `*` or a final `>`"),
            )
            .into_response();
        }
    };
    // Before the answer: a client sees all that happens after it.
    let seat = match app.streams.join(filter).await {
        Ok(seat) => seat,
        Err(refused) => return refused.into_response(),
    };
    let upgrade = upgrade
        .max_message_size(INBOUND_MAX)
        .max_frame_size(INBOUND_MAX)
        .on_failed_upgrade(|error| debug!(%error, "a client of the stream left before it began"));
    // Echoed only in the spelling that clients compare with.
    let upgrade = if offers_subprotocol(&headers) {
        upgrade.protocols([SUBPROTOCOL])
    } else {
        upgrade
    };
    let streams = app.streams.tasks.clone();
    let draining = app.draining.clone();
    let begun = Instant::now();
    upgrade.on_upgrade(move |socket| {
        streams.track_future(async move {
            serve(socket, seat, draining).await;
            super::edge::record("GET", "/api/v1/stream", "200", begun.elapsed());
        })
    })
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim() == SUBPROTOCOL)
}

fn not_an_upgrade(method: &Method, why: &WebSocketUpgradeRejection) -> Response {
    let (status, code, text) = if *method == Method::GET {
        (StatusCode::BAD_REQUEST, "no_upgrade", "Bad Request")
    } else {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method Not Allowed",
        )
    };
    let mut response = ApiError::new(status, code, text)
        .detail(why.to_string())
        .into_response();
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (code, text) = match &self {
            Refused::Full => ("too_many_streams", "too many clients of the stream"),
            Refused::Bus(source) => {
                error!(error = %chain(source), "the bus cannot be listened to");
                ("stream_unavailable", "event stream unavailable")
            }
        };
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, text)
            .retry_after(1)
            .into_response()
    }
}

/// Sends until the client goes, is too slow, says nothing any more, or the process stops.
async fn serve(mut socket: WebSocket, mut seat: Seat, draining: CancellationToken) {
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let goodbye = loop {
        tokio::select! {
            biased;
            () = draining.cancelled() => break Some((close_code::AWAY, "the server stops")),
            // First what the client says: pings are answered, and a goodbye counts, however much there is to send.
            message = socket.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                Some(Ok(_)) => heard = Instant::now(),
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    break Some((close_code::POLICY, "no answer to pings"));
                }
                if !write(&mut socket, [Message::Ping(bytes::Bytes::new())]).await {
                    break None;
                }
            }
            batch = seat.next() => {
                let Some(batch) = batch else {
                    break Some((close_code::AGAIN, "too slow"));
                };
                let texts: Vec<Message> = seat.filter().texts(&batch).map(Message::Text).collect();
                if !write(&mut socket, texts).await {
                    break None;
                }
            }
        }
    };
    if let Some((code, reason)) = goodbye {
        let close = Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        write(&mut socket, [close]).await;
    }
    // Completes the closing handshake where there is one; a peer that is gone takes no time.
    let _ = timeout(WRITE_MAX, socket.close()).await;
}

/// Sends messages and flushes once. False if the client does not take them.
async fn write(socket: &mut WebSocket, messages: impl IntoIterator<Item = Message>) -> bool {
    let work = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    matches!(timeout(WRITE_MAX, work).await, Ok(Ok(())))
}
