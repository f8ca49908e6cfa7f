//! The rules of `docs/spec/workflows.md`, one by one.

#![allow(clippy::needless_pass_by_value, reason = "definitions are written in place")]

mod conformance;
mod failures;
mod flow;
pub(in crate::workflow) mod harness;
mod waits;
