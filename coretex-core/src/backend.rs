//! Implementations of the traits, by technology.

mod delayed;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
mod stores;

pub use stores::Stores;
