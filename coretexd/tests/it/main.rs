//! The daemon: the gateway request by request against in-memory stores (`docs/spec/http.md` is what is tested), and as a
//! process against real servers and real workers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod approvals;
mod config;
mod decisions;
mod demo;
mod edge;
mod faults;
mod interop;
mod jobs;
mod policy;
mod rig;
mod runs;
mod safety_kernel;
mod stream;
mod workflows;
