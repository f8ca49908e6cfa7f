//! For tests: conformance suites of the traits, real servers as child processes, faults.

pub mod conformance;
#[cfg(feature = "server")]
pub mod fuzz;
pub mod servers;
pub mod wait;
