"""Compiles Go in containers with limits of their own: never on the host."""

import asyncio
import itertools

from services.worker.containers import Containers
from services.worker.go_build import Build
from services.worker.hardening import BUILD_MEMORY_MB, Owner, build_container
from services.worker.output import Output
from services.worker.runtime import OutputLimits

BUILD_IMAGE = "faas-build-go:latest"


class GoContainer:
    """Runs `go`, for a `GoBuilder`."""

    def __init__(
        self, containers: Containers, owner: Owner, cpus: int, limits: OutputLimits
    ) -> None:
        """One build may use all the `cpus` of the host, as long as nobody else does."""
        self._containers = containers
        self._owner = owner
        self._cpus = cpus
        self._limits = limits
        self._numbers = itertools.count(1)

    async def compile(self, build: Build, timeout_s: float) -> tuple[int, str]:
        """The exit code, and what it printed. Raises TimeoutError and RuntimeUnavailable."""
        lines: list[str] = []
        output = Output(lambda line: lines.append(line.text), self._limits)
        # The compiler runs as a user without a name, and leaves here what it made.
        build.source.chmod(0o777)
        container = build_container(
            owner=self._owner,
            image=BUILD_IMAGE,
            source=build.source.resolve(),
            command=list(build.command),
            cpus=self._cpus,
        )
        name = f"{self._owner.boot}-build{next(self._numbers)}"
        async with asyncio.timeout(timeout_s):
            async with self._containers.running(name, container, output) as running:
                ending = await running.ending()
                await running.output_read
        if ending.out_of_memory:
            lines.append(f"the build used up its {BUILD_MEMORY_MB} MiB of memory")
        return ending.exit_code, "\n".join(lines)
