"""Makes sandboxes in Docker: for one invocation, or to be used again.

A sandbox for one invocation is created for it, as `docker run` would: payload and
handler in its environment, its output read by attaching. One to be used again is
told everything over its socket, and may be started before its function is known.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from services.worker.containers import Container, Containers
from services.worker.conversation import Answer, Listener
from services.worker.go_build import BINARY
from services.worker.hardening import RUN_DIR, Limits, Owner, function_container
from services.worker.output import Output
from services.worker.pipes import Pipes
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    OutputLimits,
    RuntimeUnavailable,
    link_or_copy,
)
from services.worker.sandbox import ENVIRONMENT, LastWords, Sandbox
from services.worker.sandbox_dirs import SandboxDir, SandboxDirs

IMAGES = {
    "python": "faas-runtime-python:latest",
    "node": "faas-runtime-node:latest",
    "go": "faas-runtime-go:latest",
}
# Where prewarmed sandboxes have their directories: they belong to no function yet.
NO_FUNCTION = "prewarmed"


class StillBorn(Exception):
    """The sandbox could not come up within the function's own limits."""

    def __init__(self, failure: FunctionFailure) -> None:
        """As the function's failure."""
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Ran:
    """One execution in a warm sandbox."""

    answer: Answer
    output: Output
    handed: float
    """When the function's code had it, and when it had answered, by the monotonic clock."""
    ended: float


class WarmSandbox:
    """A sandbox that is up, and is used for one invocation after the other."""

    def __init__(
        self,
        *,
        container: Container,
        sandbox: Sandbox,
        directory: SandboxDir,
        pipes: Pipes,
        limits: Limits,
        output_limits: OutputLimits,
        everything: AsyncExitStack,
        fitted: bool,
    ) -> None:
        """Leaving `everything` removes it."""
        self.fitted = fitted
        """It has its function's code and limits."""
        self._container = container
        self._sandbox = sandbox
        self._directory = directory
        self._pipes = pipes
        self._limits = limits
        self._output_limits = output_limits
        self._everything = everything
        self._cpu_time_s = 0.0

    @property
    def image(self) -> str:
        """The digest of its image."""
        return self._sandbox.image

    @property
    def exited(self) -> "asyncio.Task[int]":
        """Done when it is dead."""
        return self._container.exited

    @property
    def reusable(self) -> bool:
        """Whether the last invocation left it as it was before."""
        return self._sandbox.intact and not self._container.exited.done()

    @property
    def quiet(self) -> bool:
        """Whether it has done nothing since that speaks against using it."""
        return self._sandbox.silent and self._pipes.quiet

    async def fit(self, spec: FunctionSpec, limits: Limits) -> None:
        """Make a prewarmed one this function's. Raises RuntimeUnavailable."""
        if limits != self._limits:
            await self._container.update(limits)
            self._limits = limits
            self._sandbox.limits = limits
        self.fitted = True
        try:
            await asyncio.to_thread(_fill, self._directory, spec, True)
        except OSError as error:
            raise RuntimeUnavailable(f"the code cannot be given to a sandbox: {error}") from error

    async def run(self, assignment: Assignment, said: LastWords) -> Ran:
        """Run one invocation in it. Raises RuntimeUnavailable."""
        output = Output(said, self._output_limits)
        if assignment.spec.program_mode:
            await self._put_payload(assignment)
        await self._pipes.turn_to(output)
        handed = time.monotonic()
        try:
            answer = await self._sandbox.run(assignment, output, said)
        finally:
            ended = time.monotonic()
            await self._pipes.turn_away()
        return Ran(self._sandbox.judge(self._since_last(answer), output), output, handed, ended)

    async def close(self) -> None:
        """Kill and remove it. Nothing is left."""
        await self._everything.aclose()

    async def _put_payload(self, assignment: Assignment) -> None:
        if assignment.large_payload is None:
            _write_payload(self._directory, assignment)
            return
        try:
            await asyncio.to_thread(_write_payload, self._directory, assignment)
        except OSError as error:
            raise RuntimeUnavailable(f"the payload cannot be given: {error}") from error

    def _since_last(self, answer: Answer) -> Answer:
        """The sandbox counts its CPU time from its start: what was used since the last answer."""
        if answer.cpu_time_s is None:
            return answer
        used_s = max(answer.cpu_time_s - self._cpu_time_s, 0.0)
        self._cpu_time_s = answer.cpu_time_s
        return replace(answer, cpu_time_s=used_s)


class SandboxMaker:
    """Makes the sandboxes of one boot of a worker."""

    def __init__(
        self,
        *,
        containers: Containers,
        dirs: SandboxDirs,
        owner: Owner,
        network: str,
        cpus: int,
        output_limits: OutputLimits,
    ) -> None:
        """On `network`, of a host with so many `cpus`."""
        self._containers = containers
        self._dirs = dirs
        self._owner = owner
        self._network = network
        self._cpus = cpus
        self._output_limits = output_limits

    def limits(self, spec: FunctionSpec) -> Limits:
        """What a function may use on this host: the engine refuses CPUs that are not there."""
        return Limits(spec.memory_mb, min(spec.cpus, self._cpus))

    @asynccontextmanager
    async def one_shot(self, assignment: Assignment, output: Output) -> AsyncIterator[Sandbox]:
        """A started sandbox with its payload, as long as the block runs.

        Raises RuntimeUnavailable.
        """
        spec = assignment.spec
        async with self._dirs.sandbox(spec.function_id) as directory:
            try:
                listener = await asyncio.to_thread(_furnish, directory, assignment)
            except OSError as error:
                raise RuntimeUnavailable(f"no sandbox could be made: {error}") from error
            limits = self.limits(spec)
            container = function_container(
                owner=self._owner,
                image=IMAGES[spec.runtime],
                network=self._network,
                limits=limits,
                code_dir=spec.code_dir.resolve(),
                run_dir=directory.run_dir,
                environment=_environment(assignment),
                labels={**_labels(spec), "faas.invocation": assignment.invocation_id},
            )
            try:
                async with self._containers.running(directory.name, container, output) as running:
                    sandbox = Sandbox(running, listener, limits, self._output_limits)
                    try:
                        yield sandbox
                    finally:
                        sandbox.close()
            finally:
                listener.close()

    async def warm(self, runtime: str, limits: Limits, spec: FunctionSpec | None) -> WarmSandbox:
        """A sandbox that has said hello, for a function or, without one, for any.

        Raises RuntimeUnavailable and StillBorn.
        """
        async with AsyncExitStack() as stack:
            function = spec.function_id if spec else NO_FUNCTION
            directory = await stack.enter_async_context(self._dirs.sandbox(function))
            try:
                listener, pipes = await asyncio.to_thread(_prepare, directory, spec)
            except OSError as error:
                raise RuntimeUnavailable(f"no sandbox could be made: {error}") from error
            stack.callback(listener.close)
            stack.callback(pipes.close)
            pipes.listen()
            container = function_container(
                owner=self._owner,
                image=IMAGES[runtime],
                network=self._network,
                limits=limits,
                code_dir=spec.code_dir.resolve() if spec else directory.path / "code",
                run_dir=directory.run_dir,
                environment={**ENVIRONMENT, "FUNCTION_OUTPUT": RUN_DIR},
                labels=_labels(spec) if spec else {},
            )
            running = await stack.enter_async_context(
                self._containers.running(directory.name, container)
            )
            sandbox = Sandbox(running, listener, limits, self._output_limits)
            stack.callback(sandbox.close)
            if (failure := await sandbox.greeted()) is not None:
                raise StillBorn(failure)
            return WarmSandbox(
                container=running,
                sandbox=sandbox,
                directory=directory,
                pipes=pipes,
                limits=limits,
                output_limits=self._output_limits,
                everything=stack.pop_all(),
                fitted=spec is not None,
            )
        raise AssertionError("an exit stack swallows nothing")


def _furnish(directory: SandboxDir, assignment: Assignment) -> Listener:
    """Payload, socket and what was built, where the sandbox's user can reach them."""
    _write_payload(directory, assignment)
    _fill(directory, assignment.spec, code=False)
    return Listener(directory.socket)


def _prepare(directory: SandboxDir, spec: FunctionSpec | None) -> tuple[Listener, Pipes]:
    if spec is None:
        (directory.path / "code").mkdir()
        (directory.path / "code").chmod(0o755)
    else:
        _fill(directory, spec, code=False)
    listener = Listener(directory.socket)
    try:
        return listener, Pipes(directory.run_dir)
    except OSError:
        listener.close()
        raise


def _fill(directory: SandboxDir, spec: FunctionSpec, code: bool) -> None:
    """What was built and, where it is not mounted, the code."""
    if spec.runtime == "go":
        link_or_copy(spec.build_dir / BINARY, directory.run_dir / BINARY)
    if code:
        shutil.copytree(
            spec.code_dir,
            directory.path / "code",
            symlinks=True,
            copy_function=link_or_copy,
            dirs_exist_ok=True,
        )


def _write_payload(directory: SandboxDir, assignment: Assignment) -> None:
    assignment.write_payload(directory.payload)
    directory.payload.chmod(0o644)


def _environment(assignment: Assignment) -> dict[str, str]:
    """What the container is created with: never the user's variables, which anyone may inspect."""
    environment = {**ENVIRONMENT, "FUNCTION_HANDLER": assignment.spec.handler}
    if (variable := assignment.payload_variable) is not None:
        environment["FUNCTION_PAYLOAD"] = variable
    return environment


def _labels(spec: FunctionSpec) -> dict[str, str]:
    return {"faas.function": spec.function_id, "faas.version": str(spec.version)}
