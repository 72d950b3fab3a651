"""How a stack is asked to end."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from services.supervisor.screen import Screen

Result = TypeVar("Result")


class Stopping:
    """SIGTERM, SIGINT or SIGHUP: the first asks for an end, the next for a quick one."""

    def __init__(self, screen: Screen) -> None:
        """Listen for them from now on, and say on `screen` that the first has come."""
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self._screen = screen
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)

    async def before(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """What `work` comes to; None, if an end is asked for before, and it is cancelled."""
        working = asyncio.create_task(work, name="start")
        asked = asyncio.create_task(self.asked.wait(), name="stop on signals")
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            asked.cancel()
            await asyncio.wait({working, asked})

    def _signalled(self) -> None:
        if not self.asked.is_set():
            self._screen.say("Ending: what runs may finish. Once more, and it is cut off.")
            self.asked.set()
        else:
            self.hurried.set()
