//! The parts of a run as JSON, the same on every backend. See `docs/spec/storage.md` §10.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{BoxError, StoreError};
use crate::workflow::{RunHead, RunId};

/// A part that cannot be read.
pub(super) fn corrupt(run: &RunId, part: &str, source: impl Into<BoxError>) -> StoreError {
    StoreError::Corrupt {
        what: format!("{part} of run `{run}`"),
        source: source.into(),
    }
}

/// The JSON of a part.
pub(super) fn encoded<T: Serialize + ?Sized>(run: &RunId, part: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| corrupt(run, part, error))
}

/// A part from its JSON.
pub(super) fn decoded<T: DeserializeOwned>(run: &RunId, part: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| corrupt(run, part, error))
}

/// The JSON of a head. A sum that is no number in JSON must not make the run unreadable.
pub(super) fn encoded_head(run: &RunId, head: &RunHead) -> Result<Vec<u8>, StoreError> {
    let head = if head.total_cost.is_finite() {
        Cow::Borrowed(head)
    } else {
        Cow::Owned(RunHead {
            total_cost: f64::MAX,
            ..head.clone()
        })
    };
    encoded(run, "the head", head.as_ref())
}
