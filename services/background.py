"""Tasks that run as long as a process serves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

# A task that has not ended so long after its cancellation may not have noticed it.
CANCEL_AGAIN_S = 1.0


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loops` while this is entered, and cancel them at its end.

    One that fails of itself is a mistake of ours: it ends the others and the body,
    and so the process, loudly, and whoever supervises it starts it anew.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(loop, name=getattr(loop, "__qualname__", None)) for loop in loops
        ]
        try:
            yield
        finally:
            await _end(tasks)


async def run_together(*loops: Coroutine[Any, Any, None]) -> None:
    """Run `loops` until this is cancelled, and then end them all."""
    async with running(*loops):
        await asyncio.Event().wait()


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancel until they have ended.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, by which drivers of Redis
    and PostgreSQL wait, loses a cancellation that comes in the moment in which the wait
    is over (https://github.com/python/cpython/issues/86296). Then a loop would go on,
    and the process with it.
    """
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
