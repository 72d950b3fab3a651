"""Functions in Docker containers: warm ones that are used again, or one for each call.

The worker listens on a socket in the sandbox's own directory, which is mounted, and
the shim inside connects to it: `runtimes/CONTRACT.md`.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from faas.v1.invocation_pb2 import Invocation
from services.worker.containers import Containers
from services.worker.conversation import Answer
from services.worker.engine import Engine, EngineAway, EngineError, NotThere
from services.worker.go_build import GoBuilder
from services.worker.go_container import GoContainer
from services.worker.hardening import MIB, Limits, Owner
from services.worker.holdings import Holdings
from services.worker.output import Output
from services.worker.pool import Budget, Pool, StartKind
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    Line,
    OutputLimits,
    RuntimeUnavailable,
    Verdict,
)
from services.worker.sandbox import LastWords
from services.worker.sandbox_dirs import SandboxDirs
from services.worker.sandboxes import IMAGES, SandboxMaker, StillBorn
from services.worker.toolchain import assets
from services.worker.warm_sandboxes import WarmSandboxes

# How often it looks for images that came or went, and for containers that were left.
TEND_S = 10.0
PREWARMED_CPUS = 1.0

_START_KINDS = {
    StartKind.COLD: Invocation.COLD,
    StartKind.PREWARMED: Invocation.PREWARMED,
    StartKind.WARM: Invocation.WARM,
}

log = structlog.get_logger()


class DockerRuntime:
    """Containers of one engine."""

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
        budget: Budget,
        one_shot: bool = False,
    ) -> None:
        """Containers on `network`, of the engine behind `engine_socket`.

        They are kept warm within `budget` (a memory of 0 is half of the machine's);
        with `one_shot` there is a fresh one for each execution, except of functions
        that say otherwise.
        """
        self.keeps_warm = not one_shot
        self._engine = Engine(engine_socket)
        self._dirs = SandboxDirs(work_dir.absolute(), stack=stack, boot_id=boot_id)
        owner = Owner.of(self._dirs, stack, worker_id)
        cpus = os.cpu_count() or 1
        self._limits = limits
        self._budget = budget
        self._images: dict[str, str] = {}
        self._containers = Containers(self._engine, owner, starts_at_once=cpus)
        self._maker = SandboxMaker(
            containers=self._containers,
            dirs=self._dirs,
            owner=owner,
            network=network,
            cpus=cpus,
            output_limits=limits,
        )
        compiler = GoContainer(self._containers, owner, cpus, limits)
        self._builder = GoBuilder(compiler.compile, assets() / "go", self._dirs)
        self._warm: WarmSandboxes | None = None
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
        dead = await asyncio.to_thread(self._dirs.open)
        await self._containers.sweep(dead)
        self._dirs.bury(dead)
        self._warm = self._warm_sandboxes(self._budget, info["MemTotal"] // MIB)
        self._warm.begin()
        self._tending = asyncio.create_task(self._tend(), name="tend containers")

    def images(self) -> Mapping[str, str]:
        """The images that are there, by runtime, as of a few seconds ago."""
        return self._images

    async def target(self) -> str:
        """That of the compiler in the build image. Raises RuntimeUnavailable."""
        return await self._builder.target()

    async def build(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Compile in a container. Raises RuntimeUnavailable."""
        return await self._builder.build(spec)

    async def prepare(self, spec: FunctionSpec) -> None:
        """Nothing: the images have it all."""

    def keep(self, wanted: Sequence[tuple[FunctionSpec, int]]) -> None:
        """Have sandboxes ready of those that are not one-shot."""
        if self._warm is not None:
            self._warm.keep([(spec, n) for spec, n in wanted if not self._is_one_shot(spec)])

    def holdings(self) -> Holdings | None:
        """Its warm sandboxes; None before it is started."""
        return None if self._warm is None else self._warm.holdings()

    async def execute(self, assignment: Assignment, on_line: Callable[[Line], None]) -> Verdict:
        """Run it in a sandbox that nobody else uses. Raises RuntimeUnavailable."""
        started = time.monotonic()
        said = LastWords(on_line)
        assert self._warm is not None, "it was not started"
        try:
            if self._is_one_shot(assignment.spec):
                return await self._run_once(assignment, said, started)
            return await self._run_warm(self._warm, assignment, said, started)
        except StillBorn as error:
            return Verdict(error.failure, startup_s=time.monotonic() - started)
        except RuntimeUnavailable:
            await self._ask_again()
            raise

    async def close(self) -> None:
        """Nothing of this boot is left."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        if self._warm is not None:
            await self._warm.close()
        try:
            await self._containers.reconcile()
        except (EngineAway, EngineError) as error:
            log.error("containers may be left for the next start to remove", reason=str(error))
        await asyncio.to_thread(self._dirs.close)
        await self._engine.close()

    def _is_one_shot(self, spec: FunctionSpec) -> bool:
        return not self.keeps_warm if spec.one_shot is None else spec.one_shot

    async def _run_warm(
        self, warm: WarmSandboxes, assignment: Assignment, said: LastWords, started: float
    ) -> Verdict:
        ran = None
        while ran is None:
            async with warm.lease(assignment.spec) as lease:
                # What a function has spoilt after its answer is not the next call's to suffer.
                if lease.sandbox.quiet:
                    ran = await lease.sandbox.run(assignment, said)
                    lease.reusable = lease.sandbox.reusable
                    lease.cpu_s = ran.answer.cpu_time_s
        verdict = _verdict(ran.answer, ran.output, lease.sandbox.image)
        return replace(
            verdict,
            startup_s=ran.handed - started,
            run_s=ran.ended - ran.handed,
            start_kind=_START_KINDS[lease.kind],
        )

    async def _run_once(self, assignment: Assignment, said: LastWords, started: float) -> Verdict:
        output = Output(said, self._limits)
        async with self._maker.one_shot(assignment, output) as sandbox:
            failure = await sandbox.greeted()
            handed = time.monotonic()
            answer = Answer(failure) if failure else await sandbox.run(assignment, output, said)
            ended = time.monotonic()
            answer = await sandbox.finish(output, answer)
        verdict = _verdict(answer, output, sandbox.image)
        return replace(verdict, startup_s=handed - started, run_s=ended - handed)

    def _warm_sandboxes(self, budget: Budget, host_memory_mb: int) -> WarmSandboxes:
        budget = replace(
            budget,
            memory_mb=budget.memory_mb or host_memory_mb // 2,
            prewarmed={
                name: number
                for name, number in budget.prewarmed.items()
                if name in self._images and self.keeps_warm
            },
        )
        prewarmed = Limits(budget.prewarmed_memory_mb, PREWARMED_CPUS)
        return WarmSandboxes(Pool(budget, time.monotonic), self._maker, prewarmed)

    async def _look_for_images(self) -> None:
        found = {}
        for runtime, reference in IMAGES.items():
            try:
                found[runtime] = await self._engine.image_id(reference)
            except NotThere:
                if runtime in self._images or not self._images:
                    log.warning("a runtime's image is not there", image=reference)
        self._images = found

    async def _ask_again(self) -> None:
        """Have no images while the engine is away.

        So offers are declined, which costs them no start, until `_tend` finds it again.
        """
        try:
            await self._look_for_images()
        except (EngineAway, EngineError) as error:
            log.warning("the engine cannot be asked", reason=str(error))
            self._images = {}

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await self._look_for_images()
                await self._containers.reconcile()
            except (EngineAway, EngineError) as error:
                log.warning("the engine cannot be asked", reason=str(error))


def _verdict(answer: Answer, output: Output, image: str) -> Verdict:
    return Verdict(
        failure=answer.failure,
        result=answer.result,
        large_result=answer.large_result,
        result_type=answer.result_type,
        cpu_time_s=answer.cpu_time_s,
        peak_memory_bytes=answer.peak_memory_bytes,
        load_s=answer.load_s,
        image=image,
        logs_truncated=output.truncated,
    )
