"""Telling of changes: who keeps what was resolved hears of each, and says so.

A change is announced after its commit, to the watchers of this replica directly and
to other replicas by NOTIFY. The call that made it answers when all have acted on it,
or after `LIMIT_S`, which is also the longest that a watcher may keep anything: so
even a notice that is lost costs no more than that.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import structlog

from services.ids import new_uuid

CHANNEL = "faas_functions"
APPLICATION = "faas-functions-changes"
"""By this name the replicas see each other among PostgreSQL's sessions."""
LIMIT_S = 1.0
TROUBLE_S = 1.0

log = structlog.get_logger()


class Watcher:
    """One who hears of changes."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.changes: asyncio.Queue[tuple[int, UUID] | None] = asyncio.Queue()
        """Numbered, in order; None: no more will come."""
        self.acknowledged = 0


class Changes:
    """The changes of functions, from this replica and the others."""

    def __init__(self, database_url: str) -> None:
        """Hear other replicas, and be heard, by the PostgreSQL at `database_url` (libpq form)."""
        self._url = database_url
        self._replica = str(new_uuid())
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._number = 0
        self._watchers: set[Watcher] = set()
        self._progress = asyncio.Condition()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Hear of every change that is announced from now on."""
        watcher = Watcher()
        watcher.acknowledged = self._number
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            await self._notify_waiting()

    async def acknowledge(self, watcher: Watcher, number: int) -> None:
        """Note that `watcher` has acted on all changes up to this one."""
        watcher.acknowledged = max(watcher.acknowledged, number)
        await self._notify_waiting()

    async def announce(self, function_id: UUID) -> None:
        """Tell everybody that a function was changed; return when they know."""
        number = self._tell(function_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                await asyncio.gather(self._heard(number), self._tell_replicas(function_id))

    async def run(self) -> None:
        """Hear what other replicas announce, until cancelled."""
        while True:
            try:
                await self._listen()
            except psycopg.OperationalError as error:
                log.warning("hearing of other replicas' changes has to wait", error=str(error))
            await asyncio.sleep(TROUBLE_S)

    def close(self) -> None:
        """End all watches: the server is going."""
        for watcher in self._watchers:
            watcher.changes.put_nowait(None)

    def _tell(self, function_id: UUID) -> int:
        self._number += 1
        for watcher in self._watchers:
            watcher.changes.put_nowait((self._number, function_id))
        return self._number

    async def _heard(self, number: int) -> None:
        async with self._progress:
            await self._progress.wait_for(
                lambda: all(watcher.acknowledged >= number for watcher in self._watchers)
            )

    async def _notify_waiting(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def _tell_replicas(self, function_id: UUID) -> None:
        if self._connection is None:
            # Whether there are others is not known.
            await asyncio.sleep(LIMIT_S)
            return
        try:
            notice = (CHANNEL, f"{self._replica} {function_id}")
            await self._connection.execute("SELECT pg_notify(%s, %s)", notice)
            query = """SELECT count(*) FROM pg_stat_activity
              WHERE application_name = %s AND datname = current_database()"""
            row = await (await self._connection.execute(query, [APPLICATION])).fetchone()
        except psycopg.Error as error:
            log.warning("other replicas could not be told of a change", error=str(error))
            return
        if row != (1,):
            # Others cannot acknowledge here; within the limit whatever is kept has aged.
            await asyncio.sleep(LIMIT_S)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name=APPLICATION
        ) as listening:
            await listening.execute(f"LISTEN {CHANNEL}")
            async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as telling:
                self._connection = telling
                try:
                    async for notice in listening.notifies():
                        replica, _, function_id = notice.payload.partition(" ")
                        if replica != self._replica:
                            self._tell(UUID(function_id))
                finally:
                    self._connection = None
