"""The queue in Redis: how work travels fast. Nothing here is the truth.

A message is an offer; it may be lost, doubled, forged or late without harm, because
a worker starts only what the record grants.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis

from faas.json_values import is_json
from services import ids
from services.invocations.records import Record

QUEUE = "faas:queue:faas_executions"
PROCESSING = f"{QUEUE}:processing:"
"""Followed by `<worker>:<boot>`: what that start of a worker has taken."""

# A JSON payload up to this size travels in the message, for people who look; the worker
# is given it with the grant.
SHOWN_PAYLOAD_BYTES = 4096


@dataclass(frozen=True)
class Offers:
    """All offers at one moment: those that wait, and each worker's."""

    waiting: list[bytes]
    taken: dict[str, list[bytes]]
    """By the name of the processing list."""

    def invocation_ids(self) -> set[UUID]:
        """The invocations that some message names."""
        everything = [self.waiting, *self.taken.values()]
        found = {invocation_id(message) for messages in everything for message in messages}
        return found - {None}  # type: ignore[return-value]


class Queue:
    """The queue and the workers' processing lists."""

    def __init__(self, redis: "Redis") -> None:
        """Use `redis`, which answers in bytes."""
        self._redis = redis

    async def offer(self, records: Sequence[Record]) -> int:
        """Push an offer of each, in order; returns the queue's length after it."""
        messages = [make_message(record) for record in records]
        return int(await self._redis.lpush(QUEUE, *messages))

    async def length(self) -> int:
        """How many offers wait."""
        return int(await self._redis.llen(QUEUE))

    async def snapshot(self) -> Offers:
        """The queue and all processing lists, as they were at one moment."""
        found = self._redis.scan_iter(match=f"{PROCESSING}*", count=1000)
        names = [name.decode() async for name in found]
        async with self._redis.pipeline(transaction=True) as pipeline:
            for name in (QUEUE, *names):
                pipeline.lrange(name, 0, -1)
            waiting, *taken = await pipeline.execute()
        return Offers(waiting, dict(zip(names, taken, strict=True)))

    async def forget(self, name: str, messages: Iterable[bytes]) -> None:
        """Take exactly these messages out of a processing list; never the list itself."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.lrem(name, 1, message)  # type: ignore[arg-type]
            await pipeline.execute()


def make_message(record: Record) -> bytes:
    """The offer of a record: JSON, readable by people."""
    message: dict[str, object] = {
        "invocation_id": ids.show(ids.INVOCATION, record.id),
        "function_id": ids.show(ids.FUNCTION, record.function_id),
        "function_version": record.function_version,
        "timeout": record.timeout_ms / 1000,
    }
    if record.alone:
        message["alone"] = True
    small = record.payload_blob is None and len(record.payload) <= SHOWN_PAYLOAD_BYTES
    shown = small and is_json(record.payload_type)
    if not shown:
        message["payload_omitted"] = True
    body = json.dumps(message, separators=(",", ":")).encode()
    # The payload is JSON already.
    return body[:-1] + b',"payload":' + record.payload + b"}" if shown else body


def invocation_id(message: bytes) -> UUID | None:
    """The invocation that a message names; None where it is no message of ours."""
    try:
        return ids.parse(ids.INVOCATION, json.loads(message)["invocation_id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
