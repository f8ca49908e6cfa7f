//! Implementations of the traits, by technology.

mod delayed;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(all(feature = "server", any(feature = "embedded", feature = "redis")))]
mod run_parts;
mod stores;

pub use stores::Stores;
