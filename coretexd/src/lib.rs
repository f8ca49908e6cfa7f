//! The coretexOS daemon as a library: settings, roles, and the HTTP gateway.

pub mod env_vars;
pub mod gateway;
pub mod settings;
