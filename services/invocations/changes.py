"""Telling whoever watches, here and at other replicas, which records have changed.

Ids only, by Redis, after the commit, the publisher's own first. Losing such a notice
costs latency, never an event: what is watched is looked at once a second all the same.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.background import run_together
from services.ids import new_uuid

CHANNEL = "faas:changes"
# Changes wait so long for company on their way to other replicas.
GATHER_S = 0.01
TROUBLE_S = 1.0
MAX_BATCH = 1000

Listener = Callable[[Iterable[UUID]], None]

log = structlog.get_logger()


class Changes:
    """Which invocations have changed: told to the listeners of all replicas."""

    def __init__(self, redis: "Redis") -> None:
        """Tell other replicas by `redis`."""
        self._redis = redis
        self._listeners: list[Listener] = []
        self._distant: list[Listener] = []
        # Begins what this one publishes, which it need not hear.
        self._sender = new_uuid()
        # A dictionary is a set that keeps its order.
        self._untold: dict[UUID, None] = {}
        self._some = asyncio.Event()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the ids of what has changed, perhaps more than once."""
        self._listeners.append(listener)

    def listen_to_others(self, listener: Listener) -> None:
        """Call `listener` only with what has changed by another replica."""
        self._distant.append(listener)

    def tell(self, invocation_ids: Iterable[UUID]) -> None:
        """Say, after the commit, that these have changed."""
        told = list(invocation_ids)
        _call(self._listeners, told)
        self._untold.update(dict.fromkeys(told))
        self._some.set()

    async def run(self) -> None:
        """Publish and hear until cancelled."""
        await run_together(self._publish(), self._subscribe())

    async def _publish(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            untold, self._untold = list(self._untold), {}
            try:
                for start in range(0, len(untold), MAX_BATCH):
                    batch = untold[start : start + MAX_BATCH]
                    keys = [self._sender, *batch]
                    await self._redis.publish(CHANNEL, b"".join(key.bytes for key in keys))
            except (RedisError, OSError) as error:
                log.warning("could not tell other replicas of changes", error=str(error))
                await asyncio.sleep(TROUBLE_S)

    async def _subscribe(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    async for message in channel.listen():
                        # Anybody may publish there: what is no list of ids is nothing.
                        with suppress(ValueError):
                            sender, *changed = _ids(message["data"])
                            if sender != self._sender:
                                _call(self._listeners + self._distant, changed)
            except (RedisError, OSError) as error:
                log.warning("hearing of changes has to wait", error=str(error))
                await asyncio.sleep(TROUBLE_S)


def _call(listeners: Iterable[Listener], invocation_ids: Collection[UUID]) -> None:
    for listener in listeners:
        listener(invocation_ids)


def _ids(data: bytes) -> list[UUID]:
    return [UUID(bytes=data[start : start + 16]) for start in range(0, len(data), 16)]
