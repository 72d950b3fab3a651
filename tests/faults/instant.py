"""A worker of the real kind whose functions take no time: for many invocations."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from faas.v1.execution_service_pb2_grpc import ExecutionServiceStub
from faas.v1.function_build_service_pb2_grpc import FunctionBuildServiceStub
from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceStub
from services import ids
from services.channels import connect
from services.worker.agent import Agent
from services.worker.binaries import Binaries
from services.worker.builder import Builder
from services.worker.code_cache import CodeCache
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    Line,
    RuntimeUnavailable,
    Verdict,
)
from services.worker.spool import Spool
from tests.faults.stack import Stack


class InstantRuntime:
    """Answers each payload with itself, and counts."""

    name = "instant"
    keeps_warm = False

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()

    async def start(self) -> None:
        """Nothing to do."""

    def images(self) -> Mapping[str, str]:
        return {"python": "instant"}

    async def target(self) -> str:
        raise RuntimeUnavailable("nothing is compiled here")

    async def build(self, _spec: FunctionSpec) -> FunctionFailure | None:
        raise RuntimeUnavailable("nothing is compiled here")

    async def prepare(self, _spec: FunctionSpec) -> None:
        """Nothing to do."""

    def keep(self, _wanted: Sequence[tuple[FunctionSpec, int]]) -> None:
        """Nothing to keep."""

    def holdings(self) -> None:
        """Nothing."""

    async def execute(self, assignment: Assignment, _on_line: Callable[[Line], None]) -> Verdict:
        self.starts[assignment.invocation_id] += 1
        return Verdict(result=assignment.payload, image="instant")

    async def close(self) -> None:
        """Nothing to do."""


@asynccontextmanager
async def instant_worker(stack: Stack, directory: Path) -> AsyncIterator[InstantRuntime]:
    """A worker in this process, until the block ends."""
    runtime = InstantRuntime()
    boot = str(ids.new_uuid())
    spool = Spool(directory / "spool", boot_id=boot, max_result_bytes=1 << 20, slots=64)
    spool.open()
    functions, invocations = (connect(stack.address(n)) for n in ("functions", "invocations"))
    redis = Redis.from_url(stack.redis_url)
    worker_id, builds = ids.show(ids.WORKER, ids.new_uuid()), FunctionBuildServiceStub(functions)
    agent = Agent(
        worker_id=worker_id,
        boot_id=boot,
        runtime=runtime,
        cache=CodeCache(
            FunctionRegistryServiceStub(functions),
            directory / "functions",
            max_unpacked_bytes=1 << 20,
        ),
        binaries=Binaries(builds, runtime),
        builder=Builder(
            builds, runtime, directory / "builds", worker_id=worker_id, max_unpacked_bytes=1 << 20
        ),
        redis=redis,
        executions=ExecutionServiceStub(invocations),
        spool=spool,
        legacies=(),
        concurrency=64,
        heartbeat_interval_s=2.0,
        heartbeat_fresh_s=10,
    )
    working = asyncio.create_task(agent.run())
    try:
        yield runtime
    finally:
        await agent.drained(30)
        working.cancel()
        await asyncio.wait({working})
        await agent.goodbye()
        spool.close()
        await redis.aclose()
        await functions.close()
        await invocations.close()
