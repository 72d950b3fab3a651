"""The flow, step by step, seen from outside: Redis, PostgreSQL, processes, files.

The steps are those of the README, once as a process and once in a container. The
function holds until the test lets it go, so each step can be looked at while it lasts.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from faas.json_values import to_python
from faas.v1.function_pb2 import Function
from faas.v1.invocation_pb2 import Invocation
from faas.v1.worker_pb2 import DrainWorkerRequest, ResumeWorkerRequest
from tests.mesh import QUEUE, Mesh, eventually

WAIT_S = 120
RUNTIMES = ["process", pytest.param("docker", marks=pytest.mark.docker)]
HOLD = """
import os, pathlib, sys, time

def handler(payload, context):
    print("held")
    # Beside its code, which it has as a process and in a container alike.
    while not pathlib.Path(payload["release"]).exists():
        time.sleep(0.02)
    print("released", file=sys.stderr)
    return {
        "handler": os.environ["FUNCTION_HANDLER"],
        "payload": os.environ["FUNCTION_PAYLOAD"],
        "attempt": context.attempt,
    }
"""


class Process:
    """A function that runs as a process, as the machine shows it."""

    def __init__(self, pid: int, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.directory = Path(environment["FUNCTION_SOCKET"]).parent
        self.code = Path(f"/proc/{pid}/cwd").resolve()

    @classmethod
    async def running(cls, mesh: Mesh, accepted: Invocation) -> "Process":
        """The one that runs this invocation."""
        home = mesh.directory / "work" / accepted.function_id

        async def look() -> list[tuple[int, dict[str, str]]]:
            return _processes(home)

        [found] = await eventually("the function's process", look, WAIT_S)
        return cls(*found)

    def check(self, function: Function) -> None:
        """Nothing but time and output is limited."""
        assert self.environment["FUNCTION_CODE_DIR"] == str(self.code)
        assert function.id in self.directory.parts

    def is_gone(self) -> bool:
        return not self.directory.exists() and not _processes(self.directory)


class Container:
    """A function that runs in a container, as `docker inspect` shows it."""

    def __init__(self, inspected: dict) -> None:
        self.inspected = inspected
        self.environment = dict(item.split("=", 1) for item in inspected["Config"]["Env"])
        self.mounts = {mount["Destination"]: mount for mount in inspected["Mounts"]}
        self.directory = Path(self.mounts["/run/faas"]["Source"])
        self.code = Path(self.mounts["/app/function"]["Source"])

    @classmethod
    async def running(cls, _mesh: Mesh, accepted: Invocation) -> "Container":
        """The one that runs this invocation."""

        async def look() -> str:
            return docker("ps", "-q", "--filter", f"label=faas.invocation={accepted.id}").strip()

        [inspected] = json.loads(docker("inspect", await eventually("a container", look, WAIT_S)))
        return cls(inspected)

    def check(self, function: Function) -> None:
        """Its image, limits, mounts and labels are those of the function."""
        host, config = self.inspected["HostConfig"], self.inspected["Config"]
        assert config["Image"].partition(":")[0] == "faas-runtime-python"
        assert config["Labels"]["faas.function"] == function.id
        assert host["Memory"] == host["MemorySwap"] == function.memory_mb * 1024 * 1024
        assert host["NanoCpus"] == function.cpus * 1e9
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        for mount in self.mounts.values():
            assert not mount["RW"], mount
        assert self.inspected["State"]["Running"]

    def is_gone(self) -> bool:
        found = docker("ps", "-aq", "--filter", f"id={self.inspected['Id']}").strip()
        return not found and not self.directory.exists()


def docker(*command: str) -> str:
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


def _processes(directory: Path) -> list[tuple[int, dict[str, str]]]:
    """The processes whose worker's socket is in `directory`, with their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            items = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(item.split("=", 1) for item in items if "=" in item)
        if environment.get("FUNCTION_SOCKET", "").startswith(f"{directory}/"):
            found.append((int(entry.name), environment))
    return found


def row(mesh: Mesh, invocation_id: str) -> dict:
    found = mesh.rows("SELECT * FROM invocations WHERE id = %s", invocation_id.removeprefix("inv-"))
    return found[0] if found else {}


async def processing_lists(mesh: Mesh) -> dict[str, list[bytes]]:
    names = [key.decode() async for key in mesh.redis.scan_iter(match=f"{QUEUE}:processing:*")]
    return {name: await mesh.redis.lrange(name, 0, -1) for name in names}


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_the_fifteen_steps(mesh: Mesh, runtime: str, request: pytest.FixtureRequest) -> None:
    if runtime == "docker":
        request.getfixturevalue("docker_engine")
    await mesh.start("functions", "invocations")
    await mesh.start("worker-1", runtime=runtime, network="none", sandboxes="one-shot")
    function = await mesh.create("hold", HOLD, memory_mb=96, cpus=0.5, timeout={"seconds": 90})
    worker = mesh.worker("worker-1")
    await worker.DrainWorker(DrainWorkerRequest())
    payload = {"release": "release", "text": "grüße"}

    # 1, 2: a call, and its record, pending, with the id that the client was given.
    accepted = await mesh.invoke("hold", payload)
    assert accepted.status == Invocation.PENDING
    pending = row(mesh, accepted.id)
    assert (pending["status"], pending["attempt"], pending["started_at"]) == ("pending", 0, None)
    assert json.loads(bytes(pending["payload"])) == payload

    # 3: the message waits in the queue while nobody takes it.
    async def queued() -> list[bytes]:
        return await mesh.redis.lrange(QUEUE, 0, -1)

    # It may have been in the worker's hands for a moment, which puts it back.
    [message] = await eventually("the message in the queue", queued)
    offer = json.loads(message)
    assert offer["invocation_id"] == accepted.id
    assert offer["function_id"] == function.id
    assert (offer["payload"], offer["timeout"]) == (payload, 90)
    assert await processing_lists(mesh) == {}

    # 4: the worker moves it into its own list.
    await worker.ResumeWorker(ResumeWorkerRequest())
    described = mesh.rows("SELECT worker_id, boot_id FROM workers")[0]
    own_list = f"{QUEUE}:processing:worker-{described['worker_id']}:{described['boot_id']}"

    async def is_taken() -> bool:
        return await processing_lists(mesh) == {own_list: [message]}

    await eventually("the message in the worker's list", is_taken)
    assert await mesh.redis.llen(QUEUE) == 0

    # 5: granted: running, with its start.
    async def is_running() -> bool:
        return row(mesh, accepted.id)["status"] == "running"

    await eventually("the grant", is_running)
    granted = row(mesh, accepted.id)
    assert (granted["attempt"], granted["worker_boot"]) == (1, described["boot_id"])
    assert granted["started_at"] >= granted["created_at"]
    shown = await mesh.get(accepted.id)
    assert (shown.status, shown.attempt) == (Invocation.RUNNING, 1)

    # 6 to 9: its code from storage in a directory, its sandbox with both variables.
    stored = mesh.directory / "storage" / "functions" / function.id / function.code_sha256
    assert (stored / "code").read_text() == HOLD
    sandbox = await {"process": Process, "docker": Container}[runtime].running(mesh, accepted)
    sandbox.check(function)
    assert (sandbox.code / "main.py").read_text() == HOLD
    assert sandbox.directory.is_relative_to(mesh.directory / "work" / function.id)
    assert sandbox.environment["FUNCTION_HANDLER"] == "main.handler"
    assert json.loads(sandbox.environment["FUNCTION_PAYLOAD"]) == payload

    # 10, 11: it runs, and is waited for.
    assert not sandbox.is_gone()
    assert await processing_lists(mesh) == {own_list: [message]}
    (sandbox.code / "release").touch()

    # 12, 13: result, output and what it cost are in the record.
    done = await mesh.get(accepted.id, wait_s=WAIT_S)
    completed = row(mesh, accepted.id)
    assert (completed["status"], completed["attempt"]) == ("completed", 1)
    assert completed["completed_at"] >= completed["started_at"]
    assert completed["metrics"].keys() >= {"queued_s", "duration_s", "startup_s", "run_s"}
    result = to_python(done.result)
    assert (result["handler"], result["attempt"]) == ("main.handler", 1)
    assert json.loads(result["payload"]) == payload

    # 14: directory and process are gone, the message too.
    async def nothing_left() -> bool:
        return sandbox.is_gone() and await mesh.queue_is_empty()

    await eventually("nothing left of it", nothing_left)

    # 15: the client asks again whenever it likes.
    assert done.status == Invocation.COMPLETED
    assert done.metrics.run.ToMilliseconds() > 0
    assert done.metrics.peak_memory_bytes > 0
    assert await mesh.get(accepted.id) == done
