"""One sandbox: a container, its directory on the host, and the conversation inside.

How it ends is found out here. What the function did is an answer; what was done to
its container from outside, or what the engine failed to do, is the platform's.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from faas.v1.invocation_pb2 import Invocation
from services.worker.containers import SIGNALLED, Container
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
from services.worker.hardening import MIB, RUN_DIR, Limits
from services.worker.output import Output
from services.worker.runtime import (
    Assignment,
    FunctionFailure,
    Line,
    OutputLimits,
    RuntimeUnavailable,
    Stream,
)

# From a container's start to its shim's hello, on a machine that is busy.
STARTUP_S = 60.0
# From the end of a conversation to that of its container and output.
GRACE_S = 5.0

_SIGABRT = 6
_SIGKILL = 9
_MAX_SIGNAL = 64

ENVIRONMENT: Mapping[str, str] = {
    "FUNCTION_SOCKET": f"{RUN_DIR}/s",
    "FUNCTION_PAYLOAD_FILE": f"{RUN_DIR}/payload",
    "FUNCTION_BINARY": f"{RUN_DIR}/handler",
}
"""Where a sandbox finds what the worker has put into `SandboxDir.run_dir`."""


@dataclass
class LastWords:
    """Lines on their way, and whether V8 was heard giving up before the kernel had to."""

    on_line: Callable[[Line], None]
    heap_exhausted: bool = False

    def __call__(self, line: Line) -> None:
        """Note and pass on."""
        if line.stream is Stream.STDERR and "heap out of memory" in line.text:
            self.heap_exhausted = True
        self.on_line(line)


class Sandbox:
    """A started container with the worker's end of its socket."""

    def __init__(
        self, container: Container, listener: Listener, limits: Limits, output_limits: OutputLimits
    ) -> None:
        """The shim in `container` connects to `listener`."""
        self._container = container
        self._listener = listener
        self.limits = limits
        self._output_limits = output_limits
        self._conversation: Conversation | None = None
        self._answered = False

    @property
    def image(self) -> str:
        """The digest of the image that it runs."""
        return self._container.image

    async def greeted(self) -> FunctionFailure | None:
        """Wait until its interpreter is up.

        A failure says that the memory does not suffice for that. Raises RuntimeUnavailable.
        """
        greeting = asyncio.create_task(self._greeting(), name="wait for a shim")
        waited = {greeting, self._container.exited}
        try:
            await asyncio.wait(waited, timeout=STARTUP_S, return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                greeting.result()
                return None
        except (NoShim, OSError) as error:
            raise RuntimeUnavailable(f"the sandbox did not come up: {error}") from error
        except ConnectionEnded:
            await asyncio.wait({self._container.exited}, timeout=GRACE_S)
        finally:
            greeting.cancel()
        return await self._still_birth()

    async def run(self, assignment: Assignment, output: Output, said: LastWords) -> Answer:
        """What the function comes to: its own answer, or how its container ended.

        Raises RuntimeUnavailable.
        """
        assert self._conversation is not None, "the sandbox was not greeted"
        asking = asyncio.create_task(self._conversation.run(assignment), name="converse")
        flood = asyncio.create_task(output.flooded.wait(), name="watch for a flood")
        try:
            await asyncio.wait({asking, flood}, return_when=asyncio.FIRST_COMPLETED)
            answer = asking.result() if asking.done() else Answer(self._flooded())
            # What answers for itself says what it has used.
            self._answered = answer.failure is None or answer.cpu_time_s is not None
        except ConnectionEnded:
            answer = await self._ended(said)
        finally:
            asking.cancel()
            flood.cancel()
        return await self._completed(answer, said)

    @property
    def intact(self) -> bool:
        """Whether it is as it was before it ran what it ran last."""
        return self._conversation is not None and self._conversation.intact

    @property
    def silent(self) -> bool:
        """Whether it has said nothing unasked."""
        return self._conversation is not None and self._conversation.silent

    async def finish(self, output: Output, answer: Answer) -> Answer:
        """End the conversation and wait for the last of the output; the answer, if it stands."""
        self.close()
        if self._answered:
            # It flushes its output; what hangs is killed.
            waited = {self._container.exited, self._container.output_read}
            await asyncio.wait(waited, timeout=GRACE_S)
        return self.judge(answer, output)

    def judge(self, answer: Answer, output: Output) -> Answer:
        """The answer, if it stands when all output has been read."""
        if output.flooded.is_set():
            return replace(answer, failure=self._flooded(), result=b"", large_result=None)
        return answer

    def close(self) -> None:
        """Say no more to it."""
        self._listener.close()
        if self._conversation is not None:
            self._conversation.close()

    async def _greeting(self) -> None:
        self._conversation = await self._listener.accept(self._output_limits)
        await self._conversation.greeting()

    async def _still_birth(self) -> FunctionFailure:
        if not self._container.exited.done():
            raise RuntimeUnavailable(f"the sandbox did not come up within {STARTUP_S:g} s")
        ending = await self._container.ending()
        if ending.out_of_memory:
            return self._out_of_memory("before the function was loaded")
        raise RuntimeUnavailable(f"the sandbox did not come up: exit code {ending.exit_code}")

    async def _ended(self, said: LastWords) -> Answer:
        """How a conversation broke off."""
        waited = {self._container.exited, self._container.output_read}
        done, _ = await asyncio.wait(waited, timeout=GRACE_S)
        if self._container.exited not in done:
            return Answer(hung_up())
        ending = await self._container.ending()
        if ending.out_of_memory or self._heap_exhausted(ending.exit_code, said):
            return self._oom_answer()
        signal = ending.exit_code - SIGNALLED
        return Answer(crashed(-signal if 0 < signal <= _MAX_SIGNAL else ending.exit_code))

    async def _completed(self, answer: Answer, said: LastWords) -> Answer:
        """`answer` with what only the engine knows."""
        failure = answer.failure
        if failure is None:
            return answer
        if failure.code == Invocation.FUNCTION_CRASHED and self._answered:
            # A program's child died, and its shim tells of it: it cannot know why.
            if failure.exit_code == SIGNALLED + _SIGKILL:
                if await self._container.ran_out_of_memory():
                    return replace(self._oom_answer(), cpu_time_s=answer.cpu_time_s)
            elif self._heap_exhausted(failure.exit_code, said):
                return replace(self._oom_answer(), cpu_time_s=answer.cpu_time_s)
        if not self._answered and not self._container.exited.done():
            usage = await self._container.usage()
            return replace(
                answer,
                cpu_time_s=usage.cpu_time_s,
                peak_memory_bytes=usage.peak_memory_bytes,
            )
        return answer

    def _heap_exhausted(self, exit_code: int, said: LastWords) -> bool:
        return exit_code == SIGNALLED + _SIGABRT and said.heap_exhausted

    def _oom_answer(self) -> Answer:
        failure = self._out_of_memory("while the function ran")
        return Answer(failure, peak_memory_bytes=self.limits.memory_mb * MIB)

    def _out_of_memory(self, when: str) -> FunctionFailure:
        message = f"{self.limits.memory_mb} MiB of memory were used up {when}; raise memory_mb."
        return FunctionFailure(Invocation.OUT_OF_MEMORY, message, exit_code=SIGNALLED + _SIGKILL)

    def _flooded(self) -> FunctionFailure:
        return flooded(self._output_limits.kill_bytes)
