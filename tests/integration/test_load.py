"""Many invocations from many clients: as many records, and nothing left behind."""

import asyncio
import json
import subprocess

import pytest

from faas.json_values import to_python
from faas.v1.invocation_pb2 import Invocation
from tests.mesh import Mesh, eventually

CLIENTS = 32
WAIT_S = 300
LOADS = [
    pytest.param("process", 1000),
    pytest.param("docker", 100, marks=pytest.mark.docker),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("runtime", "count"), LOADS)
async def test_each_of_many_is_one_completed_record(
    mesh: Mesh, runtime: str, count: int, request: pytest.FixtureRequest
) -> None:
    if runtime == "docker":
        request.getfixturevalue("docker_engine")
    await mesh.start("functions", "invocations")
    settings = {"runtime": runtime, "network": "none", "sandboxes": "one-shot"}
    await mesh.start("worker-1", "worker-2", **settings)
    await mesh.create("echo")
    numbers = iter(range(count))
    done: dict[int, Invocation] = {}

    async def client() -> None:
        for number in numbers:
            payload = {"number": number, "text": "x" * 100}
            if number % 2:
                done[number] = await mesh.invoke("echo", payload, wait_s=WAIT_S)
            else:
                made = await mesh.invoke("echo", payload)
                done[number] = await mesh.get(made.id, wait_s=WAIT_S)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    assert len({one.id for one in done.values()}) == count
    for number, one in done.items():
        assert (one.status, one.attempt) == (Invocation.COMPLETED, 1), losses(mesh)
        assert to_python(one.result)["number"] == number
    assert len({one.worker_id for one in done.values()}) == 2
    rows = mesh.rows("SELECT status, count(*) AS n FROM invocations GROUP BY status")
    assert rows == [{"status": "completed", "n": count}]
    await eventually("an empty queue", mesh.queue_is_empty)
    assert not list((mesh.directory / "work").glob("func-*/*"))
    if runtime == "docker":
        assert containers(mesh) == []


def losses(mesh: Mesh) -> str:
    """What was logged of executions that did not end well."""
    parts = ("invocations", "worker-1", "worker-2")
    lines = [line for part in parts for line in mesh.log(part).splitlines()]
    return "\n".join(line for line in lines if "warning" in line or "error" in line)


def containers(mesh: Mesh) -> list[dict]:
    """The containers of this mesh's workers."""
    label = f"label=faas.stack={mesh.directory.name}"
    command = ["docker", "ps", "--all", "--format", "{{json .}}", "--filter", label]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in listed.stdout.splitlines()]
