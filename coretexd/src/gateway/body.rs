//! Reading bodies within a limit. See `docs/spec/http.md` §4.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::error::ApiError;

/// The largest body of most routes, in bytes.
pub(super) const LIMIT: usize = 2 * 1024 * 1024;
/// The largest definition of a workflow, in bytes.
pub(super) const DOCUMENT: usize = 1024 * 1024;
/// The largest signal or form, in bytes: they are kept with the run.
pub(super) const SMALL: usize = 256 * 1024;
/// The largest body with policy texts: one of 10 MiB, and what its JSON adds.
pub(super) const LARGE: usize = 12 * 1024 * 1024;

/// A whole body, at most [`LIMIT`] bytes.
#[derive(Debug)]
pub(super) struct Limited(pub(super) Bytes);

/// A whole body with a definition, at most [`DOCUMENT`] bytes.
#[derive(Debug)]
pub(super) struct Document(pub(super) Bytes);

/// A whole body that is kept with a run, at most [`SMALL`] bytes.
#[derive(Debug)]
pub(super) struct Small(pub(super) Bytes);

/// A whole body that may carry policy texts, at most [`LARGE`] bytes.
#[derive(Debug)]
pub(super) struct Large(pub(super) Bytes);

impl<S: Sync> FromRequest<S> for Limited {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request, LIMIT).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request, DOCUMENT).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for Small {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request, SMALL).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for Large {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request, LARGE).await.map(Self)
    }
}

async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::body_too_large(limit));
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
        if first.len() + rest.len() + chunk.len() > limit {
            return Err(ApiError::body_too_large(limit));
        }
        if first.is_empty() {
            first = chunk; // Most bodies come in one piece, which is not copied.
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    Ok([first, rest.freeze()].concat().into())
}
