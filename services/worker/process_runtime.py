"""Functions as child processes of the worker: for development, it isolates nothing.

A function runs as the worker's user, sees its files and its network, and no limit
holds but time and output. Neither memory nor CPU is bounded.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from services.worker import toolchain
from services.worker.census import Census
from services.worker.conversation import (
    Answer,
    Conversation,
    Listener,
    NoShim,
    crashed,
    flooded,
    hung_up,
)
from services.worker.frames import ConnectionEnded
from services.worker.go_build import BINARY, ENVIRONMENT, Build, GoBuilder
from services.worker.output import Output
from services.worker.processes import Child, kill_marked
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    FunctionSpec,
    Line,
    OutputLimits,
    RuntimeUnavailable,
    Stream,
    Verdict,
)
from services.worker.sandbox_dirs import SandboxDir, SandboxDirs

# From starting an interpreter to its hello.
STARTUP_S = 30.0
# From its answer to the end of its process and of its output.
GRACE_S = 2.0

log = structlog.get_logger()


class ProcessRuntime:
    """One child process for each execution."""

    name = "process"
    keeps_warm = False

    def __init__(
        self, work_dir: Path, stack: str, worker_id: str, boot_id: str, limits: OutputLimits
    ) -> None:
        """Run below `work_dir`, within `limits`."""
        self._work_dir = work_dir.absolute()
        self._worker_id = worker_id
        self._dirs = SandboxDirs(self._work_dir, stack=stack, boot_id=boot_id)
        self._limits = limits
        self._census = Census()
        self._toolchain = toolchain.find()
        self._builder = GoBuilder(self._go, self._toolchain.go_sources, self._dirs)
        # Shared by all builds on this machine; the compiler locks what it must.
        self._go_cache = Path(tempfile.gettempdir()) / f"faas-go-{os.getuid()}"
        self._builds = 0

    async def start(self) -> None:
        """Say loudly what this is, and end what dead workers of this stack left running."""
        log.warning(
            "the process runtime isolates nothing: functions run as this user, with its"
            " files and network, without limits of memory and CPU; for development only",
            worker_id=self._worker_id,
            runtimes=sorted(self._toolchain.executables),
        )
        dead = await asyncio.to_thread(self._dirs.open)
        kill_marked(self._census, [f"{boot}-" for boot in dead])
        self._dirs.bury(dead)

    def images(self) -> Mapping[str, str]:
        """The languages that this machine has."""
        return dict.fromkeys(self._toolchain.executables, "process")

    async def target(self) -> str:
        """That of the compiler on this machine. Raises RuntimeUnavailable."""
        return await self._builder.target()

    async def build(self, spec: FunctionSpec) -> FunctionFailure | None:
        """Compile on this machine. Raises RuntimeUnavailable."""
        return await self._builder.build(spec)

    async def prepare(self, spec: FunctionSpec) -> None:
        """What is written in Go needs the launcher. Raises RuntimeUnavailable."""
        if spec.runtime == "go":
            await self._builder.launcher(self._launcher)

    def keep(self, wanted: Sequence[tuple[FunctionSpec, int]]) -> None:
        """Nothing: a process serves one invocation."""

    def holdings(self) -> None:
        """Nothing: a process serves one invocation."""

    async def execute(self, assignment: Assignment, on_line: Callable[[Line], None]) -> Verdict:
        """Run it in a process of its own. Raises RuntimeUnavailable."""
        started = time.monotonic()
        if not self._toolchain.has(assignment.spec.runtime):
            raise RuntimeUnavailable(f"this machine has no {assignment.spec.runtime}")
        output = Output(on_line, self._limits)
        async with self._dirs.sandbox(assignment.spec.function_id) as sandbox:
            try:
                listener = await asyncio.to_thread(_furnish, sandbox, assignment)
                try:
                    child = self._spawn(assignment, sandbox)
                except BaseException:
                    listener.close()
                    raise
            except OSError as error:
                raise RuntimeUnavailable(f"no process could be started: {error}") from error
            async with _Supervision(child, listener, output, self._limits) as supervision:
                conversation = await supervision.greeted()
                handed = time.monotonic()
                answer = await supervision.answer(conversation, assignment)
                ended = time.monotonic()
        return Verdict(
            failure=answer.failure,
            result=answer.result,
            large_result=answer.large_result,
            result_type=answer.result_type,
            startup_s=handed - started,
            run_s=ended - handed,
            load_s=answer.load_s,
            cpu_time_s=answer.cpu_time_s,
            peak_memory_bytes=answer.peak_memory_bytes,
            image="process",
            logs_truncated=output.truncated,
        )

    async def close(self) -> None:
        """Nothing of this boot is left."""
        kill_marked(self._census, [f"{self._dirs.boot}-"])
        await asyncio.to_thread(self._dirs.close)

    @property
    def _launcher(self) -> Path:
        return self._work_dir / f".launcher-{os.getuid()}-{self._dirs.boot}"

    def _spawn(self, assignment: Assignment, sandbox: SandboxDir) -> Child:
        spec = assignment.spec
        code_dir = spec.code_dir.resolve()
        environment = {
            **_base_environment(sandbox),
            "FUNCTION_HANDLER": spec.handler,
            "FUNCTION_PAYLOAD_FILE": str(sandbox.payload),
            "FUNCTION_SOCKET": str(sandbox.socket),
            "FUNCTION_CODE_DIR": str(code_dir),
            "FUNCTION_BINARY": str(spec.build_dir.resolve() / BINARY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if (variable := assignment.payload_variable) is not None:
            environment["FUNCTION_PAYLOAD"] = variable
        return Child(
            self._command(spec.runtime),
            cwd=code_dir,
            environment=environment,
            mark=sandbox.name,
            census=self._census,
        )

    def _command(self, runtime: str) -> list[str]:
        if runtime == "go":
            return [str(self._launcher)]
        shim = {"python": "shim.py", "node": "shim.js"}[runtime]
        executable = self._toolchain.executables[runtime]
        return [str(executable), str(self._toolchain.assets / runtime / shim)]

    async def _go(self, build: Build, timeout_s: float) -> tuple[int, str]:
        """Run the compiler on this machine."""
        if not self._toolchain.has("go"):
            raise RuntimeUnavailable("this machine has no Go")
        self._builds += 1
        environment = {
            **ENVIRONMENT,
            "PATH": os.defpath,
            "HOME": str(build.source),
            "GOPATH": str(self._go_cache / "path"),
            "GOCACHE": str(self._go_cache / "build"),
        }
        command = [str(self._toolchain.executables["go"]), *build.command]
        mark = f"{self._dirs.boot}-build{self._builds}"
        try:
            child = Child(
                command,
                cwd=build.source,
                environment=environment,
                mark=mark,
                census=self._census,
            )
        except OSError as error:
            raise RuntimeUnavailable(f"the Go compiler cannot run: {error}") from error
        lines: list[str] = []
        output = Output(lambda line: lines.append(line.text), self._limits)
        async with asyncio.timeout(timeout_s):
            try:
                stdout, stderr = child.streams()
                await asyncio.gather(
                    output.drain(Stream.STDOUT, stdout), output.drain(Stream.STDERR, stderr)
                )
                code = await child.wait()
            finally:
                await asyncio.shield(child.kill())
                child.close()
        return code, "\n".join(lines)


class _Supervision:
    """One child from its start to its end; leaving the block kills what is left of it."""

    def __init__(
        self, child: Child, listener: Listener, output: Output, limits: OutputLimits
    ) -> None:
        self._child = child
        self._listener = listener
        self._output = output
        self._limits = limits
        self._draining: list[asyncio.Task[None]] = []
        self._ending = asyncio.create_task(child.wait(), name="wait for a sandbox's process")
        self._conversation: Conversation | None = None

    async def __aenter__(self) -> "_Supervision":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        if self._conversation is not None:
            self._conversation.close()
        # It ends even if this is cancelled again: nothing may be left running.
        await asyncio.shield(self._end())

    async def _end(self) -> None:
        await self._child.kill()
        await self._ending
        # All that held the pipes is dead: their end is there, or is being read.
        if self._draining:
            _, pending = await asyncio.wait(self._draining, timeout=GRACE_S)
            for task in pending:
                task.cancel()
        self._child.close()

    async def greeted(self) -> Conversation:
        """The conversation, once the interpreter is up. Raises RuntimeUnavailable."""
        for stream, reader in zip(Stream, self._child.streams(), strict=True):
            task = asyncio.create_task(self._output.drain(stream, reader), name="drain")
            self._draining.append(task)
        greeting = asyncio.create_task(self._greeting(), name="wait for a shim")
        try:
            await asyncio.wait(
                {greeting, self._ending}, timeout=STARTUP_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not greeting.done():
                raise RuntimeUnavailable("the language's process did not come up")
            self._conversation = greeting.result()
        except (NoShim, ConnectionEnded, OSError) as error:
            raise RuntimeUnavailable(f"the language's process did not come up: {error}") from error
        finally:
            greeting.cancel()
        return self._conversation

    async def _greeting(self) -> Conversation:
        conversation = await self._listener.accept(self._limits)
        await conversation.greeting()
        return conversation

    async def answer(self, conversation: Conversation, assignment: Assignment) -> Answer:
        """What the function came to: its own answer, or how its process ended."""
        asking = asyncio.create_task(conversation.run(assignment), name="converse")
        flood = asyncio.create_task(self._output.flooded.wait(), name="watch for a flood")
        try:
            await asyncio.wait({asking, flood}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return Answer(flooded(self._limits.kill_bytes))
            answer = asking.result()
        except ConnectionEnded:
            return Answer(await self._broken_off())
        finally:
            asking.cancel()
            flood.cancel()
        self._child.note_below()
        conversation.close()
        if answer.failure is None or answer.cpu_time_s is not None:
            # It answered, and flushes its output; what hangs is killed.
            await asyncio.wait({self._ending, *self._draining}, timeout=GRACE_S)
        if self._output.flooded.is_set():
            failure = flooded(self._limits.kill_bytes)
            return replace(answer, failure=failure, result=b"", large_result=None)
        return answer

    async def _broken_off(self) -> FunctionFailure:
        """Why a conversation has no answer: its process died, or closed the connection."""
        done, _ = await asyncio.wait({self._ending}, timeout=GRACE_S)
        return crashed(self._ending.result()) if done else hung_up()


def _furnish(sandbox: SandboxDir, assignment: Assignment) -> Listener:
    """Payload, socket and a directory for the function's own files."""
    assignment.write_payload(sandbox.payload)
    (sandbox.path / "tmp").mkdir()
    return Listener(sandbox.socket)


def _base_environment(sandbox: SandboxDir) -> dict[str, str]:
    """Nothing of the worker's own: it may hold what functions must not see."""
    scratch = str(sandbox.path / "tmp")
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch}
