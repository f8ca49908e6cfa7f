//! Configuration documents by scope: stored, merged, changed by compare-and-set, announced. See `docs/spec/config.md`.

mod effective;
mod notice;
mod pauses;
mod service;
mod store;

pub use effective::{SCOPES, Scopes, Snapshot, merge, read_effective};
pub use notice::Notice;
pub use pauses::{PAUSES, Pausable, Pause, PauseService, Pauses};
pub use service::{ConfigService, Error, MAX_SET_BYTES, MAX_UPDATE_BYTES, UpdateError, Updated, Write};
pub use store::{ConfigStore, Document};

/// The scope of the installation itself.
pub const SYSTEM: &str = "system";
/// The document of [`SYSTEM`] that everybody's configuration starts from.
pub const DEFAULT: &str = "default";

/// What a document is called in messages, in the audit log and in Redis: `cfg:<scope>:<id>`.
pub fn document_name(scope: &str, id: &str) -> String {
    format!("cfg:{scope}:{id}")
}
