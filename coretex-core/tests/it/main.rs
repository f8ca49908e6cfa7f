//! Against real servers, and every backend against the conformance suites.

mod bus;
mod config;
mod embedded;
mod redis;
mod scheduler;
mod servers;
