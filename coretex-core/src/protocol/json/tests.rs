use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::json;

use super::*;
use crate::error::chain;
use crate::protocol::agent::{
    Budget, BudgetConstraints, BusPacket, ContextHints, Heartbeat, JobMetadata, JobProgress, JobRequest, JobResult,
    JobStatus, ListSnapshotsRequest, PolicyCheckRequest, PolicyCheckResponse, PolicyConstraints, PolicyRemediation,
    SandboxProfile, bus_packet::Payload,
};

const PACKAGES: [&str; 2] = ["coretex.agent.v1", "coretex.v1"];

fn descriptors() -> FileDescriptorSet {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files = ["agent/v1/buspacket", "agent/v1/safety", "v1/api", "v1/context"].map(|f| format!("coretex/{f}.proto"));
    protox::compile(files, [root]).unwrap()
}

/// The tables name every message, field and enum of the package, by number, in order, and nothing else.
#[test]
fn tables_are_complete() {
    let mut declared = BTreeMap::new();
    let mut enums = Vec::new();
    for file in descriptors().file.iter().filter(|file| file.package() == PACKAGES[0]) {
        enums.extend(file.enum_type.iter().map(|e| e.name().to_owned()));
        // Only fields from 100 on hold one of these.
        for message in file
            .message_type
            .iter()
            .filter(|message| message.name() != "ApprovalTerms")
        {
            let fields: Vec<_> = message
                .field
                .iter()
                // Those from 100 on are ours, and not part of the JSON that clients know.
                .filter(|field| field.number() < 100)
                .map(|field| {
                    let enumeration = (field.r#type() == Type::Enum)
                        .then(|| field.type_name().rsplit('.').next().unwrap_or_default().to_owned());
                    (
                        u32::try_from(field.number()).unwrap(),
                        field.name().to_owned(),
                        field.json_name().to_owned(),
                        enumeration,
                    )
                })
                .collect();
            declared.insert(message.name().to_owned(), fields);
        }
    }
    let envelope = (BusPacket::NAME, BusPacket::FIELDS);
    let tables: BTreeMap<_, Vec<_>> = tables::PLAIN
        .iter()
        .copied()
        .chain([envelope])
        .map(|(name, fields)| {
            let fields = fields.iter().map(|f| {
                (
                    f.number,
                    f.name.to_owned(),
                    f.json.to_owned(),
                    f.enumeration.map(str::to_owned),
                )
            });
            (name.to_owned(), fields.collect())
        })
        .collect();
    assert_eq!(tables, declared);
    enums.sort();
    let mut known = tables::ENUMS.to_vec();
    known.sort_unstable();
    assert_eq!(known, enums);
}

/// Everything that is on the wire, by number: a change of `golden/wire.txt` is a change of the protocol.
#[test]
fn field_numbers_never_change() {
    let mut text = String::new();
    for file in descriptors()
        .file
        .iter()
        .filter(|file| PACKAGES.contains(&file.package()))
    {
        writeln!(text, "# {} {}", file.name(), file.package()).unwrap();
        for e in &file.enum_type {
            writeln!(text, "enum {}", e.name()).unwrap();
            for value in &e.value {
                writeln!(text, "  {} = {}", value.name(), value.number()).unwrap();
            }
        }
        for message in &file.message_type {
            writeln!(text, "message {}", message.name()).unwrap();
            let is_map = |type_name: &str| {
                message
                    .nested_type
                    .iter()
                    .any(|nested| type_name.ends_with(nested.name()))
            };
            for field in &message.field {
                let kind = match field.r#type() {
                    Type::Message if is_map(field.type_name()) => "map".to_owned(),
                    Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
                    other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
                };
                let repeated = field.label() == Label::Repeated && kind != "map";
                let oneof = if field.oneof_index.is_some() { " (payload)" } else { "" };
                let repeated = if repeated { "repeated " } else { "" };
                writeln!(text, "  {} {} = {repeated}{kind}{oneof}", field.number(), field.name()).unwrap();
            }
        }
        for service in &file.service {
            writeln!(text, "service {}", service.name()).unwrap();
            for method in &service.method {
                let (input, output) = (method.input_type(), method.output_type());
                writeln!(text, "  {} {input} -> {output}", method.name()).unwrap();
            }
        }
    }
    assert!(text == include_str!("golden/wire.txt"), "the wire is now:\n{text}");
}

fn strings<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn full_request_names_every_field() {
    assert_eq!(
        to_json(&JobRequest::default(), Mode::Full),
        concat!(
            r#"{"jobId":"","topic":"","priority":"JOB_PRIORITY_UNSPECIFIED","contextPtr":"","adapterId":"","env":{},"#,
            r#""parentJobId":"","workflowId":"","stepIndex":0,"memoryId":"","contextHints":null,"budget":null,"#,
            r#""tenantId":"","principalId":"","labels":{},"meta":null}"#
        )
    );
    let request = JobRequest {
        job_id: "j".into(),
        env: strings([("b", "\u{1}\"\\\n<é>"), ("a", "")]),
        budget: Some(Budget {
            deadline_ms: i64::MAX,
            ..Budget::default()
        }),
        context_hints: Some(ContextHints::default()),
        meta: Some(JobMetadata::default()),
        ..JobRequest::default()
    };
    assert_eq!(
        to_json(&request, Mode::Full),
        concat!(
            r#"{"jobId":"j","topic":"","priority":"JOB_PRIORITY_UNSPECIFIED","contextPtr":"","adapterId":"","#,
            r#""env":{"a":"","b":"\u0001\"\\\n<é>"},"parentJobId":"","workflowId":"","stepIndex":0,"memoryId":"","#,
            r#""contextHints":{"maxInputTokens":0,"allowSummarization":false,"allowRetrieval":false,"tags":[]},"#,
            r#""budget":{"maxInputTokens":"0","maxOutputTokens":"0","maxTotalTokens":"0","#,
            r#""deadlineMs":"9223372036854775807"},"tenantId":"","principalId":"","labels":{},"#,
            r#""meta":{"tenantId":"","actorId":"","actorType":"ACTOR_TYPE_UNSPECIFIED","idempotencyKey":"","#,
            r#""capability":"","riskTags":[],"requires":[],"packId":"","labels":{}}}"#
        )
    );
}

/// As the policy routes answer.
#[test]
fn full_check_response() {
    let response = PolicyCheckResponse {
        decision: 1,
        policy_snapshot: "s".into(),
        ..PolicyCheckResponse::default()
    };
    assert_eq!(
        to_json(&response, Mode::Full),
        concat!(
            r#"{"decision":"DECISION_TYPE_ALLOW","reason":"","redactedContextPtr":"","policySnapshot":"s","#,
            r#""ruleId":"","constraints":null,"approvalRequired":false,"approvalRef":"","remediations":[]}"#
        )
    );
}

/// As the event stream carries it.
#[test]
fn compact_packet() {
    let mut packet = BusPacket {
        trace_id: "t1".into(),
        sender_id: "worker-1".into(),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_738_324_800,
            nanos: 123_456_789,
        }),
        protocol_version: 1,
        signature: vec![0xaa, 0xbb, 0xff],
        payload: Some(Payload::JobResult(JobResult {
            job_id: "j1".into(),
            status: JobStatus::Succeeded.into(),
            result_ptr: "redis://res:j1".into(),
            worker_id: "w1".into(),
            execution_ms: 42,
            ..JobResult::default()
        })),
    };
    let text = to_json(&packet, Mode::Compact);
    assert_eq!(
        text,
        concat!(
            r#"{"traceId":"t1","senderId":"worker-1","createdAt":"2025-01-31T12:00:00.123456789Z","protocolVersion":1,"#,
            r#""jobResult":{"jobId":"j1","status":"JOB_STATUS_SUCCEEDED","resultPtr":"redis://res:j1","#,
            r#""workerId":"w1","executionMs":"42"},"signature":"qrv/"}"#
        )
    );
    assert_eq!(from_json::<BusPacket>(&text).unwrap(), packet);

    packet.payload = None;
    packet.created_at = None;
    packet.signature.clear();
    assert_eq!(
        to_json(&packet, Mode::Full),
        r#"{"traceId":"t1","senderId":"worker-1","createdAt":null,"protocolVersion":1,"signature":""}"#
    );
    packet.payload = Some(Payload::JobProgress(JobProgress {
        status: 42,
        ..JobProgress::default()
    }));
    assert_eq!(
        to_json(&packet, Mode::Compact),
        r#"{"traceId":"t1","senderId":"worker-1","protocolVersion":1,"jobProgress":{"status":42}}"#
    );
}

#[test]
fn times_have_no_three_six_or_nine_digits() {
    let time = |seconds, nanos| {
        let packet = BusPacket {
            created_at: Some(prost_types::Timestamp { seconds, nanos }),
            ..BusPacket::default()
        };
        to_json(&packet, Mode::Compact)
    };
    for (seconds, nanos, want) in [
        (0, 0, "1970-01-01T00:00:00Z"),
        (0, 500_000_000, "1970-01-01T00:00:00.500Z"),
        (0, 120_000, "1970-01-01T00:00:00.000120Z"),
        (-1, 1, "1969-12-31T23:59:59.000000001Z"),
        (253_402_207_200, 999_999_999, "9999-12-30T22:00:00.999999999Z"),
        (951_782_400, 0, "2000-02-29T00:00:00Z"),
        (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
    ] {
        let text = time(seconds, nanos);
        assert_eq!(text, format!(r#"{{"createdAt":"{want}"}}"#));
        let packet: BusPacket = from_json(&text).unwrap();
        assert_eq!(packet.created_at, Some(prost_types::Timestamp { seconds, nanos }));
    }
    assert_eq!(
        time(253_402_300_799, 1_000_000),
        r#"{"createdAt":"9999-12-31T23:59:59.001Z"}"#
    );
    for (seconds, nanos) in [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (253_402_300_800, 0),
        (0, -1),
        (0, 1_000_000_000),
    ] {
        assert_eq!(time(seconds, nanos), "{}");
    }
    let packet: BusPacket = from_json(r#"{"createdAt":"2025-01-31T13:00:00.25+01:00"}"#).unwrap();
    assert_eq!(packet.created_at.unwrap().seconds, 1_738_324_800);
}

#[test]
fn floats_are_short() {
    for (value, want) in [
        (12.0, "12"),
        (12.5, "12.5"),
        (0.1, "0.1"),
        (-0.5, "-0.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (f32::NAN, "\"NaN\""),
        (f32::INFINITY, "\"Infinity\""),
        (f32::NEG_INFINITY, "\"-Infinity\""),
    ] {
        let beat = Heartbeat {
            cpu_load: value,
            ..Heartbeat::default()
        };
        let text = to_json(&beat, Mode::Compact);
        assert_eq!(text, format!(r#"{{"cpuLoad":{want}}}"#));
        let again: Heartbeat = from_json(&text).unwrap();
        assert_eq!(again.cpu_load.to_bits(), value.to_bits());
    }
}

#[test]
fn reads_both_spellings_and_all_number_forms() {
    let want = JobRequest {
        job_id: "j".into(),
        priority: 2,
        step_index: 7,
        budget: Some(Budget {
            deadline_ms: 1000,
            max_input_tokens: -5,
            ..Budget::default()
        }),
        ..JobRequest::default()
    };
    for text in [
        r#"{"jobId":"j","priority":"JOB_PRIORITY_BATCH","stepIndex":7,"budget":{"deadlineMs":"1000","maxInputTokens":"-5"}}"#,
        r#" { "job_id" : "j" , "priority":2,"step_index":"7","budget":{"deadline_ms":1000,"max_input_tokens":-5} } "#,
        r#"{"job\u0049d":"j","priority":2.0,"stepIndex":7.0,"budget":{"deadlineMs":1e3,"maxInputTokens":"-5.0"}}"#,
        r#"{"jobId":"j","topic":null,"env":null,"labels":null,"meta":null,"contextHints":null,"priority":2,
            "stepIndex":7,"budget":{"deadlineMs":"1e3","maxInputTokens":-5,"maxOutputTokens":null}}"#,
    ] {
        assert_eq!(from_json::<JobRequest>(text).unwrap(), want, "{text}");
    }
}

#[test]
fn presence_of_empty_messages_survives() {
    let request = JobRequest {
        budget: Some(Budget::default()),
        context_hints: Some(ContextHints::default()),
        meta: Some(JobMetadata::default()),
        ..JobRequest::default()
    };
    for mode in [Mode::Full, Mode::Compact, Mode::Snake] {
        assert_eq!(from_json::<JobRequest>(to_json(&request, mode)).unwrap(), request);
        let empty = JobRequest::default();
        assert_eq!(from_json::<JobRequest>(to_json(&empty, mode)).unwrap(), empty);
    }
}

#[test]
fn mistakes_are_named() {
    #[track_caller]
    fn check(text: &str, want: &str) {
        let error = from_json::<JobRequest>(text).unwrap_err();
        let message = chain(&error);
        assert_eq!(message, format!("not a JobRequest in protobuf JSON: {want}"), "{text}");
    }
    check(
        r#"{"jobid":"x"}"#,
        "unknown field `jobid` in JobRequest at line 1 column 8",
    );
    check(
        r#"{"meta":{"risk":1}}"#,
        "`meta`: unknown field `risk` in JobMetadata at line 1 column 15",
    );
    check(
        r#"{"jobId":"x","job_id":"y"}"#,
        "duplicate field `jobId` at line 1 column 21",
    );
    check(
        r#"{"jobId":5}"#,
        "`jobId`: invalid type: integer `5`, expected a string at line 1 column 10",
    );
    check(
        r#"{"budget":{"deadlineMs":"soon"}}"#,
        "`budget.deadlineMs`: invalid value: string \"soon\", expected an integer, as a number or a string at line 1 \
         column 30",
    );
    check(
        r#"{"priority":"URGENT"}"#,
        "`priority`: invalid value: string \"URGENT\", expected the name or the number of an enum value at line 1 \
         column 20",
    );
    check(
        r#"{"stepIndex":2147483648}"#,
        "`stepIndex`: number out of range for a 32-bit integer at line 1 column 24",
    );
    check(
        r#"{"env":{"a":null}}"#,
        "`env`: invalid type: null, expected a string at line 1 column 16",
    );
    check(
        "[]",
        "invalid type: sequence, expected an object (JobRequest) at line 1 column 0",
    );
    check("", "EOF while parsing a value at line 1 column 0");
    check("{} {}", "trailing characters at line 1 column 4");
    for text in [
        r#"{"budget":{"deadlineMs":9223372036854775808}}"#,
        r#"{"budget":{"deadlineMs":1.5}}"#,
        r#"{"budget":{"deadlineMs":1e300}}"#,
        r#"{"budget":[]}"#,
        r#"{"stepIndex":true}"#,
        r#"{"labels":[]}"#,
    ] {
        assert!(from_json::<JobRequest>(text).is_err(), "{text}");
    }
    let two = r#"{"jobResult":{},"jobCancel":{}}"#;
    assert!(chain(&from_json::<BusPacket>(two).unwrap_err()).contains("`jobCancel` is a second payload"));
    assert!(from_json::<Heartbeat>(r#"{"cpuLoad":1e39}"#).is_err());
    assert!(from_json::<PolicyCheckRequest>(r#"{"effectiveConfig":"***"}"#).is_err());
}

#[test]
fn unknown_can_be_passed_over() {
    let text = r#"{"jobId":"j","new":{"deep":[1,{"a":2}]},"priority":"URGENT","meta":{"x":1,"packId":"p"}}"#;
    let request: JobRequest = from_json_lenient(text).unwrap();
    assert_eq!(request.job_id, "j");
    assert_eq!(request.priority, 0);
    assert_eq!(request.meta.unwrap_or_default().pack_id, "p");
    assert!(from_json_lenient::<ListSnapshotsRequest>(r#"{"x":1}"#).is_ok());
}

#[test]
fn snake_reads_back() {
    let constraints = PolicyConstraints {
        budgets: Some(BudgetConstraints {
            max_runtime_ms: 60_000,
            ..BudgetConstraints::default()
        }),
        sandbox: Some(SandboxProfile::default()),
        ..PolicyConstraints::default()
    };
    let text = to_json(&constraints, Mode::Snake);
    assert_eq!(text, r#"{"budgets":{"max_runtime_ms":60000},"sandbox":{}}"#);
    assert_eq!(from_json::<PolicyConstraints>(&text).unwrap(), constraints);
    let value = json!({"budgets": {"max_runtime_ms": 60_000}, "sandbox": {}, "new": 1});
    let read: PolicyConstraints = from_json_value(&value, Unknown::Ignore).unwrap();
    assert_eq!(read, constraints);
    assert!(from_json_value::<PolicyConstraints>(&value, Unknown::Reject).is_err());
}

fn any_strings() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..4)
}

prop_compose! {
    fn any_request()(
        job_id in ".{0,12}",
        topic in ".{0,12}",
        priority in prop_oneof![0..4_i32, any::<i32>()],
        env in any_strings(),
        labels in any_strings(),
        step_index in any::<i32>(),
        deadline in proptest::option::of(any::<i64>()),
        tags in proptest::collection::vec(".{0,4}", 0..3),
        meta in any::<bool>(),
    ) -> JobRequest {
        JobRequest {
            job_id,
            topic,
            priority,
            env,
            labels: labels.clone(),
            step_index,
            budget: deadline.map(|deadline_ms| Budget { deadline_ms, ..Budget::default() }),
            meta: meta.then(|| JobMetadata { risk_tags: tags, labels, ..JobMetadata::default() }),
            ..JobRequest::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn requests_survive_every_mode(request in any_request()) {
        for mode in [Mode::Full, Mode::Compact, Mode::Snake] {
            let text = to_json(&request, mode);
            prop_assert_eq!(from_json::<JobRequest>(&text).unwrap(), request.clone(), "{}", text);
            // Other readers of JSON agree that it is JSON.
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn floats_and_bytes_survive(
        cpu in any::<f32>(),
        cost in any::<f64>(),
        effective_config in proptest::collection::vec(any::<u8>(), 0..40),
        id in ".{0,6}",
    ) {
        let beat = Heartbeat { cpu_load: cpu, ..Heartbeat::default() };
        let again: Heartbeat = from_json(to_json(&beat, Mode::Full)).unwrap();
        prop_assert!(again.cpu_load.to_bits() == cpu.to_bits() || cpu.is_nan());
        let check = PolicyCheckRequest { estimated_cost: cost, effective_config, ..PolicyCheckRequest::default() };
        let mut again: PolicyCheckRequest = from_json(to_json(&check, Mode::Compact)).unwrap();
        // serde_json reads the last digit of a float only nearly.
        let error = (again.estimated_cost - cost).abs() / cost.abs().max(f64::MIN_POSITIVE);
        prop_assert!(error < 1e-15 || !cost.is_normal());
        again.estimated_cost = cost;
        prop_assert!(again == check || cost.is_nan());
        let response = PolicyCheckResponse {
            remediations: vec![PolicyRemediation { id, ..PolicyRemediation::default() }; 2],
            ..PolicyCheckResponse::default()
        };
        let again: PolicyCheckResponse = from_json(to_json(&response, Mode::Full)).unwrap();
        prop_assert_eq!(again, response);
    }

    #[test]
    fn times_agree_with_jiff(seconds in -62_135_596_800..253_402_207_200_i64) {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        let mut text = String::new();
        super::time::append(&mut text, &time);
        prop_assert_eq!(&text, &jiff::Timestamp::from_second(seconds).unwrap().to_string());
        prop_assert_eq!(super::time::parse(&text), Some(time));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_json::<BusPacket>(&bytes);
        let _ = from_json_lenient::<JobRequest>(&bytes);
    }

    #[test]
    fn almost_json_does_not_panic(text in r#"[{}\[\]":,0-9a-zA-Z\\.eE+ -]{0,120}"#) {
        let _ = from_json::<BusPacket>(&text);
        let _ = from_json_lenient::<PolicyCheckResponse>(&text);
    }
}
