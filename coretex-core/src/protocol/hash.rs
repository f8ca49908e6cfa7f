//! What exactly people approve: a digest of the request. See `docs/spec/protocol.md` §8.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use sha2::{Digest, Sha256};

use super::agent::{JobMetadata, JobRequest};
use super::constraints::ENV_EFFECTIVE_CONFIG;
use super::labels::{BUS_MSG_ID, is_approval_label};

/// The hash of a request: lower-case hex SHA-256 over its canonical bytes, without what approval and dispatch add to it.
pub fn job_hash(request: &JobRequest) -> String {
    hex(&Sha256::digest(canonical(request)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Fields in ascending order, defaults left out, present empty messages kept, maps sorted with both halves of each entry.
fn canonical(request: &JobRequest) -> Vec<u8> {
    // Every field is named, so that a new one cannot be forgotten.
    let JobRequest {
        job_id,
        topic,
        priority,
        context_ptr,
        adapter_id,
        env,
        parent_job_id,
        workflow_id,
        step_index,
        memory_id,
        context_hints,
        budget,
        tenant_id,
        principal_id,
        labels,
        meta,
    } = request;
    let mut out = Vec::with_capacity(256);
    string(&mut out, 1, job_id);
    string(&mut out, 2, topic);
    integer(&mut out, 3, *priority);
    string(&mut out, 4, context_ptr);
    string(&mut out, 5, adapter_id);
    map(&mut out, 6, env, |key| key != ENV_EFFECTIVE_CONFIG);
    string(&mut out, 7, parent_job_id);
    string(&mut out, 8, workflow_id);
    integer(&mut out, 9, *step_index);
    string(&mut out, 10, memory_id);
    // These two hold no maps: prost writes them canonically.
    if let Some(hints) = context_hints {
        bytes(&mut out, 11, &hints.encode_to_vec());
    }
    if let Some(budget) = budget {
        bytes(&mut out, 12, &budget.encode_to_vec());
    }
    string(&mut out, 13, tenant_id);
    string(&mut out, 14, principal_id);
    map(&mut out, 15, labels, |key| !is_approval_label(key) && key != BUS_MSG_ID);
    if let Some(meta) = meta {
        bytes(&mut out, 16, &canonical_meta(meta));
    }
    out
}

fn canonical_meta(meta: &JobMetadata) -> Vec<u8> {
    let JobMetadata {
        tenant_id,
        actor_id,
        actor_type,
        idempotency_key,
        capability,
        risk_tags,
        requires,
        pack_id,
        labels,
    } = meta;
    let mut out = Vec::new();
    string(&mut out, 1, tenant_id);
    string(&mut out, 2, actor_id);
    integer(&mut out, 3, *actor_type);
    string(&mut out, 4, idempotency_key);
    string(&mut out, 5, capability);
    for tag in risk_tags {
        bytes(&mut out, 6, tag.as_bytes());
    }
    for need in requires {
        bytes(&mut out, 7, need.as_bytes());
    }
    string(&mut out, 8, pack_id);
    map(&mut out, 9, labels, |_| true);
    out
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn string(out: &mut Vec<u8>, number: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, number, value.as_bytes());
    }
}

fn integer(out: &mut Vec<u8>, number: u32, value: i32) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        // Negative numbers are sign-extended to ten bytes, as protobuf has it.
        encode_varint(i64::from(value).cast_unsigned(), out);
    }
}

fn map(out: &mut Vec<u8>, number: u32, entries: &BTreeMap<String, String>, keep: impl Fn(&str) -> bool) {
    for (key, value) in entries.iter().filter(|(key, _)| keep(key)) {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
        bytes(&mut entry, 1, key.as_bytes());
        bytes(&mut entry, 2, value.as_bytes());
        bytes(out, number, &entry);
    }
}

#[cfg(test)]
mod tests;
