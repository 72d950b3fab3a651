"""Waiting for verdicts: who waits is told, and nobody polls for it.

A verdict of this replica reaches its waiters directly; that of another by Redis
(ids only, after the commit). Losing such a notice costs latency, never an answer:
what is waited for is read once a second, in one query for all.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.background import run_together
from services.invocations.database import UNAVAILABLE
from services.invocations.records import Record, Records

CHANNEL = "faas:verdicts"
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

    def __init__(self, records: Records, redis: "Redis") -> None:
        """Read verdicts of other replicas from `records`, told of them by `redis`."""
        self._records = records
        self._redis = redis
        self._waiting: defaultdict[UUID, set[Waiter]] = defaultdict(set)
        self._to_publish: asyncio.Queue[UUID] = asyncio.Queue(maxsize=100_000)
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
        """Tell, after the commit, whoever waits for these, here and at other replicas."""
        for record in records:
            self._tell(record)
            try:
                self._to_publish.put_nowait(record.id)
            except asyncio.QueueFull:
                # Redis has been away for long; other replicas read them by themselves.
                continue

    def close(self) -> None:
        """End all waits without a verdict: the server is going."""
        self._closed = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.tell(None)

    async def run(self) -> None:
        """Tell and listen until cancelled."""
        await run_together(self._publish(), self._listen(), self._read_again())

    def _tell(self, record: Record) -> None:
        for waiter in self._waiting.get(record.id, ()):
            waiter.tell(record)

    async def _tell_those_ended(self, invocation_ids: Iterable[UUID]) -> None:
        wanted = [key for key in invocation_ids if key in self._waiting]
        if wanted:
            for record in await self._records.find_all(wanted):
                if record.ended:
                    self._tell(record)

    async def _publish(self) -> None:
        while True:
            batch = [await self._to_publish.get()]
            while not self._to_publish.empty() and len(batch) < 1000:
                batch.append(self._to_publish.get_nowait())
            try:
                await self._redis.publish(CHANNEL, " ".join(map(str, batch)))
            except (RedisError, OSError) as error:
                log.warning("could not tell other replicas of verdicts", error=str(error))

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    async for message in channel.listen():
                        ids = [UUID(text) for text in message["data"].decode().split()]
                        await self._tell_those_ended(ids)
            except (RedisError, OSError, ValueError, *UNAVAILABLE) as error:
                log.warning("listening for verdicts has to wait", error=str(error))
                await asyncio.sleep(READ_AGAIN_S)

    async def _read_again(self) -> None:
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            try:
                await self._tell_those_ended(list(self._waiting))
            except UNAVAILABLE as error:
                log.warning("reading what is waited for has to wait", error=str(error))
