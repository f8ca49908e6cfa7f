//! The binary against a server that answers as the gateway does.

mod jobs;
mod operators;
mod stub;
mod usage;
