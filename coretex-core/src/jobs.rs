//! Jobs: what is known of each, how one moves from state to state, and where they are kept.

mod derive;
mod model;
#[cfg(feature = "server")]
pub mod service;
mod state;
mod store;

pub use derive::{Description, error_document};
pub use model::{
    ApprovalRecord, ApprovalTerms, Decision, DecisionRecord, JobRecord, OnExpiry, PendingNote, PendingReason, Revision,
    TerminalDetail,
};
pub use state::{IllegalTransition, JobEvent, JobState, StateSet, transition};
#[cfg(any(feature = "embedded", feature = "redis"))]
pub(crate) use store::ApprovalDue;
pub use store::{
    Admission, Applied, Change, Cursor, DecisionPage, DecisionQuery, InvalidCursor, JobStore, JobStoreExt, ListQuery,
    LoggedDecision, NewJob, Note, Outcome, Page, RequestWrite, ScanItem, Slot, Source,
};
