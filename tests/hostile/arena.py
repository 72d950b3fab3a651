"""Where hostile functions run: one worker's runtime, with a neighbour that must not notice.

The worker is this process, so its memory, its descriptors and its directory can be
looked at from the inside.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from services.worker.docker_runtime import DockerRuntime
from services.worker.pool import Budget
from services.worker.process_runtime import ProcessRuntime
from services.worker.runtime import FunctionSpec, OutputLimits, Runtime
from tests.conformance.conftest import Bench, Ran
from tests.hostile.table import Table
from tests.mesh import eventually

# What one execution may print, and a little for all that goes on beside.
FLAT_BYTES = 32 << 20
NEIGHBOUR = (
    "count = 0\n\ndef handler(p):\n    global count\n    count += 1\n    return [p, count]\n"
)


@dataclass
class Memory:
    """Of this process, in bytes."""

    before: int
    peak: int = 0

    @property
    def grown(self) -> int:
        """By how much it was more than before, at the most."""
        return self.peak - self.before


class Arena:
    """A runtime as a deployment has it, and what it must look like after an attack."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        """The runtime works below `directory`."""
        self.bench = Bench(runtime, directory / "functions")
        self._directory = directory
        self._neighbour = self.bench.spec("python", NEIGHBOUR, memory_mb=64)
        self._owners = {self._neighbour.function_id}
        self._served = 0
        self._go: dict[str, FunctionSpec] = {}

    @property
    def warm(self) -> bool:
        """Whether sandboxes are used again."""
        return isinstance(self.bench.runtime, DockerRuntime)

    def spec(self, table: Table, name: str, language: str) -> FunctionSpec:
        """A cell's function; the package of all Go cells is compiled once."""
        case = table.rows[name]
        files = table.files(name, language)
        spec = self.bench.spec(
            language, files, case.handler, table.env(name), memory_mb=case.memory_mb
        )
        if language == "go" and len(files) > 1:
            first = self._go.setdefault(str(id(table)), spec)
            return replace(spec, code_dir=first.code_dir, build_dir=first.build_dir)
        return spec

    async def serve_neighbour(self) -> None:
        """Call the neighbour: it answers, from the sandbox that it has had all the time."""
        ran = await self.bench.run(self._neighbour, str(self._served).encode(), timeout_s=120)
        assert ran.verdict.failure is None, ran
        payload, count = json.loads(ran.verdict.result)
        assert payload == self._served
        self._served += 1
        if self.warm:
            assert count == self._served, "the neighbour's sandbox was lost"

    async def attack(self, spec: FunctionSpec, timeout_s: float, payload: bytes = b"null") -> Ran:
        """Run a hostile function; longer than anything may take is an error of ours."""
        async with asyncio.timeout(timeout_s + 120):
            invocation_id = f"inv-{uuid4()}"
            return await self.bench.run(spec, payload, timeout_s, invocation_id=invocation_id)

    async def falls_silent(self) -> None:
        """Wait until a sandbox that prints without being asked is read no more."""
        assert isinstance(self.bench.runtime, DockerRuntime)
        warm = self.bench.runtime._warm
        assert warm is not None

        async def silent() -> bool:
            return not all(sandbox.quiet for sandbox in warm._sandboxes.values())

        await eventually("the worker reads no more", silent)

    def keep(self, spec: FunctionSpec) -> None:
        """This function's sandbox may stay."""
        self._owners.add(spec.function_id)

    async def nothing_is_left(self) -> None:
        """Wait until nothing is there but the sandboxes of the neighbour and of what is kept."""
        owners = self._owners if self.warm else set()

        async def clean() -> bool:
            return not await self._left(owners)

        try:
            await eventually("nothing is left", clean)
        except TimeoutError as error:
            raise AssertionError(await self._left(owners)) from error

    async def _left(self, owners: set[str]) -> list[str]:
        left = [] if not self.warm else await containers(self._directory)
        left = [one for one in left if one.partition(" ")[2] not in owners]
        work = self._directory / "w"
        folders = [path for path in work.glob("*/*") if ".boots" not in path.parts]
        left += [str(path) for path in folders if path.parent.name not in owners]
        left += [held for held in _held(work) if not any(owner in held for owner in owners)]
        return left + [f"process {pid}" for pid in _processes(self._directory)]


@asynccontextmanager
async def an_arena(kind: str, directory: Path, engine_socket: Path | None) -> AsyncIterator[Arena]:
    """An arena, `process` or `warm`, with the limits of a real deployment."""
    values = {
        "work_dir": directory / "w",
        "stack": f"test-{uuid4().hex}",
        "worker_id": "worker-1",
        "boot_id": str(uuid4()),
        "limits": OutputLimits(),
    }
    runtime: Runtime
    if kind == "process":
        runtime = ProcessRuntime(**values)
    else:
        assert engine_socket is not None
        budget = Budget(sandboxes=64, memory_mb=64 * 1024, cores=2)
        runtime = DockerRuntime(
            **values, network="none", engine_socket=engine_socket, budget=budget
        )
    await runtime.start()
    try:
        arena = Arena(runtime, directory)
        await arena.serve_neighbour()
        yield arena
    finally:
        await runtime.close()
    assert kind == "process" or not await containers(directory)
    assert not _held(directory / "w")


async def containers(directory: Path) -> list[str]:
    """Names and functions of the containers whose boots are below `directory`."""
    shown = '{{.Names}} {{.Label "faas.function"}}|{{.Label "faas.boots"}}'
    command = ["docker", "ps", "--all", "--format", shown]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    lines = [line.partition("|") for line in done.stdout.decode().splitlines()]
    return [name for name, _, boots in lines if boots.startswith(str(directory))]


@contextmanager
def flat_memory() -> Iterator[Memory]:
    """What the block makes this process need at the most."""
    # Forgets the peak that was before: proc(5), since Linux 4.0.
    Path("/proc/self/clear_refs").write_text("5")
    memory = Memory(_own("VmRSS"))
    yield memory
    memory.peak = _own("VmHWM")


def _own(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def _held(directory: Path) -> list[str]:
    """Sockets that listen, and files that this process has open, below a directory."""
    sockets = [
        line.split()[-1]
        for line in Path("/proc/net/unix").read_text().splitlines()
        if str(directory) in line
    ]
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            files.append(os.readlink(entry))
        except OSError:
            continue
    locks = str(directory / ".boots")
    return sockets + [
        file for file in files if file.startswith(str(directory)) and not file.startswith(locks)
    ]


def _processes(directory: Path) -> list[int]:
    """Processes that a function has left: by where they are, and by their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                where = os.readlink(entry / "cwd")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if where.startswith(str(directory)) or str(directory).encode() in environment:
                found.append(int(entry.name))
    return found
