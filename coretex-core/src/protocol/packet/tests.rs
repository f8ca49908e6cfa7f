use proptest::prelude::*;

use super::*;
use crate::protocol::agent::{
    Heartbeat, JobCancel, JobMetadata, JobProgress, JobRequest, JobResult, JobStatus, SystemAlert,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn decoded(hex: &str) -> BusPacket {
    decode_packet(&bytes(hex)).unwrap()
}

/// The result that the vectors below carry.
fn result() -> BusPacket {
    let result = JobResult {
        job_id: "j1".into(),
        status: JobStatus::Succeeded.into(),
        ..JobResult::default()
    };
    packet(
        "t1",
        "w1",
        Timestamp::from_secs(1_700_000_000),
        Payload::JobResult(result),
    )
}

const PLAIN: &str = "0a027431 12027731 1a060880e2cfaa06 2001 5a060a026a311005";

/// As the Go and Python SDKs write it.
#[test]
fn defaults_left_out() {
    assert_eq!(decoded(PLAIN), result());
    assert_eq!(encode_packet(&result()), bytes(PLAIN));
    let signed = decoded(&format!("{PLAIN} 7202aabb"));
    assert_eq!(signed.signature, [0xaa, 0xbb]);
    assert_eq!(signed.payload, result().payload);
}

/// As the Node SDK writes it: `nanos: 0` spelled out, and a signature that is empty while it is computed.
#[test]
fn defaults_spelled_out() {
    let node = "0a027431 12027731 1a080880e2cfaa061000 2001 5a060a026a311005";
    assert_eq!(decoded(&format!("{node} 7200")), result());
    assert_eq!(decoded(&format!("{node} 7202aabb")).signature, [0xaa, 0xbb]);
    // Every field of a result at its default.
    let empty = "5a10 0a00 1000 1a00 2200 2800 3200 3a00 4200";
    let JobResult { artifact_ptrs, .. } = match decoded(empty).payload {
        Some(Payload::JobResult(result)) => result,
        other => panic!("{other:?}"),
    };
    // An element of a list is an element, even if it is empty.
    assert_eq!(artifact_ptrs, [""]);
}

#[test]
fn fields_in_any_order() {
    assert_eq!(
        decoded("7200 5a060a026a311005 2001 1a060880e2cfaa06 12027731 0a027431"),
        result()
    );
}

#[test]
fn without_a_time() {
    let packet = decoded("12027731 2001 62040a027731");
    assert_eq!(packet.created_at, None);
    assert!(matches!(packet.payload, Some(Payload::Heartbeat(beat)) if beat.worker_id == "w1"));
}

#[test]
fn unknown_fields_are_passed_over() {
    // Field 99 as text, 98 as a number, 97 and 96 as fixed bytes; in the payload, too.
    let unknown = "9a060161 900601 8d0600000000 81060000000000000000";
    let packet = decoded(&format!("{PLAIN} {unknown}"));
    assert_eq!(packet, result());
    let inner = bytes(&format!("0a026a311005{}", unknown.replace(' ', "")));
    let mut outer = bytes("0a027431 12027731 1a060880e2cfaa06 2001 5a");
    outer.push(u8::try_from(inner.len()).unwrap());
    outer.extend(inner);
    assert_eq!(decode_packet(&outer).unwrap(), result());
}

#[test]
fn other_versions_and_unknown_enum_values_are_taken() {
    let packet = decoded("2007 5a060a026a31102a");
    assert_eq!(packet.protocol_version, 7);
    assert!(matches!(packet.payload, Some(Payload::JobResult(result)) if result.status == 42));
}

#[test]
fn no_payload_is_a_packet() {
    assert_eq!(decoded("").payload, None);
    assert_eq!(decoded("9a060161").payload, None);
}

#[test]
fn of_two_payloads_the_last_one_counts() {
    let packet = decoded("5a040a026a31 8201040a026a32");
    assert!(matches!(packet.payload, Some(Payload::JobCancel(cancel)) if cancel.job_id == "j2"));
}

#[test]
fn what_is_no_packet_is_refused() {
    for hex in ["ff", "0a05", "0a", "0a02ffff", "5a020a05", "00", "0f", "5a021080"] {
        assert!(decode_packet(&bytes(hex)).is_err(), "{hex}");
    }
    assert!(decode_packet(b"{\"traceId\":\"t\"}").is_err());
}

fn text() -> impl Strategy<Value = String> {
    ".{0,10}"
}

fn strings() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (text(), text(), any::<i32>(), strings(), strings(), any::<bool>()).prop_map(
            |(job_id, topic, priority, env, labels, meta)| Payload::JobRequest(JobRequest {
                job_id,
                topic,
                priority,
                env,
                labels,
                meta: meta.then(JobMetadata::default),
                ..JobRequest::default()
            })
        ),
        (
            text(),
            any::<i32>(),
            any::<i64>(),
            proptest::collection::vec(text(), 0..3)
        )
            .prop_map(
                |(job_id, status, execution_ms, artifact_ptrs)| Payload::JobResult(JobResult {
                    job_id,
                    status,
                    execution_ms,
                    artifact_ptrs,
                    ..JobResult::default()
                })
            ),
        (text(), -1e30..1e30_f32, any::<i32>(), strings()).prop_map(|(worker_id, cpu_load, active_jobs, labels)| {
            Payload::Heartbeat(Heartbeat {
                worker_id,
                cpu_load,
                active_jobs,
                labels,
                ..Heartbeat::default()
            })
        }),
        text().prop_map(|level| Payload::Alert(SystemAlert {
            level,
            ..SystemAlert::default()
        })),
        (text(), any::<i32>()).prop_map(|(job_id, percent)| Payload::JobProgress(JobProgress {
            job_id,
            percent,
            ..JobProgress::default()
        })),
        (text(), text()).prop_map(|(job_id, reason)| Payload::JobCancel(JobCancel {
            job_id,
            reason,
            ..JobCancel::default()
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn packets_survive(
        trace in text(),
        sender in text(),
        micros in any::<i64>(),
        signature in proptest::collection::vec(any::<u8>(), 0..8),
        payload in payload(),
    ) {
        let mut packet = packet(&trace, &sender, Timestamp::from_micros(micros), payload);
        packet.signature = signature;
        prop_assert_eq!(decode_packet(&encode_packet(&packet)).unwrap(), packet);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_packet(&bytes);
    }

    /// Damaged packets reach deeper than noise does.
    #[test]
    fn damaged_packets_do_not_panic(payload in payload(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = encode_packet(&packet("t", "s", Timestamp::ZERO, payload)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = decode_packet(&bytes);
        bytes.truncate(at);
        let _ = decode_packet(&bytes);
    }
}
