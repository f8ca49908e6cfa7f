//! Policy in pieces that are edited, published and rolled back while the system runs. See `docs/spec/policy.md` §12.

mod stored;

pub use stored::{SECOPS, in_force, is_enabled, text};
