//! Where policy comes from. See `docs/spec/policy.md` §8.

mod base;
mod fetch;
mod fragments;
mod known;
mod signature;

pub use base::Base;
pub use fetch::{FETCH_TIMEOUT, Fetch, FetchError, Fetched};
pub use fragments::Fragments;
pub use signature::{EncodingError, PublicKey, Signature, SignatureError, Signed};

pub(super) use base::Bytes;
pub(super) use known::Known;

#[cfg(test)]
mod tests;
