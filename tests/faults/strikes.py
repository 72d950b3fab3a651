"""What a storm does to parts: each strike does its damage and ends it.

Other than the rows of the matrix they bear each other's company. A strike holds the
parts it names; what it leaves dead, the storm's keeper starts again when it lets go.
"""

import asyncio
import json
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg
from redis.exceptions import RedisError

from services.ids import new_uuid
from tests.faults.stack import REPLICAS, WORKERS, Stack
from tests.mesh import QUEUE

KILLER = """
import os, signal, time

def handler(payload, context):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
KILLER_NAME = "killer"
STORES = ("postgres", "valkey")
SERVICES = ("functions", *REPLICAS[:2])
PARTS = (*STORES, *SERVICES, *WORKERS)
# A rig that has not gone off after so long is taken away.
RIG_S = 10.0


@dataclass
class Blow:
    """One strike as it falls."""

    stack: Stack
    rng: random.Random
    part: str
    """Which of the strike's targets was chosen."""
    away_s: float
    """How long it lasts, where it lasts."""
    extra: list[str]
    """Invocations that strikes made, which must end as well."""


Fall = Callable[[Blow], Awaitable[None]]


@dataclass(frozen=True)
class Strike:
    """A kind of strike."""

    name: str
    targets: tuple[str, ...]
    """One of them is hit."""
    fall: Fall
    holds: tuple[str, ...] = ()
    """Parts that nothing else may hit meanwhile, beside the target."""


STRIKES: list[Strike] = []


def strike(name: str, *targets: str, holds: tuple[str, ...] = ()) -> Callable[[Fall], Fall]:
    """Make a kind of strike of it."""

    def add(fall: Fall) -> Fall:
        STRIKES.append(Strike(name, targets, fall, holds))
        return fall

    return add


# Services and workers


@strike("service killed", *SERVICES)
@strike("worker killed", *WORKERS)
async def _kill(blow: Blow) -> None:
    await blow.stack.kill(blow.part)
    await asyncio.sleep(blow.away_s / 4)


@strike("service stopped, then goes on", *SERVICES)
@strike("worker stopped, then goes on", *WORKERS)
async def _stop(blow: Blow) -> None:
    blow.stack.signal(blow.part, signal.SIGSTOP)
    await asyncio.sleep(blow.away_s)
    blow.stack.signal(blow.part, signal.SIGCONT)


@strike("service SIGTERMed", *SERVICES)
@strike("worker SIGTERMed", *WORKERS)
async def _terminate(blow: Blow) -> None:
    blow.stack.signal(blow.part, signal.SIGTERM)
    await blow.stack.died(blow.part)


async def _rig(blow: Blow, *points: str) -> None:
    blow.stack.arm(blow.part, blow.rng.choice(points))
    process = blow.stack.processes[blow.part]
    for _ in range(int(RIG_S / 0.1)):
        if process.poll() is not None or not blow.stack.is_armed(blow.part):
            break
        await asyncio.sleep(0.1)
    blow.stack.disarm(blow.part)


@strike("InvocationService dies around LPUSH", *REPLICAS[:2])
async def _dies_around_lpush(blow: Blow) -> None:
    await _rig(blow, "committed, not offered", "offered, not answered")


@strike("worker dies around a grant or a verdict", *WORKERS)
async def _dies_around_a_grant(blow: Blow) -> None:
    await _rig(
        blow,
        "popped, not granted",
        "granted, not started",
        "ended, not reported",
        "reported, not acknowledged",
    )


@strike("answer to a verdict lost, ten times", *WORKERS)
async def _deaf(blow: Blow) -> None:
    await _rig(blow, "deaf")


@strike("no room in a worker's spool", *WORKERS)
async def _no_room(blow: Blow) -> None:
    blow.stack.signal(blow.part, signal.SIGTERM)
    await blow.stack.died(blow.part)
    blow.stack.arm(blow.part, "disk full")
    blow.stack.begin(blow.part)
    # It takes no work that it has no room for: it does not even begin.
    await blow.stack.died(blow.part)
    blow.stack.disarm(blow.part)


@strike("function that kills its worker", *WORKERS[:1], holds=WORKERS[1:])
async def _killer(blow: Blow) -> None:
    # Said once: where no answer comes, nothing was promised.
    record = await blow.stack.invoke(KILLER_NAME, at=blow.rng.choice(REPLICAS[:2]))
    blow.extra.append(record.id)


# Redis


@strike("Redis killed", "valkey")
async def _redis_killed(blow: Blow) -> None:
    await blow.stack.stop_store("valkey", signal.SIGKILL)


@strike("Redis down", "valkey")
async def _redis_down(blow: Blow) -> None:
    await blow.stack.stop_store("valkey", signal.SIGTERM)
    await asyncio.sleep(blow.away_s)


@strike("store stopped, then goes on", *STORES)
async def _store_stopped(blow: Blow) -> None:
    stopped = blow.stack.freeze(blow.part)
    await asyncio.sleep(blow.away_s)
    blow.stack.thaw(stopped)


@strike("FLUSHALL", "valkey")
async def _flushall(blow: Blow) -> None:
    for _ in range(3):
        await blow.stack.redis.flushall()
        await asyncio.sleep(blow.rng.uniform(0, 1))


@strike("Redis restarted empty", "valkey")
async def _redis_emptied(blow: Blow) -> None:
    await blow.stack.stop_store("valkey", signal.SIGKILL)
    for file in blow.stack.valkey.directory.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()


@strike("Redis restored from an older snapshot", "valkey", holds=WORKERS)
async def _redis_restored(blow: Blow) -> None:
    directory = blow.stack.valkey.directory
    snapshot = directory.with_name("snapshot")
    # With offers in it, which will have been dealt with when it is restored.
    for name in WORKERS:
        blow.stack.signal(name, signal.SIGSTOP)
    await asyncio.sleep(1)
    await asyncio.to_thread(shutil.copytree, directory, snapshot)
    for name in WORKERS:
        blow.stack.signal(name, signal.SIGCONT)
    await asyncio.sleep(blow.away_s)
    await blow.stack.stop_store("valkey", signal.SIGKILL)
    await asyncio.to_thread(shutil.rmtree, directory)
    await asyncio.to_thread(snapshot.rename, directory)


@strike("garbage, forged and doubled messages", "valkey")
async def _garbage(blow: Blow) -> None:
    forged = {
        "invocation_id": f"inv-{new_uuid()}",
        "function_id": f"func-{new_uuid()}",
        "function_version": 1,
    }
    there = await blow.stack.redis.lrange(QUEUE, 0, 19)
    garbage = [
        blow.rng.randbytes(64),
        b"x" * (1 << 20),
        b"[" * 100_000,
        json.dumps(forged).encode(),
        json.dumps({**forged, "invocation_id": "inv-../../etc/passwd"}).encode(),
    ]
    await blow.stack.redis.lpush(QUEUE, *garbage, *there, *there)


# PostgreSQL


@strike("PostgreSQL killed", "postgres")
async def _postgres_killed(blow: Blow) -> None:
    await blow.stack.stop_store("postgres", signal.SIGKILL)


@strike("PostgreSQL restarted at once", "postgres")
async def _postgres_restarted(blow: Blow) -> None:
    await blow.stack.stop_store("postgres", signal.SIGQUIT)


@strike("PostgreSQL down", "postgres")
async def _postgres_down(blow: Blow) -> None:
    await blow.stack.stop_store("postgres", signal.SIGINT)
    await asyncio.sleep(blow.away_s)


@strike("PostgreSQL's backends killed", "postgres")
async def _backends_killed(blow: Blow) -> None:
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(3):
        with blow.stack.connect() as connection:
            connection.execute(query)
        await asyncio.sleep(blow.rng.uniform(0, 1))


@strike("the table of records locked", "postgres")
async def _table_locked(blow: Blow) -> None:
    connection = await psycopg.AsyncConnection.connect(blow.stack.database_url)
    async with connection:
        await connection.execute("LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(blow.away_s / 2)


# The network between workers and service, and between workers and Redis


@strike("network cut between workers and service", "wire service")
async def _cut(blow: Blow) -> None:
    wire = blow.stack.wires["service"]
    there, back = blow.rng.choice([(True, True), (True, False), (False, True)])
    wire.cut(there=there, back=back)
    await asyncio.sleep(blow.away_s)
    wire.mend()


@strike("network cut between workers and Redis", "wire redis")
async def _redis_cut(blow: Blow) -> None:
    blow.stack.wires["redis"].cut()
    await asyncio.sleep(blow.away_s)
    blow.stack.wires["redis"].mend()


@strike("connections between workers and service reset", "wire service")
async def _reset(blow: Blow) -> None:
    for _ in range(5):
        blow.stack.wires["service"].reset()
        await asyncio.sleep(blow.rng.uniform(0, 1))


@strike("Redis connection reset inside BLMOVE, its reply lost", "wire redis")
async def _reply_lost(blow: Blow) -> None:
    wire = blow.stack.wires["redis"]
    wire.lose_reply(b"inv-")
    await asyncio.to_thread(wire.lost.wait, RIG_S)


EXPECTED = (psycopg.Error, RedisError, OSError)
"""What a strike may meet where another was there before it: it has missed, that is all."""
