//! Against real servers, and every backend against the conformance suites.

mod audit;
mod bundles;
mod bus;
mod config;
mod embedded;
mod policy;
mod redis;
mod scheduler;
mod servers;
mod workflow;
mod workflow_examples;
