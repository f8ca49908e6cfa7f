//! The envelope: building, encoding, and decoding with tolerance.

use bytes::Bytes;
use prost::Message;

use super::PROTOCOL_VERSION;
use super::agent::{BusPacket, bus_packet::Payload};
use crate::time::Timestamp;

/// Why bytes are not a packet.
#[derive(Debug, thiserror::Error)]
#[error("not a bus packet")]
pub struct DecodeError(#[from] prost::DecodeError);

/// A packet around `payload`, unsigned.
pub fn packet(trace_id: &str, sender_id: &str, now: Timestamp, payload: Payload) -> BusPacket {
    BusPacket {
        trace_id: trace_id.to_owned(),
        sender_id: sender_id.to_owned(),
        created_at: Some(now.to_proto()),
        protocol_version: PROTOCOL_VERSION,
        signature: Vec::new(),
        payload: Some(payload),
    }
}

/// The bytes of a packet.
pub fn encode_packet(packet: &BusPacket) -> Bytes {
    packet.encode_to_vec().into()
}

/// Reads a packet. Explicit defaults, a missing `created_at`, unknown fields and any signature are fine.
///
/// # Errors
/// [`DecodeError`] if the bytes are not a protobuf message of this shape.
pub fn decode_packet(bytes: &[u8]) -> Result<BusPacket, DecodeError> {
    Ok(BusPacket::decode(bytes)?)
}

#[cfg(test)]
mod tests;
