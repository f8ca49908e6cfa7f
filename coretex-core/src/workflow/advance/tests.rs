//! The rules of `docs/spec/workflows.md`, one by one.

mod conformance;
mod failures;
mod flow;
pub(in crate::workflow) mod harness;
mod waits;
