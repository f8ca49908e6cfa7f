//! Every message and every field, once. A test compares this with the compiled `proto/`.

use serde::de::MapAccess;

use super::read::{EnumSlot, Input};
use super::write::ObjectWriter;
use super::{FieldInfo, JsonMessage};
use crate::protocol::agent::{
    ActorType, Budget, BudgetConstraints, BusPacket, ContextHints, DecisionType, DiffConstraints, Heartbeat, JobCancel,
    JobMetadata, JobPriority, JobProgress, JobRequest, JobResult, JobStatus, ListSnapshotsRequest,
    ListSnapshotsResponse, PolicyCheckRequest, PolicyCheckResponse, PolicyConstraints, PolicyRemediation,
    SandboxProfile, SystemAlert, ToolchainConstraints, bus_packet,
};

/// An enum of the protocol.
pub(super) trait ProtoEnum {
    /// Its name in `proto/`.
    #[cfg(test)]
    const NAME: &'static str;

    /// The name of a value.
    fn name_of(number: i32) -> Option<&'static str>;

    /// The value of a name.
    fn number_of(name: &str) -> Option<i32>;
}

macro_rules! enums {
    ($($name:ident),+ $(,)?) => {$(
        impl ProtoEnum for $name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            fn name_of(number: i32) -> Option<&'static str> {
                Self::try_from(number).ok().map(|value| value.as_str_name())
            }

            fn number_of(name: &str) -> Option<i32> {
                Self::from_str_name(name).map(|value| value as i32)
            }
        }
    )+

        /// The enums, for the test of completeness.
        #[cfg(test)]
        pub(super) const ENUMS: &[&str] = &[$(<$name as ProtoEnum>::NAME),+];
    };
}

enums!(JobPriority, JobStatus, ActorType, DecisionType);

/// One table per message: `number field "jsonName"`, then the enum of its values if that is what they are.
macro_rules! messages {
    (@name r#type) => { "type" };
    (@name $field:ident) => { stringify!($field) };
    (@enum_name) => { None };
    (@enum_name $enum:ident) => { Some(stringify!($enum)) };
    (@write $self:ident $writer:ident $field:ident $json:literal) => {
        $writer.member($json, messages!(@name $field), &$self.$field)
    };
    (@write $self:ident $writer:ident $field:ident $json:literal $enum:ident) => {
        $writer.enumeration::<$enum>($json, messages!(@name $field), $self.$field)
    };
    (@read $self:ident $input:ident $number:literal $field:ident $json:literal) => {
        $input.value($number, $json, &mut $self.$field)
    };
    (@read $self:ident $input:ident $number:literal $field:ident $json:literal $enum:ident) => {
        $input.value($number, $json, &mut EnumSlot::<$enum>::new(&mut $self.$field))
    };
    ($($message:ident { $($number:literal $field:ident $json:literal $(as $enum:ident)?;)* })+) => {
        $(impl JsonMessage for $message {
            const NAME: &'static str = stringify!($message);
            const FIELDS: &'static [FieldInfo] = &[$(FieldInfo {
                number: $number,
                name: messages!(@name $field),
                json: $json,
                enumeration: messages!(@enum_name $($enum)?),
            }),*];

            fn write_members(&self, _writer: &mut ObjectWriter<'_>) {
                $(messages!(@write self _writer $field $json $($enum)?);)*
            }

            fn read_member<'de, A: MapAccess<'de>>(
                &mut self,
                _key: &str,
                _input: &mut Input<'_, A>,
            ) -> Result<bool, A::Error> {
                $(if _key == $json || _key == messages!(@name $field) {
                    return messages!(@read self _input $number $field $json $($enum)?);
                })*
                Ok(false)
            }
        })+

        /// The messages with a plain table, for the test of completeness.
        #[cfg(test)]
        pub(super) const PLAIN: &[(&str, &[FieldInfo])] = &[
            $((<$message as JsonMessage>::NAME, <$message as JsonMessage>::FIELDS)),+
        ];
    };
}

messages! {
    SystemAlert {
        1 level "level";
        2 message "message";
        3 component "component";
        4 code "code";
    }
    Heartbeat {
        1 worker_id "workerId";
        2 region "region";
        3 r#type "type";
        4 cpu_load "cpuLoad";
        5 gpu_utilization "gpuUtilization";
        6 active_jobs "activeJobs";
        7 capabilities "capabilities";
        11 pool "pool";
        12 max_parallel_jobs "maxParallelJobs";
        13 labels "labels";
    }
    JobRequest {
        1 job_id "jobId";
        2 topic "topic";
        3 priority "priority" as JobPriority;
        4 context_ptr "contextPtr";
        5 adapter_id "adapterId";
        6 env "env";
        7 parent_job_id "parentJobId";
        8 workflow_id "workflowId";
        9 step_index "stepIndex";
        10 memory_id "memoryId";
        11 context_hints "contextHints";
        12 budget "budget";
        13 tenant_id "tenantId";
        14 principal_id "principalId";
        15 labels "labels";
        16 meta "meta";
    }
    JobMetadata {
        1 tenant_id "tenantId";
        2 actor_id "actorId";
        3 actor_type "actorType" as ActorType;
        4 idempotency_key "idempotencyKey";
        5 capability "capability";
        6 risk_tags "riskTags";
        7 requires "requires";
        8 pack_id "packId";
        9 labels "labels";
    }
    ContextHints {
        1 max_input_tokens "maxInputTokens";
        2 allow_summarization "allowSummarization";
        3 allow_retrieval "allowRetrieval";
        4 tags "tags";
    }
    Budget {
        1 max_input_tokens "maxInputTokens";
        2 max_output_tokens "maxOutputTokens";
        3 max_total_tokens "maxTotalTokens";
        4 deadline_ms "deadlineMs";
    }
    JobResult {
        1 job_id "jobId";
        2 status "status" as JobStatus;
        3 result_ptr "resultPtr";
        4 worker_id "workerId";
        5 execution_ms "executionMs";
        6 error_code "errorCode";
        7 error_message "errorMessage";
        8 artifact_ptrs "artifactPtrs";
    }
    JobProgress {
        1 job_id "jobId";
        2 step_id "stepId";
        3 percent "percent";
        4 message "message";
        5 result_ptr "resultPtr";
        6 artifact_ptrs "artifactPtrs";
        7 status "status" as JobStatus;
    }
    JobCancel {
        1 job_id "jobId";
        2 reason "reason";
        3 requested_by "requestedBy";
    }
    PolicyCheckRequest {
        1 job_id "jobId";
        2 topic "topic";
        3 tenant "tenant";
        4 priority "priority" as JobPriority;
        5 estimated_cost "estimatedCost";
        6 budget "budget";
        7 principal_id "principalId";
        8 labels "labels";
        9 memory_id "memoryId";
        10 effective_config "effectiveConfig";
        11 meta "meta";
    }
    PolicyCheckResponse {
        1 decision "decision" as DecisionType;
        2 reason "reason";
        3 redacted_context_ptr "redactedContextPtr";
        4 policy_snapshot "policySnapshot";
        5 rule_id "ruleId";
        6 constraints "constraints";
        7 approval_required "approvalRequired";
        8 approval_ref "approvalRef";
        9 remediations "remediations";
    }
    PolicyConstraints {
        1 budgets "budgets";
        2 sandbox "sandbox";
        3 toolchain "toolchain";
        4 diff "diff";
        5 redaction_level "redactionLevel";
    }
    BudgetConstraints {
        1 max_runtime_ms "maxRuntimeMs";
        2 max_retries "maxRetries";
        3 max_artifact_bytes "maxArtifactBytes";
        4 max_concurrent_jobs "maxConcurrentJobs";
    }
    SandboxProfile {
        1 isolated "isolated";
        2 network_allowlist "networkAllowlist";
        3 fs_read_only "fsReadOnly";
        4 fs_read_write "fsReadWrite";
    }
    ToolchainConstraints {
        1 allowed_tools "allowedTools";
        2 allowed_commands "allowedCommands";
    }
    DiffConstraints {
        1 max_files "maxFiles";
        2 max_lines "maxLines";
        3 deny_path_globs "denyPathGlobs";
    }
    PolicyRemediation {
        1 id "id";
        2 title "title";
        3 summary "summary";
        4 replacement_topic "replacementTopic";
        5 replacement_capability "replacementCapability";
        6 add_labels "addLabels";
        7 remove_labels "removeLabels";
    }
    ListSnapshotsRequest {}
    ListSnapshotsResponse {
        1 snapshots "snapshots";
    }
}

/// The envelope, whose payload is a oneof: one member per kind, at the top level.
macro_rules! envelope {
    (
        before { $($number:literal $field:ident $json:literal;)* }
        payload { $($arm_number:literal $arm:ident $arm_name:ident $arm_json:literal;)* }
        after { $($last_number:literal $last:ident $last_json:literal;)* }
    ) => {
        impl JsonMessage for BusPacket {
            const NAME: &'static str = "BusPacket";
            const FIELDS: &'static [FieldInfo] = &[
                $(FieldInfo { number: $number, name: stringify!($field), json: $json, enumeration: None },)*
                $(FieldInfo { number: $arm_number, name: stringify!($arm_name), json: $arm_json, enumeration: None },)*
                $(FieldInfo { number: $last_number, name: stringify!($last), json: $last_json, enumeration: None },)*
            ];

            fn write_members(&self, writer: &mut ObjectWriter<'_>) {
                $(writer.member($json, stringify!($field), &self.$field);)*
                match &self.payload {
                    None => {}
                    $(Some(bus_packet::Payload::$arm(message)) => {
                        writer.message($arm_json, stringify!($arm_name), message);
                    })*
                }
                $(writer.member($last_json, stringify!($last), &self.$last);)*
            }

            fn read_member<'de, A: MapAccess<'de>>(
                &mut self,
                key: &str,
                input: &mut Input<'_, A>,
            ) -> Result<bool, A::Error> {
                $(if key == $json || key == stringify!($field) {
                    return input.value($number, $json, &mut self.$field);
                })*
                $(if key == $arm_json || key == stringify!($arm_name) {
                    let mut message = None;
                    input.value($arm_number, $arm_json, &mut message)?;
                    if let Some(message) = message {
                        input.only_payload($arm_json, self.payload.is_some())?;
                        self.payload = Some(bus_packet::Payload::$arm(message));
                    }
                    return Ok(true);
                })*
                $(if key == $last_json || key == stringify!($last) {
                    return input.value($last_number, $last_json, &mut self.$last);
                })*
                Ok(false)
            }
        }
    };
}

envelope! {
    before {
        1 trace_id "traceId";
        2 sender_id "senderId";
        3 created_at "createdAt";
        4 protocol_version "protocolVersion";
    }
    payload {
        10 JobRequest job_request "jobRequest";
        11 JobResult job_result "jobResult";
        12 Heartbeat heartbeat "heartbeat";
        13 Alert alert "alert";
        15 JobProgress job_progress "jobProgress";
        16 JobCancel job_cancel "jobCancel";
    }
    after {
        14 signature "signature";
    }
}
