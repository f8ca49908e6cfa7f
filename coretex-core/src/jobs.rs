//! Jobs: what is known of each, how one moves from state to state, and where they are kept.

mod model;
mod state;
mod store;

pub use model::{
    ApprovalRecord, Decision, DecisionRecord, JobRecord, PendingNote, PendingReason, Revision, TerminalDetail,
};
pub use state::{IllegalTransition, JobEvent, JobState, StateSet, transition};
pub use store::{
    Admission, Applied, Change, Cursor, JobStore, JobStoreExt, ListQuery, NewJob, Note, Outcome, Page, RequestWrite,
    ScanItem, Slot, Source,
};
