//! Reading bodies within a limit. See `docs/spec/http.md` §4.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::error::ApiError;

/// The largest body of any JSON route, in bytes.
pub(super) const LIMIT: usize = 2 * 1024 * 1024;

/// A whole body, at most [`LIMIT`] bytes.
#[derive(Debug)]
pub(super) struct Limited(pub(super) Bytes);

impl<S: Sync> FromRequest<S> for Limited {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > LIMIT as u64) {
            return Err(ApiError::body_too_large(LIMIT));
        }
        let mut chunks = request.into_body().into_data_stream();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "incomplete_body",
                    "request body could not be read",
                )
            })?;
            if first.len() + rest.len() + chunk.len() > LIMIT {
                return Err(ApiError::body_too_large(LIMIT));
            }
            if first.is_empty() {
                first = chunk; // Most bodies come in one piece, which is not copied.
            } else {
                rest.extend_from_slice(&chunk);
            }
        }
        if rest.is_empty() {
            return Ok(Self(first));
        }
        Ok(Self([first, rest.freeze()].concat().into()))
    }
}
