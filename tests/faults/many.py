"""What shows in great numbers only: backlogs, races, batches, on a worker that takes no time."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest
from faas.v1.worker_pb2 import DrainWorkerRequest, ResumeWorkerRequest
from tests.faults.instant import instant_worker
from tests.faults.load import ENDED
from tests.faults.stack import WORKERS, Stack
from tests.mesh import QUEUE, eventually

# The default of InvocationService, and what replies of the same moment may add.
QUEUE_LIMIT, CLIENTS = 2000, 64
END_S = 1800
# A machine that has other things to do takes less.
BACKLOG = int(os.environ.get("FAAS_FAULT_BACKLOG", "100000"))
TOGETHER = 50
# What PostgreSQL is made to reject.
REJECTED = 666


@dataclass(frozen=True)
class Feat:
    """One row, played on a stack without load."""

    name: str
    play: Callable[[Stack, Path, int], Awaitable[None]]
    count: int
    """How many invocations `make faults` plays it with."""


async def backlog(stack: Stack, directory: Path, count: int) -> None:
    """All accepted before any can start, FLUSHALL twice: each is started once."""
    async with _idle(stack):
        await stack.create("waits")
        accepted: list[str] = []
        lengths: list[int] = []

        async def client() -> None:
            while len(accepted) < count:
                accepted.append((await stack.invoke("waits", len(accepted))).id)

        async def watch() -> None:
            while True:
                lengths.append(await stack.redis.llen(QUEUE))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await stack.redis.flushall()
        async with instant_worker(stack, directory) as runtime:

            async def some_started() -> bool:
                return len(runtime.starts) > len(accepted) // 2

            await eventually("half of them started", some_started, END_S)
            await stack.redis.flushall()
            await _completed(stack, "waits", len(accepted))
        watching.cancel()
        assert set(runtime.starts) == set(accepted)
        assert set(runtime.starts.values()) == {1}
        assert max(lengths) <= QUEUE_LIMIT + CLIENTS


async def races(stack: Stack, directory: Path, count: int) -> None:
    """Cancelling races the verdict: one of them wins, and it stays so."""
    async with _idle(stack), instant_worker(stack, directory):
        await stack.create("raced")
        rng, seen, delay_s = random.Random(count), dict[str, int](), 0.01

        async def client() -> None:
            nonlocal delay_s
            while len(seen) < count:
                record = await stack.invoke("raced", 1)
                seen[record.id] = Invocation.STATUS_UNSPECIFIED
                await asyncio.sleep(rng.uniform(0, 2 * delay_s))
                cancel = CancelInvocationRequest(invocation_id=record.id)
                try:
                    seen[record.id] = (await stack.invocations.CancelInvocation(cancel)).status
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                        raise
                    seen[record.id] = Invocation.COMPLETED
                # Whoever wins has it harder next time, so that it stays a race.
                delay_s *= 1.05 if seen[record.id] == Invocation.CANCELLED else 0.95

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        found = [await stack.get(key) for key in seen]
        assert {record.status for record in found} <= set(ENDED)
        assert {record.id: record.status for record in found} == seen
        # Not a race if one of them always won.
        assert set(seen.values()) == {Invocation.COMPLETED, Invocation.CANCELLED}
        with stack.connect() as connection:
            guarded = connection.execute("SELECT invocation_id, wanted FROM guard_log").fetchall()
        assert guarded == []


async def rejected(stack: Stack, directory: Path, count: int) -> None:
    """A result that PostgreSQL rejects fails alone, whatever is in the same batch."""
    rule = "results_that_are_rejected"
    async with _idle(stack):
        await stack.create("judged")
        with stack.connect() as connection:
            connection.execute(
                f"ALTER TABLE invocations ADD CONSTRAINT {rule}"
                f" CHECK (result IS DISTINCT FROM '{REJECTED}'::bytea) NOT VALID"
            )
        try:
            values = [REJECTED if n % TOGETHER == 7 else n % REJECTED for n in range(count)]
            made = await asyncio.gather(*(stack.invoke("judged", value) for value in values))
            async with instant_worker(stack, directory):
                ended = await asyncio.gather(*(stack.get(one.id, wait_s=120) for one in made))
        finally:
            with stack.connect() as connection:
                connection.execute(f"ALTER TABLE invocations DROP CONSTRAINT {rule}")
        for value, record in zip(values, ended, strict=True):
            if value == REJECTED:
                assert record.status == Invocation.FAILED
                assert record.error.code == Invocation.BAD_OUTPUT
            else:
                assert (record.status, record.result.number_value) == (Invocation.COMPLETED, value)


FEATS = (
    Feat("many that wait, then FLUSHALL, twice", backlog, BACKLOG),
    Feat("cancelling races the verdict, many times", races, 10_000),
    Feat("a result that PostgreSQL rejects, in a batch of 50", rejected, 1_000),
)


@asynccontextmanager
async def _idle(stack: Stack) -> AsyncIterator[None]:
    """Let the stack's own workers take nothing meanwhile."""
    for name in WORKERS:
        await stack.worker(name).DrainWorker(DrainWorkerRequest())
    yield
    for name in WORKERS:
        await stack.worker(name).ResumeWorker(ResumeWorkerRequest())


async def _completed(stack: Stack, function: str, count: int) -> None:
    async def all_ended() -> bool:
        rows = stack.rows(
            "SELECT count(*) AS ended FROM invocations"
            " WHERE function_name = %s AND status = 'completed'",
            function,
        )
        return rows[0]["ended"] == count

    await eventually("all of them ended", all_ended, END_S)
