"""Functions that are compiled, on real workers: once for all, at deployment and at invoke."""

import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from faas.json_values import to_python
from faas.v1.function_pb2 import Function, FunctionVersion
from faas.v1.function_service_pb2 import GetFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from services.channels import from_rpc_error
from services.errors import InvalidCode
from services.worker.toolchain import find
from tests.conformance import functions as sources
from tests.conftest import new_mesh
from tests.mesh import Mesh, eventually

ECHO = sources.ECHO["go"]
BROKEN = ECHO.replace("payload, nil", "payload, missing")
WAIT_S = 200
READY, FAILED = FunctionVersion.READY, FunctionVersion.FAILED
STUCK_GO = """#!/bin/sh
# A compiler that never ends, but says what it is.
[ "$1" = env ] && exec {go} "$@"
exec sleep 600
"""


async def create(mesh: Mesh, name: str, code: str = ECHO, **fields: object) -> Function:
    return await mesh.create(name, code, runtime="go", **fields)


async def state(mesh: Mesh, name: str) -> Function:
    return await mesh.functions.GetFunction(GetFunctionRequest(function_id=name))


async def ended(mesh: Mesh, name: str) -> Function:
    """The function once its build has ended."""

    async def look() -> Function | None:
        found = await state(mesh, name)
        return found if found.state != FunctionVersion.BUILDING else None

    return await eventually("the build ends", look, timeout_s=WAIT_S)


def grants(mesh: Mesh) -> int:
    """How many builds were given to workers so far."""
    return mesh.log("functions").count("granted a build")


def worker_of(mesh: Mesh, record: Invocation) -> str:
    """The name of the part that ran it."""
    names = [
        path.parent.name
        for path in mesh.directory.glob("worker-*/id")
        if path.read_text().strip() == record.worker_id
    ]
    return names[0]


async def test_two_workers_share_one_build(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", "worker-2", concurrency=1)
    made = await create(mesh, "shared")
    assert made.state == FunctionVersion.BUILDING
    assert (await ended(mesh, "shared")).state == READY
    ran_on = set()

    async def both() -> bool:
        done = await mesh.invoke("shared", {"n": 1}, wait_s=WAIT_S)
        assert to_python(done.result) == {"n": 1}, done.error
        ran_on.add(worker_of(mesh, done))
        return len(ran_on) == 2

    await eventually("both workers ran it", both, timeout_s=WAIT_S)
    assert grants(mesh) == 1


async def test_a_worker_whose_cache_is_gone_does_not_compile_again(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await create(mesh, "kept")
    assert (await mesh.invoke("kept", 1, wait_s=WAIT_S)).status == Invocation.COMPLETED
    await mesh.stop("worker-1")
    shutil.rmtree(mesh.directory / "worker-1" / "functions")
    await mesh.start("worker-1")
    done = await mesh.invoke("kept", 2, wait_s=WAIT_S)
    assert (done.status, to_python(done.result)) == (Invocation.COMPLETED, 2), done.error
    assert grants(mesh) == 1


async def test_what_is_invoked_before_there_is_a_worker_waits(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    assert (await create(mesh, "early")).state == FunctionVersion.BUILDING
    accepted = await mesh.invoke("early", 3)
    assert accepted.status == Invocation.PENDING
    await mesh.start("worker-1")
    done = await mesh.get(accepted.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1), done.error
    assert (await state(mesh, "early")).state == READY


async def test_a_compile_error_is_told_at_deployment_and_at_invoke(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await create(mesh, "broken", BROKEN)
    found = await ended(mesh, "broken")
    assert found.state == FAILED
    assert found.state_reason.startswith("main.go:")
    assert "undefined: missing" in found.state_reason
    for _ in range(2):
        done = await mesh.invoke("broken", 1, wait_s=WAIT_S)
        assert done.status == Invocation.FAILED
        assert done.error.code == Invocation.FUNCTION_ERROR
        assert (done.error.type, done.error.message) == ("CompileError", found.state_reason)
    assert grants(mesh) == 1


async def test_with_validate_a_compile_error_is_refused(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(mesh, "checked", BROKEN, validate=True)
    error = from_rpc_error(caught.value, "FunctionService")
    assert type(error) is InvalidCode
    assert [violation.field for violation in error.violations] == ["code"]
    assert "main.go:" in error.message
    assert "undefined: missing" in error.message
    assert mesh.rows("SELECT id FROM functions") == []
    made = await create(mesh, "checked", validate=True)
    assert made.state == READY
    assert (await mesh.invoke("checked", 1, wait_s=WAIT_S)).status == Invocation.COMPLETED
    assert grants(mesh) == 2


class StuckMesh(Mesh):
    """One whose worker-1 has a compiler that never ends."""

    def environment(self, name: str) -> dict[str, str]:
        """As any other's, but for the compiler that is found first."""
        environment = super().environment(name)
        if name == "worker-1":
            environment["PATH"] = f"{self.directory}/bin{os.pathsep}{environment['PATH']}"
        return environment


@pytest.fixture
async def stuck_mesh(database_url: str, redis_url: str) -> AsyncIterator[StuckMesh]:
    go = find().executables.get("go")
    if go is None:
        pytest.skip("this machine has no Go")
    async with new_mesh(database_url, redis_url) as mesh:
        stuck = StuckMesh(mesh.directory, mesh.database_url, mesh.redis_url)
        compiler = Path(mesh.directory, "bin", "go")
        compiler.parent.mkdir()
        compiler.write_text(STUCK_GO.format(go=go))
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
        async with stuck:
            yield stuck


async def test_a_build_is_taken_over_from_a_worker_that_is_killed(stuck_mesh: StuckMesh) -> None:
    mesh = stuck_mesh
    await mesh.start("functions", build_lease_s=1)
    await mesh.start("invocations", "worker-1")
    await create(mesh, "taken")
    accepted = await mesh.invoke("taken", 4)

    async def granted() -> bool:
        return grants(mesh) == 1

    await eventually("the first worker builds", granted, timeout_s=WAIT_S)
    await mesh.kill("worker-1")
    await mesh.start("worker-2")
    done = await mesh.get(accepted.id, wait_s=WAIT_S)
    assert (done.status, to_python(done.result)) == (Invocation.COMPLETED, 4), done.error
    assert worker_of(mesh, done) == "worker-2"
    assert grants(mesh) == 2


async def test_a_build_that_its_worker_gives_back_is_another_s(stuck_mesh: StuckMesh) -> None:
    mesh = stuck_mesh
    await mesh.start("functions", "invocations", "worker-1")
    await create(mesh, "handed-on")

    async def granted() -> bool:
        return grants(mesh) == 1

    await eventually("the first worker builds", granted, timeout_s=WAIT_S)
    await mesh.stop("worker-1")
    found = await state(mesh, "handed-on")
    assert (found.state, found.state_reason) == (
        FunctionVersion.BUILDING,
        "Its worker shut down.",
    )
    await mesh.start("worker-2")
    assert (await ended(mesh, "handed-on")).state == READY


@pytest.mark.docker
async def test_under_docker_it_is_compiled_in_a_container_for_all_workers(
    mesh: Mesh, docker_engine: Path
) -> None:
    settings = {"runtime": "docker", "docker_socket": docker_engine, "prewarmed": 0}
    await mesh.start("functions", "invocations")
    await mesh.start("worker-1", **settings)
    await create(mesh, "contained", validate=True)
    await create(mesh, "broken", BROKEN)
    assert "main.go:" in (await ended(mesh, "broken")).state_reason
    await mesh.stop("worker-1")
    await mesh.start("worker-2", **settings)
    done = await mesh.invoke("contained", 5, wait_s=WAIT_S)
    assert (done.status, to_python(done.result)) == (Invocation.COMPLETED, 5), done.error
    assert done.runtime_image.startswith("sha256:")
    assert grants(mesh) == 2
