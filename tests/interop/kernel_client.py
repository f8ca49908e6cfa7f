"""A client of the safety kernel, written from its .proto files alone: `kernel_client.py TARGET PROTO_DIR [CA_FILE]`.

Generates its code as any user would, calls every method, asks for health and for reflection, and prints one JSON object
with what came back.
"""

import json
import sys
import tempfile

import grpc
import grpc_tools
from google.protobuf import descriptor_pb2
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

target, protos = sys.argv[1:3]
ca = sys.argv[3] if len(sys.argv) > 3 else None

generated = tempfile.mkdtemp()
files = ["coretex/agent/v1/job.proto", "coretex/agent/v1/safety.proto"]
well_known = f"{list(grpc_tools.__path__)[0]}/_proto"
status = protoc.main(
    ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={generated}", f"--grpc_python_out={generated}", *files]
)
assert status == 0, "protoc refused the .proto files"
sys.path.insert(0, generated)
from coretex.agent.v1 import safety_pb2 as pb  # noqa: E402
from coretex.agent.v1 import safety_pb2_grpc as rpc  # noqa: E402

direct = [("grpc.enable_http_proxy", 0)]
if ca:
    with open(ca, "rb") as file:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), direct)
else:
    channel = grpc.insecure_channel(target, direct)
grpc.channel_ready_future(channel).result(timeout=60)
kernel = rpc.SafetyKernelStub(channel)


def ask(method, topic, **more):
    request = pb.PolicyCheckRequest(job_id="j1", topic=topic, tenant="acme", **more)
    try:
        answer = getattr(kernel, method)(request, timeout=60)
    except grpc.RpcError as error:
        return {"error": error.code().name, "message": error.details()}
    return MessageToDict(answer, preserving_proto_field_name=True)


def describe(path):
    """What reflection says: the services there are, and the methods of the kernel."""
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="coretex.agent.v1.SafetyKernel"),
    ]
    call = channel.stream_stream(
        path,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    services, methods = [], []
    for answer in call(iter(asked), timeout=60):
        if answer.HasField("list_services_response"):
            services = sorted(service.name for service in answer.list_services_response.service)
        for encoded in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
            methods += [method.name for service in file.service for method in service.method]
    return {"services": services, "methods": methods}


health = health_pb2_grpc.HealthStub(channel)


def serving(service):
    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


snapshots = kernel.ListSnapshots(pb.ListSnapshotsRequest(), timeout=60)
told = {
    "check": ask("Check", "job.small"),
    "evaluate": ask("Evaluate", "job.small"),
    "people": ask("Check", "job.prod.x"),
    "denied": ask("Check", "job.other"),
    "no_topic": ask("Check", ""),
    "explain": ask("Explain", "job.prod.x"),
    "simulate": ask("Simulate", "job.other", drafts={"base": "default_decision: allow\nrules: []\n"}),
    "refused": ask("Simulate", "job.other", drafts={"base": "rules:\n- {id: a, decision: alow}\n"}),
    "large": ask("Check", "job.small", effective_config=b" " * (4 * 1024 * 1024 + 1)),
    "snapshots": list(snapshots.snapshots),
    "status": json.loads(snapshots.status),
    "health": {"": serving(""), "kernel": serving("coretex.agent.v1.SafetyKernel")},
    "v1": describe("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    "v1alpha": describe("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
}
print(json.dumps(told))
