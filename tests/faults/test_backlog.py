"""Many that wait, and a queue that loses them all: each is started once all the same."""

import asyncio
import os
from pathlib import Path

import pytest

from faas.v1.worker_pb2 import DrainWorkerRequest, ResumeWorkerRequest
from tests.faults.instant import instant_worker
from tests.faults.stack import WORKERS, Stack
from tests.mesh import QUEUE, eventually

BACKLOG = int(os.environ.get("FAAS_FAULT_BACKLOG", "2500"))
# The default of InvocationService, and what replies of the same moment may add.
QUEUE_LIMIT, CLIENTS = 2000, 64

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


async def test_a_backlog_survives_flushall(stack: Stack, tmp_path: Path) -> None:
    for name in WORKERS:
        await stack.worker(name).DrainWorker(DrainWorkerRequest())
    await stack.create("waits")
    accepted: list[str] = []
    lengths: list[int] = []

    async def client() -> None:
        while len(accepted) < BACKLOG:
            accepted.append((await stack.invoke("waits", len(accepted))).id)

    async def watch() -> None:
        while True:
            lengths.append(await stack.redis.llen(QUEUE))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await stack.redis.flushall()
    async with instant_worker(stack, tmp_path) as runtime:

        async def some_started() -> bool:
            return len(runtime.starts) > len(accepted) // 2

        await eventually("half of them started", some_started, 600)
        await stack.redis.flushall()

        async def all_ended() -> bool:
            rows = stack.rows(
                "SELECT count(*) AS ended FROM invocations"
                " WHERE function_name = 'waits' AND status = 'completed'"
            )
            return rows[0]["ended"] == len(accepted)

        await eventually("all of them ended", all_ended, 600)
    watching.cancel()
    assert set(runtime.starts) == set(accepted)
    assert set(runtime.starts.values()) == {1}
    assert max(lengths) <= QUEUE_LIMIT + CLIENTS
    for name in WORKERS:
        await stack.worker(name).ResumeWorker(ResumeWorkerRequest())
