"""gRPC through Envoy, on the port that HTTP/JSON has: native, gRPC-Web, and grpcurl."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from faas.json_values import to_value
from faas.v1.execution_service_pb2_grpc import ExecutionServiceStub
from faas.v1.function_pb2 import Function
from faas.v1.function_registry_service_pb2 import GetVersionRequest
from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceStub
from faas.v1.function_service_pb2 import (
    CreateFunctionRequest,
    DownloadCodeRequest,
    GetFunctionRequest,
    UploadCodeRequest,
)
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2 import InvokeRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.worker_pb2 import GetWorkerRequest, Worker
from faas.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.channels import connect, from_rpc_error
from services.errors import FunctionNotFound, InvalidField
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.integration.gateway import CODE_CHUNKS, Stack, running_gateway, running_stack
from tests.mesh import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRPCURL = Path(sys.executable).with_name("grpcurl")
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    run_dir: Path, postgres_server: Postgres, valkey_server: Valkey
) -> AsyncIterator[Stack]:
    directory = run_dir / "gw-grpc"
    async with running_stack(directory) as running:
        running.invocations.workers.append(Worker(id="worker-1", state=Worker.READY))
        urls = {"database_url": postgres_server.url, "redis_url": valkey_server.url}
        async with running_gateway(directory, **urls):
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def channel(stack: Stack) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(stack.target) as channel:
        yield channel


async def test_a_call_keeps_its_id_and_is_logged(stack, channel):
    call = InvocationServiceStub(channel).Invoke(
        InvokeRequest(function_id="f", payload=to_value({"a": 1}))
    )
    answer = await call
    assert (answer.function_id, answer.payload) == ("f", to_value({"a": 1}))
    request_id = dict(await call.initial_metadata())["x-request-id"]
    assert stack.invocations.calls[-1].request_id == request_id
    line = stack.envoy.logged(request_id)
    assert line["path"] == line["rpc"] == "/faas.v1.InvocationService/Invoke"
    assert (line["status"], line["grpc_status"]) == (200, "0")
    assert (line["protocol"], line["upstream"]) == ("HTTP/2", "invocations")


async def test_a_deadline_reaches_the_service(stack, channel):
    await InvocationServiceStub(channel).Invoke(InvokeRequest(function_id="f"), timeout=100)
    left = stack.invocations.calls[-1].time_left_s()
    assert left is not None
    # On the wire a long one is in whole seconds, rounded up.
    assert left <= 101


async def test_an_error_arrives_whole(stack, channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FunctionServiceStub(channel).GetFunction(GetFunctionRequest(function_id="missing"))
    error = from_rpc_error(caught.value, "FunctionService")
    assert isinstance(error, FunctionNotFound)
    assert error.metadata == {"function_id": "missing"}
    # An answer that is an error alone has no headers but its trailers.
    request_id = dict(caught.value.trailing_metadata())["x-request-id"]
    assert stack.envoy.logged(request_id)["grpc_status"] == "5"


async def test_wrong_fields_are_named(stack, channel):
    request = CreateFunctionRequest(name="Bad Name", runtime="python", code="x", memory_mb=1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FunctionServiceStub(channel).CreateFunction(request)
    error = from_rpc_error(caught.value, "FunctionService")
    assert type(error) is InvalidField
    assert {violation.field for violation in error.violations} == {"name", "memory_mb"}


async def test_an_upload_streams_beyond_the_limit_of_json(stack, channel):
    async def chunks() -> AsyncIterator[UploadCodeRequest]:
        for _ in range(80):
            request = UploadCodeRequest()
            request.chunk.data = b"x" * 65536
            yield request

    upload = await FunctionServiceStub(channel).UploadCode(chunks())
    assert (upload.id, upload.size_bytes) == ("80", 80 * 65536)


async def test_a_download_comes_in_the_chunks_that_were_sent(stack, channel):
    call = FunctionServiceStub(channel).DownloadCode(DownloadCodeRequest(function_id="hello"))
    assert [chunk.data async for chunk in call] == CODE_CHUNKS


async def test_services_of_the_mesh_are_out_of_reach(stack, channel):
    reporting = ExecutionServiceStub(channel).ReportExecutions()
    assert await reporting.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as fetched:
        await FunctionRegistryServiceStub(channel).GetVersion(GetVersionRequest(function_id="f"))
    with pytest.raises(grpc.aio.AioRpcError) as asked:
        await WorkerServiceStub(channel).GetWorker(GetWorkerRequest())
    for caught in (fetched, asked):
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == "There is no such service."
        status = rpc_status.from_call(caught.value)
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == ("UNKNOWN_PATH", "faas-mesh")


async def test_health_is_the_standard_service(stack, channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "faas.v1.FunctionService", "faas.v1.InvocationService"):
        request = health_pb2.HealthCheckRequest(service=service)

        async def serves(request: Message = request) -> bool:
            return (await health.Check(request)).status == SERVING

        await eventually(f"{service or 'the whole'} serves", serves)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nonsense"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_can_be_watched(stack, channel):
    health = health_pb2_grpc.HealthStub(channel)
    watching = health.Watch(health_pb2.HealthCheckRequest())
    await _until(watching, SERVING)
    worker = stack.invocations.workers.pop()
    await _until(watching, health_pb2.HealthCheckResponse.NOT_SERVING)
    stack.invocations.workers.append(worker)
    await _until(watching, SERVING)
    watching.cancel()


async def _until(watching, status) -> None:
    async for answer in watching:
        if answer.status == status:
            return


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
async def test_grpc_web(stack, text):
    request = GetFunctionRequest(function_id="hello")
    status, frames = await _grpc_web(stack, request, text=text)
    assert status == 200
    (message_flag, message), (trailer_flag, trailer) = frames
    assert (message_flag, trailer_flag) == (0, 0x80)
    assert Function.FromString(message) == Function(id="func-1", name="hello")
    assert b"grpc-status:0" in trailer


async def test_grpc_web_errors_have_their_details(stack):
    request = GetFunctionRequest(function_id="missing")
    status, frames = await _grpc_web(stack, request, text=False)
    assert status == 200
    trailers = dict(
        line.split(":", 1) for line in frames[-1][1].decode().split("\r\n") if ":" in line
    )
    assert trailers["grpc-status"] == "5"
    packed = base64.b64decode(trailers["grpc-status-details-bin"] + "==")
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    assert info.reason == "FUNCTION_NOT_FOUND"


async def _grpc_web(stack: Stack, request: Message, *, text: bool) -> tuple[int, list]:
    """The HTTP status and the frames, each with its flag, of a call of GetFunction."""
    message = request.SerializeToString()
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    async with stack.envoy.client() as http:
        answer = await http.post(
            "/faas.v1.FunctionService/GetFunction",
            content=base64.b64encode(body) if text else body,
            headers={"content-type": kind, "x-grpc-web": "1", "accept": kind},
        )
    assert answer.headers["content-type"].startswith("application/grpc-web")
    rest = _from_base64(answer.content) if text else answer.content
    frames = []
    if "grpc-status" in answer.headers:  # an answer without a message has no body
        names = ("grpc-status", "grpc-status-details-bin")
        lines = [f"{name}:{answer.headers.get(name, '')}" for name in names]
        return answer.status_code, [(0x80, "\r\n".join(lines).encode())]
    while rest:
        length = int.from_bytes(rest[1:5], "big")
        frames.append((rest[0], rest[5 : 5 + length]))
        rest = rest[5 + length :]
    return answer.status_code, frames


def _from_base64(data: bytes) -> bytes:
    """Pieces of base64 one after the other, each padded for itself."""
    return b"".join(base64.b64decode(data[i : i + 4]) for i in range(0, len(data), 4))


async def test_grpcurl_lists_the_public_services(stack):
    assert set((await _grpcurl(stack, "list")).split()) == {
        "faas.v1.FunctionService",
        "faas.v1.InvocationService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    methods = await _grpcurl(stack, "list", "faas.v1.InvocationService")
    assert "faas.v1.InvocationService.Invoke" in methods.split()


async def test_grpcurl_describes_with_bindings(stack):
    described = await _grpcurl(stack, "describe", "faas.v1.InvocationService.Invoke")
    assert "rpc Invoke ( .faas.v1.InvokeRequest ) returns ( .faas.v1.Invocation )" in described
    assert "/invoke" in described
    assert "string function_id = 1" in await _grpcurl(stack, "describe", "faas.v1.InvokeRequest")


async def test_grpcurl_calls(stack):
    request = json.dumps({"function_id": "hello", "payload": {"a": [1, None]}})
    answer = json.loads(await _grpcurl(stack, "faas.v1.InvocationService/Invoke", data=request))
    assert answer["function_id"] == "hello"
    assert answer["payload"] == {"a": [1, None]}
    assert json.loads(await _grpcurl(stack, "grpc.health.v1.Health/Check"))["status"]


async def test_grpcurl_shows_what_is_wrong(stack):
    request = json.dumps({"name": "Bad Name", "runtime": "python", "code": "x"})
    method = "faas.v1.FunctionService/CreateFunction"
    shown = await _grpcurl(stack, method, data=request, fails=True)
    assert "InvalidArgument" in shown
    assert "INVALID_FIELD" in shown
    assert '"field":"name"' in shown


async def _grpcurl(stack: Stack, *arguments: str, data: str = "", fails: bool = False) -> str:
    options = ["-plaintext", "-max-time", "30", *(["-d", data] if data else [])]
    process = await asyncio.create_subprocess_exec(
        *(GRPCURL, *options, stack.target, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert (process.returncode != 0) == fails, output.decode()
    return output.decode()
