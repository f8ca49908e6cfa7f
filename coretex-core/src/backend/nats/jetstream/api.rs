//! The management API of `JetStream`, as JSON: an update must send back every setting it does not mean to change, also those
//! that this client has no type for.

use std::fmt;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::RequestError;
use serde_json::Value;

use super::{refused, unavailable};
use crate::bus::Error;
use crate::error::chain;

/// Sends requests below `$JS.API`.
#[derive(Debug)]
pub(super) struct Api(Context);

impl Api {
    pub(super) fn new(context: Context) -> Self {
        Self(context)
    }

    /// Asks, and returns the answer unless it is an error.
    pub(super) async fn request(&self, subject: &str, body: &Value) -> Result<Value, ApiError> {
        let answer: Value = self
            .0
            .request(subject.to_owned(), body)
            .await
            .map_err(ApiError::Unanswered)?;
        match answer.get("error") {
            Some(error) if !error.is_null() => Err(ApiError::Answered {
                code: error["code"].as_u64().unwrap_or_default(),
                err_code: error["err_code"].as_u64().unwrap_or_default(),
                description: error["description"].as_str().unwrap_or("no reason given").to_owned(),
            }),
            _ => Ok(answer),
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// There is no answer.
    Unanswered(RequestError),
    /// The answer is no.
    Answered {
        /// Like an HTTP status.
        code: u64,
        /// What exactly.
        err_code: u64,
        /// In words.
        description: String,
    },
}

impl ApiError {
    /// What is there cannot be used, and is not ours to delete.
    pub(super) fn unsuitable(description: &str) -> Self {
        Self::Answered {
            code: 400,
            err_code: 0,
            description: description.to_owned(),
        }
    }

    pub(super) fn is_stream_not_found(&self) -> bool {
        self.has_err_code(10_059)
    }

    pub(super) fn is_stream_in_use(&self) -> bool {
        self.has_err_code(10_058)
    }

    pub(super) fn is_consumer_not_found(&self) -> bool {
        self.has_err_code(10_014)
    }

    fn has_err_code(&self, wanted: u64) -> bool {
        matches!(self, Self::Answered { err_code, .. } if *err_code == wanted)
    }

    pub(super) fn into_bus_error(self, op: &'static str, name: &str) -> Error {
        match self {
            Self::Unanswered(error) => unavailable(op, name.to_owned(), error),
            Self::Answered { code, description, .. } if code >= 500 => unavailable(op, name.to_owned(), description),
            Self::Answered { description, .. } => refused(op, name.to_owned(), description),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(error) => f.write_str(&chain(error)),
            Self::Answered { description, .. } => f.write_str(description),
        }
    }
}
