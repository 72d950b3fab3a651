"""The faults that need a Docker engine: what is done to containers, and their workers."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from faas.json_values import to_python
from faas.v1.invocation_pb2 import Invocation
from tests.faults.engine import Engine, running_engine
from tests.mesh import Mesh, eventually

pytestmark = pytest.mark.docker

# Long the first time, at once the next.
FIRST_LONG = """
import time

def handler(payload, context):
    print("started", flush=True)
    time.sleep(600 if context.attempt == 1 else 0)
    return context.attempt
"""


DOCKER = {"runtime": "docker", "network": "none"}


@pytest.fixture
async def docker_mesh(mesh: Mesh, docker_engine: Path) -> AsyncIterator[Mesh]:
    """Services, and a worker whose functions run in containers without a network."""
    await mesh.start("functions", "invocations", lost_backoff_s=0.2)
    await start_worker(mesh, docker_engine)
    yield mesh
    await eventually("no container is left", lambda: no_containers(mesh), 60)


async def start_worker(mesh: Mesh, engine: Path) -> None:
    await mesh.start("worker-1", docker_socket=engine, **DOCKER, sandboxes="one-shot")


async def containers(mesh: Mesh) -> list[str]:
    label = f"label=faas.stack={mesh.directory.name}"
    command = ["docker", "ps", "-aq", "--filter", label]
    ran = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, text=True
    )
    return ran.stdout.split()


async def no_containers(mesh: Mesh) -> bool:
    return not await containers(mesh)


async def begun(mesh: Mesh) -> Invocation:
    """An invocation whose first start is in a container, and says so."""
    await mesh.create("long", FIRST_LONG, timeout={"seconds": 900})
    record = await mesh.invoke("long")

    async def printed() -> bool:
        rows = mesh.rows("SELECT 1 FROM invocation_logs")
        return bool(rows)

    await eventually("it has started", printed, 60)
    return record


async def test_a_container_that_somebody_removed_is_not_blamed_on_the_function(
    docker_mesh: Mesh,
) -> None:
    record = await begun(docker_mesh)
    (container,) = await containers(docker_mesh)
    await asyncio.to_thread(
        subprocess.run, ["docker", "rm", "-f", container], check=True, capture_output=True
    )
    ended = await docker_mesh.get(record.id, wait_s=120)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 2)
    outcomes = docker_mesh.rows("SELECT attempt, outcome FROM attempts ORDER BY attempt")
    assert [(row["attempt"], row["outcome"]) for row in outcomes] == [
        (1, "abandoned"),
        (2, "completed"),
    ]


async def test_a_killed_worker_leaves_no_container_and_its_work_is_done(
    docker_mesh: Mesh, docker_engine: Path
) -> None:
    record = await begun(docker_mesh)
    (before,) = await containers(docker_mesh)
    await docker_mesh.kill("worker-1")
    await start_worker(docker_mesh, docker_engine)
    ended = await docker_mesh.get(record.id, wait_s=120)
    assert (ended.status, ended.attempt) == (Invocation.COMPLETED, 2)
    assert before not in await containers(docker_mesh)


@pytest.fixture
def own_engine(docker_engine: Path) -> Iterator[Engine]:
    """An engine that may be killed, with the images of the one that is there."""
    assert docker_engine
    with running_engine() as engine:
        yield engine


@pytest.mark.parametrize("sandboxes", ["one-shot", "warm"])
async def test_a_killed_engine_is_not_blamed_on_the_function(
    mesh: Mesh, own_engine: Engine, sandboxes: str
) -> None:
    await mesh.start("functions", "invocations", lost_backoff_s=0.2)
    settings = {**DOCKER, "sandboxes": sandboxes, "prewarmed": 0}
    await mesh.start("worker-1", docker_socket=own_engine.socket, **settings)
    record = await begun(mesh)
    await asyncio.to_thread(own_engine.kill)
    # Nothing can run now, and what is accepted waits.
    await mesh.create("echo")
    waits = await mesh.invoke("echo", "meanwhile")
    await asyncio.to_thread(own_engine.start)
    for accepted, value in ((record, 2), (waits, "meanwhile")):
        ended = await mesh.get(accepted.id, wait_s=240)
        outcomes = mesh.rows("SELECT attempt, outcome, error FROM attempts ORDER BY attempt")
        assert ended.status == Invocation.COMPLETED, (ended.error, outcomes)
        assert to_python(ended.result) == value
    assert {row["outcome"] for row in outcomes} <= {"abandoned", "lost", "completed"}
    assert await mesh.stop("worker-1") == 0

    async def nothing_is_left() -> bool:
        return not (await asyncio.to_thread(own_engine.docker, "ps", "-aq")).split()

    await eventually("no container is left", nothing_is_left, 60)
    assert not list((mesh.directory / "work").glob("func-*/*"))
