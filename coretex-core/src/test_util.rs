//! For tests: conformance suites of the traits, real servers as child processes, faults.

pub mod conformance;
pub mod servers;
pub mod wait;
