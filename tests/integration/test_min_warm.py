"""What is kept ready for functions that ask for it, through all parts and a real engine."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from faas.v1.function_service_pb2 import DeleteFunctionRequest, UpdateFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from tests.mesh import Mesh, eventually

pytestmark = pytest.mark.docker

WAIT_S = 120


async def running(mesh: Mesh) -> list[str]:
    """The versions of the functions that have a running container, one for each."""
    command = ["docker", "ps", "--filter", f"label=faas.stack={mesh.directory.name}"]
    command += ["--format", '{{.Label "faas.version"}}']
    ran = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, text=True
    )
    return ran.stdout.split()


async def are_running(mesh: Mesh, *versions: str) -> None:
    async def so() -> bool:
        return await running(mesh) == list(versions)

    await eventually(f"sandboxes of the versions {versions} are ready", so, WAIT_S)


async def test_sandboxes_are_ready_before_anybody_calls(mesh: Mesh, docker_engine: Path) -> None:
    settings = {"runtime": "docker", "network": "none", "prewarmed": 0}
    await mesh.start("functions", "invocations")
    await mesh.start("worker-1", docker_socket=docker_engine, **settings)
    await mesh.create("echo", min_warm=2)
    await are_running(mesh, "1", "1")

    await mesh.kill("worker-1")
    await mesh.start("worker-1", docker_socket=docker_engine, **settings)
    # The dead worker's are gone, and others are there: nobody has called.
    await are_running(mesh, "1", "1")

    await mesh.functions.UpdateFunction(UpdateFunctionRequest(function_id="echo", memory_mb=64))
    await are_running(mesh, "2", "2")
    done = await mesh.invoke("echo", 1, wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    # Its container is up; the interpreter in it may have been about to be.
    assert done.metrics.start_kind in (Invocation.PREWARMED, Invocation.COLD)

    await mesh.functions.UpdateFunction(UpdateFunctionRequest(function_id="echo", min_warm=3))
    await are_running(mesh, "2", "2", "2")
    await mesh.functions.DeleteFunction(DeleteFunctionRequest(function_id="echo"))
    # The one that was used ages as all do.
    await are_running(mesh, "2")
    assert await mesh.stop("worker-1") == 0
    await are_running(mesh)
