"""Runs a part so that it dies, or goes deaf, at a point that its rig file names.

`python -m tests.faults.rigged services.worker`, with FAAS_RIG naming the file. The
part's own code is as it is; its methods are wrapped from outside. A rig that has
gone off removes its file, so it goes off once.
"""

import asyncio
import gc
import os
import runpy
import signal
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

RIG = Path(os.environ["FAAS_RIG"])
DEAF_TIMES = 10


def armed(point: str) -> bool:
    """Whether the rig file names this point."""
    try:
        return RIG.read_text() == point
    except FileNotFoundError:
        return False


def die_if_armed(point: str, args: tuple[Any, ...]) -> None:
    """kill -9 myself, here; the file beside the rig says of what this was the point."""
    if armed(point):
        about = args[0] if args else ""
        about = getattr(about, "invocation_id", about)
        RIG.with_suffix(".at").write_text(str(about))
        RIG.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def die_before(owner: type, method: str, point: str) -> None:
    """Die when `method` is called."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def rigged(self: Any, *args: Any, **kwargs: Any) -> Any:
        die_if_armed(point, args)
        return await original(self, *args, **kwargs)

    setattr(owner, method, rigged)


def die_after(owner: type, method: str, point: str) -> None:
    """Die when `method` has returned."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def rigged(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await original(self, *args, **kwargs)
        die_if_armed(point, args)
        return answer

    setattr(owner, method, rigged)


def rig_service() -> None:
    """Points of InvocationService."""
    from services.invocations.acceptance import Acceptance

    die_before(Acceptance, "_forward", "committed, not offered")
    die_after(Acceptance, "_forward", "offered, not answered")


def rig_worker() -> None:
    """Points of a worker."""
    from services.worker import spool
    from services.worker.execution import Execution
    from services.worker.intake import Intake
    from services.worker.link import Link

    die_before(Link, "start", "popped, not granted")
    die_before(Execution, "_run_granted", "granted, not started")
    die_before(Link, "finish", "ended, not reported")
    die_before(Intake, "acknowledge", "reported, not acknowledged")

    receive, heard = Link._receive, [0]

    def deaf(self: Any, response: Any) -> None:
        if armed("deaf") and any(d.HasField("recorded") for d in response.directives):
            heard[0] += 1
            if heard[0] >= DEAF_TIMES:
                RIG.unlink()
            # As if the stream had broken before the answer came.
            raise TimeoutError
        receive(self, response)

    Link._receive = deaf  # type: ignore[method-assign]

    allocate = spool._allocate

    def full(descriptor: int, size: int) -> None:
        if armed("disk full"):
            raise OSError(28, "No space left on device")
        allocate(descriptor, size)

    spool._allocate = full
    if "FAKETIME" in os.environ:
        fork_in_c_alone()


def fork_in_c_alone() -> None:
    """Start children without Python code between fork and exec.

    libfaketime has locks of its own, which its child of a process with threads finds
    locked for ever, as soon as Python sets itself up again in it.
    """
    from services.worker import processes

    original = processes.subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("preexec_fn", None)
        return original(*args, **kwargs)

    processes.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        **{**vars(processes.subprocess), "Popen": popen}
    )


def show_tasks(*_: object) -> None:
    """What every task waits for, to standard error: of a part that does not end."""
    for thing in gc.get_objects():
        if isinstance(thing, asyncio.Task) and not thing.done():
            print(thing.get_name(), thing.get_coro(), file=sys.stderr)


def main() -> None:
    """Rig the part, and run it as its `__main__` would."""
    signal.signal(signal.SIGUSR2, show_tasks)
    module = sys.argv.pop(1)
    if module == "services.invocations":
        rig_service()
    elif module == "services.worker":
        rig_worker()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
