"""What a worker knew when it was killed, and how it starts again."""

import asyncio
import signal
from pathlib import Path

import psycopg

from faas.v1.invocation_pb2 import Invocation
from tests.mesh import Mesh, eventually

COUNTING = """
import pathlib

def handler(payload, context):
    with open(payload["file"], "a") as file:
        file.write(context.invocation_id + "\\n")
    return payload["answer"]
"""


async def attempts(mesh: Mesh, invocation_id: str) -> list[tuple[int, str]]:
    async with await psycopg.AsyncConnection.connect(mesh.database_url) as connection:
        cursor = await connection.execute(
            "SELECT attempt, outcome FROM attempts WHERE invocation_id = %s ORDER BY attempt",
            [invocation_id.removeprefix("inv-")],
        )
        return await cursor.fetchall()


async def test_a_verdict_survives_the_worker_that_could_not_tell_it(
    mesh: Mesh, tmp_path: Path
) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("count", COUNTING)
    file = tmp_path / "starts"
    slow = COUNTING.replace("return", "import time; time.sleep(1); return")
    await mesh.create("slow", slow)
    record = await mesh.invoke("slow", {"file": str(file), "answer": 42})

    async def started() -> bool:
        return file.exists()

    await eventually("it runs", started)
    # Nobody hears the verdict, and the worker dies with it.
    mesh.signal("invocations", signal.SIGSTOP)

    async def spooled() -> bool:
        return any(b"inv-" in f.read_bytes()[:4096] for f in spool.glob("*.spool"))

    spool = mesh.directory / "worker-1" / "spool"
    await eventually("its verdict is spooled", spooled)
    await mesh.kill("worker-1")
    mesh.signal("invocations", signal.SIGCONT)
    await mesh.start("worker-1")
    ended = await mesh.get(record.id, wait_s=60)
    assert ended.status == Invocation.COMPLETED
    assert ended.result.number_value == 42
    assert file.read_text().split() == [record.id]
    assert await attempts(mesh, record.id) == [(1, "completed")]

    async def forgotten() -> bool:
        return len(list(spool.glob("*.spool"))) == 1

    await eventually("the earlier start's spool is removed", forgotten)


async def test_a_worker_that_is_back_gives_up_what_its_earlier_start_ran(
    mesh: Mesh, tmp_path: Path
) -> None:
    # With a lease this long, only the worker's own word can give it back.
    await mesh.start("functions", "invocations", "worker-1", lease_s=600)
    file = tmp_path / "starts"
    once = COUNTING.replace(
        "return",
        "import time; time.sleep(0 if len(open(payload['file']).readlines()) > 1 else 600); return",
    )
    await mesh.create("once", once, timeout={"seconds": 900})
    record = await mesh.invoke("once", {"file": str(file), "answer": "again"})

    async def started() -> bool:
        return file.exists() and bool(file.read_text())

    await eventually("it runs", started)
    await mesh.kill("worker-1")
    await mesh.start("worker-1")
    ended = await mesh.get(record.id, wait_s=60)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 2)
    assert await attempts(mesh, record.id) == [(1, "lost"), (2, "completed")]


async def test_a_second_worker_in_the_same_state_directory_refuses(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    mesh._spawn("worker-2", {"state_dir": mesh.directory / "worker-1"})
    code = await asyncio.to_thread(mesh.processes["worker-2"].wait, 30)
    assert code == 73
    assert "another worker" in mesh.log("worker-2")


async def test_what_was_lost_once_runs_alone(mesh: Mesh, tmp_path: Path) -> None:
    """A function that kills its worker convicts itself, not what ran beside it."""
    await mesh.start("functions", "invocations", "worker-1")
    killer = """
import os, signal

def handler(payload, context):
    os.kill(os.getppid(), signal.SIGKILL)
    import time; time.sleep(60)
"""
    await mesh.create("killer", killer)
    await mesh.create("slow", "import time\ndef handler(payload, context):\n    time.sleep(2)\n")
    beside = [await mesh.invoke("slow") for _ in range(3)]
    guilty = await mesh.invoke("killer")
    for _ in range(2):
        process = mesh.processes["worker-1"]
        await asyncio.to_thread(process.wait, 60)
        mesh.processes.pop("worker-1")
        await mesh.start("worker-1")
    ended = await mesh.get(guilty.id, wait_s=60)
    assert (ended.status, ended.attempt) == (Invocation.DEAD_LETTERED, 2)
    assert ended.error.code == Invocation.WORKER_LOST
    for record in beside:
        assert (await mesh.get(record.id, wait_s=60)).status == Invocation.COMPLETED
    assert mesh.processes["worker-1"].poll() is None
