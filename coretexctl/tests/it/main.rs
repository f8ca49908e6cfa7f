//! The binary against a server that answers as the gateway does, and against the gateway.

mod governance;
mod jobs;
mod operators;
mod policy;
mod stub;
mod usage;
mod workflows;
