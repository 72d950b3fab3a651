"""A part away for a while: nothing accepted is lost, and nothing is promised falsely."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faas.json_values import to_python
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import GetInvocationRequest, InvokeRequest
from services.errors import DependencyUnavailable
from services.migrations.runner import migrate
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.conftest import new_mesh, wait_until
from tests.integration.functions import refused
from tests.integration.test_functions_outage import running as running_postgres
from tests.integration.test_workers import HOLD, held
from tests.mesh import Mesh, eventually

WAIT_S = 90


@contextmanager
def running_valkey(server: Valkey) -> Iterator[None]:
    """Run a Valkey of one's own; it ends as by kill -9."""
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        wait_until(server.is_ready, "Valkey is ready")
        yield
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A Valkey that does not run yet."""
    with tempfile.TemporaryDirectory(prefix="faas-vk-", dir="/tmp") as directory:
        server = Valkey(Path(directory), Path(directory) / "vk.sock")
        server.prepare()
        yield server


@pytest.fixture
async def mesh_on_valkey(valkey: Valkey, database_url: str) -> AsyncIterator[Mesh]:
    """A mesh on that Valkey."""
    async with new_mesh(database_url, valkey.url) as mesh:
        yield mesh


async def test_without_redis_calls_are_accepted_and_run_when_it_is_back(
    valkey: Valkey, mesh_on_valkey: Mesh
) -> None:
    mesh = mesh_on_valkey
    with running_valkey(valkey):
        await mesh.start("functions", "invocations", "worker-1")
        await mesh.create("echo")
        await mesh.create("hold", HOLD)
        assert (await mesh.invoke("echo", 0, wait_s=WAIT_S)).attempt == 1
        running, release = await held(mesh, "one")
    made = [await mesh.invoke("echo", number) for number in range(5)]
    assert {one.status for one in made} == {Invocation.PENDING}
    # What runs ends, and its verdict is committed and told without Redis.
    release.touch()
    done = await mesh.get(running.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
    with running_valkey(valkey):
        ended = [await mesh.get(one.id, wait_s=WAIT_S) for one in made]
        assert [to_python(one.result) for one in ended] == list(range(5))
        assert {(one.status, one.attempt) for one in ended} == {(Invocation.COMPLETED, 1)}
        await eventually("an empty queue", mesh.queue_is_empty)


async def test_parts_may_start_before_redis_does(valkey: Valkey, mesh_on_valkey: Mesh) -> None:
    mesh = mesh_on_valkey
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo")
    made = await mesh.invoke("echo", 1)
    with running_valkey(valkey):
        assert (await mesh.get(made.id, wait_s=WAIT_S)).status == Invocation.COMPLETED


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that is prepared and does not run yet."""
    with tempfile.TemporaryDirectory(prefix="faas-pg-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        server = Postgres(Path(directory) / "data", Path(directory) / "socket")
        server.prepare()
        yield server


async def test_without_postgresql_nothing_is_accepted_and_what_runs_ends(
    postgres: Postgres, redis_url: str
) -> None:
    async with new_mesh(postgres.url, redis_url) as mesh:
        with running_postgres(postgres):
            postgres.create_database()
            migrate(postgres.url)
            await mesh.start("functions", "invocations", "worker-1", lost_backoff_s=0.1)
            await mesh.create("echo")
            await mesh.create("hold", HOLD)
            made = await mesh.invoke("echo", 1, wait_s=WAIT_S)
            running, release = await held(mesh, "one")
        request = InvokeRequest(function_id="echo")
        await refused(mesh.invocations.Invoke(request), DependencyUnavailable)
        get = GetInvocationRequest(invocation_id=made.id)
        await refused(mesh.invocations.GetInvocation(get), DependencyUnavailable)
        release.touch()
        with running_postgres(postgres):
            done = await mesh.get(running.id, wait_s=WAIT_S)
            # Trouble of the database is not taken for the death of its worker.
            assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
            assert await mesh.get(made.id) == made
            again = await mesh.invoke("echo", 2, wait_s=WAIT_S)
            assert (again.status, again.attempt) == (Invocation.COMPLETED, 1)
            assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 3}]
            await eventually("an empty queue", mesh.queue_is_empty)
            for name in list(mesh.processes)[::-1]:
                await mesh.stop(name)


async def test_a_verdict_outlives_a_restart_of_the_service(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("hold", HOLD)
    made, release = await held(mesh, "one")
    await mesh.kill("invocations")
    release.touch()

    async def is_reporting() -> bool:
        return not list((mesh.directory / "work").glob("func-*/*"))

    await eventually("its end", is_reporting)
    await mesh.start("invocations")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
    await eventually("an empty queue", mesh.queue_is_empty)


async def test_a_service_that_is_ended_lets_waiting_calls_go(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("hold", HOLD)
    made, release = await held(mesh, "one")
    waiting = asyncio.create_task(mesh.get(made.id, wait_s=300))

    async def waits() -> bool:
        return (await mesh.get(made.id)).status == Invocation.RUNNING

    await eventually("its run", waits)
    assert await mesh.stop("invocations") == 0
    assert (await waiting).status == Invocation.RUNNING
    await mesh.start("invocations")
    release.touch()
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)


async def test_the_stream_comes_back_after_every_break(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("echo")
    for number in range(3):
        await mesh.kill("invocations")
        await mesh.start("invocations")
        done = await mesh.invoke("echo", number, wait_s=WAIT_S)
        assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)


async def test_without_functionservice_what_runs_goes_on(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", lost_backoff_s=0.1)
    await mesh.create("echo")
    await mesh.create("hold", HOLD)
    running, release = await held(mesh, "one")
    await mesh.invoke("echo", 0, wait_s=WAIT_S)
    await mesh.kill("functions")
    request = InvokeRequest(function_id="echo")
    await refused(mesh.invocations.Invoke(request), DependencyUnavailable)
    release.touch()
    assert (await mesh.get(running.id, wait_s=WAIT_S)).status == Invocation.COMPLETED
    assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 2}]
    await mesh.start("functions")
    assert (await mesh.invoke("echo", 1, wait_s=WAIT_S)).status == Invocation.COMPLETED


async def test_code_that_cannot_be_fetched_yet_costs_no_attempt(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    made = await mesh.invoke("echo", 1)
    await mesh.kill("functions")
    await mesh.start("worker-1")

    async def was_declined() -> bool:
        return "declined" in mesh.log("invocations")

    await eventually("a declined offer", was_declined, WAIT_S)
    assert (await mesh.get(made.id)).attempt == 0
    await mesh.start("functions")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
