"""The faults, one function each: it does the damage, and ends it."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import grpc
import grpc.aio

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest
from services.ids import WORKER, new_uuid, show
from services.worker.spool import verdicts_in
from tests.faults.load import Load
from tests.faults.namespaces import namespace, run
from tests.faults.stack import REPLICAS, SERVICES, WORKERS, Stack
from tests.faults.wire import Wire
from tests.mesh import QUEUE, eventually

# Of content that is too large for a row.
LARGE_BYTES = 2 * 1024 * 1024

KILLER = """
import os, signal, time

def handler(payload, context):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


@dataclass(frozen=True)
class Scene:
    """Where a fault happens."""

    stack: Stack
    load: Load
    rng: random.Random
    long_s: float
    """How long something is away that is away for long."""
    once: set[str] = field(default_factory=set)
    """Invocations that must have been started once, whatever happened to others."""

    async def moment(self, most_s: float = 0.5) -> None:
        """Any moment."""
        await asyncio.sleep(self.rng.uniform(0, most_s))

    def any_worker(self) -> str:
        """One of the workers."""
        return self.rng.choice(WORKERS)


Inject = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    name: str
    inject: Inject
    bound_s: float
    """From the end of the fault until all that was accepted has ended."""
    reruns: bool = True
    """Whether a function may be started more than once for it."""
    hurts_clients: bool = True
    """Whether a call may fail even when it is made again once."""
    completes: bool = False
    """Whether all that was accepted must complete."""
    needs: tuple[str, ...] = ()
    """Commands without which it cannot be played; `root` stands for being root."""
    large_bytes: int = 0
    """How large payloads and results of half of the calls are; 0: none is large."""

    def lacking(self) -> str:
        """What it needs and is not here; "" if it can be played."""
        commands = (need for need in self.needs if need != "root" and not which(need))
        root = ["root"] if "root" in self.needs and os.geteuid() != 0 else []
        return ", ".join([*root, *commands])


FAULTS: list[Fault] = []


def fault(
    name: str,
    *,
    bound_s: float = 40,
    reruns: bool = True,
    hurts_clients: bool = True,
    completes: bool | None = None,
    needs: tuple[str, ...] = (),
    large_bytes: int = 0,
) -> Callable[[Inject], Inject]:
    """Make a row of it. What starts nothing twice completes everything, unless said."""

    def add(inject: Inject) -> Inject:
        all_complete = not reruns if completes is None else completes
        made = Fault(name, inject, bound_s, reruns, hurts_clients, all_complete, needs, large_bytes)
        FAULTS.append(made)
        return inject

    return add


# Services


@fault("InvocationService killed at random moments", bound_s=5 + 40, reruns=False)
@fault(
    "InvocationService killed while it carries large content",
    bound_s=5 + 40,
    reruns=False,
    large_bytes=LARGE_BYTES,
)
async def _(scene: Scene) -> None:
    for _ in range(2):
        await scene.moment()
        await scene.stack.kill("invocations")
        await scene.stack.start("invocations")
        await scene.load.reach(2)


@fault("InvocationService dies after COMMIT, before LPUSH", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    scene.stack.arm("invocations", "committed, not offered")
    await scene.stack.died("invocations")
    await scene.stack.start("invocations")


@fault("InvocationService dies after LPUSH, before the reply", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    scene.stack.arm("invocations", "offered, not answered")
    await scene.stack.died("invocations")
    await scene.stack.start("invocations")


@fault("FunctionService killed", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    await scene.stack.kill("functions")
    await scene.moment(2)
    await scene.stack.start("functions")


@fault("all services killed at once", bound_s=60, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    for name in SERVICES:
        await scene.stack.kill(name)
    await scene.stack.start(*SERVICES)


@fault("SIGTERM of everything, one after the other", reruns=False, hurts_clients=False)
async def _(scene: Scene) -> None:
    for name in (*WORKERS, *SERVICES):
        await scene.moment()
        scene.stack.signal(name, signal.SIGTERM)
        await scene.stack.died(name)
        await scene.stack.start(name)


# Workers


@fault("worker killed mid-run")
async def _(scene: Scene) -> None:
    for _ in range(2):
        await scene.moment(1)
        name = scene.any_worker()
        await scene.stack.kill(name)
        await scene.stack.start(name)


async def _worker_dies(scene: Scene, point: str) -> str:
    """Let a worker die there, and start again; the invocation that it was about."""
    name = scene.any_worker()
    scene.stack.arm(name, point)
    await scene.stack.died(name)
    await scene.stack.start(name)
    return scene.stack.died_at(name)


@fault("worker dies between pop and grant")
async def _(scene: Scene) -> None:
    scene.once.add(await _worker_dies(scene, "popped, not granted"))


@fault("worker dies between grant and start")
async def _(scene: Scene) -> None:
    await _worker_dies(scene, "granted, not started")


@fault("worker dies after the result, before the report")
async def _(scene: Scene) -> None:
    scene.once.add(await _worker_dies(scene, "ended, not reported"))


@fault("worker dies after the report, before LREM")
async def _(scene: Scene) -> None:
    await _worker_dies(scene, "reported, not acknowledged")


@fault("answer to a verdict lost, ten times", reruns=False)
async def _(scene: Scene) -> None:
    name = scene.any_worker()
    scene.stack.arm(name, "deaf")

    async def heard_at_last() -> bool:
        return not scene.stack.is_armed(name)

    await eventually("ten answers were lost", heard_at_last, 120)


@fault("answers to verdicts lost, said again to another replica", reruns=False)
async def _(scene: Scene) -> None:
    stack, name, both = scene.stack, scene.any_worker(), ("invocations", "invocations-2")
    await stack.start(both[1])
    repeated = "a verdict changed nothing"
    before = {replica: stack.log(replica).count(repeated) for replica in both}
    async with asyncio.timeout(120):
        while any(stack.log(replica).count(repeated) <= before[replica] for replica in both):
            stack.arm(name, "deaf")
            # By turns it leads to the one and to the other.
            stack.wires["service"].reset()
            await asyncio.sleep(0.5)
    stack.disarm(name)
    stack.signal(both[1], signal.SIGTERM)
    await stack.died(both[1])


@fault("worker stopped for longer than its lease, then goes on")
async def _(scene: Scene) -> None:
    name = scene.any_worker()
    zombie = scene.stack.processes[name]
    lost = "SELECT 1 FROM workers WHERE lost_at IS NOT NULL"
    before = len(scene.stack.rows(lost))
    await scene.moment()
    scene.stack.signal(name, signal.SIGSTOP)

    async def dead() -> bool:
        return len(scene.stack.rows(lost)) > before

    await eventually("its boot is dead", dead, 180)
    scene.stack.signal(name, signal.SIGCONT)

    # Its boot is dead: it ends itself, to come back under another.
    async def another() -> bool:
        return scene.stack.processes[name] is not zombie

    await eventually("it has come back under another boot", another, 120)


@fault("all workers dead", bound_s=60)
async def _(scene: Scene) -> None:
    await scene.moment()
    for name in WORKERS:
        await scene.stack.kill(name)
    await asyncio.sleep(scene.long_s)
    await scene.stack.start(*WORKERS)


@fault("no room in a worker's spool", reruns=False)
async def _(scene: Scene) -> None:
    name = scene.any_worker()
    scene.stack.signal(name, signal.SIGTERM)
    await scene.stack.died(name)
    scene.stack.arm(name, "disk full")
    scene.stack._spawn(name, {})
    # It takes no work that it has no room for: it does not even begin.
    await scene.stack.died(name)
    assert "No space left" in scene.stack.log(name)
    (scene.stack.directory / f"{name}.rig").unlink()
    await scene.stack.start(name)


@fault("the disk of a worker's spool is full", reruns=False, needs=("root", "mount"))
async def _(scene: Scene) -> None:
    stack, name = scene.stack, scene.any_worker()
    spool = stack.directory / name / "spool"
    stack.signal(name, signal.SIGTERM)
    await stack.died(name)
    run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(spool))
    try:
        fill(spool / "filler")
        stack.begin(name)
        # It takes no work that it has no room for: it does not even begin.
        await stack.died(name)
        assert "No space left" in stack.log(name)
        (spool / "filler").unlink()
        await stack.start(name)
        # Room for its verdicts is its own by now, however full the disk gets.
        fill(spool / "filler")
        await scene.load.reach(10)
        stack.signal(name, signal.SIGTERM)
        await stack.died(name)
        assert not any(any(verdicts_in(file)) for file in spool.glob("*.spool"))
    finally:
        run("umount", "--lazy", str(spool))
    await stack.start(name)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("ab", buffering=0) as output, contextlib.suppress(OSError):
        while True:
            output.write(bytes(1 << 16))


# What `faketime` sets. That command stays the parent of what it runs, which a signal to
# it does not end; `env` becomes what it runs.
FAKE_CLOCK = (
    "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1",
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
)


@fault("clocks of workers wrong by an hour", reruns=False, needs=("faketime",))
async def _(scene: Scene) -> None:
    stack = scene.stack
    for name, shift in zip(WORKERS, ("+1h", "-1h"), strict=True):
        stack.prefixes[name] = ["env", *FAKE_CLOCK, f"FAKETIME={shift}"]
        stack.signal(name, signal.SIGTERM)
        await stack.died(name)
        await stack.start(name)
    await scene.load.reach(12)
    for name in WORKERS:
        del stack.prefixes[name]
        stack.signal(name, signal.SIGTERM)
        await stack.died(name)
        await stack.start(name)
    # Every time in a record is PostgreSQL's.
    wrong = stack.rows(
        "SELECT id FROM invocations WHERE started_at < created_at OR completed_at < started_at"
        " OR completed_at > clock_timestamp()"
    )
    assert wrong == []


@fault("function that kills its worker", completes=True)
async def _(scene: Scene) -> None:
    stack = scene.stack
    name = f"killer-{scene.rng.randrange(1 << 40):x}"
    await stack.create(name, KILLER)
    guilty = await stack.invoke(name)

    async def convicted() -> bool:
        for worker in WORKERS:
            if stack.processes[worker].poll() is not None:
                await stack.died(worker)
                # Not until it listens: by then it may be dead again.
                stack.begin(worker)
        return (await stack.get(guilty.id)).status == Invocation.DEAD_LETTERED

    await eventually("it has taken two workers with it, and no more", convicted, 120)
    record = await stack.get(guilty.id)
    assert (record.attempt, record.error.code) == (2, Invocation.WORKER_LOST)


@fault("cancelling races the verdict", reruns=False, completes=False)
async def _(scene: Scene) -> None:
    async def race(number: int) -> None:
        request_id = f"{scene.load.prefix}-race-{number}"
        await scene.load.call(request_id)
        await scene.moment(0.3)
        cancel = CancelInvocationRequest(invocation_id=scene.load.accepted(request_id))
        try:
            scene.load.note(await scene.stack.invocations.CancelInvocation(cancel))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise  # the verdict was first: that is fine, all else is not

    races = int(10 * scene.long_s)
    for start in range(0, races, 10):
        await asyncio.gather(*(race(start + number) for number in range(10)))


# Redis


@fault("Redis connection reset inside BLMOVE, its reply lost", reruns=False)
async def _(scene: Scene) -> None:
    wire = scene.stack.wires["redis"]
    wire.lose_reply(b"inv-")
    assert await asyncio.to_thread(wire.lost.wait, 60)


@fault("messages in a list that nobody knows", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    stack = scene.stack
    for name in WORKERS:
        stack.signal(name, signal.SIGSTOP)
    nobodys = f"{QUEUE}:processing:{show(WORKER, new_uuid())}:{new_uuid()}"
    moved = 0
    while moved < 3:
        # Calls that wait are not all in the queue.
        await scene.load.reach(2)
        while await stack.redis.lmove(QUEUE, nobodys, "RIGHT", "LEFT"):
            moved += 1
    for name in WORKERS:
        stack.signal(name, signal.SIGCONT)


@fault("Redis killed", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    await scene.stack.stop_store("valkey", signal.SIGKILL)
    await scene.stack.start_store("valkey")


@fault("FLUSHALL", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    for _ in range(3):
        await scene.moment()
        await scene.stack.redis.flushall()


@fault("Redis down for long", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    await scene.stack.stop_store("valkey", signal.SIGTERM)
    await asyncio.sleep(scene.long_s)
    await scene.stack.start_store("valkey")


@fault("Redis restarted empty", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    await scene.stack.stop_store("valkey", signal.SIGKILL)
    for file in scene.stack.valkey.directory.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    await scene.stack.start_store("valkey")


@fault("Redis restored from an older snapshot", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    directory = scene.stack.valkey.directory
    snapshot = directory.with_name("snapshot")
    # With offers in it, which will have been dealt with when it is restored.
    for name in WORKERS:
        scene.stack.signal(name, signal.SIGSTOP)
    await scene.load.reach(6)
    await asyncio.to_thread(shutil.copytree, directory, snapshot)
    for name in WORKERS:
        scene.stack.signal(name, signal.SIGCONT)
    await scene.load.reach(10)
    await scene.stack.stop_store("valkey", signal.SIGKILL)
    await asyncio.to_thread(shutil.rmtree, directory)
    await asyncio.to_thread(snapshot.rename, directory)
    await scene.stack.start_store("valkey")


@fault("garbage, forged and doubled messages", reruns=False)
async def _(scene: Scene) -> None:
    redis, stack = scene.stack.redis, scene.stack
    before = await redis.llen(f"{QUEUE}:dead")
    forged = {
        "invocation_id": f"inv-{new_uuid()}",
        "function_id": f"func-{new_uuid()}",
        "function_version": 1,
    }
    with stack.connect() as connection:
        rows = connection.execute(
            "SELECT id, function_id, function_version FROM invocations ORDER BY id DESC LIMIT 20"
        ).fetchall()
    doubled = [
        json.dumps(
            {
                "invocation_id": f"inv-{key}",
                "function_id": f"func-{function}",
                "function_version": version,
            }
        )
        for key, function, version in rows
    ]
    garbage = [
        scene.rng.randbytes(64),
        b"x" * (1 << 20),
        b"[" * 100_000,
        b"null",
        b'{"invocation_id": 1}',
        json.dumps({**forged, "invocation_id": "inv-../../etc/passwd"}).encode(),
    ]
    await redis.lpush(QUEUE, *garbage, *doubled, *doubled, json.dumps(forged))

    async def buried() -> bool:
        # The forged one is declined, since its function is nobody's, or found to be unknown.
        return await redis.llen(f"{QUEUE}:dead") >= before + len(garbage)

    await eventually("what is no message is among the dead ones", buried, 60)


# PostgreSQL


@fault("PostgreSQL's backends killed", bound_s=10, reruns=False)
async def _(scene: Scene) -> None:
    for _ in range(3):
        await scene.moment()
        with scene.stack.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@fault("PostgreSQL restarted at once", bound_s=15, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    await scene.stack.stop_store("postgres", signal.SIGQUIT)
    await scene.stack.start_store("postgres")


@fault("PostgreSQL down for long", bound_s=15, reruns=False)
async def _(scene: Scene) -> None:
    await scene.moment()
    await scene.stack.stop_store("postgres", signal.SIGINT)
    await asyncio.sleep(scene.long_s)
    await scene.stack.start_store("postgres")


@fault("the table of records locked", bound_s=15, reruns=False)
async def _(scene: Scene) -> None:
    with scene.stack.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(scene.long_s / 2)


# Content that is too large for a row


@fault("worker killed while it carries large content", large_bytes=LARGE_BYTES)
async def _(scene: Scene) -> None:
    for _ in range(2):
        await scene.moment(1)
        name = scene.any_worker()
        await scene.stack.kill(name)
        await scene.stack.start(name)


@fault(
    "the storage of large content away for long",
    bound_s=60,
    reruns=False,
    completes=False,  # a payload that cannot be fetched for too long ends its invocation
    large_bytes=LARGE_BYTES,
)
async def _(scene: Scene) -> None:
    storage = scene.stack.directory / "storage/invocations"
    away = storage.with_name("away")
    await scene.moment()
    storage.rename(away)
    storage.touch()  # nothing can be kept in a file
    before = scene.load.errors["UNAVAILABLE"]

    async def refused() -> bool:
        return scene.load.errors["UNAVAILABLE"] > before

    await eventually("a large payload is refused", refused, 60)
    await asyncio.sleep(scene.long_s)
    storage.unlink()
    away.rename(storage)


# The network between workers and service


@fault("network cut between workers and service")
async def _(scene: Scene) -> None:
    await scene.moment()
    scene.stack.wires["service"].cut()
    await asyncio.sleep(scene.long_s)
    scene.stack.wires["service"].mend()


@fault("network cut towards the service only")
async def _(scene: Scene) -> None:
    await scene.moment()
    scene.stack.wires["service"].cut(back=False)
    await asyncio.sleep(scene.long_s)
    scene.stack.wires["service"].mend()


@fault("network cut towards the workers only")
async def _(scene: Scene) -> None:
    await scene.moment()
    scene.stack.wires["service"].cut(there=False)
    await asyncio.sleep(scene.long_s)
    scene.stack.wires["service"].mend()


@fault("packets between a worker and the service dropped", needs=("root", "ip", "iptables"))
async def _(scene: Scene) -> None:
    stack, name = scene.stack, scene.any_worker()
    with namespace() as inside:
        wire = Wire.over_tcp(inside.outer, *(f"{stack.directory}/{one}.sock" for one in REPLICAS))
        stack.prefixes[name] = inside.prefix
        stack.own[name] = {"invocations_address": f"{inside.outer}:{wire.port}"}
        stack.signal(name, signal.SIGTERM)
        await stack.died(name)
        await stack.start(name)
        await scene.load.reach(6)
        # Both ways, or one: nothing is refused and nothing is reset, it is just gone.
        for chains in (("INPUT", "OUTPUT"), (scene.rng.choice(("INPUT", "OUTPUT")),)):
            with inside.dropping(*chains):
                await asyncio.sleep(scene.long_s)
            await scene.load.reach(4)
        del stack.prefixes[name], stack.own[name]
        stack.signal(name, signal.SIGTERM)
        await stack.died(name)
        await stack.start(name)
        wire.close()


# Replicas


@fault("three replicas feed and recover at once, one stopped in the middle", reruns=False)
async def _(scene: Scene) -> None:
    more = ("invocations-2", "invocations-3")
    await scene.stack.start(*more)
    for _ in range(2):
        await scene.stack.redis.flushall()
        await scene.load.reach(4)
    scene.stack.signal("invocations-3", signal.SIGSTOP)
    await scene.stack.redis.flushall()
    await scene.load.reach(6)
    scene.stack.signal("invocations-3", signal.SIGCONT)
    await scene.load.reach(4)
    for name in more:
        scene.stack.signal(name, signal.SIGTERM)
        await scene.stack.died(name)
