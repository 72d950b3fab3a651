"""What one worker's functions print, on its way into the records.

Nothing else waits for it: what a flood of lines takes to be stored is not the worker's
other executions' to bear. Only what ends an attempt waits until the lines are stored that
were said before it. Of each attempt one chunk is stored at a time, all of them in one
statement, so that who prints little does not wait for who prints much.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from uuid import UUID

from services.invocations.logs import Chunk, Logs

MOST_CHUNKS = 32
"""Stored by one statement."""
# Of one worker, in characters. Beyond it the worker is not heard until there is room.
ROOM = 8 * 1024 * 1024


class LogIntake:
    """The chunks of one boot that wait to be stored."""

    def __init__(self, logs: Logs, boot: UUID) -> None:
        """Store chunks that `boot` sends in `logs`."""
        self._logs = logs
        self._boot = boot
        self._waiting: dict[UUID, deque[Chunk]] = {}
        """By invocation; whose turn is next is first."""
        self._size = 0
        self._stored = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def put(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks, each invocation's in their order."""
        for chunk in chunks:
            self._waiting.setdefault(chunk.invocation_id, deque()).append(chunk)
            self._size += chunk.size

    async def room(self) -> None:
        """Return once there is room for more."""
        while self._size > ROOM:
            await self._stored.wait()

    async def settled(self, invocation_id: UUID) -> None:
        """Return once nothing of the invocation waits."""
        while invocation_id in self._waiting:
            await self._stored.wait()

    async def store(self) -> None:
        """Store what waits until nothing does. Raises psycopg.Error."""
        while self._waiting:
            turn = list(self._waiting)[:MOST_CHUNKS]
            chunks = [self._waiting[key][0] for key in turn]
            await self._logs.append(chunks, self._boot)
            for key, chunk in zip(turn, chunks, strict=True):
                # To the end of the row, or out of it.
                row = self._waiting.pop(key)
                row.popleft()
                self._size -= chunk.size
                if row:
                    self._waiting[key] = row
            self._stored.set()
            self._stored.clear()
