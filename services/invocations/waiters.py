"""Waiting for verdicts: who waits is told, and nobody polls for it.

A verdict of this replica reaches its waiters directly; that of another as a change
(`changes`). Losing such a notice costs latency, never an answer: what is waited for is
read once a second, in one query for all.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from services.background import run_together
from services.invocations.database import UNAVAILABLE
from services.invocations.records import Record, Records

READ_AGAIN_S = 1.0

log = structlog.get_logger()


class Waiter:
    """One call that waits for one invocation."""

    def __init__(self) -> None:
        """Begin to wait."""
        self._ended: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()

    async def wait(self, timeout_s: float) -> Record | None:
        """The ended record; None if it does not end within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._ended)
        except TimeoutError:
            return None

    def tell(self, record: Record | None) -> None:
        """End the wait, with the verdict or without."""
        if not self._ended.done():
            self._ended.set_result(record)


class Waiters:
    """All waiting calls of this replica."""

    def __init__(self, records: Records) -> None:
        """Read verdicts of other replicas from `records`."""
        self._records = records
        self._waiting: defaultdict[UUID, set[Waiter]] = defaultdict(set)
        self._changed: set[UUID] = set()
        self._some = asyncio.Event()
        self._closed = False

    @asynccontextmanager
    async def waiter(self, invocation_id: UUID) -> AsyncIterator[Waiter]:
        """Wait for an invocation; register before it can end."""
        waiter = Waiter()
        if self._closed:
            waiter.tell(None)
        self._waiting[invocation_id].add(waiter)
        try:
            yield waiter
        finally:
            self._waiting[invocation_id].discard(waiter)
            if not self._waiting[invocation_id]:
                del self._waiting[invocation_id]

    def ended(self, records: Iterable[Record]) -> None:
        """Tell, after the commit, whoever waits here for these."""
        for record in records:
            self._tell(record)

    def changed(self, invocation_ids: Iterable[UUID]) -> None:
        """Hear that some replica has changed these."""
        wanted = self._waiting.keys() & set(invocation_ids)
        if wanted:
            self._changed |= wanted
            self._some.set()

    def close(self) -> None:
        """End all waits without a verdict: the server is going."""
        self._closed = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.tell(None)

    async def run(self) -> None:
        """Read what others have ended until cancelled."""
        await run_together(self._read_changed(), self._read_again())

    def _tell(self, record: Record) -> None:
        for waiter in self._waiting.get(record.id, ()):
            waiter.tell(record)

    async def _tell_those_ended(self, invocation_ids: Iterable[UUID]) -> None:
        wanted = [key for key in invocation_ids if key in self._waiting]
        if wanted:
            for record in await self._records.find_all(wanted):
                if record.ended:
                    self._tell(record)

    async def _read_changed(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            changed, self._changed = self._changed, set()
            await self._read(changed)

    async def _read_again(self) -> None:
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            await self._read(list(self._waiting))

    async def _read(self, invocation_ids: Iterable[UUID]) -> None:
        try:
            await self._tell_those_ended(invocation_ids)
        except UNAVAILABLE as error:
            log.warning("reading what is waited for has to wait", error=str(error))
