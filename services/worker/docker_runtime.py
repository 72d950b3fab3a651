"""Functions in Docker containers: a fresh one for each invocation, hardened.

The worker listens on a socket in the sandbox's own directory, which is mounted, and
the shim inside connects to it: `runtimes/CONTRACT.md`.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from services.worker.containers import Containers
from services.worker.conversation import Answer, Listener
from services.worker.engine import Engine, EngineAway, EngineError, NotThere
from services.worker.go_build import BINARY, Build, GoBuilder
from services.worker.hardening import (
    BUILD_MEMORY_MB,
    Limits,
    Owner,
    build_container,
    function_container,
)
from services.worker.output import Output
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    Line,
    OutputLimits,
    RuntimeUnavailable,
    Verdict,
)
from services.worker.sandbox import ENVIRONMENT, LastWords, Sandbox
from services.worker.sandbox_dirs import SandboxDir, SandboxDirs
from services.worker.toolchain import assets

IMAGES = {
    "python": "faas-runtime-python:latest",
    "node": "faas-runtime-node:latest",
    "go": "faas-runtime-go:latest",
}
BUILD_IMAGE = "faas-build-go:latest"
# How often it looks for images that came or went, and for containers that were left.
TEND_S = 10.0

log = structlog.get_logger()


class DockerRuntime:
    """One container for each execution."""

    name = "docker"

    def __init__(
        self,
        *,
        work_dir: Path,
        stack: str,
        worker_id: str,
        boot_id: str,
        limits: OutputLimits,
        network: str,
        engine_socket: Path,
    ) -> None:
        """Containers on `network`, of the engine behind `engine_socket`."""
        self._engine = Engine(engine_socket)
        self._dirs = SandboxDirs(work_dir.absolute(), stack=stack, boot_id=boot_id)
        self._owner = Owner.of(self._dirs, stack, worker_id)
        self._limits = limits
        self._network = network
        self._cpus = os.cpu_count() or 1
        self._images: dict[str, str] = {}
        self._containers = Containers(self._engine, self._owner, starts_at_once=self._cpus)
        self._builder = GoBuilder(self._go, assets() / "go")
        self._builds = 0
        self._tending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find engine and images, and remove what dead workers of this stack left."""
        try:
            info = await self._engine.open()
            await self._look_for_images()
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(str(error)) from error
        if not self._images:
            raise RuntimeUnavailable(
                f"none of the images {', '.join(IMAGES.values())} is there: build them with"
                " `make images`, or load them with `docker load`"
            )
        self._cpus = int(info["NCPU"])
        dead = await asyncio.to_thread(self._dirs.open)
        await self._containers.sweep(dead)
        self._dirs.bury(dead)
        self._tending = asyncio.create_task(self._tend(), name="tend containers")

    def images(self) -> Mapping[str, str]:
        """The images that are there, by runtime, as of a few seconds ago."""
        return self._images

    async def prepare(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Compile what is written in Go. Raises RuntimeUnavailable."""
        return await self._builder.build(spec) if spec.runtime == "go" else None

    async def execute(self, assignment: Assignment, on_line: Callable[[Line], None]) -> Verdict:
        """Run it in a container of its own. Raises RuntimeUnavailable."""
        started = handed = time.monotonic()
        said = LastWords(on_line)
        output = Output(said, self._limits)
        async with self._sandbox(assignment, output) as sandbox:
            failure = await sandbox.greeted()
            handed = time.monotonic()
            answer = Answer(failure) if failure else await sandbox.run(assignment, output, said)
            ended = time.monotonic()
            answer = await sandbox.finish(output, answer)
        return Verdict(
            failure=answer.failure,
            result=answer.result,
            result_type=answer.result_type,
            startup_s=handed - started,
            run_s=ended - handed,
            cpu_time_s=answer.cpu_time_s,
            peak_memory_bytes=answer.peak_memory_bytes,
            image=sandbox.image,
            logs_truncated=output.truncated,
        )

    async def close(self) -> None:
        """Nothing of this boot is left."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        await self._builder.close()
        try:
            await self._containers.reconcile()
        except (EngineAway, EngineError) as error:
            log.error("containers may be left for the next start to remove", reason=str(error))
        await asyncio.to_thread(self._dirs.close)
        await self._engine.close()

    @asynccontextmanager
    async def _sandbox(self, assignment: Assignment, output: Output) -> AsyncIterator[Sandbox]:
        """A started sandbox with its payload, as long as the block runs."""
        spec = assignment.spec
        limits = Limits(spec.memory_mb, min(spec.cpus, self._cpus))
        async with self._dirs.sandbox(spec.function_id) as directory:
            try:
                listener = await asyncio.to_thread(_furnish, directory, assignment)
            except OSError as error:
                raise RuntimeUnavailable(f"no sandbox could be made: {error}") from error
            container = function_container(
                owner=self._owner,
                image=IMAGES[spec.runtime],
                network=self._network,
                limits=limits,
                code_dir=spec.code_dir.resolve(),
                run_dir=directory.run_dir,
                environment=_environment(assignment),
                labels=_labels(assignment),
            )
            try:
                async with self._containers.running(directory.name, container, output) as running:
                    sandbox = Sandbox(running, listener, limits, self._limits)
                    try:
                        yield sandbox
                    finally:
                        sandbox.close()
            finally:
                listener.close()

    async def _look_for_images(self) -> None:
        found = {}
        for runtime, reference in IMAGES.items():
            try:
                found[runtime] = await self._engine.image_id(reference)
            except NotThere:
                if runtime in self._images or not self._images:
                    log.warning("a runtime's image is not there", image=reference)
        self._images = found

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await self._look_for_images()
                await self._containers.reconcile()
            except (EngineAway, EngineError) as error:
                log.warning("the engine cannot be asked", reason=str(error))

    async def _go(self, build: Build, timeout_s: float) -> tuple[int, str]:
        """Run the compiler in a container."""
        self._builds += 1
        name = f"{self._dirs.boot}-build{self._builds}"
        lines: list[str] = []
        output = Output(lambda line: lines.append(line.text), self._limits)
        # The compiler runs as nobody's user, and leaves here what it made.
        build.source.chmod(0o777)
        container = build_container(
            owner=self._owner,
            image=BUILD_IMAGE,
            source=build.source.resolve(),
            command=list(build.command),
            cpus=self._cpus,
        )
        async with asyncio.timeout(timeout_s):
            async with self._containers.running(name, container, output) as running:
                ending = await running.ending()
                await running.output_read
        if ending.out_of_memory:
            lines.append(f"the build used up its {BUILD_MEMORY_MB} MiB of memory")
        return ending.exit_code, "\n".join(lines)


def _furnish(directory: SandboxDir, assignment: Assignment) -> Listener:
    """Payload, socket and what was built, where the sandbox's user can reach them."""
    directory.payload.write_bytes(assignment.payload)
    directory.payload.chmod(0o644)
    if assignment.spec.runtime == "go":
        _link_or_copy(assignment.spec.build_dir / BINARY, directory.run_dir / BINARY)
    return Listener(directory.socket)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        # Another file system, or a file that is not this user's.
        shutil.copy(source, target)


def _environment(assignment: Assignment) -> dict[str, str]:
    """What the container is created with: never the user's variables, which anyone may inspect."""
    environment = {**ENVIRONMENT, "FUNCTION_HANDLER": assignment.spec.handler}
    if (variable := assignment.payload_variable) is not None:
        environment["FUNCTION_PAYLOAD"] = variable
    return environment


def _labels(assignment: Assignment) -> dict[str, str]:
    return {
        "faas.function": assignment.spec.function_id,
        "faas.version": str(assignment.spec.version),
        "faas.invocation": assignment.invocation_id,
    }
