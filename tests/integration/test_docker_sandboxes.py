"""Sandboxes in a real engine: how they are closed, how they end, what is left of them."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.worker import sandboxes
from services.worker.docker_runtime import DockerRuntime
from services.worker.go_container import BUILD_IMAGE
from services.worker.pool import Budget
from services.worker.runtime import Line, RuntimeUnavailable, Verdict
from tests.conformance import functions
from tests.conformance.conftest import LIMITS, Bench
from tests.mesh import eventually

pytestmark = pytest.mark.docker


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="faas-d-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def make_runtime(
    directory: Path, stack: str, socket: Path, *, one_shot: bool = True
) -> DockerRuntime:
    return DockerRuntime(
        work_dir=directory / "w",
        stack=stack,
        worker_id="worker-1",
        boot_id=str(uuid4()),
        limits=LIMITS,
        network="none",
        engine_socket=socket,
        budget=Budget(sandboxes=8, memory_mb=1024, cores=2),
        one_shot=one_shot,
    )


@pytest.fixture
async def bench(docker_engine: Path, directory: Path) -> AsyncIterator[Bench]:
    runtime = make_runtime(directory, uuid4().hex, docker_engine)
    await runtime.start()
    yield Bench(runtime, directory / "functions")
    await runtime.close()
    assert not containers(directory)
    assert not list((directory / "w").glob("func-*"))


def docker(*command: str) -> str:
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


def containers(directory: Path) -> list[dict[str, Any]]:
    """What `docker inspect` says of the containers of workers below `directory`."""
    label = f"label=faas.boots={directory}/w/.boots/"
    ids = [
        line.split()[0]
        for line in docker("ps", "-a", "--format", '{{.ID}} {{.Label "faas.boots"}}').splitlines()
        if f"label=faas.boots={line.split()[-1]}".startswith(label)
    ]
    if not ids:
        return []
    # Of those that went meanwhile it says so, and of the others what it was asked.
    inspected = subprocess.run(
        ["docker", "inspect", *ids], capture_output=True, text=True, check=False
    )
    return json.loads(inspected.stdout)


class Running:
    """An execution that has printed its first line."""

    def __init__(self, bench: Bench, sources: dict[str, str], timeout_s: float = 60) -> None:
        self.lines: list[Line] = []
        self._printed = asyncio.Event()
        assignment = bench.assignment(
            bench.spec("python", sources["python"]), b'{"a":1}', timeout_s
        )
        self.task = asyncio.create_task(bench.runtime.execute(assignment, self._on_line))

    def _on_line(self, line: Line) -> None:
        self.lines.append(line)
        self._printed.set()

    async def printed(self) -> None:
        async with asyncio.timeout(60):
            await self._printed.wait()

    async def ended(self) -> Verdict:
        async with asyncio.timeout(60):
            return await self.task


async def test_a_container_is_hardened_and_limited(bench: Bench, directory: Path) -> None:
    running = Running(bench, functions.SLEEP)
    await running.printed()
    (seen,) = containers(directory)
    host, config = seen["HostConfig"], seen["Config"]
    assert config["Image"] == "faas-runtime-python:latest"
    assert config["User"] == "65532:65532"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert host["PidsLimit"] == 64
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024 * 1024
    assert host["NanoCpus"] == 1_000_000_000
    assert host["Init"]
    assert host["LogConfig"]["Type"] == "none"
    assert host["NetworkMode"] == "none"
    assert host["IpcMode"] == "private"
    assert {(u["Name"], u["Hard"]) for u in host["Ulimits"]} == {("nofile", 1024), ("core", 0)}
    assert "size=64m" in host["Tmpfs"]["/tmp"]
    assert "nr_inodes=" in host["Tmpfs"]["/tmp"]
    mounts = {mount["Destination"]: mount for mount in seen["Mounts"]}
    assert set(mounts) == {"/app/function", "/run/faas"}
    assert not any(mount["RW"] for mount in mounts.values())
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["FUNCTION_PAYLOAD"] == '{"a":1}'
    assert environment["FUNCTION_HANDLER"] == "main.handler"
    assert set(config["Labels"]) >= {"faas.stack", "faas.worker", "faas.boot", "faas.function"}
    running.task.cancel()
    await asyncio.wait({running.task})
    assert not containers(directory)


PROBE = """
import errno, os, socket
def attempt(action):
    try:
        return action() or "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def fill():
    with open("/tmp/full", "wb") as file:
        while True:
            file.write(b"x" * (1 << 20))
def handler(payload, context):
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return {
        "root": attempt(lambda: open("/etc/evil", "w").close()),
        "code": attempt(lambda: open("/app/function/evil.py", "w").close()),
        "run": attempt(lambda: open("/run/faas/evil", "w").close()),
        "tmp": attempt(lambda: open("/tmp/good", "w").close()),
        "full": attempt(fill),
        "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
        "chroot": attempt(lambda: os.chroot("/tmp")),
        "setuid": attempt(lambda: os.setuid(0)),
        "outside": attempt(lambda: socket.create_connection(("192.0.2.1", 80), 1).close()),
        "docker": os.path.exists("/var/run/docker.sock"),
        "uid": os.getuid(),
        "capabilities": status["CapEff"].strip(),
        "new_privileges": status["NoNewPrivs"].strip(),
        "seccomp": status["Seccomp"].strip(),
    }
"""


async def test_what_a_function_may_do(bench: Bench) -> None:
    ran = await bench.run(bench.spec("python", PROBE))
    assert ran.verdict.failure is None, ran
    assert json.loads(ran.verdict.result) == {
        "root": "EROFS",
        "code": "EROFS",
        "run": "EROFS",
        "tmp": "done",
        "full": "ENOSPC",
        "raw": "EPERM",
        "chroot": "EPERM",
        "setuid": "EPERM",
        "outside": "ENETUNREACH",
        "docker": False,
        "uid": 65532,
        "capabilities": "0000000000000000",
        "new_privileges": "1",
        "seccomp": "2",
    }


async def test_metrics_are_of_the_sandbox(bench: Bench) -> None:
    busy = (
        "import time\ndef handler(p):\n    kept = b'x' * (100 << 20)\n"
        "    end = time.process_time() + 0.3\n    while time.process_time() < end: pass\n"
    )
    ran = await bench.run(bench.spec("python", busy))
    assert ran.verdict.failure is None
    assert 0.3 <= (ran.verdict.cpu_time_s or 0) < 30
    assert 100 << 20 <= (ran.verdict.peak_memory_bytes or 0) <= 256 << 20
    image = docker("image", "inspect", "--format", "{{.Id}}", "faas-runtime-python:latest")
    assert ran.verdict.image == image.strip()


async def test_what_is_killed_for_its_time_has_metrics(bench: Bench) -> None:
    ran = await bench.run(bench.spec("python", functions.BUSY["python"]), timeout_s=2)
    assert ran.verdict.failure is not None
    assert ran.verdict.failure.code == Invocation.TIMEOUT
    assert ran.verdict.cpu_time_s


@pytest.mark.parametrize("order", [("rm", "-f"), ("kill",), ("stop", "-t", "0")], ids=" ".join)
async def test_what_is_done_from_outside_is_not_the_functions_fault(
    bench: Bench, directory: Path, order: tuple[str, ...]
) -> None:
    running = Running(bench, functions.SLEEP)
    await running.printed()
    (seen,) = containers(directory)
    await asyncio.to_thread(docker, *order, seen["Id"])
    with pytest.raises(RuntimeUnavailable, match="somebody else"):
        await running.ended()
    assert not containers(directory)


async def test_what_is_killed_while_it_starts_is_not_the_functions_fault(
    bench: Bench, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(bench.runtime, DockerRuntime)
    engine = bench.runtime._engine
    inspect = engine.inspect

    async def killing(container: str) -> Any:
        monkeypatch.setattr(engine, "inspect", inspect)
        sockets = Path(f"/proc/{(await inspect(container))['State']['Pid']}/net/unix")

        async def connected() -> bool:
            return f"{directory}/w/func-" in sockets.read_text()

        await eventually("the shim has connected", connected, 60)
        await asyncio.to_thread(docker, "kill", container)
        return await inspect(container)

    monkeypatch.setattr(engine, "inspect", killing)
    with pytest.raises(RuntimeUnavailable, match=r"somebody else|did not come up"):
        await bench.run(bench.spec("python", functions.SLEEP["python"]))


async def test_a_missing_image_is_named_with_its_cure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sandboxes.IMAGES, "python", "faas-runtime-none:latest")
    with pytest.raises(RuntimeUnavailable, match=r"faas-runtime-none:latest.*make images"):
        await bench.run(bench.spec("python", functions.ECHO["python"]))


async def test_without_an_engine_it_does_not_start(directory: Path) -> None:
    runtime = make_runtime(directory, "none", directory / "nothing.sock")
    with pytest.raises(RuntimeUnavailable, match=r"nothing\.sock"):
        await runtime.start()
    await runtime.close()


async def test_without_images_it_does_not_start(
    docker_engine: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime in sandboxes.IMAGES:
        monkeypatch.setitem(sandboxes.IMAGES, runtime, "faas-runtime-none:latest")
    runtime = make_runtime(directory, "none", docker_engine)
    with pytest.raises(RuntimeUnavailable, match="make images"):
        await runtime.start()
    await runtime.close()


async def test_too_little_memory_to_begin_is_out_of_memory(bench: Bench) -> None:
    spec = bench.spec("node", functions.ECHO["node"], memory_mb=10)
    ran = await bench.run(spec)
    assert ran.verdict.failure is not None
    assert ran.verdict.failure.code == Invocation.OUT_OF_MEMORY
    assert "10 MiB" in ran.verdict.failure.message


async def test_a_container_that_nobody_holds_is_removed(bench: Bench, directory: Path) -> None:
    running = Running(bench, functions.SLEEP)
    await running.printed()
    (held,) = containers(directory)
    labels = [f"--label={name}={value}" for name, value in held["Config"]["Labels"].items()]
    image = ["--entrypoint=/bin/sleep", "faas-runtime-python:latest", "60"]
    await asyncio.to_thread(docker, "run", "-d", "--network=none", *labels, *image)
    assert isinstance(bench.runtime, DockerRuntime)
    await bench.runtime._containers.reconcile()
    assert [one["Id"] for one in containers(directory)] == [held["Id"]]
    running.task.cancel()
    await asyncio.wait({running.task})


async def test_a_build_is_in_a_container_with_limits(bench: Bench, directory: Path) -> None:
    spec = bench.spec("go", functions.ECHO["go"])
    building = asyncio.create_task(bench.runtime.build(spec))

    async def build() -> dict[str, Any] | None:
        found = await asyncio.to_thread(containers, directory)
        return next((one for one in found if one["State"]["Running"]), None)

    seen = await eventually("a build's container", build)
    host = seen["HostConfig"]
    assert seen["Config"]["Labels"]["faas.build"] == "go"
    assert seen["Config"]["User"] == "65532:65532"
    assert host["Memory"] == host["MemorySwap"] == 1024**3
    assert host["PidsLimit"] == 256
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert [mount["Destination"] for mount in seen["Mounts"]] == ["/source"]
    assert await building is None
    assert not containers(directory)
    assert (spec.build_dir / "handler").exists()


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.conformance import functions
from tests.conformance.conftest import Bench
from tests.integration.test_docker_sandboxes import make_runtime

async def main():
    directory, stack, socket = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    runtime = make_runtime(directory, stack, socket, one_shot=sys.argv[4] == "one-shot")
    await runtime.start()
    bench = Bench(runtime, directory / "functions")
    spec = bench.spec("python", functions.BUSY["python"])
    await runtime.execute(bench.assignment(spec), print)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["one-shot", "warm"])
async def test_what_a_killed_worker_left_is_removed_by_the_next(
    docker_engine: Path, directory: Path, kind: str
) -> None:
    stacks = {"ours": uuid4().hex, "theirs": uuid4().hex}
    workers = {}
    for name, stack in stacks.items():
        command = [sys.executable, "-c", WORKER, directory, stack, docker_engine, kind]
        workers[name] = subprocess.Popen(command, start_new_session=True)

    async def both() -> bool:
        found = await asyncio.to_thread(containers, directory)
        return [one["State"]["Running"] for one in found] == [True, True]

    try:
        await eventually("both run", both, timeout_s=60)
        workers["ours"].kill()
        workers["ours"].wait(10)
        runtime = make_runtime(directory, stacks["ours"], docker_engine)
        await runtime.start()
        (left,) = await asyncio.to_thread(containers, directory)
        assert left["Config"]["Labels"]["faas.stack"] == stacks["theirs"]
        directories = [path.name for path in (directory / "w").glob("func-*/*")]
        assert directories == [left["Name"].removeprefix("/faas-")]
        await runtime.close()
    finally:
        for worker in workers.values():
            worker.send_signal(signal.SIGKILL)
            worker.wait(10)
    runtime = make_runtime(directory, stacks["theirs"], docker_engine)
    await runtime.start()
    assert not containers(directory)
    await runtime.close()


def test_images_that_are_current_are_left(docker_engine: Path) -> None:
    names = [*sandboxes.IMAGES.values(), BUILD_IMAGE]
    before = docker("image", "inspect", "--format", "{{.Id}}", *names)
    build = Path(__file__).parents[2] / "runtimes" / "build.py"
    done = subprocess.run([sys.executable, build], check=True, capture_output=True, text=True)
    assert done.stdout.count("is current") == len(names)
    assert docker("image", "inspect", "--format", "{{.Id}}", *names) == before
