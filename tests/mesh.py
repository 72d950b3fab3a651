"""A mesh of real processes for tests, without Envoy: services and workers.

Each part is a process of its own, on a unix socket in a directory of its own, so
that a test can pause, kill and restart it.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc
import grpc.aio
import psycopg
from psycopg.rows import dict_row
from redis.asyncio import Redis

from faas.json_values import to_value
from faas.v1.function_pb2 import Function
from faas.v1.function_service_pb2 import CreateFunctionRequest
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import GetInvocationRequest, InvokeRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.channels import connect

# Longer than any part takes to drain.
STOP_S = 60
QUEUE = "faas:queue:faas_executions"
Found = TypeVar("Found")

ECHO = """
def handler(payload, context):
    return payload
"""


async def eventually(
    what: str, look: Callable[[], Awaitable[Found]], timeout_s: float = 30
) -> Found:
    """What `look` finds, as soon as it finds something true."""
    deadline = time.monotonic() + timeout_s
    while not (found := await look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        await asyncio.sleep(0.02)
    return found


@dataclass
class Mesh:
    """The parts, by name: `functions`, `invocations`, `worker-1`, …"""

    directory: Path
    database_url: str
    redis_url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    async def __aenter__(self) -> "Mesh":
        self.redis = Redis.from_url(self.redis_url)
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        stuck = []
        for name in sorted(self.processes, reverse=True):  # workers first
            self.signal(name, signal.SIGCONT)
            self.signal(name, signal.SIGTERM)
            try:
                self.processes[name].wait(STOP_S)
            except subprocess.TimeoutExpired:
                stuck.append(f"{name} did not end:\n{self.log(name)}")
                await self.kill(name)
        for channel in self.channels.values():
            await channel.close()
        await self.redis.aclose()
        assert not stuck, "\n\n".join(stuck)

    async def start(self, *names: str, **settings: object) -> None:
        """Start parts, with settings such as `lease_s=2` beside the needed ones."""
        self.begin(*names, **settings)
        for name in names:
            await asyncio.wait_for(self.channel(name).channel_ready(), 120)

    def begin(self, *names: str, **settings: object) -> None:
        """Start parts, as `start` does, without waiting until they listen."""
        for name in names:
            self._spawn(name, settings)

    async def kill(self, name: str) -> None:
        """kill -9, and wait for its end."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    async def stop(self, name: str) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        self.signal(name, signal.SIGTERM)
        return await asyncio.to_thread(self.processes.pop(name).wait, STOP_S)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a part that runs."""
        if self.processes[name].poll() is None:
            self.processes[name].send_signal(number)

    def log(self, name: str) -> str:
        """What a part has logged so far."""
        return (self.directory / f"{name}.log").read_text()

    def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a part."""
        if name not in self.channels:
            self.channels[name] = connect(self.address(name))
        return self.channels[name]

    def address(self, name: str) -> str:
        """Where a part listens."""
        return f"unix:{self.directory}/{name}.sock"

    @property
    def functions(self) -> FunctionServiceStub:
        """FunctionService."""
        return FunctionServiceStub(self.channel("functions"))

    @property
    def invocations(self) -> InvocationServiceStub:
        """InvocationService."""
        return InvocationServiceStub(self.channel("invocations"))

    def worker(self, name: str) -> WorkerServiceStub:
        """A worker's own server."""
        return WorkerServiceStub(self.channel(name))

    async def create(self, name: str, code: str = ECHO, **fields: object) -> Function:
        """Create a function, in Python unless `runtime` says otherwise."""
        values = {"name": name, "runtime": "python", "code": code, **fields}
        return await self.functions.CreateFunction(CreateFunctionRequest(**values))

    async def invoke(
        self,
        function: str,
        payload: object = None,
        wait_s: float = 0,
        wait_for_ready: bool = False,
        at: str = "invocations",
        **fields: object,
    ) -> Invocation:
        """Invoke a function at a replica; with `wait_for_ready`, once it is there."""
        request = InvokeRequest(function_id=function, payload=to_value(payload), **fields)
        request.wait.FromMilliseconds(int(wait_s * 1000))
        return await InvocationServiceStub(self.channel(at)).Invoke(
            request, timeout=wait_s + 30, wait_for_ready=wait_for_ready
        )

    async def get(self, invocation_id: str, wait_s: float = 0) -> Invocation:
        """A record, now or when it has ended."""
        request = GetInvocationRequest(invocation_id=invocation_id)
        request.wait.FromMilliseconds(int(wait_s * 1000))
        return await self.invocations.GetInvocation(request, timeout=wait_s + 30)

    def rows(self, query: str, *parameters: object) -> list[dict[str, object]]:
        """What PostgreSQL has, read beside the services."""
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    async def queue_is_empty(self) -> bool:
        """Whether nothing is in the queue nor in a processing list."""
        names = [key async for key in self.redis.scan_iter(match=f"{QUEUE}*")]
        return not names

    def command(self, _name: str, part: str) -> list[str]:
        """How a part is run."""
        return [sys.executable, "-m", f"services.{part}"]

    def environment(self, _name: str) -> dict[str, str]:
        """What a part's process needs beside its settings."""
        return {"PATH": os.environ["PATH"]}

    def _spawn(self, name: str, settings: dict[str, object]) -> None:
        part = name.partition("-")[0]
        values = {**self._needed(name, part), **settings, "log_format": "text"}
        environment = {f"FAAS_{part.upper()}_{key.upper()}": str(v) for key, v in values.items()}
        with (self.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                self.command(name, part),
                env={**self.environment(name), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _needed(self, name: str, part: str) -> dict[str, object]:
        needed: dict[str, object] = {"listen_address": self.address(name)}
        if part in ("functions", "invocations"):
            needed["database_url"] = self.database_url
        if part in ("invocations", "worker"):
            needed |= {
                "redis_url": self.redis_url,
                "functions_address": self.address("functions"),
            }
        if part in ("functions", "invocations"):
            needed["storage_url"] = f"file://{self.directory}/storage"
        if part == "worker":
            needed |= {
                "invocations_address": self.address("invocations"),
                "state_dir": self.directory / name,
                "work_dir": self.directory / "work",
                "stack": self.directory.name,
                "runtime": "process",
                "heartbeat_interval_s": 0.5,
            }
        return needed
