//! The worker against a scripted scheduler: in process with paused time, and on real servers.

mod behaviour;
mod drain;
mod failures;
mod stops;
