//! What goes over the wire: messages, ids, subjects, pointers. See `docs/spec/protocol.md`.

pub mod canonical;
pub mod constraints;
pub mod hash;
mod ids;
pub mod json;
pub mod labels;
mod packet;
pub mod subjects;

pub use hash::job_hash;
#[cfg(feature = "server")]
pub(crate) use ids::MAX_ID_BYTES;
pub use ids::{IdError, InstanceId, JobId, TenantId, Topic, TraceId, WorkerId};
pub use packet::{DecodeError, decode_packet, encode_packet, packet};

/// Generated from `proto/coretex/agent/v1`: the CAP v2 messages.
pub mod agent {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::clone_on_ref_ptr,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/coretex.agent.v1.rs"));
}

/// Generated from `proto/coretex/v1`: the gateway's and the context engine's own messages.
pub mod api {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/coretex.v1.rs"));
}

/// The protocol version that we send. Others are accepted.
pub const PROTOCOL_VERSION: i32 = 1;
