"""What the conformance suite runs on: every runtime implementation."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from services.worker.docker_runtime import DockerRuntime
from services.worker.go_build import BINARY
from services.worker.pool import Budget
from services.worker.process_runtime import ProcessRuntime
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    Line,
    OutputLimits,
    Runtime,
    Verdict,
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what means nothing: by `applies`, or a function that a language does not have."""
    left_out = [item for item in items if _means_nothing(item)]
    items[:] = [item for item in items if item not in set(left_out)]
    config.hook.pytest_deselected(items=left_out)


def _means_nothing(item: pytest.Item) -> bool:
    values = item.callspec.params if hasattr(item, "callspec") else {}
    language, sources = values.get("language"), values.get("sources")
    if language and isinstance(sources, dict) and language not in sources:
        return True
    applies = item.get_closest_marker("applies")
    if applies is None:
        return False
    wanted = applies.kwargs
    return language not in wanted.get("languages", [language]) or (
        values["bench"] not in wanted.get("runtimes", [values["bench"]])
    )


SOURCES = {"python": "main.py", "node": "main.js", "go": "main.go"}
LIMITS = OutputLimits(log_bytes=64 * 1024, kill_bytes=4 * 1024 * 1024)


@dataclass
class Ran:
    """What one execution came to."""

    verdict: Verdict
    lines: list[Line] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]


class Bench:
    """Runs functions from their source."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        self.runtime = runtime
        self.directory = directory

    def spec(
        self,
        language: str,
        files: str | Mapping[str, str],
        handler: str | None = None,
        env: Mapping[str, str] | None = None,
        memory_mb: int = 256,
    ) -> FunctionSpec:
        home = self.directory / uuid4().hex
        code = home / "code"
        code.mkdir(parents=True)
        if isinstance(files, str):
            files = {SOURCES[language]: files}
        for name, text in files.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(text)
        if handler is None:
            handler = "main.Handler" if language == "go" else "main.handler"
        return FunctionSpec(
            function_id=f"func-{uuid4()}",
            version=3,
            runtime=language,
            handler=handler,
            memory_mb=memory_mb,
            cpus=1,
            env=env or {},
            code_dir=code,
            build_dir=home / "build",
        )

    def assignment(
        self,
        spec: FunctionSpec,
        payload: bytes = b"null",
        timeout_s: float = 60,
        payload_type: str = "application/json",
        invocation_id: str = "inv-1",
    ) -> Assignment:
        return Assignment(
            invocation_id=invocation_id,
            attempt=2,
            spec=spec,
            function_name="tried",
            payload=payload,
            payload_type=payload_type,
            timeout_s=timeout_s,
            context={"traceparent": "00-a-b-01"},
        )

    async def built(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Have all that an execution needs, or say what the compiler said."""
        await self.runtime.prepare(spec)
        if not spec.is_compiled or (spec.build_dir / BINARY).exists():
            return None
        return await self.runtime.build(spec)

    async def run(
        self,
        spec: FunctionSpec,
        payload: bytes = b"null",
        timeout_s: float = 60,
        payload_type: str = "application/json",
        invocation_id: str = "inv-1",
    ) -> Ran:
        failure = await self.built(spec)
        if failure is not None:
            return Ran(Verdict(failure=failure))
        lines: list[Line] = []
        verdict = await self.runtime.execute(
            self.assignment(spec, payload, timeout_s, payload_type, invocation_id), lines.append
        )
        return Ran(verdict, lines)


def make_runtime(request: pytest.FixtureRequest, work_dir: Path) -> Runtime:
    common = {
        "work_dir": work_dir,
        "stack": f"test-{uuid4().hex}",
        "worker_id": "worker-1",
        "boot_id": str(uuid4()),
        "limits": LIMITS,
    }
    if request.param == "process":
        return ProcessRuntime(**common)
    socket = request.getfixturevalue("docker_engine")
    return DockerRuntime(
        **common,
        network="none",
        engine_socket=socket,
        budget=Budget(sandboxes=8, memory_mb=4096, cores=2),
        one_shot=request.param != "warm",
    )


@pytest.fixture
def work_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="faas-c-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


RUNTIMES = [
    "process",
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("warm", marks=pytest.mark.docker),
]


@pytest.fixture(params=RUNTIMES)
async def bench(request: pytest.FixtureRequest, work_dir: Path) -> AsyncIterator[Bench]:
    runtime = make_runtime(request, work_dir / "w")
    await runtime.start()
    yield Bench(runtime, work_dir / "functions")
    if request.param == "warm":
        await runtime.close()
    assert not list((work_dir / "w").glob("func-*")), "a sandbox's directory was left"
    assert not await containers_below(runtime, work_dir), "a container was left"
    if request.param != "warm":
        await runtime.close()


async def containers_below(runtime: Runtime, directory: Path) -> list[str]:
    """The names of containers whose boots are below `directory`."""
    if isinstance(runtime, ProcessRuntime):
        return []
    command = ["docker", "ps", "--all", "--format", '{{.Names}} {{.Label "faas.boots"}}']
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    return [line for line in done.stdout.decode().splitlines() if str(directory) in line]
