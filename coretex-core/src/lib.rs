//! The coretexOS control plane as a library.
//!
//! Decisions are pure functions ([`jobs::transition`], `policy::evaluate`, `scheduler::place`); the shells around them do
//! the I/O through four traits: [`Bus`](bus::Bus), [`JobStore`](jobs::JobStore), [`PointerStore`](pointers::PointerStore)
//! and [`Cluster`](cluster::Cluster). `ARCHITECTURE.md` is the map.

#[cfg(feature = "server")]
pub mod approvals;
pub mod audit;
pub mod backend;
pub mod bus;
pub mod cluster;
pub mod config;
#[cfg(feature = "server")]
pub mod decisions;
pub mod dlq;
pub mod error;
#[cfg(feature = "server")]
pub mod expr;
pub mod jobs;
pub mod locks;
pub mod metrics;
#[cfg(feature = "server")]
pub mod platform;
pub mod pointers;
#[cfg(feature = "server")]
pub mod policy;
pub mod protocol;
#[cfg(feature = "server")]
pub mod routing;
#[cfg(feature = "server")]
pub mod scheduler;
pub mod secrets;
#[cfg(feature = "test-util")]
pub mod test_util;
pub mod time;
pub mod workers;
#[cfg(feature = "server")]
pub mod workflow;
