"""Envoy as it is shipped before real services, asked over HTTP and over gRPC alike.

A request is written once, as the JSON of its message; from that both ways in are
tried. Answers come back in one form, so that one table can say what each must be.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import psycopg
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from faas.v1 import function_service_pb2, invocation_service_pb2, worker_pb2
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from services.channels import connect
from tests.integration.gateway import Envoy, running_envoy
from tests.mesh import Mesh

TABLES = ("functions", "function_versions", "uploads", "invocations")

# Of each RPC: HTTP method, path, and whether its fields go in a body.
BINDINGS = {
    "CreateFunction": ("POST", "/functions", True),
    "GetFunction": ("GET", "/functions/{function_id}", False),
    "ListFunctions": ("GET", "/functions", False),
    "UpdateFunction": ("PATCH", "/functions/{function_id}", True),
    "DeleteFunction": ("DELETE", "/functions/{function_id}", False),
    "GetFunctionVersion": ("GET", "/functions/{function_id}/versions/{version}", False),
    "ListFunctionVersions": ("GET", "/functions/{function_id}/versions", False),
    "Invoke": ("POST", "/invoke", True),
    "GetInvocation": ("GET", "/invocations/{invocation_id}", False),
    "ListInvocations": ("GET", "/invocations", False),
    "GetInvocationLogs": ("GET", "/invocations/{invocation_id}/logs", False),
    "ListWorkers": ("GET", "/workers", False),
    "GetWorker": ("GET", "/workers/{worker_id}", False),
    "DrainWorker": ("POST", "/workers/{worker_id}:drain", True),
}


@dataclass(frozen=True)
class Answer:
    """What came back, whichever way: code 0 with a message, or an error."""

    code: int
    reason: str = ""
    message: str = ""
    fields: frozenset[str] = frozenset()
    body: dict[str, Any] = field(default_factory=dict)
    http_status: int = 0


@dataclass
class Platform:
    """Envoy, the mesh behind it, and its clients."""

    mesh: Mesh
    envoy: Envoy
    http: httpx.AsyncClient
    channel: grpc.aio.Channel

    async def ask(self, way: str, rpc: str, fields: dict[str, Any]) -> Answer:
        """Call `rpc` with a request of these fields, over `http` or `grpc`."""
        return await (self.over_http if way == "http" else self.over_grpc)(rpc, fields)

    async def over_http(self, rpc: str, fields: dict[str, Any]) -> Answer:
        """Call by its HTTP binding."""
        method, path, has_body = BINDINGS[rpc]
        rest = dict(fields)
        for name in list(rest):
            if f"{{{name}}}" in path:
                quoted = httpx.QueryParams({"": rest.pop(name)})
                path = path.replace(f"{{{name}}}", str(quoted)[1:].replace("+", "%20"))
        if has_body:
            return answer_of(await self.http.request(method, path, json=rest))
        return answer_of(await self.http.request(method, path, params=rest))

    async def over_grpc(self, rpc: str, fields: dict[str, Any]) -> Answer:
        """Call by the generated stub."""
        stubs = (FunctionServiceStub(self.channel), InvocationServiceStub(self.channel))
        call = next(getattr(stub, rpc) for stub in stubs if hasattr(stub, rpc))
        request = json_format.ParseDict(fields, new_request(rpc))
        try:
            answer: Message = await call(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            return answer_of_error(error)
        body = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        return Answer(0, body=body, http_status=200)

    def written(self) -> dict[str, int]:
        """How much there is in every table and in the code storage."""
        with psycopg.connect(self.mesh.database_url) as connection:
            counts = {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in TABLES
            }
        files = (self.mesh.directory / "storage").rglob("*")
        return counts | {"files": sum(path.is_file() for path in files)}


def new_request(rpc: str) -> Message:
    """An empty request of `rpc`."""
    modules = (function_service_pb2, invocation_service_pb2, worker_pb2)
    return next(getattr(m, f"{rpc}Request")() for m in modules if hasattr(m, f"{rpc}Request"))


def answer_of(response: httpx.Response) -> Answer:
    """What an HTTP answer says."""
    body = response.json()
    if response.status_code == 200:
        return Answer(0, body=body, http_status=200)
    assert set(body) == {"code", "message", "details"}, body
    info, *rest = body["details"]
    violations = [v["field"] for detail in rest for v in detail["field_violations"]]
    return Answer(
        code=body["code"],
        reason=info["reason"],
        message=body["message"],
        fields=frozenset(violations),
        http_status=response.status_code,
    )


def answer_of_error(error: grpc.aio.AioRpcError) -> Answer:
    """What the status of a gRPC call says."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info) or detail.Unpack(bad)
    return Answer(
        code=error.code().value[0],
        reason=info.reason,
        message=error.details() or "",
        fields=frozenset(violation.field for violation in bad.field_violations),
    )


@asynccontextmanager
async def running_platform(
    database_url: str, redis_url: str, **functions_settings: object
) -> AsyncIterator[Platform]:
    """Envoy before FunctionService and InvocationService; workers come when started."""
    with tempfile.TemporaryDirectory(prefix="faas-mesh-", dir="/tmp") as path:
        directory = Path(path)
        async with Mesh(directory, database_url, redis_url) as mesh:
            await mesh.start("functions", **functions_settings)
            await mesh.start("invocations", max_payload_bytes=1024 * 1024)
            addresses = {
                "functions_address": mesh.address("functions"),
                "invocations_address": mesh.address("invocations"),
            }
            async with (
                running_envoy(directory, **addresses) as envoy,
                envoy.client() as http,
                connect(f"127.0.0.1:{envoy.port}") as channel,
            ):
                yield Platform(mesh, envoy, http, channel)
