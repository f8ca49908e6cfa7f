//! Write coretexOS workers.
//!
//! A worker is a process that takes jobs from the control plane, does them, and reports how they ended. This one is
//! complete:
//!
//! ```no_run
//! use coretex_sdk::{Error, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input { text: String }
//!
//! #[derive(Serialize)]
//! struct Output { words: usize }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     Worker::builder()
//!         .pool("default")
//!         .handle("job.count", |_ctx, input: Input| async move {
//!             Ok(Output { words: input.text.split_whitespace().count() })
//!         })
//!         .run()
//!         .await
//! }
//! ```
//!
//! It connects to `NATS_URL` and `REDIS_URL`, or to the same ports on this machine. In the process of a control plane,
//! [`Builder::bus`] and [`Builder::payloads`] replace the connections, and nothing else changes.
//!
//! The guide is `docs/workers.md`.

mod backoff;
mod connect;
mod constraints;
mod context;
mod error;
mod handler;
mod metrics;
mod payloads;
mod prompt;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use coretex_core;

pub use self::constraints::{Budgets, DiffLimits, PolicyConstraints, Sandbox, Toolchain};
pub use self::context::JobContext;
pub use self::error::{Error, JobError, codes};
pub use self::handler::{HandlerService, Job};
pub use self::prompt::Prompt;
pub use self::worker::{Builder, Load, Running, StopReason, Worker};

/// Compiles and runs the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/workers.md")]
struct Guide;
