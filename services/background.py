"""Tasks that run as long as a process serves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loops` while this is entered, and cancel them at its end.

    One that fails of itself is a mistake of ours: it ends the others and the body,
    and so the process, loudly, and whoever supervises it starts it anew.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
