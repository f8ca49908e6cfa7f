//! The kernel in a process of its own: the service that others ask, and the client that asks. See `docs/spec/policy.md` §14.

mod breaker;
mod client;
mod refusal;
mod service;
pub mod tls;

pub use client::{DialError, RemoteKernel, RemoteOptions};
pub use service::{DESCRIPTORS, KernelServer, SERVICE_NAME, ServeError, service};

/// Larger messages are refused on either side: gRPC's usual limit.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
