//! Policy in pieces that are edited, published and rolled back while the system runs. See `docs/spec/policy.md` §12.

mod error;
mod history;
mod rules;
mod service;
mod stored;
mod summary;

pub use error::Error;
pub use history::{AuditEntry, MAX_AUDIT_ENTRIES, MAX_SNAPSHOTS, Snapshot, SnapshotHead, audit_id, snapshot_id};
pub use rules::{RuleError, RuleList, RuleSource};
pub use service::{Bundles, Listing, Publish, Published, Put, PutDone, Rollback, RolledBack, check_editable};
pub use stored::{SECOPS, in_force, is_enabled, text};
pub use summary::{Bundle, Summary};

/// The document that holds the bundles, in scope `system`.
pub const DOCUMENT: &str = "policy";
/// Its member that holds them.
pub const MEMBER: &str = "bundles";
