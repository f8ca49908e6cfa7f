//! Durable workflows over jobs. See `docs/spec/workflows.md`.
//!
//! The engine is one pure function, `advance`: a run, what happened, the time → the run's next state and what follows from
//! it. The shell around it (`engine`) commits both at once by compare-and-set and then does what was committed.

pub mod advance;
pub mod builder;
pub mod check;
pub mod decode;
pub mod engine;
pub mod event;
mod graph;
pub mod model;
pub mod plan;
pub mod rerun;
mod results;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod service;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod view;

pub use advance::{advance, job_request};
pub use event::{Effect, Event, TimelineEvent, Transition};
pub use model::{Step, Workflow};
pub use plan::{Plan, PlannedStep, StepIndex};
pub use run::{Run, RunHead, RunId, RunStatus, StepKey, StepRecord, StepStatus};
pub use store::WorkflowStore;
